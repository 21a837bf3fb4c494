// A stand-in for libcuda.so.1: it runs the kernels on the CPU and checks how it is called.
//
// Memory of the "device" is the heap's, so that the address sanitizer watches it, and begins as NaN.
// Every copy must lie inside one allocation, every launch must fit the descriptors it is given, and every
// pointer in them must lead into an allocation. Each call can be made to fail.
//
// Streams are as lazy as they may be: a graph runs when its stream is waited for, or was asked for often
// enough. So a host that writes an image or reads a level too early has wrong levels. Of each graph it is
// known what it reads and writes: when one starts while one of another stream is under way, neither may write
// what the other reads or writes.
#include "standin.h"

#include <algorithm>
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
void eosfm_stem(const eosfm::gpu::Stem*, unsigned);
void eosfm_downsample(const eosfm::gpu::Downsample*, unsigned);
void eosfm_block_front(const eosfm::gpu::Block*, unsigned);
void eosfm_block_back(const eosfm::gpu::Block*, unsigned);
void eosfm_moments(const eosfm::gpu::Moments*, unsigned);
void eosfm_mix(const eosfm::gpu::Mix*, unsigned);
void eosfm_combine(const eosfm::gpu::Combination*, unsigned);
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
bool g_pending = false;  // work on the default stream, for which other streams do not wait

struct Range {
  const char* begin;
  const char* end;
};

// What something reads and writes.
struct Touched {
  std::vector<Range> reads;
  std::vector<Range> writes;
};

struct Graph {
  std::vector<std::function<void()>> work;
  Touched touched;
};

struct Stream {
  std::vector<Graph*> under_way;
  int queries = 0;
};

std::vector<Stream*> g_streams;
Graph* g_capture = nullptr;
Touched* g_touched = nullptr;  // where the checks below note what they see

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

// The images of a launch.
struct Images {
  unsigned first;
  unsigned count;
};

// A kernel of the table: runs for one descriptor, of which it checks all pointers.
struct Kernel {
  const char* name;
  size_t descriptor_bytes;
  void (*run)(const void*, unsigned first);
  bool (*leads_inside)(const void* descriptor, Images images);
  int dynamic_shared = 0;
};

bool note(std::vector<Range> Touched::* list, const void* pointer, size_t bytes) {
  const char* at = static_cast<const char*>(pointer);
  if (g_touched != nullptr && bytes > 0) (g_touched->*list).push_back({at, at + bytes});
  // Where CPU and GPU share their memory, pinned memory is the GPU's too.
  return inside(g_device, pointer, bytes) || (standin.integrated != 0 && inside(g_host, pointer, bytes));
}

bool reads(const void* pointer, size_t bytes) { return note(&Touched::reads, pointer, bytes); }
bool reads_floats(const float* pointer, size_t count) { return reads(pointer, count * sizeof(float)); }

// `size` floats of each image, which lie `stride` apart.
bool reads_images(const float* pointer, size_t stride, size_t size, Images images) {
  return size <= stride && reads_floats(pointer + images.first * stride, (images.count - 1) * stride + size);
}
bool writes_images(const float* pointer, size_t stride, size_t size, Images images) {
  return size <= stride && note(&Touched::writes, pointer + images.first * stride,
                                ((images.count - 1) * stride + size) * sizeof(float));
}

bool has_weights(const Weights& w) {
  const size_t columns = 8 * static_cast<size_t>(w.tiles);
  return w.words % 16 == 0 && reinterpret_cast<uintptr_t>(w.panels) % 16 == 0 &&
         reads(w.panels, columns * w.words * sizeof(unsigned)) && reads_floats(w.bias, columns) &&
         (w.kind != kByte || (reads_floats(w.scale, columns) && reads_floats(w.inverse, 1)));
}

// That thread blocks cover all columns and no warp has more sums than it holds.
bool covers(const Cover& c, int tiles, bool all_at_once) {
  const int high = c.rows / kGroupWidth;
  const int groups = (c.width + 7) / 8 * ((c.height + high - 1) / high);
  const int most = kWarpTiles * kWarps / (c.rows > 16 ? 2 : 1);
  return c.spans * c.span >= groups && c.splits * c.columns >= tiles && (!all_at_once || c.columns <= most);
}

size_t pixels_of(const Cover& c) { return static_cast<size_t>(c.width) * c.height; }

bool reads_set(const Set& s, int pixels, Images images) {
  const size_t channels = static_cast<size_t>(s.channels);
  return reads_images(s.from, s.from_stride, pixels * channels, images) &&
         (s.scale == nullptr || reads_floats(s.scale, channels)) &&
         (s.shift == nullptr || reads_floats(s.shift, channels));
}

