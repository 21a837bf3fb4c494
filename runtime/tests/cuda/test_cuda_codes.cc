// The codes of every int8 layer, on the CPU engine and on the CUDA kernels: test_cuda_codes BUNDLE
//
// The CPU engine runs an image through kernels that are watched. Each integer layer's input then goes through
// the CUDA kernel of that layer, on the shim: once with the identity instead of its weights, so that the
// outputs are the codes themselves, and once with its own. Layers do not see each other's flips: each gets
// what the CPU engine's got.
//
// Codes must be equal, but where the value before rounding, in double, is within kEdge of the middle between
// two. Where all codes of a pixel are equal, outputs differ by rounding alone: those of fc1 by a bit of bf16,
// the others by 1e-5 of the pixel's largest, since the correction for the zero point is in another bias.
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>

#include "../../src/context.h"
#include "../../src/kernels/isa.h"
#include "../check.h"
#include "cases.h"

using namespace cases;
using namespace eosfm;

namespace {

constexpr double kEdge = 1e-3;  // of a code
constexpr double kMostAtAnEdge = 1e-3;  // of all codes
constexpr double kBitOfBf16 = 1.0 / 128.0;
constexpr double kRounding = 1e-5;

// Bytes of a matrix as the CUDA kernels want them, with the bundle's own sums.
struct Panels {
  std::vector<uint32_t> words;
  std::vector<float> scale;
  std::vector<float> bias;
  gpu::Weights weights;

  Panels(const Matrix& matrix, const std::vector<int>& groups) {
    const KGroups parts = {groups.data(), static_cast<int>(groups.size())};
    words.resize(panel_words(matrix, gpu::kByte, parts) + 4);
    uint32_t* aligned = words.data();
    while (reinterpret_cast<uintptr_t>(aligned) % 16 != 0) ++aligned;
    if (!to_panels(matrix, gpu::kByte, parts, aligned)) std::abort();
    weights = {aligned,
               matrix.bias,
               matrix.scale,
               matrix.inverse,
               matrix.zero,
               gpu::kByte,
               words_of(gpu::kByte, parts),
               tiles_of(matrix)};
  }
};

// The identity instead of a matrix: each output is the code of its input, plus `offset`.
std::unique_ptr<Panels> identity(const Matrix& like, const std::vector<int>& groups, float offset) {
  int count = 0;
  for (const int size : groups) count += size;
  const int columns = (count + 7) / 8 * 8;
  std::vector<uint32_t> words(static_cast<size_t>((count + 3) / 4) * columns, 0U);
  for (int k = 0; k < count; ++k) words[static_cast<size_t>(k / 4) * columns + k] = 1U << (8 * (k % 4));
  Matrix matrix = like;
  matrix.words = words.data();
  matrix.vectors = columns / 8;
  matrix.columns = count;
  auto panels = std::make_unique<Panels>(matrix, groups);
  panels->scale.assign(columns, 1.0F);
  panels->bias.assign(columns, offset);
  panels->weights.scale = panels->scale.data();
  panels->weights.bias = panels->bias.data();
  return panels;
}

// How far the value is from where its code would be another.
double distance_to_edge(double value) { return std::fabs(value - std::floor(value) - 0.5); }

struct Tally {
  size_t codes = 0;
  size_t at_edge = 0;
  size_t wrong = 0;  // other codes, far from an edge
  size_t outputs = 0;  // of pixels whose codes are all equal
  size_t unequal = 0;
  double worst = 0.0;  // among outputs, of the pixel's largest
};

Tally g_front;
Tally g_back;
Tally g_downsample;
float g_fault = 0.0F;  // added to the CUDA kernels' zero points, to see that it is noticed

// Compares one pixel's codes; `value` gives what was rounded. Returns whether all are equal.
bool compare_codes(Tally& tally, const std::vector<int>& expected, const float* got, float offset,
                   const std::function<double(int)>& value) {
  bool equal = true;
  for (size_t c = 0; c < expected.size(); ++c) {
    const int code = static_cast<int>(std::lround(got[c] - offset));
    ++tally.codes;
    if (code == expected[c]) continue;
    equal = false;
    const bool is_neighbour = std::abs(code - expected[c]) == 1;
    ++(is_neighbour && distance_to_edge(value(static_cast<int>(c))) <= kEdge ? tally.at_edge : tally.wrong);
  }
  return equal;
}

void compare_outputs(Tally& tally, const Floats& expected, const float* got, double allowed) {
  double peak = 0.0;
  for (const float one : expected) peak = std::fmax(peak, std::fabs(static_cast<double>(one)));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double off = std::fabs(static_cast<double>(expected[i]) - static_cast<double>(got[i])) / peak;
    ++tally.outputs;
    tally.worst = std::fmax(tally.worst, off);
    if (!(off <= allowed)) ++tally.unequal;
  }
}

