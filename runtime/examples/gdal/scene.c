#include "scene.h"

#include <cpl_string.h>
#include <cpl_vsi.h>
#include <math.h>
#include <ogr_srs_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { kPath = 4096 };

int complain(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return -1;
}

static GDALDatasetH dataset_of(const Scene *scene, const SceneBand *band) {
  return band->dataset != NULL ? band->dataset : scene->file;
}

/* ---- Which file, and which band of it -------------------------------------------------------- */

/* Whether a file's name says that it is a band's: "..._B02.jp2" or "..._B11_20m.tif". Names that begin with a
 * dot are copies that macOS makes, and other endings those of what lies beside rasters. */
static int names_band(const char *file, const char *name) {
  static const char *endings[] = {".tif", ".tiff", ".jp2", ".img", ".vrt"};
  const size_t length = strlen(name);
  const char *ending = strrchr(file, '.');
  int is_raster = 0;
  for (size_t i = 0; ending != NULL && i < sizeof endings / sizeof *endings; i++) {
    is_raster |= EQUAL(ending, endings[i]);
  }
  if (!is_raster || file[0] == '.') return 0;
  for (const char *at = strchr(file, '_'); at != NULL; at = strchr(at + 1, '_')) {
    const char after = strncmp(at + 1, name, length) == 0 ? at[1 + length] : 0;
    if (after == '.' || after == '_') return 1;
  }
  return 0;
}

static int find_in_file(const Scene *scene, const char *input, const char *name, SceneBand *found) {
  for (int i = 1; i <= GDALGetRasterCount(scene->file); i++) {
    GDALRasterBandH band = GDALGetRasterBand(scene->file, i);
    if (strcmp(GDALGetDescription(band), name) != 0) continue;
    if (found->band != NULL) {
      fprintf(stderr, "%s has several bands that are described as %s\n", input, name);
      return -1;
    }
    found->band = band;
  }
  if (found->band != NULL) return 0;
  fprintf(stderr, "%s has no band that is described as %s\n", input, name);
  return -1;
}

static double resolution_of(GDALDatasetH dataset) {
  double transform[6];
  return GDALGetGeoTransform(dataset, transform) == CE_None ? fabs(transform[1]) : 1.0;
}

static int find_in_folder(char **files, const char *input, const char *name, SceneBand *found) {
  char taken[kPath] = "";
  for (int i = 0; files != NULL && files[i] != NULL; i++) {
    char path[kPath];
    if (!names_band(files[i], name)) continue;
    if (snprintf(path, sizeof path, "%s/%s", input, files[i]) >= (int)sizeof path) continue;
    GDALDatasetH dataset = GDALOpen(path, GA_ReadOnly);
    if (dataset == NULL) return complain(path, "GDAL cannot open it");
    const double difference =
        found->dataset != NULL ? resolution_of(dataset) - resolution_of(found->dataset) : -1.0;
    if (fabs(difference) < 1e-9) {
      fprintf(stderr, "%s and %s are both %s, of one resolution: expected the bands of one acquisition\n",
              taken, path, name);
      GDALClose(dataset);
      return -1;
    }
    if (difference > 0) {
      GDALClose(dataset);
      continue;
    }
    if (found->dataset != NULL) GDALClose(found->dataset);
    found->dataset = dataset;
    strcpy(taken, path);
  }
  if (found->dataset == NULL) {
    fprintf(stderr, "%s has no file for %s\n", input, name);
    return -1;
  }
  if (GDALGetRasterCount(found->dataset) != 1) return complain(taken, "expected a file for each band");
  found->band = GDALGetRasterBand(found->dataset, 1);
  return 0;
}

/* ---- What its values mean -------------------------------------------------------------------- */

/* Whether a value that no band of the bundle's has for this is the bundle's "no data" of another: there it is
 * a measurement here, though a GeoTIFF has one nodata value for all of its bands. */
static int is_measured_here(eosfm_model *model, int count, float value) {
  for (int i = 0; i < count; i++) {
    eosfm_band_info other = EOSFM_BAND_INFO_INIT;
    eosfm_model_describe_band(model, i, &other);
    if (other.has_nodata && other.nodata == value) return 1;
  }
  return 0;
}

