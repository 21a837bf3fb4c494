// An engine computes the images of a context. This is the interface of all engines, and the state that they share with
// the context.
//
// An engine has slots, each of as many images as it computes at once. For each image the context asks where its
// pixels go, reads them there, starts the slot, waits for it, and has the levels written. A stream fills the next
// slots meanwhile. An engine that computes in the thread that starts it has one slot of one image.
//
// native_engine.h is the library's own. Foreign engines (foreign_engine.h) compute one image at a time, as those of
// hosts do (image_engine.h), or batches (batch_engine.h). engines.h makes the one that a name stands for.
#ifndef EOSFM_ENGINE_H
#define EOSFM_ENGINE_H

#include "cells.h"
#include "engine_names.h"
#include "image.h"
#include "model.h"
#include "settings.h"

namespace eosfm {

// The state that a context and its engine share. The context sets it.
struct RunState {
  eosfm_model* model = nullptr;
  Settings settings;
  char engine_name[kMostEngineName] = "";
  ErrorText error;
  Array<uint8_t> valid;  // [height][width]: which pixels of the image that was read last are valid
  Array<uint8_t> active;  // [specialists]
  eosfm_grn grn = EOSFM_GRN_TILE;
  // The weights of that image's cells, where GRN's sums are gathered and it is one tile of many.
  CellWeights weights = {};
  bool is_weighted = false;
  eosfm_progress_fn progress = nullptr;  // of the call that is going on; null: nobody is told
  void* progress_user = nullptr;
  Stop stop;
  Pool pool;
};

// Number and time of a specialist's finished runs since the context was created.
struct RunTime {
  int64_t count;
  int64_t ns;
};

// Bytes that an engine takes.
struct EngineBytes {
  size_t object = 0;  // for itself, when it is made
  size_t images = 0;  // for what it computes, by allocate
  size_t weights = 0;  // for weights, by allocate, unless another context has them already
  size_t reserved = 0;  // of a GPU's memory and pinned, when it is made
};

// Functions that fail leave a sentence in the state's error, except where they are given another.
class Engine {
 public:
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  int slots() const { return slots_; }
  int batch() const { return batch_; }
  Values values() const { return values_; }
  const float* tolerance() const { return tolerance_; }  // [levels], of the known answer
  const EngineBytes& bytes() const { return bytes_; }

  // Takes the memory for images, and the weights. Called once.
  virtual eosfm_status allocate(ErrorText& text) = 0;
  // Destroys the engine and gives its memory back. No thread of the pool may be computing.
  virtual void destroy() = 0;

  // Checks that the engine can leave out the specialists that are not active.
  virtual eosfm_status check_active(const uint8_t* active) = 0;
  // Prepares for a mode of GRN, which takes effect with the next image.
  virtual eosfm_status prepare_grn(eosfm_grn mode) = 0;

  // Finds where the planes of an image of a slot go, [bands][height][width], once nothing is under way there. Finds
  // nothing if the state's stop comes first.
  virtual eosfm_status find_planes(int slot, int index, float** planes) = 0;
  // Starts the first `count` images of a slot, or computes them.
  virtual eosfm_status start(int slot, int count) = 0;
  // Waits until the images of a slot are computed, or the state's stop.
  virtual eosfm_status wait(int slot) = 0;
  // Marks the specialists that are in the levels of a slot's images, as far as the stop let them be computed, and
  // returns how many there are.
  virtual int find_present(int slot, uint8_t* present) = 0;
  // Writes the levels that are wanted of an image, once all values that it starts from are found to be finite. The
  // features of specialists that are not present count as zeros.
  virtual eosfm_status write(int slot, int index, const uint8_t* present, const eosfm_level* levels) = 0;

  // Makes start return soon; called from any thread.
  virtual void cancel() {}
  // Returns a specialist's number and time of runs; zeros where the engine cannot know.
  virtual RunTime time_of(int specialist) const = 0;

 protected:
  Engine(RunState& state, Values values, int slots, int batch, const float* tolerance,
         const EngineBytes& bytes)
      : state_(state), values_(values), slots_(slots), batch_(batch), tolerance_(tolerance), bytes_(bytes) {}
  ~Engine() = default;

  RunState& state_;

 private:
  Values values_;
  int slots_;
  int batch_;
  const float* tolerance_;
  EngineBytes bytes_;
};

}  // namespace eosfm

#endif