bool reads_sets(const Set* sets, int count, int pixels, Images images) {
  if (!reads(sets, static_cast<size_t>(count) * sizeof(Set))) return false;
  for (int i = 0; i < count; ++i) {
    if (!reads_set(sets[i], pixels, images) ||
        (sets[i].moments != nullptr && !reads_images(sets[i].moments, 2, 2, images))) {
      return false;
    }
  }
  return true;
}

template <class Descriptor, void (*kKernel)(const Descriptor*, unsigned),
          bool (*kLeadsInside)(const Descriptor&, Images)>
Kernel kernel(const char* name) {
  return {name, sizeof(Descriptor), [](const void* d, unsigned first) {
    kKernel(static_cast<const Descriptor*>(d), first);
  }, [](const void* d, Images images) { return kLeadsInside(*static_cast<const Descriptor*>(d), images); }};
}

bool check_stem(const Stem& d, Images images) {
  const size_t pixels = pixels_of(d.cover);
  return covers(d.cover, 1, true) && reads_images(d.image, d.image_stride, d.image_stride, images) &&
         reads(d.bands, d.band_count * sizeof(int)) && reads_floats(d.scales, d.band_count) &&
         reads_floats(d.offsets, d.band_count) &&
         reads_floats(d.weights, static_cast<size_t>(16) * d.band_count * d.channels) &&
         reads_floats(d.bias, d.channels) && reads_floats(d.gamma, d.channels) &&
         reads_floats(d.beta, d.channels) && writes_images(d.out, d.out_stride, pixels * d.channels, images);
}

bool check_downsample(const Downsample& d, Images images) {
  const size_t pixels = pixels_of(d.cover);
  return covers(d.cover, d.weights.tiles, true) && has_weights(d.weights) &&
         reads_images(d.in, d.in_stride, 4 * pixels * d.in_channels, images) &&
         writes_images(d.out, d.out_stride, pixels * d.channels, images);
}

bool check_block(const Block& d, Images images) {
  const size_t pixels = pixels_of(d.front);
  const size_t element = d.hidden_kind == kHiddenFloat ? 4 : 2;
  const size_t hidden = pixels * d.hidden_channels * element;
  const size_t squares = static_cast<size_t>(d.partials) * d.hidden_channels;
  return covers(d.front, d.fc1.tiles, false) && covers(d.back, d.fc2.tiles, true) && has_weights(d.fc1) &&
         has_weights(d.fc2) && reads_floats(d.depthwise, static_cast<size_t>(49) * d.channels) &&
         reads_floats(d.depthwise_bias, d.channels) && reads_floats(d.grn, d.hidden_channels) &&
         d.partials == d.front.spans * (d.front.rows > 16 ? 2 : 1) && d.hidden_stride % sizeof(float) == 0 &&
         writes_images(d.pixels, d.pixels_stride, pixels * d.channels, images) &&
         writes_images(static_cast<float*>(d.hidden), d.hidden_stride / sizeof(float),
                       (hidden + 3) / sizeof(float), images) &&
         writes_images(d.squares, d.squares_stride, squares, images);
}

bool check_moments(const Moments& d, Images images) {
  return reads_set(d.set, d.pixels, images) && writes_images(d.set.moments, 2, 2, images);
}

bool check_mix(const Mix& d, Images images) {
  return reads_sets(d.sets, d.set_count, d.pixels, images) && has_weights(d.weights) &&
         d.columns * d.splits >= d.weights.tiles && d.columns <= kWarpTiles * kWarps / 2 &&
         writes_images(d.out, d.out_stride, static_cast<size_t>(d.pixels) * d.channels, images);
}

bool check_combination(const Combination& d, Images images) {
  return reads_sets(d.sets, d.set_count, d.pixels, images) &&
         writes_images(d.out, d.out_stride, d.out_stride, images);
}

