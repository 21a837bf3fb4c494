// A scene of any length, tile by tile: rows in, patches of blended features out.
#ifndef EOSFM_STREAM_H
#define EOSFM_STREAM_H

#include "context.h"
#include "head.h"
#include "mosaic.h"
#include "swath.h"

namespace eosfm {

// A tile that was read: where it lies, which slot computes it, and how much of it is valid.
struct StreamTile {
  TilePlace pixels;
  int64_t row;  // where it would start if there were a whole one, in pixels
  int column;
  bool last_row;
  bool last_column;
  bool skipped;
  int slot;  // of the engine's
  int index;
  float* shares[kLevels];  // of valid pixels among those in the scene, for each of its cells
};

// A head in a stream: its outputs are blended as a level is.
struct StreamHead {
  eosfm_head* head;
  bool probabilities;
  Mosaic outputs;
  uint8_t* classes;  // [tile height][tile width] in cells, of the patch
};

// All memory of a stream, laid out in one span.
struct StreamMemory {
  Swath swath;
  Mosaic levels[kLevels];
  StreamHead heads[kMostHeads];
  int head_count;
  float* features[kLevels];  // of the tile, for levels that only heads read
  float* planes;          // [bands][tile height][tile width]
  uint8_t* valid;         // [tile height][tile width]
  StreamTile* tiles;      // a ring of those that may be ahead
  float* whole[kLevels];  // of valid pixels among all of a cell, for the tile that was read
  float* once[kLevels];   // the same, times the tile's weight where others cover the cell too
  eosfm_band* bands;

  void set_heads(const eosfm_stream_options& options);
  // Finds the place of everything; the heads must be set.
  void lay_out(Layout& layout, const eosfm_stream_options& options, int overlap, int tiles_ahead,
               const Settings& tile, const Chain& chain);
};

}  // namespace eosfm

struct eosfm_stream {
 public:
  eosfm_stream() = default;
  eosfm_stream(const eosfm_stream&) = delete;
  eosfm_stream& operator=(const eosfm_stream&) = delete;
  ~eosfm_stream();

  // Checks options and finds the bytes that a stream with them allocates.
  static eosfm_status measure(eosfm_context* context, const eosfm_stream_options* given, size_t* bytes);

  eosfm_status begin(eosfm_context* context, const eosfm_stream_options* given);
  eosfm_status push_rows(int band, const void* rows, int count, int width, int* taken);
  void end() { ended_ = true; }
  void reset();
  eosfm_status next(const eosfm_run_options* given_options, eosfm_patch* given_patch);
  eosfm_context* context() const { return context_; }

 private:
  void place(int64_t rows, int column, eosfm::StreamTile* tile) const;
  void read_tile(int64_t rows, int column, eosfm::StreamTile* tile);
  void read_pixels(const eosfm::StreamTile& tile);
  void count_valid(const eosfm::StreamTile& tile);
  eosfm::CellWeights weigh(const eosfm::StreamTile& tile);
  eosfm::MosaicShape shape(int level) const;
  bool worth_it(const eosfm::StreamTile& tile) const;
  eosfm_image image() const;
  eosfm_status located(eosfm_status status, const eosfm::StreamTile& tile);
  eosfm_status compute(int64_t rows, const eosfm_run_options& options, const eosfm::StreamTile** result);
  eosfm_status take_first(const eosfm_run_options& options, const eosfm::StreamTile** result);
  bool may_read_ahead() const;
  eosfm_status read_ahead(int64_t rows);
  eosfm_status start_slot();
  void forget_ahead();
  void get_features(eosfm_level* levels) const;
  void apply_heads(const eosfm_level* levels);
  void give(const eosfm::StreamTile& tile, eosfm_patch* patch);
  void give_level(const eosfm::StreamTile& tile, int level, eosfm::Team& team, eosfm_patch_level* given);
  void give_map(const eosfm::StreamTile& tile, eosfm::StreamHead& one, eosfm::Team& team,
                eosfm_patch_map* given);
  eosfm::MosaicTile part_of(const eosfm::StreamTile& tile, int level) const;

  eosfm_context* context_ = nullptr;
  eosfm_stream_options options_ = EOSFM_STREAM_OPTIONS_INIT;
  int overlap_ = 0;
  eosfm::Span span_;
  eosfm::StreamMemory memory_ = {};
  bool ended_ = false;
  bool done_ = false;
  int64_t tile_row_ = 0;
  int tile_column_ = 0;
  int64_t tiles_ = 0;
  // Of tiles of the row that are read and not given yet: as many as the engine's slots hold.
  int first_ = 0;  // the next tile to be given, in the ring
  int ahead_ = 0;
  int next_column_ = 0;    // to be read
  bool row_read_ = false;  // to its end
  int slot_ = 0;           // that is filled
  int filled_ = 0;         // its images
  int64_t tiles_skipped_ = 0;
};

#endif
