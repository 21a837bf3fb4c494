// Random problems for each kernel, with the answer in double precision by the plainest loops.
#ifndef EOSFM_TESTS_CUDA_CASES_H
#define EOSFM_TESTS_CUDA_CASES_H

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../../backends/cuda/half.h"
#include "../../backends/cuda/weights.h"
#include "shim.h"

extern "C" {
void eosfm_stem(const eosfm::gpu::Stem*, unsigned);
void eosfm_downsample(const eosfm::gpu::Downsample*, unsigned);
void eosfm_block_front(const eosfm::gpu::Block*, unsigned);
void eosfm_block_back(const eosfm::gpu::Block*, unsigned);
void eosfm_moments(const eosfm::gpu::Moments*, unsigned);
void eosfm_mix(const eosfm::gpu::Mix*, unsigned);
void eosfm_combine(const eosfm::gpu::Combination*, unsigned);
int eosfm_barrier_count();
}

namespace cases {

using eosfm::gpu::kByte;
using eosfm::gpu::kFloat;
using eosfm::gpu::kHalf;
using eosfm::gpu::Kind;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

struct Random {
  std::mt19937 bits;
  explicit Random(unsigned seed) : bits(seed) {}
  float normal() { return std::normal_distribution<float>()(bits); }
  float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(bits); }
  int integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(bits); }
  Floats normals(size_t count, float scale = 1.0F, float offset = 0.0F) {
    Floats values(count);
    for (float& one : values) one = offset + scale * normal();
    return values;
  }
};

// Signal to noise in dB; what is not a number is noise without end.
inline double snr(const Doubles& expected, const float* got) {
  double signal = 0.0;
  double noise = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = static_cast<double>(got[i]) - expected[i];
    if (!std::isfinite(d)) return -999.0;
    signal += expected[i] * expected[i];
    noise += d * d;
  }
  return noise == 0.0 ? 999.0 : 10.0 * std::log10(signal / noise);
}

// Weights of a kind, in panels, and what the operands are in double.
struct Linear {
  Kind kind;
  int rows;
  int columns;
  std::vector<uint32_t> words;
  std::vector<uint32_t> panels;
  Doubles w;  // [rows][columns]
  Floats bias;
  Floats scale;
  Floats inverse;
  eosfm::gpu::Weights descriptor;

  // Rows in groups, each of a multiple of eight.
  Linear(Random& random, Kind of, const std::vector<int>& groups, int columns_)
      : kind(of), rows(0), columns(columns_) {
    using namespace eosfm;
    for (const int size : groups) rows += size;
    const int padded = (columns + 7) / 8 * 8;
    const int per = kind == kByte ? 4 : 1;
    words.assign(static_cast<size_t>(rows / per) * padded, 0U);
    w.assign(static_cast<size_t>(rows) * columns, 0.0);
    bias.assign(padded, 0.0F);
    scale.assign(padded, 0.0F);
    for (int c = 0; c < columns; ++c) {
      bias[c] = random.normal() * 0.3F;
      scale[c] = random.uniform(0.5F, 1.5F) / (30.0F * std::sqrt(static_cast<float>(rows)) * 60.0F);
    }
    for (int r = 0; r < rows; ++r) inverse.push_back(random.uniform(30.0F, 60.0F));
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) {
        uint32_t& word = words[static_cast<size_t>(r / per) * padded + c];
        double& exact = w[static_cast<size_t>(r) * columns + c];
        if (kind == kByte) {
          const int value = random.integer(-127, 127);
          word |= (static_cast<uint32_t>(value) & 0xffU) << (8 * (r % 4));
          exact = value;
          continue;
        }
        float value = random.normal() / std::sqrt(static_cast<float>(rows));
        if (kind == kHalf) value = float_of_half(half_of(value));
        std::memcpy(&word, &value, sizeof value);
        exact = static_cast<double>(value);
      }
    }
    Matrix matrix;
    matrix.words = words.data();
    matrix.vectors = padded / 8;
    matrix.columns = columns;
    matrix.storage = kind == kByte ? Storage::s8 : Storage::f32;
    const KGroups parts = {groups.data(), static_cast<int>(groups.size())};
    panels.resize(panel_words(matrix, kind, parts) + 4);
    uint32_t* aligned = panels.data();
    while (reinterpret_cast<uintptr_t>(aligned) % 16 != 0) ++aligned;
    if (!to_panels(matrix, kind, parts, aligned)) std::abort();
    descriptor = {aligned, bias.data(), scale.data(),          inverse.data(),
                  117.0F,  kind,        words_of(kind, parts), tiles_of(matrix)};
  }
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;

  // An input as the matmul sees it.
  double quantised(double value, int row) const {
    if (kind != kByte) return value;
    const double code = value * static_cast<double>(inverse[row]) + 117.0;
    return std::rint(std::fmin(std::fmax(code, 0.0), 255.0)) - 128.0;
  }

  // The outputs for one row of quantised inputs.
  Doubles apply(const Doubles& in) const {
    Doubles out(columns, 0.0);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) out[c] += in[r] * w[static_cast<size_t>(r) * columns + c];
    }
    for (int c = 0; c < columns; ++c) {
      if (kind == kByte) out[c] *= static_cast<double>(scale[c]);
      out[c] += static_cast<double>(bias[c]);
    }
    return out;
  }
};

