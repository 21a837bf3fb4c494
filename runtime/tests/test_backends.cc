// Backends that libeosfm loads: test_backends TIMES BUNDLE WRONG_BUNDLE ONNXRUNTIME [OTHER_ONNXRUNTIME].
// TIMES is how often all is opened and closed; the graphs of WRONG_BUNDLE do not give its known answer;
// ONNXRUNTIME is a file.
#include <dlfcn.h>
#include <eosfm.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "bundle.h"
#include "check.h"

namespace {

const char* g_runtime = nullptr;
const char* g_bundle = nullptr;

// A model whose log is kept, and a context on the first of some backends.
struct Opened {
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  std::vector<std::string> warnings;

  explicit Opened(const char* backends, const char* bundle = nullptr, const char* runtime = nullptr) {
    eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
    open.log = [](void* user, eosfm_log_level level, const char* text) {
      if (level == EOSFM_LOG_WARNING) static_cast<Opened*>(user)->warnings.emplace_back(text);
    };
    open.log_user = this;
    CHECK(eosfm_model_open(bundle != nullptr ? bundle : g_bundle, &open, &model) == EOSFM_OK);
    CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
    options.threads = 2;
    options.backends = backends;
    options.backend_library = runtime != nullptr ? runtime : g_runtime;
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() {
    eosfm_context_destroy(context);
    eosfm_model_close(model);
  }

  eosfm_status create() { return eosfm_context_create(model, &options, &context); }
  bool uses(const char* name) const { return std::strcmp(eosfm_context_get_backend(context), name) == 0; }
  bool says(const char* words) const { return std::strstr(eosfm_model_get_error(model), words) != nullptr; }
  bool warned(size_t index, const char* words) const {
    return index < warnings.size() && warnings[index].find(words) != std::string::npos;
  }
  TestImage image() const { return TestImage(info.bands, info.tile, info.tile); }
  eosfm_status run(TestLevels& out) {
    const TestImage pixels = image();
    const eosfm_image view = pixels.view();
    return eosfm_context_run(context, &view, out.levels, nullptr);
  }
  TestLevels run() {
    TestLevels out(info, info.tile, info.tile);
    CHECK(run(out) == EOSFM_OK);
    CHECK(out.wrong(true) == 0);
    return out;
  }
};

bool near(const TestLevels& a, const TestLevels& b) {
  for (int l = 0; l < EOSFM_LEVELS; ++l) {
    double peak = 0.0;
    double difference = 0.0;
    for (size_t i = 0; i < a.buffers[l].size(); ++i) {
      if (a.buffers[l][i] == TestLevels::kUntouched) continue;
      const double d = std::fabs(a.buffers[l][i] - b.buffers[l][i]);
      if (!std::isfinite(d)) return false;  // which fmax would drop
      peak = std::fmax(peak, std::fabs(a.buffers[l][i]));
      difference = std::fmax(difference, d);
    }
    if (!(difference <= 1e-4 * peak)) return false;
  }
  return true;
}

TestLevels native() {
  Opened opened(nullptr);
  CHECK(opened.create() == EOSFM_OK);
  CHECK(opened.uses("native"));
  return opened.run();
}

void it_computes_what_native_computes(const TestLevels& expected) {
  Opened opened("onnxruntime");
  CHECK(opened.create() == EOSFM_OK);
  CHECK(opened.uses("onnxruntime"));
  CHECK(opened.warnings.empty());
  const TestLevels levels = opened.run();
  CHECK(near(expected, levels));
  CHECK(levels == opened.run());
}

void scenes_stream_through_it() {
  const int width = 150;
  std::vector<double> sums[2];
  for (int i = 0; i < 2; ++i) {
    Opened opened(i == 0 ? "native" : "onnxruntime");
    CHECK(opened.create() == EOSFM_OK);
    TestStream stream(opened.context, opened.info, width);
    CHECK(stream.run(TestImage(opened.info.bands, width, 90), 17) == EOSFM_OK);
    sums[i] = stream.sums;
  }
  for (size_t l = 0; l < EOSFM_LEVELS; ++l) {
    CHECK(std::fabs(sums[0][l] - sums[1][l]) <= 1e-3 * std::fabs(sums[0][l]));
  }
}

void what_cannot_be_had_is_followed_by_the_next() {
  Opened opened("onnxruntime-cuda onnxruntime-tensorrt  nonesuch native");
  CHECK(opened.create() == EOSFM_OK);
  CHECK(opened.uses("native"));
  CHECK(opened.warnings.size() == 3);
  CHECK(opened.warned(0, "onnxruntime-cuda is not used: ") && opened.warned(0, "CUDAExecutionProvider"));
  CHECK(opened.warned(0, "; onnxruntime-tensorrt is next"));
  CHECK(opened.warned(1, "TensorrtExecutionProvider"));
  CHECK(opened.warned(2, "libeosfm_nonesuch.so, which does not lie beside") &&
        opened.warned(2, "; native is next"));
}

void the_last_says_why() {
  Opened cuda("onnxruntime-tensorrt onnxruntime-cuda");
  CHECK(cuda.create() == EOSFM_UNSUPPORTED);
  CHECK(cuda.context == nullptr);
  CHECK(cuda.says("CUDAExecutionProvider"));
  Opened variant("onnxruntime-abacus");
  CHECK(variant.create() == EOSFM_BAD_ARGUMENT);
  CHECK(variant.says("onnxruntime-abacus"));
  Opened nowhere("onnxruntime", nullptr, "/nowhere/libonnxruntime.so");
  CHECK(nowhere.create() == EOSFM_NOT_FOUND);
  CHECK(nowhere.says("/nowhere/libonnxruntime.so") && nowhere.says("EOSFM_ONNXRUNTIME"));
  Dl_info self;
  CHECK(dladdr(reinterpret_cast<void*>(&eosfm_library_get_version), &self) != 0);
  Opened other("onnxruntime", nullptr, self.dli_fname);
  CHECK(other.create() == EOSFM_UNSUPPORTED);
  CHECK(other.says("is not ONNX Runtime"));
}

// On a machine with a GPU and NVIDIA's plugin that is the backend; elsewhere the reason is said.
void the_plugin_needs_a_gpu() {
  Opened opened("onnxruntime-tensorrt-rtx native");
  CHECK(opened.create() == EOSFM_OK);
  CHECK(opened.uses("onnxruntime-tensorrt-rtx") ||
        (opened.uses("native") && opened.warned(0, "onnxruntime-tensorrt-rtx is not used: ")));
}

void the_environment_says_where_it_is() {
  for (const char* path : {g_runtime, "/nowhere/libonnxruntime.so"}) {
    setenv("EOSFM_ONNXRUNTIME", path, 1);
    Opened opened("onnxruntime native");
    opened.options.backend_library = nullptr;
    CHECK(opened.create() == EOSFM_OK);
    CHECK(opened.uses(path == g_runtime ? "onnxruntime" : "native"));
  }
  unsetenv("EOSFM_ONNXRUNTIME");
}

void wrong_answers_are_not_trusted(const char* bundle) {
  Opened opened("onnxruntime native", bundle);
  CHECK(opened.create() == EOSFM_OK);
  CHECK(opened.uses("native"));
  CHECK(opened.warned(0, "off the known answer"));
  Opened alone("onnxruntime", bundle);
  CHECK(alone.create() == EOSFM_WRONG_ANSWER);
}

void it_refuses_what_it_cannot_do() {
  {
    Opened opened("onnxruntime native");
    opened.options.width = opened.info.tile + 32;
    CHECK(opened.create() == EOSFM_OK);
    CHECK(opened.uses("native") && opened.warned(0, "pixels"));
  }
  {
    Opened opened("onnxruntime");
    CHECK(opened.create() == EOSFM_OK);
    std::vector<uint8_t> active(static_cast<size_t>(opened.info.specialists), 1);
    CHECK(eosfm_context_set_active(opened.context, active.data(), active.size()) == EOSFM_OK);
    active[0] = 0;
    CHECK(eosfm_context_set_active(opened.context, active.data(), active.size()) == EOSFM_UNSUPPORTED);
    CHECK(std::strstr(eosfm_context_get_error(opened.context), "onnxruntime") != nullptr);
    CHECK(eosfm_context_set_grn(opened.context, EOSFM_GRN_GATHER) == EOSFM_UNSUPPORTED);
  }
  for (const char* names : {"", " ", "Native", "native,onnxruntime", "-native", "native\n",
                            "a-name-that-is-longer-than-sixty-three-letters-is-not-a-name-of-anything"}) {
    Opened opened(names);
    CHECK(opened.create() == EOSFM_BAD_ARGUMENT);
    CHECK(opened.says("backends"));
  }
  eosfm_engine engine = EOSFM_ENGINE_INIT;
  engine.compute = [](void*, const float*, float* const*) { return 1; };
  Opened both("native");
  both.options.engine = &engine;
  CHECK(both.create() == EOSFM_BAD_ARGUMENT);
  CHECK(both.says("'host'"));
  both.options.backends = nullptr;
  CHECK(both.create() == EOSFM_OK);
  CHECK(both.uses("host"));
  engine.name = "native";
  Opened native("native");
  native.options.engine = &engine;
  CHECK(native.create() == EOSFM_BAD_ARGUMENT);
  CHECK(native.says("name"));
}

// The host's engine is one of the ladder, before a shared object of its name.
void a_host_s_engine_takes_its_turn(const TestLevels& expected) {
  Opened inner("native");
  CHECK(inner.create() == EOSFM_OK);
  eosfm_engine engine = EOSFM_ENGINE_INIT;
  engine.name = "onnxruntime-mine";
  engine.user = &inner;
  engine.compute = [](void* user, const float* image, float* const* levels) {
    const Opened& one = *static_cast<Opened*>(user);
    const int tile = one.info.tile;
    std::vector<eosfm_band> bands(static_cast<size_t>(one.info.bands));
    for (size_t b = 0; b < bands.size(); ++b) {
      bands[b] = EOSFM_BAND_INIT;
      bands[b].data = image + b * static_cast<size_t>(tile) * static_cast<size_t>(tile);
      bands[b].column_stride = sizeof(float);
      bands[b].row_stride = tile * static_cast<ptrdiff_t>(sizeof(float));
    }
    eosfm_image view = EOSFM_IMAGE_INIT;
    view.bands = bands.data();
    view.band_count = bands.size();
    eosfm_level out[EOSFM_LEVELS];
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      out[l] = EOSFM_LEVEL_INIT;
      out[l].data = levels[l];
      out[l].row_stride = tile >> (l + 2);
      out[l].channel_stride = out[l].row_stride * out[l].row_stride;
    }
    return eosfm_context_run(one.context, &view, out, nullptr) == EOSFM_OK ? 0 : 1;
  };
  Opened right("nonesuch onnxruntime-mine native");
  right.options.engine = &engine;
  CHECK(right.create() == EOSFM_OK);
  CHECK(right.uses("onnxruntime-mine"));
  CHECK(right.warnings.size() == 1);
  CHECK(near(expected, right.run()));
  double allowed[EOSFM_LEVELS];
  CHECK(eosfm_context_get_tolerance(right.context, allowed) == EOSFM_OK);
  CHECK(allowed[0] > 0 && allowed[0] < 1e-3);

