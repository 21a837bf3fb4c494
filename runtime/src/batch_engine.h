// An engine of a backend that computes batches of images beside the host, some at a time.
#ifndef EOSFM_BATCH_ENGINE_H
#define EOSFM_BATCH_ENGINE_H

#include "foreign_engine.h"

namespace eosfm {

class BatchEngine final : public ForeignEngine {
 public:
  BatchEngine(RunState& state, Backend* backend);
  eosfm_status allocate(ErrorText& text) override;
  void destroy() override;
  eosfm_status find_planes(int slot, int index, float** planes) override;
  eosfm_status start(int slot, int count) override;
  eosfm_status wait(int slot) override;

 private:
  bool is_done(int slot) const override { return !under_way_[slot]; }
  const float* level(int slot, int index, int level) const override;

  eosfm_batches batches_;
  Array<bool> under_way_;  // [slots]: started, and not yet seen to be done
};

}  // namespace eosfm

#endif
