#include "stream.h"

#include <math.h>

#include "cells.h"
#include "structs.h"

namespace eosfm {
namespace {

constexpr int kCoarsest = 32;  // pixels of a cell of the last level: all levels' cells meet there
constexpr int kMostWidth = 1 << 20;

int stride_of(int level) { return 4 << level; }

int cells_over(int pixels, int level) { return (pixels + stride_of(level) - 1) / stride_of(level); }

int smaller(int a, int b) { return a < b ? a : b; }

int default_overlap(const Settings& tile) {
  const int quarter = smaller(tile.width, tile.height) / 4;
  const int rounded = (quarter + kCoarsest - 1) / kCoarsest * kCoarsest;
  return rounded < smaller(tile.width, tile.height) ? rounded : 0;
}

eosfm_status check_band(const eosfm_stream_band& band, int index, const char* name, int most_step,
                        ErrorText& error) {
  if (dtype_bytes(band.dtype) == 0) {
    return error.fail(EOSFM_BAD_ARGUMENT, "band %d (%s) has a dtype that is not known: %d", index, name,
                      band.dtype);
  }
  if (band.step < 1 || band.step > most_step) {
    return error.fail(EOSFM_BAD_ARGUMENT, "band %d (%s) has a step of %d pixels, expected 1 to %d", index,
                      name, band.step, most_step);
  }
  const auto begins = [&](int origin) { return origin >= 0 && origin < band.step; };
  if (!begins(band.row_origin) || !begins(band.column_origin)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "band %d (%s) begins %d rows and %d columns before the scene, "
                      "expected 0 to %d, less than its step",
                      index, name, band.row_origin, band.column_origin, band.step - 1);
  }
  const ptrdiff_t bytes = static_cast<ptrdiff_t>(dtype_bytes(band.dtype));
  if (band.column_stride % bytes != 0 || band.row_stride % bytes != 0) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "band %d (%s) has strides that are no multiples of its "
                      "%td-byte pixels",
                      index, name, bytes);
  }
  if (band.calibrated != 0 && (!isfinite(band.scale) || band.scale == 0.0F || !isfinite(band.offset))) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "band %d (%s) has scale %g and offset %g, expected finite "
                      "numbers and no scale of 0",
                      index, name, static_cast<double>(band.scale), static_cast<double>(band.offset));
  }
  return EOSFM_OK;
}

eosfm_status check_heads(const eosfm_stream_options& options, const eosfm_model* model, ErrorText& error) {
  if (options.head_count == 0) return EOSFM_OK;
  if (options.head_count > kMostHeads) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the stream has %zu heads, expected at most %d", options.head_count,
                      kMostHeads);
  }
  const eosfm_status status = check_structs(options.heads, options.head_count, error);
  if (status != EOSFM_OK) return status;
  for (size_t i = 0; i < options.head_count; ++i) {
    const eosfm_stream_head one = read_struct_at(options.heads, i);
    if (one.head == nullptr || one.head->model() != model) {
      return error.fail(EOSFM_BAD_ARGUMENT, "head %zu is %s, expected one of the context's model", i,
                        one.head == nullptr ? "NULL" : "of another model");
    }
    if (one.probabilities != 0 && one.head->task() != EOSFM_CLASSES) {
      return error.fail(EOSFM_BAD_ARGUMENT, "head %zu (%s) is a regression, which has no probabilities", i,
                        one.head->name());
    }
  }
  return EOSFM_OK;
}

