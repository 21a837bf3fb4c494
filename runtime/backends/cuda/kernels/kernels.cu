// The kernels' entry points. Each takes an array of descriptors, one for each value of blockIdx.y, and the
// first of the images that the launch is for, which are as many as the grid is deep.
#include "block_back.h"
#include "block_front.h"
#include "downsample.h"
#include "levels.h"
#include "stem.h"

using namespace eosfm::gpu;

EOSFM_KERNEL(eosfm_stem, const Stem* all, unsigned first) { stem(all[blockIdx.y], first + blockIdx.z); }

EOSFM_KERNEL(eosfm_downsample, const Downsample* all, unsigned first) {
  const Downsample& d = all[blockIdx.y];
  with_kind(d.weights.kind, [&](auto kind) { downsample<decltype(kind)::value>(d, first + blockIdx.z); });
}

EOSFM_KERNEL(eosfm_block_front, const Block* all, unsigned first) {
  const Block& d = all[blockIdx.y];
  with_kind(d.fc1.kind, [&](auto kind) { block_front<decltype(kind)::value>(d, first + blockIdx.z); });
}

EOSFM_KERNEL(eosfm_block_back, const Block* all, unsigned first) {
  const Block& d = all[blockIdx.y];
  with_kind(d.fc2.kind, [&](auto kind) { block_back<decltype(kind)::value>(d, first + blockIdx.z); });
}

EOSFM_KERNEL(eosfm_moments, const Moments* all, unsigned first) {
  take_moments(all[blockIdx.y], first + blockIdx.z);
}

EOSFM_KERNEL(eosfm_mix, const Mix* all, unsigned first) {
  const Mix& d = all[blockIdx.y];
  if (d.weights.kind == kHalf) {
    mix<kHalf>(d, first + blockIdx.z);
  } else {
    mix<kFloat>(d, first + blockIdx.z);
  }
}

EOSFM_KERNEL(eosfm_combine, const Combination* all, unsigned first) {
  combine(all[blockIdx.y], first + blockIdx.z);
}
