// What hosts build on, on a bundle: test_hosting BUNDLE.eosfm. Cancelling that lasts, streams that begin again,
// statistics, codes beneath failures, engines, a memory limit and threads that the host sets up.
#include <eosfm.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <set>
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
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;

  explicit Opened(int threads = 1, size_t memory_limit = 0) {
    eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
    open.memory_limit = memory_limit;
    CHECK(eosfm_model_open(g_bundle.c_str(), &open, &model) == EOSFM_OK);
    describe();
    options.threads = threads;
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() {
    eosfm_context_destroy(context);
    eosfm_model_close(model);
  }

  eosfm_status create() { return eosfm_context_create(model, &options, &context); }
  void describe() { CHECK(eosfm_model_describe(model, &info) == EOSFM_OK); }
  size_t memory() {
    describe();
    return info.memory_bytes;
  }
  eosfm_status run(const eosfm_run_options* run_options = nullptr) {
    const TestImage image(info.bands, info.tile, info.tile);
    TestLevels levels(info, info.tile, info.tile);
    const eosfm_image view = image.view();
    const eosfm_status status = eosfm_context_run(context, &view, levels.levels, run_options);
    CHECK(levels.wrong(status == EOSFM_OK) == 0);
    return status;
  }
  eosfm_statistics measure() {
    eosfm_statistics statistics = EOSFM_STATISTICS_INIT;
    CHECK(eosfm_context_measure(context, &statistics) == EOSFM_OK);
    return statistics;
  }
};

void the_version_is_a_number() {
  CHECK(eosfm_library_get_version_number() == EOSFM_VERSION_NUMBER);
  const std::string text = std::to_string(EOSFM_VERSION_NUMBER / 1000000) + "." +
                           std::to_string(EOSFM_VERSION_NUMBER / 1000 % 1000) + "." +
                           std::to_string(EOSFM_VERSION_NUMBER % 1000);
  CHECK(text == eosfm_library_get_version());
}

// A cancellation that comes before a run, or between two, is not missed.
void cancelling_lasts_until_resumed() {
  Opened o;
  CHECK(o.create() == EOSFM_OK);
  TestStream stream(o.context, o.info, 40);
  const TestImage scene(o.info.bands, 40, 40);
  double worst[EOSFM_LEVELS] = {7, 7, 7, 7};
  eosfm_context_cancel(o.context);
  for (int i = 0; i < 2; ++i) {
    CHECK(o.run() == EOSFM_CANCELLED);
    CHECK(std::strstr(eosfm_context_get_error(o.context), "eosfm_context_resume") != nullptr);
    CHECK(stream.run(scene, 7) == EOSFM_CANCELLED);
    CHECK(eosfm_context_verify(o.context, worst) == EOSFM_CANCELLED && worst[0] == 7);
  }
  eosfm_context_resume(o.context);
  CHECK(o.run() == EOSFM_OK && stream.run(scene, 7) == EOSFM_OK);
  CHECK(eosfm_context_verify(o.context, worst) == EOSFM_OK);
  // What the progress callback ends is that run alone.
  eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
  options.progress = [](void*, int32_t, int32_t) { return 1; };
  CHECK(o.run(&options) == EOSFM_CANCELLED && o.run() == EOSFM_OK);
  // An engine of the host's is not even asked.
  static int calls;
  calls = 0;
  Opened other;
  eosfm_engine engine = EOSFM_ENGINE_INIT;
  engine.compute = [](void*, const float*, float* const*) { return ++calls; };
  other.options.engine = &engine;
  CHECK(other.create() == EOSFM_OK);
  eosfm_context_cancel(other.context);
  CHECK(other.run() == EOSFM_CANCELLED && calls == 0);
  eosfm_context_resume(other.context);
  CHECK(other.run() == EOSFM_ENGINE_FAILED && calls == 1);
}

// Wherever a scene is left, the next one is as from a stream that is new.
void a_stream_begins_again() {
  Opened o(2);
  CHECK(o.create() == EOSFM_OK);
  const TestImage scene(o.info.bands, 100, 90);
  TestStream fresh(o.context, o.info, 100);
  CHECK(fresh.run(scene, 5) == EOSFM_OK && fresh.tiles > 4);
  TestStream stream(o.context, o.info, 100);
  // Cut off after so many tiles: other values, of which nothing may be left.
  TestImage other(o.info.bands, 100, 90);
  for (float& pixel : other.pixels) pixel = 255.0F - pixel;
  for (int tiles = 0; tiles < 6; ++tiles) {
    struct Left {
      int tiles;
      int32_t done;  // of the tile, when it was last asked
    } left = {tiles, INT32_MAX};
    eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
    options.progress_user = &left;
    options.progress = [](void* user, int32_t done, int32_t) {
      Left& self = *static_cast<Left*>(user);
      const bool begins = done <= self.done;  // two runs may be done when it is asked first
      self.done = done;
      return begins && --self.tiles < 0 ? 1 : 0;
    };
    CHECK(stream.run(other, 9, &options) == EOSFM_CANCELLED || tiles > 0);
    stream.reset();
    CHECK(stream.run(scene, 5) == EOSFM_OK);
    CHECK(stream.tiles == fresh.tiles && stream.sums == fresh.sums);
    stream.reset();
  }
  eosfm_patch_level levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
  eosfm_patch patch = EOSFM_PATCH_INIT;
  patch.levels = levels;
  CHECK(eosfm_stream_pull_patch(stream.stream, nullptr, &patch) == EOSFM_AGAIN);
}

