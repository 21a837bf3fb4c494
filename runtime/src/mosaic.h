// One level of a scene: blends tiles where they overlap, and completes patch by patch.
#ifndef EOSFM_MOSAIC_H
#define EOSFM_MOSAIC_H

#include "eosfm.h"
#include "memory.h"
#include "team.h"

namespace eosfm {

// All in cells of the level.
struct MosaicShape {
  int channels;
  int tile_width;
  int tile_height;
  int overlap;
  int halo;  // of it, at a tile's edge
  int scene_width;
};

// Fills in the weights of a tile's cells along an axis, linear between the halos on the sides where there is another
// tile. The weights of two tiles add up to 1.
void fill_ramp(float* ramp, const MosaicShape& shape, int cells, bool before, bool after);

// A tile among the others, in cells of the level. Tiles start every tile side less the overlap; the last
// ones of a row and of a column may have been computed for pixels before their start.
struct MosaicTile {
  int column;         // where it starts
  int width;          // from its start to its end or the scene's
  int height;
  int column_before;  // cells before its start that were computed with it
  int row_before;
  int done_width;     // of the patch that it completes, which no later tile covers
  int done_height;
  bool first_row;     // of tiles
  bool last_row;
  bool last_column;
};

class Mosaic {
 public:
  // Finds the place of everything; called once without memory, for the size. The memory must be zero.
  void lay_out(Layout& layout, const MosaicShape& shape);

  // Forgets the sums that a row of tiles leaves to the next.
  void reset();

  // Returns where to write a tile's features.
  eosfm_level features() const;

  // Adds the features, unless the tile was skipped, and completes the tile's patch: cells with less than
  // `least` of their pixels valid, and those that no tile has, become NaN. `valid` is [tile height][tile
  // width], of the pixels that were computed.
  void add(const MosaicTile& tile, bool skipped, const float* valid, float least, Team& team);

  // Returns where the completed patch is: its cells are not used again, so they may be changed.
  eosfm_level patch() const;
  size_t cells() const { return static_cast<size_t>(shape_.tile_width) * shape_.tile_height; }

 private:
  size_t strip_floats() const;
  void blend(const MosaicTile& tile, bool skipped, const float* features, float* window, float* strip) const;

  MosaicShape shape_ = {0, 0, 0, 0, 0, 0};
  float* features_ = nullptr;  // [channels][tile height][tile width], of the tile
  // Sums of weighted features under the tile, and of what the tiles of a row leave to the next row's. The
  // plane after the channels is the sum of weights.
  float* window_ = nullptr;  // [channels + 1][tile height][tile width]
  float* strip_ = nullptr;   // [channels + 1][overlap][scene width]
  float* factors_ = nullptr;  // [tile height][tile width]
  float* across_ = nullptr;   // [tile width]: the weights of the tile's cells
  float* down_ = nullptr;     // [tile height]
};

}  // namespace eosfm

#endif
