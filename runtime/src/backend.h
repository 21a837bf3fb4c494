// A backend in a shared object: loaded, and an engine of it opened.
#ifndef EOSFM_SRC_BACKEND_H
#define EOSFM_SRC_BACKEND_H

#include "../backends/backend.h"
#include "model.h"

namespace eosfm {

constexpr int kMostBackendName = 64;

// Loads libeosfm_NAME.so of a backend, which stays loaded.
eosfm_status load_backend(const char* name, const eosfm_backend** result, ErrorText& error);

class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  ~Backend();

  // Opens an engine of the bundle's graphs or weights. `library` may be null.
  eosfm_status open(const char* name, const char* library, const eosfm_model& model, int threads, int batch,
                    ErrorText& error);
  // Says what an engine would allocate; nothing, if the backend cannot know.
  static eosfm_status measure(const char* name, const eosfm_model& model, int batch,
                           eosfm_backend_memory* memory, ErrorText& error);
  const eosfm_engine& engine() const { return engine_; }
  const eosfm_batches& batches() const { return batches_; }
  // Of the known answer, as this engine gives it: [levels].
  const float* tolerance() const { return tolerance_; }

 private:
  const eosfm_backend* loaded_ = nullptr;
  eosfm_engine engine_ = EOSFM_ENGINE_INIT;
  eosfm_batches batches_ = {};
  float tolerance_[kLevels] = {};
};

}  // namespace eosfm

#endif