void what_was_done_is_counted() {
  Opened o(2);
  CHECK(o.create() == EOSFM_OK);
  eosfm_statistics none = o.measure();
  CHECK(none.images == 0 && none.failures == 0 && none.compute_ns == 0 && none.read_ns == 0);
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 3; ++i) CHECK(o.run() == EOSFM_OK);
  eosfm_context_cancel(o.context);
  CHECK(o.run() == EOSFM_CANCELLED);
  eosfm_context_resume(o.context);
  const std::chrono::nanoseconds all = std::chrono::steady_clock::now() - began;
  const eosfm_statistics runs = o.measure();
  CHECK(runs.images == 3 && runs.failures == 1 && runs.tiles == 0 && runs.blend_ns == 0);
  CHECK(runs.read_ns > 0 && runs.compute_ns > 0 && runs.fuse_ns > 0);
  CHECK(runs.read_ns + runs.compute_ns + runs.fuse_ns <= all.count());
  int64_t counted = 0;
  for (int32_t s = 0; s < o.info.specialists; ++s) {
    eosfm_specialist_statistics one = EOSFM_SPECIALIST_STATISTICS_INIT;
    CHECK(eosfm_context_measure_specialist(o.context, s, &one) == EOSFM_OK);
    CHECK(one.runs % 3 == 0 && one.compute_ns > 0 && one.compute_ns <= 2 * runs.compute_ns);
    counted += one.runs;
  }
  CHECK(counted == 3 * o.info.runs);
  eosfm_specialist_statistics one = EOSFM_SPECIALIST_STATISTICS_INIT;
  for (int32_t index : {-1, o.info.specialists}) {
    CHECK(eosfm_context_measure_specialist(o.context, index, &one) == EOSFM_BAD_ARGUMENT);
  }
  eosfm_statistics wrong = EOSFM_STATISTICS_INIT;
  wrong.struct_size = 12;
  CHECK(eosfm_context_measure(o.context, &wrong) == EOSFM_BAD_ARGUMENT);
  // Tiles of a scene whose right half has no data.
  TestImage scene(o.info.bands, 5 * o.info.tile, o.info.tile);
  for (size_t i = 0; i < scene.pixels.size(); ++i) {
    if (static_cast<int>(i) % scene.width > 2 * o.info.tile) scene.pixels[i] = NAN;
  }
  TestStream stream(o.context, o.info, scene.width);
  CHECK(stream.run(scene, 8) == EOSFM_OK);
  const eosfm_statistics tiles = o.measure();
  CHECK(tiles.tiles == stream.tiles && tiles.tiles_skipped > 0 && tiles.blend_ns > 0);
  CHECK(tiles.images - runs.images == tiles.tiles - tiles.tiles_skipped);
}