// A row of codes as a CPU kernel has it, less 128.
std::vector<int> codes_of(const void* row, Storage storage, int first, int count) {
  std::vector<int> codes;
  for (int i = first; i < first + count; ++i) {
    switch (storage) {
      case Storage::s16: codes.push_back(static_cast<const int16_t*>(row)[i] - 128); break;
      case Storage::u8: codes.push_back(static_cast<const uint8_t*>(row)[i] - 128); break;
      default: codes.push_back(static_cast<const int8_t*>(row)[i]);
    }
  }
  return codes;
}

// What the CUDA engine has of a layer: from the same files, packed for it.
struct Layer {
  const BlockWeights* block = nullptr;  // of a block's two
  const Matrix* entry = nullptr;  // of a downsampling
  int width = 0;  // channels that come in
};

// What was seen of the block or the downsampling that the CPU engine is at.
struct Seen {
  // Of a block.
  const float* image = nullptr;  // with its halo
  size_t row_stride = 0;
  int padded = 0;
  int width = 0;
  int height = 0;
  std::vector<std::vector<int>> codes;  // of each pixel, into fc1
  Floats hidden;  // [pixel][hidden], as they are stored
  Floats squares;  // [band of rows][hidden]
  int bands = 0;
  Floats factors;  // of GRN, with the scales of fc2's codes
  Floats back_codes;  // the CUDA kernels' of the whole image, into fc2
  Floats back_output;  // and the image after the block
  int back_pixel = 0;  // the next that is to be compared
  // Of a downsampling.
  std::vector<Norm> norms;
};

Kernels g_real;
Seen g_seen;
std::map<const uint32_t*, Layer> g_layers;

float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::vector<float> whole_image(const Seen& seen, int channels) {
  std::vector<float> pixels;
  for (int y = 0; y < seen.height; ++y) {
    for (int x = 0; x < seen.width; ++x) {
      const float* from = seen.image + (y + 3) * seen.row_stride + static_cast<size_t>(x + 3) * seen.padded;
      pixels.insert(pixels.end(), from, from + channels);
    }
  }
  return pixels;
}

gpu::Block block_of(const Layer& layer, Floats& pixels) {
  gpu::Block d;
  d.channels = layer.width;
  d.hidden_channels = layer.block->hidden;
  d.depthwise = layer.block->depthwise;
  d.depthwise_bias = layer.block->depthwise_bias;
  d.grn = layer.block->grn;
  d.pixels = pixels.data();
  d.pixels_stride = pixels.size();
  return d;
}

size_t shared_bytes(int rows, int words, int channels) {
  return rows * row_bytes(words > channels ? words : channels);
}

void run_front(gpu::Block d, const Seen& seen, const gpu::Weights& fc1, void* hidden, int hidden_kind,
               Floats& squares) {
  d.fc1 = fc1;
  d.fc1.zero += g_fault;
  d.hidden_channels = 8 * fc1.tiles;
  d.front = cover_of(seen.width, seen.height, 32, 2, fc1.tiles, fc1.tiles);
  d.hidden = hidden;
  d.hidden_kind = hidden_kind;
  d.partials = 2 * d.front.spans;
  squares.assign(static_cast<size_t>(d.partials) * d.hidden_channels, NAN);
  d.squares = squares.data();
  CHECK(launch(eosfm_block_front, d, grid_of(d.front), shared_bytes(32, fc1.words, d.channels), 1, {}));
}

// The value that becomes a code of fc1's input, in double.
double front_value(const Seen& seen, const Layer& layer, int pixel, int channel) {
  const int x0 = pixel % seen.width;
  const int y0 = pixel / seen.width;
  Doubles row;
  for (int c = 0; c < layer.width; ++c) {
    double sum = static_cast<double>(layer.block->depthwise_bias[c]);
    for (int k = 0; k < 49; ++k) {
      const float* from =
          seen.image + (y0 + k / 7) * seen.row_stride + static_cast<size_t>(x0 + k % 7) * seen.padded;
      sum += static_cast<double>(from[c]) * static_cast<double>(layer.block->depthwise[k * layer.width + c]);
    }
    row.push_back(sum);
  }
  const Matrix& fc1 = layer.block->fc1;
  return normalised(row)[channel] * static_cast<double>(fc1.inverse[channel]) + static_cast<double>(fc1.zero);
}

