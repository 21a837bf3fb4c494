// What becomes of the levels that specialists give: columns among all sets' features, and from there the
// caller's levels, by the chain's fusion.
#include <math.h>
#include <string.h>

#include "context.h"
#include "finite.h"

using namespace eosfm;

// Takes the levels of one run: normalised, projected and multiplied by the selection's factor, they
// become the run's columns among all sets' features.
class eosfm_context::Features final : public LevelSink {
 public:
  Features(eosfm_context& context, int run, const SetMemory& memory)
      : context_(context), run_(run), memory_(memory) {}

  void take(int level, const Image& image, int width, const WorkerMemory* workers, Team& team) override {
    const ChainWeights& chain = context_.packed_->chain;
    const SetWeights& set = chain.sets[level][run_];
    const float* scale = set.scale;
    const float* shift = set.shift;
    if (context_.model_->chain.normalisation == Normalisation::layer) {
      normalise_layer(image, width, set, team);
      scale = memory_.scale;
      shift = memory_.shift;
    }
    const Kernels& kernels = *context_.model_->kernels;
    const size_t stride = row_bytes(chain.columns[level], chain.storage);
    char* features =
        context_.memory_.features[level] + static_cast<size_t>(set.column) * element_bytes(chain.storage);
    const size_t bytes = static_cast<size_t>(set.padded) * element_bytes(chain.storage);
    const size_t pixel_bytes = static_cast<size_t>(image.padded) * sizeof(float);
    const auto check = [&](const Rows& out) {
      if (!all_finite(static_cast<const char*>(out.data), chain.storage, static_cast<size_t>(set.channels),
                      static_cast<size_t>(image.grid.width), stride)) {
        context_.broken_.store(run_ * kLevels + level, std::memory_order_relaxed);
      }
    };
    team.each(image.grid.strips, [&](int strip, int worker) {
      const int first = strip * image.grid.strip_rows;
      const int rows = image.grid.rows_of(strip);
      for (int y = first; y < first + rows; ++y) {
        const Rows out = {features + static_cast<size_t>(y) * image.grid.width * stride, stride, bytes,
                          chain.storage, 0.0F};
        if (set.projection.words == nullptr) {
          kernels.scale_rows(image.pixel(y, 0), pixel_bytes, Storage::f32, image.grid.width, image.padded,
                             scale, shift, out);
          check(out);
          continue;
        }
        const WorkerMemory& mine = workers[worker];
        const size_t row = row_bytes(image.padded, Storage::f32);
        kernels.scale_rows(image.pixel(y, 0), pixel_bytes, Storage::f32, image.grid.width, image.padded,
                           scale, shift, {mine.rows, row, row, Storage::f32, 0.0F});
        const size_t projected = static_cast<size_t>(set.padded);
        kernels.linear(set.projection, mine.rows, row, image.grid.width,
                       {mine.wide, image.grid.width, 0, projected}, Store::leaky_relu, mine.sums);
        kernels.scale_rows(mine.wide, projected * sizeof(float), Storage::f32, image.grid.width, set.padded,
                           set.factor, nullptr, out);
        check(out);
      }
    });
  }

