// A scene of any length, tile by tile: rows in, blocks of blended features out.
#ifndef EOSFM_STREAM_H
#define EOSFM_STREAM_H

#include "context.h"
#include "mosaic.h"
#include "swath.h"

namespace eosfm {

// All memory of a stream, laid out in one block.
struct StreamMemory {
  Swath swath;
  Mosaic levels[kLevels];
  float* planes;            // [bands][tile height][tile width]
  uint8_t* valid;           // [tile height][tile width]
  float* shares[kLevels];   // of valid pixels among those in the scene, for each of the tile's cells
  float* whole[kLevels];    // among all of the cell
  float* once[kLevels];     // the same, times the tile's weight where others cover the cell too
  eosfm_band* bands;

  void lay_out(Layout& layout, const eosfm_stream_options& options, int overlap,
               const Settings& tile, const Chain& chain);
};

}  // namespace eosfm

struct eosfm_stream {
 public:
  eosfm_stream() = default;
  eosfm_stream(const eosfm_stream&) = delete;
  eosfm_stream& operator=(const eosfm_stream&) = delete;

  // Checks options and tells what a stream with them allocates.
  static eosfm_status plan(eosfm_context* context, const eosfm_stream_options* given, size_t* bytes);

  eosfm_status begin(eosfm_context* context, const eosfm_stream_options* given);
  eosfm_status push_rows(int band, const void* rows, int count, int width, int* taken);
  void end() { ended_ = true; }
  eosfm_status next(const eosfm_run_options* given_options, eosfm_block* given_block);
  eosfm_context* context() const { return context_; }

 private:
  struct Place {
    eosfm::TilePlace pixels;
    int64_t row;  // where the tile would start if there were a whole one, in pixels
    int column;
    bool last_row;
    bool last_column;
  };

  Place place_of(int64_t rows) const;
  void read_tile(const Place& place);
  void count_valid(const Place& place);
  eosfm::CellWeights weigh(const Place& place);
  eosfm::MosaicShape shape(int level) const;
  bool worth_it(const Place& place) const;
  eosfm_status run(const Place& place, const eosfm_run_options& options);
  void give(const Place& place, bool skipped, eosfm_block* block);

  eosfm_context* context_ = nullptr;
  eosfm_stream_options options_ = EOSFM_STREAM_OPTIONS_INIT;
  int overlap_ = 0;
  eosfm::Block block_;
  eosfm::StreamMemory memory_ = {};
  bool ended_ = false;
  bool done_ = false;
  int64_t tile_row_ = 0;
  int tile_column_ = 0;
  int64_t tiles_ = 0;
  int64_t tiles_skipped_ = 0;
};

#endif
