// The arguments of a launch. The host fills these in and copies them beside the weights; a kernel takes an
// array with one descriptor for each run of a specialist, so that runs of unequal shapes share a launch.
//
// Activations are channels-last float32: [image][pixel][channels]. The grid of every kernel is
// (groups of pixels x groups of columns, descriptors, images); thread blocks beyond what their
// descriptor needs return at once. Arrays hold all images that may be under way, and a launch is for some
// of them, from one on.
#ifndef EOSFM_CUDA_KERNELS_DESCRIPTORS_H
#define EOSFM_CUDA_KERNELS_DESCRIPTORS_H

#ifndef __CUDACC_RTC__  // has no headers, and size_t from the start
#include <stddef.h>
#endif

namespace eosfm::gpu {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Words of 32 bits of each row of the left operand that a thread block holds at once, where it
// cannot hold them all.
constexpr int kPanelWords = 128;

// Columns come in tiles of 8; a warp holds the sums of at most this many tiles.
constexpr int kWarpTiles = 5;

// Pixels of a group are 8 wide and 1, 2 or 4 high.
constexpr int kGroupWidth = 8;

// The storage of a matmul's operands: one, two or four elements in a word.
enum Kind : int { kFloat = 0, kHalf = 1, kByte = 2 };

// The storage of a block's hidden tensor.
enum Hidden : int { kHiddenFloat = 0, kHiddenHalf = 1, kHiddenBf16 = 2 };

struct Weights {
  const unsigned* panels = nullptr;  // [tile of 8 columns][16 words of k][lane][4]: see matmul.h
  const float* bias = nullptr;       // [8 * tiles]
  const float* scale = nullptr;      // of bytes: what sums are multiplied by
  const float* inverse = nullptr;    // of bytes: what inputs are multiplied by to be quantised
  float zero = 0.0F;                 // of bytes: the code that stands for 0, from 0 to 255
  int kind = kFloat;
  int words = 0;  // of k, a multiple of 16
  int tiles = 0;
};

// The cover of an image of width x height pixels by a launch: thread block i takes `span` groups of `rows`
// pixels, for `columns` tiles of 8 columns.
struct Cover {
  int width = 0;
  int height = 0;
  int rows = 32;  // 32, 16 or 8
  int span = 1;
  int spans = 0;    // thread blocks that it takes to cover the pixels
  int columns = 0;  // tiles of columns of one thread block
  int splits = 0;   // thread blocks that it takes to cover the columns
};

struct Stem {
  Cover cover;  // of level 1's cells
  const float* image = nullptr;  // [bands][4 height][4 width], as the sensor stores it
  size_t image_stride = 0;
  const int* bands = nullptr;     // that the run takes
  const float* scales = nullptr;  // of those bands: physical = stored * scale + offset
  const float* offsets = nullptr;
  int band_count = 0;
  const float* weights = nullptr;  // [16 * bands][channels]
  const float* bias = nullptr;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  int channels = 0;
  float* out = nullptr;
  size_t out_stride = 0;  // floats from an image to the next
};

struct Downsample {
  Cover cover;  // of the output
  const float* in = nullptr;
  size_t in_stride = 0;
  int in_channels = 0;
  Weights weights;  // the words of each corner are a quarter
  float* out = nullptr;
  size_t out_stride = 0;
  int channels = 0;
};

// Both kernels of a ConvNeXtV2 block.
struct Block {
  Cover front;
  Cover back;
  int channels = 0;
  int hidden_channels = 0;
  const float* depthwise = nullptr;  // [49][channels]
  const float* depthwise_bias = nullptr;
  Weights fc1;
  const float* grn = nullptr;  // gamma of GRN
  Weights fc2;
  float* pixels = nullptr;  // in and out: the residual
  size_t pixels_stride = 0;
  void* hidden = nullptr;  // [pixel][hidden channels]
  size_t hidden_stride = 0;  // bytes from an image to the next
  int hidden_kind = kHiddenFloat;
  float* squares = nullptr;  // [partials][hidden channels]
  int partials = 0;
  size_t squares_stride = 0;
};

// One feature set at one level: rows of channels, normalised as value * scale + shift.
struct Set {
  const float* from = nullptr;
  size_t from_stride = 0;  // floats from an image to the next
  int channels = 0;
  const float* scale = nullptr;  // null: 1
  const float* shift = nullptr;  // null: 0
  float* moments = nullptr;      // of layer normalisation, [image][2]: mean, 1 / deviation; null: none
  int out_channel = 0;           // where a fusion that concatenates puts it
};

enum Activation : int { kPlain = 0, kRelu = 1, kLeakyRelu = 2 };

// A matmul over the channels of all sets at a level: a projection, or a fusion.
struct Mix {
  const Set* sets = nullptr;
  int set_count = 0;
  int pixels = 0;
  Weights weights;     // the words of each set are padded by themselves
  int channels = 0;    // columns that are written
  int activation = kPlain;
  float factor = 1.0F;  // of the selection
  float* out = nullptr;
  size_t out_stride = 0;
  int planes = 0;  // 1: out is [channels][pixels], 0: [pixels][channels]
  int columns = 0;  // tiles of columns of one thread block
  int splits = 0;
};

enum Combine : int { kConcatenate = 0, kAdd = 1, kMultiply = 2 };

// Sets beside each other, added or multiplied, as planes.
struct Combination {
  const Set* sets = nullptr;
  int set_count = 0;
  int pixels = 0;
  int how = kConcatenate;
  float* out = nullptr;  // [channels][pixels]
  size_t out_stride = 0;
};

// Mean and deviation over all channels and pixels of a set.
struct Moments {
  Set set;
  int pixels = 0;
};

}  // namespace eosfm::gpu

#endif