// Reads the caller's options and checks them; their bands and heads stay the caller's.
eosfm_status read(const eosfm_stream_options* given, const Settings& tile, const eosfm_model* model,
                  eosfm_stream_options* options, int* overlap, ErrorText& error) {
  const Chain& chain = model->chain;
  eosfm_status status = check_struct(given, error);
  if (status != EOSFM_OK) return status;
  *options = read_struct(given);
  if (options->width < 1 || options->width > kMostWidth) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the scene is %d pixels wide, expected 1 to %d", options->width,
                      kMostWidth);
  }
  const int most = smaller(tile.width, tile.height) - kCoarsest;
  *overlap = options->overlap == -1 ? default_overlap(tile) : options->overlap;
  if (*overlap < 0 || *overlap > most || *overlap % kCoarsest != 0) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the overlap is %d pixels, expected a multiple of %d from 0 "
                      "to %d, tiles being %d x %d",
                      *overlap, kCoarsest, most, tile.width, tile.height);
  }
  if (options->halo < 0 || options->halo > *overlap / 2 || options->halo % kCoarsest != 0) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the halo is %d pixels, expected a multiple of %d from 0 to "
                      "%d, half of the overlap",
                      options->halo, kCoarsest, *overlap / 2 / kCoarsest * kCoarsest);
  }
  const auto share = [](float value) { return value >= 0.0F && value <= 1.0F; };
  if (!share(options->least_valid) || !share(options->skip_below)) {
    return error.fail(EOSFM_BAD_ARGUMENT, "least_valid is %g and skip_below %g, expected 0 to 1",
                      static_cast<double>(options->least_valid), static_cast<double>(options->skip_below));
  }
  if (options->bands == nullptr || options->band_count != static_cast<size_t>(chain.bands.size())) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the scene has %zu bands, expected %d",
                      options->bands != nullptr ? options->band_count : 0, chain.bands.size());
  }
  status = check_structs(options->bands, options->band_count, error);
  for (int b = 0; status == EOSFM_OK && b < chain.bands.size(); ++b) {
    status = check_band(read_struct_at(options->bands, b), b, chain.bands[b].name,
                        smaller(tile.width, tile.height), error);
  }
  if (status == EOSFM_OK) status = check_heads(*options, model, error);
  if (status != EOSFM_OK || options->mask == nullptr) return status;
  status = check_struct(options->mask, error);
  if (status != EOSFM_OK) return status;
  const eosfm_stream_band mask = read_struct(options->mask);
  if (mask.dtype != EOSFM_U8) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the mask has the dtype %d, expected EOSFM_U8 (%d)", mask.dtype,
                      EOSFM_U8);
  }
  return check_band(mask, EOSFM_STREAM_MASK, "mask", smaller(tile.width, tile.height), error);
}

}  // namespace

void StreamMemory::set_heads(const eosfm_stream_options& options) {
  head_count = static_cast<int>(options.head_count);
  for (int i = 0; i < head_count; ++i) {
    const eosfm_stream_head one = read_struct_at(options.heads, i);
    heads[i].head = one.head;
    heads[i].probabilities = one.probabilities != 0;
  }
}

void StreamMemory::lay_out(Layout& layout, const eosfm_stream_options& options, int overlap, int tiles_ahead,
                           const Settings& tile, const Chain& chain) {
  const size_t pixels = static_cast<size_t>(tile.width) * tile.height;
  const size_t bands_count = static_cast<size_t>(chain.bands.size());
  // A row of tiles is reached because there are rows beyond the one before it, which ended `overlap` rows
  // after this one begins: the last is moved back by less than a step, on the grid of all levels.
  const int most_back = tile.height - overlap - kCoarsest;
  swath.lay_out(layout, options, chain, tile.width, tile.height, most_back);
  planes = layout.take<float>(pixels * bands_count);
  valid = layout.take<uint8_t>(pixels);
  bands = layout.take<eosfm_band>(bands_count);
  tiles = layout.take<StreamTile>(static_cast<size_t>(tiles_ahead));
  for (int l = 0; l < kLevels; ++l) {
    const size_t cells = pixels / static_cast<size_t>(stride_of(l) * stride_of(l));
    for (int t = 0; t < tiles_ahead; ++t) {
      float* shares = layout.take<float>(cells);
      if (tiles != nullptr) tiles[t].shares[l] = shares;
    }
    whole[l] = layout.take<float>(cells);
    once[l] = layout.take<float>(cells);
    const MosaicShape shape = {chain.level_channels[l],     tile.width / stride_of(l),
                               tile.height / stride_of(l),  overlap / stride_of(l),
                               options.halo / stride_of(l), cells_over(options.width, l)};
    if (options.levels[l] != 0) levels[l].lay_out(layout, shape);
    bool is_read = false;
    for (int i = 0; i < head_count; ++i) {
      is_read = is_read || heads[i].head->reads(l);
      if (heads[i].head->level() != l) continue;
      MosaicShape outputs = shape;
      outputs.channels = heads[i].head->outputs();
      heads[i].outputs.lay_out(layout, outputs);
      heads[i].classes = layout.take<uint8_t>(cells);
    }
    const bool is_passing = is_read && options.levels[l] == 0;
    features[l] = is_passing ? layout.take<float>(cells * chain.level_channels[l]) : nullptr;
  }
}

