// What hosts do that they must not, and what they may: test_misuse BUNDLE.eosfm. Callbacks that call back,
// jump out or throw; a second thread; a fork; signals; wrong options where nothing would use them.
#include <eosfm.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
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

  explicit Opened(int threads) {
    CHECK(eosfm_model_open(g_bundle.c_str(), nullptr, &model) == EOSFM_OK);
    CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
    options.threads = threads;
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() {
    eosfm_context_destroy(context);
    eosfm_model_close(model);
  }

  Opened& create() {
    CHECK(eosfm_context_create(model, &options, &context) == EOSFM_OK);
    return *this;
  }
  eosfm_status run(const eosfm_run_options* how = nullptr) {
    const TestImage image(info.bands, info.tile, info.tile);
    TestLevels out(info, info.tile, info.tile);
    const eosfm_image view = image.view();
    const eosfm_status status = eosfm_context_run(context, &view, out.levels, how);
    CHECK(out.wrong(status == EOSFM_OK) == 0);
    return status;
  }
};

void malformed_backends_are_refused() {
  Opened opened(1);
  for (const char* names : {"", " ", "CUDA", "native,onnxruntime", "-native", "native\n"}) {
    opened.options.backends = names;
    eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
    CHECK(eosfm_model_get_requirements(opened.model, &opened.options, &needs) == EOSFM_BAD_ARGUMENT);
    CHECK(std::strstr(eosfm_model_get_error(opened.model), "backends") != nullptr);
    CHECK(needs.context_bytes == 0 && needs.weights_bytes == 0 && needs.mapped_bytes == 0);
    CHECK(eosfm_context_create(opened.model, &opened.options, &opened.context) == EOSFM_BAD_ARGUMENT);
  }
}

// Calls everything that uses a context, which is in use.
struct Nested {
  Opened* opened;
  eosfm_stream* stream;
  int calls = 0;

  static int call(void* user, int32_t, int32_t) {
    Nested& self = *static_cast<Nested*>(user);
    eosfm_context* context = self.opened->context;
    ++self.calls;
    CHECK(self.opened->run() == EOSFM_BUSY);
    double worst[EOSFM_LEVELS];
    CHECK(eosfm_context_verify(context, worst) == EOSFM_BUSY);
    const std::vector<uint8_t> flags(self.opened->info.specialists, 1);
    CHECK(eosfm_context_set_active(context, flags.data(), flags.size()) == EOSFM_BUSY);
    CHECK(eosfm_context_set_grn(context, EOSFM_GRN_TILE) == EOSFM_BUSY);
    eosfm_stream* other = nullptr;
    const eosfm_stream_options options = EOSFM_STREAM_OPTIONS_INIT;
    size_t bytes = 0;
    CHECK(eosfm_context_get_stream_bytes(context, &options, &bytes) == EOSFM_BUSY);
    CHECK(eosfm_stream_create(context, &options, &other) == EOSFM_BUSY);
    int32_t taken = 0;
    CHECK(eosfm_stream_push_rows(self.stream, 0, nullptr, 1, 0, &taken) == EOSFM_BUSY);
    eosfm_patch_level patch_levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
    eosfm_patch patch = EOSFM_PATCH_INIT;
    patch.levels = patch_levels;
    CHECK(eosfm_stream_pull_patch(self.stream, nullptr, &patch) == EOSFM_BUSY);
    CHECK(eosfm_stream_end(self.stream) == EOSFM_BUSY);
    return 0;
  }
};

void a_callback_cannot_use_its_context() {
  for (int threads : {1, 2}) {
    Opened opened(threads);
    opened.create();
    TestStream stream(opened.context, opened.info, 40);
    Nested nested = {&opened, stream.stream};
    eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
    options.progress = Nested::call;
    options.progress_user = &nested;
    // The host is told where its own thread had a run.
    for (int i = 0; i < 100000 && nested.calls == 0; ++i) CHECK(opened.run(&options) == EOSFM_OK);
    CHECK(nested.calls > 0);
    nested.calls = 0;
    const TestImage scene(opened.info.bands, 40, 40);
    CHECK(stream.run(scene, 7, &options) == EOSFM_OK);
    CHECK(nested.calls > 0 || threads > 1);
    CHECK(opened.run() == EOSFM_OK);
  }
}

