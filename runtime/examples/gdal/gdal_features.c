/* Feature rasters of a GeoTIFF, or of a folder of JPEG 2000 bands: gdal_features BUNDLE SCENE OUTPUT */
#include <gdal.h>
#include <stdio.h>
#include <stdlib.h>

#include "features.h"

int main(int argc, char **argv) {
  char error[256] = "";
  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  eosfm_model *model = NULL;
  eosfm_context *context = NULL;
  int result = EXIT_FAILURE;
  if (argc != 4) {
    fprintf(stderr, "usage: gdal_features BUNDLE SCENE OUTPUT\n");
    return EXIT_FAILURE;
  }
  GDALAllRegister();
  open.error = error;
  open.error_size = sizeof error;
  if (eosfm_model_open(argv[1], &open, &model) != EOSFM_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], error);
  } else if (eosfm_context_create(model, NULL, &context) != EOSFM_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], eosfm_model_get_error(model));
  } else if (write_features(model, context, argv[2], argv[3]) == 0) {
    result = EXIT_SUCCESS;
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  GDALDestroyDriverManager();
  return result;
}
