// CUDA for the kernels on a CPU: a thread block's threads are fibers, which run until they wait for each
// other.
//
// A fiber runs alone until it comes to a barrier, a shuffle or an mma, and the schedule chooses who runs
// next. So a kernel that lacks a barrier computes something else under some schedule: round robin and
// random orders find most of these races, and `greedy`, where the highest thread runs as far as it can,
// finds what they miss. Shared memory starts as NaN. The lanes' fragments of an mma are laid out exactly
// as PTX has them. Each barrier of the source can be left out, to test that a test would notice.
#ifndef EOSFM_TESTS_CUDA_SHIM_H
#define EOSFM_TESTS_CUDA_SHIM_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#include "../../backends/cuda/half.h"

#define EOSFM_DEVICE inline
#define EOSFM_KERNEL(name, ...) extern "C" void name(__VA_ARGS__)
#define SYNC_THREADS() shim::sync_threads(__COUNTER__)
#define SYNC_WARP() shim::sync_warp(__COUNTER__)

namespace shim {

enum class Schedule { round_robin, random, greedy };

struct Options {
  Schedule schedule = Schedule::round_robin;
  uint32_t seed = 1;
  int skipped_barrier = -1;  // by its number in the source
  bool swaps_fragments = false;  // of mma: a1 and a2, as a wrong layout would
};

struct Dim {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;
};

struct Launch {
  Dim grid;
  unsigned threads = 0;
  size_t shared_bytes = 0;
};

// Runs a kernel; returns whether no thread waited forever.
bool run(const Launch& launch, const Options& options, const std::function<void()>& kernel);

const Dim& thread_index();
const Dim& block_index();
unsigned* shared_words();
void sync_threads(int barrier);
void sync_warp(int barrier);
float shuffle_xor(float value, int lanes);
void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
void mma(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);

}  // namespace shim

#define threadIdx (shim::thread_index())
#define blockIdx (shim::block_index())

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

namespace eosfm::gpu {

using shim::mma;
using shim::shared_words;
using shim::shuffle_xor;

inline unsigned bits_of(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float float_of(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned pack_halves(float low, float high) { return half_of(low) | half_of(high) << 16; }
inline float unpack_half(unsigned bits) { return float_of_half(bits); }

}  // namespace eosfm::gpu

#endif
