#include "scene_norms.h"

#include <string.h>

namespace eosfm {

void SceneNorms::lay_out(Layout& layout, const Chain& chain, const PackedModel& packed) {
  sums_ = layout.take<Sums>(static_cast<size_t>(chain.runs.size()));
  for (int r = 0; r < chain.runs.size(); ++r) {
    const size_t count = hidden_channels(packed.networks[chain.runs[r].specialist]);
    const Sums one = {layout.take<double>(count), layout.take<double>(count), count, false};
    if (sums_ != nullptr) sums_[r] = one;
  }
}

void SceneNorms::forget(const Chain& chain) {
  for (int r = 0; r < chain.runs.size(); ++r) {
    memset(sums_[r].all, 0, sums_[r].count * sizeof(double));
    sums_[r].any = false;
  }
}

void SceneNorms::keep(const Chain& chain, const uint8_t* present) {
  for (int r = 0; r < chain.runs.size(); ++r) {
    if (present[chain.runs[r].specialist] == 0) continue;
    Sums& sums = sums_[r];
    for (size_t i = 0; i < sums.count; ++i) sums.all[i] += sums.fresh[i];
    sums.any = true;
  }
}

eosfm_status SceneNorms::check(const Chain& chain, const uint8_t* active, ErrorText& error) const {
  for (int r = 0; r < chain.runs.size(); ++r) {
    const int specialist = chain.runs[r].specialist;
    if (active[specialist] == 0 || sums_[r].any) continue;
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "no norms of %s were gathered: run the images of the scene "
                      "with EOSFM_GRN_GATHER and the specialist active before EOSFM_GRN_SCENE",
                      chain.specialists[specialist].name);
  }
  return EOSFM_OK;
}

}  // namespace eosfm
