// Engines that are not the library's own: they compute all specialists together and give finished levels.
#ifndef EOSFM_FOREIGN_ENGINE_H
#define EOSFM_FOREIGN_ENGINE_H

#include "backend.h"
#include "engine.h"

namespace eosfm {

class ForeignEngine : public Engine {
 public:
  eosfm_status check_active(const uint8_t* active) final;
  eosfm_status prepare_grn(eosfm_grn mode) final;
  int find_present(int slot, uint8_t* present) final;
  eosfm_status write(int slot, int index, const uint8_t* present, const eosfm_level* levels) final;
  RunTime time_of(int) const final { return {0, 0}; }

 protected:
  // `backend` has loaded what computes, and becomes the engine's; null: the host computes.
  ForeignEngine(RunState& state, int slots, int batch, const float* tolerance, EngineBytes bytes,
                Backend* backend);
  ~ForeignEngine();

  // Leaves the sentence of a failure, with the engine's own code and reason.
  eosfm_status fail(int code, const char* reason);

 private:
  // Returns whether the images of a slot are computed.
  virtual bool is_done(int slot) const = 0;
  // Returns a level of an image of such a slot, [channels][height][width].
  virtual const float* level(int slot, int index, int level) const = 0;

  Backend* backend_;
};

}  // namespace eosfm

#endif
