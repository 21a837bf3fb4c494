#include "features.h"

#include <cpl_string.h>
#include <cpl_vsi.h>
#include <gdal.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { kMostBands = 64, kRowsAtOnce = 48, kPath = 4096 };

/* One band of the scene: where it is read from, and how far. */
typedef struct {
  GDALDatasetH dataset; /* opened for this band; or NULL, and it is of the scene's one file */
  GDALRasterBandH band;
  double transform[6];
  int dtype; /* an eosfm_dtype, and in GDAL's words */
  GDALDataType type;
  int step;
  int width;
  int height;
  int at; /* the next row that is pushed */
} Source;

typedef struct {
  GDALDatasetH file; /* if the input is one */
  Source bands[kMostBands];
  int count;
  int finest; /* the index of a band of the finest resolution */
  int width;
  int height;
  void *rows; /* kRowsAtOnce of the finest band */
} Scene;

static int complain(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return -1;
}

/* Whether a file's name says that it is a band's: "..._B02.jp2" or "..._B11_20m.tif". */
static int names_band(const char *file, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = strchr(file, '_'); at != NULL; at = strchr(at + 1, '_')) {
    const char after = strncmp(at + 1, name, length) == 0 ? at[1 + length] : 0;
    if (after == '.' || after == '_') return 1;
  }
  return 0;
}

static int open_band(Source *source, GDALRasterBandH band, GDALDatasetH dataset, const char *name) {
  source->band = band;
  source->type = GDALGetRasterDataType(band);
  source->width = GDALGetRasterBandXSize(band);
  source->height = GDALGetRasterBandYSize(band);
  switch (source->type) {
    case GDT_Byte: source->dtype = EOSFM_U8; break;
    case GDT_UInt16: source->dtype = EOSFM_U16; break;
    case GDT_Int16: source->dtype = EOSFM_I16; break;
    case GDT_Float32: source->dtype = EOSFM_F32; break;
    default: return complain(name, "its pixels are not of 8 or 16 bits, nor 32-bit floats");
  }
  if (GDALGetGeoTransform(dataset, source->transform) != CE_None) {
    static const double pixels[6] = {0, 1, 0, 0, 0, 1};
    memcpy(source->transform, pixels, sizeof pixels);
  }
  return 0;
}

static int find_in_file(Scene *scene, const char *input, const char *name, Source *source) {
  for (int i = 1; i <= GDALGetRasterCount(scene->file); i++) {
    GDALRasterBandH band = GDALGetRasterBand(scene->file, i);
    if (strcmp(GDALGetDescription(band), name) == 0) return open_band(source, band, scene->file, name);
  }
  fprintf(stderr, "%s has no band that is described as %s\n", input, name);
  return -1;
}

static int find_in_folder(char **files, const char *input, const char *name, Source *source) {
  for (int i = 0; files != NULL && files[i] != NULL; i++) {
    char path[kPath];
    if (!names_band(files[i], name)) continue;
    snprintf(path, sizeof path, "%s/%s", input, files[i]);
    source->dataset = GDALOpen(path, GA_ReadOnly);
    if (source->dataset == NULL) return complain(path, "GDAL cannot open it");
    return open_band(source, GDALGetRasterBand(source->dataset, 1), source->dataset, name);
  }
  fprintf(stderr, "%s has no file for %s\n", input, name);
  return -1;
}

/* Finds out how much coarser each band is than the finest. */
static int align(Scene *scene) {
  for (int i = 1; i < scene->count; i++) {
    if (fabs(scene->bands[i].transform[1]) < fabs(scene->bands[scene->finest].transform[1])) {
      scene->finest = i;
    }
  }
  const Source *finest = &scene->bands[scene->finest];
  const double *to = finest->transform;
  scene->width = finest->width;
  scene->height = finest->height;
  for (int i = 0; i < scene->count; i++) {
    Source *band = &scene->bands[i];
    const double *from = band->transform;
    band->step = (int)lround(from[1] / to[1]);
    const double slack = 1e-3 * fabs(to[1]);
    if (band->step < 1 || fabs(from[0] - to[0]) > slack || fabs(from[3] - to[3]) > slack ||
        fabs(from[1] - band->step * to[1]) > slack || fabs(from[5] - band->step * to[5]) > slack) {
      return complain("the bands' grids", "they do not begin at one place, or do not nest");
    }
    if (band->width * band->step < scene->width || band->height * band->step < scene->height) {
      return complain("the bands' grids", "one does not cover the finest");
    }
  }
  return 0;
}

/* Has GDAL keep a row of blocks of every band, and one more of the largest: with less it decodes JPEG
 * 2000's large blocks again for every few rows. */
static void keep_blocks(const Scene *scene) {
  GIntBig all = 0, largest = 0;
  for (int i = 0; i < scene->count; i++) {
    const Source *source = &scene->bands[i];
    int width, height;
    GDALGetBlockSize(source->band, &width, &height);
    const GIntBig across = (source->width + width - 1) / width * width;
    const GIntBig row = across * height * GDALGetDataTypeSizeBytes(source->type);
    all += row;
    if (row > largest) largest = row;
  }
  if (all + largest > GDALGetCacheMax64()) GDALSetCacheMax64(all + largest);
}

