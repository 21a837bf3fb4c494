// The functions that an instruction set provides: one table for each set; everything else is shared.
#ifndef EOSFM_KERNELS_KERNELS_H
#define EOSFM_KERNELS_KERNELS_H

#include <cstddef>
#include <cstdint>

#include "kernels/matrix.h"

namespace eosfm {

// Rows of a raster with a border; finds pixel number i of a strip of whole rows.
struct PixelMap {
  float* base;
  int width;          // pixels in a row
  size_t row_stride;  // floats
  size_t pixel_stride;
};

// Activations that a kernel writes, one row for each pixel. A kernel writes all `bytes` of a row, with zeros after the
// channels, so that a padded matmul never reads older values.
struct Rows {
  void* data;
  size_t stride;  // bytes
  size_t bytes;
  Storage storage;
  float zero;  // of integers: what stands for 0
};

enum class Pixel : uint8_t { u8, u16, s16, f32 };

enum class Store : uint8_t {
  plain,       // out = y
  add,         // out += y
  relu,        // out = max(y, 0)
  leaky_relu,  // out = y > 0 ? y : y / 100
};

struct DepthwiseNorm {
  const float* input;     // the pixel 3 rows above and 3 columns left of the first output's
  size_t row_stride;      // floats
  int width;              // output pixels in a row
  int rows;
  int channels;           // true channels
  int padded_channels;    // a multiple of the lanes; the pixels' stride
  const float* weights;   // [49][padded_channels]
  const float* bias;      // [padded_channels]
  const float* gamma;     // as of Norm
  float* scratch;         // [width][padded_channels]
  Rows out;
};

struct Norm {
  const float* input;
  size_t stride;  // floats from one pixel to the next
  int pixels;
  int channels;
  int padded_channels;
  // Null, or [padded_channels], zero beyond the channels. Integers have a gamma, which is what they
  // are quantised with, and no beta.
  const float* gamma;
  const float* beta;
  Rows out;
};

struct Kernels {
  const char* name;
  int lanes;          // channels of a vector
  int panel_vectors;  // vectors of the widest panel
  int k_word_multiple;  // a matrix's k_words are a multiple of this, and rows as long
  Storage integer;    // how int8 layers hold their activations
  bool native_bf16;   // false: bf16 weights are widened and computed in fp32

  // to[i] = from[i] * scale + offset; `count` is a multiple of 32. Returns whether no stored value is
  // `nodata` (NaN: there is none) and all values are finite.
  bool (*read_pixels)(const void* from, Pixel type, int count, float scale, float offset, float nodata,
                      float* to);
  // Depthwise 7x7 convolution, then layer normalisation without beta.
  void (*depthwise_norm)(const DepthwiseNorm&);
  // Layer normalisation over the channels of each pixel, eps 1e-6.
  void (*norm)(const Norm&);
  // out = a * w + bias
  void (*linear)(const Matrix& w, const void* a, size_t a_stride, int rows, const PixelMap& out, Store store,
                 float* sums);
  // out = gelu(a * w + bias); adds each column's sum of squares to `squares`. `out` is f32 or bf16.
  void (*linear_gelu)(const Matrix& w, const void* a, size_t a_stride, int rows, const Rows& out,
                      float* squares, float* sums);
  // target = diag(scales) * source; the source is f32, the target f32 or bf16.
  void (*scale_matrix)(const Matrix& source, const float* scales, const Matrix& target, int first_word,
                       int last_word);
  // out[row][i] = in[row][i] * scales[i] + shifts[i]; `in` is f32 or bf16, no scales are ones and no
  // shifts are zeros. Integers have scales, which quantise too, and no shifts.
  void (*scale_rows)(const void* in, size_t in_stride, Storage in_storage, int rows, int columns,
                     const float* scales, const float* shifts, const Rows& out);
};

// Floats that `sums` of linear and linear_gelu must hold, on any instruction set.
constexpr int kSumsFloats = 32 * 64;

// Rows that a kernel may read beyond the last row of its activations, on any instruction set.
constexpr int kRowPadding = 31;

}  // namespace eosfm

#endif