namespace {

int tiles_ahead_of(const eosfm_context& context) { return context.slots() * context.batch(); }

}  // namespace

}  // namespace eosfm

using namespace eosfm;

eosfm_status eosfm_stream::measure(eosfm_context* context, const eosfm_stream_options* given, size_t* bytes) {
  const Chain& chain = context->model()->chain;
  const Settings& tile = context->settings();
  eosfm_stream_options options;
  int overlap = 0;
  const eosfm_status status = read(given, tile, context->model(), &options, &overlap, context->error());
  if (status != EOSFM_OK) return status;
  Layout layout;
  StreamMemory memory = {};
  memory.set_heads(options);
  memory.lay_out(layout, options, overlap, tiles_ahead_of(*context), tile, chain);
  *bytes = layout.size() + bytes_of<eosfm_stream>();
  return EOSFM_OK;
}

eosfm_status eosfm_stream::begin(eosfm_context* context, const eosfm_stream_options* given) {
  context_ = context;
  const Chain& chain = context_->model()->chain;
  const Settings& tile = context_->settings();
  eosfm_status status = read(given, tile, context_->model(), &options_, &overlap_, context_->error());
  if (status != EOSFM_OK) return status;
  Layout sizes;
  const int tiles_ahead = tiles_ahead_of(*context);
  memory_.set_heads(options_);
  for (int i = 0; i < memory_.head_count; ++i) memory_.heads[i].head->retain();
  memory_.lay_out(sizes, options_, overlap_, tiles_ahead, tile, chain);
  const size_t bytes = sizes.size();
  const Memory& memory = context_->model()->memory;
  status = memory.check_room(bytes, "a stream", context_->error());
  if (status != EOSFM_OK) return status;
  if (!span_.allocate(memory.allocator(), bytes)) return context_->error().no_memory("the stream");
  Layout layout(span_.data());
  memory_.lay_out(layout, options_, overlap_, tiles_ahead, tile, chain);
  const size_t plane = static_cast<size_t>(tile.width) * tile.height;
  for (int b = 0; b < chain.bands.size(); ++b) {
    const Band& own = chain.bands[b];
    eosfm_band band = EOSFM_BAND_INIT;
    band.data = memory_.planes + plane * b;
    band.column_stride = sizeof(float);
    band.row_stride = static_cast<ptrdiff_t>(sizeof(float)) * tile.width;
    band.calibrated = 1;  // nodata was replaced already, so its value may now be a measured one
    band.scale = own.physical_scale;
    band.offset = own.physical_offset;
    memory_.bands[b] = band;
  }
  options_.bands = nullptr;  // the caller's, as is the mask
  options_.mask = nullptr;
  options_.heads = nullptr;
  return EOSFM_OK;
}

eosfm_stream::~eosfm_stream() {
  for (int i = 0; i < memory_.head_count; ++i) eosfm_head::drop(memory_.heads[i].head);
}

eosfm_status eosfm_stream::push_rows(int band, const void* rows, int count, int width, int* taken) {
  const Chain& chain = context_->model()->chain;
  Swath& swath = memory_.swath;
  const bool is_mask = band == EOSFM_STREAM_MASK && swath.mask() >= 0;
  if ((!is_mask && (band < 0 || band >= chain.bands.size())) || count < 0 || taken == nullptr) {
    return context_->error().fail(EOSFM_BAD_ARGUMENT,
                                  "band %d of %d gets %d rows, or there is no place "
                                  "for how many were taken%s",
                                  band, chain.bands.size(), count,
                                  band == EOSFM_STREAM_MASK ? "; the stream was begun without a mask" : "");
  }
  const int index = is_mask ? swath.mask() : band;
  if (rows != nullptr && width != swath.width(index)) {
    return context_->error().fail(EOSFM_BAD_ARGUMENT,
                                  "band %d (%s) gets rows of %d pixels, expected %d, "
                                  "which cover the scene's %d",
                                  band, is_mask ? "mask" : chain.bands[band].name, width, swath.width(index),
                                  options_.width);
  }
  if (ended_) {
    return context_->error().fail(EOSFM_BAD_ARGUMENT, "rows are pushed after the end of the scene");
  }
  *taken = swath.push(index, rows, count, tile_row_ * (context_->settings().height - overlap_));
  return EOSFM_OK;
}

