#include "image_engine.h"

namespace eosfm {

void ImageEngine::Images::lay_out(Layout& layout, const Settings& settings, const Chain& chain) {
  planes = layout.take<float>(static_cast<size_t>(settings.width) * settings.height * chain.bands.size());
  for (int l = 0; l < kLevels; ++l) {
    levels[l] = layout.take<float>(static_cast<size_t>(chain.level_channels[l]) * cells(settings.width, l) *
                                   cells(settings.height, l));
  }
}

EngineBytes ImageEngine::measure(const Settings& settings, const Chain& chain) {
  Layout layout;
  Images images;
  images.lay_out(layout, settings, chain);
  EngineBytes bytes;
  bytes.object = bytes_of<ImageEngine>();
  bytes.images = layout.size();
  return bytes;
}

ImageEngine::ImageEngine(RunState& state, const eosfm_engine& engine, const float* tolerance,
                         Backend* backend)
    : ForeignEngine(state, 1, 1, tolerance, measure(state.settings, state.model->chain), backend),
      engine_(engine) {}

eosfm_status ImageEngine::allocate(ErrorText& text) {
  const eosfm_model& model = *state_.model;
  Layout sizes;
  images_.lay_out(sizes, state_.settings, model.chain);
  if (!span_.allocate(model.memory.allocator(), sizes.size())) return text.no_memory("the context");
  Layout layout(span_.data());
  images_.lay_out(layout, state_.settings, model.chain);
  return EOSFM_OK;
}

void ImageEngine::destroy() { unmake(state_.model->memory.allocator(), this); }

eosfm_status ImageEngine::find_planes(int, int, float** planes) {
  *planes = images_.planes;
  return EOSFM_OK;
}

eosfm_status ImageEngine::start(int, int) {
  is_done_ = false;
  const int failure = engine_.compute(engine_.user, images_.planes, images_.levels);
  state_.stop.due();
  is_done_ = failure == 0;
  // An engine that was asked to end its run early reports that it failed.
  if (is_done_ || state_.stop.reason() != Stop::kNone) return EOSFM_OK;
  return fail(failure, engine_.error != nullptr ? engine_.error(engine_.user) : "it does not say why");
}

void ImageEngine::cancel() {
  if (engine_.cancel != nullptr) engine_.cancel(engine_.user);
}

}  // namespace eosfm