void failures_have_codes() {
  int32_t code = -7;
  eosfm_model* model = nullptr;
  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  open.error_code = &code;
  CHECK(eosfm_model_open("/nonexistent/bundle", &open, &model) == EOSFM_NOT_FOUND && code == ENOENT);
  CHECK(eosfm_model_open(nullptr, &open, &model) == EOSFM_BAD_ARGUMENT && code == 0);
  const std::string file = g_bundle + "/chain.gguf";
  CHECK(eosfm_model_open(file.c_str(), &open, &model) == EOSFM_NOT_FOUND && code == ENOTDIR);
  Opened o;
  CHECK(eosfm_model_get_error_code(o.model) == 0);
  eosfm_engine engine = EOSFM_ENGINE_INIT;
  engine.compute = [](void*, const float*, float* const*) { return -1234; };
  o.options.engine = &engine;
  CHECK(o.create() == EOSFM_OK && eosfm_context_get_error_code(o.context) == 0);
  CHECK(o.run() == EOSFM_ENGINE_FAILED && eosfm_context_get_error_code(o.context) == -1234);
  CHECK(eosfm_context_run(o.context, nullptr, nullptr, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_context_get_error_code(o.context) == 0);  // of the last failure
}

void engines_are_listed() {
  std::set<std::string> names;
  char reason[200] = "untouched";
  eosfm_engine_info info = EOSFM_ENGINE_INFO_INIT;
  info.reason = reason;
  info.reason_size = sizeof reason;
  CHECK(eosfm_library_describe_engine(-1, &info) == EOSFM_BAD_ARGUMENT && reason[0] == 'u');
  int32_t count = 0;
  while (eosfm_library_describe_engine(count, &info) == EOSFM_OK) {
    if (count++ == 0) CHECK(std::strcmp(info.name, "native") == 0 && info.status == EOSFM_OK);
    CHECK((info.status == EOSFM_OK) == (std::strlen(reason) == 0));
    CHECK((info.isa != nullptr) == (std::strcmp(info.name, "native") == 0));
    CHECK(info.status == EOSFM_OK || info.status == EOSFM_NOT_FOUND || info.status == EOSFM_UNSUPPORTED);
    names.insert(info.name);
    // As eosfm_context_create has it: what is not here cannot be had.
    if (info.status == EOSFM_OK || count == 1) continue;
    Opened o;
    o.options.backends = info.name;
    CHECK(o.create() == info.status);
    CHECK(std::strcmp(eosfm_model_get_error(o.model), reason) == 0);
  }
  CHECK(count == 7 && names.size() == 7);
  CHECK(eosfm_library_describe_engine(count, &info) == EOSFM_END);
}

void a_limit_is_for_all_of_a_model() {
  Opened free_of_it(2);
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  CHECK(eosfm_model_get_requirements(free_of_it.model, &free_of_it.options, &needs) == EOSFM_OK);
  const size_t model = free_of_it.memory();
  CHECK(model > 0);
  CHECK(free_of_it.create() == EOSFM_OK);
  CHECK(free_of_it.memory() == model + needs.context_bytes + needs.weights_bytes);
  size_t stream_bytes = 0;
  {
    TestStream stream(free_of_it.context, free_of_it.info, 100);
    stream_bytes = stream.bytes;
    CHECK(free_of_it.memory() == model + needs.context_bytes + needs.weights_bytes + stream_bytes);
  }
  CHECK(free_of_it.memory() == model + needs.context_bytes + needs.weights_bytes);

  const size_t two = model + 2 * needs.context_bytes + needs.weights_bytes + stream_bytes;
  for (const size_t limit : {two, two - 1}) {
    Opened o(2, limit);
    CHECK(o.create() == EOSFM_OK);
    eosfm_context* second = nullptr;
    {
      TestStream stream(o.context, o.info, 100);
      CHECK(stream.status == EOSFM_OK);
      const eosfm_status status = eosfm_context_create(o.model, &o.options, &second);
      CHECK(status == (limit == two ? EOSFM_OK : EOSFM_NO_MEMORY));
      if (status != EOSFM_OK) CHECK(std::strstr(eosfm_model_get_error(o.model), "memory_limit") != nullptr);
      TestStream another(o.context, o.info, 100);
      CHECK(another.status == (limit == two ? EOSFM_NO_MEMORY : EOSFM_OK));
      CHECK(o.memory() <= limit);
    }
    eosfm_context_destroy(second);
    CHECK(eosfm_context_create(o.model, &o.options, &second) == EOSFM_OK);  // all was given back
    eosfm_context_destroy(second);
  }
  Opened o(2, model + needs.context_bytes + needs.weights_bytes - 1);
  CHECK(o.create() == EOSFM_NO_MEMORY && o.memory() == model);
  o.options.threads = 1;
  CHECK(o.create() == EOSFM_OK);
}

// Each of the context's own threads is the host's to set up, once, before creating returns.
void hosts_set_threads_up() {
  struct Seen {
    std::mutex mutex;
    std::set<int32_t> numbers;
    std::set<std::thread::id> threads;
    int calls = 0;
  } seen;
  Opened o(4);
  o.options.thread_user = &seen;
  o.options.thread_started = [](void* user, int32_t number) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5 * number));
    Seen& self = *static_cast<Seen*>(user);
    const std::lock_guard<std::mutex> lock(self.mutex);
    self.numbers.insert(number);
    self.threads.insert(std::this_thread::get_id());
    ++self.calls;
    pthread_setname_np(pthread_self(), ("eosfm " + std::to_string(number)).c_str());
  };
  CHECK(o.create() == EOSFM_OK);
  CHECK(seen.calls == 3 && seen.threads.size() == 3 && seen.numbers == (std::set<int32_t>{1, 2, 3}));
  CHECK(seen.threads.count(std::this_thread::get_id()) == 0);
  CHECK(o.run() == EOSFM_OK && seen.calls == 3);
  std::set<std::string> names;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream comm(task.path() / "comm");
    std::string name;
    std::getline(comm, name);
    if (name.rfind("eosfm ", 0) == 0) names.insert(name);
  }
  CHECK(names == (std::set<std::string>{"eosfm 1", "eosfm 2", "eosfm 3"}));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  g_bundle = argv[1];
  the_version_is_a_number();
  cancelling_lasts_until_resumed();
  a_stream_begins_again();
  what_was_done_is_counted();
  failures_have_codes();
  engines_are_listed();
  a_limit_is_for_all_of_a_model();
  hosts_set_threads_up();
  return report();
}