  engine.compute = [](void*, const float*, float* const*) { return 3; };
  engine.error = [](void*) { return "it rained"; };
  Opened wrong("onnxruntime-mine native");
  wrong.options.engine = &engine;
  CHECK(wrong.create() == EOSFM_OK);
  CHECK(wrong.uses("native"));
  CHECK(wrong.warned(0, "onnxruntime-mine is not used: ") && wrong.warned(0, "it rained"));
  Opened alone("onnxruntime-mine");
  alone.options.engine = &engine;
  CHECK(alone.create() == EOSFM_ENGINE_FAILED);
  CHECK(alone.says("it rained"));
}

void the_plan_is_that_of_the_largest() {
  size_t bytes[3];
  const char* ladders[] = {"native", "onnxruntime", "onnxruntime native"};
  for (int i = 0; i < 3; ++i) {
    const Opened opened(ladders[i]);
    eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
    CHECK(eosfm_model_get_requirements(opened.model, &opened.options, &needs) == EOSFM_OK);
    CHECK((needs.weights_bytes > 0) == (i != 1));
    bytes[i] = needs.context_bytes;
  }
  CHECK(bytes[2] == (bytes[0] > bytes[1] ? bytes[0] : bytes[1]));
}

// The bundle's path was relative, and the process has gone elsewhere since.
void the_bundle_is_found_from_elsewhere() {
  const std::filesystem::path here = std::filesystem::current_path();
  const std::filesystem::path bundle = std::filesystem::absolute(g_bundle);
  std::filesystem::current_path(bundle.parent_path());
  Opened opened("onnxruntime", bundle.filename().c_str());
  std::filesystem::current_path("/");
  CHECK(opened.create() == EOSFM_OK);
  std::filesystem::current_path(here);
}

// Another bundle has taken its place meanwhile: what is opened later is of the one that was opened first.
void a_model_stays_with_its_directory(const char* other) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("eosfm-backends-" + std::to_string(getpid()));
  fs::create_directories(folder);
  fs::copy(g_bundle, folder / "b", fs::copy_options::recursive);
  fs::copy(other, folder / "other", fs::copy_options::recursive);
  {
    Opened opened("onnxruntime", (folder / "b").c_str());
    fs::rename(folder / "b", folder / "before");
    fs::rename(folder / "other", folder / "b");
    CHECK(opened.create() == EOSFM_OK);
  }
  fs::remove_all(folder);
}

