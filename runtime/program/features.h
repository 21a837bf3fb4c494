/* The levels of a scene, as files in a folder: level1.npy ... for an array, level1.img and level1.hdr ... for a scene
 * with an ENVI header. Cells are [height][width], and a cell's features lie together: so a patch, which is some cells
 * wide and has all channels, is written by one call for each row of cells. */
#ifndef EOSFM_PROGRAM_FEATURES_H
#define EOSFM_PROGRAM_FEATURES_H

#include <eosfm.h>

#include "bundle.h"
#include "folder.h"
#include "scene.h"

typedef struct LevelFile {
  int file; /* -1: the level is not wanted */
  char name[16];
  int64_t height; /* cells */
  int64_t width;
  int32_t channels;
  uint64_t start; /* bytes before the first cell */
} LevelFile;

typedef struct Features {
  Folder *folder;
  LevelFile levels[EOSFM_LEVELS];
  float *row; /* of cells of a patch, for the widest */
} Features;

/* Makes the files of the levels that are wanted, with the space that they take. Returns an exit code; close_features in
 * any case. */
int create_features(Features *features, Folder *folder, const Scene *scene, const Bundle *bundle,
                    const int32_t wanted[EOSFM_LEVELS]);

/* Writes a patch. Returns an exit code. */
int write_patch(Features *features, const eosfm_patch *patch);

/* Has the disk hold the files. Returns an exit code. */
int finish_features(Features *features);

/* Returns the bytes of a level's file, without an ENVI header. */
uint64_t level_bytes(const LevelFile *level);

void close_features(Features *features);

#endif
