#include "levels.h"

#include "cells.h"
#include "structs.h"

namespace eosfm {

bool strides_fit(const eosfm_level& to, ptrdiff_t channels, ptrdiff_t width, ptrdiff_t height) {
  ptrdiff_t plane = 0;
  ptrdiff_t all = 0;
  return to.row_stride >= width && !__builtin_mul_overflow(height - 1, to.row_stride, &plane) &&
         !__builtin_add_overflow(plane, width, &plane) && to.channel_stride >= plane &&
         !__builtin_mul_overflow(channels - 1, to.channel_stride, &all) &&
         !__builtin_add_overflow(all, plane, &all) &&
         all <= PTRDIFF_MAX / static_cast<ptrdiff_t>(sizeof(float));
}

eosfm_status read_levels(const eosfm_level* given, const Chain& chain, int width, int height,
                         eosfm_level (&levels)[kLevels], ErrorText& error) {
  const eosfm_status status = check_structs(given, kLevels, error);
  if (status != EOSFM_OK) return status;
  for (int level = 0; level < kLevels; ++level) {
    levels[level] = read_struct_at(given, level);
  }
  for (int level = 0; level < kLevels; ++level) {
    const eosfm_level& to = levels[level];
    if (to.data == nullptr) continue;
    const ptrdiff_t columns = cells(width, level);
    const ptrdiff_t rows = cells(height, level);
    if (reinterpret_cast<uintptr_t>(to.data) % alignof(float) != 0) {
      return error.fail(EOSFM_BAD_ARGUMENT, "the data of level %d is not aligned to floats", level + 1);
    }
    if (!strides_fit(to, chain.level_channels[level], columns, rows)) {
      return error.fail(EOSFM_BAD_ARGUMENT,
                        "the strides of level %d are %td and %td floats, in which "
                        "rows of %td and planes of %td rows do not fit",
                        level + 1, to.row_stride, to.channel_stride, columns, rows);
    }
  }
  return EOSFM_OK;
}

}  // namespace eosfm
