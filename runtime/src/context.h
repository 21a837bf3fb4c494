// What it takes to run a model: threads, memory, and the way through the chain.
#ifndef EOSFM_CONTEXT_H
#define EOSFM_CONTEXT_H

#include "backend.h"
#include "image.h"
#include "model.h"
#include "team.h"

namespace eosfm {

// Cells of a level over so many pixels, a multiple of 32.
inline int cells(int pixels, int level) { return pixels >> (level + 2); }

// Options with their defaults filled in.
struct Settings {
  int threads = 1;
  eosfm_precision precision = EOSFM_AS_STORED;
  int width = 0;
  int height = 0;
  size_t memory_limit = 0;
  int batch = 0;  // images that a backend computes at once; 0: its choice
  // Names and spaces; the caller's, as is the library's path. Null: the engine, which is not checked.
  const char* backends = "native";
  const char* backend_library = nullptr;
  Pool::Hook thread_hook = {nullptr, nullptr};
  eosfm_engine engine = EOSFM_ENGINE_INIT;  // the host's; compute is null without, its name is the caller's
  eosfm_gate gate = EOSFM_GATE_INIT;  // open is null without

  eosfm_status set(const eosfm_context_options* options, const Chain& chain, ErrorText& error);
};

// What a pass needs beside the network's own: statistics for layer normalisation.
struct SetMemory {
  double* sums;  // [strips][2]
  float* scale;
  float* shift;
};

// GRN's sums of squares of one run of a specialist, over all its hidden channels.
struct GatheredSums {
  double* all;  // of the images that were gathered
  double* fresh;  // of the image that is being run
  size_t count;
  bool any;  // whether there was an image
};

// What one run of a specialist has done since its context was created.
struct RunTime {
  int64_t count;
  int64_t ns;
};

// All memory of a context, laid out in one span.
struct ContextMemory {
  float* planes;  // [bands][height][width]
  uint8_t* valid;  // [height][width]: which pixels are
  float* shares[kLevels];  // of them, in each cell
  char* features[kLevels];  // all sets, beside each other: [pixels][columns]
  const float** run_planes;  // the planes of each run's bands
  PassMemory* passes;  // as many as specialists may run at once
  SetMemory* sets;
  GatheredSums* sums;  // [runs]
  RunTime* times;  // [runs]
  WorkerMemory* workers;
  float* levels[kLevels];  // of the host's engine or of the gate: [channels][height][width]

  // Finds the place of everything; called once without memory, for the size.
  void lay_out(Layout& layout, const Settings& settings, const Chain& chain, const PackedModel& packed,
               const Kernels& kernels);
  // The same where an engine computes; it has `slots` of batches, or 0.
  void lay_out(Layout& layout, const Settings& settings, const Chain& chain, int slots);
};

// What a context keeps: where the library computes, and where an engine does.
size_t context_bytes(const Settings& settings, const Chain& chain, const PackedModel& packed,
                     const Kernels& kernels);
size_t context_bytes(const Settings& settings, const Chain& chain, int slots);

}  // namespace eosfm

struct eosfm_context {
  eosfm::ErrorText error;

  eosfm_context() = default;
  eosfm_context(const eosfm_context&) = delete;
  eosfm_context& operator=(const eosfm_context&) = delete;
  ~eosfm_context();

  // Begins a call that uses the context. Refused while another does: in another thread, or in this one,
  // which a callback came from.
  eosfm_status enter();
  void leave() { busy_.store(false, std::memory_order_release); }

  // `backend` is one of the settings'; null: the engine of the settings, unchecked.
  eosfm_status create(eosfm_model* model, const eosfm::Settings& settings, const char* backend,
                      eosfm::ErrorText& text);
  eosfm_status set_active(const uint8_t* active, size_t count);
  eosfm_status set_grn(eosfm_grn mode);
  // Reads the caller's options, of which NULL are the defaults, and checks them.
  eosfm_status read_run_options(const eosfm_run_options* given, eosfm_run_options* options);
  // `weights` are those of a tile of many, where GRN's sums are gathered; null: the image is alone.
  eosfm_status run(const eosfm_image* image, const eosfm_level* levels, const eosfm_run_options* options,
                   const eosfm::CellWeights* weights = nullptr);
  bool gathers() const { return grn_ == EOSFM_GRN_GATHER; }
  eosfm_status verify(double* worst);
  void cancel();
  void resume();
  // That the context is not cancelled.
  eosfm_status check_cancelled();
  // Counts an image that was computed or has failed.
  void count(eosfm_status status);
  eosfm_status measure(eosfm_statistics* statistics);
  eosfm_status measure_specialist(int index, eosfm_specialist_statistics* statistics);
  // For what a stream adds to them.
  eosfm_statistics& statistics() { return statistics_; }
  const char* backend() const { return backend_name_; }
  const float* tolerance() const { return tolerance_; }
  eosfm_model* model() const { return model_; }
  bool has_engine() const { return settings_.engine.compute != nullptr || has_batches(); }

