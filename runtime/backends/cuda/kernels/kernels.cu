// The kernels' entry points. Each takes an array of descriptors, one for each value of blockIdx.y.
#include "block_back.h"
#include "block_front.h"
#include "downsample.h"
#include "levels.h"
#include "stem.h"

using namespace eosfm::gpu;

EOSFM_KERNEL(eosfm_stem, const Stem* all) { stem(all[blockIdx.y]); }

EOSFM_KERNEL(eosfm_downsample, const Downsample* all) {
  const Downsample& d = all[blockIdx.y];
  with_kind(d.weights.kind, [&](auto kind) { downsample<decltype(kind)::value>(d); });
}

EOSFM_KERNEL(eosfm_block_front, const Block* all) {
  const Block& d = all[blockIdx.y];
  with_kind(d.fc1.kind, [&](auto kind) { block_front<decltype(kind)::value>(d); });
}

EOSFM_KERNEL(eosfm_block_back, const Block* all) {
  const Block& d = all[blockIdx.y];
  with_kind(d.fc2.kind, [&](auto kind) { block_back<decltype(kind)::value>(d); });
}

EOSFM_KERNEL(eosfm_moments, const Moments* all) { take_moments(all[blockIdx.y]); }

EOSFM_KERNEL(eosfm_mix, const Mix* all) {
  const Mix& d = all[blockIdx.y];
  if (d.weights.kind == kHalf) {
    mix<kHalf>(d);
  } else {
    mix<kFloat>(d);
  }
}

EOSFM_KERNEL(eosfm_combine, const Combination* all) { combine(all[blockIdx.y]); }
