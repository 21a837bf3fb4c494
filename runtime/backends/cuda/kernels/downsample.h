// Layer normalisation and the 2 x 2 convolution with stride 2 between two stages.
//
// A matmul over four corners: for each, the thread block normalises the corner's pixel of every output
// pixel into shared memory, one warp a pixel, and multiplies with the corner's quarter of the weights.
// Norms are of input pixels, so nothing is normalised twice but for thread blocks of other columns.
#ifndef EOSFM_CUDA_KERNELS_DOWNSAMPLE_H
#define EOSFM_CUDA_KERNELS_DOWNSAMPLE_H

#include "norm.h"

namespace eosfm::gpu {

template <int kKind>
EOSFM_DEVICE void downsample(const Downsample& d, size_t image) {
  unsigned* rows = shared_words();
  const Weights& w = d.weights;
  const int words = w.words / 4;
  const int stride = row_stride(words);
  const float* in = d.in + image * d.in_stride;
  float* out = d.out + image * d.out_stride;
  const Share share(d.cover);
  const Seat seat(d.cover.rows, share.first_tile, d.cover.columns, w.tiles);
  for (int index = share.first_group; index < share.after_group; ++index) {
    const Group group(d.cover, index);
    typename Operand<kKind>::Sum sums[kWarpTiles][4];
    clear(sums);
#pragma unroll 1  // or the compiler writes all of it four times
    for (int corner = 0; corner < 4; ++corner) {
      SYNC_THREADS();  // the corner before was read
      for (int row = static_cast<int>(threadIdx.x) / 32; row < d.cover.rows; row += kWarps) {
        unsigned* to = rows + row * stride;
        if (group.has(row)) {
          const size_t y = 2 * (group.y + row / kGroupWidth) + corner / 2;
          const size_t x = 2 * (group.x + row % kGroupWidth) + corner % 2;
          const float* from = in + (y * 2 * d.cover.width + x) * d.in_channels;
          const float* inverse = kKind == kByte ? w.inverse + corner * d.in_channels : nullptr;
          normalise<kKind>(from, d.in_channels, to, words, inverse, w.zero, seat.lane);
        } else {
          for (int i = seat.lane; i < words; i += 32) to[i] = 0U;
        }
      }
      SYNC_THREADS();
      multiply<kKind>(rows, stride, d.cover.rows, words, w, corner * words, seat, seat.tile, sums);
    }
    for_each_tile(seat, seat.tile, sums, [&](int tile, const auto& sum) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = seat.first_row + seat.lane / 4 + i / 2 * 8;
        const int column = 8 * tile + seat.lane % 4 * 2 + i % 2;
        if (row >= d.cover.rows || !group.has(row)) continue;
        out[group.pixel(row) * d.channels + column] = Operand<kKind>::value(sum[i], w, column);
      }
    });
  }
}

}  // namespace eosfm::gpu

#endif
