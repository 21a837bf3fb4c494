#include "engine.h"

#include <stdio.h>
#include <string.h>

#include "code.h"

namespace eosfm {
namespace {

// The most that rounding may take a level from the known answer, relative to its largest value: operands are
// rounded to halves, and sums are in another order than where the answer was made.
constexpr float kHalfTolerance = 1e-2F;
constexpr float kFloatTolerance = 1e-4F;

// Images of a batch where the host leaves it to the engine: one image of a small network does not fill a
// large GPU.
constexpr int kDefaultBatch = 4;

// Makes the GPU's context the calling thread's during a call: the host may have its own.
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

// Reads a request's bundle and sets the shapes of the program.
eosfm_status read(const eosfm_backend_request& request, eosfm_model* model, GpuProgram* program, int* index,
                  bool* all_float, ErrorText& error) {
  if (!parse_name(request.name, index, all_float)) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the backend is %s, expected cuda, cuda-INDEX of a GPU, and "
                      "either followed by -fp32",
                      request.name);
  }
  model->memory.set(request.allocator, 0);
  eosfm_status status =
      model->files.set_memory(model->memory.allocator(), request.files, request.file_count, error);
  if (status == EOSFM_OK) status = model->load(kGpuPacking, error);
  if (status != EOSFM_OK) return status;
  return program->shape(*request.allocator, *model, request.batch > 0 ? request.batch : kDefaultBatch,
                        CudaEngine::kSlots, *all_float, error);
}

}  // namespace

CudaEngine::~CudaEngine() {
  if (context_ == nullptr) return;
  {
    const Current current(driver_, context_);
    for (int slot = 0; slot < kSlots; ++slot) {
      if (streams_[slot] != nullptr) driver_.synchronize(streams_[slot]);  // of runs that were abandoned
      for (const CuGraphExec graph : graphs_[slot]) {
        if (graph != nullptr) driver_.destroy_exec(graph);
      }
      if (streams_[slot] != nullptr) driver_.destroy_stream(streams_[slot]);
    }
    if (host_ != nullptr) driver_.release_host(host_);
    if (outside_ != 0 && !is_shared_) driver_.release(outside_);
    if (arena_ != 0) driver_.release(arena_);
    if (module_ != nullptr) driver_.unload_module(module_);
  }
  driver_.release_context(device_);
}

eosfm_status CudaEngine::measure(const eosfm_backend_request& request, eosfm_backend_memory* memory,
                                 ErrorText& error) {
  eosfm_model model;
  GpuProgram program;
  int index = 0;
  bool all_float = false;
  const eosfm_status status = read(request, &model, &program, &index, &all_float, error);
  if (status != EOSFM_OK) return status;
  *memory = {program.arena_bytes() + program.outside_bytes(), program.outside_bytes()};
  return EOSFM_OK;
}

eosfm_status CudaEngine::open(const eosfm_backend_request& request, ErrorText& error) {
  allocator_ = request.allocator;
  eosfm_model model;
  bool all_float = false;
  eosfm_status status = read(request, &model, &program_, &device_index_, &all_float, error);
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
  if (status == EOSFM_OK) status = allocate(request, error);
  if (status == EOSFM_OK) status = fill(model, error);
  if (status == EOSFM_OK) status = set_functions(error);
  for (int slot = 0; status == EOSFM_OK && slot < kSlots; ++slot) {
    if (!driver_.succeeded(driver_.create_stream(&streams_[slot], kCuNonBlocking), "making a stream",
                           error)) {
      return EOSFM_UNSUPPORTED;
    }
    status = record(slot, 1, error);
    if (status == EOSFM_OK && program_.batch() > 1) status = record(slot, program_.batch(), error);
  }
  for (int l = 0; l < kLevels; ++l) {
    const float least = all_float ? kFloatTolerance : kHalfTolerance;
    if (request.tolerance[l] < least) request.tolerance[l] = least;
  }
  return status;
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
    return error.fail(EOSFM_UNSUPPORTED,
                      "there is no code for the %s, of compute capability %d.%d, and "
                      "the driver's CUDA %d.%d; expected compute capability 8.0 or later",
                      device_name_, major, minor, driver_.version / 1000, driver_.version % 1000 / 10);
  }
  if (!driver_.succeeded(driver_.load_module(&module_, code->bytes), "loading the kernels", error)) {
    return EOSFM_UNSUPPORTED;
  }
  return EOSFM_OK;
}

