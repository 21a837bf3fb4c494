// Cells of levels: how much of each was measured, and how much it counts.
#ifndef EOSFM_CELLS_H
#define EOSFM_CELLS_H

#include "network.h"

namespace eosfm {

// Fills in the share of valid pixels of each level's cells, [height][width], given whether each pixel of an
// image is.
void share_valid(const uint8_t* valid, int width, int height, float* const shares[kStages]);

}  // namespace eosfm

#endif