static int open_scene(Scene *scene, eosfm_model *model, const char *input) {
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  struct stat status;
  char **files = NULL;
  int failed = 0;
  eosfm_model_describe(model, &info);
  if (info.bands > kMostBands) return complain("the bundle", "it has too many bands");
  if (stat(input, &status) == 0 && S_ISDIR(status.st_mode)) {
    files = VSIReadDir(input);
  } else if ((scene->file = GDALOpen(input, GA_ReadOnly)) == NULL) {
    return complain(input, "GDAL cannot open it");
  }
  for (; scene->count < info.bands && !failed; scene->count++) {
    eosfm_band_info band = EOSFM_BAND_INFO_INIT;
    Source *source = &scene->bands[scene->count];
    eosfm_model_band(model, scene->count, &band);
    failed = scene->file != NULL ? find_in_file(scene, input, band.name, source)
                                 : find_in_folder(files, input, band.name, source);
  }
  CSLDestroy(files);
  if (failed || align(scene) != 0) return -1;
  keep_blocks(scene);
  scene->rows = malloc((size_t)kRowsAtOnce * (size_t)scene->width * sizeof(float));
  return scene->rows != NULL ? 0 : complain(input, "there is no memory for its rows");
}

static void close_scene(Scene *scene) {
  for (int i = 0; i < scene->count; i++) {
    if (scene->bands[i].dataset != NULL) GDALClose(scene->bands[i].dataset);
  }
  if (scene->file != NULL) GDALClose(scene->file);
  free(scene->rows);
}

/* Pushes some rows of every band. Returns 1; 0 at the scene's end; or -1. */
static int feed(Scene *scene, eosfm_stream *stream, eosfm_context *context) {
  int more = 0;
  for (int i = 0; i < scene->count; i++) {
    Source *band = &scene->bands[i];
    const int width = (scene->width + band->step - 1) / band->step;
    const int height = (scene->height + band->step - 1) / band->step;
    int count = kRowsAtOnce / band->step > 0 ? kRowsAtOnce / band->step : 1;
    int32_t taken = 0;
    if (count > height - band->at) count = height - band->at;
    if (count == 0) continue;
    if (GDALRasterIO(band->band, GF_Read, 0, band->at, width, count, scene->rows, width, count,
                     band->type, 0, 0) != CE_None) {
      return complain("a band cannot be read", CPLGetLastErrorMsg());
    }
    if (eosfm_stream_push_rows(stream, i, scene->rows, count, &taken) != EOSFM_OK) {
      return complain("a band", eosfm_context_error(context));
    }
    band->at += taken; /* those that had no room are read again: GDAL still has them */
    more |= band->at < height;
  }
  return more;
}

static GDALDatasetH create_level(const Scene *scene, int level, int channels, const char *output) {
  const Source *finest = &scene->bands[scene->finest];
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

static int write_block(const eosfm_block *block, GDALDatasetH *levels) {
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    const eosfm_block_level *part = &block->levels[l];
    const int channels = GDALGetRasterCount(levels[l]);
    if (GDALDatasetRasterIOEx(levels[l], GF_Write, part->column, (int)part->row, part->width,
                              part->height, (void *)part->data, part->width, part->height,
                              GDT_Float32, channels, NULL, sizeof(float),
                              part->row_stride * (GSpacing)sizeof(float),
                              part->channel_stride * (GSpacing)sizeof(float), NULL) != CE_None) {
      return complain("a level cannot be written", CPLGetLastErrorMsg());
    }
  }
  return 0;
}

static int stream_scene(Scene *scene, eosfm_context *context, GDALDatasetH *levels) {
  eosfm_stream_band bands[kMostBands];
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  eosfm_block block = EOSFM_BLOCK_INIT;
  eosfm_stream *stream = NULL;
  int result = -1;
  for (int i = 0; i < scene->count; i++) {
    const eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
    bands[i] = band;
    bands[i].dtype = scene->bands[i].dtype;
    bands[i].step = scene->bands[i].step;
  }
  options.width = scene->width;
  options.bands = bands;
  options.band_count = (size_t)scene->count;
  if (eosfm_stream_begin(context, &options, &stream) != EOSFM_OK) {
    return complain("the scene", eosfm_context_error(context));
  }
  for (;;) {
    const eosfm_status status = eosfm_stream_next(stream, NULL, &block);
    if (status == EOSFM_OK) {
      if (write_block(&block, levels) != 0) break;
    } else if (status == EOSFM_AGAIN) {
      const int more = feed(scene, stream, context);
      if (more < 0) break;
      if (more == 0) eosfm_stream_end(stream);
    } else {
      result = status == EOSFM_END ? 0 : complain("the scene", eosfm_context_error(context));
      break;
    }
  }
  if (result == 0) {
    printf("%lld tiles, of which %lld without data\n", (long long)block.tiles,
           (long long)block.tiles_skipped);
  }
  eosfm_stream_destroy(stream);
  return result;
}

int write_features(eosfm_model *model, eosfm_context *context, const char *input,
                   const char *output) {
  Scene scene;
  GDALDatasetH levels[EOSFM_LEVELS] = {NULL, NULL, NULL, NULL};
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  int result;
  memset(&scene, 0, sizeof scene);
  eosfm_model_describe(model, &info);
  VSIMkdir(output, 0777);
  result = open_scene(&scene, model, input);
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
