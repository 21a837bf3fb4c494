#include "engine.h"

#include <stdio.h>
#include <string.h>

#include "code.h"

namespace eosfm {
namespace {

// How far rounding may take a level from the known answer, relative to its largest value: operands are
// rounded to halves, and sums are in another order than where the answer was made.
constexpr float kHalfTolerance = 1e-2F;
constexpr float kFloatTolerance = 1e-4F;

// The GPU's context is the calling thread's only inside a call: the host may have its own.
class Current {
 public:
  Current(const CudaDriver& driver, CuContext context)
      : driver_(driver), result_(driver.push_context(context)) {}
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  ~Current() {
    CuContext ignored = nullptr;
    if (result_ == 0) driver_.pop_context(&ignored);
  }
  CuResult result() const { return result_; }

 private:
  const CudaDriver& driver_;
  CuResult result_;
};

// cuda, cuda-INDEX, and either with -fp32 behind it.
bool parse_name(const char* name, int* index, bool* all_float) {
  *index = 0;
  *all_float = false;
  if (strncmp(name, "cuda", 4) != 0) return false;
  name += 4;
  int used = 0;
  if (sscanf(name, "-%3d%n", index, &used) == 1 && *index >= 0) name += used;
  *all_float = strcmp(name, "-fp32") == 0;
  return *all_float || *name == '\0';
}

CuPointer address_of(const void* pointer) {
  return static_cast<CuPointer>(reinterpret_cast<uintptr_t>(pointer));
}

}  // namespace

CudaEngine::~CudaEngine() {
  if (context_ == nullptr) return;
  {
    const Current current(driver_, context_);
    if (graph_ != nullptr) driver_.destroy_exec(graph_);
    if (stream_ != nullptr) driver_.destroy_stream(stream_);
    if (host_ != nullptr) driver_.release_host(host_);
    if (arena_ != 0) driver_.release(arena_);
    if (module_ != nullptr) driver_.unload_module(module_);
  }
  driver_.release_context(device_);
}

eosfm_status CudaEngine::open(const eosfm_backend_request& request, ErrorText& error) {
  eosfm_model model;
  eosfm_status status = model.files.set_memory(request.files, request.file_count, error);
  if (status == EOSFM_OK) status = model.load(kGpuPacking, error);
  if (status != EOSFM_OK) return status;
  status = choose(request.name, error);
  if (status == EOSFM_OK) status = driver_.load(request.library, error);
  if (status != EOSFM_OK) return status;

  int count = 0;
  const CuResult counted = driver_.device_count(&count);
  if (counted != kCuNoDevice && !driver_.succeeded(counted, "counting GPUs", error)) {
    return EOSFM_UNSUPPORTED;
  }
  if (device_index_ >= count) {
    return error.fail(EOSFM_UNSUPPORTED, "there is no GPU %d: the NVIDIA driver has %d", device_index_,
                      count);
  }
  CuContext context = nullptr;
  if (!driver_.succeeded(driver_.device(&device_, device_index_), "opening the GPU", error) ||
      !driver_.succeeded(driver_.device_name(device_name_, sizeof device_name_, device_),
                         "asking for the GPU's name", error) ||
      !driver_.succeeded(driver_.retain_context(&context, device_), "making the GPU's context", error)) {
    return EOSFM_UNSUPPORTED;
  }
  context_ = context;
  const Current current(driver_, context_);
  if (!driver_.succeeded(current.result(), "taking the GPU's context", error)) return EOSFM_UNSUPPORTED;
  status = load_code(error);
  if (status == EOSFM_OK) status = make_arena(model, error);
  if (status == EOSFM_OK) status = set_functions(error);
  if (status == EOSFM_OK) status = record(error);
  for (int l = 0; l < kLevels; ++l) {
    const float least = all_float_ ? kFloatTolerance : kHalfTolerance;
    if (request.tolerance[l] < least) request.tolerance[l] = least;
  }
  return status;
}

eosfm_status CudaEngine::choose(const char* name, ErrorText& error) {
  if (parse_name(name, &device_index_, &all_float_)) return EOSFM_OK;
  return error.fail(EOSFM_BAD_ARGUMENT, "the backend is %s, expected cuda, cuda-INDEX of a GPU, and "
                    "either followed by -fp32", name);
}

eosfm_status CudaEngine::load_code(ErrorText& error) {
  int major = 0;
  int minor = 0;
  if (!driver_.succeeded(driver_.device_attribute(&major, kCuMajor, device_), "asking what the GPU is",
                         error) ||
      !driver_.succeeded(driver_.device_attribute(&minor, kCuMinor, device_), "asking what the GPU is",
                         error)) {
    return EOSFM_UNSUPPORTED;
  }
  const GpuCode* code = choose_code(kGpuCode, kGpuCodeCount, 10 * major + minor, driver_.version);
  if (code == nullptr && kGpuCodeCount == 0) {
    return error.fail(EOSFM_UNSUPPORTED, "libeosfm_cuda.so was built without machine code; fix: build it "
                      "where NVRTC is (pip install nvidia-cuda-nvrtc-cu12)");
  }
  if (code == nullptr) {
    return error.fail(EOSFM_UNSUPPORTED, "there is no code for the %s, of compute capability %d.%d, and "
                      "the driver's CUDA %d.%d; expected compute capability 8.0 or later", device_name_,
                      major, minor, driver_.version / 1000, driver_.version % 1000 / 10);
  }
  if (!driver_.succeeded(driver_.load_module(&module_, code->bytes), "loading the kernels", error)) {
    return EOSFM_UNSUPPORTED;
  }
  return EOSFM_OK;
}

// Finds the kernels, and lets them have the shared memory that the plan wants.
eosfm_status CudaEngine::set_functions(ErrorText& error) {
  int most = 0;
  if (!driver_.succeeded(driver_.device_attribute(&most, kCuMostShared, device_),
                         "asking for its shared memory", error)) {
    return EOSFM_UNSUPPORTED;
  }
  for (int k = 0; k < kGpuKernels; ++k) {
    const size_t shared = plan_.shared_bytes(static_cast<GpuKernel>(k));
    if (shared > static_cast<size_t>(most)) {
      return error.fail(EOSFM_UNSUPPORTED, "%s needs %zu bytes of shared memory for these specialists, "
                        "the %s has %d", kGpuKernelNames[k], shared, device_name_, most);
    }
    if (!driver_.succeeded(driver_.function(&functions_[k], module_, kGpuKernelNames[k]),
                           "finding a kernel", error) ||
        !driver_.succeeded(driver_.set_function_attribute(functions_[k], kCuDynamicShared,
                                                          static_cast<int>(shared)),
                           "setting a kernel's shared memory", error)) {
      return EOSFM_UNSUPPORTED;
    }
  }
  return EOSFM_OK;
}

eosfm_status CudaEngine::make_arena(const eosfm_model& model, ErrorText& error) {
  eosfm_status status = plan_.shape(model, 1, all_float_, error);
  if (status != EOSFM_OK) return status;
  size_t host_bytes = plan_.image_bytes();
  for (int l = 0; l < kLevels; ++l) {
    level_offsets_[l] = host_bytes;
    host_bytes += plan_.level_bytes(l);
  }
  const CuResult allocated = driver_.allocate(&arena_, plan_.arena_bytes());
  if (allocated != 0) {
    arena_ = 0;
    size_t available = 0;
    size_t total = 0;
    driver_.memory_info(&available, &total);
    driver_.succeeded(allocated, "allocating memory", error);
    return allocated == kCuOutOfMemory
               ? error.fail(EOSFM_NO_MEMORY, "the plan needs %zu MB of the %s's memory, %zu of %zu MB "
                            "are free", plan_.arena_bytes() >> 20, device_name_, available >> 20,
                            total >> 20)
               : EOSFM_UNSUPPORTED;
  }
  void* host = nullptr;
  if (!driver_.succeeded(driver_.allocate_host(&host, host_bytes, 0), "allocating pinned memory", error)) {
    return EOSFM_NO_MEMORY;
  }
  host_ = static_cast<char*>(host);
  Block staging;
  if (!staging.allocate(plan_.constant_bytes())) return error.no_memory("the weights");
  status = plan_.fill(model, reinterpret_cast<char*>(arena_), staging.data(), error);
  if (status != EOSFM_OK) return status;
  if (!driver_.succeeded(driver_.copy_in(arena_, staging.data(), plan_.constant_bytes()),
                         "copying the weights", error)) {
    return EOSFM_UNSUPPORTED;
  }
  // Planes that no set of features fills stay zero. All else is written before it is read.
  for (int l = 0; l < kLevels; ++l) {
    if (!driver_.succeeded(driver_.set_bytes(address_of(plan_.level(l)), 0, plan_.level_bytes(l)),
                           "clearing memory", error)) {
      return EOSFM_UNSUPPORTED;
    }
  }
  // All of this was on the default stream, for which the engine's own does not wait.
  return driver_.succeeded(driver_.synchronize(nullptr), "copying the weights", error) ? EOSFM_OK
                                                                                       : EOSFM_UNSUPPORTED;
}

// Records copies and launches once.
eosfm_status CudaEngine::record(ErrorText& error) {
  CuGraph graph = nullptr;
  if (!driver_.succeeded(driver_.create_stream(&stream_, kCuNonBlocking), "making a stream", error) ||
      !driver_.succeeded(driver_.begin_capture(stream_, kCuCaptureRelaxed), "recording a graph", error)) {
    return EOSFM_UNSUPPORTED;
  }
  const bool enqueued = enqueue(error);
  ErrorText ignored;
  // Ends in any case; the reason is that of the first failure.
  const bool ended = driver_.succeeded(driver_.end_capture(stream_, &graph), "recording a graph",
                                       enqueued ? error : ignored);
  const bool made = enqueued && ended &&
                    driver_.succeeded(driver_.instantiate(&graph_, graph, 0), "making a graph", error);
  if (graph != nullptr) driver_.destroy_graph(graph);
  return made ? EOSFM_OK : EOSFM_UNSUPPORTED;
}

bool CudaEngine::enqueue(ErrorText& error) {
  bool ok = driver_.succeeded(
      driver_.copy_in_async(address_of(plan_.image()), host_, plan_.image_bytes(), stream_),
      "copying the image", error);
  for (int i = 0; ok && i < plan_.launch_count(); ++i) {
    const GpuLaunch& one = plan_.launch(i);
    const void* descriptors = one.descriptors;
    void* arguments[] = {&descriptors};
    ok = driver_.succeeded(
        driver_.launch(functions_[static_cast<int>(one.kernel)], one.thread_blocks, one.descriptor_count,
                       static_cast<unsigned>(plan_.batch()), gpu::kThreads, 1, 1,
                       static_cast<unsigned>(one.shared_bytes), stream_, arguments, nullptr),
        kGpuKernelNames[static_cast<int>(one.kernel)], error);
  }
  for (int l = 0; ok && l < kLevels; ++l) {
    ok = driver_.succeeded(driver_.copy_out_async(host_ + level_offsets_[l], address_of(plan_.level(l)),
                                                  plan_.level_bytes(l), stream_),
                           "copying the levels", error);
  }
  return ok;
}

bool CudaEngine::run(ErrorText& error) {
  const Current current(driver_, context_);
  return driver_.succeeded(current.result(), "taking the GPU's context", error) &&
         driver_.succeeded(driver_.launch_graph(graph_, stream_), "starting an image", error) &&
         driver_.succeeded(driver_.synchronize(stream_), "computing an image", error);
}

bool CudaEngine::compute(const float* image, float* const* levels) {
  memcpy(host_, image, plan_.image_bytes());
  if (!run(error_)) return false;
  for (int l = 0; l < kLevels; ++l) memcpy(levels[l], host_ + level_offsets_[l], plan_.level_bytes(l));
  return true;
}

}  // namespace eosfm
