#include "network.h"

#include <math.h>

namespace eosfm {
namespace {

// A strip has few enough pixels that its activations stay in the second-level cache, and enough that weights are
// used often for each time that they are fetched.
constexpr int kStripPixels = 112;

// Words of 16 are 64 bytes: no isa pads a matrix's rows further.
constexpr int kGrnPadding = 64;

int smaller(int a, int b) { return a < b ? a : b; }
size_t larger(size_t a, size_t b) { return a > b ? a : b; }

bool scales_weights(const BlockWeights& block, const Grid& grid) {
  return block.fc2_source.vectors != 0 && grid.pixels() > block.fc2.columns;
}

Storage hidden_storage(const BlockWeights& block) {
  return block.fc2.storage == Storage::f32 ? Storage::f32 : Storage::bf16;
}

Rows rows_for(const Matrix& w, char* data) {
  const size_t bytes = round_up(static_cast<size_t>(w.k_words) * 4, kAlignment);
  return {data, bytes, bytes, w.storage, w.zero};
}

// Adds the squares of rows of hidden channels, each times its cell's weight.
void add_squares(const Rows& hidden, int pixels, int columns, const float* weights, float* squares) {
  for (int p = 0; p < pixels; ++p) {
    const float weight = weights[p];
    if (weight == 0.0F) continue;
    const char* row = static_cast<const char*>(hidden.data) + static_cast<size_t>(p) * hidden.stride;
    for (int h = 0; h < columns; ++h) {
      float value;
      if (hidden.storage == Storage::f32) {
        memcpy(&value, row + 4 * h, sizeof value);
      } else {
        uint16_t half;
        memcpy(&half, row + 2 * h, sizeof half);
        const uint32_t bits = static_cast<uint32_t>(half) << 16;
        memcpy(&value, &bits, sizeof value);
      }
      squares[h] += weight * value * value;
    }
  }
}

void zero_halo(const Image& image) {
  const size_t row = image.row_stride();
  const size_t side = static_cast<size_t>(kHalo) * image.padded;
  memset(image.data, 0, kHalo * row * sizeof(float));
  for (int y = 0; y < image.grid.height; ++y) {
    float* start = image.data + static_cast<size_t>(y + kHalo) * row;
    memset(start, 0, side * sizeof(float));
    memset(start + row - side, 0, side * sizeof(float));
  }
  memset(image.data + static_cast<size_t>(image.grid.height + kHalo) * row, 0, kHalo * row * sizeof(float));
}

// Gathers one row of the stem's inputs: for each cell its 4x4 pixels of every band, in the order of the weights.
void gather_pixels(const float* const* planes, int bands, int width, int cell_row, float* rows,
                   size_t row_floats) {
  for (int band = 0; band < bands; ++band) {
    for (int y = 0; y < 4; ++y) {
      const float* from = planes[band] + (static_cast<size_t>(cell_row) * 4 + y) * width;
      float* to = rows + 16 * band + 4 * y;
      for (int x = 0; x < width / 4; ++x, from += 4, to += row_floats) {
        memcpy(to, from, 4 * sizeof(float));
      }
    }
  }
}

class Pass {
 public:
  Pass(const NetworkWeights& network, const Kernels& kernels, GrnSums sums, const PassMemory& memory,
       const WorkerMemory* workers, Team& team)
      : network_(network), kernels_(kernels), sums_(sums), memory_(memory), workers_(workers), team_(team) {}