Kernel g_kernels[] = {
    kernel<Stem, eosfm_stem, check_stem>("eosfm_stem"),
    kernel<Downsample, eosfm_downsample, check_downsample>("eosfm_downsample"),
    kernel<Block, eosfm_block_front, check_block>("eosfm_block_front"),
    kernel<Block, eosfm_block_back, check_block>("eosfm_block_back"),
    kernel<Moments, eosfm_moments, check_moments>("eosfm_moments"),
    kernel<Mix, eosfm_mix, check_mix>("eosfm_mix"),
    kernel<Combination, eosfm_combine, check_combination>("eosfm_combine"),
    // Of benchmarks/gpu/driver.py, which times launches alone.
    {"nothing", 0, [](const void*, unsigned) {}, [](const void*, Images) { return true; }},
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

// When the graph runs that is being recorded; the engine's streams have nothing else.
int record(const std::function<void()>& what) {
  if (g_capture == nullptr) {
    misuse("work beside a graph");
    return kInvalidValue;
  }
  g_capture->work.push_back(what);
  return 0;
}

// Notes what is read and written while it lives.
struct Noting {
  Noting() { g_touched = g_capture != nullptr ? &g_capture->touched : nullptr; }
  ~Noting() { g_touched = nullptr; }
};

void launch(const Kernel& k, const shim::Launch& grid, const char* descriptors, unsigned first) {
  ++standin.launches;
  shim::Options options;
  options.schedule = static_cast<shim::Schedule>(standin.schedule);
  if (!shim::run(grid, options, [&] { k.run(descriptors, first); })) misuse("threads wait forever");
}

bool overlap(const std::vector<Range>& some, const std::vector<Range>& others) {
  for (const Range& one : some) {
    for (const Range& other : others) {
      if (one.begin < other.end && other.begin < one.end) return true;
    }
  }
  return false;
}

bool conflict(const Touched& one, const Touched& other) {
  return overlap(one.writes, other.writes) || overlap(one.writes, other.reads) ||
         overlap(one.reads, other.writes);
}

void sort_out(std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> merged;
  for (const Range& one : ranges) {
    if (!merged.empty() && one.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, one.end);
    } else {
      merged.push_back(one);
    }
  }
  ranges = merged;
}

void run_all(Stream& stream) {
  for (const Graph* graph : stream.under_way) {
    for (const auto& one : graph->work) one();
  }
  stream.under_way.clear();
  stream.queries = 0;
}

