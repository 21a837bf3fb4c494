// From a bundle to launches: which kernels run on what, and where everything lies in one arena.
//
// The arena is constants first (weights and descriptors, which are copied once), then working memory.
// Laid out twice by the same calls, as all of libeosfm's memory: without memory, for the size, and with
// it, when addresses of the device go into descriptors.
#ifndef EOSFM_CUDA_PLAN_H
#define EOSFM_CUDA_PLAN_H

#include "../../src/model.h"
#include "weights.h"

namespace eosfm {

enum class GpuKernel { stem, downsample, block_front, block_back, moments, mix, combine };
constexpr int kGpuKernels = 7;
extern const char* const kGpuKernelNames[kGpuKernels];

// One launch; its grid is (thread blocks, descriptors, images).
struct GpuLaunch {
  GpuKernel kernel;
  const void* descriptors;
  unsigned thread_blocks;
  unsigned descriptor_count;
  size_t shared_bytes;
};

class GpuPlan {
 public:
  // Takes the shapes of a model that was loaded for kGpuPacking.
  eosfm_status shape(const eosfm_model& model, int batch, bool all_float, ErrorText& error);
  // Makes the launches for an arena at `device`, and writes the constants to `staging`.
  eosfm_status fill(const eosfm_model& model, char* device, char* staging, ErrorText& error);

  int batch() const { return batch_; }
  size_t constant_bytes() const { return constant_bytes_; }
  size_t arena_bytes() const { return constant_bytes_ + working_bytes_; }
  // Shared memory of the thread blocks of a kernel, at most.
  size_t shared_bytes(GpuKernel kernel) const;

  int launch_count() const { return launch_count_; }
  const GpuLaunch& launch(int i) const { return launches_[i]; }
  float* image() const { return image_; }  // [batch][bands][tile][tile], as the sensor stores it
  size_t image_bytes() const { return image_bytes_; }
  float* level(int l) const { return levels_[l]; }  // [batch][channels][cells]
  size_t level_bytes(int l) const { return level_bytes_[l]; }

 private:
  class Builder;

  int batch_ = 1;
  bool all_float_ = false;
  size_t constant_bytes_ = 0;
  size_t working_bytes_ = 0;
  Array<GpuLaunch> launches_;
  int launch_count_ = 0;
  float* image_ = nullptr;
  size_t image_bytes_ = 0;
  float* levels_[kLevels] = {};
  size_t level_bytes_[kLevels] = {};
};

}  // namespace eosfm

#endif