  void stem(const float* const* planes, int width, const Image& out) {
    const StageWeights& stage = network_.stages[0];
    const int columns = 16 * network_.bands;
    team_.each(out.grid.strips, [&](int strip, int worker) {
      const WorkerMemory& mine = workers_[worker];
      const int first = strip * out.grid.strip_rows;
      const int rows = out.grid.rows_of(strip);
      const int pixels = rows * out.grid.width;
      const Rows gathered = rows_for(stage.entry, mine.rows);
      const size_t row_floats = round_up(static_cast<size_t>(columns), kAlignment / 4);
      float* wide = mine.wide;
      for (int y = 0; y < rows; ++y) {
        gather_pixels(planes, network_.bands, width, first + y,
                      wide + static_cast<size_t>(y) * out.grid.width * row_floats, row_floats);
      }
      // The padding of a row holds older values, which may be NaN: zero weights do not hide that, so zero it.
      for (int p = 0; p < pixels; ++p) {
        memset(wide + p * row_floats + columns, 0, (row_floats - columns) * sizeof(float));
      }
      const void* a = wide;
      size_t stride = row_floats * sizeof(float);
      if (stage.entry.storage != Storage::f32) {
        kernels_.scale_rows(wide, stride, Storage::f32, pixels, static_cast<int>(row_floats), nullptr,
                            nullptr, gathered);
        a = gathered.data;
        stride = gathered.stride;
      }
      kernels_.linear(stage.entry, a, stride, pixels, out.from_row(first), Store::plain, mine.sums);
      for (int y = first; y < first + rows; ++y) {
        const size_t bytes = static_cast<size_t>(stage.padded) * sizeof(float);
        kernels_.norm({out.pixel(y, 0),
                       static_cast<size_t>(stage.padded),
                       out.grid.width,
                       stage.width,
                       stage.padded,
                       network_.stem_gamma,
                       network_.stem_beta,
                       {out.pixel(y, 0), bytes, bytes, Storage::f32, 0.0F}});
      }
    });
  }

  void downsample(int s, const Image& in, const Image& out) {
    const StageWeights& before = network_.stages[s - 1];
    const StageWeights& stage = network_.stages[s];
    team_.each(out.grid.strips, [&](int strip, int worker) {
      const WorkerMemory& mine = workers_[worker];
      const int first = strip * out.grid.strip_rows;
      const int rows = out.grid.rows_of(strip);
      const Rows gathered = rows_for(stage.entry, mine.rows);
      const size_t quarter = static_cast<size_t>(before.padded) * element_bytes(gathered.storage);
      const float* inverse = stage.entry.inverse;
      for (int y = 0; y < rows; ++y) {
        for (int corner = 0; corner < 4; ++corner) {
          Rows part = gathered;
          part.data = static_cast<char*>(gathered.data) +
                      static_cast<size_t>(y) * out.grid.width * gathered.stride + corner * quarter;
          // The last quarter fills the row up.
          part.bytes = corner < 3 ? quarter : gathered.bytes - 3 * quarter;
          kernels_.norm({in.pixel(2 * (first + y) + corner / 2, corner % 2),
                         2 * static_cast<size_t>(before.padded), out.grid.width, before.width, before.padded,
                         inverse ? inverse + corner * before.padded : nullptr, nullptr, part});
        }
      }
      kernels_.linear(stage.entry, gathered.data, gathered.stride, rows * out.grid.width, out.from_row(first),
                      Store::plain, mine.sums);
    });
  }

  void block(int s, const BlockWeights& block, const Image& image) {
    const StageWeights& stage = network_.stages[s];
    const Grid& grid = image.grid;
    const int hidden = block.fc1.vectors * kernels_.lanes;
    const Storage storage = hidden_storage(block);
    const size_t hidden_bytes = row_bytes(hidden, storage);
    const Rows all_hidden = {memory_.hidden, hidden_bytes, hidden_bytes, storage, 0.0F};

    team_.each(grid.strips, [&](int strip, int worker) {
      const WorkerMemory& mine = workers_[worker];
      const int first = strip * grid.strip_rows;
      const int rows = grid.rows_of(strip);
      const Rows normed = rows_for(block.fc1, mine.rows);
      kernels_.depthwise_norm({image.pixel(first - kHalo, -kHalo), image.row_stride(), grid.width, rows,
                               stage.width, stage.padded, block.depthwise, block.depthwise_bias,
                               block.fc1.inverse, mine.scratch, normed});
      float* squares = memory_.squares + static_cast<size_t>(strip) * hidden;
      memset(squares, 0, static_cast<size_t>(hidden) * sizeof(float));
      Rows out = all_hidden;
      out.data = memory_.hidden + static_cast<size_t>(first) * grid.width * hidden_bytes;
      kernels_.linear_gelu(block.fc1, normed.data, normed.stride, rows * grid.width, out, squares, mine.sums);
      if (sums_.weights == nullptr || sums_.weights->whole) return;
      const int at = first * grid.width;
      if (!sums_.weights->all_valid) {
        memset(squares, 0, static_cast<size_t>(hidden) * sizeof(float));
        add_squares(out, rows * grid.width, hidden, sums_.weights->valid[s] + at, squares);
      }
      float* once = memory_.once + static_cast<size_t>(strip) * hidden;
      memset(once, 0, static_cast<size_t>(hidden) * sizeof(float));
      add_squares(out, rows * grid.width, hidden, sums_.weights->once[s] + at, once);
    });
    if (team_.stopped()) return;

    set_grn(block, grid.strips, hidden);
    const bool weights = scales_weights(block, grid);
    Matrix fc2 = block.fc2;
    if (weights) {
      fc2.words = memory_.scaled;
      constexpr int kWords = 32;
      team_.each((fc2.k_words + kWords - 1) / kWords, [&](int part, int) {
        kernels_.scale_matrix(block.fc2_source, memory_.grn, fc2, part * kWords,
                              smaller((part + 1) * kWords, fc2.k_words));
      });
      if (team_.stopped()) return;
    }

    team_.each(grid.strips, [&](int strip, int worker) {
      const WorkerMemory& mine = workers_[worker];
      const int first = strip * grid.strip_rows;
      const int pixels = grid.rows_of(strip) * grid.width;
      const char* in = memory_.hidden + static_cast<size_t>(first) * grid.width * hidden_bytes;
      size_t stride = hidden_bytes;
      if (!weights) {
        const Rows scaled = rows_for(fc2, mine.rows);
        kernels_.scale_rows(in, hidden_bytes, storage, pixels, hidden, memory_.grn, nullptr, scaled);
        in = mine.rows;
        stride = scaled.stride;
      }
      kernels_.linear(fc2, in, stride, pixels, image.from_row(first), Store::add, mine.sums);
    });
  }

