// Memory: every allocation of every call fails once, running allocates nothing, and nothing is kept.
//
// test_allocation BUNDLE.eosfm [TIMES]: how often all is made and given back at the end, 1000 unless told.
// With malloc, and with an allocator of the host's.
// Linked with the static library, whose calls of the allocator come here by the linker's --wrap.
#include <eosfm.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <pthread.h>
#include <sys/mman.h>

#include "bundle.h"
#include "check.h"

namespace {

std::atomic<long> g_calls{0};      // of the allocator, since the last reset
std::atomic<long> g_fail_at{-1};   // which one of them fails
std::atomic<long> g_live{0};       // pieces of memory, maps and threads that have not been given back
std::atomic<size_t> g_bytes{0};    // of memory, since the last reset
std::atomic<long> g_mallocs{0};    // calls of malloc and the like, since the last reset

bool fails() { return g_calls.fetch_add(1) == g_fail_at.load(); }

}  // namespace

extern "C" {

void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
void* __real_realloc(void* memory, size_t size);
int __real_posix_memalign(void** result, size_t alignment, size_t size);
void* __real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void* memory);
void* __real_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void* at, size_t size);
int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                          void* argument);
int __real_pthread_join(pthread_t thread, void** result);

// All but aligned_alloc are here to be noticed: the library does not call them.
void* __wrap_malloc(size_t size) {
  ++g_mallocs;
  CHECK(false);
  return __real_malloc(size);
}
void* __wrap_calloc(size_t count, size_t size) {
  ++g_mallocs;
  CHECK(false);
  return __real_calloc(count, size);
}
void* __wrap_realloc(void* memory, size_t size) {
  ++g_mallocs;
  CHECK(false);
  return __real_realloc(memory, size);
}
int __wrap_posix_memalign(void** result, size_t alignment, size_t size) {
  ++g_mallocs;
  CHECK(false);
  return __real_posix_memalign(result, alignment, size);
}
void* __wrap_aligned_alloc(size_t alignment, size_t size) {
  ++g_mallocs;
  if (fails()) return nullptr;
  ++g_live;
  g_bytes += size;
  return __real_aligned_alloc(alignment, size);
}
void __wrap_free(void* memory) {
  if (memory != nullptr) --g_live;
  __real_free(memory);
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
  g_mallocs = 0;
  g_fail_at = fail_at;
}

// A host's memory: every piece is known by its address and size, and its bytes are not zero.
struct Host {
  static constexpr size_t kGuard = 64;

  std::map<void*, size_t> pieces;
  size_t bytes = 0;
  size_t peak = 0;
  long calls = 0;
  long fail_at = -1;
  eosfm_allocator hooks = EOSFM_ALLOCATOR_INIT;

