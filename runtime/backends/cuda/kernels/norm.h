// Layer normalisation of one pixel by one warp, and groups of pixels.
#ifndef EOSFM_CUDA_KERNELS_NORM_H
#define EOSFM_CUDA_KERNELS_NORM_H

#include "matmul.h"

namespace eosfm::gpu {

// Mean and 1 / standard deviation over the channels.
struct Spread {
  float mean;
  float inverse;
};

EOSFM_DEVICE Spread spread_of(const float* from, int channels, int lane) {
  constexpr float kEpsilon = 1e-6F;
  float sum = 0.0F;
  for (int c = lane; c < channels; c += 32) sum += from[c];
  const float mean = warp_sum(sum) / static_cast<float>(channels);
  float squares = 0.0F;
  for (int c = lane; c < channels; c += 32) {
    const float d = from[c] - mean;
    squares = fmaf(d, d, squares);
  }
  const float variance = warp_sum(squares) / static_cast<float>(channels);
  return {mean, 1.0F / sqrtf(variance + kEpsilon)};
}

// Normalises a pixel into `words` words of an operand, zeros after the channels. `from` may be where
// `to` is: a word is written after the warp has read all that it stands on, and those before.
// `inverse` is bytes' only.
template <int kKind>
EOSFM_DEVICE void normalise(const float* from, int channels, unsigned* to, int words, const float* inverse,
                            float zero, int lane) {
  constexpr int kPer = Operand<kKind>::kPerWord;
  const Spread spread = spread_of(from, channels, lane);
  for (int first = 0; first < words; first += 32) {
    const int word = first + lane;
    float values[kPer];
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int c = word * kPer + i;
      values[i] = 0.0F;
      if (c < channels) {
        const float y = (from[c] - spread.mean) * spread.inverse;
        values[i] = Operand<kKind>::scaled(y, inverse, c, zero);
      }
    }
    SYNC_WARP();
    if (word < words) to[word] = Operand<kKind>::word(values);
  }
}

// A group of pixels, 8 wide: where it lies, and which of its pixels are in the image.
struct Group {
  int x;
  int y;
  int width;
  int height;

  EOSFM_DEVICE Group(const Cover& cover, int index) : width(cover.width), height(cover.height) {
    const int across = (cover.width + kGroupWidth - 1) / kGroupWidth;
    x = index % across * kGroupWidth;
    y = index / across * (cover.rows / kGroupWidth);
  }
  EOSFM_DEVICE bool has(int row) const {
    return x + row % kGroupWidth < width && y + row / kGroupWidth < height;
  }
  EOSFM_DEVICE size_t pixel(int row) const {
    return static_cast<size_t>(y + row / kGroupWidth) * width + x + row % kGroupWidth;
  }
  EOSFM_DEVICE static int count(const Cover& cover) {
    const int high = cover.rows / kGroupWidth;
    return (cover.width + kGroupWidth - 1) / kGroupWidth * ((cover.height + high - 1) / high);
  }
};

// Returns the groups and columns of this thread block; none when the descriptor needs fewer thread blocks.
struct Share {
  int first_group;
  int after_group;
  int span;
  int first_tile;

  EOSFM_DEVICE explicit Share(const Cover& cover) {
    const int index = static_cast<int>(blockIdx.x);
    span = index % cover.spans;
    first_tile = index / cover.spans * cover.columns;
    first_group = span * cover.span;
    after_group = index < cover.spans * cover.splits ? smaller(first_group + cover.span, Group::count(cover))
                                                     : first_group;
  }
};

}  // namespace eosfm::gpu

#endif
