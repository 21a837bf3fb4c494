// The second half of a ConvNeXtV2 block: GRN -> fc2 -> add to the input.
//
// GRN (Woo et al., CVPR 2023): hidden channel h is multiplied by 1 + gamma[h] * norm[h] / mean(norm),
// norm[h] its L2 norm over the image. Every thread block adds up the partial sums itself, into factors
// in shared memory: that is a few thousand floats from the cache, and saves a launch. GRN's bias is in
// fc2's, and for bytes the scale by which the hidden tensor is quantised is in the factors.
//
// Then, for each group of its span: 128 words of k at a time, the hidden tensor times the factors goes
// into shared memory as fc2's left operand, and is multiplied.
#ifndef EOSFM_CUDA_KERNELS_BLOCK_BACK_H
#define EOSFM_CUDA_KERNELS_BLOCK_BACK_H

#include "norm.h"

namespace eosfm::gpu {

// factors[h] for all hidden channels; `totals` are a float for each warp.
EOSFM_DEVICE void set_factors(const Block& d, const float* squares, float* factors, float* totals) {
  float total = 0.0F;
  for (int h = static_cast<int>(threadIdx.x); h < d.hidden_channels; h += kThreads) {
    float sum = 0.0F;
    for (int p = 0; p < d.partials; ++p) sum += squares[static_cast<size_t>(p) * d.hidden_channels + h];
    factors[h] = sqrtf(sum);
    total += factors[h];
  }
  total = warp_sum(total);
  if (threadIdx.x % 32 == 0) totals[threadIdx.x / 32] = total;
  SYNC_THREADS();
  total = 0.0F;
  for (int i = 0; i < kWarps; ++i) total += totals[i];
  const float inverse = 1.0F / (total / static_cast<float>(d.hidden_channels) + 1e-6F);
  for (int h = static_cast<int>(threadIdx.x); h < d.hidden_channels; h += kThreads) {
    const float factor = fmaf(d.grn[h], factors[h] * inverse, 1.0F);
    factors[h] = d.fc2.kind == kByte ? factor * d.fc2.inverse[h] : factor;
  }
}

// Eight neighbouring hidden values.
EOSFM_DEVICE void load_hidden(const void* hidden, int kind, size_t at, float (&values)[8]) {
  if (kind == kHiddenFloat) {
    const float* from = static_cast<const float*>(hidden) + at;
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = from[i];
    return;
  }
  const uint4 bits =
      load_panel(reinterpret_cast<const unsigned*>(static_cast<const unsigned short*>(hidden) + at));
  const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const unsigned one = words[i / 2] >> (16 * (i % 2)) & 0xffffU;
    values[i] = kind == kHiddenHalf ? unpack_half(one) : float_of(one << 16);
  }
}

// Words `first` ... `first + words` of every pixel's scaled hidden values; zeros beyond the channels.
template <int kKind>
EOSFM_DEVICE void load_scaled(const Block& d, const Group& group, const void* hidden, const float* factors,
                              int first, int words, unsigned* rows, int stride) {
  constexpr int kPer = Operand<kKind>::kPerWord;
  constexpr int kAtOnce = 8 / kPer;  // words
  const int steps = words / kAtOnce;
  for (int i = static_cast<int>(threadIdx.x); i < d.back.rows * steps; i += kThreads) {
    const int row = i / steps;
    const int word = i % steps * kAtOnce;
    const int h = (first + word) * kPer;
    unsigned* to = rows + row * stride + word;
    if (h >= d.hidden_channels || !group.has(row)) {
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) to[j] = 0U;
      continue;
    }
    float values[8];
    load_hidden(hidden, d.hidden_kind, group.pixel(row) * d.hidden_channels + h, values);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      float few[kPer];
#pragma unroll
      for (int e = 0; e < kPer; ++e) {
        const float value = values[j * kPer + e];
        const float factor = factors[h + j * kPer + e];
        few[e] = kKind == kByte ? fmaf(value, factor, d.fc2.zero) : value * factor;
      }
      to[j] = Operand<kKind>::word(few);
    }
  }
}

template <int kKind>
EOSFM_DEVICE void block_back(const Block& d, size_t image) {
  const Share share(d.back);
  if (share.first_group >= share.after_group) return;
  constexpr int kStride = kPanelWords + 4;
  unsigned* rows = shared_words();
  float* totals = reinterpret_cast<float*>(rows + d.back.rows * kStride);
  float* factors = totals + kWarps;
  const void* hidden = static_cast<const char*>(d.hidden) + image * d.hidden_stride;
  float* pixels = d.pixels + image * d.pixels_stride;
  const Seat seat(d.back.rows, share.first_tile, d.back.columns, d.fc2.tiles);
  set_factors(d, d.squares + image * d.squares_stride, factors, totals);
  for (int index = share.first_group; index < share.after_group; ++index) {
    const Group group(d.back, index);
    typename Operand<kKind>::Sum sums[kWarpTiles][4];
    clear(sums);
    for (int first = 0; first < d.fc2.words; first += kPanelWords) {
      const int words = smaller(kPanelWords, d.fc2.words - first);
      SYNC_THREADS();  // the factors are there; the words before were read
      load_scaled<kKind>(d, group, hidden, factors, first, words, rows, kStride);
      SYNC_THREADS();
      multiply<kKind>(rows, kStride, d.back.rows, words, d.fc2, first, seat, seat.tile, sums);
    }
    for_each_tile(seat, seat.tile, sums, [&](int tile, const auto& sum) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = seat.first_row + seat.lane / 4 + i / 2 * 8;
        const int column = 8 * tile + seat.lane % 4 * 2 + i % 2;
        if (row >= d.back.rows || !group.has(row)) continue;
        float* at = pixels + group.pixel(row) * d.channels + column;
        *at += Operand<kKind>::value(sum[i], d.fc2, column);
      }
    });
  }
}

}  // namespace eosfm::gpu

#endif
