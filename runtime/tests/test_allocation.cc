// Memory: every allocation of every call fails once, running allocates nothing, and nothing is kept.
//
// test_allocation BUNDLE.eosfm. Linked with the static library, whose calls of the allocator come here
// by the linker's --wrap.
#include <eosfm.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <pthread.h>
#include <sys/mman.h>

#include "bundle.h"
#include "check.h"

namespace {

std::atomic<long> g_calls{0};      // of the allocator, since the last reset
std::atomic<long> g_fail_at{-1};   // which one of them fails
std::atomic<long> g_live{0};       // blocks, maps and threads that have not been given back
std::atomic<size_t> g_bytes{0};    // of blocks, since the last reset

bool fails() { return g_calls.fetch_add(1) == g_fail_at.load(); }

}  // namespace

extern "C" {

void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
int __real_posix_memalign(void** result, size_t alignment, size_t size);
void __real_free(void* block);
void* __real_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void* at, size_t size);
int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                          void* argument);
int __real_pthread_join(pthread_t thread, void** result);

void* __wrap_malloc(size_t size) {
  if (fails()) return nullptr;
  ++g_live;
  g_bytes += size;
  return __real_malloc(size);
}
void* __wrap_calloc(size_t count, size_t size) {
  if (fails()) return nullptr;
  ++g_live;
  g_bytes += count * size;
  return __real_calloc(count, size);
}
int __wrap_posix_memalign(void** result, size_t alignment, size_t size) {
  if (fails()) return ENOMEM;
  ++g_live;
  g_bytes += size;
  return __real_posix_memalign(result, alignment, size);
}
void __wrap_free(void* block) {
  if (block != nullptr) --g_live;
  __real_free(block);
}
void* __wrap_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (fails()) return MAP_FAILED;
  ++g_live;
  return __real_mmap(at, size, protection, flags, fd, offset);
}
int __wrap_munmap(void* at, size_t size) {
  --g_live;
  return __real_munmap(at, size);
}
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                          void* argument) {
  if (fails()) return EAGAIN;
  ++g_live;
  return __real_pthread_create(thread, attributes, run, argument);
}
int __wrap_pthread_join(pthread_t thread, void** result) {
  --g_live;
  return __real_pthread_join(thread, result);
}

}  // extern "C"

namespace {

constexpr int kThreads = 3;

void reset(long fail_at = -1) {
  g_calls = 0;
  g_bytes = 0;
  g_fail_at = fail_at;
}

eosfm_context* make_context(eosfm_model* model, eosfm_status* status) {
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = kThreads;
  eosfm_context* context = nullptr;
  *status = eosfm_context_create(model, &options, &context);
  return context;
}

// Opens, plans, makes a context, verifies and gives all back; what fails, fails alone.
eosfm_status everything(const char* path) {
  eosfm_model* model = nullptr;
  eosfm_status status = eosfm_model_open(path, nullptr, &model);
  if (status != EOSFM_OK) return status;
  eosfm_plan plan = EOSFM_PLAN_INIT;
  status = eosfm_model_plan(model, nullptr, &plan);
  eosfm_context* context = status == EOSFM_OK ? make_context(model, &status) : nullptr;
  if (status != EOSFM_OK) CHECK(std::strlen(eosfm_model_error(model)) > 0);
  if (context != nullptr) {
    double worst[EOSFM_LEVELS];
    status = eosfm_verify(context, worst);
    if (status != EOSFM_OK) CHECK(std::strlen(eosfm_context_error(context)) > 0);
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  return status;
}

void every_allocation_fails_once(const char* path) {
  reset();
  const long live = g_live;
  CHECK(everything(path) == EOSFM_OK);
  CHECK(g_live == live);
  const long calls = g_calls;
  CHECK(calls > 20);
  for (long n = 0; n < calls; ++n) {
    reset(n);
    const eosfm_status status = everything(path);
    // A file that cannot be mapped is one that cannot be read.
    CHECK(status == EOSFM_NO_MEMORY || status == EOSFM_NOT_FOUND);
    CHECK(g_live == live);
  }
  reset();
  CHECK(everything(path) == EOSFM_OK);
  std::printf("%ld allocations, each failed once\n", calls);
}

void running_allocates_nothing(const char* path) {
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open(path, nullptr, &model) == EOSFM_OK);
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
  eosfm_status status;
  eosfm_context* context = make_context(model, &status);
  const TestImage image(info.bands, info.tile, info.tile);
  TestLevels out(info, info.tile, info.tile);
  const eosfm_image view = image.view();
  std::vector<uint8_t> active(info.specialists, 1);
  reset(0);  // the first allocation would fail
  for (int i = 0; i < 10; ++i) {
    CHECK(eosfm_run(context, &view, out.levels, nullptr) == EOSFM_OK);
    CHECK(eosfm_set_active(context, active.data(), active.size()) == EOSFM_OK);
  }
  CHECK(g_calls == 0);
  reset();
  eosfm_context_destroy(context);
  eosfm_model_close(model);
}

void a_context_takes_what_the_plan_says(const char* path) {
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open(path, nullptr, &model) == EOSFM_OK);
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = kThreads;
  eosfm_plan plan = EOSFM_PLAN_INIT;
  CHECK(eosfm_model_plan(model, &options, &plan) == EOSFM_OK);
  eosfm_status status;
  reset();
  eosfm_context* first = make_context(model, &status);
  const size_t with_weights = g_bytes;
  reset();
  eosfm_context* second = make_context(model, &status);
  const size_t alone = g_bytes;
  const size_t slack = 64 << 10;  // the handle, lists of shapes
  CHECK(alone >= plan.context_bytes && alone <= plan.context_bytes + slack);
  CHECK(with_weights >= plan.context_bytes + plan.weights_bytes);
  CHECK(with_weights <= plan.context_bytes + plan.weights_bytes + slack * 8);
  options.memory_limit = plan.context_bytes - 1;
  eosfm_context* third = nullptr;
  CHECK(eosfm_context_create(model, &options, &third) == EOSFM_NO_MEMORY);
  options.memory_limit = plan.context_bytes;
  CHECK(eosfm_context_create(model, &options, &third) == EOSFM_OK);
  eosfm_context_destroy(third);
  eosfm_context_destroy(second);
  eosfm_context_destroy(first);
  eosfm_model_close(model);
}

void a_thousand_times_leave_nothing(const char* path) {
  const long live = g_live;
  for (int i = 0; i < 1000; ++i) {
    eosfm_model* model = nullptr;
    eosfm_status status = eosfm_model_open(path, nullptr, &model);
    eosfm_context* context = status == EOSFM_OK ? make_context(model, &status) : nullptr;
    CHECK(status == EOSFM_OK);
    eosfm_context_destroy(context);
    eosfm_model_close(model);
    if (g_live != live) break;
  }
  CHECK(g_live == live);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  every_allocation_fails_once(argv[1]);
  running_allocates_nothing(argv[1]);
  a_context_takes_what_the_plan_says(argv[1]);
  a_thousand_times_leave_nothing(argv[1]);
  return report();
}