static int read_meaning(eosfm_model *model, int count, const eosfm_band_info *wanted, SceneBand *band) {
  int tagged = 0, offset_tagged = 0, declared = 0;
  const double scale = GDALGetRasterScale(band->band, &tagged);
  const double offset = GDALGetRasterOffset(band->band, &offset_tagged);
  const double nodata = GDALGetRasterNoDataValue(band->band, &declared);
  const int flags = GDALGetMaskFlags(band->band);
  if (GDALDataTypeIsComplex(GDALGetRasterDataType(band->band))) {
    return complain(wanted->name, "its pixels are complex numbers");
  }
  /* Tags of 1 and 0 say nothing. */
  const int says = (tagged && scale != 1.0) || (offset_tagged && offset != 0.0);
  band->scale = says ? (float)scale : wanted->scale;
  band->offset = says ? (float)offset : wanted->offset;
  if (band->scale == 0.0F || !isfinite(band->scale) || !isfinite(band->offset)) {
    return complain(wanted->name, "its scale is 0, or it or the offset is no number");
  }
  band->mask = flags & (GMF_PER_DATASET | GMF_ALPHA) ? GDALGetMaskBand(band->band) : NULL;
  const int is_bundles = band->mask == NULL && fabs((double)band->scale / (double)wanted->scale - 1.0) < 1e-6;
  band->has_nodata = declared || (is_bundles && wanted->has_nodata);
  band->nodata = declared ? (float)nodata : wanted->nodata;
  if (band->has_nodata && !wanted->has_nodata && is_measured_here(model, count, band->nodata)) {
    band->has_nodata = 0;
  }
  return 0;
}

/* ---- Where its pixels lie -------------------------------------------------------------------- */

static int read_place(const Scene *scene, const char *name, SceneBand *band) {
  GDALDatasetH dataset = dataset_of(scene, band);
  if (GDALGetGeoTransform(dataset, band->transform) != CE_None) {
    static const double pixels[6] = {0, 1, 0, 0, 0, 1};
    if (GDALGetGCPCount(dataset) > 0) {
      return complain(name, "it has ground control points instead of a grid: bring it to one with gdalwarp");
    }
    memcpy(band->transform, pixels, sizeof pixels);
  }
  return 0;
}

static int require_one_system(const Scene *scene) {
  OGRSpatialReferenceH first = GDALGetSpatialRef(dataset_of(scene, &scene->bands[0]));
  for (int i = 1; i < scene->count; i++) {
    OGRSpatialReferenceH other = GDALGetSpatialRef(dataset_of(scene, &scene->bands[i]));
    if (first == NULL && other == NULL) continue;
    if (first == NULL || other == NULL || !OSRIsSame(first, other)) {
      return complain(GDALGetDescription(dataset_of(scene, &scene->bands[i])),
                      "it is in another coordinate system than the other bands: bring them to one with "
                      "gdalwarp");
    }
  }
  return 0;
}

/* Finds where the scene begins along an axis of a band, given where each starts and its pixels' size: which of its pixels covers the first, and how many of
 * the scene's that begins before it. Returns 0 if the grids do not nest, or the band does not cover all. */
static int nest(const double *from, const double *to, int step, int pixels, int wanted, int *first,
                int *origin, int *count) {
  const double before = (to[0] - from[0]) / to[1];
  const long whole = lround(before);
  if (fabs(from[1] - step * to[1]) > 1e-3 * fabs(to[1]) || fabs(before - (double)whole) > 1e-3 || whole < 0) {
    return 0;
  }
  *first = (int)(whole / step);
  *origin = (int)(whole % step);
  *count = (wanted + *origin + step - 1) / step;
  return *first + *count <= pixels;
}

