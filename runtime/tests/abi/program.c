/* Gives and takes every struct of eosfm.h, and prints what comes out: program NAME.eosfm
 *
 * Compiled against headers of several versions, it prints the same with every library. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include <eosfm.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kMostFiles = 16, kMostPath = 1024 };

static eosfm_context *g_context;

static void require(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "program: %s: %s\n", what, g_context != NULL ? eosfm_context_get_error(g_context) : "");
  exit(EXIT_FAILURE);
}

static void *allocate(size_t size) {
  void *data = calloc(1, size);
  require(data != NULL, "there is no memory");
  return data;
}

/* The host's memory: what is live is counted. */
static void *give_memory(void *user, size_t size, size_t alignment) {
  void *memory = NULL;
  if (posix_memalign(&memory, alignment, size) != 0) return NULL;
  ++*(long *)user;
  return memory;
}

static void take_memory(void *user, void *memory, size_t size) {
  (void)size;
  free(memory);
  --*(long *)user;
}

static void log_line(void *user, eosfm_log_level level, const char *text) {
  (void)text;
  if (level == EOSFM_LOG_INFO) ++*(int *)user;
}

static void read_file(const char *bundle, const char *name, eosfm_file *file) {
  const eosfm_file none = EOSFM_FILE_INIT;
  char path[kMostPath];
  snprintf(path, sizeof path, "%s/%s", bundle, name);
  FILE *from = fopen(path, "rb");
  require(from != NULL && fseek(from, 0, SEEK_END) == 0, path);
  *file = none;
  file->path = name;
  file->size = (size_t)ftell(from);
  rewind(from);
  void *data = allocate(file->size + 1);
  require(fread(data, 1, file->size, from) == file->size, path);
  file->data = data;
  fclose(from);
}

static double sum(const float *values, size_t count) {
  double total = 0;
  for (size_t i = 0; i < count; i++) total += isnan(values[i]) ? 1 : (double)values[i];
  return total;
}

/* The engine of the host and the gate need no more than to be called with pointers that are right. */
static size_t g_level_sizes[EOSFM_LEVELS];

static int compute(void *user, const float *image, float *const *levels) {
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    for (size_t i = 0; i < g_level_sizes[l]; i++) levels[l][i] = image[i % 7] + (float)l;
  }
  ++*(int *)user;
  return 0;
}

static int opens(void *user, const float *const *levels, const int32_t *channels) {
  *(double *)user += sum(levels[EOSFM_LEVELS - 1], (size_t)channels[EOSFM_LEVELS - 1]);
  return 1;
}

static int progress(void *user, int32_t done, int32_t total) {
  *(int32_t *)user = done == total ? total : 0;
  return 0;
}

static void describe(eosfm_model *model, eosfm_model_info *info) {
  require(eosfm_model_describe(model, info) == EOSFM_OK, eosfm_model_get_error(model));
  printf("%s: %d bands, %d specialists, %d runs, tile %d, %d channels\n", info->name, (int)info->bands,
         (int)info->specialists, (int)info->runs, (int)info->tile, (int)info->channels[EOSFM_LEVELS - 1]);
  for (int32_t b = 0; b < info->bands; b++) {
    eosfm_band_info band = EOSFM_BAND_INFO_INIT;
    require(eosfm_model_describe_band(model, b, &band) == EOSFM_OK, eosfm_model_get_error(model));
    printf("band %s: %g %g %g %g %d %g\n", band.name, (double)band.wavelength_nm, (double)band.scale,
           (double)band.offset, (double)band.fill, (int)band.has_nodata, (double)band.nodata);
  }
  for (int32_t s = 0; s < info->specialists; s++) {
    eosfm_specialist_info one = EOSFM_SPECIALIST_INFO_INIT;
    require(eosfm_model_describe_specialist(model, s, &one) == EOSFM_OK, eosfm_model_get_error(model));
    printf("specialist %s: %s %s %d %d %g\n", one.name, one.backbone, one.licence, (int)one.bands,
           (int)one.runs, (double)one.factor);
  }
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  require(eosfm_model_get_requirements(model, NULL, &needs) == EOSFM_OK, eosfm_model_get_error(model));
  printf("needs: %d\n", needs.context_bytes > 0 && needs.weights_bytes > 0 && needs.mapped_bytes > 0);
}

