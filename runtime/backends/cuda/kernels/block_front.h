// The first half of a ConvNeXtV2 block: depthwise 7 x 7 -> layer norm -> fc1 -> GELU.
//
// A thread block takes a span of groups of pixels. For each group
//   1. a thread computes one channel of one 8-pixel row of the group at a time: 14 inputs of each of
//      the seven image rows serve eight outputs, which go to shared memory as floats;
//   2. a warp normalises one pixel at a time, in place, into the words that tensor cores read;
//   3. warps multiply with fc1, apply GELU, store the hidden tensor, and add up its squares.
// GRN needs every hidden channel's sum of squares over the whole image. Each thread block writes the
// sums of its span, one row for each 16-row half of a group; the kernel of the other half adds these
// rows up in order. No atomics: results do not depend on which thread block comes first.
#ifndef EOSFM_CUDA_KERNELS_BLOCK_FRONT_H
#define EOSFM_CUDA_KERNELS_BLOCK_FRONT_H

#include "norm.h"

namespace eosfm::gpu {

// Outputs beyond the image are zeros.
EOSFM_DEVICE void depthwise(const Block& d, const Group& group, const float* pixels, float* out, int stride) {
  const int strips = d.front.rows / kGroupWidth;
  for (int i = static_cast<int>(threadIdx.x); i < strips * d.channels; i += kThreads) {
    const int channel = i % d.channels;
    const int strip = i / d.channels;
    float sums[kGroupWidth];
#pragma unroll
    for (int t = 0; t < kGroupWidth; ++t) sums[t] = d.depthwise_bias[channel];
#pragma unroll 1  // seven rows at once do not fit into the registers
    for (int ky = 0; ky < 7; ++ky) {
      const int y = group.y + strip + ky - 3;
      if (y < 0 || y >= group.height) continue;
      const float* row = pixels + static_cast<size_t>(y) * group.width * d.channels + channel;
      const float* weights = d.depthwise + static_cast<size_t>(7 * ky) * d.channels + channel;
      float w[7];
#pragma unroll
      for (int kx = 0; kx < 7; ++kx) w[kx] = weights[kx * d.channels];
#pragma unroll
      for (int j = 0; j < kGroupWidth + 6; ++j) {
        const int x = group.x + j - 3;
        const bool inside = x >= 0 && x < group.width;
        const float value = inside ? row[static_cast<size_t>(x) * d.channels] : 0.0F;
#pragma unroll
        for (int kx = 0; kx < 7; ++kx) {
          const int t = j - kx;
          if (t >= 0 && t < kGroupWidth) sums[t] = fmaf(value, w[kx], sums[t]);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kGroupWidth; ++t) {
      const int pixel = strip * kGroupWidth + t;
      out[pixel * stride + channel] = group.has(pixel) ? sums[t] : 0.0F;
    }
  }
}

// Two neighbouring hidden values of a pixel.
EOSFM_DEVICE void store_hidden(void* hidden, int kind, size_t at, float first, float second) {
  if (kind == kHiddenFloat) {
    *reinterpret_cast<float2*>(static_cast<float*>(hidden) + at) = {first, second};
    return;
  }
  *reinterpret_cast<unsigned*>(static_cast<unsigned short*>(hidden) + at) =
      kind == kHiddenHalf ? pack_halves(first, second) : bf16_of(first) | bf16_of(second) << 16;
}

// A tile of fc1's sums becomes hidden values; `squares` is this warp's row of partial sums.
template <int kKind>
EOSFM_DEVICE void finish_hidden(const Block& d, const Group& group, const Seat& seat, int tile,
                                const typename Operand<kKind>::Sum (&sum)[4], void* hidden, float* squares,
                                bool is_first) {
  const int column = 8 * tile + seat.lane % 4 * 2;
  float totals[2] = {0.0F, 0.0F};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = seat.first_row + seat.lane / 4 + 8 * half;
    if (row >= d.front.rows || !group.has(row)) continue;
    float values[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float x = Operand<kKind>::value(sum[2 * half + i], d.fc1, column + i);
      values[i] = d.hidden_kind == kHiddenBf16 ? gelu_coarse(x) : gelu(x);
      totals[i] = fmaf(values[i], values[i], totals[i]);
    }
    store_hidden(hidden, d.hidden_kind, group.pixel(row) * d.hidden_channels + column, values[0], values[1]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    for (int lanes = 16; lanes >= 4; lanes /= 2) totals[i] += shuffle_xor(totals[i], lanes);
    if (seat.lane >= 4) continue;
    squares[column + i] = is_first ? totals[i] : squares[column + i] + totals[i];
  }
}

template <int kKind>
EOSFM_DEVICE void block_front(const Block& d, size_t image) {
  unsigned* rows = shared_words();
  const int stride = row_stride(d.channels > d.fc1.words ? d.channels : d.fc1.words);
  const float* pixels = d.pixels + image * d.pixels_stride;
  void* hidden = static_cast<char*>(d.hidden) + image * d.hidden_stride;
  const Share share(d.front);
  const Seat seat(d.front.rows, share.first_tile, d.front.columns, d.fc1.tiles);
  const int halves = d.front.rows > 16 ? 2 : 1;
  float* squares = d.squares + image * d.squares_stride +
                   static_cast<size_t>(share.span * halves + seat.first_row / 16) * d.hidden_channels;
  for (int index = share.first_group; index < share.after_group; ++index) {
    const Group group(d.front, index);
    SYNC_THREADS();  // the group before was read
    depthwise(d, group, pixels, reinterpret_cast<float*>(rows), stride);
    SYNC_THREADS();
    for (int row = static_cast<int>(threadIdx.x) / 32; row < d.front.rows; row += kWarps) {
      unsigned* to = rows + row * stride;
      normalise<kKind>(reinterpret_cast<const float*>(to), d.channels, to, d.fc1.words, d.fc1.inverse,
                       d.fc1.zero, seat.lane);
    }
    SYNC_THREADS();
    for (int tile = seat.tile; tile < seat.after_tile; tile += kWarpTiles * seat.tile_step) {
      typename Operand<kKind>::Sum sums[kWarpTiles][4];
      clear(sums);
      multiply<kKind>(rows, stride, d.front.rows, d.fc1.words, d.fc1, 0, seat, tile, sums);
      for_each_tile(seat, tile, sums, [&](int one, const auto& sum) {
        finish_hidden<kKind>(d, group, seat, one, sum, hidden, squares, index == share.first_group);
      });
    }
  }
}

}  // namespace eosfm::gpu

#endif
