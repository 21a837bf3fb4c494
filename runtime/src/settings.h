// A context's options, checked, with their defaults filled in.
#ifndef EOSFM_SETTINGS_H
#define EOSFM_SETTINGS_H

#include "chain.h"
#include "status.h"
#include "team.h"

namespace eosfm {

struct Settings {
  int threads = 1;
  eosfm_precision precision = EOSFM_AS_STORED;
  int width = 0;  // pixels of an image
  int height = 0;
  size_t memory_limit = 0;  // bytes; 0: none
  int batch = 0;            // images that a backend computes at once; 0: its choice
  // Names of engines with spaces between them; null: the host's engine alone. The caller's text, as is the
  // library's path.
  const char* backends = nullptr;
  const char* backend_library = nullptr;
  Pool::Hook thread_hook = {nullptr, nullptr};
  eosfm_engine host = EOSFM_ENGINE_INIT;  // the host's engine: without one, compute is null
  eosfm_gate gate = EOSFM_GATE_INIT;      // without one, open is null

  // Reads the caller's options, of which NULL are the defaults, and checks them.
  eosfm_status set(const eosfm_context_options* options, const Chain& chain, ErrorText& error);

 private:
  eosfm_status set_engines(const eosfm_context_options& given, ErrorText& error);
  eosfm_status set_gate(const eosfm_context_options& given, const Chain& chain, ErrorText& error);
};

}  // namespace eosfm

#endif
