#include "fusion.h"

#include <math.h>
#include <string.h>

#include "finite.h"

namespace eosfm {

void Features::set(const eosfm_model& model, const PackedModel& packed, const Settings& settings) {
  chain_ = &model.chain;
  weights_ = &packed.chain;
  kernels_ = model.kernels;
  width_ = settings.width;
  height_ = settings.height;
}

void Features::lay_out(Layout& layout, const PackedModel& packed, const Settings& settings) {
  for (int level = 0; level < kLevels; ++level) {
    const size_t pixels = static_cast<size_t>(cells(settings.width, level)) * cells(settings.height, level);
    columns_[level] = layout.take<char>((pixels + kRowPadding) *
                                        row_bytes(packed.chain.columns[level], packed.chain.storage));
  }
}

size_t Features::pixel_bytes(int level) const {
  return row_bytes(weights_->columns[level], weights_->storage);
}

eosfm_status Features::check_finite(ErrorText& error) const {
  const int broken = broken_.load(std::memory_order_relaxed);
  if (broken < 0) return EOSFM_OK;
  const int specialist = chain_->runs[broken / kLevels].specialist;
  return error.fail(EOSFM_NOT_FINITE, "specialist %s gives values that are not finite at level %d",
                    chain_->specialists[specialist].name, broken % kLevels + 1);
}

void Features::Sink::take(int level, const Image& image, int width, const WorkerMemory* workers, Team& team) {
  const ChainWeights& chain = *features_.weights_;
  const SetWeights& set = chain.sets[level][run_];
  const float* scale = set.scale;
  const float* shift = set.shift;
  if (features_.chain_->normalisation == Normalisation::layer) {
    normalise_layer(image, width, set, team);
    scale = memory_.scale;
    shift = memory_.shift;
  }
  const Kernels& kernels = *features_.kernels_;
  const size_t stride = features_.pixel_bytes(level);
  char* columns = features_.columns_[level] + static_cast<size_t>(set.column) * element_bytes(chain.storage);
  const size_t bytes = static_cast<size_t>(set.padded) * element_bytes(chain.storage);
  const size_t pixel_bytes = static_cast<size_t>(image.padded) * sizeof(float);
  const auto check = [&](const Rows& out) {
    if (!all_finite(static_cast<const char*>(out.data), chain.storage, static_cast<size_t>(set.channels),
                    static_cast<size_t>(image.grid.width), stride)) {
      features_.broken_.store(run_ * kLevels + level, std::memory_order_relaxed);
    }
  };
  team.each(image.grid.strips, [&](int strip, int worker) {
    const int first = strip * image.grid.strip_rows;
    const int rows = image.grid.rows_of(strip);
    for (int y = first; y < first + rows; ++y) {
      const Rows out = {columns + static_cast<size_t>(y) * image.grid.width * stride, stride, bytes,
                        chain.storage, 0.0F};
      if (set.projection.words == nullptr) {
        kernels.scale_rows(image.pixel(y, 0), pixel_bytes, Storage::f32, image.grid.width, image.padded,
                           scale, shift, out);
        check(out);
        continue;
      }
      const WorkerMemory& mine = workers[worker];
      const size_t row = row_bytes(image.padded, Storage::f32);
      kernels.scale_rows(image.pixel(y, 0), pixel_bytes, Storage::f32, image.grid.width, image.padded, scale,
                         shift, {mine.rows, row, row, Storage::f32, 0.0F});
      const size_t projected = static_cast<size_t>(set.padded);
      kernels.linear(set.projection, mine.rows, row, image.grid.width,
                     {mine.wide, image.grid.width, 0, projected}, Store::leaky_relu, mine.sums);
      kernels.scale_rows(mine.wide, projected * sizeof(float), Storage::f32, image.grid.width, set.padded,
                         set.factor, nullptr, out);
      check(out);
    }
  });
}

// Normalises by mean and variance over a whole level, all channels together (PyTorch's GroupNorm of one group).
void Features::Sink::normalise_layer(const Image& image, int width, const SetWeights& set, Team& team) {
  constexpr double kEpsilon = 1e-5;
  const Grid& grid = image.grid;
  const double count = static_cast<double>(grid.pixels()) * width;
  double mean = 0.0;
  double variance = 0.0;
  for (int moment = 0; moment < 2; ++moment) {
    team.each(grid.strips, [&](int strip, int) {
      double sum = 0.0;
      const int first = strip * grid.strip_rows;
      for (int y = first; y < first + grid.rows_of(strip); ++y) {
        for (int x = 0; x < grid.width; ++x) {
          const float* pixel = image.pixel(y, x);
          for (int c = 0; c < width; ++c) {
            const double d = static_cast<double>(pixel[c]) - mean;
            sum += moment == 0 ? d : d * d;
          }
        }
      }
      memory_.sums[2 * strip + moment] = sum;
    });
    double total = 0.0;
    for (int strip = 0; strip < grid.strips; ++strip) total += memory_.sums[2 * strip + moment];
    (moment == 0 ? mean : variance) = total / count;
  }
  const double inverse = 1.0 / sqrt(variance + kEpsilon);
  for (int c = 0; c < image.padded; ++c) {
    const double scale = static_cast<double>(set.scale[c]) * inverse;
    memory_.scale[c] = static_cast<float>(scale);
    memory_.shift[c] = static_cast<float>(-mean * scale);
  }
}

namespace {

// Writes cells of a strip, [cells][stride], as rows of planes.
void to_planes(const float* cells, size_t stride, int channels, int width, int first_row, int rows,
               const eosfm_level& to, int first_channel) {
  constexpr int kAtOnce = 16;  // channels: a cache line of a cell
  for (int c = 0; c < channels; c += kAtOnce) {
    const int count = channels - c < kAtOnce ? channels - c : kAtOnce;
    for (int y = 0; y < rows; ++y) {
      const float* from = cells + static_cast<size_t>(y) * width * stride + c;
      float* out = to.data + (first_channel + c) * to.channel_stride + (first_row + y) * to.row_stride;
      for (int x = 0; x < width; ++x) {
        for (int i = 0; i < count; ++i) out[i * to.channel_stride + x] = from[x * stride + i];
      }
    }
  }
}

void zero_planes(int channels, int width, int first_row, int rows, const eosfm_level& to) {
  for (int c = 0; c < channels; ++c) {
    for (int y = first_row; y < first_row + rows; ++y) {
      memset(to.data + c * to.channel_stride + y * to.row_stride, 0,
             static_cast<size_t>(width) * sizeof(float));
    }
  }
}

}  // namespace

void Features::copy(int run, int level, float* to, const WorkerMemory* workers, Team& team) const {
  const Grid grid = grid_of(level);
  const SetWeights& set = weights_->sets[level][run];
  const size_t stride = pixel_bytes(level);
  const eosfm_level planes = {sizeof(eosfm_level), to, grid.pixels(), grid.width};
  team.each(grid.strips, [&](int strip, int worker) {
    // Scaling by nothing makes floats of what is stored.
    const int first = strip * grid.strip_rows;
    const int pixels = grid.rows_of(strip) * grid.width;
    const size_t row = static_cast<size_t>(set.padded) * sizeof(float);
    const char* from = columns_[level] + static_cast<size_t>(first) * grid.width * stride +
                       static_cast<size_t>(set.column) * element_bytes(weights_->storage);
    float* wide = workers[worker].wide;
    kernels_->scale_rows(from, stride, weights_->storage, pixels, set.padded, nullptr, nullptr,
                         {wide, row, row, Storage::f32, 0.0F});
    to_planes(wide, static_cast<size_t>(set.padded), set.channels, grid.width, first, grid.rows_of(strip),
              planes, 0);
  });
}

bool Features::write_level(int level, const uint8_t* present, const WorkerMemory* workers, Pool* pool,
                           const eosfm_level& to) {
  const Grid grid = grid_of(level);
  Stop never;  // from here on the caller's buffers are written: a run that came so far is finished
  Team team(pool, &never);
  std::atomic<bool> finite{true};
  team.each(grid.strips, [&](int strip, int worker) {
    if (!write_strip(level, strip, present, workers[worker], to)) {
      finite.store(false, std::memory_order_relaxed);
    }
  });
  return finite.load(std::memory_order_relaxed);
}

// Returns whether all that the fusion computed is finite; what is only copied was checked before.
bool Features::write_strip(int level, int strip, const uint8_t* present, const WorkerMemory& mine,
                           const eosfm_level& to) {
  const Grid grid = grid_of(level);
  const int first = strip * grid.strip_rows;
  const int rows = grid.rows_of(strip);
  const int pixels = rows * grid.width;
  const int channels = chain_->level_channels[level];
  const size_t stride = pixel_bytes(level);
  char* features = columns_[level] + static_cast<size_t>(first) * grid.width * stride;
  const auto& sets = weights_->sets[level];

  for (int r = 0; r < chain_->runs.size(); ++r) {
    if (present[chain_->runs[r].specialist] != 0) continue;
    const size_t bytes = static_cast<size_t>(element_bytes(weights_->storage));
    for (int p = 0; p < pixels; ++p) {
      memset(features + static_cast<size_t>(p) * stride + sets[r].column * bytes, 0,
             static_cast<size_t>(sets[r].padded) * bytes);
    }
  }
  // Writes the fused cells, [pixels][columns].
  const auto write = [&](const float* fused, size_t columns) {
    to_planes(fused, columns, channels, grid.width, first, rows, to, 0);
    return all_finite(reinterpret_cast<const char*>(fused), Storage::f32, static_cast<size_t>(channels),
                      static_cast<size_t>(pixels), columns * sizeof(float));
  };
  const float* cells_of = reinterpret_cast<const float*>(features);
  const size_t stride_floats = stride / sizeof(float);
  switch (chain_->fusion) {
    case Fusion::none:
      zero_planes(channels, grid.width, first, rows, to);
      for (int r = 0; r < chain_->runs.size(); ++r) {
        to_planes(cells_of + sets[r].column, stride_floats, sets[r].channels, grid.width, first, rows, to,
                  chain_->runs[r].out_channel[level]);
      }
      return true;
    case Fusion::addition:
    case Fusion::multiplication: {
      const size_t padded = static_cast<size_t>(sets[0].padded);
      for (int p = 0; p < pixels; ++p) {
        const float* from = cells_of + static_cast<size_t>(p) * stride_floats;
        float* sum = mine.wide + static_cast<size_t>(p) * padded;
        memcpy(sum, from + sets[0].column, padded * sizeof(float));
        for (int r = 1; r < chain_->runs.size(); ++r) {
          const float* one = from + sets[r].column;
          for (size_t c = 0; c < padded; ++c) {
            sum[c] = chain_->fusion == Fusion::addition ? sum[c] + one[c] : sum[c] * one[c];
          }
        }
      }
      return write(mine.wide, padded);
    }
    case Fusion::conv1x1:
    case Fusion::mlp: {
      const bool mlp = chain_->fusion == Fusion::mlp;
      const Matrix& one = weights_->first[level];
      const size_t padded = static_cast<size_t>(one.vectors) * kernels_->lanes;
      kernels_->linear(one, features, stride, pixels, {mine.wide, pixels, 0, padded},
                       mlp ? Store::relu : Store::plain, mine.sums);
      if (!mlp) return write(mine.wide, padded);
      const Matrix& two = weights_->second[level];
      const size_t row = row_bytes(static_cast<int>(padded), weights_->storage);
      kernels_->scale_rows(mine.wide, padded * sizeof(float), Storage::f32, pixels, static_cast<int>(padded),
                           nullptr, nullptr, {mine.rows, row, row, weights_->storage, 0.0F});
      float* fused = mine.wide + static_cast<size_t>(pixels) * padded;
      const size_t fused_padded = static_cast<size_t>(two.vectors) * kernels_->lanes;
      kernels_->linear(two, mine.rows, row, pixels, {fused, pixels, 0, fused_padded}, Store::plain,
                       mine.sums);
      return write(fused, fused_padded);
    }
  }
  return true;
}

}  // namespace eosfm
