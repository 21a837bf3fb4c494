// A ConvNeXtV2 encoder: its weights as the kernels read them, and its forward pass.
//
// Woo et al., ConvNeXt V2, CVPR 2023, https://arxiv.org/abs/2301.00808. A block is: depthwise 7x7 ->
// layer norm -> fc1 -> GELU -> global response normalisation (GRN) -> fc2 -> add to the input.
//
// GRN needs the sum of squares of every hidden channel over the whole image, so a block is two loops
// over strips of rows with a barrier between: up to the hidden tensor, adding up its squares, and
// from it. GRN's factor then goes into fc2's weights, or where there are fewer pixels than channels,
// over the hidden tensor. The sums can also be handed out, and those of many images be used instead.
#ifndef EOSFM_NETWORK_H
#define EOSFM_NETWORK_H

#include "eosfm.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "team.h"

namespace eosfm {

constexpr int kStages = 4;
constexpr int kHalo = 3;  // pixels of zeros around an image, which the 7x7 convolution reads

struct BlockWeights {
  const float* depthwise = nullptr;  // [49][padded width]
  const float* depthwise_bias = nullptr;
  Matrix fc1;
  const float* grn = nullptr;  // [hidden vectors * lanes]
  int hidden = 0;
  Matrix fc2;         // as it is multiplied
  Matrix fc2_source;  // fp32, to be scaled by GRN; empty where the hidden tensor is scaled always
};

struct StageWeights {
  int width = 0;   // channels
  int padded = 0;  // a multiple of the lanes
  Matrix entry;    // the stem's 4x4 or the downsampling 2x2 convolution; norms before it are folded in
  Array<BlockWeights> blocks;
};

struct NetworkWeights {
  int bands = 0;
  const float* stem_gamma = nullptr;  // of the layer norm after the stem
  const float* stem_beta = nullptr;
  StageWeights stages[kStages];
  Span memory;  // what the pointers point into
};

// The size of an image at one stage, and how it is cut into strips of whole rows. The cut depends on the shape alone,
// so results do not depend on which worker computes which strip.
struct Grid {
  int width;
  int height;
  int strip_rows;
  int strips;

  Grid(int w, int h);
  int pixels() const { return width * height; }
  int rows_of(int strip) const;
};

// An image with a halo of zeros; pixels hold `padded` channels.
struct Image {
  float* data;
  Grid grid;
  int padded;

  size_t row_stride() const { return static_cast<size_t>(grid.width + 2 * kHalo) * padded; }
  float* pixel(int y, int x) const {
    return data + static_cast<size_t>(y + kHalo) * row_stride() + static_cast<size_t>(x + kHalo) * padded;
  }
  PixelMap from_row(int y) const {
    return {pixel(y, 0), grid.width, row_stride(), static_cast<size_t>(padded)};
  }
};

// The memory of one pass over an image.
struct PassMemory {
  float* images[2];
  char* hidden;
  float* squares;     // [strips][hidden]
  float* once;        // the same for the gathered sums, where their weights are other
  float* grn;         // [hidden]
  uint32_t* scaled;   // fc2's weights times GRN's factor
};

// The memory of one worker.
struct WorkerMemory {
  char* rows;     // activations of one strip
  float* scratch;
  float* sums;    // of a panel: kSumsFloats
  float* wide;    // fp32 rows of one strip, of levels and fused features
};

// The sizes of that memory, for the largest of a set of networks.
struct Extent {
  size_t image = 0;    // floats
  size_t hidden = 0;   // bytes
  size_t squares = 0;  // floats
  size_t channels = 0; // hidden channels
  size_t scaled = 0;   // words
  size_t rows = 0;     // bytes
  size_t scratch = 0;  // floats
  size_t wide = 0;     // floats

  // Grows to hold a pass of `network` over an image of width x height pixels.
  void include(const NetworkWeights& network, const Kernels& kernels, int width, int height);
};

PassMemory take_pass(Layout& layout, const Extent& extent);
WorkerMemory take_worker(Layout& layout, const Extent& extent);

// Returns the bytes of a row of activations of `columns` elements, with the padding that kernels read and write.
size_t row_bytes(int columns, Storage storage);

// The weight of each cell where sums are gathered, [height][width] for each stage. Pixels without data must not count
// in a scene's norms, and pixels that images share must count once.
struct CellWeights {
  const float* valid[kStages];  // the share of its pixels that are: of the image's own norms
  const float* once[kStages];   // that, times what it has in the cell, of all images: of the gathered sums
  bool all_valid;               // all of `valid` are 1,
  bool whole;                   // and of `once`
};

// GRN's sums of squares beside the image's own, of every block's hidden channels in turn: written in the mode
// EOSFM_GRN_GATHER and read in EOSFM_GRN_SCENE.
struct GrnSums {
  eosfm_grn mode = EOSFM_GRN_TILE;
  double* squares = nullptr;
  const CellWeights* weights = nullptr;  // where they are gathered
};

// Returns the hidden channels of all blocks together.
size_t hidden_channels(const NetworkWeights& network);

// Receives each level as it is finished; its own loops are the team's.
class LevelSink {
 public:
  virtual void take(int level, const Image& image, int width, const WorkerMemory* workers, Team& team) = 0;

 protected:
  ~LevelSink() = default;
};

// Runs one pass. Planes are [bands][height][width] of physical values, with one pointer for each band.
void run_network(const NetworkWeights& network, const Kernels& kernels, const float* const* planes, int width,
                 int height, GrnSums sums, const PassMemory& pass, const WorkerMemory* workers, Team& team,
                 LevelSink& sink);

}  // namespace eosfm

#endif
