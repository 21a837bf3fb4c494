#include "features.h"

#include <cpl_string.h>
#include <cpl_vsi.h>
#include <gdal.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "scene.h"
#include "values.h"

enum { kPath = 4096 };

/* Pushes some rows of every band. Returns 1; 0 at the scene's end; or -1. */
static int feed(Scene *scene, eosfm_stream *stream, eosfm_context *context) {
  int more = 0;
  for (int i = 0; i < scene->count; i++) {
    SceneBand *band = &scene->bands[i];
    int32_t taken = 0;
    const int count = read_band(scene, band, kRowsAtOnce / band->step > 0 ? kRowsAtOnce / band->step : 1);
    if (count < 0) return -1;
    if (count > 0 && eosfm_stream_push_rows(stream, i, scene->rows, count, band->width, &taken) != EOSFM_OK) {
      return complain("a band", eosfm_context_get_error(context));
    }
    band->at += taken; /* those that had no room are read again: GDAL still has them */
    more |= band->at < band->height;
  }
  return more;
}

static GDALDatasetH create_level(const Scene *scene, int level, int channels, const char *output) {
  const SceneBand *finest = &scene->bands[scene->finest];
  const int stride = 4 << level;
  GDALDatasetH origin = finest->dataset != NULL ? finest->dataset : scene->file;
  char **options = NULL;
  char path[kPath];
  double transform[6];
  GDALDatasetH dataset;
  snprintf(path, sizeof path, "%s/level%d.tif", output, level + 1);
  options = CSLSetNameValue(options, "TILED", "YES");
  options = CSLSetNameValue(options, "BLOCKXSIZE", "64");
  options = CSLSetNameValue(options, "BLOCKYSIZE", "64");
  options = CSLSetNameValue(options, "INTERLEAVE", "PIXEL");
  options = CSLSetNameValue(options, "BIGTIFF", "IF_SAFER");
  dataset = GDALCreate(GDALGetDriverByName("GTiff"), path, (scene->width + stride - 1) / stride,
                       (scene->height + stride - 1) / stride, channels, GDT_Float32, options);
  CSLDestroy(options);
  if (dataset == NULL) return NULL;
  memcpy(transform, finest->transform, sizeof transform);
  transform[1] *= stride;
  transform[2] *= stride;
  transform[4] *= stride;
  transform[5] *= stride;
  GDALSetGeoTransform(dataset, transform);
  GDALSetProjection(dataset, GDALGetProjectionRef(origin));
  GDALSetRasterNoDataValue(GDALGetRasterBand(dataset, 1), NAN);
  return dataset;
}

static int write_patch(const eosfm_patch *patch, GDALDatasetH *levels) {
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    const eosfm_patch_level *part = &patch->levels[l];
    const int channels = GDALGetRasterCount(levels[l]);
    if (GDALDatasetRasterIOEx(levels[l], GF_Write, part->column, (int)part->row, part->width, part->height,
                              (void *)part->data, part->width, part->height, GDT_Float32, channels, NULL,
                              sizeof(float), part->row_stride * (GSpacing)sizeof(float),
                              part->channel_stride * (GSpacing)sizeof(float), NULL) != CE_None) {
      return complain("a level cannot be written", CPLGetLastErrorMsg());
    }
  }
  return 0;
}

static int stream_scene(Scene *scene, eosfm_context *context, GDALDatasetH *levels) {
  eosfm_stream_band bands[kMostBands];
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  eosfm_patch_level parts[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
  eosfm_patch patch = EOSFM_PATCH_INIT;
  eosfm_stream *stream = NULL;
  int result = -1;
  for (int i = 0; i < scene->count; i++) {
    const eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
    bands[i] = band;
    bands[i].dtype = EOSFM_F32;
    bands[i].step = scene->bands[i].step;
    bands[i].row_origin = scene->bands[i].row_origin;
    bands[i].column_origin = scene->bands[i].column_origin;
    bands[i].calibrated = 1; /* what is no data comes as NaN */
    bands[i].scale = scene->bands[i].scale;
    bands[i].offset = scene->bands[i].offset;
  }
  patch.levels = parts;
  options.width = scene->width;
  options.bands = bands;
  options.band_count = (size_t)scene->count;
  if (eosfm_stream_create(context, &options, &stream) != EOSFM_OK) {
    return complain("the scene", eosfm_context_get_error(context));
  }
  for (;;) {
    const eosfm_status status = eosfm_stream_pull_patch(stream, NULL, &patch);
    if (status == EOSFM_OK) {
      if (write_patch(&patch, levels) != 0) break;
    } else if (status == EOSFM_AGAIN) {
      const int more = feed(scene, stream, context);
      if (more < 0) break;
      if (more == 0) eosfm_stream_end(stream);
    } else {
      result = status == EOSFM_END ? 0 : complain("the scene", eosfm_context_get_error(context));
      break;
    }
  }
  if (result == 0) {
    printf("%lld tiles, of which %lld without data\n", (long long)patch.tiles,
           (long long)patch.tiles_skipped);
  }
  eosfm_stream_destroy(stream);
  return result;
}

int write_features(eosfm_model *model, eosfm_context *context, const char *input, const char *output,
                   int trust_values) {
  Scene scene;
  GDALDatasetH levels[EOSFM_LEVELS] = {NULL, NULL, NULL, NULL};
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  int result;
  memset(&scene, 0, sizeof scene);
  eosfm_model_describe(model, &info);
  VSIMkdir(output, 0777);
  result = open_scene(&scene, model, input);
  if (result == 0 && !trust_values) result = require_plausible(&scene, model, input);
  for (int l = 0; l < EOSFM_LEVELS && result == 0; l++) {
    levels[l] = create_level(&scene, l, info.channels[l], output);
    if (levels[l] == NULL) result = complain(output, CPLGetLastErrorMsg());
  }
  if (result == 0) result = stream_scene(&scene, context, levels);
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    if (levels[l] == NULL) continue;
    CPLErrorReset();
    GDALClose(levels[l]); /* the last blocks are written here */
    if (result == 0 && CPLGetLastErrorType() >= CE_Failure) {
      result = complain(output, CPLGetLastErrorMsg());
    }
  }
  for (int l = 0; l < EOSFM_LEVELS && result != 0; l++) {
    char path[kPath];
    snprintf(path, sizeof path, "%s/level%d.tif", output, l + 1);
    VSIUnlink(path);
  }
  close_scene(&scene);
  return result;
}
