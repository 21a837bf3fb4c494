#include "engine.h"

#include <cstdint>
#include <stdexcept>

namespace eosfm {
namespace {

constexpr char kImage[] = "image";

void check(cudaError_t status) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA failed: ") + cudaGetErrorString(status));
  }
}

// getInferLibVersion counts in thousands up to TensorRT 8, and in ten thousands from 10 on.
Device this_device() {
  const int version = static_cast<int>(getInferLibVersion());
  const int thousands = version < 10000 ? 1000 : 10000;
  int major = 0;
  int minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  return {{version / thousands, version % thousands / 100, version % 100},
          std::to_string(major) + "." + std::to_string(minor)};
}

// Refuses a driver that is older than the CUDA beneath TensorRT.
void require_driver() {
  int driver = 0;
  int runtime = 0;
  check(cudaDriverGetVersion(&driver));
  check(cudaRuntimeGetVersion(&runtime));
  const auto text = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  if (driver / 1000 < runtime / 1000) {
    throw std::runtime_error("the driver is for CUDA " + text(driver) + ", expected one for CUDA " +
                             text(runtime) + " or a later");
  }
}

// Creates TensorRT's runtime. Where the driver does not fit, versions 10.16 and 11.4 log an error and return
// an address close to 0 instead of none: it must not be used, nor deleted.
nvinfer1::IRuntime* create_runtime(Log& log) {
  constexpr std::uintptr_t kLeastAddress = 4096;
  nvinfer1::IRuntime* runtime = nvinfer1::createInferRuntime(log);
  if (reinterpret_cast<std::uintptr_t>(runtime) >= kLeastAddress && log.complaint().empty()) return runtime;
  throw std::runtime_error("TensorRT cannot be used: " +
                           (log.complaint().empty() ? "it gives no reason" : log.complaint()));
}

std::string level_name(int level) { return "level" + std::to_string(level + 1); }

}  // namespace

void Log::log(Severity severity, const char* text) noexcept {
  if (severity > Severity::kERROR) return;
  try {
    complaint_ = text;
  } catch (...) {
    complaint_.clear();
  }
}

TensorRtEngine::TensorRtEngine(const eosfm_backend_request& request) {
  if (request.directory == nullptr) {
    throw std::runtime_error("a bundle in memory has no engines");
  }
  require_driver();
  const Device device = this_device();
  runtime_.reset(create_runtime(log_));
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream));
  stream_.reset(stream);
  for (size_t i = 0; i < request.graph_count; ++i) {
    add(read_engine(request.directory, request.graphs[i], device), request.graphs[i].path);
  }
  const size_t side = static_cast<size_t>(request.tile);
  require(kImage, sizeof(float) * request.bands * side * side);
  for (int level = 0; level < EOSFM_LEVELS; ++level) {
    const size_t cells = side >> (level + 2);
    require(level_name(level), sizeof(float) * request.channels[level] * cells * cells);
  }
}

void TensorRtEngine::add(const std::vector<char>& bytes, const char* graph) {
  Step step;
  step.engine.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
  if (step.engine != nullptr) step.context.reset(step.engine->createExecutionContext());
  if (step.context == nullptr) {
    throw std::runtime_error("TensorRT does not take the engine of " + std::string(graph) + ": " +
                             log_.complaint());
  }
  for (int i = 0; i < step.engine->getNbIOTensors(); ++i) bind(step, step.engine->getIOTensorName(i));
  steps_.push_back(std::move(step));
}

// Gives a tensor memory of its own, or that of the earlier engine which writes it. Batches are of one image.
void TensorRtEngine::bind(Step& step, const char* name) {
  nvinfer1::Dims shape = step.engine->getTensorShape(name);
  const bool is_input = step.engine->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
  if (step.engine->getTensorDataType(name) != nvinfer1::DataType::kFLOAT || shape.nbDims != 4) {
    throw std::runtime_error(std::string(name) + " of the engine is not float32 of four dimensions");
  }
  if (shape.d[0] == -1) {
    shape.d[0] = 1;
    if (is_input && !step.context->setInputShape(name, shape)) {
      throw std::runtime_error("the engine does not take a single image: " + log_.complaint());
    }
  }
  size_t bytes = sizeof(float);
  for (int i = 0; i < shape.nbDims; ++i) bytes *= static_cast<size_t>(shape.d[i]);
  Tensor& tensor = tensors_[name];
  if (tensor.device == nullptr) {
    void* device = nullptr;
    check(cudaMalloc(&device, bytes));
    tensor = {std::unique_ptr<void, FreeDevice>(device), bytes};
  }
  if (tensor.bytes != bytes || !step.context->setTensorAddress(name, tensor.device.get())) {
    throw std::runtime_error(std::string(name) + " does not fit between the engines");
  }
}

void TensorRtEngine::require(const std::string& name, size_t bytes) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end() || found->second.bytes != bytes) {
    throw std::runtime_error("the engines have no " + name + " of " + std::to_string(bytes) + " bytes");
  }
}

void TensorRtEngine::compute(const float* image, float* const* levels) {
  const Tensor& input = tensors_.at(kImage);
  check(cudaMemcpyAsync(input.device.get(), image, input.bytes, cudaMemcpyHostToDevice, stream_.get()));
  for (Step& step : steps_) {
    if (!step.context->enqueueV3(stream_.get())) {
      throw std::runtime_error("TensorRT failed to run: " + log_.complaint());
    }
  }
  for (int level = 0; level < EOSFM_LEVELS; ++level) {
    const Tensor& output = tensors_.at(level_name(level));
    check(cudaMemcpyAsync(levels[level], output.device.get(), output.bytes, cudaMemcpyDeviceToHost,
                          stream_.get()));
  }
  check(cudaStreamSynchronize(stream_.get()));
}

}  // namespace eosfm
