#include "line_features.h"

#include <gnuradio/block_detail.h>
#include <gnuradio/buffer_reader.h>
#include <gnuradio/io_signature.h>

#include <algorithm>
#include <stdexcept>

namespace {

size_t cells_over(size_t width, int level) {
  const size_t stride = size_t{4} << level;
  return (width + stride - 1) / stride;
}

std::vector<int> row_sizes(const eosfm_model_info& info, int width, const std::vector<int>& levels) {
  std::vector<int> sizes;
  for (const int number : levels) {
    if (number < 1 || number > EOSFM_LEVELS) throw std::runtime_error("levels are 1 to 4");
    const size_t cells = cells_over(static_cast<size_t>(width), number - 1);
    sizes.push_back(static_cast<int>(sizeof(float) * info.channels[number - 1] * cells));
  }
  return sizes;
}

}  // namespace

line_features::sptr line_features::make(const std::string& bundle, int width,
                                        const std::vector<int>& levels) {
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  Model model = open(bundle, &info);
  return gnuradio::get_initial_sptr(new line_features(std::move(model), info, width, levels));
}

line_features::Model line_features::open(const std::string& bundle, eosfm_model_info* info) {
  char error[256] = "";
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.error = error;
  options.error_size = sizeof error;
  eosfm_model* model = nullptr;
  if (eosfm_model_open(bundle.c_str(), &options, &model) != EOSFM_OK) throw std::runtime_error(error);
  eosfm_model_describe(model, info);
  return Model(model);
}

line_features::line_features(Model model, const eosfm_model_info& info, int width,
                             const std::vector<int>& levels)
    : gr::block("line_features",
                gr::io_signature::make(1, 1, static_cast<int>(sizeof(uint16_t)) * info.bands * width),
                gr::io_signature::makev(static_cast<int>(levels.size()), static_cast<int>(levels.size()),
                                        row_sizes(info, width, levels))),
      model_(std::move(model)),
      bands_(static_cast<size_t>(info.bands)),
      width_(static_cast<size_t>(width)) {
  for (const int number : levels) {
    const size_t channels = static_cast<size_t>(info.channels[number - 1]);
    rows_.push_back({number - 1, channels, cells_over(width_, number - 1), {}});
  }
  eosfm_context* context = nullptr;
  if (eosfm_context_create(model_.get(), nullptr, &context) != EOSFM_OK) {
    throw std::runtime_error(eosfm_model_get_error(model_.get()));
  }
  context_.reset(context);
  set_tag_propagation_policy(TPP_DONT);  // lines and rows do not correspond
  begin();
}

size_t line_features::line_bytes() const { return sizeof(uint16_t) * bands_ * width_; }

size_t line_features::row_bytes(size_t output) const {
  return sizeof(float) * rows_[output].channels * rows_[output].cells;
}

void line_features::begin() {
  eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
  band.dtype = EOSFM_U16;
  band.row_stride = static_cast<ptrdiff_t>(line_bytes());
  const std::vector<eosfm_stream_band> bands(bands_, band);
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  options.width = static_cast<int32_t>(width_);
  options.bands = bands.data();
  options.band_count = bands.size();
  std::fill(std::begin(options.levels), std::end(options.levels), 0);
  for (const Rows& rows : rows_) options.levels[rows.level] = 1;
  eosfm_stream* stream = nullptr;
  stream_.reset();
  if (eosfm_stream_create(context_.get(), &options, &stream) != EOSFM_OK) {
    throw std::runtime_error(eosfm_context_get_error(context_.get()));
  }
  stream_.reset(stream);
  wants_lines_ = ended_ = more_scenes_ = false;
}

// The last line is kept until it is known whether another follows, so two are asked for.
void line_features::forecast(int, gr_vector_int& required) {
  const bool is_last = detail()->input(0)->done();
  required[0] = !wants_lines_ || ended_ ? 0 : is_last ? 1 : 2;
}

