// From the stages' pixels to the levels: normalise, project, select, fuse, and write planes.
//
// Normalisation and the selection's factor are one scale and shift a channel; layer normalisation
// needs the moments of the whole level first, which a kernel of its own takes. `mix` computes the matmuls (a
// projection, a 1 x 1 convolution, both layers of an MLP), and `combine` the other fusions.
#ifndef EOSFM_CUDA_KERNELS_LEVELS_H
#define EOSFM_CUDA_KERNELS_LEVELS_H

#include "norm.h"

namespace eosfm::gpu {

constexpr int kLevelRows = 32;  // pixels of a thread block, one after the other

// The value of one channel as it goes into the fusion.
struct Reader {
  const Set& set;
  const float* from;
  float mean = 0.0F;
  float inverse = 1.0F;

  EOSFM_DEVICE Reader(const Set& one, size_t image) : set(one), from(one.from + image * one.from_stride) {
    if (one.moments == nullptr) return;
    mean = one.moments[2 * image];
    inverse = one.moments[2 * image + 1];
  }
  EOSFM_DEVICE float operator()(size_t pixel, int channel) const {
    const float value = (from[pixel * set.channels + channel] - mean) * inverse;
    const float scaled = set.scale != nullptr ? value * set.scale[channel] : value;
    return set.shift != nullptr ? scaled + set.shift[channel] : scaled;
  }
};

// One thread block for each set: mean first, then the mean square of what is left, as the sum of the
// threads' sums.
EOSFM_DEVICE void take_moments(const Moments& d, size_t image) {
  constexpr float kEpsilon = 1e-5F;  // of PyTorch's GroupNorm
  if (blockIdx.x > 0) return;
  float* totals = reinterpret_cast<float*>(shared_words());
  const float* from = d.set.from + image * d.set.from_stride;
  const size_t count = static_cast<size_t>(d.pixels) * d.set.channels;
  float mean = 0.0F;
  float variance = 0.0F;
  for (int moment = 0; moment < 2; ++moment) {
    float sum = 0.0F;
    for (size_t i = threadIdx.x; i < count; i += kThreads) {
      const float value = from[i] - mean;
      sum += moment == 0 ? value : value * value;
    }
    sum = warp_sum(sum);
    SYNC_THREADS();  // the mean was read
    if (threadIdx.x % 32 == 0) totals[threadIdx.x / 32] = sum;
    SYNC_THREADS();
    float total = 0.0F;
    for (int i = 0; i < kWarps; ++i) total += totals[i];
    (moment == 0 ? mean : variance) = total / static_cast<float>(count);
  }
  if (threadIdx.x > 0) return;
  d.set.moments[2 * image] = mean;
  d.set.moments[2 * image + 1] = 1.0F / sqrtf(variance + kEpsilon);
}

EOSFM_DEVICE float activate(float value, int activation) {
  if (activation == kPlain || value > 0.0F) return value;
  return activation == kRelu ? 0.0F : 0.01F * value;
}

template <int kKind>
EOSFM_DEVICE void mix(const Mix& d, size_t image) {
  constexpr int kPer = Operand<kKind>::kPerWord;
  constexpr int kStride = kPanelWords + 4;
  unsigned* rows = shared_words();
  const int groups = (d.pixels + kLevelRows - 1) / kLevelRows;
  const int index = static_cast<int>(blockIdx.x);
  if (index >= groups * d.splits) return;
  const int first_pixel = index % groups * kLevelRows;
  const Seat seat(kLevelRows, index / groups * d.columns, d.columns, d.weights.tiles);
  typename Operand<kKind>::Sum sums[kWarpTiles][4];
  clear(sums);
  int set_word = 0;  // of the weights, where the set begins
  for (int s = 0; s < d.set_count; ++s) {
    const Reader read(d.sets[s], image);
    const int set_words = round_up_to((d.sets[s].channels + kPer - 1) / kPer, 16);
    for (int first = 0; first < set_words; first += kPanelWords) {
      const int words = smaller(kPanelWords, set_words - first);
      SYNC_THREADS();  // the words before were read
      for (int i = static_cast<int>(threadIdx.x); i < kLevelRows * words; i += kThreads) {
        const int row = i / words;
        float values[kPer];
#pragma unroll
        for (int e = 0; e < kPer; ++e) {
          const int channel = (first + i % words) * kPer + e;
          const bool is_there = channel < d.sets[s].channels && first_pixel + row < d.pixels;
          values[e] = is_there ? read(static_cast<size_t>(first_pixel + row), channel) : 0.0F;
        }
        rows[row * kStride + i % words] = Operand<kKind>::word(values);
      }
      SYNC_THREADS();
      multiply<kKind>(rows, kStride, kLevelRows, words, d.weights, set_word + first, seat, seat.tile, sums);
    }
    set_word += set_words;
  }
  float* out = d.out + image * d.out_stride;
  for_each_tile(seat, seat.tile, sums, [&](int tile, const auto& sum) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const size_t pixel = static_cast<size_t>(first_pixel + seat.first_row + seat.lane / 4 + i / 2 * 8);
      const int column = 8 * tile + seat.lane % 4 * 2 + i % 2;
      if (pixel >= static_cast<size_t>(d.pixels) || column >= d.channels) continue;
      const float value = d.factor * activate(Operand<kKind>::value(sum[i], d.weights, column), d.activation);
      out[d.planes != 0 ? static_cast<size_t>(column) * d.pixels + pixel : pixel * d.channels + column] =
          value;
    }
  });
}

// A thread block turns 32 pixels x 32 channels of one set at a time; of sets that are added or
// multiplied, each thread combines its own four values before they are turned.
EOSFM_DEVICE void combine(const Combination& d, size_t image) {
  constexpr int kStride = kLevelRows + 1;
  float* turned = reinterpret_cast<float*>(shared_words());
  const int groups = (d.pixels + kLevelRows - 1) / kLevelRows;
  const int first_pixel = static_cast<int>(blockIdx.x) % groups * kLevelRows;
  const int first_channel = static_cast<int>(blockIdx.x) / groups * 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  float* out = d.out + image * d.out_stride;
  const bool concatenates = d.how == kConcatenate;
  for (int s = 0; s < (concatenates ? d.set_count : 1); ++s) {
    const Set& set = d.sets[s];
    if (first_channel >= set.channels) continue;
    SYNC_THREADS();  // the set before was read
    for (int row = warp; row < kLevelRows; row += kWarps) {
      const size_t pixel = static_cast<size_t>(first_pixel + row);
      const int channel = first_channel + lane;
      if (pixel >= static_cast<size_t>(d.pixels) || channel >= set.channels) continue;
      float value = Reader(set, image)(pixel, channel);
      for (int other = 1; !concatenates && other < d.set_count; ++other) {
        const float more = Reader(d.sets[other], image)(pixel, channel);
        value = d.how == kAdd ? value + more : value * more;
      }
      turned[row * kStride + lane] = value;
    }
    SYNC_THREADS();
    for (int c = warp; c < smaller(32, set.channels - first_channel); c += kWarps) {
      if (first_pixel + lane >= d.pixels) continue;
      out[static_cast<size_t>(set.out_channel + first_channel + c) * d.pixels + first_pixel + lane] =
          turned[lane * kStride + c];
    }
  }
}

}  // namespace eosfm::gpu

#endif