// All of a block's first half was seen.
void compare_front(const Layer& layer) {
  Seen& seen = g_seen;
  const int pixels = seen.width * seen.height;
  const int channels = layer.width;
  const int hidden = layer.block->hidden;
  Floats image = whole_image(seen, channels);
  const gpu::Block d = block_of(layer, image);
  Floats squares;
  constexpr float kOffset = 160.0F;  // where GELU leaves values as they are
  const auto unit = identity(layer.block->fc1, {channels}, kOffset);
  Floats codes(static_cast<size_t>(pixels) * 8 * unit->weights.tiles, NAN);
  run_front(d, seen, unit->weights, codes.data(), gpu::kHiddenFloat, squares);
  const Panels own(layer.block->fc1, {channels});
  std::vector<uint16_t> stored(static_cast<size_t>(pixels) * hidden, 0xffffU);
  run_front(d, seen, own.weights, stored.data(), gpu::kHiddenBf16, squares);
  for (int p = 0; p < pixels; ++p) {
    const bool equal =
        compare_codes(g_front, seen.codes[p], &codes[static_cast<size_t>(p) * 8 * unit->weights.tiles],
                      kOffset, [&](int c) { return front_value(seen, layer, p, c); });
    if (!equal) continue;
    Floats got;
    for (int h = 0; h < hidden; ++h) {
      got.push_back(as_float(static_cast<uint32_t>(stored[static_cast<size_t>(p) * hidden + h]) << 16));
    }
    const auto row = seen.hidden.begin() + static_cast<ptrdiff_t>(p) * hidden;
    compare_outputs(g_front, Floats(row, row + hidden), got.data(), kBitOfBf16);
  }
}

// Runs a block's second half on the CPU engine's hidden tensor, for all pixels.
void run_back(const Layer& layer) {
  Seen& seen = g_seen;
  const int hidden = layer.block->hidden;
  std::vector<uint16_t> storage(seen.hidden.size() + 8);
  uint16_t* stored = storage.data();
  while (reinterpret_cast<uintptr_t>(stored) % 16 != 0) ++stored;
  for (size_t i = 0; i < seen.hidden.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &seen.hidden[i], sizeof bits);
    stored[i] = static_cast<uint16_t>(bits >> 16);
  }
  const auto run = [&](const gpu::Weights& fc2, Floats& image, int channels) {
    gpu::Block d = block_of(layer, image);
    d.channels = channels;
    d.fc2 = fc2;
    d.fc2.zero += g_fault;
    d.back = cover_of(seen.width, seen.height, 32, 1, fc2.tiles, fc2.tiles < 20 ? fc2.tiles : 20);
    d.hidden = stored;
    d.hidden_kind = gpu::kHiddenBf16;
    d.partials = seen.bands;
    d.squares = seen.squares.data();
    const size_t shared = 32 * row_bytes(gpu::kPanelWords) + (gpu::kWarps + hidden) * 4U;
    CHECK(launch(eosfm_block_back, d, grid_of(d.back), shared, 1, {}));
  };
  const auto unit = identity(layer.block->fc2, {hidden}, 0.0F);
  seen.back_codes.assign(static_cast<size_t>(seen.width) * seen.height * 8 * unit->weights.tiles, 0.0F);
  run(unit->weights, seen.back_codes, 8 * unit->weights.tiles);
  const Panels own(layer.block->fc2, {hidden});
  seen.back_output = whole_image(seen, layer.width);
  run(own.weights, seen.back_output, layer.width);
  seen.back_pixel = 0;
}

void compare_back(const Layer& layer, const Matrix& w, const void* a, size_t stride, int rows,
                  const PixelMap& out) {
  Seen& seen = g_seen;
  const int hidden = layer.block->hidden;
  for (int i = 0; i < rows; ++i, ++seen.back_pixel) {
    const int p = seen.back_pixel;
    const size_t columns = static_cast<size_t>((hidden + 7) / 8 * 8);
    const bool equal =
        compare_codes(g_back, codes_of(static_cast<const char*>(a) + i * stride, w.storage, 0, hidden),
                      &seen.back_codes[p * columns], 0.0F, [&](int h) {
      return static_cast<double>(seen.hidden[static_cast<size_t>(p) * hidden + h]) *
                 static_cast<double>(seen.factors[h]) +
             static_cast<double>(layer.block->fc2.zero);
    });
    const float* to = out.base + i / out.width * out.row_stride + i % out.width * out.pixel_stride;
    if (!equal) continue;
    compare_outputs(g_back, Floats(to, to + layer.width),
                    &seen.back_output[static_cast<size_t>(p) * layer.width], kRounding);
  }
}

