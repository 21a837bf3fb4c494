// The program of a bundle for a GPU: the launches that compute an image, and one arena that holds all memory.
//
// The arena is constants first (weights and descriptors, which are copied once), then working memory.
// Images and levels lie in a piece of their own, which may be the host's memory. Working memory, images and
// levels are those of all slots, a batch each: a launch is for the images of one.
//
// Laid out twice by the same calls, as all of libeosfm's memory: without memory, for the size, and with
// it, when addresses of the device go into descriptors.
#ifndef EOSFM_CUDA_PROGRAM_H
#define EOSFM_CUDA_PROGRAM_H

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

class GpuProgram {
 public:
  // Sets the shapes from a model that was loaded for kGpuPacking.
  eosfm_status shape(const eosfm_allocator& allocator, const eosfm_model& model, int batch, int slots,
                     bool all_float, ErrorText& error);
  // Sets the multiprocessors for which launches are cut; nothing else depends on them.
  void set_multiprocessors(int count) { multiprocessors_ = count; }
  // Makes the launches for an arena at `device` and images and levels at `outside`, both addresses of the
  // device, and writes the constants to `staging`.
  eosfm_status fill(const eosfm_model& model, char* device, char* outside, char* staging, ErrorText& error);

  int batch() const { return batch_; }
  int slots() const { return slots_; }
  size_t constant_bytes() const { return constant_bytes_; }
  size_t arena_bytes() const { return constant_bytes_ + working_bytes_; }
  // Returns the most shared memory that a thread block of a kernel uses.
  size_t shared_bytes(GpuKernel kernel) const;

  int launch_count() const { return launch_count_; }
  const GpuLaunch& launch(int i) const { return launches_[i]; }

  // Bytes of all images and levels, and where those of an image begin.
  size_t outside_bytes() const { return outside_bytes_; }
  size_t image_offset(int image) const { return image_offset_ + static_cast<size_t>(image) * image_bytes_; }
  size_t level_offset(int l, int image) const {
    return level_offsets_[l] + static_cast<size_t>(image) * level_bytes_[l];
  }
  size_t image_bytes() const { return image_bytes_; }  // of one: [bands][tile][tile] floats
  size_t level_bytes(int l) const { return level_bytes_[l]; }  // of one: [channels][cells] floats

 private:
  class Builder;

  int batch_ = 1;
  int slots_ = 1;
  int multiprocessors_ = 1;
  bool all_float_ = false;
  size_t constant_bytes_ = 0;
  size_t working_bytes_ = 0;
  const eosfm_allocator* allocator_ = nullptr;
  Array<GpuLaunch> launches_;
  int launch_count_ = 0;
  size_t outside_bytes_ = 0;
  size_t image_offset_ = 0;
  size_t image_bytes_ = 0;
  size_t level_offsets_[kLevels] = {};
  size_t level_bytes_[kLevels] = {};
};

}  // namespace eosfm

#endif
