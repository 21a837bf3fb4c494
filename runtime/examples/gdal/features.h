/* The features of a scene that GDAL reads, written with GDAL. */
#ifndef FEATURES_H
#define FEATURES_H

#include <eosfm.h>

/* Streams a scene through a context and writes OUTPUT/level1.tif ... level4.tif.
 *
 * `input` is a raster file or a folder: see scene.h, which says what is refused. So are values that cannot
 * be what the bundle takes (values.h), unless they are to be trusted.
 *
 * Returns 0, or -1 with a sentence on the standard error; nothing is left in `output` then. */
int write_features(eosfm_model *model, eosfm_context *context, const char *input, const char *output,
                   int trust_values);

#endif