// Some rows of a downsampling, whose norms were seen before its matmul.
void compare_downsample(const Layer& layer, const Matrix& w, const void* a, size_t stride, int rows,
                        const PixelMap& out) {
  const std::vector<Norm>& norms = g_seen.norms;
  const int width = out.width;
  const int high = rows / width;
  CHECK(static_cast<int>(norms.size()) == 4 * high);
  const int channels = layer.width;
  Floats in(static_cast<size_t>(4) * rows * channels);
  const auto pixel_of = [&](int y, int corner, int x) {
    return &in[((2 * static_cast<size_t>(y) + corner / 2) * 2 * width + 2 * x + corner % 2) * channels];
  };
  for (int n = 0; n < 4 * high; ++n) {
    for (int x = 0; x < width; ++x) {
      std::memcpy(pixel_of(n / 4, n % 4, x), norms[n].input + x * norms[n].stride, channels * sizeof(float));
    }
  }
  const std::vector<int> corners(4, channels);
  const auto run = [&](const gpu::Weights& weights, int columns) {
    gpu::Downsample d;
    d.cover = cover_of(width, high, 32, 1, weights.tiles, weights.tiles < 20 ? weights.tiles : 20);
    d.in = in.data();
    d.in_channels = channels;
    d.weights = weights;
    d.weights.zero += g_fault;
    Floats result(static_cast<size_t>(rows) * columns, NAN);
    d.out = result.data();
    d.channels = columns;
    CHECK(launch(eosfm_downsample, d, grid_of(d.cover), 32 * row_bytes(weights.words / 4), 1, {}));
    return result;
  };
  const auto unit = identity(*layer.entry, corners, 0.0F);
  const Floats codes = run(unit->weights, 4 * channels);
  const Panels own(*layer.entry, corners);
  const int columns = 8 * own.weights.tiles;
  const Floats outputs = run(own.weights, columns);
  const int padded = norms[0].padded_channels;
  for (int p = 0; p < rows; ++p) {
    const char* row = static_cast<const char*>(a) + p * stride;
    std::vector<int> expected;
    for (int corner = 0; corner < 4; ++corner) {
      for (const int code : codes_of(row, w.storage, corner * padded, channels)) expected.push_back(code);
    }
    const bool equal = compare_codes(g_downsample, expected, &codes[static_cast<size_t>(p) * 4 * channels],
                                     0.0F, [&](int i) {
      const float* from = pixel_of(p / width, i / channels, p % width);
      return normalised(Doubles(from, from + channels))[i % channels] *
                 static_cast<double>(layer.entry->inverse[i]) +
             static_cast<double>(layer.entry->zero);
    });
    const float* to = out.base + p / width * out.row_stride + p % width * out.pixel_stride;
    if (!equal) continue;
    compare_outputs(g_downsample, Floats(to, to + layer.entry->columns),
                    &outputs[static_cast<size_t>(p) * columns], kRounding);
  }
}

// The watched kernels.
void watch_depthwise_norm(const DepthwiseNorm& call) {
  g_real.depthwise_norm(call);
  if (!is_integer(call.out.storage)) return;
  Seen& seen = g_seen;
  if (seen.image == nullptr) {
    seen.image = call.input;
    seen.row_stride = call.row_stride;
    seen.padded = call.padded_channels;
    seen.width = call.width;
  }
  seen.height += call.rows;
}

void watch_linear_gelu(const Matrix& w, const void* a, size_t stride, int rows, const Rows& out,
                       float* squares, float* tile) {
  g_real.linear_gelu(w, a, stride, rows, out, squares, tile);
  const auto found = g_layers.find(w.words);
  if (!is_integer(w.storage) || found == g_layers.end()) return;
  const int hidden = found->second.block->hidden;
  for (int p = 0; p < rows; ++p) {
    g_seen.codes.push_back(
        codes_of(static_cast<const char*>(a) + p * stride, w.storage, 0, found->second.width));
    const char* row = static_cast<const char*>(out.data) + p * out.stride;
    for (int h = 0; h < hidden; ++h) {
      g_seen.hidden.push_back(
          as_float(static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(row)[h]) << 16));
    }
  }
  g_seen.squares.insert(g_seen.squares.end(), squares, squares + hidden);
  ++g_seen.bands;
}

void watch_scale_rows(const void* in, size_t in_stride, Storage in_storage, int rows, int columns,
                      const float* scales, const float* shifts, const Rows& out) {
  g_real.scale_rows(in, in_stride, in_storage, rows, columns, scales, shifts, out);
  if (is_integer(out.storage)) g_seen.factors.assign(scales, scales + columns);
}

