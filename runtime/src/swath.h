// The rows of a scene that a stream holds: the last ones of each band, as they were stored.
#ifndef EOSFM_SWATH_H
#define EOSFM_SWATH_H

#include "chain.h"
#include "memory.h"

namespace eosfm {

// A tile's pixels in the scene. Beyond `height` and `width`, the tile mirrors the pixels inside.
struct TilePlace {
  int64_t row;
  int column;
  int height;
  int width;
};

class Swath {
 public:
  // Finds the place of everything, for tiles of a size; called once without memory, for the size.
  // `most_back` is by how many rows the last tiles may be moved back.
  void lay_out(Layout& layout, const eosfm_stream_options& options, const Chain& chain, int tile_width,
               int tile_height, int most_back);

  // Returns the pixels of a row of a band.
  int width(int band) const { return bands_[band].width; }
  // Returns the index of the mask; -1 if there is none.
  int mask() const { return mask_; }

  // Takes as many of `count` rows as there is room for, and returns how many. Rows from `needed` on stay, and so do
  // those before it that a last tile may be moved back to.
  int push(int band, const void* rows, int count, int64_t needed);

  // Forgets all rows.
  void reset();

  // Returns the rows of the scene that all bands have had.
  int64_t rows() const;

  // Sets the tile whose rows are read next.
  void set_tile(const TilePlace& place);
  const TilePlace& place() const { return place_; }
  // Reads rows of the tile into planes [bands][height][width], as values that the bundle's sensor stores, and whether
  // each pixel is valid into [height][width]. A pixel without a value in some band is filled in all bands.
  void read_rows(int first, int rows, float* planes, uint8_t* valid) const;

 private:
  struct BandRows {
    eosfm_stream_band how;
    const Band* own;   // null for the mask
    char* pixels;      // [capacity][width]
    uint8_t* present;  // [capacity]
    int* columns;      // [tile width]: the pixel under each of the tile's columns
    int width;
    int capacity;
    int64_t pushed;
  };

  // Reads the row of a band that covers a row of the scene, and marks what is not valid.
  void read_band(const BandRows& band, int64_t row, float* to, uint8_t* valid) const;

  BandRows* bands_ = nullptr;  // the model's, and the mask if there is one
  int count_ = 0;              // of all these
  int mask_ = -1;
  int tile_width_ = 0;
  int tile_height_ = 0;
  int most_back_ = 0;
  TilePlace place_ = {0, 0, 0, 0};
};

}  // namespace eosfm

#endif
