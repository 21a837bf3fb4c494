/* ENVI headers, which GDAL reads and writes too: a text file beside raw pixels. */
#ifndef EOSFM_PROGRAM_ENVI_H
#define EOSFM_PROGRAM_ENVI_H

#include <stdint.h>
#include <stdio.h>

#include "scene.h"

/* Finds the header of a file of raw pixels: scene.hdr or scene.img.hdr beside scene.img. Returns whether there is
 * one. */
int find_envi_header(const char *path, char *header, size_t size);

/* Reads a header. Returns an exit code. */
int read_envi_header(const char *path, Layout *layout);

/* Writes the header of a level of a scene: floats, [height][width][channels], a cell `stride` pixels wide. */
void write_envi_header(FILE *file, const Layout *scene, int64_t height, int64_t width, int32_t channels,
                       int32_t stride);

#endif
