// A libFuzzer target for sequences of calls: contexts, images and streams of one bundle, whose folder is in
// EOSFM_FUZZ_BUNDLE. An input is the calls and their arguments, in bounds and out of them.
#include <cstdlib>
#include <memory>
#include <vector>

#include "bundle.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// Bytes as numbers; zeros when there are no more.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : at_(data), left_(size) {}

  bool any() const { return left_ > 0; }
  unsigned byte() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
  }
  int below(int count) { return static_cast<int>(byte() % static_cast<unsigned>(count)); }
  // Mostly one of a few, now and then whatever four bytes say.
  int32_t number(std::initializer_list<int32_t> usual) {
    const unsigned choice = byte();
    if (choice >= 250) {
      const unsigned wild = byte() | byte() << 8 | byte() << 16 | byte() << 24;
      return static_cast<int32_t>(wild);
    }
    return usual.begin()[choice % usual.size()];
  }

 private:
  const uint8_t* at_;
  size_t left_;
};

constexpr int kBytes[] = {1, 2, 2, 4, 1, 4, 4, 8};  // of an eosfm_dtype

class Session {
 public:
  Session(eosfm_model* model, Choices& choices) : model_(model), choices_(choices) {
    require(eosfm_model_describe(model, &info_) == EOSFM_OK);
  }
  ~Session() { end_context(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void step() {
    switch (choices_.below(12)) {
      case 0: begin_context(); break;
      case 1: begin_stream(); break;
      case 2:
      case 3:
      case 4: push(); break;
      case 5:
      case 6:
      case 7: next(); break;
      case 8:
        if (stream_ != nullptr) eosfm_stream_end(stream_);
        break;
      case 9: set(); break;
      case 10: run(); break;
      case 11: choices_.byte() < 128 ? end_stream() : reset_stream(); break;
    }
  }

 private:
  void begin_context() {
    end_context();
    eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
    options.threads = choices_.number({1, 1, 1, 2});
    if (options.threads > 4) options.threads = 4;
    options.width = choices_.number({32, 64, 96, 0});
    options.height = choices_.number({32, 64, 0});
    options.memory_limit = 64 << 20;
    width_ = options.width != 0 ? options.width : info_.tile;
    height_ = options.height != 0 ? options.height : info_.tile;
    eosfm_context* context = nullptr;
    if (eosfm_context_create(model_, &options, &context) != EOSFM_OK) {
      require(context == nullptr);
      return;
    }
    context_ = context;
  }

  void end_context() {
    end_stream();
    eosfm_context_destroy(context_);
    context_ = nullptr;
  }

  void begin_stream() {
    end_stream();
    if (context_ == nullptr) return;
    bands_.clear();
    const int count = choices_.byte() < 250 ? info_.bands : choices_.below(5);
    for (int b = 0; b < count; ++b) {
      eosfm_stream_band band = EOSFM_STREAM_BAND_INIT;
      band.dtype = choices_.number(
          {EOSFM_U8, EOSFM_U16, EOSFM_I16, EOSFM_F32, EOSFM_I8, EOSFM_I32, EOSFM_U32, EOSFM_F64});
      if (choices_.byte() < 60) band.dtype |= EOSFM_BIG_ENDIAN;
      band.step = choices_.number({1, 1, 2, 6, 3});
      band.calibrated = choices_.below(2);
      band.scale = choices_.byte() < 240 ? 0.01F : 0.0F;
      band.has_nodata = choices_.below(2);
      band.nodata = choices_.below(4);
      bands_.push_back(band);
    }
    eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
    options.width = choices_.number({1, 31, 32, 33, 64, 100, 130, 7});
    options.overlap = choices_.number({-1, 0, 32, 64});
    options.halo = choices_.number({0, 0, 32});
    options.bands = bands_.data();
    options.band_count = bands_.size();
    options.least_valid = static_cast<float>(choices_.below(5)) / 4.0F;
    options.skip_below = static_cast<float>(choices_.below(6)) / 4.0F;
    for (int32_t& level : options.levels) level = choices_.byte() < 200;
    mask_ = EOSFM_STREAM_BAND_INIT;
    mask_.dtype = choices_.byte() < 250 ? EOSFM_U8 : EOSFM_F32;
    mask_.step = choices_.number({1, 2});
    if (choices_.byte() < 80) {
      options.mask = &mask_;
    } else {
      mask_ = EOSFM_STREAM_BAND_INIT;  // nobody has looked at it, and push counts its bytes
    }
    size_t bytes = 0;
    const eosfm_status planned = eosfm_context_get_stream_bytes(context_, &options, &bytes);
    if (planned != EOSFM_OK || bytes > (64U << 20)) return;
    scene_width_ = options.width;
    require(eosfm_stream_create(context_, &options, &stream_) == EOSFM_OK);
  }

  void reset_stream() {
    if (stream_ != nullptr) require(eosfm_stream_reset(stream_) == EOSFM_OK);
  }

  void end_stream() {
    eosfm_stream_destroy(stream_);
    stream_ = nullptr;
  }

  // Rows in memory of exactly their size.
  void push() {
    if (stream_ == nullptr) return;
    const int32_t band = choices_.number({0, 1, 0, 1, -1, 2});
    const int32_t count = choices_.number({1, 7, 16, 32, 40, 0, 64, -1});
    const bool missing = choices_.byte() >= 230;
    std::vector<char> rows;
    int32_t width = 0;
    if (!missing && band >= -1 && band < static_cast<int32_t>(bands_.size()) && count > 0 && count < 1000) {
      const eosfm_stream_band& one = band < 0 ? mask_ : bands_[static_cast<size_t>(band)];
      width = (scene_width_ + one.step - 1) / one.step - (choices_.byte() < 10 ? 1 : 0);
      rows.resize(static_cast<size_t>(width * count) * kBytes[one.dtype & ~EOSFM_BIG_ENDIAN]);
      const char fill = static_cast<char>(choices_.byte());
      for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<char>(fill + static_cast<char>(i % 3));
    } else if (!missing) {
      return;
    }
    int32_t taken = -7;
    const eosfm_status status =
        eosfm_stream_push_rows(stream_, band, missing ? nullptr : rows.data(), count, width, &taken);
    require(status == EOSFM_OK ? taken >= 0 && taken <= count : taken == -7);
  }

  void next() {
    if (stream_ == nullptr) return;
    eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
    const bool stops = choices_.byte() >= 230;
    if (stops) options.progress = [](void*, int32_t, int32_t) { return 1; };
    eosfm_patch_level patch_levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
    eosfm_patch patch = EOSFM_PATCH_INIT;
    patch.levels = patch_levels;
    if (eosfm_stream_pull_patch(stream_, &options, &patch) != EOSFM_OK) return;
    float sum = 0.0F;
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      const eosfm_patch_level& level = patch.levels[l];
      for (int y = 0; level.data != nullptr && y < level.height; ++y) {
        for (int x = 0; x < level.width; ++x) {
          const float valid = level.valid[y * level.valid_stride + x];
          require(valid >= 0.0F && valid <= 1.0F);
          sum += level.data[(info_.channels[l] - 1) * level.channel_stride + y * level.row_stride + x];
        }
      }
    }
    sum_ = sum;
  }

  void set() {
    if (context_ == nullptr) return;
    eosfm_context_set_grn(context_, static_cast<eosfm_grn>(choices_.below(4)));
    std::vector<uint8_t> active(static_cast<size_t>(info_.specialists));
    for (uint8_t& one : active) one = choices_.byte() < 200;
    eosfm_context_set_active(context_, active.data(), choices_.byte() < 240 ? active.size() : 0);
    if (choices_.byte() >= 240) eosfm_context_cancel(context_);
    if (choices_.byte() >= 128) eosfm_context_resume(context_);
  }

  void run() {
    if (context_ == nullptr) return;
    const TestImage image(info_.bands, width_, height_);
    TestLevels out(info_, width_, height_);
    const eosfm_image view = image.view();
    std::vector<uint8_t> present(static_cast<size_t>(info_.specialists));
    eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
    options.present = present.data();
    options.present_count = present.size();
    const eosfm_status status = eosfm_context_run(context_, &view, out.levels, &options);
    require(out.wrong(status == EOSFM_OK) == 0);
  }

  eosfm_model* model_;
  Choices& choices_;
  eosfm_model_info info_ = EOSFM_MODEL_INFO_INIT;
  eosfm_context* context_ = nullptr;
  eosfm_stream* stream_ = nullptr;
  std::vector<eosfm_stream_band> bands_;
  eosfm_stream_band mask_;
  int width_ = 0;
  int height_ = 0;
  int scene_width_ = 0;
  volatile float sum_ = 0.0F;
};

eosfm_model* g_model = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* bundle = std::getenv("EOSFM_FUZZ_BUNDLE");
  require(bundle != nullptr && eosfm_model_open(bundle, nullptr, &g_model) == EOSFM_OK);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 400) return 0;  // so many calls say nothing that fewer would not
  Choices choices(data, size);
  Session session(g_model, choices);
  while (choices.any()) session.step();
  return 0;
}
