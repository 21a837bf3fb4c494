// Cells of levels: how many there are, how much of each was measured, and how much it counts.
#ifndef EOSFM_CELLS_H
#define EOSFM_CELLS_H

#include "network.h"

namespace eosfm {

// Returns the cells of a level over so many pixels of a row or column, a multiple of 32.
inline int cells(int pixels, int level) { return pixels >> (level + 2); }

// Fills in the share of valid pixels of each level's cells, [height][width], given whether each pixel of an
// image is valid.
void share_valid(const uint8_t* valid, int width, int height, float* const shares[kStages]);

}  // namespace eosfm

#endif