// Finds the kernels, and grants them the shared memory that the program needs.
eosfm_status CudaEngine::set_functions(ErrorText& error) {
  int most = 0;
  if (!driver_.succeeded(driver_.device_attribute(&most, kCuMostShared, device_),
                         "asking for its shared memory", error)) {
    return EOSFM_UNSUPPORTED;
  }
  for (int k = 0; k < kGpuKernels; ++k) {
    const size_t shared = program_.shared_bytes(static_cast<GpuKernel>(k));
    if (shared > static_cast<size_t>(most)) {
      return error.fail(EOSFM_UNSUPPORTED,
                        "%s needs %zu bytes of shared memory for these specialists, "
                        "the %s has %d",
                        kGpuKernelNames[k], shared, device_name_, most);
    }
    if (!driver_.succeeded(driver_.function(&functions_[k], module_, kGpuKernelNames[k]), "finding a kernel",
                           error) ||
        !driver_.succeeded(
            driver_.set_function_attribute(functions_[k], kCuDynamicShared, static_cast<int>(shared)),
            "setting a kernel's shared memory", error)) {
      return EOSFM_UNSUPPORTED;
    }
  }
  return EOSFM_OK;
}

eosfm_status CudaEngine::allocate(const eosfm_backend_request& request, ErrorText& error) {
  int integrated = 0;
  if (!driver_.succeeded(driver_.device_attribute(&integrated, kCuIntegrated, device_),
                         "asking whose memory it has", error)) {
    return EOSFM_UNSUPPORTED;
  }
  int multiprocessors = 0;
  if (!driver_.succeeded(driver_.device_attribute(&multiprocessors, kCuMultiprocessors, device_),
                         "asking how wide it is", error)) {
    return EOSFM_UNSUPPORTED;
  }
  program_.set_multiprocessors(multiprocessors);
  is_shared_ = integrated != 0;
  const size_t outside = program_.outside_bytes();
  const size_t needed = program_.arena_bytes() + (is_shared_ ? 0 : outside);
  if (request.reserve(request.reserve_user, needed + outside) != 0) {
    return error.fail(EOSFM_NO_MEMORY,
                      "batches of %d need %zu bytes of the %s's memory and %zu of pinned memory, "
                      "more than memory_limit leaves; fix: a smaller batch, or a higher limit",
                      program_.batch(), needed, device_name_, outside);
  }
  CuResult allocated = driver_.allocate(&arena_, program_.arena_bytes());
  if (allocated != 0) arena_ = 0;
  if (allocated == 0 && !is_shared_) {
    allocated = driver_.allocate(&outside_, outside);
    if (allocated != 0) outside_ = 0;
  }
  if (allocated == kCuOutOfMemory) {
    size_t available = 0;
    size_t total = 0;
    driver_.memory_info(&available, &total);
    return error.fail(EOSFM_NO_MEMORY,
                      "batches of %d need %zu MB of the %s's memory, %zu of %zu MB are free; "
                      "fix: a smaller batch",
                      program_.batch(), needed >> 20, device_name_, available >> 20, total >> 20);
  }
  if (!driver_.succeeded(allocated, "allocating memory", error)) return EOSFM_UNSUPPORTED;
  void* host = nullptr;
  if (!driver_.succeeded(driver_.allocate_host(&host, outside, is_shared_ ? kCuDeviceMap : 0),
                         "allocating pinned memory", error)) {
    return EOSFM_NO_MEMORY;
  }
  host_ = static_cast<char*>(host);
  // Zeros, since planes that no set of features fills stay as they are; all else is written before it is read.
  memset(host_, 0, outside);
  const bool cleared =
      is_shared_ ? driver_.succeeded(driver_.host_pointer(&outside_, host_, 0), "sharing memory", error)
                 : driver_.succeeded(driver_.set_bytes(outside_, 0, outside), "clearing memory", error);
  return cleared ? EOSFM_OK : EOSFM_UNSUPPORTED;
}

