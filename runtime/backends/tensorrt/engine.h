// TensorRT engines that run one after the other on a GPU.
#ifndef EOSFM_TENSORRT_ENGINE_H
#define EOSFM_TENSORRT_ENGINE_H

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../backend.h"
#include "engine_index.h"

namespace eosfm {

// Keeps the last error message; prints nothing.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override;
  const std::string& complaint() const { return complaint_; }

 private:
  std::string complaint_;
};

// Engines on one stream, each giving tensors that those behind it take by their names. Memory is allocated
// and bound once. Methods throw std::runtime_error.
class TensorRtEngine {
 public:
  explicit TensorRtEngine(const eosfm_backend_request& request);
  // `image` is (bands, tile, tile); levels are dense planes too.
  void compute(const float* image, float* const* levels);
  const std::string& error() const { return error_; }
  void keep(const std::string& error) { error_ = error; }

 private:
  struct FreeDevice {
    void operator()(void* memory) const { cudaFree(memory); }
  };
  struct EndStream {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  };
  struct Tensor {
    std::unique_ptr<void, FreeDevice> device;
    size_t bytes = 0;
  };
  struct Step {
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
  };

  void add(const std::vector<char>& bytes, const char* graph);
  void bind(Step& step, const char* name);
  void require(const std::string& name, size_t bytes) const;

  Log log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<CUstream_st, EndStream> stream_;
  std::map<std::string, Tensor> tensors_;
  std::vector<Step> steps_;
  std::string error_;
};

}  // namespace eosfm

#endif
