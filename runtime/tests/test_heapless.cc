// With an allocator of the host's, nothing beneath the library calls malloc either: test_heapless BUNDLE.eosfm.
//
// The process' malloc is this program's. Inside calls of the library it counts; what glibc wants for a thread does
// too, so there is one thread.
#include <eosfm.h>

#include <cerrno>
#include <cstddef>
#include <vector>

#include "bundle.h"
#include "check.h"

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);
}

namespace {

bool g_inside = false;  // a call of the library
long g_calls = 0;  // of malloc meanwhile

void count() { g_calls += g_inside ? 1 : 0; }

}  // namespace

extern "C" {
void* malloc(size_t size) {
  count();
  return __libc_malloc(size);
}
void* calloc(size_t amount, size_t size) {
  count();
  return __libc_calloc(amount, size);
}
void* realloc(void* memory, size_t size) {
  count();
  return __libc_realloc(memory, size);
}
void* memalign(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, size_t alignment, size_t size) {
  count();
  *result = __libc_memalign(alignment, size);
  return *result != nullptr ? 0 : ENOMEM;
}
void free(void* memory) {
  if (memory != nullptr) count();
  __libc_free(memory);
}
}

namespace {

// An array is enough of a heap: what is released is gone until all is.
struct Arena {
  std::vector<char> memory = std::vector<char>(64 << 20);
  size_t used = 0;

  static void* allocate(void* user, size_t size, size_t alignment) {
    Arena& self = *static_cast<Arena*>(user);
    const size_t misfit = reinterpret_cast<uintptr_t>(self.memory.data() + self.used) % alignment;
    const size_t at = self.used + (misfit > 0 ? alignment - misfit : 0);
    if (at > self.memory.size() || size > self.memory.size() - at) return nullptr;
    self.used = at + size;
    return self.memory.data() + at;
  }
  static void release(void*, void*, size_t) {}
};

template <class F>
eosfm_status inside(const F& call) {
  g_inside = true;
  const eosfm_status status = call();
  g_inside = false;
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  Arena arena;
  eosfm_allocator allocator = EOSFM_ALLOCATOR_INIT;
  allocator.allocate = Arena::allocate;
  allocator.release = Arena::release;
  allocator.user = &arena;
  for (const int copies : {0, 1}) {
    arena.used = 0;
    eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
    open.allocator = &allocator;
    open.private_copy = copies;
    eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
    options.threads = 1;
    eosfm_model* model = nullptr;
    eosfm_context* context = nullptr;
    eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
    double worst[EOSFM_LEVELS];
    eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
    CHECK(inside([&] { return eosfm_model_open(argv[1], &open, &model); }) == EOSFM_OK);
    CHECK(inside([&] { return eosfm_model_describe(model, &info); }) == EOSFM_OK);
    CHECK(inside([&] { return eosfm_model_get_requirements(model, &options, &needs); }) == EOSFM_OK);
    CHECK(inside([&] { return eosfm_context_create(model, &options, &context); }) == EOSFM_OK);
    CHECK(inside([&] { return eosfm_context_verify(context, worst); }) == EOSFM_OK);
    const TestImage scene(info.bands, 3 * info.tile, 2 * info.tile);
    {
      TestStream stream(context, info, scene.width);  // its sums are vectors of the program's
      g_inside = true;
      const eosfm_status status = stream.run(scene, 7);
      g_inside = false;
      CHECK(status == EOSFM_OK && stream.tiles >= 6);
    }
    g_inside = true;
    eosfm_context_destroy(context);
    eosfm_model_close(model);
    g_inside = false;
    CHECK(g_calls == 0);
    CHECK(arena.used > needs.context_bytes + needs.weights_bytes);
  }
  // The test of the test.
  g_inside = true;
  free(malloc(1));
  g_inside = false;
  CHECK(g_calls == 2);
  return report();
}
