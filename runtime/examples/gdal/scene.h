/* A scene that GDAL reads, as the bands of a bundle: which file each is in, how its grid lies in that of the
 * finest, which of its pixels are data, and what their values mean. */
#ifndef SCENE_H
#define SCENE_H

#include <eosfm.h>
#include <gdal.h>

enum { kMostBands = 64, kRowsAtOnce = 48 };

typedef struct {
  GDALDatasetH dataset; /* opened for this band; NULL: it is in the scene's one file */
  GDALRasterBandH band;
  GDALRasterBandH mask; /* 0 where the band has no data; NULL: there is none */
  double transform[6];
  float scale; /* physical = stored * scale + offset */
  float offset;
  int has_nodata;
  float nodata;
  int step; /* pixels of the scene, in each direction, that one of the band's covers */
  int row;  /* of the band, which covers the scene's first, and how far that begins before it */
  int row_origin;
  int column;
  int column_origin;
  int width; /* pixels that cover the scene */
  int height;
  int at; /* the next row that is read */
} SceneBand;

typedef struct {
  GDALDatasetH file; /* if the input is one */
  SceneBand bands[kMostBands];
  int count;
  int finest; /* the index of a band of the finest resolution, whose grid is the scene's */
  int width;
  int height;
  float *rows;          /* kRowsAtOnce of the finest band */
  unsigned char *masks; /* the same, of a mask */
} Scene;

/* Opens the bands that a model takes, of a raster file whose bands are described by their names ("B02"), or
 * of a folder with a file for each, of its own resolution (..._B02.jp2, ..._B11_20m.tif). Of several files
 * for one band the finest is taken.
 *
 * Values are read as GDAL's scale and offset say, or else as the bundle does. Pixels are no data where they
 * have the file's nodata value, or the bundle's if the file has none and the same scale, where a mask or an
 * alpha band says so, and where they are not finite.
 *
 * Returns 0; or -1 with a sentence on the standard error if a band is missing or there twice, if bands are in
 * several coordinate systems or have no grid, or if their grids do not nest in the finest. What was opened is
 * closed by close_scene in any case. */
int open_scene(Scene *scene, eosfm_model *model, const char *input);

/* Reads the next rows of a band, at most so many, with NaN for what is no data, into scene->rows. Returns how
 * many; 0 at the band's end; or -1. They are read again unless `at` is moved on. */
int read_band(Scene *scene, SceneBand *band, int count);

void close_scene(Scene *scene);

/* Says what is wrong on the standard error; returns -1. */
int complain(const char *what, const char *why);

#endif
