// Matmuls of a group of pixels with weights, by tensor cores.
//
// Blocking. A thread block holds the left operand, 32, 16 or 8 rows (pixels) of some words of k, in
// shared memory. Its 8 warps stand 2 x 4 over 32 rows, or 1 x 8 over fewer: each has 16 rows and every
// fourth (eighth) tile of 8 columns, at most five at once, whose sums stay in registers.
//
// Words. k is counted in words of 32 bits: one float, two halves or four bytes. In words, the
// fragments of m16n8k16 (halves) and m16n8k32 (bytes) are the same. With g = lane / 4, t = lane % 4:
//
//     a0 = A[g][t]   a1 = A[g + 8][t]   a2 = A[g][t + 4]   a3 = A[g + 8][t + 4]     8 words a step
//     b0 = B[t][g]   b1 = B[t + 4][g]
//     d0, d1 = D[g][2t, 2t + 1]         d2, d3 = D[g + 8][2t, 2t + 1]
//
// Left operand. A row's stride in shared memory is 4 more than a multiple of 8 words: the eight rows
// and four words that a fragment reads lie in 32 different banks.
//
// Weights. Packed so that a lane reads 16 bytes for two steps and a warp 512 in one piece:
// panels[tile][words / 16][lane][4] = words t, t + 4, t + 8, t + 12 of column g.
//
// Floats, which are for checking, take the same layouts through plain arithmetic.
#ifndef EOSFM_CUDA_KERNELS_MATMUL_H
#define EOSFM_CUDA_KERNELS_MATMUL_H

#include "numbers.h"

namespace eosfm::gpu {

// Where a warp stands in a thread block's share of a matmul.
struct Seat {
  int lane;
  int first_row;   // of its 16
  int tile;        // its first tile of columns
  int tile_step;   // from there to its next
  int after_tile;  // none of its tiles is beyond

  EOSFM_DEVICE Seat(int rows, int first_tile, int tile_count, int tiles) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int high = rows > 16 ? 2 : 1;
    lane = static_cast<int>(threadIdx.x) % 32;
    first_row = warp % high * 16;
    tile_step = kWarps / high;
    tile = first_tile + warp / high;
    after_tile = smaller(first_tile + tile_count, tiles);
  }
};

EOSFM_DEVICE int row_stride(int words) { return round_up_to(words, 8) + 4; }

template <class Sum>
EOSFM_DEVICE void clear(Sum (&sums)[kWarpTiles][4]) {
#pragma unroll
  for (int n = 0; n < kWarpTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[n][i] = 0;
  }
}

EOSFM_DEVICE uint4 load_panel(const unsigned* from) { return *reinterpret_cast<const uint4*>(from); }

// sums += the rows' words 0 ... `words` times the weights' words from `first_word` on.
template <int kKind>
EOSFM_DEVICE void multiply(const unsigned* a, int stride, int rows, int words, const Weights& w,
                           int first_word, const Seat& seat, int first_tile,
                           typename Operand<kKind>::Sum (&sums)[kWarpTiles][4]) {
  const int g = seat.lane / 4;
  const int t = seat.lane % 4;
  const bool low = seat.first_row + g < rows;
  const bool high = seat.first_row + g + 8 < rows;
  const unsigned* a_low = a + (low ? seat.first_row + g : 0) * stride;
  const unsigned* a_high = a + (high ? seat.first_row + g + 8 : 0) * stride;
  for (int k = 0; k < words; k += 16) {
    if constexpr (kKind == kFloat) {
#pragma unroll
      for (int n = 0; n < kWarpTiles; ++n) {
        const int tile = first_tile + n * seat.tile_step;
        if (tile >= seat.after_tile) break;
        const unsigned* b = w.panels + (static_cast<size_t>(tile) * w.words + first_word + k) * 8 + 32 * t;
#pragma unroll 1
        for (int i = 0; i < 16; ++i) {
          const float b0 = float_of(b[i % 4 * 4 + i / 4]);
          const float b1 = float_of(b[16 + i % 4 * 4 + i / 4]);
          const float x = low ? float_of(a_low[k + i]) : 0.0F;
          const float y = high ? float_of(a_high[k + i]) : 0.0F;
          sums[n][0] = fmaf(x, b0, sums[n][0]);
          sums[n][1] = fmaf(x, b1, sums[n][1]);
          sums[n][2] = fmaf(y, b0, sums[n][2]);
          sums[n][3] = fmaf(y, b1, sums[n][3]);
        }
      }
    } else {
      unsigned fragments[2][4];
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const int at = k + 8 * step + t;
        fragments[step][0] = low ? a_low[at] : 0U;
        fragments[step][1] = high ? a_high[at] : 0U;
        fragments[step][2] = low ? a_low[at + 4] : 0U;
        fragments[step][3] = high ? a_high[at + 4] : 0U;
      }
#pragma unroll
      for (int n = 0; n < kWarpTiles; ++n) {
        const int tile = first_tile + n * seat.tile_step;
        if (tile >= seat.after_tile) break;
        const uint4 b =
            load_panel(w.panels + (static_cast<size_t>(tile) * w.words + first_word + k) * 8 + 4 * seat.lane);
        mma(sums[n], fragments[0], b.x, b.y);
        mma(sums[n], fragments[1], b.z, b.w);
      }
    }
  }
}

// Calls use(tile, sums of the tile) for each of a warp's tiles from first_tile on.
template <class Sum, class Use>
EOSFM_DEVICE void for_each_tile(const Seat& seat, int first_tile, const Sum (&sums)[kWarpTiles][4],
                                const Use& use) {
#pragma unroll
  for (int n = 0; n < kWarpTiles; ++n) {
    const int tile = first_tile + n * seat.tile_step;
    if (tile >= seat.after_tile) break;
    use(tile, sums[n]);
  }
}

// Calls use(constant of the kind), so that inner loops do not branch on it.
template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

template <class Use>
EOSFM_DEVICE void with_kind(int kind, const Use& use) {
  if (kind == kHalf) {
    use(Constant<kHalf>());
  } else if (kind == kByte) {
    use(Constant<kByte>());
  } else {
    use(Constant<kFloat>());
  }
}

}  // namespace eosfm::gpu

#endif