void another_thread_cannot_use_a_context_meanwhile() {
  Opened opened(1);
  opened.create();
  eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
  options.progress_user = &opened;
  options.progress = [](void* user, int32_t, int32_t) {
    std::thread([user] { CHECK(static_cast<Opened*>(user)->run() == EOSFM_BUSY); }).join();
    return 0;
  };
  CHECK(opened.run(&options) == EOSFM_OK);
}

// The header forbids both. Other threads are computing then: they must not be on the stack that is left.
void leaving_a_callback_costs_the_context_alone() {
  for (const bool throws : {false, true}) {
    int left = 0;
    for (int i = 0; i < 5000 && left < 5; ++i) {
      Opened opened(2);
      opened.create();
      static jmp_buf out;
      eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
      options.progress_user = const_cast<bool*>(&throws);
      options.progress = [](void* user, int32_t, int32_t) -> int {
        if (*static_cast<const bool*>(user)) throw std::runtime_error("on purpose");
        longjmp(out, 1);
      };
      const TestImage image(opened.info.bands, opened.info.tile, opened.info.tile);
      TestLevels levels(opened.info, opened.info.tile, opened.info.tile);
      const eosfm_image view = image.view();
      volatile bool has_left = false;
      try {
        if (setjmp(out) == 0) {
          eosfm_context_run(opened.context, &view, levels.levels, &options);
        } else {
          has_left = true;
        }
      } catch (const std::runtime_error&) {
        has_left = true;
      }
      if (!has_left) continue;  // another thread had both runs
      ++left;
      CHECK(opened.run() == EOSFM_BUSY);
    }
    CHECK(left == 5);
  }
}

void the_child_of_a_fork_can_destroy() {
  for (int threads : {1, 3}) {
    Opened opened(threads);
    opened.create();
    CHECK(opened.run() == EOSFM_OK);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // they wait on a condition by now
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      const eosfm_status status = opened.run();
      const bool refused = status == EOSFM_BAD_ARGUMENT &&
                           std::strstr(eosfm_context_get_error(opened.context), "forked") != nullptr;
      eosfm_context_destroy(opened.context);
      Opened own(threads);
      own.create();
      eosfm_model_close(opened.model);
      _exit((threads == 1 ? status == EOSFM_OK : refused) && own.run() == EOSFM_OK ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(opened.run() == EOSFM_OK);
  }
}

// What is done to a bundle's files once it is open: with a private copy, nothing of it matters.
void files_that_change_harm_no_private_copy() {
  namespace fs = std::filesystem;
  const fs::path copy = fs::temp_directory_path() / ("eosfm-misuse-" + std::to_string(getpid()));
  fs::copy(g_bundle, copy, fs::copy_options::recursive);
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.private_copy = 1;
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open(copy.c_str(), &options, &model) == EOSFM_OK);
  const auto size = fs::file_size(copy / "chain.gguf");
  std::fstream zeros(copy / "chain.gguf", std::ios::in | std::ios::out | std::ios::binary);
  zeros.write(std::string(size, '\0').data(), static_cast<std::streamsize>(size));
  zeros.close();
  for (const auto& file : fs::directory_iterator(copy / "specialists")) fs::resize_file(file.path(), 0);
  eosfm_context* context = nullptr;
  CHECK(eosfm_context_create(model, nullptr, &context) == EOSFM_OK);
  double worst[EOSFM_LEVELS];
  CHECK(eosfm_context_verify(context, worst) == EOSFM_OK);
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  fs::remove_all(copy);
}

uint64_t blocked_signals(const std::filesystem::path& status) {
  std::ifstream file(status);
  std::string word;
  while (file >> word) {
    if (word == "SigBlk:" && file >> word) return std::stoull(word, nullptr, 16);
  }
  return 0;
}

void threads_leave_signals_to_the_host() {
  const auto blocks = [](uint64_t mask, int signal) { return (mask >> (signal - 1) & 1) != 0; };
  const uint64_t before = blocked_signals("/proc/thread-self/status");
  Opened opened(4);
  opened.create();
  CHECK(opened.run() == EOSFM_OK);  // a thread that starts has all signals blocked
  int workers = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == std::to_string(getpid())) continue;
    const uint64_t mask = blocked_signals(task.path() / "status");
    if (mask == 0) continue;  // a sanitizer's thread
    ++workers;
    for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGALRM, SIGCHLD, SIGPROF}) {
      CHECK(blocks(mask, signal));
    }
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE}) CHECK(!blocks(mask, signal));
  }
  CHECK(workers >= 3);
  CHECK(blocked_signals("/proc/thread-self/status") == before);
}