  // Batches of a backend that has them. Each call of the host is one run, between begin and end; what it
  // starts may go on after it. Who uses the slots must have claimed them.
  bool has_batches() const { return batches_.batch > 0; }
  const eosfm_batches& batches() const { return batches_; }
  void begin(const eosfm_run_options& options);
  void end();
  // Takes the slots; returns whether they were the caller's since it last did so.
  bool claim(const void* owner);
  // Reads an image to its place in a slot, when what was under way there is done.
  eosfm_status stage(const eosfm_image* image, int slot, int index);
  eosfm_status start(int slot, int count);
  // Waits for a slot, or until the run is to end.
  eosfm_status wait(int slot);
  // Copies the levels of an image out.
  eosfm_status deliver(int slot, int index, const eosfm_level* levels, const eosfm_run_options& options);

  const eosfm::Settings& settings() const { return settings_; }
  eosfm::Pool& pool() { return pool_; }

 private:
  class Features;

  eosfm_status open_backend(const char* name, eosfm::ErrorText& text);
  const float* engine_tolerance() const;
  eosfm_status make_memory(eosfm::ErrorText& text);
  eosfm_status check_gathered(const uint8_t* active);
  void forget_gathered();
  void keep_gathered();
  void weigh_alone();
  eosfm_status read_levels(const eosfm_level* given, eosfm_level (&levels)[eosfm::kLevels]);
  eosfm_status compute(const eosfm_level* levels, const eosfm_run_options& options);
  eosfm_status finish(const eosfm_level* levels, const eosfm_run_options& options);
  void run_all();
  void run_alone(int task, int worker);
  void finished(int worker);
  void find_present();
  bool gate_opens(int run);
  void read_image(eosfm::Values values, float* planes);
  eosfm_status run_engine();
  eosfm_status run_batch();
  eosfm_status drain(int slot);
  eosfm_status failed(int code, const char* reason);
  eosfm_status stopped();
  eosfm_status cancelled();
  eosfm_status check_finite();
  void copy_level(int level, const eosfm_level& to);
  void run_one(int run, int pass, eosfm::Team& team);
  bool write_level(int level, const eosfm_level& to);
  bool write_strip(int level, const eosfm::Grid& grid, int strip, int worker, const eosfm_level& to);

  eosfm_model* model_ = nullptr;
  const eosfm::PackedModel* packed_ = nullptr;
  eosfm::Settings settings_;
  eosfm::Backend backend_;
  eosfm_batches batches_ = {};
  eosfm::Array<bool> under_way_;  // [slots]: started, and not yet seen to be done
  const void* owner_ = nullptr;  // of the slots
  char backend_name_[eosfm::kMostBackendName] = "";
  const float* tolerance_ = nullptr;  // [levels], of the known answer
  eosfm::Span span_;
  eosfm::ContextMemory memory_ = {};
  eosfm::Array<uint8_t> active_;  // [specialists]
  eosfm::Array<int> active_runs_;  // in the order in which they run
  int active_run_count_ = 0;
  int first_alone_ = 0;  // of those that have a worker each
  std::atomic<int> finished_runs_{0};
  eosfm_progress_fn progress_ = nullptr;  // of the run that is going on
  void* progress_user_ = nullptr;
  int64_t deadline_ms_ = 0;
  int active_count_ = 0;
  eosfm::Array<uint8_t> run_done_;  // [runs], of the last image
  eosfm::Array<uint8_t> present_;  // [specialists]: whose runs were all done
  int present_count_ = 0;
  std::atomic<int> broken_{-1};  // run * kLevels + level with values that are not finite; -1: none
  eosfm_grn grn_ = EOSFM_GRN_TILE;
  eosfm::CellWeights weights_ = {};  // of the image that is gathered from
  bool weights_given_ = false;
  eosfm::ImageReader reader_;
  eosfm::Stop stop_;
  std::atomic<bool> busy_{false};
  // Of all since the context was created.
  eosfm_statistics statistics_ = EOSFM_STATISTICS_INIT;
  // A run is stopped, here and in the engine, under the lock, so that what stops one cannot reach the next.
  pthread_mutex_t cancel_mutex_ = PTHREAD_MUTEX_INITIALIZER;
  bool running_ = false;
  bool cancelled_ = false;  // until eosfm_context_resume
  eosfm::Pool pool_;
};

#endif
