// The places of levels in a caller's memory.
#ifndef EOSFM_LEVELS_H
#define EOSFM_LEVELS_H

#include "chain.h"

namespace eosfm {

// Returns whether rows and planes with these strides, of elements, do not overlap, and whether all offsets fit.
bool strides_fit(const eosfm_level& to, ptrdiff_t channels, ptrdiff_t width, ptrdiff_t height);

// Reads the caller's levels of an image of so many pixels, and checks those that have data.
eosfm_status read_levels(const eosfm_level* given, const Chain& chain, int width, int height,
                         eosfm_level (&levels)[kLevels], ErrorText& error);

}  // namespace eosfm

#endif
