// Band adaptation, the stem's 4 x 4 convolution with stride 4, and its layer normalisation.
//
// In float32: its inputs are physical values, of any range. A thread block takes groups of 32 cells.
// Eight bands at a time it lays the cells' patches into shared memory as [16 * band + y * 4 + x][32],
// so that a thread reads its eight cells of one row at once, and a thread adds to the sums of one
// channel of eight cells, which lie in shared memory too. The same thread comes back to them for the
// next bands, so only the patches need a barrier.
#ifndef EOSFM_CUDA_KERNELS_STEM_H
#define EOSFM_CUDA_KERNELS_STEM_H

#include "norm.h"

namespace eosfm::gpu {

constexpr int kStemRows = 32;
constexpr int kStemBands = 8;

EOSFM_DEVICE void gather_patches(const Stem& d, const Group& group, const float* image, int first_band,
                                 int bands, float* patches) {
  const int width = 4 * d.cover.width;
  const size_t plane = static_cast<size_t>(width) * 4 * d.cover.height;
  for (int i = static_cast<int>(threadIdx.x); i < bands * 16 * kStemRows; i += kThreads) {
    // Neighbouring threads read neighbouring pixels of an image row.
    const int x = i % 4;
    const int row = i / 4 % kStemRows;
    const int y = i / (4 * kStemRows) % 4;
    const int b = i / (16 * kStemRows);
    float value = 0.0F;
    if (group.has(row)) {
      const int cell_x = group.x + row % kGroupWidth;
      const int cell_y = group.y + row / kGroupWidth;
      const int band = first_band + b;
      const float stored = image[static_cast<size_t>(d.bands[band]) * plane +
                                 static_cast<size_t>(4 * cell_y + y) * width + 4 * cell_x + x];
      value = stored * d.scales[band] + d.offsets[band];
    }
    patches[(16 * b + 4 * y + x) * kStemRows + row] = value;
  }
}

EOSFM_DEVICE void stem(const Stem& d, size_t image_index) {
  float* patches = reinterpret_cast<float*>(shared_words());
  float* sums = patches + kStemBands * 16 * kStemRows;
  const int stride = row_stride(d.channels);
  const float* image = d.image + image_index * d.image_stride;
  float* out = d.out + image_index * d.out_stride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Share share(d.cover);
  for (int g = share.first_group; g < share.after_group; ++g) {
    const Group group(d.cover, g);
    for (int first = 0; first < d.band_count; first += kStemBands) {
      const int bands = smaller(kStemBands, d.band_count - first);
      gather_patches(d, group, image, first, bands, patches);
      SYNC_THREADS();
      for (int i = static_cast<int>(threadIdx.x); i < d.channels * (kStemRows / 8); i += kThreads) {
        const int channel = i % d.channels;
        const int row = i / d.channels * 8;
        float acc[8];
#pragma unroll
        for (int p = 0; p < 8; ++p) {
          acc[p] = first > 0 ? sums[(row + p) * stride + channel] : 0.0F;
        }
        for (int k = 0; k < 16 * bands; ++k) {
          const float w = d.weights[static_cast<size_t>(16 * first + k) * d.channels + channel];
#pragma unroll
          for (int p = 0; p < 8; ++p) acc[p] = fmaf(patches[k * kStemRows + row + p], w, acc[p]);
        }
        const float bias = first + bands == d.band_count ? d.bias[channel] : 0.0F;
#pragma unroll
        for (int p = 0; p < 8; ++p) sums[(row + p) * stride + channel] = acc[p] + bias;
      }
      SYNC_THREADS();
    }
    for (int row = static_cast<int>(threadIdx.x) / 32; row < kStemRows; row += kWarps) {
      if (!group.has(row)) continue;
      const float* from = sums + row * stride;
      const Spread spread = spread_of(from, d.channels, lane);
      float* to = out + group.pixel(row) * d.channels;
      for (int c = lane; c < d.channels; c += 32) {
        to[c] = fmaf((from[c] - spread.mean) * spread.inverse, d.gamma[c], d.beta[c]);
      }
    }
  }
}

}  // namespace eosfm::gpu

#endif
