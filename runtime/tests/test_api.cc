// The promises of eosfm.h, on a bundle: test_api BUNDLE.eosfm
#include <eosfm.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "bundle.h"
#include "check.h"

namespace {

std::string g_bundle;

struct Opened {
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  int width = 0;
  int height = 0;

  explicit Opened(int threads = 1, int w = 0, int h = 0) {
    CHECK(eosfm_model_open(g_bundle.c_str(), nullptr, &model) == EOSFM_OK);
    CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
    width = w != 0 ? w : info.tile;
    height = h != 0 ? h : info.tile;
    eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
    options.threads = threads;
    options.width = w;
    options.height = h;
    CHECK(eosfm_context_create(model, &options, &context) == EOSFM_OK);
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() {
    eosfm_context_destroy(context);
    eosfm_model_close(model);
  }

  TestImage image() const { return TestImage(info.bands, width, height); }
  TestLevels levels() const { return TestLevels(info, width, height); }

  TestLevels run(const TestImage& image) {
    TestLevels out = levels();
    const eosfm_image view = image.view();
    CHECK(eosfm_context_run(context, &view, out.levels, nullptr) == EOSFM_OK);
    CHECK(out.wrong(true) == 0);
    return out;
  }
};

void null_is_harmless() {
  eosfm_model_close(nullptr);
  eosfm_context_destroy(nullptr);
  eosfm_context_cancel(nullptr);
  eosfm_context_resume(nullptr);
  CHECK(eosfm_model_get_error_code(nullptr) == 0 && eosfm_context_get_error_code(nullptr) == 0);
  CHECK(eosfm_context_measure(nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_measure_specialist(nullptr, 0, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_library_describe_engine(0, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_stream_reset(nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(std::strcmp(eosfm_model_get_error(nullptr), "") == 0);
  CHECK(std::strcmp(eosfm_context_get_error(nullptr), "") == 0);
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  CHECK(eosfm_model_open(nullptr, nullptr, &model) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_model_open(g_bundle.c_str(), nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_model_open_memory(nullptr, 0, nullptr, &model) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_model_describe(nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_create(nullptr, nullptr, &context) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_run(nullptr, nullptr, nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_verify(nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_set_active(nullptr, nullptr, 0) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_set_grn(nullptr, EOSFM_GRN_TILE) == EOSFM_BAD_ARGUMENT);
  eosfm_stream* stream = nullptr;
  eosfm_stream_destroy(nullptr);
  CHECK(eosfm_context_get_stream_bytes(nullptr, nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_stream_create(nullptr, nullptr, &stream) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_stream_push_rows(nullptr, 0, nullptr, 1, 1, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_stream_end(nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_stream_pull_patch(nullptr, nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(model == nullptr && context == nullptr && stream == nullptr);
  for (int status = -1; status < 15; ++status) {
    CHECK(std::strlen(eosfm_status_get_text(status)) > 0);
  }
}

void opening_says_what_is_wrong() {
  char error[128] = "before";
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.error = error;
  options.error_size = sizeof error;
  eosfm_model* model = reinterpret_cast<eosfm_model*>(16);
  CHECK(eosfm_model_open("/nowhere/x.eosfm", &options, &model) == EOSFM_NOT_FOUND);
  CHECK(std::strstr(error, "/nowhere/x.eosfm") != nullptr);
  CHECK(model == reinterpret_cast<eosfm_model*>(16));
  const std::string long_path(5000, 'a');
  CHECK(eosfm_model_open(long_path.c_str(), &options, &model) == EOSFM_BAD_ARGUMENT);
  options.struct_size = 4;
  CHECK(eosfm_model_open(g_bundle.c_str(), &options, &model) == EOSFM_BAD_ARGUMENT);
  options.struct_size = sizeof options;
  // Also when the call itself is wrong.
  const auto said = [&](eosfm_status status) {
    const bool text = std::strlen(error) > 0;
    error[0] = '\0';
    return status == EOSFM_BAD_ARGUMENT && text;
  };
  error[0] = '\0';
  CHECK(said(eosfm_model_open(nullptr, &options, &model)));
  CHECK(said(eosfm_model_open(g_bundle.c_str(), &options, nullptr)));
  CHECK(said(eosfm_model_open_memory(nullptr, 0, &options, &model)));
  const eosfm_file none = {sizeof(eosfm_file), "chain.gguf", nullptr, 0};
  CHECK(said(eosfm_model_open_memory(&none, 1, &options, nullptr)));
  CHECK(model == reinterpret_cast<eosfm_model*>(16));

  const char* forced = std::getenv("EOSFM_ISA");  // the path that is tested: put back below
  const std::string path = forced != nullptr ? forced : "";
  setenv("EOSFM_ISA", "mmx", 1);
  CHECK(eosfm_model_open(g_bundle.c_str(), &options, &model) == EOSFM_UNSUPPORTED);
  CHECK(std::strstr(error, "mmx") != nullptr);
  setenv("EOSFM_ISA", path.c_str(), 1);
}

// A test of a path that was not there would be one of another.
void the_path_is_the_one_asked_for() {
  const char* forced = std::getenv("EOSFM_ISA");
  Opened o;
  CHECK(forced == nullptr || *forced == '\0' || std::strcmp(o.info.isa, forced) == 0);
}

void descriptions() {
  Opened o;
  CHECK(o.info.bands > 0 && o.info.specialists > 0 && o.info.runs >= o.info.specialists);
  eosfm_band_info band = EOSFM_BAND_INFO_INIT;
  CHECK(eosfm_model_describe_band(o.model, 0, &band) == EOSFM_OK);
  CHECK(band.name != nullptr && band.scale != 0.0F);
  CHECK(eosfm_model_describe_band(o.model, -1, &band) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_model_describe_band(o.model, o.info.bands, &band) == EOSFM_BAD_ARGUMENT);
  CHECK(std::strstr(eosfm_model_get_error(o.model), "there is no band") != nullptr);
  int runs = 0;
  for (int s = 0; s < o.info.specialists; ++s) {
    eosfm_specialist_info specialist = EOSFM_SPECIALIST_INFO_INIT;
    CHECK(eosfm_model_describe_specialist(o.model, s, &specialist) == EOSFM_OK);
    CHECK(std::strlen(specialist.name) > 0 && std::strlen(specialist.backbone) > 0);
    runs += specialist.runs;
  }
  CHECK(runs == o.info.runs);
  eosfm_specialist_info specialist = EOSFM_SPECIALIST_INFO_INIT;
  CHECK(eosfm_model_describe_specialist(o.model, o.info.specialists, &specialist) == EOSFM_BAD_ARGUMENT);
  specialist.struct_size = 0;
  CHECK(eosfm_model_describe_specialist(o.model, 0, &specialist) == EOSFM_BAD_ARGUMENT);
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  CHECK(eosfm_model_get_requirements(o.model, nullptr, &needs) == EOSFM_OK);
  CHECK(needs.context_bytes > 0 && needs.weights_bytes > 0 && needs.mapped_bytes > 0);
}

void options_out_of_range_are_refused() {
  Opened o;
  const auto refused = [&](auto change, eosfm_status expected) {
    eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
    change(options);
    eosfm_context* context = reinterpret_cast<eosfm_context*>(16);
    CHECK(eosfm_context_create(o.model, &options, &context) == expected);
    CHECK(context == reinterpret_cast<eosfm_context*>(16));
    CHECK(std::strlen(eosfm_model_get_error(o.model)) > 0);
  };
  refused([](auto& v) { v.struct_size = 8; }, EOSFM_BAD_ARGUMENT);
  refused([](auto& v) { v.threads = -1; }, EOSFM_BAD_ARGUMENT);
  refused([](auto& v) { v.threads = 257; }, EOSFM_BAD_ARGUMENT);
  refused([](auto& v) { v.width = 33; }, EOSFM_BAD_ARGUMENT);
  refused([](auto& v) { v.height = 1056; }, EOSFM_BAD_ARGUMENT);
  refused([](auto& v) { v.height = -32; }, EOSFM_BAD_ARGUMENT);
  refused([](auto& v) { v.precision = 7; }, EOSFM_BAD_ARGUMENT);
  refused([](auto& v) { v.memory_limit = 1000; }, EOSFM_NO_MEMORY);
  CHECK(eosfm_context_create(o.model, nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(std::strstr(eosfm_model_get_error(o.model), "no place") != nullptr);
}

void memory_opens_as_a_path_does() {
  const BundleFiles files(g_bundle);
  const std::vector<eosfm_file> views = files.views();
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open_memory(views.data(), views.size(), nullptr, &model) == EOSFM_OK);
  eosfm_context* context = nullptr;
  CHECK(eosfm_context_create(model, nullptr, &context) == EOSFM_OK);
  eosfm_model_close(model);  // the context keeps it
  double worst[EOSFM_LEVELS];
  CHECK(eosfm_context_verify(context, worst) == EOSFM_OK);
  eosfm_context_destroy(context);
  CHECK(eosfm_model_open_memory(views.data(), 1, nullptr, &model) == EOSFM_NOT_FOUND);
}

void runs_repeat_to_the_bit() {
  Opened one(1);
  const TestImage image = one.image();
  const TestLevels first = one.run(image);
  CHECK(one.run(image) == first);
  for (int threads : {2, 3, 5}) {
    Opened more(threads);
    CHECK(more.run(image) == first);
    CHECK(more.run(image) == first);
  }
  Opened wide(2, 96, 32);
  wide.run(wide.image());
}

// The same pixels in every dtype and layout.
void layouts_make_no_difference() {
  Opened o;
  const TestImage dense = o.image();
  const TestLevels expected = o.run(dense);
  const int width = o.width;
  const int height = o.height;
  const auto check_as = [&](auto zero, eosfm_dtype dtype, int column_step, bool upside_down) {
    using T = decltype(zero);
    std::vector<std::vector<T>> storage;
    TestImage image = o.image();
    const size_t row = static_cast<size_t>(width) * column_step + 5;
    for (eosfm_band& band : image.bands) {
      const float* from = static_cast<const float*>(band.data);
      storage.emplace_back(row * height);
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          storage.back()[static_cast<size_t>(upside_down ? height - 1 - y : y) * row +
                         static_cast<size_t>(x) * column_step] = static_cast<T>(from[y * width + x]);
        }
      }
      const ptrdiff_t stride = static_cast<ptrdiff_t>(row * sizeof(T));
      band.dtype = dtype;
      band.data = storage.back().data() + (upside_down ? row * (height - 1) : 0);
      band.column_stride = static_cast<ptrdiff_t>(sizeof(T)) * column_step;
      band.row_stride = upside_down ? -stride : stride;
    }
    CHECK(o.run(image) == expected);
  };
  for (int step : {1, 3}) {
    for (bool upside_down : {false, true}) {
      check_as(uint8_t{0}, EOSFM_U8, step, upside_down);
      check_as(uint16_t{0}, EOSFM_U16, step, upside_down);
      check_as(int16_t{0}, EOSFM_I16, step, upside_down);
      check_as(0.0F, EOSFM_F32, step, upside_down);
    }
  }
}

void calibration_and_nodata() {
  Opened o;
  eosfm_band_info info = EOSFM_BAND_INFO_INIT;
  TestImage image = o.image();
  const TestLevels expected = o.run(image);
  // Twice the values at half the scale.
  TestImage doubled = o.image();
  for (float& pixel : doubled.pixels) pixel *= 2.0F;
  for (int b = 0; b < o.info.bands; ++b) {
    CHECK(eosfm_model_describe_band(o.model, b, &info) == EOSFM_OK);
    doubled.bands[b].calibrated = 1;
    doubled.bands[b].scale = info.scale / 2.0F;
    doubled.bands[b].offset = info.offset;
  }
  CHECK(o.run(doubled) == expected);

  // Whatever makes a pixel invalid in one band: all bands are filled there.
  CHECK(eosfm_model_describe_band(o.model, 0, &info) == EOSFM_OK);
  TestImage filled = o.image();
  const size_t plane = static_cast<size_t>(o.width) * o.height;
  const size_t hole = 5 * static_cast<size_t>(o.width) + 7;
  for (int b = 0; b < o.info.bands; ++b) {
    eosfm_band_info band = EOSFM_BAND_INFO_INIT;
    CHECK(eosfm_model_describe_band(o.model, b, &band) == EOSFM_OK);
    filled.pixels[plane * b + hole] = band.fill;
  }
  const TestLevels with_hole = o.run(filled);
  CHECK(!(with_hole == expected));
  const float inf = std::numeric_limits<float>::infinity();
  for (float bad : {inf, -inf, std::numeric_limits<float>::quiet_NaN(), 77777.0F}) {
    TestImage broken = o.image();
    broken.pixels[plane * (o.info.bands - 1) + hole] = bad;
    eosfm_band& last = broken.bands[o.info.bands - 1];
    CHECK(eosfm_model_describe_band(o.model, o.info.bands - 1, &info) == EOSFM_OK);
    last.calibrated = 1;
    last.scale = info.scale;
    last.offset = info.offset;
    last.has_nodata = 1;
    last.nodata = 77777.0;
    CHECK(o.run(broken) == with_hole);
  }

  // The fill value is the bundle's and so in its units, whatever the caller's scale.
  doubled.pixels[plane * (o.info.bands - 1) + hole] = inf;
  CHECK(o.run(doubled) == with_hole);
  // Without a calibration of the caller's, the bundle's nodata counts.
  for (int b = 0; b < o.info.bands; ++b) {
    CHECK(eosfm_model_describe_band(o.model, b, &info) == EOSFM_OK);
    if (info.has_nodata == 0) continue;
    TestImage broken = o.image();
    broken.pixels[plane * b + hole] = info.nodata;
    CHECK(o.run(broken) == with_hole);
    // With one, only what it names.
    broken.bands[b].calibrated = 1;
    broken.bands[b].scale = info.scale;
    broken.bands[b].offset = info.offset;
    CHECK(!(o.run(broken) == with_hole));
  }
}

void bad_images_and_levels_are_refused() {
  Opened o;
  const auto refused = [&](auto change) {
    TestImage image = o.image();
    TestLevels out = o.levels();
    eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
    eosfm_image view = image.view();
    change(image, out, options, view);
    CHECK(eosfm_context_run(o.context, &view, out.levels, &options) == EOSFM_BAD_ARGUMENT);
    CHECK(out.wrong(false) == 0);
    CHECK(std::strlen(eosfm_context_get_error(o.context)) > 0);
  };
  refused([](auto&, auto&, auto&, auto& view) { view.band_count -= 1; });
  refused([](auto&, auto&, auto&, auto& view) { view.struct_size = 0; });
  refused([](auto&, auto&, auto&, auto& view) { view.bands = nullptr; });
  refused([](auto& image, auto&, auto&, auto&) { image.bands[0].data = nullptr; });
  refused([](auto& image, auto&, auto&, auto&) { image.bands[0].struct_size = 8; });
  refused([](auto& image, auto&, auto&, auto&) { image.bands[0].dtype = 9; });
  refused([](auto& image, auto&, auto&, auto&) { image.bands[0].row_stride += 1; });
  refused([](auto& image, auto&, auto&, auto&) {
    image.bands[0].data = static_cast<const char*>(image.bands[0].data) + 1;
  });
  refused([](auto& image, auto&, auto&, auto&) {
    image.bands[0].calibrated = 1;
    image.bands[0].scale = 0.0F;
  });
  refused([](auto&, auto& out, auto&, auto&) { out.levels[2].struct_size = 0; });
  refused([](auto&, auto& out, auto&, auto&) { out.levels[1].row_stride = out.widths[1] - 1; });
  refused([](auto&, auto& out, auto&, auto&) { out.levels[0].channel_stride = 1; });
  refused([](auto&, auto& out, auto&, auto&) {
    out.levels[0].row_stride = PTRDIFF_MAX;
    out.levels[0].channel_stride = PTRDIFF_MAX;
  });
  refused([](auto&, auto& out, auto&, auto&) { out.levels[0].channel_stride = PTRDIFF_MAX; });
  refused([](auto&, auto& out, auto&, auto&) {
    out.levels[1].data = reinterpret_cast<float*>(reinterpret_cast<char*>(out.levels[1].data) + 2);
  });
  refused([](auto&, auto&, auto& options, auto&) { options.deadline_ms = -1; });
  refused([](auto&, auto&, auto& options, auto&) { options.struct_size = 0; });
  const TestImage image = o.image();
  const eosfm_image view = image.view();
  CHECK(eosfm_context_run(o.context, &view, nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
}

void levels_can_be_left_out() {
  Opened o;
  const TestImage image = o.image();
  const TestLevels all = o.run(image);
  TestLevels some = o.levels();
  some.levels[0].data = nullptr;
  some.levels[3].data = nullptr;
  const eosfm_image view = image.view();
  CHECK(eosfm_context_run(o.context, &view, some.levels, nullptr) == EOSFM_OK);
  CHECK(some.buffers[1] == all.buffers[1] && some.buffers[2] == all.buffers[2]);
  for (float value : some.buffers[0]) CHECK(value == TestLevels::kUntouched);
}

void active_specialists() {
  Opened o;
  const TestImage image = o.image();
  const TestLevels all = o.run(image);
  std::vector<uint8_t> flags(o.info.specialists, 0);
  CHECK(eosfm_context_set_active(o.context, flags.data(), flags.size()) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_set_active(o.context, flags.data(), flags.size() + 1) == EOSFM_BAD_ARGUMENT);
  CHECK(o.run(image) == all);
  if (flags.size() < 2) return;
  flags[0] = 1;
  CHECK(eosfm_context_set_active(o.context, flags.data(), flags.size()) == EOSFM_OK);
  const TestLevels one = o.run(image);
  CHECK(!(one == all));
  double worst[EOSFM_LEVELS];
  CHECK(eosfm_context_verify(o.context, worst) == EOSFM_BAD_ARGUMENT);
  flags.assign(flags.size(), 1);
  CHECK(eosfm_context_set_active(o.context, flags.data(), flags.size()) == EOSFM_OK);
  CHECK(o.run(image) == all);
}

// The largest difference of any level from another, over the level's largest value.
double apart(const TestLevels& a, const TestLevels& b) {
  double worst = 0.0;
  for (int l = 0; l < EOSFM_LEVELS; ++l) {
    double peak = 0.0;
    double difference = 0.0;
    for (int c = 0; c < a.channels[l]; ++c) {
      for (int y = 0; y < a.heights[l]; ++y) {
        for (int x = 0; x < a.widths[l]; ++x) {
          const double one = static_cast<double>(a.at(l, c, y, x));
          const double d = std::fabs(one - static_cast<double>(b.at(l, c, y, x)));
          if (!std::isfinite(d)) return HUGE_VAL;  // which fmax would drop
          peak = std::fmax(peak, std::fabs(one));
          difference = std::fmax(difference, d);
        }
      }
    }
    worst = std::fmax(worst, difference / peak);
  }
  return worst;
}

void grn_over_many_images() {
  const auto set = [](const Opened& o, eosfm_grn mode) { return eosfm_context_set_grn(o.context, mode); };
  Opened o;
  const TestImage one = o.image();
  TestImage two = o.image();
  for (float& pixel : two.pixels) pixel = 300.0F - pixel / 3.0F;
  const TestLevels first = o.run(one);
  const TestLevels second = o.run(two);

  // What is refused leaves the mode as it was.
  CHECK(set(o, EOSFM_GRN_SCENE) == EOSFM_BAD_ARGUMENT);
  CHECK(std::strstr(eosfm_context_get_error(o.context), "EOSFM_GRN_GATHER") != nullptr);
  CHECK(set(o, static_cast<eosfm_grn>(3)) == EOSFM_BAD_ARGUMENT);
  CHECK(o.run(one) == first);

  // Over one image alone it is that image's, but for the last bits of the sums.
  CHECK(set(o, EOSFM_GRN_GATHER) == EOSFM_OK);
  CHECK(o.run(one) == first);
  CHECK(set(o, EOSFM_GRN_SCENE) == EOSFM_OK);
  const double rounding = 0.05;  // int8 may round another way
  CHECK(apart(first, o.run(one)) < rounding);

  // Over both it is neither's, and the same for any number of threads and order of modes.
  CHECK(set(o, EOSFM_GRN_GATHER) == EOSFM_OK);
  CHECK(o.run(one) == first && o.run(two) == second);
  CHECK(set(o, EOSFM_GRN_TILE) == EOSFM_OK);
  CHECK(o.run(one) == first);
  CHECK(set(o, EOSFM_GRN_SCENE) == EOSFM_OK);
  const TestLevels both = o.run(one);
  CHECK(!(both == first) && o.run(one) == both);
  for (int threads : {2, 3, 5}) {
    Opened more(threads);
    CHECK(set(more, EOSFM_GRN_GATHER) == EOSFM_OK);
    CHECK(more.run(one) == first && more.run(two) == second);
    CHECK(set(more, EOSFM_GRN_SCENE) == EOSFM_OK);
    CHECK(more.run(one) == both);
  }

  // The known answer is one image's.
  double worst[EOSFM_LEVELS];
  CHECK(eosfm_context_verify(o.context, worst) == EOSFM_OK);
  CHECK(o.run(one) == both);

  // Runs that end early, and the known answer, add nothing.
  CHECK(set(o, EOSFM_GRN_GATHER) == EOSFM_OK);
  CHECK(o.run(one) == first);
  eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
  options.progress = [](void*, int32_t done, int32_t total) { return done == total ? 1 : 0; };
  const eosfm_image view = two.view();
  TestLevels untouched = o.levels();
  CHECK(eosfm_context_run(o.context, &view, untouched.levels, &options) == EOSFM_CANCELLED);
  CHECK(eosfm_context_verify(o.context, worst) == EOSFM_OK);
  CHECK(o.run(two) == second);
  CHECK(set(o, EOSFM_GRN_SCENE) == EOSFM_OK);
  CHECK(o.run(one) == both);
}

// Sums are each specialist's: what was not active has none.
void grn_of_active_specialists() {
  Opened o;
  if (o.info.specialists < 2) return;
  const TestImage image = o.image();
  std::vector<uint8_t> all(o.info.specialists, 1);
  std::vector<uint8_t> first(o.info.specialists, 0);
  first[0] = 1;
  const auto activate = [&](const std::vector<uint8_t>& flags) {
    return eosfm_context_set_active(o.context, flags.data(), flags.size());
  };
  CHECK(activate(first) == EOSFM_OK);
  const TestLevels expected = o.run(image);
  CHECK(eosfm_context_set_grn(o.context, EOSFM_GRN_GATHER) == EOSFM_OK);
  CHECK(o.run(image) == expected);
  CHECK(eosfm_context_set_grn(o.context, EOSFM_GRN_SCENE) == EOSFM_OK);
  const TestLevels scene = o.run(image);
  CHECK(activate(all) == EOSFM_BAD_ARGUMENT);
  CHECK(std::strstr(eosfm_context_get_error(o.context), "gathered") != nullptr);
  CHECK(o.run(image) == scene);
  CHECK(eosfm_context_set_grn(o.context, EOSFM_GRN_TILE) == EOSFM_OK);
  CHECK(activate(all) == EOSFM_OK);
  CHECK(eosfm_context_set_grn(o.context, EOSFM_GRN_SCENE) == EOSFM_BAD_ARGUMENT);
  CHECK(activate(first) == EOSFM_OK);
  CHECK(eosfm_context_set_grn(o.context, EOSFM_GRN_SCENE) == EOSFM_OK);
  CHECK(o.run(image) == scene);
}

struct Progress {
  int calls = 0;
  int last = 0;
  int total = 0;
  int stop_at = -1;

  static int call(void* user, int32_t done, int32_t total) {
    Progress* self = static_cast<Progress*>(user);
    CHECK(done > self->last && done <= total);
    self->last = done;
    self->total = total;
    return ++self->calls == self->stop_at ? 1 : 0;
  }
};

// With one thread every run is the caller's, and so told; with more, other threads may take them all.
void progress_and_ways_to_stop() {
  for (int threads : {1, 2}) {
    Opened o(threads);
    const TestImage image = o.image();
    const eosfm_image view = image.view();
    const TestLevels expected = o.run(image);
    Progress progress;
    eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
    options.progress = Progress::call;
    options.progress_user = &progress;
    TestLevels out = o.levels();
    CHECK(eosfm_context_run(o.context, &view, out.levels, &options) == EOSFM_OK);
    CHECK(threads > 1 || (progress.calls == o.info.runs && progress.total == o.info.runs));
    CHECK(out == expected);
    progress = Progress();
    progress.stop_at = 1;
    out = o.levels();
    const eosfm_status status = eosfm_context_run(o.context, &view, out.levels, &options);
    CHECK(status == EOSFM_CANCELLED || (threads > 1 && progress.calls == 0));
    CHECK(out.wrong(status == EOSFM_OK) == 0);
    CHECK(o.run(image) == expected);
  }
}

void deadlines() {
  Opened o(2, 1024, 1024);
  const TestImage image = o.image();
  const eosfm_image view = image.view();
  eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
  options.deadline_ms = 1;
  TestLevels out = o.levels();
  CHECK(eosfm_context_run(o.context, &view, out.levels, &options) == EOSFM_DEADLINE);
  CHECK(out.wrong(false) == 0);
  CHECK(std::strstr(eosfm_context_get_error(o.context), "1 ms") != nullptr);
  options.deadline_ms = std::numeric_limits<int64_t>::max();
  CHECK(eosfm_context_run(o.context, &view, out.levels, &options) == EOSFM_OK);
}

void another_thread_cancels() {
  Opened o(2, 1024, 1024);
  const TestImage image = o.image();
  const eosfm_image view = image.view();
  const TestLevels expected = o.run(image);
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (!over.load()) {
      eosfm_context_cancel(o.context);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  // A run may be over before the other thread has its turn.
  eosfm_status status = EOSFM_OK;
  for (int attempt = 0; attempt < 100 && status == EOSFM_OK; ++attempt) {
    TestLevels out = o.levels();
    status = eosfm_context_run(o.context, &view, out.levels, nullptr);
    CHECK(out.wrong(status == EOSFM_OK) == 0);
  }
  CHECK(status == EOSFM_CANCELLED);
  over.store(true);
  other.join();
  TestLevels out = o.levels();
  CHECK(eosfm_context_run(o.context, &view, out.levels, nullptr) == EOSFM_CANCELLED && out.wrong(false) == 0);
  eosfm_context_resume(o.context);
  CHECK(o.run(image) == expected);
}

void one_model_in_many_threads() {
  Opened o;
  const TestImage image = o.image();
  const TestLevels expected = o.run(image);
  std::vector<std::thread> threads;
  std::atomic<int> same{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
      options.threads = 1 + t % 2;
      options.precision = t == 3 ? EOSFM_BF16 : EOSFM_AS_STORED;
      eosfm_context* context = nullptr;
      if (eosfm_context_create(o.model, &options, &context) != EOSFM_OK) return;
      const eosfm_image view = image.view();
      for (int i = 0; i < 3; ++i) {
        TestLevels out = o.levels();
        const bool ok = eosfm_context_run(context, &view, out.levels, nullptr) == EOSFM_OK;
        if (ok && (t == 3 || out == expected)) ++same;
      }
      eosfm_context_destroy(context);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(same.load() == 12);
}

// Threads that wait take no time of the processor: three that did would take more than a second here.
void idle_threads_sleep() {
  Opened o(4);
  o.run(o.image());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  CHECK(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC < 0.1);
}

void log_lines(void* user, eosfm_log_level level, const char* text) {
  static_cast<std::vector<std::string>*>(user)->push_back(std::to_string(level) + " " + text);
}

void logging() {
  std::vector<std::string> lines;
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.log = log_lines;
  options.log_user = &lines;
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open(g_bundle.c_str(), &options, &model) == EOSFM_OK);
  CHECK(lines.size() == 1 && lines[0].rfind("0 opened", 0) == 0);
  CHECK(eosfm_model_describe_band(model, -1, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(lines.size() == 2 && lines[1][0] == '1');
  eosfm_model_close(model);
}

void streams() {
  Opened opened(2, 64, 64);
  const TestImage image(opened.info.bands, 150, 170);
  TestStream first(opened.context, opened.info, image.width);
  CHECK(first.run(image, 7) == EOSFM_OK && first.tiles == 20);
  TestStream again(opened.context, opened.info, image.width);
  CHECK(again.run(image, 64) == EOSFM_OK && again.sums == first.sums);
  // Another thread cancels; the tile is the next one still.
  TestStream third(opened.context, opened.info, image.width);
  std::atomic<bool> done{false};
  std::thread other([&] {
    while (!done) {
      eosfm_context_cancel(opened.context);
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
  });
  eosfm_status status;
  int cancelled = 0;
  do {
    status = third.run(image, 64);
    if (status == EOSFM_CANCELLED && ++cancelled == 20) {
      done = true;
      other.join();
    }
    eosfm_context_resume(opened.context);
  } while (status == EOSFM_CANCELLED);
  done = true;
  if (other.joinable()) other.join();
  eosfm_context_resume(opened.context);  // its last cancel may have come after the run
  CHECK(status == EOSFM_OK && third.sums == first.sums);
  // Whatever is wrong is said, and nothing is given.
  eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
  eosfm_stream* none = nullptr;
  size_t bytes = 7;
  CHECK(eosfm_stream_create(opened.context, nullptr, &none) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_stream_create(opened.context, &options, &none) == EOSFM_BAD_ARGUMENT);
  options.struct_size = 3;
  CHECK(eosfm_context_get_stream_bytes(opened.context, &options, &bytes) == EOSFM_BAD_ARGUMENT);
  CHECK(none == nullptr && bytes == 7 && std::strlen(eosfm_context_get_error(opened.context)) > 0);
  eosfm_patch_level patch_levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
  eosfm_patch patch = EOSFM_PATCH_INIT;
  patch.levels = patch_levels;
  int32_t taken = 7;
  CHECK(eosfm_stream_push_rows(first.stream, 0, nullptr, 1, 0, &taken) == EOSFM_BAD_ARGUMENT);
  TestStream fresh(opened.context, opened.info, image.width);
  for (int32_t band : {EOSFM_STREAM_MASK, EOSFM_STREAM_MASK - 1, opened.info.bands}) {
    CHECK(eosfm_stream_push_rows(fresh.stream, band, nullptr, 1, 0, &taken) == EOSFM_BAD_ARGUMENT);
  }
  CHECK(eosfm_stream_push_rows(fresh.stream, 0, nullptr, -1, 0, &taken) == EOSFM_BAD_ARGUMENT);
  CHECK(taken == 7);
  patch.struct_size = 8;
  CHECK(eosfm_stream_pull_patch(fresh.stream, nullptr, &patch) == EOSFM_BAD_ARGUMENT);
  patch.struct_size = sizeof patch;
  CHECK(eosfm_stream_pull_patch(fresh.stream, nullptr, &patch) == EOSFM_AGAIN);
  CHECK(eosfm_stream_end(fresh.stream) == EOSFM_OK);
  CHECK(eosfm_stream_pull_patch(fresh.stream, nullptr, &patch) == EOSFM_END);
}

void streams_in_many_threads() {
  Opened opened(1, 64, 64);
  const TestImage image(opened.info.bands, 150, 170);
  TestStream alone(opened.context, opened.info, image.width);
  CHECK(alone.run(image, 64) == EOSFM_OK);
  std::vector<std::thread> threads;
  std::atomic<int> same{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
      options.threads = 1 + t % 2;
      options.width = options.height = 64;
      eosfm_context* context = nullptr;
      if (eosfm_context_create(opened.model, &options, &context) != EOSFM_OK) return;
      {
        TestStream stream(context, opened.info, image.width);
        if (stream.run(image, 10 + t) == EOSFM_OK && stream.sums == alone.sums) ++same;
      }
      eosfm_context_destroy(context);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(same == 4);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  g_bundle = argv[1];
  null_is_harmless();
  opening_says_what_is_wrong();
  the_path_is_the_one_asked_for();
  descriptions();
  options_out_of_range_are_refused();
  memory_opens_as_a_path_does();
  runs_repeat_to_the_bit();
  layouts_make_no_difference();
  calibration_and_nodata();
  bad_images_and_levels_are_refused();
  levels_can_be_left_out();
  active_specialists();
  grn_over_many_images();
  grn_of_active_specialists();
  progress_and_ways_to_stop();
  deadlines();
  another_thread_cancels();
  one_model_in_many_threads();
  idle_threads_sleep();
  logging();
  streams();
  streams_in_many_threads();
  return report();
}