  Host() {
    hooks.allocate = [](void* user, size_t size, size_t alignment) {
      return static_cast<Host*>(user)->allocate(size, alignment);
    };
    hooks.release = [](void* user, void* memory, size_t size) {
      static_cast<Host*>(user)->release(memory, size);
    };
    hooks.user = this;
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host() { CHECK(pieces.empty() && bytes == 0); }

  void* allocate(size_t size, size_t alignment) {
    CHECK(size > 0 && alignment > 0 && (alignment & (alignment - 1)) == 0 && size % alignment == 0);
    if (calls++ == fail_at) return nullptr;
    // What lies behind is looked at in the end: the size is all that may be written.
    char* memory = static_cast<char*>(__real_aligned_alloc(alignment, size + kGuard));
    std::memset(memory, 0xA5, size + kGuard);
    pieces[memory] = size;
    bytes += size;
    peak = std::max(peak, bytes);
    return memory;
  }
  void release(void* memory, size_t size) {
    const auto piece = pieces.find(memory);
    CHECK(piece != pieces.end() && piece->second == size);
    if (piece == pieces.end()) return;
    const unsigned char* guard = static_cast<unsigned char*>(memory) + size;
    CHECK(std::all_of(guard, guard + kGuard, [](unsigned char one) { return one == 0xA5; }));
    pieces.erase(piece);
    bytes -= size;
    __real_free(memory);
  }
};

eosfm_context* make_context(eosfm_model* model, eosfm_status* status,
                            eosfm_precision precision = EOSFM_AS_STORED) {
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = kThreads;
  options.precision = precision;
  eosfm_context* context = nullptr;
  *status = eosfm_context_create(model, &options, &context);
  return context;
}

// Makes a context, chooses one specialist and then all of them again, and verifies.
eosfm_status use(eosfm_model* model, const eosfm_model_info& info, eosfm_precision precision) {
  eosfm_status status;
  eosfm_context* context = make_context(model, &status, precision);
  if (context == nullptr) {
    CHECK(std::strlen(eosfm_model_get_error(model)) > 0);
    return status;
  }
  std::vector<uint8_t> active(info.specialists, 0);
  active[0] = 1;
  CHECK(eosfm_context_set_active(context, active.data(), active.size()) == EOSFM_OK);
  active.assign(active.size(), 1);
  CHECK(eosfm_context_set_active(context, active.data(), active.size()) == EOSFM_OK);
  double worst[EOSFM_LEVELS];
  status = eosfm_context_verify(context, worst);
  // In bf16, the fp32 bundle's known answer comes out less well than its tolerance.
  if (status == EOSFM_WRONG_ANSWER && precision == EOSFM_BF16) status = EOSFM_OK;
  if (status == EOSFM_OK) status = TestStream(context, info, 100).status;
  if (status != EOSFM_OK) CHECK(std::strlen(eosfm_context_get_error(context)) > 0);
  eosfm_context_destroy(context);
  return status;
}

// Opens, asks for requirements, makes and uses a context of each precision, and gives all back; what fails, fails alone.
eosfm_status everything(const char* path, const std::vector<eosfm_file>* files,
                        const eosfm_open_options* options = nullptr) {
  eosfm_model* model = nullptr;
  eosfm_status status = files == nullptr
                            ? eosfm_model_open(path, options, &model)
                            : eosfm_model_open_memory(files->data(), files->size(), options, &model);
  if (status != EOSFM_OK) return status;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  status = eosfm_model_get_requirements(model, nullptr, &needs);
  if (status != EOSFM_OK) CHECK(std::strlen(eosfm_model_get_error(model)) > 0);
  if (status == EOSFM_OK) status = use(model, info, EOSFM_AS_STORED);
  if (status == EOSFM_OK) status = use(model, info, EOSFM_BF16);
  eosfm_model_close(model);
  return status;
}

void every_allocation_fails_once(const char* path, const std::vector<eosfm_file>* files) {
  reset();
  const long live = g_live;
  CHECK(everything(path, files) == EOSFM_OK);
  CHECK(g_live == live);
  const long calls = g_calls;
  CHECK(calls > 20);
  for (long n = 0; n < calls; ++n) {
    reset(n);
    const eosfm_status status = everything(path, files);
    // A file that cannot be mapped is one that cannot be read.
    CHECK(status == EOSFM_NO_MEMORY || status == EOSFM_NOT_FOUND);
    CHECK(g_live == live);
  }
  reset();
  CHECK(everything(path, files) == EOSFM_OK);
  std::printf("%ld allocations, each failed once\n", calls);
}

// All memory is the host's: malloc is not called, and what fails once is reported and leaves nothing.
void every_allocation_is_the_host_s(const char* path, const std::vector<eosfm_file>* files, bool copies) {
  Host host;
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.allocator = &host.hooks;
  options.private_copy = copies ? 1 : 0;
  char sentence[512] = "";
  options.error = sentence;
  options.error_size = sizeof sentence;
  reset();
  CHECK(everything(path, files, &options) == EOSFM_OK);
  const long calls = host.calls;
  const size_t peak = host.peak;
  CHECK(calls > 20 && host.pieces.empty());
  for (long n = 0; n < calls; ++n) {
    host.calls = 0;
    host.fail_at = n;
    CHECK(everything(path, files, &options) == EOSFM_NO_MEMORY);
    CHECK(host.pieces.empty() && host.bytes == 0);
  }
  host.fail_at = -1;
  // The limit is of the same bytes: the most that was taken is enough, and a byte less is not.
  options.memory_limit = peak;
  host.peak = 0;
  CHECK(everything(path, files, &options) == EOSFM_OK && host.peak == peak);
  options.memory_limit = peak - 1;
  CHECK(everything(path, files, &options) == EOSFM_NO_MEMORY && host.pieces.empty());
  options.memory_limit = 1;
  CHECK(everything(path, files, &options) == EOSFM_NO_MEMORY && host.pieces.empty());
  CHECK(std::strstr(sentence, "memory_limit") != nullptr);
  CHECK(g_mallocs == 0);
  std::printf("%ld allocations of the host's, each failed once; %zu bytes at most\n", calls, peak);
}

size_t memory_of(eosfm_model* model, size_t* peak) {
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
  *peak = info.memory_peak_bytes;
  return info.memory_bytes;
}

// What the library says that it takes is what the host sees.
void the_host_sees_what_the_requirements_say(const char* path) {
  Host host;
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.allocator = &host.hooks;
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open(path, &options, &model) == EOSFM_OK);
  eosfm_context_options wanted = EOSFM_CONTEXT_OPTIONS_INIT;
  wanted.threads = kThreads;
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  CHECK(eosfm_model_get_requirements(model, &wanted, &needs) == EOSFM_OK);
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
  size_t peak = 0;
  size_t before = host.bytes;
  eosfm_status status;
  CHECK(before > 0 && memory_of(model, &peak) == before && peak == host.peak);
  eosfm_context* first = make_context(model, &status);
  CHECK(host.bytes - before == needs.context_bytes + needs.weights_bytes);
  before = host.bytes;
  eosfm_context* second = make_context(model, &status);
  CHECK(host.bytes - before == needs.context_bytes);
  CHECK(memory_of(model, &peak) == host.bytes && peak == host.peak);
  before = host.bytes;
  {
    TestStream stream(second, info, 100);
    CHECK(host.bytes - before == stream.bytes);
    CHECK(memory_of(model, &peak) == host.bytes);
  }
  CHECK(host.bytes == before);
  double worst[EOSFM_LEVELS];
  CHECK(eosfm_context_verify(second, worst) == EOSFM_OK && host.bytes == before);
  CHECK(memory_of(model, &peak) == host.bytes && peak == host.peak);
  eosfm_model_close(model);  // goes with its contexts
  eosfm_context_destroy(second);
  CHECK(host.bytes > 0);
  eosfm_context_destroy(first);
}