 private:
  // Mean and variance over a whole level, all channels together (PyTorch's GroupNorm of one group).
  void normalise_layer(const Image& image, int width, const SetWeights& set, Team& team) {
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

  eosfm_context& context_;
  int run_;
  const SetMemory& memory_;
};

void eosfm_context::run_one(int run, int pass, Team& team) {
  const Run& what = model_->chain.runs[run];
  const Clock running(&memory_.times[run].ns);
  Features features(*this, run, memory_.sets[pass]);
  const GatheredSums& sums = memory_.sums[run];
  run_network(packed_->networks[what.specialist], *model_->kernels, memory_.run_planes + what.first_band,
              settings_.width, settings_.height,
              {grn_, grn_ == EOSFM_GRN_SCENE ? sums.all : sums.fresh, gathers() ? &weights_ : nullptr},
              memory_.passes[pass], memory_.workers, team, features);
  run_done_[run] = team.stopped() ? 0 : 1;
  memory_.times[run].count += run_done_[run];
}

namespace {

// Cells of a strip, [cells][stride], become rows of planes.
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

}  // namespace

// Shows the gate the features of its run, and asks.
bool eosfm_context::gate_opens(int run) {
  const ChainWeights& chain = packed_->chain;
  Team team(&pool_, &stop_);
  const float* levels[kLevels];
  int32_t channels[kLevels];
  for (int l = 0; l < kLevels; ++l) {
    const Grid grid(cells(settings_.width, l), cells(settings_.height, l));
    const SetWeights& set = chain.sets[l][run];
    const size_t stride = row_bytes(chain.columns[l], chain.storage);
    const eosfm_level level = {sizeof(eosfm_level), memory_.levels[l], grid.pixels(), grid.width};
    team.each(grid.strips, [&](int strip, int worker) {
      // Scaling by nothing makes floats of what is stored.
      const int first = strip * grid.strip_rows;
      const int pixels = grid.rows_of(strip) * grid.width;
      const size_t row = static_cast<size_t>(set.padded) * sizeof(float);
      const char* from = memory_.features[l] + static_cast<size_t>(first) * grid.width * stride +
                         static_cast<size_t>(set.column) * element_bytes(chain.storage);
      float* wide = memory_.workers[worker].wide;
      model_->kernels->scale_rows(from, stride, chain.storage, pixels, set.padded, nullptr, nullptr,
                                  {wide, row, row, Storage::f32, 0.0F});
      to_planes(wide, static_cast<size_t>(set.padded), set.channels, grid.width, first, grid.rows_of(strip),
                level, 0);
    });
    levels[l] = level.data;
    channels[l] = set.channels;
  }
  return team.stopped() || settings_.gate.open(settings_.gate.user, levels, channels) != 0;
}

bool eosfm_context::write_level(int level, const eosfm_level& to) {
  const Grid grid(cells(settings_.width, level), cells(settings_.height, level));
  Stop never;  // from here on the caller's buffers are written: a run that came so far is finished
  Team team(&pool_, &never);
  std::atomic<bool> finite{true};
  team.each(grid.strips, [&](int strip, int worker) {
    if (!write_strip(level, grid, strip, worker, to)) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load(std::memory_order_relaxed);
}

namespace {

void zero_planes(int channels, int width, int first_row, int rows, const eosfm_level& to) {
  for (int c = 0; c < channels; ++c) {
    for (int y = first_row; y < first_row + rows; ++y) {
      memset(to.data + c * to.channel_stride + y * to.row_stride, 0,
             static_cast<size_t>(width) * sizeof(float));
    }
  }
}

}  // namespace

// Returns whether all that it wrote is finite; what is only copied was looked at before.
bool eosfm_context::write_strip(int level, const Grid& grid, int strip, int worker, const eosfm_level& to) {
  const Chain& chain = model_->chain;
  const ChainWeights& weights = packed_->chain;
  const Kernels& kernels = *model_->kernels;
  const WorkerMemory& mine = memory_.workers[worker];
  const int first = strip * grid.strip_rows;
  const int rows = grid.rows_of(strip);
  const int pixels = rows * grid.width;
  const int channels = chain.level_channels[level];
  const size_t stride = row_bytes(weights.columns[level], weights.storage);
  char* features = memory_.features[level] + static_cast<size_t>(first) * grid.width * stride;
  const auto& sets = weights.sets[level];

  for (int r = 0; r < chain.runs.size() && present_count_ < present_.size(); ++r) {
    if (present_[chain.runs[r].specialist] != 0) continue;
    const size_t bytes = static_cast<size_t>(element_bytes(weights.storage));
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
  switch (chain.fusion) {
    case Fusion::none:
      zero_planes(channels, grid.width, first, rows, to);
      for (int r = 0; r < chain.runs.size(); ++r) {
        to_planes(cells_of + sets[r].column, stride_floats, sets[r].channels, grid.width, first, rows, to,
                  chain.runs[r].out_channel[level]);
      }
      return true;
    case Fusion::addition:
    case Fusion::multiplication: {
      const size_t padded = static_cast<size_t>(sets[0].padded);
      for (int p = 0; p < pixels; ++p) {
        const float* from = cells_of + static_cast<size_t>(p) * stride_floats;
        float* sum = mine.wide + static_cast<size_t>(p) * padded;
        memcpy(sum, from + sets[0].column, padded * sizeof(float));
        for (int r = 1; r < chain.runs.size(); ++r) {
          const float* one = from + sets[r].column;
          for (size_t c = 0; c < padded; ++c) {
            sum[c] = chain.fusion == Fusion::addition ? sum[c] + one[c] : sum[c] * one[c];
          }
        }
      }
      return write(mine.wide, padded);
    }
    case Fusion::conv1x1:
    case Fusion::mlp: {
      const bool mlp = chain.fusion == Fusion::mlp;
      const Matrix& one = weights.first[level];
      const size_t padded = static_cast<size_t>(one.vectors) * kernels.lanes;
      kernels.linear(one, features, stride, pixels, {mine.wide, pixels, 0, padded},
                     mlp ? Store::relu : Store::plain, mine.sums);
      if (!mlp) return write(mine.wide, padded);
      const Matrix& two = weights.second[level];
      const size_t row = row_bytes(static_cast<int>(padded), weights.storage);
      kernels.scale_rows(mine.wide, padded * sizeof(float), Storage::f32, pixels, static_cast<int>(padded),
                         nullptr, nullptr, {mine.rows, row, row, weights.storage, 0.0F});
      float* fused = mine.wide + static_cast<size_t>(pixels) * padded;
      const size_t fused_padded = static_cast<size_t>(two.vectors) * kernels.lanes;
      kernels.linear(two, mine.rows, row, pixels, {fused, pixels, 0, fused_padded}, Store::plain, mine.sums);
      return write(fused, fused_padded);
    }
  }
  return true;
}

void eosfm_context::copy_level(int level, const eosfm_level& to) {
  const size_t width = static_cast<size_t>(cells(settings_.width, level));
  const int height = cells(settings_.height, level);
  const float* from = memory_.levels[level];
  for (int c = 0; c < model_->chain.level_channels[level]; ++c) {
    for (int y = 0; y < height; ++y, from += width) {
      memcpy(to.data + c * to.channel_stride + y * to.row_stride, from, width * sizeof(float));
    }
  }
}