bool anything_under_way() {
  for (const Stream* stream : g_streams) {
    if (!stream->under_way.empty()) return true;
  }
  return false;
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
API cuDeviceTotalMem_v2(size_t* bytes, int) {
  ENTER(false);
  *bytes = standin.memory;
  return 0;
}
API cuDeviceGetAttribute(int* value, int attribute, int) {
  ENTER(false);
  switch (attribute) {
    case eosfm::kCuMajor: *value = standin.compute / 10; return 0;
    case eosfm::kCuMinor: *value = standin.compute % 10; return 0;
    case eosfm::kCuMostShared: *value = standin.most_shared; return 0;
    case eosfm::kCuMultiprocessors: *value = standin.multiprocessors; return 0;
    case eosfm::kCuIntegrated: *value = standin.integrated; return 0;
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
  const bool is_elf = std::memcmp(image,
                                  "\x7f"
                                  "ELF",
                                  4) == 0;
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
  standin.device_bytes += bytes;
  ++standin.open;
  *pointer = reinterpret_cast<uintptr_t>(memory);
  return 0;
}
API cuMemFree_v2(unsigned long long pointer) {
  if (anything_under_way()) misuse("memory is freed that is in use");
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
  standin.pinned_bytes += bytes;
  ++standin.open;
  return 0;
}
API cuMemFreeHost(void* pointer) {
  if (anything_under_way()) misuse("memory is freed that is in use");
  if (g_host.erase(static_cast<char*>(pointer)) == 0) misuse("memory is freed that is not allocated");
  std::free(pointer);
  --standin.open;
  return 0;
}
API cuMemHostGetDevicePointer_v2(unsigned long long* pointer, void* host, unsigned) {
  ENTER(true);
  if (!inside(g_host, host, 1)) return kInvalidValue;
  *pointer = reinterpret_cast<uintptr_t>(host);
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
  const Noting noting;
  if (!note(&Touched::writes, device_pointer(to), bytes) || !inside(g_host, from, bytes)) {
    misuse("a copy to the device beyond what is allocated");
    return kInvalidValue;
  }
  reads(from, bytes);
  return record([=] { std::memcpy(const_cast<char*>(device_pointer(to)), from, bytes); });
}
API cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) {
  ENTER(true);
  const Noting noting;
  if (!reads(device_pointer(from), bytes) || !inside(g_host, to, bytes)) {
    misuse("a copy from the device beyond what is allocated");
    return kInvalidValue;
  }
  note(&Touched::writes, to, bytes);
  return record([=] { std::memcpy(to, device_pointer(from), bytes); });
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
  g_streams.push_back(new Stream);
  *stream = g_streams.back();
  ++standin.open;
  return 0;
}
API cuStreamDestroy_v2(void* stream) {
  if (g_capture != nullptr) misuse("a stream is destroyed that records");
  if (!static_cast<Stream*>(stream)->under_way.empty()) misuse("a stream is destroyed with work under way");
  g_streams.erase(std::find(g_streams.begin(), g_streams.end(), static_cast<Stream*>(stream)));
  delete static_cast<Stream*>(stream);
  --standin.open;
  return 0;
}
API cuStreamSynchronize(void* handle) {
  auto* stream = static_cast<Stream*>(handle);
  const int result = enter(true);
  if (stream == nullptr) {
    if (result == 0) g_pending = false;
  } else if (result == 0) {
    run_all(*stream);
  } else {
    stream->under_way.clear();  // lost
  }
  return result;
}
API cuStreamQuery(void* handle) {
  auto* stream = static_cast<Stream*>(handle);
  const int result = enter(true);
  if (result != 0) stream->under_way.clear();
  if (result != 0 || stream->under_way.empty()) return result;
  if (stream->queries++ < standin.patience) return eosfm::kCuNotReady;
  run_all(*stream);
  return 0;
}
API cuStreamBeginCapture_v2(void*, int) {
  ENTER(true);
  g_capture = new Graph;
  return 0;
}
API cuStreamEndCapture(void*, void** graph) {
  Graph* recorded = g_capture;
  g_capture = nullptr;
  *graph = nullptr;
  const int result = enter(true);
  if (result != 0) {
    delete recorded;
    return result;
  }
  sort_out(recorded->touched.reads);
  sort_out(recorded->touched.writes);
  *graph = recorded;
  ++standin.open;
  return 0;
}
API cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
  ENTER(true);
  *exec = new Graph(*static_cast<Graph*>(graph));
  ++standin.open;
  return 0;
}
API cuGraphDestroy(void* graph) {
  delete static_cast<Graph*>(graph);
  --standin.open;
  return 0;
}
API cuGraphExecDestroy(void* exec) {
  if (anything_under_way()) misuse("a graph is destroyed that is in use");
  delete static_cast<Graph*>(exec);
  --standin.open;
  return 0;
}
API cuGraphLaunch(void* exec, void* handle) {
  ENTER(true);
  auto* graph = static_cast<Graph*>(exec);
  if (g_pending) misuse("a graph starts before copies on the default stream end");
  int under_way = 1;
  for (const Stream* stream : g_streams) {
    if (stream == handle) continue;
    for (const Graph* other : stream->under_way) {
      ++under_way;
      if (conflict(graph->touched, other->touched)) misuse("two streams touch the same memory");
    }
  }
  if (under_way > standin.most_under_way) standin.most_under_way = under_way;
  static_cast<Stream*>(handle)->under_way.push_back(graph);
  static_cast<Stream*>(handle)->queries = 0;
  return 0;
}
API cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared, void*, void** arguments, void**) {
  ENTER(true);
  const Kernel& k = *static_cast<Kernel*>(function);
  const char* descriptors = nullptr;
  unsigned first = 0;
  std::memcpy(&descriptors, arguments[0], sizeof descriptors);
  std::memcpy(&first, arguments[1], sizeof first);
  const size_t allowed = k.dynamic_shared > 0 ? static_cast<size_t>(k.dynamic_shared) : kSharedWithoutAsking;
  const Noting noting;
  if (x == 0 || y == 0 || y > 65535 || z == 0 || threads != kThreads || shared > allowed ||
      !reads(descriptors, y * k.descriptor_bytes)) {
    misuse((std::string("a launch of ") + k.name + " that does not fit").c_str());
    return kInvalidValue;
  }
  for (unsigned i = 0; i < y; ++i) {
    if (k.leads_inside(descriptors + i * k.descriptor_bytes, {first, z})) continue;
    misuse((std::string("a descriptor of ") + k.name + " does not fit what is allocated").c_str());
    return kInvalidValue;
  }
  return record([&k, x, y, z, threads, shared, descriptors, first] {
    launch(k, {{x, y, z}, threads, shared}, descriptors, first);
  });
}
API cuEventCreate(void** event, unsigned) {
  ENTER(true);
  give(event, 2);
  return 0;
}
API cuEventDestroy_v2(void*) {
  --standin.open;
  return 0;
}
API cuEventRecord(void*, void*) {
  ENTER(true);
  return 0;
}
API cuEventElapsedTime(float* ms, void*, void*) {
  ENTER(true);
  *ms = 0.001F;
  return 0;
}
API cuGetErrorName(int, const char** text) {
  *text = "CUDA_ERROR_STANDIN";
  return 0;
}
API cuGetErrorString(int result, const char** text) {
  *text = result == 719 ? "unspecified launch failure" : "as it was set";
  return 0;
}