inline Doubles normalised(const Doubles& in) {
  double mean = 0.0;
  double variance = 0.0;
  for (const double v : in) mean += v / static_cast<double>(in.size());
  for (const double v : in) variance += (v - mean) * (v - mean) / static_cast<double>(in.size());
  Doubles out;
  for (const double v : in) out.push_back((v - mean) / std::sqrt(variance + 1e-6));
  return out;
}

inline eosfm::gpu::Cover cover_of(int width, int height, int rows, int span, int tiles, int columns) {
  const int high = rows / 8;
  const int groups = (width + 7) / 8 * ((height + high - 1) / high);
  return {width, height, rows, span, (groups + span - 1) / span, columns, (tiles + columns - 1) / columns};
}

inline unsigned grid_of(const eosfm::gpu::Cover& cover) {
  return static_cast<unsigned>(cover.spans * cover.splits);
}

inline size_t row_bytes(int words) { return static_cast<size_t>((words + 7) / 8 * 8 + 4) * 4; }

// Runs a kernel for one descriptor and some images.
template <class Descriptor>
bool launch(void (*kernel)(const Descriptor*, unsigned), const Descriptor& d, unsigned grid, size_t shared,
            unsigned images, const shim::Options& options) {
  // A thread block more than is needed: it must return.
  return shim::run({{grid + 1, 1, images}, eosfm::gpu::kThreads, shared}, options, [&] { kernel(&d, 0); });
}

// The least SNR of a kind: float against double, halves by what is asked, and bytes, whose codes are the
// same but where a value lies at the edge between two.
inline double least(Kind kind) { return kind == kFloat ? 110.0 : kind == kHalf ? 60.0 : 45.0; }

struct BlockShape {
  int width, height, channels, hidden;
  Kind fc1, fc2;
  int rows, span, columns;
};

