#include "cells.h"

namespace eosfm {

// Shares are multiples of 1/1024, which floats hold exactly.
void share_valid(const uint8_t* valid, int width, int height, float* const shares[kStages]) {
  for (int y = 0; y < height / 4; ++y) {
    for (int x = 0; x < width / 4; ++x) {
      int count = 0;
      for (int i = 0; i < 16; ++i) count += valid[(4 * y + i / 4) * width + 4 * x + i % 4];
      shares[0][y * (width / 4) + x] = static_cast<float>(count) / 16.0F;
    }
  }
  for (int s = 1; s < kStages; ++s) {
    const int across = width >> (s + 2);
    for (int y = 0; y < height >> (s + 2); ++y) {
      const float* above = shares[s - 1] + 4 * y * across;
      const float* below = above + 2 * across;
      for (int x = 0; x < across; ++x) {
        shares[s][y * across + x] =
            (above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1]) / 4.0F;
      }
    }
  }
}

}  // namespace eosfm
