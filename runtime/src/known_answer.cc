// The known answer: an image in the bundle and its levels, which an engine must reproduce on this machine.
#include <math.h>
#include <string.h>

#include "context.h"
#include "structs.h"

using namespace eosfm;

eosfm_status eosfm_context::prove(ErrorText& text) {
  double worst[kLevels];
  const eosfm_status status = verify(worst);
  if (status != EOSFM_OK) text = state_.error;
  statistics_ = StructOf<eosfm_statistics>::defaults();
  return status;
}

eosfm_status eosfm_context::verify(double* worst) {
  const Chain& chain = model()->chain;
  ErrorText& error = state_.error;
  if (worst == nullptr) return error.fail(EOSFM_BAD_ARGUMENT, "there is no place for the result");
  const Settings& settings = state_.settings;
  const bool is_whole =
      memchr(state_.active.begin(), 0, static_cast<size_t>(state_.active.size())) == nullptr;
  if (settings.width != chain.tile || settings.height != chain.tile || !is_whole) {
    return error.fail(EOSFM_BAD_ARGUMENT,
                      "the known answer is for images of %d x %d pixels and all "
                      "specialists active",
                      chain.tile, chain.tile);
  }
  Layout sizes;
  size_t planes[kLevels];
  const size_t pixels = static_cast<size_t>(chain.tile) * chain.tile;
  sizes.take<float>(pixels * chain.bands.size());
  for (int level = 0; level < kLevels; ++level) {
    planes[level] = static_cast<size_t>(cells(chain.tile, level)) * cells(chain.tile, level);
    sizes.take<float>(planes[level] * chain.level_channels[level]);
  }
  Span span;
  Array<eosfm_band> bands;
  const eosfm_allocator& allocator = model()->memory.allocator();
  if (!span.allocate(allocator, sizes.size()) || !bands.allocate(allocator, chain.bands.size())) {
    return error.no_memory("the known answer");
  }
  Layout layout(span.data());
  float* stored = layout.take<float>(pixels * bands.size());
  // The file's tensors need not be aligned when it is in the caller's memory.
  memcpy(stored, chain.known_image()->data, pixels * bands.size() * sizeof(float));
  for (int b = 0; b < bands.size(); ++b) {
    eosfm_band band = EOSFM_BAND_INIT;
    band.data = stored + b * pixels;
    band.column_stride = sizeof(float);
    band.row_stride = static_cast<ptrdiff_t>(sizeof(float)) * chain.tile;
    bands[b] = band;
  }
  eosfm_level levels[kLevels];
  for (int level = 0; level < kLevels; ++level) {
    levels[level] = {sizeof(eosfm_level), layout.take<float>(planes[level] * chain.level_channels[level]),
                     static_cast<ptrdiff_t>(planes[level]), cells(chain.tile, level)};
  }
  eosfm_image image = EOSFM_IMAGE_INIT;
  image.bands = bands.begin();
  image.band_count = static_cast<size_t>(bands.size());
  const eosfm_grn mode = state_.grn;
  const eosfm_gate gate = settings.gate;
  state_.grn = EOSFM_GRN_TILE;
  state_.settings.gate.open = nullptr;
  const eosfm_status status = run(&image, levels, nullptr);
  state_.grn = mode;
  state_.settings.gate = gate;
  if (status == EOSFM_NOT_FINITE) {
    for (int level = 0; level < kLevels; ++level) worst[level] = INFINITY;
    const ErrorText reason = error;
    return error.fail(EOSFM_WRONG_ANSWER, "the known answer does not come out: %.400s", reason.text);
  }
  if (status != EOSFM_OK) return status;

  int wrong = -1;
  for (int level = 0; level < kLevels; ++level) {
    const uint8_t* expected = chain.known_level(level)->data;
    double peak = 0.0;
    double difference = 0.0;
    for (size_t i = 0; i < planes[level] * chain.level_channels[level]; ++i) {
      float value;
      memcpy(&value, expected + 4 * i, sizeof value);
      const double d = fabs(static_cast<double>(levels[level].data[i]) - static_cast<double>(value));
      peak = fmax(peak, fabs(static_cast<double>(value)));
      difference = fmax(difference, d);  // both are finite
    }
    worst[level] = peak > 0.0 ? difference / peak : difference;
    if (!(worst[level] <= static_cast<double>(tolerance()[level]))) wrong = level;
  }
  if (wrong < 0) return EOSFM_OK;
  return error.fail(EOSFM_WRONG_ANSWER,
                    "level %d is off the known answer by %.2g of its largest "
                    "value, expected at most %.2g",
                    wrong + 1, worst[wrong], static_cast<double>(tolerance()[wrong]));
}
