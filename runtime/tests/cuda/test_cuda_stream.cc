// Batches, and scenes that stream through them: test_cuda_stream STANDIN BUNDLE
//
// The stand-in runs a graph only when the engine has waited for it, and watches what graphs touch that are
// under way together. So an image that is overwritten too early, a level that is read too early, and two
// batches that use the same memory are noticed.
#include <pthread.h>
#include <time.h>

#include "../../backends/cuda/driver.h"
#include "opened.h"

namespace {

constexpr int kRowsAtOnce = 17;

// A scene of two rows of four tiles, with a hole that is as large as a tile.
struct Scene {
  TestImage image;

  explicit Scene(const eosfm_model_info& info) : image(info.bands, 4 * info.tile - 7, 2 * info.tile - 9) {
    float* last = image.pixels.data() + static_cast<size_t>(info.bands - 1) * image.width * image.height;
    for (int y = 0; y < info.tile; ++y) {
      for (int x = info.tile / 2; x < info.tile / 2 + 2 * info.tile; ++x) last[y * image.width + x] = -7.0F;
    }
  }
};

struct Result {
  std::vector<double> sums;
  double nodata;
  int64_t tiles;
  int64_t skipped;

  explicit Result(const TestStream& stream)
      : sums(stream.sums), nodata(stream.nodata), tiles(stream.tiles), skipped(stream.skipped) {}
  bool operator==(const Result& other) const {
    return sums == other.sums && nodata == other.nodata && tiles == other.tiles && skipped == other.skipped;
  }
};

Result stream_with(const char* backend, int batch) {
  Opened opened;
  CHECK(opened.create(backend, g_driver, batch) == EOSFM_OK);
  const Scene scene(opened.info);
  TestStream stream(opened.context, opened.info, scene.image.width);
  CHECK(stream.run(scene.image, kRowsAtOnce) == EOSFM_OK);
  return Result(stream);
}

void results_do_not_depend_on_the_batch(const Result& alone) {
  const Result native = stream_with("native", 0);
  CHECK(alone.tiles == native.tiles && alone.nodata == native.nodata && alone.skipped == native.skipped);
  CHECK(alone.skipped > 0 && alone.tiles == 8 && alone.nodata > 0.0);
  for (int l = 0; l < EOSFM_LEVELS; ++l) {
    const size_t at = static_cast<size_t>(l);
    CHECK(std::fabs(alone.sums[at] - native.sums[at]) < 0.02 * std::fabs(native.sums[at]) + 1.0);
  }
  for (const int batch : {2, 3, 7}) {
    CHECK(stream_with("cuda", batch) == alone);
    CHECK(g_standin->most_under_way ==
          (batch < 4 ? 2 : 1));  // the next is given before the last is waited for
    reset();
  }
}

void memory_that_is_shared_is_not_copied(const Result& alone) {
  g_standin->integrated = 1;
  CHECK(stream_with("cuda", 3) == alone);
  reset();
}

void other_runs_may_come_between(const Result& alone) {
  Opened opened;
  CHECK(opened.create("cuda", g_driver, 2) == EOSFM_OK);
  const Scene scene(opened.info);
  const TestLevels expected = opened.run();
  TestStream one(opened.context, opened.info, scene.image.width);
  TestStream other(opened.context, opened.info, scene.image.width);
  eosfm_status status = EOSFM_OK;
  while (status == EOSFM_OK) {
    status = one.step(scene.image, kRowsAtOnce);
    CHECK(opened.run() == expected);
    CHECK(other.step(scene.image, 3 * kRowsAtOnce) == status);
  }
  CHECK(status == EOSFM_END);
  CHECK(Result(one) == alone && Result(other) == alone);
}

void what_fails_is_computed_again(const Result& alone) {
  Opened opened;
  CHECK(opened.create("cuda", g_driver, 2) == EOSFM_OK);
  const Scene scene(opened.info);
  TestStream stream(opened.context, opened.info, scene.image.width);
  eosfm_status status = EOSFM_OK;
  int failed = 0;
  for (int i = 0; status != EOSFM_END; ++i) {
    if (i % 2 == 0) g_standin->fail_at = g_standin->calls + i / 2 % 4;
    status = stream.step(scene.image, kRowsAtOnce);
    CHECK(status == EOSFM_OK || status == EOSFM_END || status == EOSFM_ENGINE_FAILED);
    failed += status == EOSFM_ENGINE_FAILED ? 1 : 0;
    g_standin->fail_at = -1;
  }
  CHECK(failed >= 2);
  CHECK(Result(stream) == alone);
}

void* cancel_soon(void* context) {
  const timespec pause = {0, 20000000};
  nanosleep(&pause, nullptr);
  eosfm_context_cancel(static_cast<eosfm_context*>(context));
  return nullptr;
}

// The device is never ready: a run ends all the same, and what it left is waited for by the next.
void runs_end_when_they_are_to(const Result& alone) {
  Opened opened;
  CHECK(opened.create("cuda", g_driver, 2) == EOSFM_OK);
  const Scene scene(opened.info);
  const TestLevels expected = opened.run();
  TestStream stream(opened.context, opened.info, scene.image.width);
  eosfm_run_options late = EOSFM_RUN_OPTIONS_INIT;
  late.deadline_ms = 5;
  const int never = 1 << 30;
  g_standin->patience = never;
  TestLevels out(opened.info, opened.info.tile, opened.info.tile);
  const TestImage pixels(opened.info.bands, opened.info.tile, opened.info.tile);
  const eosfm_image view = pixels.view();
  CHECK(eosfm_context_run(opened.context, &view, out.levels, &late) == EOSFM_DEADLINE);
  g_standin->patience = 1;
  CHECK(opened.run() == expected);

  // Who asks which specialists are in the levels is content with some, but not with none.
  uint8_t present[64];
  eosfm_run_options content = late;
  content.present = present;
  content.present_count = static_cast<size_t>(opened.info.specialists);
  const eosfm_run_options* const options[] = {&late, &content, nullptr};
  CHECK(stream.step(scene.image, kRowsAtOnce) == EOSFM_OK);
  for (const eosfm_run_options* one : options) {
    g_standin->patience = never;
    pthread_t thread;
    if (one == nullptr) pthread_create(&thread, nullptr, cancel_soon, opened.context);
    // Some tiles that were ahead are done already.
    eosfm_status status = EOSFM_OK;
    while (status == EOSFM_OK) status = stream.step(scene.image, kRowsAtOnce, one);
    CHECK(status == (one != nullptr ? EOSFM_DEADLINE : EOSFM_CANCELLED));
    if (one == nullptr) pthread_join(thread, nullptr);
    eosfm_context_resume(opened.context);
    g_standin->patience = 1;
  }
  CHECK(out.wrong(false) == 0);
  CHECK(stream.run(scene.image, kRowsAtOnce) == EOSFM_OK);
  CHECK(Result(stream) == alone);
}

// Of the scene before, tiles are under way when the next begins.
void a_stream_begins_again(const Result& alone) {
  Opened opened;
  CHECK(opened.create("cuda", g_driver, 2) == EOSFM_OK);
  const Scene scene(opened.info);
  TestStream stream(opened.context, opened.info, scene.image.width);
  for (int tiles = 1; tiles < 5; ++tiles) {
    for (int i = 0; i < tiles; ++i) CHECK(stream.step(scene.image, kRowsAtOnce) == EOSFM_OK);
    stream.reset();
    CHECK(stream.run(scene.image, kRowsAtOnce) == EOSFM_OK && Result(stream) == alone);
    stream.reset();
  }
}

void the_requirements_say_what_is_allocated() {
  for (const int batch : {0, 1, 5}) {
    Opened opened;
    CHECK(opened.create("cuda native", g_driver, batch) == EOSFM_OK);
    eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
    CHECK(eosfm_model_get_requirements(opened.model, &opened.options, &needs) == EOSFM_OK);
    CHECK(needs.device_bytes == g_standin->device_bytes && needs.pinned_bytes == g_standin->pinned_bytes);
    CHECK(needs.device_bytes > needs.pinned_bytes && needs.pinned_bytes > 0);
    opened.options.backends = "native nowhere";
    CHECK(eosfm_model_get_requirements(opened.model, &opened.options, &needs) == EOSFM_OK);
    CHECK(needs.device_bytes == 0 && needs.pinned_bytes == 0);
    g_standin->device_bytes = g_standin->pinned_bytes = 0;
  }
  Opened opened;
  CHECK(opened.create("cuda", g_driver, 65) == EOSFM_BAD_ARGUMENT);
}

// Limits of a context and of a model count what is allocated of the GPU's memory and pinned; where GPU and host
// have the same memory, images and levels are there once.
void limits_count_the_gpu_s_memory() {
  for (const int integrated : {0, 1}) {
    size_t gpu = 0;
    size_t context = 0;
    size_t peak = 0;
    {
      g_standin->integrated = integrated;
      Opened opened;
      CHECK(opened.create("cuda", g_driver) == EOSFM_OK);
      gpu = g_standin->device_bytes + g_standin->pinned_bytes;
      eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
      CHECK(eosfm_model_get_requirements(opened.model, &opened.options, &needs) == EOSFM_OK);
      CHECK(gpu == needs.device_bytes + (integrated != 0 ? 0 : needs.pinned_bytes));
      context = needs.context_bytes;
      const size_t before = opened.info.memory_bytes;
      CHECK(eosfm_model_describe(opened.model, &opened.info) == EOSFM_OK);
      CHECK(opened.info.memory_bytes > before + gpu);
      peak = opened.info.memory_peak_bytes;
    }
    reset();
    const auto create = [&](size_t of_context, size_t of_model, const char* sentence) {
      g_standin->integrated = integrated;
      Opened opened;
      opened.options.memory_limit = of_context;
      opened.memory_limit = of_model;
      const eosfm_status status = opened.create("cuda", g_driver);
      if (status != EOSFM_OK) CHECK(std::strstr(eosfm_model_get_error(opened.model), sentence) != nullptr);
      const size_t before = opened.info.memory_bytes;
      CHECK(eosfm_model_describe(opened.model, &opened.info) == EOSFM_OK);
      CHECK((opened.info.memory_bytes == before) == (status != EOSFM_OK));  // all is given back
      return status;
    };
    CHECK(create(gpu - 1, 0, "memory_limit") == EOSFM_NO_MEMORY);
    CHECK(g_standin->device_bytes == 0 && g_standin->pinned_bytes == 0);  // it is refused before
    CHECK(create(gpu, 0, "the limit is") == EOSFM_NO_MEMORY);
    CHECK(create(gpu + context, 0, "") == EOSFM_OK);
    CHECK(create(0, peak - 1, "memory") == EOSFM_NO_MEMORY);
    CHECK(create(0, peak, "") == EOSFM_OK);
    reset();
  }
}

// The test of the test: two streams that copy to the same place.
void the_standin_notices_what_two_streams_share() {
  eosfm::CudaDriver driver;
  eosfm::ErrorText error;
  CHECK(driver.load(g_driver, error) == EOSFM_OK);
  eosfm::CuContext context = nullptr;
  eosfm::CuPointer device = 0;
  void* host = nullptr;
  CHECK(driver.retain_context(&context, 0) == 0 && driver.push_context(context) == 0);
  CHECK(driver.allocate(&device, 64) == 0 && driver.allocate_host(&host, 64, 0) == 0);
  for (const bool apart : {true, false}) {
    eosfm::CuStream streams[2];
    eosfm::CuGraphExec graphs[2];
    for (int i = 0; i < 2; ++i) {
      eosfm::CuGraph graph = nullptr;
      CHECK(driver.create_stream(&streams[i], 0) == 0 && driver.begin_capture(streams[i], 0) == 0);
      CHECK(driver.copy_in_async(device + (apart ? 32U * static_cast<unsigned>(i) : 0U), host, 32,
                                 streams[i]) == 0);
      CHECK(driver.end_capture(streams[i], &graph) == 0 && driver.instantiate(&graphs[i], graph, 0) == 0);
      driver.destroy_graph(graph);
      CHECK(driver.launch_graph(graphs[i], streams[i]) == 0);
    }
    CHECK((g_standin->misuses == 0) == apart);
    for (int i = 0; i < 2; ++i) CHECK(driver.synchronize(streams[i]) == 0);
    for (int i = 0; i < 2; ++i) {
      driver.destroy_exec(graphs[i]);
      driver.destroy_stream(streams[i]);
    }
  }
  g_standin->misuses = 0;
  driver.release_host(host);
  driver.release(device);
  eosfm::CuContext popped = nullptr;
  driver.pop_context(&popped);
  driver.release_context(0);
  reset();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !load_standin(argv[1], argv[2])) return 2;
  const Result alone = stream_with("cuda", 1);
  reset();
  results_do_not_depend_on_the_batch(alone);
  memory_that_is_shared_is_not_copied(alone);
  other_runs_may_come_between(alone);
  reset();
  what_fails_is_computed_again(alone);
  reset();
  runs_end_when_they_are_to(alone);
  reset();
  a_stream_begins_again(alone);
  reset();
  the_requirements_say_what_is_allocated();
  reset();
  limits_count_the_gpu_s_memory();
  reset();
  the_standin_notices_what_two_streams_share();
  return report();
}
