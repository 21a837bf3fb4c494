/* The features of a scene that GDAL reads, written with GDAL. */
#ifndef FEATURES_H
#define FEATURES_H

#include <eosfm.h>

/* Streams a scene through a context and writes OUTPUT/level1.tif ... level4.tif.
 *
 * `input` is a raster file whose bands are described by the model's band names ("B02"), or a folder with a
 * file for each band, of its own resolution (..._B02.jp2, ..._B11_20m.tif). Bands' grids must begin at the
 * same place, and the coarser ones' pixels be whole multiples of the finest one's.
 *
 * Returns 0, or -1 with a sentence on the standard error; nothing is left in `output` then. */
int write_features(eosfm_model *model, eosfm_context *context, const char *input,
                   const char *output);

#endif
