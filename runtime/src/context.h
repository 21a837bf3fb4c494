// A context: everything that a run needs, whichever engine computes. It reads images, ends runs that are cancelled
// or late, and hands out levels.
#ifndef EOSFM_CONTEXT_H
#define EOSFM_CONTEXT_H

#include "engine.h"

struct eosfm_context {
  eosfm_context() = default;
  eosfm_context(const eosfm_context&) = delete;
  eosfm_context& operator=(const eosfm_context&) = delete;
  ~eosfm_context();

  // Returns what a context takes beside its engine.
  static size_t own_bytes(const eosfm::Settings& settings, const eosfm::Chain& chain);

  // Begins a call that uses the context. Refused while another does: in another thread, or in this one,
  // which a callback came from.
  eosfm_status enter();
  void leave() { busy_.store(false, std::memory_order_release); }

  // Creates it on the engine that a name stands for; null: the host's.
  eosfm_status create(eosfm_model* model, const eosfm::Settings& settings, const char* engine,
                      eosfm::ErrorText& text);
  eosfm_status set_active(const uint8_t* active, size_t count);
  eosfm_status set_grn(eosfm_grn mode);
  // Reads the caller's options, of which NULL are the defaults, and checks them.
  eosfm_status read_run_options(const eosfm_run_options* given, eosfm_run_options* options);
  eosfm_status run(const eosfm_image* image, const eosfm_level* levels, const eosfm_run_options* options);

  // Runs the known answer and finds how far each level is off.
  eosfm_status verify(double* worst);
  // Verifies a new context, without a trace in its statistics.
  eosfm_status prove(eosfm::ErrorText& text);

  void cancel();
  void resume();
  // Fails if the context is cancelled.
  eosfm_status check_cancelled();

  // The parts of a run, for streams: between begin and end, images of the engine's slots are staged, slots started
  // and waited for, and levels delivered. What was started may go on after the end. Who uses the slots must have
  // claimed them.
  void begin(const eosfm_run_options& options);
  void end();
  // Takes the slots; returns whether they were the caller's since it last did so.
  bool claim(const void* owner);
  // Reads an image to its place in a slot, when what was under way there is done. `weights` are those of a tile of
  // many, where GRN's sums are gathered; null: the image is alone.
  eosfm_status stage(const eosfm_image* image, const eosfm::CellWeights* weights, int slot, int index);
  eosfm_status start(int slot, int count);
  // Waits for a slot, or until the run is to end.
  eosfm_status wait(int slot);
  // Writes the levels of an image to the caller's, if the run has not ended before.
  eosfm_status deliver(int slot, int index, const eosfm_level* levels, const eosfm_run_options& options);
  // Counts an image that was computed or has failed.
  void count(eosfm_status status);

  eosfm_status measure(eosfm_statistics* statistics);
  eosfm_status measure_specialist(int index, eosfm_specialist_statistics* statistics);
  // Returns the statistics, to which a stream adds.
  eosfm_statistics& statistics() { return statistics_; }

  eosfm_model* model() const { return state_.model; }
  const eosfm::Settings& settings() const { return state_.settings; }
  const char* engine_name() const { return state_.engine_name; }
  const float* tolerance() const { return engine_->tolerance(); }
  int slots() const { return engine_->slots(); }
  int batch() const { return engine_->batch(); }  // images of a slot
  bool gathers() const { return state_.grn == EOSFM_GRN_GATHER; }
  eosfm::ErrorText& error() { return state_.error; }
  const eosfm::ErrorText& error() const { return state_.error; }
  eosfm::Pool& pool() { return state_.pool; }

 private:
  eosfm_status check_room(eosfm::ErrorText& text);
  eosfm_status read_image(int slot, int index);
  eosfm_status stopped();
  eosfm_status cancelled();

  eosfm::RunState state_;
  eosfm::Engine* engine_ = nullptr;
  const void* owner_ = nullptr;  // of the slots
  eosfm::ImageReader reader_;
  eosfm::Array<uint8_t> present_;  // [specialists], in the levels of the last image
  int64_t deadline_ms_ = 0;
  std::atomic<bool> busy_{false};
  // Of all runs since the context was created.
  eosfm_statistics statistics_ = EOSFM_STATISTICS_INIT;
  // A run is stopped, here and in the engine, under the lock, so that what stops one cannot reach the next.
  pthread_mutex_t cancel_mutex_ = PTHREAD_MUTEX_INITIALIZER;
  bool running_ = false;
  bool cancelled_ = false;  // until eosfm_context_resume
};

#endif
