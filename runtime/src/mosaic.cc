#include "mosaic.h"

#include <math.h>
#include <string.h>

namespace eosfm {
namespace {

// Returns the weight of a cell that lies `behind` cells behind a tile's edge towards another tile.
double rise(int behind, int overlap, int halo) {
  if (behind < halo) return 0.0;
  return behind < overlap - halo ? (behind - halo + 0.5) / (overlap - 2 * halo) : 1.0;
}

}  // namespace

void fill_ramp(float* ramp, const MosaicShape& shape, int cells, bool before, bool after) {
  for (int i = 0; i < cells; ++i) {
    const double rising = before ? rise(i, shape.overlap, shape.halo) : 1.0;
    const double falling = after ? rise(cells - 1 - i, shape.overlap, shape.halo) : 1.0;
    ramp[i] = static_cast<float>(fmin(rising, falling));
  }
}

void Mosaic::lay_out(Layout& layout, const MosaicShape& shape) {
  shape_ = shape;
  const size_t planes = static_cast<size_t>(shape.channels) + 1;
  features_ = layout.take<float>(cells() * shape.channels);
  window_ = layout.take<float>(cells() * planes);
  strip_ = layout.take<float>(strip_floats());
  factors_ = layout.take<float>(cells());
  across_ = layout.take<float>(static_cast<size_t>(shape.tile_width));
  down_ = layout.take<float>(static_cast<size_t>(shape.tile_height));
}

size_t Mosaic::strip_floats() const {
  return (static_cast<size_t>(shape_.channels) + 1) * shape_.overlap * shape_.scene_width;
}

void Mosaic::reset() {
  if (strip_ != nullptr) memset(strip_, 0, strip_floats() * sizeof(float));
}

eosfm_level Mosaic::features() const {
  return {sizeof(eosfm_level), features_, static_cast<ptrdiff_t>(cells()), shape_.tile_width};
}

eosfm_level Mosaic::patch() const {
  return {sizeof(eosfm_level), window_, static_cast<ptrdiff_t>(cells()), shape_.tile_width};
}

void Mosaic::add(const MosaicTile& tile, bool skipped, const float* valid, float least, Team& team) {
  const size_t width = static_cast<size_t>(shape_.tile_width);
  const size_t strip = static_cast<size_t>(shape_.overlap) * shape_.scene_width;
  float* weights = window_ + cells() * shape_.channels;
  fill_ramp(across_, shape_, shape_.tile_width, tile.column > 0, !tile.last_column);
  fill_ramp(down_, shape_, shape_.tile_height, !tile.first_row, !tile.last_row);
  blend(tile, skipped, nullptr, weights, strip_ + strip * shape_.channels);
  for (int y = 0; y < tile.done_height; ++y) {
    const float* share = valid + (y + tile.row_before) * width + tile.column_before;
    for (int x = 0; x < tile.done_width; ++x) {
      const float weight = weights[y * width + x];
      const bool has = weight > 0.0F && share[x] > 0.0F && share[x] >= least;
      factors_[y * width + x] = has ? 1.0F / weight : NAN;
    }
  }
  team.each(shape_.channels, [&](int channel, int) {
    float* window = window_ + cells() * channel;
    blend(tile, skipped, features_ + cells() * channel, window, strip_ + strip * channel);
    for (int y = 0; y < tile.done_height; ++y) {
      float* row = window + y * width;
      const float* factors = factors_ + y * width;
      for (int x = 0; x < tile.done_width; ++x) row[x] *= factors[x];
    }
  });
}

// Moves the window of one plane from the tile before to this one, adds the tile, and leaves to the next row of tiles
// the sums that it shares. Without features, adds up the weights themselves.
void Mosaic::blend(const MosaicTile& tile, bool skipped, const float* features, float* window,
                   float* strip) const {
  const size_t width = static_cast<size_t>(shape_.tile_width);
  const int step_down = shape_.tile_height - shape_.overlap;
  const int step_across = shape_.tile_width - shape_.overlap;
  const int kept = tile.column > 0 ? shape_.overlap : 0;  // columns that the tile before has
  for (int y = 0; y < tile.height; ++y) {
    float* row = window + y * width;
    if (kept > 0) memmove(row, row + step_across, static_cast<size_t>(kept) * sizeof(float));
    const size_t fresh = static_cast<size_t>(tile.width > kept ? tile.width - kept : 0) * sizeof(float);
    if (y < shape_.overlap) {
      const float* above = strip + static_cast<size_t>(y) * shape_.scene_width + tile.column;
      memcpy(row + kept, above + kept, fresh);
    } else {
      memset(row + kept, 0, fresh);
    }
    if (!skipped) {
      const float* from =
          features != nullptr ? features + (y + tile.row_before) * width + tile.column_before : nullptr;
      for (int x = 0; x < tile.width; ++x) {
        const float weight = down_[y] * across_[x];
        row[x] += from != nullptr ? weight * from[x] : weight;
      }
    }
    if (y >= step_down) {
      float* below = strip + static_cast<size_t>(y - step_down) * shape_.scene_width + tile.column;
      memcpy(below, row, static_cast<size_t>(tile.done_width) * sizeof(float));
    }
  }
}

}  // namespace eosfm