void eosfm_stream::reset() {
  memory_.swath.reset();
  for (Mosaic& level : memory_.levels) level.reset();
  for (StreamHead& one : memory_.heads) one.outputs.reset();
  ended_ = false;
  done_ = false;
  tile_row_ = 0;
  tile_column_ = 0;
  tiles_ = 0;
  tiles_skipped_ = 0;
  forget_ahead();
}

eosfm_status eosfm_stream::next(const eosfm_run_options* given_options, eosfm_patch* given_patch) {
  eosfm_status status = check_struct(given_patch, context_->error());
  if (status != EOSFM_OK) return status;
  eosfm_patch patch = read_struct(given_patch);
  status = check_structs(patch.levels, kLevels, context_->error());
  if (status == EOSFM_OK && memory_.head_count > 0) {
    status = check_structs(patch.maps, static_cast<size_t>(memory_.head_count), context_->error());
  }
  if (status != EOSFM_OK) return status;
  eosfm_run_options options;
  status = context_->read_run_options(given_options, &options);  // checked for skipped tiles too
  if (status == EOSFM_OK) status = context_->check_cancelled();
  if (status != EOSFM_OK) return status;
  const int64_t rows = memory_.swath.rows();
  const int64_t end = tile_row_ * (context_->settings().height - overlap_) + context_->settings().height;
  if (done_ || (ended_ && rows == 0)) return EOSFM_END;
  // A row of tiles may be the last one, until more rows or the end have come.
  if (!ended_ && rows <= end) return EOSFM_AGAIN;
  const StreamTile* tile = nullptr;
  status = compute(rows, options, &tile);
  if (status != EOSFM_OK) return status;
  if (tile->skipped && options.present != nullptr) memset(options.present, 0, options.present_count);
  give(*tile, &patch);
  write_struct(patch, given_patch);
  if (!tile->last_column) {
    ++tile_column_;
    return EOSFM_OK;
  }
  tile_column_ = 0;
  next_column_ = 0;
  row_read_ = false;
  ++tile_row_;
  done_ = tile->last_row;
  return EOSFM_OK;
}

// Gives the engine the tiles that follow in the row, as far as it has slots, before it waits for the first. Pixels of
// the next row of tiles may not have been pushed yet.
eosfm_status eosfm_stream::compute(int64_t rows, const eosfm_run_options& options,
                                   const StreamTile** result) {
  context_->begin(options);
  if (!context_->claim(this)) forget_ahead();
  eosfm_status status = EOSFM_OK;
  while (status == EOSFM_OK && may_read_ahead()) status = read_ahead(rows);
  if (status == EOSFM_OK) status = take_first(options, result);
  context_->end();
  if (status != EOSFM_OK) {
    context_->count(status);
    forget_ahead();
  }
  return status;
}

eosfm_status eosfm_stream::take_first(const eosfm_run_options& options, const StreamTile** result) {
  const StreamTile& tile = memory_.tiles[first_];
  if (!tile.skipped) {
    eosfm_status status = EOSFM_OK;
    // The ring may be full of tiles that are skipped before the slot is full.
    if (tile.slot == slot_ && filled_ > 0) status = start_slot();
    if (status == EOSFM_OK) status = context_->wait(tile.slot);
    eosfm_level levels[kLevels];
    get_features(levels);
    if (status == EOSFM_OK) status = context_->deliver(tile.slot, tile.index, levels, options);
    if (status != EOSFM_OK) return located(status, tile);
    apply_heads(levels);
    context_->count(status);
  }
  *result = &tile;
  first_ = (first_ + 1) % tiles_ahead_of(*context_);
  --ahead_;
  return EOSFM_OK;
}

