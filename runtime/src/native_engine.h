// The library's own engine: each specialist runs over the image, on all processors together or on one each, and the
// chain's fusion makes levels of their features.
#ifndef EOSFM_NATIVE_ENGINE_H
#define EOSFM_NATIVE_ENGINE_H

#include <atomic>

#include "engine.h"
#include "fusion.h"
#include "scene_norms.h"

namespace eosfm {

// All memory of the engine, laid out in one span.
struct NativeMemory {
  float* planes;  // [bands][height][width]
  float* shares[kLevels];  // of valid pixels in each cell
  const float** run_planes;  // the planes of each run's bands
  PassMemory* passes;  // as many as specialists may run at once
  NormMemory* norms;
  WorkerMemory* workers;
  RunTime* times;  // [runs]
  float* gate_levels[kLevels];  // [channels][height][width] of the gate's specialist

  // Finds the place of everything; called once without memory, for the size.
  void lay_out(Layout& layout, const Settings& settings, const Chain& chain, const PackedModel& packed,
               const Kernels& kernels);
};

class NativeEngine final : public Engine {
 public:
  // Chooses the kernels that the environment names, or else the processor's best.
  static eosfm_status choose_kernels(const Kernels** kernels, ErrorText& text);
  // Finds what an engine takes.
  static eosfm_status measure(const eosfm_model& model, const Settings& settings, EngineBytes* bytes,
                              ErrorText& text);

  NativeEngine(RunState& state, const EngineBytes& bytes);
  eosfm_status allocate(ErrorText& text) override;
  void destroy() override;
  eosfm_status check_active(const uint8_t* active) override;
  eosfm_status prepare_grn(eosfm_grn mode) override;
  eosfm_status find_planes(int slot, int index, float** planes) override;
  eosfm_status start(int slot, int count) override;
  eosfm_status wait(int) override { return EOSFM_OK; }
  int find_present(int slot, uint8_t* present) override;
  eosfm_status write(int slot, int index, const uint8_t* present, const eosfm_level* levels) override;
  RunTime time_of(int specialist) const override;

 private:
  void lay_out(Layout& layout);
  void weigh();
  int order_runs();
  void run_alone(int task, int worker);
  void run(int run, int pass, Team& team);
  void finished(int worker);
  bool gate_opens(int run);

  const PackedModel* packed_ = nullptr;
  Span span_;
  NativeMemory memory_ = {};
  Features features_;
  SceneNorms scene_norms_;
  CellWeights weights_ = {};  // of the image, where GRN's sums are gathered
  Array<uint8_t> run_done_;  // [runs], of the last image
  Array<int> active_runs_;  // in the order in which they run
  int active_run_count_ = 0;
  int first_alone_ = 0;  // of those that have a worker each
  std::atomic<int> finished_runs_{0};
};

}  // namespace eosfm

#endif
