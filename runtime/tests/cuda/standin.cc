// A stand-in for libcuda.so.1: it runs the kernels on the CPU and checks how it is called.
//
// Memory of the "device" is the heap's, so that the address sanitizer watches it, and begins as NaN.
// Every copy must lie inside one allocation, every launch must fit the descriptors it is given, and every
// pointer in them must lead into an allocation. Each call can be made to fail.
#include "standin.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../../backends/cuda/driver.h"
#include "../../backends/cuda/kernels/descriptors.h"
#include "shim.h"

extern "C" {
void eosfm_stem(const eosfm::gpu::Stem*);
void eosfm_downsample(const eosfm::gpu::Downsample*);
void eosfm_block_front(const eosfm::gpu::Block*);
void eosfm_block_back(const eosfm::gpu::Block*);
void eosfm_moments(const eosfm::gpu::Moments*);
void eosfm_mix(const eosfm::gpu::Mix*);
void eosfm_combine(const eosfm::gpu::Combination*);
__attribute__((visibility("default"))) Standin standin;
}

namespace {

using namespace eosfm::gpu;

constexpr int kInvalidValue = 1;
constexpr int kNotInitialised = 3;
constexpr int kInvalidDevice = 101;
constexpr int kInvalidImage = 200;
constexpr int kInvalidContext = 201;
constexpr int kNotFound = 500;
constexpr size_t kSharedWithoutAsking = 48 << 10;

std::map<const char*, size_t> g_device;
std::map<const char*, size_t> g_host;
bool g_initialised = false;
int g_contexts = 0;
int g_current = 0;
int g_marks[8];  // what handles point to
std::vector<std::function<void()>>* g_capture = nullptr;
bool g_pending = false;  // work on the default stream, for which other streams do not wait

void misuse(const char* what) {
  if (standin.misuses++ == 0) std::snprintf(standin.misuse, sizeof standin.misuse, "%s", what);
}

bool inside(const std::map<const char*, size_t>& all, const void* pointer, size_t bytes) {
  const char* at = static_cast<const char*>(pointer);
  auto found = all.upper_bound(at);
  if (found == all.begin()) return false;
  --found;
  return bytes <= found->second && at - found->first <= static_cast<ptrdiff_t>(found->second - bytes);
}

const char* device_pointer(unsigned long long pointer) {
  return reinterpret_cast<const char*>(static_cast<uintptr_t>(pointer));
}

// A kernel of the table: runs for one descriptor, of which it checks all pointers.
struct Kernel {
  const char* name;
  size_t descriptor_bytes;
  void (*run)(const void*);
  bool (*leads_inside)(const void* descriptor, unsigned images);
  int dynamic_shared = 0;
};

bool has(const void* pointer, size_t bytes) { return inside(g_device, pointer, bytes); }
bool has_floats(const float* pointer, size_t count) { return has(pointer, count * sizeof(float)); }

bool has_weights(const Weights& w) {
  const size_t columns = 8 * static_cast<size_t>(w.tiles);
  return w.words % 16 == 0 && reinterpret_cast<uintptr_t>(w.panels) % 16 == 0 &&
         has(w.panels, columns * w.words * sizeof(unsigned)) && has_floats(w.bias, columns) &&
         (w.kind != kByte || (has_floats(w.scale, columns) && has_floats(w.inverse, 1)));
}

// That thread blocks cover all columns and no warp has more sums than it holds.
bool covers(const Cover& c, int tiles, bool all_at_once) {
  const int high = c.rows / kGroupWidth;
  const int groups = (c.width + 7) / 8 * ((c.height + high - 1) / high);
  const int most = kWarpTiles * kWarps / (c.rows > 16 ? 2 : 1);
  return c.spans * c.span >= groups && c.splits * c.columns >= tiles && (!all_at_once || c.columns <= most);
}

size_t pixels_of(const Cover& c) { return static_cast<size_t>(c.width) * c.height; }

bool has_sets(const Set* sets, int count, int pixels, unsigned images) {
  if (!has(sets, static_cast<size_t>(count) * sizeof(Set))) return false;
  for (int i = 0; i < count; ++i) {
    const Set& s = sets[i];
    const size_t size = static_cast<size_t>(pixels) * s.channels;
    if (!has_floats(s.from, (images - 1) * s.from_stride + size) ||
        (s.scale != nullptr && !has_floats(s.scale, s.channels)) ||
        (s.moments != nullptr && !has_floats(s.moments, 2 * images))) {
      return false;
    }
  }
  return true;
}

template <class Descriptor, void (*kKernel)(const Descriptor*), bool (*kLeadsInside)(const Descriptor&, unsigned)>
Kernel kernel(const char* name) {
  return {name, sizeof(Descriptor), [](const void* d) { kKernel(static_cast<const Descriptor*>(d)); },
          [](const void* d, unsigned images) {
            return kLeadsInside(*static_cast<const Descriptor*>(d), images);
          }};
}

bool check_stem(const Stem& d, unsigned images) {
  const size_t pixels = pixels_of(d.cover);
  return covers(d.cover, 1, true) && has_floats(d.image, images * d.image_stride) &&
         has(d.bands, d.band_count * sizeof(int)) && has_floats(d.scales, d.band_count) &&
         has_floats(d.weights, static_cast<size_t>(16) * d.band_count * d.channels) &&
         has_floats(d.gamma, d.channels) && has_floats(d.beta, d.channels) &&
         has_floats(d.out, (images - 1) * d.out_stride + pixels * d.channels);
}

bool check_downsample(const Downsample& d, unsigned images) {
  const size_t pixels = pixels_of(d.cover);
  return covers(d.cover, d.weights.tiles, true) && has_weights(d.weights) &&
         has_floats(d.in, (images - 1) * d.in_stride + 4 * pixels * d.in_channels) &&
         has_floats(d.out, (images - 1) * d.out_stride + pixels * d.channels);
}

bool check_block(const Block& d, unsigned images) {
  const size_t pixels = pixels_of(d.front);
  const size_t element = d.hidden_kind == kHiddenFloat ? 4 : 2;
  const size_t hidden = pixels * d.hidden_channels * element;
  const size_t squares = static_cast<size_t>(d.partials) * d.hidden_channels;
  return covers(d.front, d.fc1.tiles, false) && covers(d.back, d.fc2.tiles, true) && has_weights(d.fc1) &&
         has_weights(d.fc2) && has_floats(d.depthwise, static_cast<size_t>(49) * d.channels) &&
         has_floats(d.grn, d.hidden_channels) && d.hidden_stride >= hidden && d.squares_stride >= squares &&
         d.partials == d.front.spans * (d.front.rows > 16 ? 2 : 1) &&
         has_floats(d.pixels, (images - 1) * d.pixels_stride + pixels * d.channels) &&
         has(d.hidden, images * d.hidden_stride) && has_floats(d.squares, images * d.squares_stride);
}

bool check_moments(const Moments& d, unsigned images) {
  return has_floats(d.set.moments, 2 * images) &&
         has_floats(d.set.from, (images - 1) * d.set.from_stride + static_cast<size_t>(d.pixels) * d.set.channels);
}

bool check_mix(const Mix& d, unsigned images) {
  return has_sets(d.sets, d.set_count, d.pixels, images) && has_weights(d.weights) &&
         d.columns * d.splits >= d.weights.tiles && d.columns <= kWarpTiles * kWarps / 2 &&
         has_floats(d.out, (images - 1) * d.out_stride + static_cast<size_t>(d.pixels) * d.channels);
}

bool check_combination(const Combination& d, unsigned images) {
  return has_sets(d.sets, d.set_count, d.pixels, images) && has_floats(d.out, images * d.out_stride);
}

Kernel g_kernels[] = {
    kernel<Stem, eosfm_stem, check_stem>("eosfm_stem"),
    kernel<Downsample, eosfm_downsample, check_downsample>("eosfm_downsample"),
    kernel<Block, eosfm_block_front, check_block>("eosfm_block_front"),
    kernel<Block, eosfm_block_back, check_block>("eosfm_block_back"),
    kernel<Moments, eosfm_moments, check_moments>("eosfm_moments"),
    kernel<Mix, eosfm_mix, check_mix>("eosfm_mix"),
    kernel<Combination, eosfm_combine, check_combination>("eosfm_combine"),
};

template <class Handle>
void give(Handle* handle, int mark) {
  *handle = reinterpret_cast<Handle>(&g_marks[mark]);
  ++standin.open;
}

// The result of a call that comes in: what it was set to fail with, or what its caller forgot.
int enter(bool needs_context) {
  const int call = standin.calls++;
  if (standin.fail_at >= 0 && call >= standin.fail_at && call - standin.fail_at < standin.fail_count) {
    return standin.fail_with;
  }
  if (!g_initialised) return kNotInitialised;
  if (needs_context && g_current == 0) {
    misuse("a call without a context");
    return kInvalidContext;
  }
  return 0;
}

// Now, or when the graph runs that is being recorded.
int act(const std::function<void()>& what) {
  if (g_capture != nullptr) {
    g_capture->push_back(what);
  } else {
    what();
  }
  return 0;
}

void launch(const Kernel& k, const shim::Launch& grid, const char* descriptors) {
  ++standin.launches;
  for (unsigned y = 0; y < grid.grid.y; ++y) {
    if (!k.leads_inside(descriptors + y * k.descriptor_bytes, grid.grid.z)) {
      misuse((std::string("a descriptor of ") + k.name + " does not fit what is allocated").c_str());
      return;
    }
  }
  shim::Options options;
  options.schedule = static_cast<shim::Schedule>(standin.schedule);
  if (!shim::run(grid, options, [&] { k.run(descriptors); })) misuse("threads wait forever");
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int
#define ENTER(needs_context) \
  if (const int result = enter(needs_context)) return result

API cuInit(unsigned) {
  g_initialised = true;
  ENTER(false);
  return 0;
}
API cuDriverGetVersion(int* version) {
  *version = standin.driver;
  g_initialised = true;  // it needs none
  ENTER(false);
  return 0;
}
API cuDeviceGetCount(int* count) {
  ENTER(false);
  *count = standin.devices;
  return standin.devices > 0 ? 0 : eosfm::kCuNoDevice;
}
API cuDeviceGet(int* device, int index) {
  ENTER(false);
  *device = index;
  return index < standin.devices ? 0 : kInvalidDevice;
}
API cuDeviceGetName(char* name, int size, int) {
  ENTER(false);
  std::snprintf(name, static_cast<size_t>(size), "Stand-in");
  return 0;
}
API cuDeviceGetAttribute(int* value, int attribute, int) {
  ENTER(false);
  switch (attribute) {
    case eosfm::kCuMajor: *value = standin.compute / 10; return 0;
    case eosfm::kCuMinor: *value = standin.compute % 10; return 0;
    case eosfm::kCuMostShared: *value = standin.most_shared; return 0;
    default: return kInvalidValue;
  }
}
API cuDevicePrimaryCtxRetain(void** context, int) {
  ENTER(false);
  ++g_contexts;
  give(context, 0);
  return 0;
}
API cuDevicePrimaryCtxRelease_v2(int) {
  if (g_contexts-- <= 0) misuse("a context is released once too often");
  --standin.open;
  return 0;
}
API cuCtxPushCurrent_v2(void*) {
  ENTER(false);
  ++g_current;
  return 0;
}
API cuCtxPopCurrent_v2(void**) {
  if (g_current-- <= 0) misuse("a context is popped that was not pushed");
  return 0;
}
API cuModuleLoadData(void** module, const char* image) {
  ENTER(true);
  const bool is_elf = std::memcmp(image, "\x7f" "ELF", 4) == 0;
  if (!is_elf && std::strstr(image, ".version") == nullptr) return kInvalidImage;
  give(module, 1);
  return 0;
}
API cuModuleUnload(void*) {
  --standin.open;
  return 0;
}
API cuModuleGetFunction(void** function, void*, const char* name) {
  ENTER(true);
  for (Kernel& one : g_kernels) {
    if (std::strcmp(one.name, name) != 0) continue;
    one.dynamic_shared = 0;
    *function = &one;
    return 0;
  }
  return kNotFound;
}
API cuFuncSetAttribute(void* function, int attribute, int value) {
  ENTER(true);
  if (attribute != eosfm::kCuDynamicShared || value > standin.most_shared) return kInvalidValue;
  static_cast<Kernel*>(function)->dynamic_shared = value;
  return 0;
}
API cuMemGetInfo_v2(size_t* available, size_t* total) {
  ENTER(true);
  *available = standin.memory;
  *total = standin.memory;
  return 0;
}
API cuMemAlloc_v2(unsigned long long* pointer, size_t bytes) {
  ENTER(true);
  if (bytes > standin.memory) return eosfm::kCuOutOfMemory;
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(memory, 0xff, bytes);
  g_device[static_cast<char*>(memory)] = bytes;
  ++standin.open;
  *pointer = reinterpret_cast<uintptr_t>(memory);
  return 0;
}
API cuMemFree_v2(unsigned long long pointer) {
  if (g_device.erase(device_pointer(pointer)) == 0) misuse("memory is freed that is not allocated");
  std::free(const_cast<char*>(device_pointer(pointer)));
  --standin.open;
  return 0;
}
API cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
  ENTER(true);
  *pointer = std::malloc(bytes);
  std::memset(*pointer, 0xff, bytes);
  g_host[static_cast<char*>(*pointer)] = bytes;
  ++standin.open;
  return 0;
}
API cuMemFreeHost(void* pointer) {
  if (g_host.erase(static_cast<char*>(pointer)) == 0) misuse("memory is freed that is not allocated");
  std::free(pointer);
  --standin.open;
  return 0;
}
API cuMemcpyHtoD_v2(unsigned long long to, const void* from, size_t bytes) {
  ENTER(true);
  if (!inside(g_device, device_pointer(to), bytes)) {
    misuse("a copy to the device beyond what is allocated");
    return kInvalidValue;
  }
  std::memcpy(const_cast<char*>(device_pointer(to)), from, bytes);
  g_pending = true;
  return 0;
}
API cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void*) {
  ENTER(true);
  if (!inside(g_device, device_pointer(to), bytes) || !inside(g_host, from, bytes)) {
    misuse("a copy to the device beyond what is allocated");
    return kInvalidValue;
  }
  return act([=] { std::memcpy(const_cast<char*>(device_pointer(to)), from, bytes); });
}
API cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) {
  ENTER(true);
  if (!inside(g_device, device_pointer(from), bytes) || !inside(g_host, to, bytes)) {
    misuse("a copy from the device beyond what is allocated");
    return kInvalidValue;
  }
  return act([=] { std::memcpy(to, device_pointer(from), bytes); });
}
API cuMemsetD8_v2(unsigned long long to, unsigned char value, size_t bytes) {
  ENTER(true);
  if (!inside(g_device, device_pointer(to), bytes)) {
    misuse("memory is set beyond what is allocated");
    return kInvalidValue;
  }
  std::memset(const_cast<char*>(device_pointer(to)), value, bytes);
  g_pending = true;
  return 0;
}
API cuStreamCreate(void** stream, unsigned) {
  ENTER(true);
  give(stream, 2);
  return 0;
}
API cuStreamDestroy_v2(void*) {
  if (g_capture != nullptr) misuse("a stream is destroyed that records");
  --standin.open;
  return 0;
}
API cuStreamSynchronize(void* stream) {
  ENTER(true);
  if (stream == nullptr) g_pending = false;
  return 0;
}
API cuStreamBeginCapture_v2(void*, int) {
  ENTER(true);
  g_capture = new std::vector<std::function<void()>>;
  return 0;
}
API cuStreamEndCapture(void*, void** graph) {
  auto* recorded = g_capture;
  g_capture = nullptr;
  *graph = nullptr;
  const int result = enter(true);
  if (result != 0) {
    delete recorded;
    return result;
  }
  *graph = recorded;
  ++standin.open;
  return 0;
}
API cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
  ENTER(true);
  *exec = new std::vector<std::function<void()>>(*static_cast<std::vector<std::function<void()>>*>(graph));
  ++standin.open;
  return 0;
}
API cuGraphDestroy(void* graph) {
  delete static_cast<std::vector<std::function<void()>>*>(graph);
  --standin.open;
  return 0;
}
API cuGraphExecDestroy(void* exec) {
  delete static_cast<std::vector<std::function<void()>>*>(exec);
  --standin.open;
  return 0;
}
API cuGraphLaunch(void* exec, void*) {
  ENTER(true);
  if (g_pending) misuse("a graph starts before copies on the default stream end");
  for (const auto& one : *static_cast<std::vector<std::function<void()>>*>(exec)) one();
  return 0;
}
API cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared, void*, void** arguments, void**) {
  ENTER(true);
  const Kernel& k = *static_cast<Kernel*>(function);
  const char* descriptors = nullptr;
  std::memcpy(&descriptors, arguments[0], sizeof descriptors);
  const size_t allowed = k.dynamic_shared > 0 ? static_cast<size_t>(k.dynamic_shared) : kSharedWithoutAsking;
  if (x == 0 || y == 0 || y > 65535 || z == 0 || threads != kThreads || shared > allowed ||
      !inside(g_device, descriptors, y * k.descriptor_bytes)) {
    misuse((std::string("a launch of ") + k.name + " that does not fit").c_str());
    return kInvalidValue;
  }
  return act([&k, x, y, z, threads, shared, descriptors] {
    launch(k, {{x, y, z}, threads, shared}, descriptors);
  });
}
API cuGetErrorName(int, const char** text) {
  *text = "CUDA_ERROR_STANDIN";
  return 0;
}
API cuGetErrorString(int result, const char** text) {
  *text = result == 719 ? "unspecified launch failure" : "as it was set";
  return 0;
}