void allocators_that_cannot_be_are_refused(const char* path) {
  Host host;
  char sentence[512] = "";
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.error = sentence;
  options.error_size = sizeof sentence;
  const auto refused = [&](const eosfm_allocator& allocator, const char* words) {
    options.allocator = &allocator;
    eosfm_model* model = nullptr;
    const eosfm_status status = eosfm_model_open(path, &options, &model);
    return status == EOSFM_BAD_ARGUMENT && model == nullptr && std::strstr(sentence, words) != nullptr;
  };
  eosfm_allocator other = host.hooks;
  other.allocate = nullptr;
  CHECK(refused(other, "no function"));
  other = host.hooks;
  other.release = nullptr;
  CHECK(refused(other, "no function"));
  other = host.hooks;
  other.struct_size = 8;
  CHECK(refused(other, "struct_size"));
  // One that pays no heed to the alignment.
  alignas(64) static char memory[1 << 20];
  other = EOSFM_ALLOCATOR_INIT;
  other.user = memory + 16;
  other.allocate = [](void* user, size_t, size_t) { return user; };
  other.release = [](void*, void*, size_t) {};
  CHECK(refused(other, "expected a multiple"));
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
    CHECK(eosfm_context_run(context, &view, out.levels, nullptr) == EOSFM_OK);
    CHECK(eosfm_context_set_active(context, active.data(), active.size()) == EOSFM_OK);
  }
  for (eosfm_grn mode : {EOSFM_GRN_GATHER, EOSFM_GRN_SCENE, EOSFM_GRN_TILE}) {
    CHECK(eosfm_context_set_grn(context, mode) == EOSFM_OK);
    CHECK(eosfm_context_run(context, &view, out.levels, nullptr) == EOSFM_OK);
  }
  CHECK(g_calls == 0);
  reset();
  {
    const int width = 3 * info.tile + 5;
    TestStream stream(context, info, width);
    CHECK(g_bytes == stream.bytes);
    const TestImage scene(info.bands, width, 4 * info.tile);
    reset(0);
    CHECK(stream.run(scene, 3) == EOSFM_OK);
    CHECK(g_calls == 0 && stream.tiles > 9);
    const std::vector<double> sums = stream.sums;
    stream.reset();
    CHECK(stream.run(scene, 40) == EOSFM_OK && stream.sums == sums);
    CHECK(g_calls == 0);
    reset();
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
}