// Both halves of a block over two images. Returns the worst SNR less what is asked of it.
inline double block(const BlockShape& s, unsigned seed, const shim::Options& options) {
  using namespace eosfm;
  Random random(seed);
  const size_t pixels = static_cast<size_t>(s.width) * s.height;
  const int images = 2;
  Floats x = random.normals(pixels * s.channels * images, 1.0F, 0.3F);
  const Floats before = x;
  const Floats depthwise = random.normals(49U * s.channels, 0.15F);
  const Floats depthwise_bias = random.normals(s.channels, 0.2F);
  const Floats grn = random.normals(s.hidden, 0.5F);
  Linear fc1(random, s.fc1, {s.channels}, s.hidden);
  Linear fc2(random, s.fc2, {s.hidden}, s.channels);
  const int hidden_kind = s.fc2 == kFloat  ? gpu::kHiddenFloat
                          : s.fc2 == kHalf ? gpu::kHiddenHalf
                                           : gpu::kHiddenBf16;
  const size_t hidden_bytes = pixels * s.hidden * (s.fc2 == kFloat ? 4 : 2);
  std::vector<char> hidden(hidden_bytes * images + 16, static_cast<char>(0xff));
  char* hidden_at = hidden.data();
  while (reinterpret_cast<uintptr_t>(hidden_at) % 16 != 0) ++hidden_at;

  gpu::Block d;
  d.front = cover_of(s.width, s.height, s.rows, s.span, fc1.descriptor.tiles, s.columns);
  d.back = cover_of(s.width, s.height, s.rows, s.span, fc2.descriptor.tiles, s.columns);
  d.channels = s.channels;
  d.hidden_channels = s.hidden;
  d.depthwise = depthwise.data();
  d.depthwise_bias = depthwise_bias.data();
  d.fc1 = fc1.descriptor;
  d.grn = grn.data();
  d.fc2 = fc2.descriptor;
  d.pixels = x.data();
  d.pixels_stride = pixels * s.channels;
  d.hidden = hidden_at;
  d.hidden_stride = hidden_bytes;
  d.hidden_kind = hidden_kind;
  d.partials = d.front.spans * (s.rows > 16 ? 2 : 1);
  d.squares_stride = static_cast<size_t>(d.partials) * s.hidden;
  Floats squares(d.squares_stride * images, NAN);
  d.squares = squares.data();
  const size_t front_shared =
      s.rows * row_bytes(s.channels > fc1.descriptor.words ? s.channels : fc1.descriptor.words);
  const size_t back_shared = s.rows * row_bytes(gpu::kPanelWords) + (gpu::kWarps + s.hidden) * 4U;
  if (!launch(eosfm_block_front, d, grid_of(d.front), front_shared, images, options)) return -999.0;
  if (!launch(eosfm_block_back, d, grid_of(d.back), back_shared, images, options)) return -999.0;

  Doubles expected;
  for (int image = 0; image < images; ++image) {
    const float* in = before.data() + image * pixels * s.channels;
    std::vector<Doubles> all;
    Doubles norms(s.hidden, 0.0);
    for (size_t p = 0; p < pixels; ++p) {
      Doubles row;
      for (int c = 0; c < s.channels; ++c) {
        double sum = static_cast<double>(depthwise_bias[c]);
        for (int k = 0; k < 49; ++k) {
          const int yy = static_cast<int>(p) / s.width + k / 7 - 3;
          const int xx = static_cast<int>(p) % s.width + k % 7 - 3;
          if (yy < 0 || yy >= s.height || xx < 0 || xx >= s.width) continue;
          sum += static_cast<double>(depthwise[k * s.channels + c]) *
                 static_cast<double>(in[(static_cast<size_t>(yy) * s.width + xx) * s.channels + c]);
        }
        row.push_back(sum);
      }
      row = normalised(row);
      for (int c = 0; c < s.channels; ++c) row[c] = fc1.quantised(row[c], c);
      row = fc1.apply(row);
      for (int h = 0; h < s.hidden; ++h) {
        row[h] *= 0.5 * std::erfc(-row[h] / std::sqrt(2.0));
        norms[h] += row[h] * row[h];
      }
      all.push_back(row);
    }
    double mean = 0.0;
    for (double& one : norms) mean += (one = std::sqrt(one)) / s.hidden;
    for (size_t p = 0; p < pixels; ++p) {
      for (int h = 0; h < s.hidden; ++h) {
        const double factor = 1.0 + static_cast<double>(grn[h]) * norms[h] / (mean + 1e-6);
        all[p][h] = fc2.quantised(all[p][h] * factor, h);
      }
      const Doubles out = fc2.apply(all[p]);
      for (int c = 0; c < s.channels; ++c) {
        expected.push_back(static_cast<double>(in[p * s.channels + c]) + out[c]);
      }
    }
  }
  const double asked =
      s.fc2 == kByte || s.fc1 == kByte ? least(kByte) : std::fmin(least(s.fc1), least(s.fc2));
  return snr(expected, x.data()) - asked;
}

struct DownsampleShape {
  int width, height, in_channels, channels;  // of the output
  Kind kind;
  int rows, span, columns;
};

inline double downsample(const DownsampleShape& s, unsigned seed, const shim::Options& options) {
  using namespace eosfm;
  Random random(seed);
  const size_t pixels = static_cast<size_t>(s.width) * s.height;
  const int images = 2;
  const Floats in = random.normals(4 * pixels * s.in_channels * images, 2.0F, 1.0F);
  Linear weights(random, s.kind, {s.in_channels, s.in_channels, s.in_channels, s.in_channels}, s.channels);
  Floats out(pixels * s.channels * images, NAN);
  gpu::Downsample d;
  d.cover = cover_of(s.width, s.height, s.rows, s.span, weights.descriptor.tiles, s.columns);
  d.in = in.data();
  d.in_stride = 4 * pixels * s.in_channels;
  d.in_channels = s.in_channels;
  d.weights = weights.descriptor;
  d.out = out.data();
  d.out_stride = pixels * s.channels;
  d.channels = s.channels;
  const size_t shared = s.rows * row_bytes(d.weights.words / 4);
  if (!launch(eosfm_downsample, d, grid_of(d.cover), shared, images, options)) return -999.0;
  Doubles expected;
  for (size_t p = 0; p < pixels * images; ++p) {
    const size_t image = p / pixels;
    const size_t y = p % pixels / s.width;
    const size_t x = p % s.width;
    Doubles row;
    for (size_t corner = 0; corner < 4; ++corner) {
      const size_t at = image * 4 * pixels + (2 * y + corner / 2) * 2 * s.width + 2 * x + corner % 2;
      const float* from = in.data() + at * s.in_channels;
      const Doubles norm = normalised(Doubles(from, from + s.in_channels));
      for (const double v : norm) row.push_back(weights.quantised(v, static_cast<int>(row.size())));
    }
    for (const double v : weights.apply(row)) expected.push_back(v);
  }
  return snr(expected, out.data()) - least(s.kind);
}