void options_of_skipped_tiles_are_checked() {
  Opened opened(1);
  opened.create();
  TestStream stream(opened.context, opened.info, 40);
  for (int band = 0; band < opened.info.bands; ++band) {
    int32_t taken = 0;
    CHECK(eosfm_stream_push_rows(stream.stream, band, nullptr, 20, 0, &taken) == EOSFM_OK && taken == 20);
  }
  CHECK(eosfm_stream_end(stream.stream) == EOSFM_OK);
  const size_t count = static_cast<size_t>(opened.info.specialists);
  std::vector<uint8_t> present(100, 7);
  eosfm_patch_level patch_levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
  eosfm_patch patch = EOSFM_PATCH_INIT;
  patch.levels = patch_levels;
  eosfm_run_options options = EOSFM_RUN_OPTIONS_INIT;
  options.present = present.data();
  options.present_count = present.size();
  CHECK(eosfm_stream_pull_patch(stream.stream, &options, &patch) == EOSFM_BAD_ARGUMENT);
  options.present_count = count;
  options.deadline_ms = -1;
  CHECK(eosfm_stream_pull_patch(stream.stream, &options, &patch) == EOSFM_BAD_ARGUMENT);
  options.deadline_ms = 0;
  options.struct_size = 8;
  CHECK(eosfm_stream_pull_patch(stream.stream, &options, &patch) == EOSFM_BAD_ARGUMENT);
  CHECK(present == std::vector<uint8_t>(100, 7));
  options.struct_size = sizeof options;
  CHECK(eosfm_stream_pull_patch(stream.stream, &options, &patch) == EOSFM_OK && patch.skipped != 0);
  for (size_t i = 0; i < present.size(); ++i) CHECK(present[i] == (i < count ? 0 : 7));
}

// An engine that a cancellation ends, as ONNX Runtime's runs: a flag, which each run resets.
struct Cancelled {
  std::atomic<bool> flag{false};
  std::atomic<int> failures{0};

  static int compute(void* user, const float*, float* const*) {
    Cancelled& self = *static_cast<Cancelled*>(user);
    self.flag = false;
    for (int i = 0; i < 300; ++i) {
      if (self.flag) return 1;
    }
    return 0;
  }
  static void cancel(void* user) {
    std::this_thread::yield();
    static_cast<Cancelled*>(user)->flag = true;
  }
};

// Whenever it comes, and whenever it is taken back, runs are cancelled or whole, and none fails for it.
void cancelling_and_resuming_harm_no_run() {
  Cancelled state;
  eosfm_engine engine = EOSFM_ENGINE_INIT;
  engine.compute = Cancelled::compute;
  engine.cancel = Cancelled::cancel;
  engine.user = &state;
  Opened opened(1);
  opened.options.engine = &engine;
  opened.create();
  std::atomic<bool> over{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i) {
    others.emplace_back([&] {
      while (!over) {
        eosfm_context_cancel(opened.context);
        std::this_thread::yield();
      }
    });
  }
  int cancelled = 0;
  for (int i = 0; i < 20000; ++i) {
    const eosfm_status status = opened.run();
    CHECK(status == EOSFM_OK || status == EOSFM_CANCELLED);
    cancelled += status == EOSFM_CANCELLED ? 1 : 0;
    eosfm_context_resume(opened.context);
  }
  over = true;
  for (std::thread& other : others) other.join();
  CHECK(cancelled > 0);
  eosfm_context_resume(opened.context);
  CHECK(opened.run() == EOSFM_OK);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  g_bundle = argv[1];
  malformed_backends_are_refused();
  a_callback_cannot_use_its_context();
  another_thread_cannot_use_a_context_meanwhile();
  leaving_a_callback_costs_the_context_alone();
  the_child_of_a_fork_can_destroy();
  files_that_change_harm_no_private_copy();
  threads_leave_signals_to_the_host();
  options_of_skipped_tiles_are_checked();
  cancelling_and_resuming_harm_no_run();
  return report();
}