void a_context_takes_what_the_plan_says(const char* path) {
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open(path, nullptr, &model) == EOSFM_OK);
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = kThreads;
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  CHECK(eosfm_model_get_requirements(model, &options, &needs) == EOSFM_OK);
  eosfm_status status;
  reset();
  eosfm_context* first = make_context(model, &status);
  const size_t with_weights = g_bytes;
  reset();
  eosfm_context* second = make_context(model, &status);
  const size_t alone = g_bytes;
  const size_t slack = 64 << 10;  // lists of shapes, for a moment
  CHECK(alone >= needs.context_bytes && alone <= needs.context_bytes + slack);
  CHECK(with_weights >= needs.context_bytes + needs.weights_bytes);
  CHECK(with_weights <= needs.context_bytes + needs.weights_bytes + slack * 8);
  options.memory_limit = needs.context_bytes + needs.weights_bytes - 1;
  eosfm_context* third = nullptr;
  CHECK(eosfm_context_create(model, &options, &third) == EOSFM_NO_MEMORY);
  options.memory_limit = needs.context_bytes + needs.weights_bytes;
  CHECK(eosfm_context_create(model, &options, &third) == EOSFM_OK);
  eosfm_context_destroy(third);
  eosfm_context_destroy(second);
  eosfm_context_destroy(first);
  eosfm_model_close(model);
}

void many_times_leave_nothing(const char* path, int times) {
  const long live = g_live;
  for (int i = 0; i < times; ++i) {
    eosfm_model* model = nullptr;
    eosfm_status status = eosfm_model_open(path, nullptr, &model);
    eosfm_context* context = status == EOSFM_OK ? make_context(model, &status) : nullptr;
    CHECK(status == EOSFM_OK);
    eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
    CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
    const TestImage image(info.bands, info.tile, info.tile);
    TestLevels out(info, info.tile, info.tile);
    const eosfm_image view = image.view();
    CHECK(eosfm_context_run(context, &view, out.levels, nullptr) == EOSFM_OK);
    eosfm_context_destroy(context);
    eosfm_model_close(model);
    if (g_live != live) break;
  }
  CHECK(g_live == live);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  every_allocation_fails_once(argv[1], nullptr);
  const BundleFiles files(argv[1]);
  const std::vector<eosfm_file> views = files.views();
  every_allocation_fails_once(argv[1], &views);
  every_allocation_is_the_host_s(argv[1], nullptr, false);
  every_allocation_is_the_host_s(argv[1], nullptr, true);
  every_allocation_is_the_host_s(argv[1], &views, false);
  the_host_sees_what_the_requirements_say(argv[1]);
  allocators_that_cannot_be_are_refused(argv[1]);
  running_allocates_nothing(argv[1]);
  a_context_takes_what_the_plan_says(argv[1]);
  many_times_leave_nothing(argv[1], argc > 2 ? std::atoi(argv[2]) : 1000);
  return report();
}