struct StemShape {
  int width, height, bands, channels, span;  // cells of level 1
};

inline double stem(const StemShape& s, unsigned seed, const shim::Options& options) {
  using namespace eosfm;
  Random random(seed);
  const int images = 2;
  const int all_bands = s.bands + 1;
  const int side = 4 * s.width;
  const size_t plane = static_cast<size_t>(side) * 4 * s.height;
  const size_t pixels = static_cast<size_t>(s.width) * s.height;
  Floats image(plane * all_bands * images);
  for (float& one : image) one = static_cast<float>(random.integer(0, 10000));
  std::vector<int> bands;
  Floats scales;
  Floats offsets;
  for (int b = 0; b < s.bands; ++b) {
    bands.push_back(random.integer(0, all_bands - 1));
    scales.push_back(random.uniform(1e-4F, 3e-4F));
    offsets.push_back(random.uniform(-0.2F, 0.2F));
  }
  const Floats weights = random.normals(16U * s.bands * s.channels, 0.3F);
  const Floats bias = random.normals(s.channels);
  const Floats gamma = random.normals(s.channels);
  const Floats beta = random.normals(s.channels);
  Floats out(pixels * s.channels * images, NAN);
  gpu::Stem d;
  d.cover = cover_of(s.width, s.height, 32, s.span, 1, 1);
  d.image = image.data();
  d.image_stride = plane * all_bands;
  d.bands = bands.data();
  d.scales = scales.data();
  d.offsets = offsets.data();
  d.band_count = s.bands;
  d.weights = weights.data();
  d.bias = bias.data();
  d.gamma = gamma.data();
  d.beta = beta.data();
  d.channels = s.channels;
  d.out = out.data();
  d.out_stride = pixels * s.channels;
  const size_t shared = 8U * 16U * 32U * 4U + 32U * row_bytes(s.channels);
  if (!launch(eosfm_stem, d, grid_of(d.cover), shared, images, options)) return -999.0;
  Doubles expected;
  for (size_t p = 0; p < pixels * images; ++p) {
    const size_t y = p % pixels / s.width;
    const size_t x = p % s.width;
    Doubles row(bias.begin(), bias.end());
    for (int k = 0; k < 16 * s.bands; ++k) {
      const int b = k / 16;
      const float stored =
          image[(p / pixels * all_bands + bands[b]) * plane + (4 * y + k % 16 / 4) * side + 4 * x + k % 4];
      const double value =
          static_cast<double>(stored) * static_cast<double>(scales[b]) + static_cast<double>(offsets[b]);
      for (int c = 0; c < s.channels; ++c) row[c] += value * static_cast<double>(weights[k * s.channels + c]);
    }
    row = normalised(row);
    for (int c = 0; c < s.channels; ++c) {
      expected.push_back(row[c] * static_cast<double>(gamma[c]) + static_cast<double>(beta[c]));
    }
  }
  return snr(expected, out.data()) - 105.0;
}

struct LevelShape {
  int pixels;
  std::vector<int> channels;  // of each set
  bool has_moments;
  Kind kind;     // of mix
  int columns;   // 0: combine
  int how;       // combine: how; mix: the activation
  bool planes;
};