void it_opens_from_memory(const TestLevels& expected) {
  BundleFiles files(g_bundle);
  files.add_graphs(g_bundle);
  const std::vector<eosfm_file> views = files.views();
  Opened opened("onnxruntime");
  eosfm_model_close(opened.model);
  CHECK(eosfm_model_open_memory(views.data(), views.size(), nullptr, &opened.model) == EOSFM_OK);
  CHECK(opened.create() == EOSFM_OK);
  CHECK(near(expected, opened.run()));
}

// A device that runs the graphs needs the specialists' files no more.
void graphs_alone_open_from_memory(const TestLevels& expected) {
  BundleFiles files(g_bundle);
  files.paths.erase(files.paths.begin() + 1, files.paths.end());
  files.contents.erase(files.contents.begin() + 1, files.contents.end());
  files.add_graphs(g_bundle);
  const std::vector<eosfm_file> views = files.views();
  Opened opened("native onnxruntime");
  eosfm_model_close(opened.model);
  CHECK(eosfm_model_open_memory(views.data(), views.size(), nullptr, &opened.model) == EOSFM_OK);
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  CHECK(eosfm_model_get_requirements(opened.model, &opened.options, &needs) == EOSFM_OK);
  CHECK(needs.weights_bytes == 0 && needs.context_bytes > 0);
  CHECK(opened.create() == EOSFM_OK);
  CHECK(opened.uses("onnxruntime"));
  CHECK(near(expected, opened.run()));
  Opened alone("native");
  eosfm_model_close(alone.model);
  CHECK(eosfm_model_open_memory(views.data(), views.size(), nullptr, &alone.model) == EOSFM_OK);
  CHECK(alone.create() == EOSFM_NOT_FOUND);
  CHECK(alone.says("is not among the"));
}

