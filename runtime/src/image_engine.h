// An engine that computes one image at a time by a function, in the thread that runs: a host's, or a backend's.
#ifndef EOSFM_IMAGE_ENGINE_H
#define EOSFM_IMAGE_ENGINE_H

#include "foreign_engine.h"

namespace eosfm {

class ImageEngine final : public ForeignEngine {
 public:
  // Returns what one takes, without its backend.
  static EngineBytes measure(const Settings& settings, const Chain& chain);

  ImageEngine(RunState& state, const eosfm_engine& engine, const float* tolerance, Backend* backend);
  eosfm_status allocate(ErrorText& text) override;
  void destroy() override;
  eosfm_status find_planes(int slot, int index, float** planes) override;
  eosfm_status start(int slot, int count) override;
  eosfm_status wait(int) override { return EOSFM_OK; }
  void cancel() override;

 private:
  // All memory of the images, laid out in one span.
  struct Images {
    float* planes;  // [bands][height][width]
    float* levels[kLevels];  // [channels][height][width]

    // Finds the place of everything; called once without memory, for the size.
    void lay_out(Layout& layout, const Settings& settings, const Chain& chain);
  };

  bool is_done(int) const override { return is_done_; }
  const float* level(int, int, int l) const override { return images_.levels[l]; }

  eosfm_engine engine_;
  Span span_;
  Images images_ = {};
  bool is_done_ = false;
};

}  // namespace eosfm

#endif
