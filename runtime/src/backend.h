// A backend in a shared object: loaded, and an engine of it opened.
#ifndef EOSFM_SRC_BACKEND_H
#define EOSFM_SRC_BACKEND_H

#include "../backends/backend.h"
#include "model.h"
#include "settings.h"

namespace eosfm {

// Loads libeosfm_NAME.so of a backend, which stays loaded.
eosfm_status load_backend(const char* name, const eosfm_backend** result, ErrorText& error);

class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  ~Backend();

  // Opens an engine of the bundle's graphs or weights.
  eosfm_status open(const char* name, eosfm_model& model, const Settings& settings, ErrorText& error);
  // Says what an engine would allocate; nothing, if the backend cannot know.
  static eosfm_status measure(const char* name, const eosfm_model& model, int batch,
                              eosfm_backend_memory* memory, ErrorText& error);
  const eosfm_engine& engine() const { return engine_; }
  const eosfm_batches& batches() const { return batches_; }
  // Of the known answer, as this engine gives it: [levels].
  const float* tolerance() const { return tolerance_; }
  // What it allocates beside the model's memory, of a GPU's and pinned, which counts as taken of that.
  size_t reserved_bytes() const { return reserved_; }

 private:
  bool reserve(size_t bytes);

  const eosfm_backend* loaded_ = nullptr;
  eosfm_engine engine_ = EOSFM_ENGINE_INIT;
  eosfm_batches batches_ = {};
  float tolerance_[kLevels] = {};
  Memory* memory_ = nullptr;  // the model's
  size_t limit_ = 0;          // of the context; 0: none
  size_t reserved_ = 0;
};

}  // namespace eosfm

#endif