// Whenever it comes, a run ends well or is cancelled, and the next is as if nothing had been.
void it_can_be_cancelled(const TestLevels& expected) {
  Opened opened("onnxruntime");
  CHECK(opened.create() == EOSFM_OK);
  std::atomic<bool> stop{false};
  std::thread canceller([&] {
    while (!stop) {
      eosfm_context_cancel(opened.context);
      std::this_thread::yield();
    }
  });
  int cancelled = 0;
  for (int i = 0; i < 300; ++i) {
    TestLevels out(opened.info, opened.info.tile, opened.info.tile);
    const eosfm_status status = opened.run(out);
    CHECK(status == EOSFM_OK || status == EOSFM_CANCELLED);
    CHECK(out.wrong(status == EOSFM_OK) == 0);
    cancelled += status == EOSFM_CANCELLED ? 1 : 0;
    eosfm_context_resume(opened.context);
  }
  stop = true;
  canceller.join();
  CHECK(cancelled > 0);
  eosfm_context_resume(opened.context);
  CHECK(near(expected, opened.run()));
}

void threads_have_a_context_each(const TestLevels& expected) {
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Opened opened("onnxruntime");
      if (opened.create() != EOSFM_OK) return;
      for (int run = 0; run < 20; ++run) good += near(expected, opened.run()) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(good == 80);
}