void watch_norm(const Norm& call) {
  g_real.norm(call);
  if (is_integer(call.out.storage)) g_seen.norms.push_back(call);
}

void watch_linear(const Matrix& w, const void* a, size_t stride, int rows, const PixelMap& out, Store store,
                  float* tile) {
  const auto found = g_layers.find(w.words);
  const bool watched = is_integer(w.storage) && found != g_layers.end();
  const bool is_block = watched && found->second.block != nullptr;
  // The image is still what the block's first half read.
  if (is_block && g_seen.back_codes.empty()) {
    compare_front(found->second);
    run_back(found->second);
  }
  g_real.linear(w, a, stride, rows, out, store, tile);
  if (!watched) return;
  if (is_block) {
    compare_back(found->second, w, a, stride, rows, out);
    if (g_seen.back_pixel < g_seen.width * g_seen.height) return;
  } else {
    compare_downsample(found->second, w, a, stride, rows, out);
  }
  g_seen = Seen();
}

void add_layers(const NetworkWeights& cpu, const NetworkWeights& packed) {
  for (int s = 0; s < kStages; ++s) {
    Layer layer;
    if (s > 0) {
      layer.entry = &packed.stages[s].entry;
      layer.width = packed.stages[s - 1].width;
      g_layers[cpu.stages[s].entry.words] = layer;
    }
    for (int b = 0; b < cpu.stages[s].blocks.size(); ++b) {
      layer = {&packed.stages[s].blocks[b], nullptr, packed.stages[s].width};
      g_layers[cpu.stages[s].blocks[b].fc1.words] = layer;
      g_layers[cpu.stages[s].blocks[b].fc2.words] = layer;
    }
  }
}

void run_image(eosfm_model& model) {
  ErrorText text;
  Settings settings;
  CHECK(settings.set(nullptr, model.chain, text) == EOSFM_OK);
  settings.threads = 1;
  eosfm_context context;
  CHECK(context.create(&model, settings, "native", text) == EOSFM_OK);
  double worst[kLevels];
  CHECK(context.verify(worst) == EOSFM_OK);
}

void print(const char* name, const Tally& tally) {
  std::printf("%s: %zu codes, %zu at an edge, %zu wrong; %zu outputs, %zu unequal, %.1e off\n", name,
              tally.codes, tally.at_edge, tally.wrong, tally.outputs, tally.unequal, tally.worst);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  ErrorText text;
  eosfm_model packed;
  CHECK(packed.files.set_directory(packed.memory.allocator(), argv[1], text) == EOSFM_OK);
  CHECK(packed.load(kGpuPacking, text) == EOSFM_OK);
  g_real = *choose_kernels(std::getenv("EOSFM_ISA"));
  Kernels watched = g_real;
  watched.depthwise_norm = watch_depthwise_norm;
  watched.norm = watch_norm;
  watched.linear = watch_linear;
  watched.linear_gelu = watch_linear_gelu;
  watched.scale_rows = watch_scale_rows;
  eosfm_model model;
  CHECK(model.files.set_directory(model.memory.allocator(), argv[1], text) == EOSFM_OK);
  CHECK(model.load(watched, text) == EOSFM_OK);
  const PackedModel* cpu = nullptr;
  CHECK(model.packed(EOSFM_AS_STORED, &cpu, text) == EOSFM_OK);
  Array<NetworkWeights> networks;
  CHECK(networks.allocate(packed.memory.allocator(), packed.specialists.size()));
  for (int s = 0; s < networks.size(); ++s) {
    CHECK(packed.specialists[s].pack(kGpuPacking, false, &networks[s], text) == EOSFM_OK);
    add_layers(cpu->networks[s], networks[s]);
  }

  run_image(model);
  for (const auto& one :
       {std::make_pair("front", &g_front), {"back", &g_back}, {"downsample", &g_downsample}}) {
    const Tally& tally = *one.second;
    print(one.first, tally);
    CHECK(tally.codes > 0 && tally.outputs > 0);
    CHECK(tally.wrong == 0 && tally.unequal == 0);
    CHECK(static_cast<double>(tally.at_edge) <= kMostAtAnEdge * static_cast<double>(tally.codes));
  }
  // A fiftieth of a code more is noticed in each kind of layer.
  g_front = g_back = g_downsample = Tally();
  g_fault = 0.02F;
  run_image(model);
  CHECK(g_front.wrong > 0 && g_back.wrong > 0 && g_downsample.wrong > 0);
  return report();
}