bool eosfm_stream::may_read_ahead() const {
  const int most = tiles_ahead_of(*context_);
  if (row_read_ || ahead_ == most) return false;
  for (int i = 0; filled_ == 0 && i < ahead_; ++i) {
    const StreamTile& tile = memory_.tiles[(first_ + i) % most];
    if (!tile.skipped && tile.slot == slot_) return false;  // its levels are still to be given
  }
  return true;
}

eosfm_status eosfm_stream::read_ahead(int64_t rows) {
  StreamTile* tile = &memory_.tiles[(first_ + ahead_) % tiles_ahead_of(*context_)];
  read_tile(rows, next_column_, tile);
  if (!tile->skipped) {
    tile->slot = slot_;
    tile->index = filled_;
    const eosfm_image pixels = image();
    const bool gathers = context_->gathers();
    CellWeights weights;
    if (gathers) weights = weigh(*tile);
    const eosfm_status status = context_->stage(&pixels, gathers ? &weights : nullptr, slot_, filled_);
    if (status != EOSFM_OK) return status;
    ++filled_;
  }
  ++ahead_;
  ++next_column_;
  row_read_ = tile->last_column;
  const bool is_full = filled_ == context_->batch() || (row_read_ && filled_ > 0);
  return is_full ? start_slot() : EOSFM_OK;
}

eosfm_status eosfm_stream::start_slot() {
  const eosfm_status status = context_->start(slot_, filled_);
  slot_ = (slot_ + 1) % context_->slots();
  filled_ = 0;
  return status;
}

// Tiles that are not given yet are read again.
void eosfm_stream::forget_ahead() {
  ahead_ = 0;
  filled_ = 0;
  row_read_ = false;
  next_column_ = tile_column_;
}

namespace {

// Returns where the last tile of an axis begins to be computed: before its start, so that it is full of measured
// pixels, but on the grid of all levels.
int64_t moved_back(int64_t start, int64_t length, int size) {
  const int64_t at = length - size;
  const int64_t from_end = at <= 0 ? 0 : (at + kCoarsest - 1) / kCoarsest * kCoarsest;
  return from_end < start ? from_end : start;
}

}  // namespace

void eosfm_stream::place(int64_t rows, int column, StreamTile* result) const {
  const Settings& tile = context_->settings();
  result->row = tile_row_ * (tile.height - overlap_);
  result->column = column * (tile.width - overlap_);
  result->last_row = ended_ && result->row + tile.height >= rows;
  result->last_column = result->column + tile.width >= options_.width;
  TilePlace& pixels = result->pixels;
  pixels = {result->row, result->column, tile.height, tile.width};
  if (result->last_row) {
    pixels.row = moved_back(result->row, rows, tile.height);
    pixels.height = smaller(tile.height, static_cast<int>(rows - pixels.row));
  }
  if (result->last_column) {
    pixels.column = static_cast<int>(moved_back(result->column, options_.width, tile.width));
    pixels.width = smaller(tile.width, options_.width - pixels.column);
  }
}

// Reads a tile's pixels, and decides whether it is computed.
void eosfm_stream::read_tile(int64_t rows, int column, StreamTile* tile) {
  place(rows, column, tile);
  read_pixels(*tile);
  count_valid(*tile);
  tile->skipped = !worth_it(*tile);
}

void eosfm_stream::read_pixels(const StreamTile& tile) {
  const Clock reading(&context_->statistics().read_ns);
  Stop never;
  Team team(&context_->pool(), &never);
  memory_.swath.set_tile(tile.pixels);
  team.each(context_->settings().height / kCoarsest, [&](int task, int) {
    memory_.swath.read_rows(task * kCoarsest, kCoarsest, memory_.planes, memory_.valid);
  });
}

// Fills in the share of valid pixels among all of each cell, and among those in the scene.
void eosfm_stream::count_valid(const StreamTile& place) {
  const Settings& tile = context_->settings();
  share_valid(memory_.valid, tile.width, tile.height, memory_.whole);
  for (int l = 0; l < kLevels; ++l) {
    const int width = tile.width / stride_of(l);
    const float pixels = static_cast<float>(stride_of(l) * stride_of(l));
    for (int y = 0; y < tile.height / stride_of(l); ++y) {
      const int inside_rows = smaller(place.pixels.height - y * stride_of(l), stride_of(l));
      for (int x = 0; x < width; ++x) {
        const float share = memory_.whole[l][y * width + x];
        const int inside = inside_rows * smaller(place.pixels.width - x * stride_of(l), stride_of(l));
        place.shares[l][y * width + x] = share > 0.0F ? share * pixels / static_cast<float>(inside) : 0.0F;
      }
    }
  }
}

