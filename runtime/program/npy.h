/* NumPy's files of one array. */
#ifndef EOSFM_PROGRAM_NPY_H
#define EOSFM_PROGRAM_NPY_H

#include <stddef.h>

#include "scene.h"

/* Returns whether a file begins as a NumPy array. */
int is_npy(int file);

/* Reads the header of an array [bands][height][width]. Returns an exit code. */
int read_npy_header(const char *path, int file, Layout *layout);

/* Writes into `header` that of an array [height][width][channels] of floats. Returns its bytes. */
size_t make_npy_header(char *header, size_t size, int64_t height, int64_t width, int32_t channels);

#endif
