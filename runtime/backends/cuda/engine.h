// The engine: a GPU, the plan's arena on it, and one CUDA graph for an image.
#ifndef EOSFM_CUDA_ENGINE_H
#define EOSFM_CUDA_ENGINE_H

#include "../backend.h"
#include "driver.h"
#include "plan.h"

namespace eosfm {

class CudaEngine {
 public:
  CudaEngine() = default;
  CudaEngine(const CudaEngine&) = delete;
  CudaEngine& operator=(const CudaEngine&) = delete;
  ~CudaEngine();

  eosfm_status open(const eosfm_backend_request& request, ErrorText& error);
  // Image and levels are as of eosfm_engine. Returns whether it was computed; if not, `error` says why.
  bool compute(const float* image, float* const* levels);
  const char* error() const { return error_.text; }

 private:
  eosfm_status choose(const char* name, ErrorText& error);
  eosfm_status load_code(ErrorText& error);
  eosfm_status set_functions(ErrorText& error);
  eosfm_status make_arena(const eosfm_model& model, ErrorText& error);
  eosfm_status record(ErrorText& error);
  bool enqueue(ErrorText& error);
  bool run(ErrorText& error);

  CudaDriver driver_;
  GpuPlan plan_;
  int device_index_ = 0;
  bool all_float_ = false;
  char device_name_[96] = "";
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  CuModule module_ = nullptr;
  CuFunction functions_[kGpuKernels] = {};
  CuPointer arena_ = 0;
  CuStream stream_ = nullptr;
  CuGraphExec graph_ = nullptr;
  char* host_ = nullptr;  // the image and the levels, pinned
  size_t level_offsets_[kLevels] = {};
  ErrorText error_;
};

}  // namespace eosfm

#endif
