// The features of all runs of an image, and the levels that the chain's fusion makes of them.
#ifndef EOSFM_FUSION_H
#define EOSFM_FUSION_H

#include <atomic>

#include "cells.h"
#include "model.h"
#include "settings.h"

namespace eosfm {

// Memory for the layer normalisation of a run's levels.
struct NormMemory {
  double* sums;  // [strips][2]
  float* scale;  // [padded width]
  float* shift;
};

// A level's features are [pixels][columns], and each run fills some of the columns.
class Features {
 public:
  void set(const eosfm_model& model, const PackedModel& packed, const Settings& settings);
  // Finds the place of everything; called once without memory, for the size.
  void lay_out(Layout& layout, const PackedModel& packed, const Settings& settings);
  // Forgets the image before.
  void clear() { broken_.store(-1, std::memory_order_relaxed); }
  // Returns whether all that runs have written so far is finite.
  bool are_finite() const { return broken_.load(std::memory_order_relaxed) < 0; }
  eosfm_status check_finite(ErrorText& error) const;

  // Copies a run's features of a level as floats, [channels][height][width].
  void copy(int run, int level, float* to, const WorkerMemory* workers, Team& team) const;
  // Fuses a level and writes it; returns whether all that the fusion computed is finite. The features of
  // specialists that are not present become zeros.
  bool write_level(int level, const uint8_t* present, const WorkerMemory* workers, Pool* pool,
                   const eosfm_level& to);

  // Receives the levels of one run: normalised, projected and multiplied by the selection's factor, they become
  // the run's columns.
  class Sink final : public LevelSink {
   public:
    Sink(Features& features, int run, const NormMemory& memory)
        : features_(features), run_(run), memory_(memory) {}
    void take(int level, const Image& image, int width, const WorkerMemory* workers, Team& team) override;

   private:
    void normalise_layer(const Image& image, int width, const SetWeights& set, Team& team);

    Features& features_;
    int run_;
    const NormMemory& memory_;
  };

 private:
  Grid grid_of(int level) const { return {cells(width_, level), cells(height_, level)}; }
  size_t pixel_bytes(int level) const;
  bool write_strip(int level, int strip, const uint8_t* present, const WorkerMemory& mine,
                   const eosfm_level& to);

  const Chain* chain_ = nullptr;
  const ChainWeights* weights_ = nullptr;
  const Kernels* kernels_ = nullptr;
  int width_ = 0;
  int height_ = 0;
  char* columns_[kLevels] = {};   // [pixels][columns]
  std::atomic<int> broken_{-1};  // run * kLevels + level with values that are not finite; -1: none
};

}  // namespace eosfm

#endif