// Returns the weights of the tile's cells: cells that tiles share are weighted as they are blended, so that each counts
// once.
CellWeights eosfm_stream::weigh(const StreamTile& place) {
  const Settings& tile = context_->settings();
  CellWeights weights;
  weights.all_valid = memchr(memory_.valid, 0, static_cast<size_t>(tile.width) * tile.height) == nullptr;
  weights.whole = false;
  for (int l = 0; l < kLevels; ++l) {
    float across[kMostSide / 4];
    float down[kMostSide / 4];
    const int width = tile.width / stride_of(l);
    const int height = tile.height / stride_of(l);
    const int row_before = static_cast<int>(place.row - place.pixels.row) / stride_of(l);
    const int column_before = (place.column - place.pixels.column) / stride_of(l);
    fill_ramp(across, shape(l), width, place.column > 0, !place.last_column);
    fill_ramp(down, shape(l), height, tile_row_ > 0, !place.last_row);
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const bool mine = y >= row_before && x >= column_before;
        memory_.once[l][y * width + x] =
            mine ? memory_.whole[l][y * width + x] * (down[y - row_before] * across[x - column_before])
                 : 0.0F;
      }
    }
    weights.valid[l] = memory_.whole[l];
    weights.once[l] = memory_.once[l];
  }
  return weights;
}

MosaicShape eosfm_stream::shape(int level) const {
  const Settings& tile = context_->settings();
  const int stride = stride_of(level);
  return {context_->model()->chain.level_channels[level],
          tile.width / stride,
          tile.height / stride,
          overlap_ / stride,
          options_.halo / stride,
          cells_over(options_.width, level)};
}

bool eosfm_stream::worth_it(const StreamTile& place) const {
  const Settings& tile = context_->settings();
  const auto inside = static_cast<size_t>(place.pixels.width) * place.pixels.height;
  size_t valid = 0;
  for (int i = 0; i < tile.width * tile.height; ++i) valid += memory_.valid[i];
  if (valid == 0 ||
      static_cast<double>(valid) < static_cast<double>(options_.skip_below) * static_cast<double>(inside)) {
    return false;
  }
  for (int l = 0; l < kLevels; ++l) {
    const int cells = tile.width * tile.height / (stride_of(l) * stride_of(l));
    for (int i = 0; i < cells; ++i) {
      const float share = place.shares[l][i];
      if (share > 0.0F && share >= options_.least_valid) return true;
    }
  }
  return false;
}

eosfm_image eosfm_stream::image() const {
  eosfm_image image = EOSFM_IMAGE_INIT;
  image.bands = memory_.bands;
  image.band_count = static_cast<size_t>(context_->model()->chain.bands.size());
  return image;
}

void eosfm_stream::get_features(eosfm_level* levels) const {
  for (int l = 0; l < kLevels; ++l) {
    levels[l] = EOSFM_LEVEL_INIT;
    const ptrdiff_t width = context_->settings().width / stride_of(l);
    const ptrdiff_t height = context_->settings().height / stride_of(l);
    if (options_.levels[l] != 0) {
      levels[l] = memory_.levels[l].features();
    } else if (memory_.features[l] != nullptr) {
      levels[l] = {sizeof(eosfm_level), memory_.features[l], width * height, width};
    }
  }
}

// Computes the answers for a tile, whose levels were delivered.
void eosfm_stream::apply_heads(const eosfm_level* levels) {
  if (memory_.head_count == 0) return;
  const Clock fusing(&context_->statistics().fuse_ns);
  Stop never;
  Team team(&context_->pool(), &never);
  for (int i = 0; i < memory_.head_count; ++i) {
    const StreamHead& one = memory_.heads[i];
    one.head->compute(levels, context_->settings().width, context_->settings().height, one.outputs.features(),
                      team);
  }
}

