/* A scene: raw pixels of several bands in a file or a pipe, and what a header says of them. */
#ifndef EOSFM_PROGRAM_SCENE_H
#define EOSFM_PROGRAM_SCENE_H

#include <eosfm.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bundle.h"

enum { kMostBands = 4096, kTextSize = 16384 };

typedef enum Interleave { kBandSequential, kByLine, kByPixel } Interleave;

/* A scene as its header describes it. */
typedef struct Layout {
  int32_t dtype; /* an eosfm_dtype */
  size_t pixel_size; /* bytes */
  int64_t width;
  int64_t height;
  int32_t bands;
  Interleave interleave;
  uint64_t start; /* bytes before the first pixel */
  int has_nodata;
  double nodata;
  int has_scale; /* scale and offset are the file's own */
  double *scales; /* of each band */
  double *offsets;
  char **names; /* of each band; NULL: the header names none */
  double *wavelengths; /* of each band, in nm; NULL: the header names none */
  double reflectance_factor; /* stored values are so many times reflectances; 0: the header does not say */
  /* ENVI's georeference as the header has it, "" where it has none. */
  char map_info[kTextSize];
  char coordinate_system[kTextSize];
} Layout;

void free_layout(Layout *layout);

typedef struct Scene {
  const char *path;
  char header[4096]; /* the file that describes it: its own, or an ENVI header */
  int is_envi;
  int file;
  int is_pipe;
  uint64_t size; /* of the file; 0 of a pipe */
  Layout layout;
  int32_t wanted; /* bands of the bundle */
  int32_t *order; /* of each, which of the file's bands it is */
  eosfm_stream_band *bands; /* of each, how its rows come */
  /* Some rows of all bands, which are given to a stream as it takes them. */
  unsigned char *rows;
  int64_t row; /* of the scene, that is first in `rows` */
  int32_t count; /* rows that are in `rows` */
  int32_t most; /* rows that have room */
  int32_t *given; /* of each band, how many of them a stream has taken */
} Scene;

/* Opens a scene for a bundle. `path` "-" is standard input; `header` may be NULL. Returns an exit code; close_scene
 * in any case. */
int open_scene(Scene *scene, const char *path, const char *header, const Bundle *bundle);

/* Gives a stream the rows that it has room for, and sets *has_ended when there are no more. Returns an exit code. */
int feed(Scene *scene, eosfm_stream *stream, const Bundle *bundle, int *has_ended);

void close_scene(Scene *scene);

#endif