 private:
  // Computes grn[h] = 1 + gamma[h] * norm[h] / (mean of norms + 1e-6). GRN's bias is part of fc2's. Where fc2 is
  // of integers, the hidden tensor is quantised with the same factors.
  void set_grn(const BlockWeights& block, int strips, int hidden) {
    float* grn = memory_.grn;
    if (sums_.mode == EOSFM_GRN_SCENE) {
      take_norms(block, hidden);
    } else {
      set_norms(strips, hidden);
    }
    if (sums_.mode == EOSFM_GRN_GATHER) give_squares(block, strips, hidden);
    if (sums_.mode != EOSFM_GRN_TILE) sums_.squares += block.hidden;
    double total = 0.0;
    for (int h = 0; h < hidden; ++h) total += static_cast<double>(grn[h]);
    const float inverse = 1.0F / (static_cast<float>(total / block.hidden) + 1e-6F);
    for (int h = 0; h < hidden; ++h) grn[h] = 1.0F + block.grn[h] * (grn[h] * inverse);
    const float* scales = block.fc2.inverse;
    for (int h = 0; scales != nullptr && h < hidden; ++h) grn[h] *= scales[h];
    // fc2 may have more padding, whose weights are zero; its factors must still be finite.
    for (int h = hidden; h < hidden + kGrnPadding; ++h) grn[h] = 1.0F;
  }

  // Sets the norms of the image's hidden channels.
  void set_norms(int strips, int hidden) {
    for (int h = 0; h < hidden; ++h) {
      float sum = 0.0F;
      for (int s = 0; s < strips; ++s) sum += memory_.squares[static_cast<size_t>(s) * hidden + h];
      memory_.grn[h] = sqrtf(sum);
    }
  }

  // Sets the norms over the images that were gathered.
  void take_norms(const BlockWeights& block, int hidden) {
    for (int h = 0; h < hidden; ++h) {
      memory_.grn[h] = h < block.hidden ? static_cast<float>(sqrt(sums_.squares[h])) : 0.0F;
    }
  }

  void give_squares(const BlockWeights& block, int strips, int hidden) {
    const float* squares = sums_.weights->whole ? memory_.squares : memory_.once;
    for (int h = 0; h < block.hidden; ++h) {
      double sum = 0.0;
      for (int s = 0; s < strips; ++s) {
        sum += static_cast<double>(squares[static_cast<size_t>(s) * hidden + h]);
      }
      sums_.squares[h] = sum;
    }
  }