// Threads that spin after a run would take a core for all of the 20 ms between this one and the next.
void idle_threads_sleep() {
  Opened opened("onnxruntime");
  CHECK(opened.create() == EOSFM_OK);
  const std::clock_t before = std::clock();
  for (int i = 0; i < 30; ++i) {
    opened.run();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  CHECK(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC < 0.3);
}

long resident_kilobytes() {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    long value = 0;
    if (word == "VmRSS:" && file >> value) return value;
  }
  return -1;
}

void opening_and_closing_keeps_nothing(int times) {
  long before = 0;
  for (int i = 0; i < times; ++i) {
    Opened opened("onnxruntime");
    CHECK(opened.create() == EOSFM_OK);
    opened.run();
    if (i == times / 2) before = resident_kilobytes();
  }
  CHECK(resident_kilobytes() - before < 2048);
}

void two_versions_live_in_one_process(const char* other, const TestLevels& expected) {
  Opened first("onnxruntime");
  Opened second("onnxruntime", nullptr, other);
  CHECK(first.create() == EOSFM_OK);
  CHECK(second.create() == EOSFM_OK);
  for (int i = 0; i < 10; ++i) {
    CHECK(near(expected, first.run()));
    CHECK(near(expected, second.run()));
  }
  std::ifstream maps("/proc/self/maps");
  std::string line;
  bool loaded[2] = {false, false};
  while (std::getline(maps, line)) {
    loaded[0] = loaded[0] || line.find(g_runtime) != std::string::npos;
    loaded[1] = loaded[1] || line.find(other) != std::string::npos;
  }
  CHECK(loaded[0] && loaded[1]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) return 2;
  g_bundle = argv[2];
  g_runtime = argv[4];
  const TestLevels expected = native();
  it_computes_what_native_computes(expected);
  scenes_stream_through_it();
  what_cannot_be_had_is_followed_by_the_next();
  the_last_says_why();
  the_plugin_needs_a_gpu();
  the_environment_says_where_it_is();
  wrong_answers_are_not_trusted(argv[3]);
  it_refuses_what_it_cannot_do();
  a_host_s_engine_takes_its_turn(expected);
  the_plan_is_that_of_the_largest();
  the_bundle_is_found_from_elsewhere();
  a_model_stays_with_its_directory(argv[3]);
  it_opens_from_memory(expected);
  graphs_alone_open_from_memory(expected);
  it_can_be_cancelled(expected);
  threads_have_a_context_each(expected);
  idle_threads_sleep();
  opening_and_closing_keeps_nothing(std::atoi(argv[1]));
  if (argc == 6) two_versions_live_in_one_process(argv[5], expected);
  return report();
}
