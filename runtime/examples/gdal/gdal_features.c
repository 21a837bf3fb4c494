/* Feature rasters of a GeoTIFF, or of a folder of JPEG 2000 bands: gdal_features [--trust-values] BUNDLE SCENE OUTPUT
 *
 * Values that cannot be what the bundle takes are refused, unless they are to be trusted. */
#include <gdal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "features.h"

int main(int argc, char **argv) {
  char error[256] = "";
  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  eosfm_model *model = NULL;
  eosfm_context *context = NULL;
  int result = EXIT_FAILURE;
  const int trust_values = argc > 1 && strcmp(argv[1], "--trust-values") == 0;
  argv += trust_values;
  if (argc - trust_values != 4) {
    fprintf(stderr, "usage: gdal_features [--trust-values] BUNDLE SCENE OUTPUT\n");
    return EXIT_FAILURE;
  }
  GDALAllRegister();
  open.error = error;
  open.error_size = sizeof error;
  if (eosfm_model_open(argv[1], &open, &model) != EOSFM_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], error);
  } else if (eosfm_context_create(model, NULL, &context) != EOSFM_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], eosfm_model_get_error(model));
  } else if (write_features(model, context, argv[2], argv[3], trust_values) == 0) {
    result = EXIT_SUCCESS;
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  GDALDestroyDriverManager();
  return result;
}