  const NetworkWeights& network_;
  const Kernels& kernels_;
  GrnSums sums_;  // from the block on that is next
  const PassMemory& memory_;
  const WorkerMemory* workers_;
  Team& team_;
};

}  // namespace

Grid::Grid(int w, int h) : width(w), height(h) {
  const int rows = kStripPixels / w > 1 ? kStripPixels / w : 1;
  strips = (h + rows - 1) / rows;
  strip_rows = (h + strips - 1) / strips;
  strips = (h + strip_rows - 1) / strip_rows;
}

int Grid::rows_of(int strip) const { return smaller(strip_rows, height - strip * strip_rows); }

size_t row_bytes(int columns, Storage storage) {
  return round_up(static_cast<size_t>(columns) * element_bytes(storage), kAlignment);
}

void Extent::include(const NetworkWeights& network, const Kernels& kernels, int w, int h) {
  for (int s = 0; s < kStages; ++s) {
    const StageWeights& stage = network.stages[s];
    const Grid grid(w >> (s + 2), h >> (s + 2));
    const Image shape = {nullptr, grid, stage.padded};
    const size_t strip_rows = static_cast<size_t>(grid.strip_rows) * grid.width + kRowPadding;
    image = larger(image, shape.row_stride() * (grid.height + 2 * kHalo));
    scratch = larger(scratch, static_cast<size_t>(grid.width) * stage.padded);
    rows = larger(rows, strip_rows * rows_for(stage.entry, nullptr).stride);
    wide = larger(wide, strip_rows * stage.padded);
    if (s == 0) wide = larger(wide, strip_rows * round_up(16 * network.bands, kAlignment / 4));
    for (const BlockWeights& block : stage.blocks) {
      const int columns = block.fc1.vectors * kernels.lanes;
      hidden = larger(hidden, (static_cast<size_t>(grid.pixels()) + kRowPadding) *
                                  row_bytes(columns, hidden_storage(block)));
      squares = larger(squares, static_cast<size_t>(grid.strips) * columns);
      channels = larger(channels, columns + kGrnPadding);
      rows = larger(rows, strip_rows * rows_for(block.fc1, nullptr).stride);
      rows = larger(rows, strip_rows * rows_for(block.fc2, nullptr).stride);
      if (scales_weights(block, grid)) {
        scaled = larger(scaled, static_cast<size_t>(block.fc2.k_words) * block.fc2.vectors * kernels.lanes);
      }
    }
  }
}

size_t hidden_channels(const NetworkWeights& network) {
  size_t count = 0;
  for (const StageWeights& stage : network.stages) {
    for (const BlockWeights& block : stage.blocks) count += static_cast<size_t>(block.hidden);
  }
  return count;
}

PassMemory take_pass(Layout& layout, const Extent& extent) {
  PassMemory pass;
  pass.images[0] = layout.take<float>(extent.image);
  pass.images[1] = layout.take<float>(extent.image);
  pass.hidden = layout.take<char>(extent.hidden);
  pass.squares = layout.take<float>(extent.squares);
  pass.once = layout.take<float>(extent.squares);
  pass.grn = layout.take<float>(extent.channels);
  pass.scaled = layout.take<uint32_t>(extent.scaled);
  return pass;
}

WorkerMemory take_worker(Layout& layout, const Extent& extent) {
  WorkerMemory worker;
  worker.rows = layout.take<char>(extent.rows);
  worker.scratch = layout.take<float>(extent.scratch);
  worker.sums = layout.take<float>(kSumsFloats);
  worker.wide = layout.take<float>(extent.wide);
  return worker;
}

void run_network(const NetworkWeights& network, const Kernels& kernels, const float* const* planes, int width,
                 int height, GrnSums sums, const PassMemory& memory, const WorkerMemory* workers, Team& team,
                 LevelSink& sink) {
  Pass pass(network, kernels, sums, memory, workers, team);
  Image before = {nullptr, Grid(width, height), 0};
  for (int s = 0; s < kStages; ++s) {
    const StageWeights& stage = network.stages[s];
    const Image image = {memory.images[s % 2], Grid(width >> (s + 2), height >> (s + 2)), stage.padded};
    zero_halo(image);
    if (s == 0) {
      pass.stem(planes, width, image);
    } else {
      pass.downsample(s, before, image);
    }
    for (const BlockWeights& block : stage.blocks) {
      pass.block(s, block, image);
      if (team.stopped()) return;
    }
    sink.take(s, image, stage.width, workers, team);
    if (team.stopped()) return;
    before = image;
  }
}

}  // namespace eosfm
