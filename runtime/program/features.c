#include "features.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "complain.h"
#include "envi.h"
#include "npy.h"

uint64_t level_bytes(const LevelFile *level) {
  return level->start +
         (uint64_t)level->height * (uint64_t)level->width * (uint64_t)level->channels * sizeof(float);
}

/* Writes all of some bytes. Returns 0, or -1 with errno. */
static int write_bytes(int file, const void *bytes, size_t size, uint64_t offset) {
  for (size_t done = 0; done < size;) {
    const ssize_t written = pwrite(file, (const char *)bytes + done, size - done, (off_t)(offset + done));
    if (written < 0 && errno != EINTR) return -1;
    if (written > 0) done += (size_t)written;
  }
  return 0;
}

/* Writes the ENVI header of a level. Returns 0, or -1 with errno. */
static int write_header(const Folder *folder, const Scene *scene, const LevelFile *level, int index) {
  char name[16];
  snprintf(name, sizeof name, "level%d.hdr", index + 1);
  char *path = path_in_folder(folder, name);
  FILE *file = path == NULL ? NULL : fopen(path, "wxe");
  free(path);
  if (file == NULL) return -1;
  write_envi_header(file, &scene->layout, level->height, level->width, level->channels, 4 << index);
  int failed = fflush(file) != 0 || fsync(fileno(file)) != 0;
  const int error = errno;
  failed |= fclose(file) != 0;
  if (failed) errno = error;
  return failed ? -1 : 0;
}

/* Makes the file of a level, with the space that it takes: a full disk is found before the work. Returns 0, or -1 with
 * errno. */
static int create_level(Features *features, LevelFile *level, int index, const Scene *scene) {
  char header[256];
  char *path = path_in_folder(features->folder, level->name);
  level->file = path == NULL ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  free(path);
  if (level->file < 0) return -1;
  if (scene->is_envi) {
    if (write_header(features->folder, scene, level, index) != 0) return -1;
  } else {
    level->start = make_npy_header(header, sizeof header, level->height, level->width, level->channels);
  }
  const off_t size = (off_t)level_bytes(level);
  /* Not every file system can; then the writes find out. */
  if (fallocate(level->file, 0, 0, size) != 0 &&
      ((errno != EOPNOTSUPP && errno != ENOSYS) || ftruncate(level->file, size) != 0)) {
    return -1;
  }
  return write_bytes(level->file, header, (size_t)level->start, 0);
}

int create_features(Features *features, Folder *folder, const Scene *scene, const Bundle *bundle,
                    const int32_t wanted[EOSFM_LEVELS]) {
  size_t widest = 0;
  features->folder = folder;
  features->row = NULL;
  for (int l = 0; l < EOSFM_LEVELS; l++) features->levels[l].file = -1;
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    LevelFile *level = &features->levels[l];
    const int64_t stride = 4 << l;
    level->height = (scene->layout.height + stride - 1) / stride;
    level->width = (scene->layout.width + stride - 1) / stride;
    level->channels = bundle->info.channels[l];
    level->start = 0;
    snprintf(level->name, sizeof level->name, "level%d.%s", l + 1, scene->is_envi ? "img" : "npy");
    if (!wanted[l]) continue;
    const size_t row = (size_t)(bundle->info.tile / stride) * (size_t)level->channels;
    if (row > widest) widest = row;
    if (create_level(features, level, l, scene) != 0) return refuse_to_write(folder, errno);
  }
  features->row = malloc(widest * sizeof *features->row);
  return features->row != NULL ? kDone : refuse_without_memory();
}

int write_patch(Features *features, const eosfm_patch *patch) {
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    const eosfm_patch_level *part = &patch->levels[l];
    const LevelFile *level = &features->levels[l];
    const size_t channels = (size_t)level->channels, width = (size_t)part->width;
    for (int32_t r = 0; part->data != NULL && r < part->height; r++) {
      const float *cells = part->data + r * part->row_stride;
      for (size_t c = 0; c < channels; c++) {
        for (size_t x = 0; x < width; x++) features->row[x * channels + c] = cells[x];
        cells += part->channel_stride;
      }
      const uint64_t cell = (uint64_t)(part->row + r) * (uint64_t)level->width + (uint64_t)part->column;
      if (write_bytes(level->file, features->row, width * channels * sizeof *features->row,
                      level->start + cell * channels * sizeof *features->row) != 0) {
        return refuse_to_write(features->folder, errno);
      }
    }
  }
  return kDone;
}

int finish_features(Features *features) {
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    if (features->levels[l].file >= 0 && fsync(features->levels[l].file) != 0) {
      return refuse_to_write(features->folder, errno);
    }
  }
  return kDone;
}

void close_features(Features *features) {
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    if (features->levels[l].file >= 0) close(features->levels[l].file);
  }
  free(features->row);
}