int line_features::general_work(int noutput_items, gr_vector_int& ninput_items,
                                gr_vector_const_void_star& input_items, gr_vector_void_star& output_items) {
  if (send(noutput_items, output_items)) return WORK_CALLED_PRODUCE;
  if (wants_lines_) {
    push(static_cast<const char*>(input_items[0]), ninput_items[0]);
    return error_.empty() ? WORK_CALLED_PRODUCE : WORK_DONE;
  }
  eosfm_patch_level levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
  eosfm_patch patch = EOSFM_PATCH_INIT;
  patch.levels = levels;
  switch (eosfm_stream_pull_patch(stream_.get(), nullptr, &patch)) {
    case EOSFM_OK: collect(patch); return WORK_CALLED_PRODUCE;
    case EOSFM_AGAIN: wants_lines_ = true; return WORK_CALLED_PRODUCE;
    case EOSFM_END:
      if (!more_scenes_) return WORK_DONE;
      ++scene_;
      begin();
      return WORK_CALLED_PRODUCE;
    default: return fail();
  }
}

// Copies rows that are ready; whether there were any.
bool line_features::send(int noutput_items, gr_vector_void_star& output_items) {
  bool any = false;
  for (size_t i = 0; i < rows_.size(); ++i) {
    Rows& rows = rows_[i];
    const size_t count = std::min(static_cast<size_t>(noutput_items), rows.ready - rows.sent);
    const size_t row = rows.channels * rows.cells;
    std::copy_n(rows.values.data() + rows.sent * row, count * row, static_cast<float*>(output_items[i]));
    rows.sent += count;
    produce(static_cast<int>(i), static_cast<int>(count));
    any = any || count > 0;
  }
  return any;
}

// Keeps a patch's cells until those of its whole row of tiles are there.
void line_features::collect(const eosfm_patch& patch) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    Rows& rows = rows_[i];
    const eosfm_patch_level& level = patch.levels[rows.level];
    const size_t height = static_cast<size_t>(level.height);
    const size_t width = static_cast<size_t>(level.width);
    const size_t column = static_cast<size_t>(level.column);
    if (column == 0) {
      rows.values.resize(height * rows.channels * rows.cells);
      rows.ready = rows.sent = 0;
      const unsigned port = static_cast<unsigned>(i);
      if (level.row == 0) {
        add_item_tag(port, nitems_written(port), pmt::mp("scene"), pmt::from_uint64(scene_));
      }
    }
    for (size_t y = 0; y < height; ++y) {
      for (size_t c = 0; c < rows.channels; ++c) {
        const float* from = level.data + static_cast<ptrdiff_t>(c) * level.channel_stride +
                            static_cast<ptrdiff_t>(y) * level.row_stride;
        std::copy_n(from, width, rows.values.data() + (y * rows.channels + c) * rows.cells + column);
      }
    }
    if (column + width == rows.cells) rows.ready = height;
  }
}

// Gives the stream what it has room for of some lines.
void line_features::push(const char* lines, int count) {
  std::vector<gr::tag_t> ends;
  get_tags_in_window(ends, 0, 0, static_cast<uint64_t>(count), pmt::mp("scene_end"));
  const auto earlier = [](const gr::tag_t& a, const gr::tag_t& b) { return a.offset < b.offset; };
  const auto end = std::min_element(ends.begin(), ends.end(), earlier);
  const bool tagged = end != ends.end();
  const bool is_last = tagged || input_is_all(count);
  if (tagged) {
    count = static_cast<int>(end->offset - nitems_read(0)) + 1;
  } else if (!is_last) {
    --count;
  }
  int32_t taken = 0;
  for (size_t b = 0; b < bands_; ++b) {
    const char* rows = lines + b * width_ * sizeof(uint16_t);
    if (eosfm_stream_push_rows(stream_.get(), static_cast<int32_t>(b), rows, count,
                               static_cast<int32_t>(width_), &taken) != EOSFM_OK) {
      fail();
      return;
    }
  }
  consume(0, taken);
  wants_lines_ = false;
  if (is_last && taken == count) {
    eosfm_stream_end(stream_.get());
    ended_ = true;
    more_scenes_ = tagged;
  }
}

// Whether no line will follow those that work was called with. In this order: what comes before the flag
// is set has been counted when it is seen.
bool line_features::input_is_all(int count) const {
  const auto input = detail()->input(0);
  return input->done() && input->items_available() == count;
}

int line_features::fail() {
  error_ = eosfm_context_get_error(context_.get());
  d_logger->error("{}", error_);
  return WORK_DONE;
}