static void run(const eosfm_model_info *info, const char *what) {
  const size_t side = (size_t)info->tile, plane = side * side, bands = (size_t)info->bands;
  float *pixels = allocate(bands * plane * sizeof *pixels);
  eosfm_band *band = allocate(bands * sizeof *band);
  const eosfm_band unset = EOSFM_BAND_INIT;
  for (size_t i = 0; i < bands * plane; i++) pixels[i] = (float)(100 + i % 61);
  for (size_t b = 0; b < bands; b++) {
    band[b] = unset;
    band[b].data = pixels + b * plane;
    band[b].column_stride = sizeof *pixels;
    band[b].row_stride = (ptrdiff_t)(side * sizeof *pixels);
  }
  eosfm_image image = EOSFM_IMAGE_INIT;
  image.bands = band;
  image.band_count = bands;
  uint8_t *mask = allocate(plane);
  memset(mask, 1, plane);
  memset(mask, 0, side);
  image.mask = mask;
  eosfm_level levels[EOSFM_LEVELS];
  const eosfm_level no_level = EOSFM_LEVEL_INIT;
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    levels[l] = no_level;
    levels[l].row_stride = (ptrdiff_t)(side >> (l + 2));
    levels[l].channel_stride = levels[l].row_stride * levels[l].row_stride;
    levels[l].data = allocate(g_level_sizes[l] * sizeof(float));
  }
  int32_t done = 0;
  uint8_t *present = allocate((size_t)info->specialists);
  eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
  options.deadline_ms = 600000;
  options.progress = progress;
  options.progress_user = &done;
  options.present = present;
  options.present_count = (size_t)info->specialists;
  require(eosfm_context_run(g_context, &image, levels, &options) == EOSFM_OK, "eosfm_context_run");
  printf("%s: progress %d, present %d:", what, (int)done, present[info->specialists - 1]);
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    printf(" %.9g", sum(levels[l].data, g_level_sizes[l]));
    free(levels[l].data);
  }
  printf("\n");
  free(mask);
  free(present);
  free(band);
  free(pixels);
}