// Adds to the sentence of a failure in which tile values are not finite.
eosfm_status eosfm_stream::located(eosfm_status status, const StreamTile& tile) {
  if (status != EOSFM_NOT_FINITE) return status;
  const ErrorText reason = context_->error();
  return context_->error().fail(status, "the tile at column %d, row %lld: %.400s", tile.pixels.column,
                                static_cast<long long>(tile.pixels.row), reason.text);
}

// Returns where a tile lies in a level, and what of it the tile completes.
MosaicTile eosfm_stream::part_of(const StreamTile& place, int level) const {
  const Settings& tile = context_->settings();
  const int stride = stride_of(level);
  const int rows =
      place.last_row ? static_cast<int>(place.pixels.row + place.pixels.height - place.row) : tile.height;
  const int columns = place.last_column ? options_.width - place.column : tile.width;
  MosaicTile part;
  part.column = place.column / stride;
  part.width = cells_over(columns, level);
  part.height = cells_over(rows, level);
  part.column_before = (place.column - place.pixels.column) / stride;
  part.row_before = static_cast<int>(place.row - place.pixels.row) / stride;
  part.done_width = place.last_column ? part.width : (tile.width - overlap_) / stride;
  part.done_height = place.last_row ? part.height : (tile.height - overlap_) / stride;
  part.first_row = tile_row_ == 0;
  part.last_row = place.last_row;
  part.last_column = place.last_column;
  return part;
}

void eosfm_stream::give_level(const StreamTile& place, int level, Team& team, eosfm_patch_level* given) {
  eosfm_patch_level own = EOSFM_PATCH_LEVEL_INIT;
  if (options_.levels[level] != 0) {
    const MosaicTile part = part_of(place, level);
    Mosaic& mosaic = memory_.levels[level];
    mosaic.add(part, place.skipped, place.shares[level], options_.least_valid, team);
    const eosfm_level patch = mosaic.patch();
    own.data = patch.data;
    own.channel_stride = patch.channel_stride;
    own.row_stride = patch.row_stride;
    own.valid = place.shares[level] + part.row_before * patch.row_stride + part.column_before;
    own.valid_stride = patch.row_stride;
    own.row = place.row / stride_of(level);
    own.column = part.column;
    own.height = part.done_height;
    own.width = part.done_width;
  }
  write_struct(own, given);
}

void eosfm_stream::give_map(const StreamTile& place, StreamHead& one, Team& team, eosfm_patch_map* given) {
  const int level = one.head->level();
  const MosaicTile part = part_of(place, level);
  one.outputs.add(part, place.skipped, place.shares[level], options_.least_valid, team);
  const eosfm_level patch = one.outputs.patch();
  eosfm_patch_map own = EOSFM_PATCH_MAP_INIT;
  if (one.head->task() == EOSFM_CLASSES) {
    own.classes = one.classes;
    own.class_stride = patch.row_stride;
    one.head->classify(patch, part.done_width, part.done_height, one.classes, own.class_stride);
  }
  if (one.probabilities) one.head->normalise(patch, part.done_width, part.done_height);
  own.outputs = patch.data;
  own.channel_stride = patch.channel_stride;
  own.row_stride = patch.row_stride;
  own.row = place.row / stride_of(level);
  own.column = part.column;
  own.height = part.done_height;
  own.width = part.done_width;
  write_struct(own, given);
}

void eosfm_stream::give(const StreamTile& place, eosfm_patch* patch) {
  const Clock blending(&context_->statistics().blend_ns);
  Stop never;
  Team team(&context_->pool(), &never);
  for (int l = 0; l < kLevels; ++l) give_level(place, l, team, struct_at(patch->levels, l));
  for (int i = 0; i < memory_.head_count; ++i) {
    give_map(place, memory_.heads[i], team, struct_at(patch->maps, i));
  }
  ++tiles_;
  tiles_skipped_ += place.skipped ? 1 : 0;
  ++context_->statistics().tiles;
  context_->statistics().tiles_skipped += place.skipped ? 1 : 0;
  patch->tile_row = tile_row_;
  patch->tile_column = tile_column_;
  patch->skipped = place.skipped ? 1 : 0;
  patch->tiles = tiles_;
  patch->tiles_skipped = tiles_skipped_;
}
