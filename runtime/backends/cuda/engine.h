// The engine: a GPU, an arena of its memory, and CUDA graphs for batches of images.
//
// Two slots, each with a stream, a place for a batch of images and of levels in pinned memory, working memory
// on the GPU, and two graphs: of one image, and of a batch. A graph copies images in, computes, and copies
// levels out. Slots share nothing that is written, so they need no events between them: while one computes,
// the GPU copies the other's images, and fills with the other's thread blocks what the one leaves idle. Where
// CPU and GPU share their memory, kernels read images and write levels where the host has them.
#ifndef EOSFM_CUDA_ENGINE_H
#define EOSFM_CUDA_ENGINE_H

#include "../backend.h"
#include "driver.h"
#include "program.h"

namespace eosfm {

class CudaEngine {
 public:
  static constexpr int kSlots = 2;

  CudaEngine() = default;
  CudaEngine(const CudaEngine&) = delete;
  CudaEngine& operator=(const CudaEngine&) = delete;
  ~CudaEngine();

  eosfm_status open(const eosfm_backend_request& request, ErrorText& error);
  // Finds how much an engine would allocate; needs no GPU.
  static eosfm_status measure(const eosfm_backend_request& request, eosfm_backend_memory* memory,
                              ErrorText& error);

  const eosfm_allocator& allocator() const { return *allocator_; }

  // Implement eosfm_batches.
  int batch() const { return program_.batch(); }
  int slots() const { return program_.slots(); }
  float* image(int slot, int index);
  float* level(int slot, int index, int level);
  bool start(int slot, int count);
  int query(int slot);
  const char* error() const { return error_.text; }

 private:
  eosfm_status load_code(ErrorText& error);
  eosfm_status set_functions(ErrorText& error);
  eosfm_status allocate(const eosfm_backend_request& request, ErrorText& error);
  eosfm_status fill(const eosfm_model& model, ErrorText& error);
  eosfm_status record(int slot, int count, ErrorText& error);
  bool enqueue(int slot, int count, ErrorText& error);
  bool copy_levels(int slot, int count, ErrorText& error);

  const eosfm_allocator* allocator_ = nullptr;
  CudaDriver driver_;
  GpuProgram program_;
  int device_index_ = 0;
  char device_name_[96] = "";
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  CuModule module_ = nullptr;
  CuFunction functions_[kGpuKernels] = {};
  CuPointer arena_ = 0;
  CuPointer outside_ = 0;  // images and levels, as the device has them
  char* host_ = nullptr;  // the same, as the host has them: pinned
  bool is_shared_ = false;  // both are the same memory
  CuStream streams_[kSlots] = {};
  CuGraphExec graphs_[kSlots][2] = {};  // of one image, of a batch
  ErrorText error_;
};

}  // namespace eosfm

#endif