/* Finds out how much coarser each band is than the finest, and where it begins. */
static int align(Scene *scene) {
  for (int i = 1; i < scene->count; i++) {
    if (fabs(scene->bands[i].transform[1]) < fabs(scene->bands[scene->finest].transform[1])) {
      scene->finest = i;
    }
  }
  const SceneBand *finest = &scene->bands[scene->finest];
  const double *to = finest->transform;
  scene->width = GDALGetRasterBandXSize(finest->band);
  scene->height = GDALGetRasterBandYSize(finest->band);
  for (int i = 0; i < scene->count; i++) {
    SceneBand *band = &scene->bands[i];
    const double *from = band->transform;
    band->step = (int)lround(from[1] / to[1]);
    /* Grids that are turned nest where they are one. */
    const int turned = to[2] != 0 || to[4] != 0 || from[2] != 0 || from[4] != 0;
    const int same = memcmp(from, to, 6 * sizeof *to) == 0;
    if (band->step < 1 || (turned && !same) ||
        !nest(from, to, band->step, GDALGetRasterBandXSize(band->band), scene->width, &band->column,
              &band->column_origin, &band->width) ||
        !nest((const double[]){from[3], from[5]}, (const double[]){to[3], to[5]}, band->step,
              GDALGetRasterBandYSize(band->band), scene->height, &band->row, &band->row_origin,
              &band->height)) {
      return complain("the bands' grids", "one does not nest in the finest, or does not cover it: bring them "
                                          "to one grid with gdalwarp");
    }
  }
  return 0;
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* Has GDAL keep a row of blocks of every band, and one more of the largest: with less it decodes JPEG
 * 2000's large blocks again for every few rows. */
static void keep_blocks(const Scene *scene) {
  GIntBig all = 0, largest = 0;
  for (int i = 0; i < scene->count; i++) {
    const GDALRasterBandH band = scene->bands[i].band;
    int width, height;
    GDALGetBlockSize(band, &width, &height);
    const GIntBig across = (GDALGetRasterBandXSize(band) + width - 1) / width * width;
    const GIntBig row = across * height * GDALGetDataTypeSizeBytes(GDALGetRasterDataType(band));
    all += row;
    if (row > largest) largest = row;
  }
  if (all + largest > GDALGetCacheMax64()) GDALSetCacheMax64(all + largest);
}

int open_scene(Scene *scene, eosfm_model *model, const char *input) {
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
    eosfm_band_info wanted = EOSFM_BAND_INFO_INIT;
    SceneBand *band = &scene->bands[scene->count];
    eosfm_model_describe_band(model, scene->count, &wanted);
    failed = scene->file != NULL ? find_in_file(scene, input, wanted.name, band)
                                 : find_in_folder(files, input, wanted.name, band);
    if (!failed) failed = read_place(scene, wanted.name, band);
    if (!failed) failed = read_meaning(model, info.bands, &wanted, band);
  }
  CSLDestroy(files);
  if (failed || require_one_system(scene) != 0 || align(scene) != 0) return -1;
  keep_blocks(scene);
  /* A coarser band may have a pixel more, where it begins before the scene. */
  const size_t pixels = (size_t)kRowsAtOnce * ((size_t)scene->width + 1);
  scene->rows = malloc(pixels * sizeof *scene->rows);
  scene->masks = malloc(pixels);
  return scene->rows != NULL && scene->masks != NULL ? 0 : complain(input, "there is no memory for its rows");
}

int read_band(Scene *scene, SceneBand *band, int count) {
  if (count > kRowsAtOnce) count = kRowsAtOnce;
  if (count > band->height - band->at) count = band->height - band->at;
  if (count == 0) return 0;
  const int row = band->row + band->at;
  const size_t pixels = (size_t)band->width * (size_t)count;
  if (GDALRasterIO(band->band, GF_Read, band->column, row, band->width, count, scene->rows, band->width,
                   count, GDT_Float32, 0, 0) != CE_None ||
      (band->mask != NULL && GDALRasterIO(band->mask, GF_Read, band->column, row, band->width, count,
                                          scene->masks, band->width, count, GDT_Byte, 0, 0) != CE_None)) {
    return complain("a band cannot be read", CPLGetLastErrorMsg());
  }
  for (size_t i = 0; i < pixels; i++) {
    if ((band->has_nodata && scene->rows[i] == band->nodata) ||
        (band->mask != NULL && scene->masks[i] == 0)) {
      scene->rows[i] = NAN;
    }
  }
  return count;
}

void close_scene(Scene *scene) {
  for (int i = 0; i < kMostBands; i++) {
    if (scene->bands[i].dataset != NULL) GDALClose(scene->bands[i].dataset);
  }
  if (scene->file != NULL) GDALClose(scene->file);
  free(scene->rows);
  free(scene->masks);
}
