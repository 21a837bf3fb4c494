// Backends: shared objects that hold engines. Loads one and opens an engine of it.
#ifndef EOSFM_SRC_BACKEND_H
#define EOSFM_SRC_BACKEND_H

#include "../backends/backend.h"
#include "model.h"
#include "settings.h"

namespace eosfm {

// Loads libeosfm_NAME.so for NAME and NAME-VARIANT. It stays loaded: libraries beneath it may have threads.
eosfm_status load_backend(const char* name, const eosfm_backend** result, ErrorText& error);

class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  ~Backend();

  // Opens an engine on the bundle's graphs or weights.
  eosfm_status open(const char* name, eosfm_model& model, const Settings& settings, ErrorText& error);
  // Finds how much an engine would allocate; leaves `memory` as it is if the backend cannot know.
  static eosfm_status measure(const char* name, const eosfm_model& model, int batch,
                              eosfm_backend_memory* memory, ErrorText& error);
  const eosfm_engine& engine() const { return engine_; }
  const eosfm_batches& batches() const { return batches_; }
  // Returns how far the known answer may be off with this engine: [levels].
  const float* tolerance() const { return tolerance_; }
  // Returns the bytes that it allocates of a GPU's memory and pinned, which count as taken of the model's.
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