// Sets with random scales, of which one has none, into mix or combine.
inline double level(const LevelShape& s, unsigned seed, const shim::Options& options) {
  using namespace eosfm;
  Random random(seed);
  const int images = 2;
  const size_t pixels = static_cast<size_t>(s.pixels);
  const size_t count = s.channels.size();
  std::vector<Floats> from(count);
  std::vector<Floats> scales(count);
  std::vector<Floats> shifts(count);
  std::vector<Floats> moments(count);
  std::vector<gpu::Set> sets(count);
  int all = 0;
  for (size_t i = 0; i < count; ++i) {
    const int channels = s.channels[i];
    from[i] = random.normals(pixels * channels * images, 1.5F, 0.4F);
    scales[i] = random.normals(channels);
    shifts[i] = random.normals(channels);
    moments[i].assign(2 * images, NAN);
    gpu::Set& set = sets[i];
    set.from = from[i].data();
    set.from_stride = pixels * channels;
    set.channels = channels;
    if (i != 1) {
      set.scale = scales[i].data();
      set.shift = shifts[i].data();
    }
    set.moments = s.has_moments ? moments[i].data() : nullptr;
    set.out_channel = s.columns == 0 && s.how == gpu::kConcatenate ? all : 0;
    all += channels;
    const gpu::Moments one = {set, s.pixels};
    if (s.has_moments && !launch(eosfm_moments, one, 1, gpu::kWarps * 4, images, options)) return -999.0;
  }
  const auto value_of = [&](size_t i, size_t pixel, int c) {  // of all images
    const size_t image = pixel / pixels;
    double value = static_cast<double>(from[i][pixel * s.channels[i] + c]);
    if (s.has_moments) {
      const float* first = from[i].data() + image * pixels * s.channels[i];
      const size_t size = pixels * s.channels[i];
      double mean = 0.0;
      double variance = 0.0;
      for (size_t k = 0; k < size; ++k) mean += static_cast<double>(first[k]) / static_cast<double>(size);
      for (size_t k = 0; k < size; ++k) {
        const double d = static_cast<double>(first[k]) - mean;
        variance += d * d / static_cast<double>(size);
      }
      value = (value - mean) / std::sqrt(variance + 1e-5);
    }
    if (sets[i].scale == nullptr) return value;
    return value * static_cast<double>(scales[i][c]) + static_cast<double>(shifts[i][c]);
  };
  const bool combines = s.columns == 0;
  const int out_channels = !combines ? s.columns : s.how == gpu::kConcatenate ? all : s.channels[0];
  Floats out(pixels * out_channels * images, NAN);
  Doubles expected(out.size());
  const auto put = [&](size_t pixel, int c, double value, bool planes) {
    const size_t image = pixel / pixels;
    const size_t p = pixel % pixels;
    const size_t in_image = planes ? c * pixels + p : p * out_channels + c;
    expected[image * pixels * out_channels + in_image] = value;
  };
  if (combines) {
    gpu::Combination d;
    d.sets = sets.data();
    d.set_count = static_cast<int>(count);
    d.pixels = s.pixels;
    d.how = s.how;
    d.out = out.data();
    d.out_stride = pixels * out_channels;
    int widest = 0;
    for (const int c : s.channels) widest = c > widest ? c : widest;
    const unsigned grid = static_cast<unsigned>((s.pixels + 31) / 32 * ((widest + 31) / 32));
    if (!launch(eosfm_combine, d, grid, 32U * 33U * 4U, images, options)) return -999.0;
    for (size_t p = 0; p < pixels * images; ++p) {
      for (int c = 0; s.how != gpu::kConcatenate && c < s.channels[0]; ++c) {
        double value = value_of(0, p, c);
        for (size_t i = 1; i < count; ++i) {
          value = s.how == gpu::kAdd ? value + value_of(i, p, c) : value * value_of(i, p, c);
        }
        put(p, c, value, true);
      }
      for (size_t i = 0; s.how == gpu::kConcatenate && i < count; ++i) {
        for (int c = 0; c < s.channels[i]; ++c) put(p, sets[i].out_channel + c, value_of(i, p, c), true);
      }
    }
    return snr(expected, out.data()) - 110.0;
  }
  std::vector<int> groups;
  for (const int c : s.channels) groups.push_back((c + 7) / 8 * 8);
  Linear weights(random, s.kind, groups, s.columns);
  gpu::Mix d;
  d.sets = sets.data();
  d.set_count = static_cast<int>(count);
  d.pixels = s.pixels;
  d.weights = weights.descriptor;
  d.channels = s.columns;
  d.activation = s.how;
  d.factor = 0.7F;
  d.out = out.data();
  d.out_stride = pixels * out_channels;
  d.planes = s.planes ? 1 : 0;
  d.columns = 4;
  d.splits = (d.weights.tiles + 3) / 4;
  const unsigned grid = static_cast<unsigned>((s.pixels + 31) / 32 * d.splits);
  if (!launch(eosfm_mix, d, grid, 32U * row_bytes(gpu::kPanelWords), images, options)) return -999.0;
  for (size_t p = 0; p < pixels * images; ++p) {
    Doubles row;
    for (size_t i = 0; i < count; ++i) {
      for (int c = 0; c < groups[i]; ++c) row.push_back(c < s.channels[i] ? value_of(i, p, c) : 0.0);
    }
    const Doubles result = weights.apply(row);
    for (int c = 0; c < s.columns; ++c) {
      const double v = result[c];
      const double activated = v > 0 || s.how == gpu::kPlain ? v : s.how == gpu::kRelu ? 0.0 : 0.01 * v;
      put(p, c, 0.7F * activated, s.planes);
    }
  }
  return snr(expected, out.data()) - least(s.kind);
}

}  // namespace cases

#endif
