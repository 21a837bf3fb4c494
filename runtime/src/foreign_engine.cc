#include "foreign_engine.h"

#include <string.h>

#include "finite.h"

namespace eosfm {
namespace {

EngineBytes with_backend(EngineBytes bytes, const Backend* backend) {
  if (backend == nullptr) return bytes;
  bytes.object += bytes_of<Backend>();
  bytes.reserved += backend->reserved_bytes();
  return bytes;
}

}  // namespace

ForeignEngine::ForeignEngine(RunState& state, int slots, int batch, const float* tolerance, EngineBytes bytes,
                             Backend* backend)
    : Engine(state, Values::stored, slots, batch, tolerance, with_backend(bytes, backend)),
      backend_(backend) {}

ForeignEngine::~ForeignEngine() { unmake(state_.model->memory.allocator(), backend_); }

eosfm_status ForeignEngine::check_active(const uint8_t* active) {
  if (memchr(active, 0, static_cast<size_t>(state_.active.size())) == nullptr) return EOSFM_OK;
  return state_.error.fail(EOSFM_UNSUPPORTED, "the engine (%s) runs all specialists", state_.engine_name);
}

eosfm_status ForeignEngine::prepare_grn(eosfm_grn mode) {
  if (mode == EOSFM_GRN_TILE) return EOSFM_OK;
  return state_.error.fail(EOSFM_UNSUPPORTED, "the engine (%s) takes GRN's norms over each image",
                           state_.engine_name);
}

int ForeignEngine::find_present(int slot, uint8_t* present) {
  const bool is_all = is_done(slot);
  const int specialists = state_.active.size();
  memset(present, is_all ? 1 : 0, static_cast<size_t>(specialists));
  return is_all ? specialists : 0;
}

eosfm_status ForeignEngine::write(int slot, int index, const uint8_t*, const eosfm_level* levels) {
  const Chain& chain = state_.model->chain;
  const Settings& settings = state_.settings;
  for (int l = 0; l < kLevels; ++l) {
    const size_t count =
        static_cast<size_t>(chain.level_channels[l]) * cells(settings.width, l) * cells(settings.height, l);
    if (all_finite(level(slot, index, l), count)) continue;
    return state_.error.fail(EOSFM_NOT_FINITE, "the engine (%s) gives values that are not finite at level %d",
                             state_.engine_name, l + 1);
  }
  for (int l = 0; l < kLevels; ++l) {
    const eosfm_level& to = levels[l];
    if (to.data == nullptr) continue;
    const size_t width = static_cast<size_t>(cells(settings.width, l));
    const float* from = level(slot, index, l);
    for (int c = 0; c < chain.level_channels[l]; ++c) {
      for (int y = 0; y < cells(settings.height, l); ++y, from += width) {
        memcpy(to.data + c * to.channel_stride + y * to.row_stride, from, width * sizeof(float));
      }
    }
  }
  return EOSFM_OK;
}

eosfm_status ForeignEngine::fail(int code, const char* reason) {
  ErrorText& error = state_.error;
  return error.with_code(code, error.fail(EOSFM_ENGINE_FAILED, "the engine (%s) failed with %d: %s",
                                          state_.engine_name, code, reason));
}

}  // namespace eosfm
