/* Opens a bundle, runs it over one tile and prints what came out: run_tile NAME.eosfm */
#include <eosfm.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what, const char *why) {
  fprintf(stderr, "run_tile: %s: %s\n", what, why);
  return EXIT_FAILURE;
}

int main(int argc, char **argv) {
  char error[256] = "";
  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  eosfm_image image = EOSFM_IMAGE_INIT;
  eosfm_level levels[EOSFM_LEVELS];
  eosfm_model *model;
  eosfm_context *context;

  if (argc != 2) return fail("usage", "run_tile NAME.eosfm");
  open.error = error;
  open.error_size = sizeof error;
  if (eosfm_model_open(argv[1], &open, &model) != EOSFM_OK) return fail(argv[1], error);
  eosfm_model_describe(model, &info);
  if (eosfm_context_create(model, NULL, &context) != EOSFM_OK) {
    return fail("context", eosfm_model_get_error(model));
  }
  eosfm_model_close(model); /* what info points to stays as long as the context */

  /* The bands of an image may lie anywhere; here they are one array of 16-bit pixels. */
  size_t tile = (size_t)info.tile, bands = (size_t)info.bands, plane = tile * tile;
  uint16_t *pixels = malloc(bands * plane * sizeof *pixels);
  eosfm_band *band = malloc(bands * sizeof *band);
  if (!pixels || !band) return fail("image", "there is no memory");
  for (size_t i = 0; i < bands * plane; i++) pixels[i] = (uint16_t)(1000 + i % 997);
  for (size_t b = 0; b < bands; b++) {
    band[b] = (eosfm_band)EOSFM_BAND_INIT;
    band[b].data = pixels + b * plane;
    band[b].dtype = EOSFM_U16;
    band[b].column_stride = sizeof *pixels;
    band[b].row_stride = (ptrdiff_t)(tile * sizeof *pixels);
  }
  image.bands = band;
  image.band_count = bands;
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    size_t side = tile >> (l + 2);
    levels[l] = (eosfm_level)EOSFM_LEVEL_INIT;
    levels[l].row_stride = (ptrdiff_t)side;
    levels[l].channel_stride = (ptrdiff_t)(side * side);
    levels[l].data = malloc(side * side * (size_t)info.channels[l] * sizeof(float));
    if (!levels[l].data) return fail("levels", "there is no memory");
  }
  if (eosfm_context_run(context, &image, levels, NULL) != EOSFM_OK) {
    return fail("run", eosfm_context_get_error(context));
  }
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    printf("level %d: %d channels of %zu x %zu cells, the first is %g\n", l + 1, (int)info.channels[l],
           tile >> (l + 2), tile >> (l + 2), (double)levels[l].data[0]);
    free(levels[l].data);
  }
  free(band);
  free(pixels);
  eosfm_context_destroy(context);
  return EXIT_SUCCESS;
}