// Copies the constants.
eosfm_status CudaEngine::fill(const eosfm_model& model, ErrorText& error) {
  Span staging;
  if (!staging.allocate(*allocator_, program_.constant_bytes())) return error.no_memory("the weights");
  const eosfm_status status = program_.fill(model, reinterpret_cast<char*>(arena_),
                                            reinterpret_cast<char*>(outside_), staging.data(), error);
  if (status != EOSFM_OK) return status;
  // The copy is on the default stream, for which the engine's own streams do not wait.
  return driver_.succeeded(driver_.copy_in(arena_, staging.data(), program_.constant_bytes()),
                           "copying the weights", error) &&
                 driver_.succeeded(driver_.synchronize(nullptr), "copying the weights", error)
             ? EOSFM_OK
             : EOSFM_UNSUPPORTED;
}

// Records copies and launches once.
eosfm_status CudaEngine::record(int slot, int count, ErrorText& error) {
  CuGraph graph = nullptr;
  const CuStream stream = streams_[slot];
  if (!driver_.succeeded(driver_.begin_capture(stream, kCuCaptureRelaxed), "recording a graph", error)) {
    return EOSFM_UNSUPPORTED;
  }
  const bool enqueued = enqueue(slot, count, error);
  ErrorText ignored;
  // Ends in any case; the reason is that of the first failure.
  const bool ended =
      driver_.succeeded(driver_.end_capture(stream, &graph), "recording a graph", enqueued ? error : ignored);
  const bool made = enqueued && ended &&
                    driver_.succeeded(driver_.instantiate(&graphs_[slot][count > 1 ? 1 : 0], graph, 0),
                                      "making a graph", error);
  if (graph != nullptr) driver_.destroy_graph(graph);
  return made ? EOSFM_OK : EOSFM_UNSUPPORTED;
}

bool CudaEngine::enqueue(int slot, int count, ErrorText& error) {
  const unsigned images = static_cast<unsigned>(count);
  unsigned first = static_cast<unsigned>(slot * program_.batch());
  const size_t at = program_.image_offset(slot * program_.batch());
  bool ok =
      is_shared_ || driver_.succeeded(driver_.copy_in_async(outside_ + at, host_ + at,
                                                            images * program_.image_bytes(), streams_[slot]),
                                      "copying images", error);
  for (int i = 0; ok && i < program_.launch_count(); ++i) {
    const GpuLaunch& one = program_.launch(i);
    const void* descriptors = one.descriptors;
    void* arguments[] = {&descriptors, &first};
    ok = driver_.succeeded(
        driver_.launch(functions_[static_cast<int>(one.kernel)], one.thread_blocks, one.descriptor_count,
                       images, gpu::kThreads, 1, 1, static_cast<unsigned>(one.shared_bytes), streams_[slot],
                       arguments, nullptr),
        kGpuKernelNames[static_cast<int>(one.kernel)], error);
  }
  return ok && (is_shared_ || copy_levels(slot, count, error));
}

bool CudaEngine::copy_levels(int slot, int count, ErrorText& error) {
  bool ok = true;
  for (int l = 0; ok && l < kLevels; ++l) {
    const size_t at = program_.level_offset(l, slot * program_.batch());
    const size_t bytes = static_cast<size_t>(count) * program_.level_bytes(l);
    ok = driver_.succeeded(driver_.copy_out_async(host_ + at, outside_ + at, bytes, streams_[slot]),
                           "copying levels", error);
  }
  return ok;
}

float* CudaEngine::image(int slot, int index) {
  return reinterpret_cast<float*>(host_ + program_.image_offset(slot * program_.batch() + index));
}

float* CudaEngine::level(int slot, int index, int level) {
  return reinterpret_cast<float*>(host_ + program_.level_offset(level, slot * program_.batch() + index));
}

// The unused images of a batch that is not full are computed too.
bool CudaEngine::start(int slot, int count) {
  const Current current(driver_, context_);
  return driver_.succeeded(current.result(), "taking the GPU's context", error_) &&
         driver_.succeeded(driver_.launch_graph(graphs_[slot][count > 1 ? 1 : 0], streams_[slot]),
                           "starting images", error_);
}

int CudaEngine::query(int slot) {
  const Current current(driver_, context_);
  if (!driver_.succeeded(current.result(), "taking the GPU's context", error_)) return -1;
  const CuResult result = driver_.query(streams_[slot]);
  if (result == kCuNotReady) return 0;
  return driver_.succeeded(result, "computing images", error_) ? 1 : -1;
}

}  // namespace eosfm