static void stream(const eosfm_model_info *info) {
  const int32_t width = info->tile * 2 + 10, height = info->tile + 40;
  const size_t bands = (size_t)info->bands;
  uint16_t *row = allocate((size_t)width * sizeof *row);
  eosfm_stream_band *band = allocate(bands * sizeof *band);
  const eosfm_stream_band unset = EOSFM_STREAM_BAND_INIT;
  for (size_t b = 0; b < bands; b++) {
    band[b] = unset;
    band[b].dtype = EOSFM_U16;
  }
  for (int32_t x = 0; x < width; x++) row[x] = (uint16_t)(100 + x % 53);
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  options.width = width;
  options.bands = band;
  options.band_count = bands;
  options.levels[0] = 0;
  eosfm_stream_band mask = EOSFM_STREAM_BAND_INIT;
  mask.dtype = EOSFM_U8;
  options.mask = &mask;
  uint8_t *valid = allocate((size_t)width);
  memset(valid, 1, (size_t)width / 2);
  eosfm_stream *opened = NULL;
  require(eosfm_stream_create(g_context, &options, &opened) == EOSFM_OK, "eosfm_stream_create");
  eosfm_patch_level levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
  eosfm_patch patch = EOSFM_PATCH_INIT;
  patch.levels = levels;
  eosfm_status status;
  int32_t pushed = 0;
  while ((status = eosfm_stream_pull_patch(opened, NULL, &patch)) != EOSFM_END) {
    if (status == EOSFM_AGAIN && pushed < height) {
      for (size_t b = 0; b < bands; b++) {
        int32_t taken = 0;
        status = eosfm_stream_push_rows(opened, (int32_t)b, row, 1, width, &taken);
        require(status == EOSFM_OK && taken == 1, "eosfm_stream_push_rows");
      }
      int32_t taken = 0;
      status = eosfm_stream_push_rows(opened, EOSFM_STREAM_MASK, valid, 1, width, &taken);
      require(status == EOSFM_OK && taken == 1, "eosfm_stream_push_rows");
      pushed++;
    } else if (status == EOSFM_AGAIN) {
      eosfm_stream_end(opened);
    } else {
      require(status == EOSFM_OK, "eosfm_stream_pull_patch");
      printf("patch %" PRId64 " %d, skipped %d of %" PRId64 " of %" PRId64 ":", patch.tile_row,
             (int)patch.tile_column, (int)patch.skipped, patch.tiles_skipped, patch.tiles);
      for (int l = 0; l < EOSFM_LEVELS; l++) {
        const eosfm_patch_level *part = &levels[l];
        printf(" [%d %" PRId64 " %d %d %d", part->data != NULL, part->row, (int)part->column,
               (int)part->height, (int)part->width);
        if (part->data != NULL) {
          printf(" %.9g %.9g", sum(part->data, (size_t)part->width), sum(part->valid, (size_t)part->width));
        }
        printf("]");
      }
      printf("\n");
    }
  }
  eosfm_stream_destroy(opened);
  free(valid);
  free(band);
  free(row);
}

int main(int argc, char **argv) {
  char error[256] = "";
  int lines = 0, computed = 0;
  double seen = 0;
  eosfm_model *model = NULL;
  eosfm_file files[kMostFiles];
  require(argc >= 3 && argc - 2 <= kMostFiles, "usage: program NAME.eosfm FILE...");

  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  open.error = error;
  open.error_size = sizeof error;
  open.log = log_line;
  open.log_user = &lines;
  open.private_copy = 1;
  long live = 0;
  eosfm_allocator allocator = EOSFM_ALLOCATOR_INIT;
  allocator.allocate = give_memory;
  allocator.release = take_memory;
  allocator.user = &live;
  open.allocator = &allocator;
  require(eosfm_model_open(argv[1], &open, &model) == EOSFM_OK, error);
  require(live > 3, "the allocator is not used");
  eosfm_model_close(model);
  printf("%ld pieces of memory are left\n", live);
  open.private_copy = 0;
  open.allocator = NULL;
  for (int i = 2; i < argc; i++) read_file(argv[1], argv[i], &files[i - 2]);
  require(eosfm_model_open_memory(files, (size_t)argc - 2, &open, &model) == EOSFM_OK, error);
  printf("%d models were opened\n", lines);

  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  describe(model, &info);
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    const size_t side = (size_t)info.tile >> (l + 2);
    g_level_sizes[l] = side * side * (size_t)info.channels[l];
  }

  eosfm_gate gate = EOSFM_GATE_INIT;
  gate.open = opens;
  gate.user = &seen;
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = 1;
  options.gate = &gate;
  require(eosfm_context_create(model, &options, &g_context) == EOSFM_OK, eosfm_model_get_error(model));
  run(&info, eosfm_context_get_backend(g_context));
  stream(&info);
  eosfm_context_destroy(g_context);
  printf("the gate saw %.9g\n", seen);

  eosfm_engine engine = EOSFM_ENGINE_INIT;
  engine.compute = compute;
  engine.user = &computed;
  options.gate = NULL;
  options.engine = &engine;
  require(eosfm_context_create(model, &options, &g_context) == EOSFM_OK, eosfm_model_get_error(model));
  run(&info, eosfm_context_get_backend(g_context));
  eosfm_context_destroy(g_context);
  printf("the engine computed %d images\n", computed);
  eosfm_model_close(model);
  return EXIT_SUCCESS;
}
