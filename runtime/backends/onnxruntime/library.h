// ONNX Runtime, loaded: which file, which version, and its functions.
#ifndef EOSFM_ORT_LIBRARY_H
#define EOSFM_ORT_LIBRARY_H

#include "../../src/status.h"
#include "ort_api.h"

namespace eosfm {

struct OrtLibrary {
  const OrtApi* api = nullptr;
  uint32_t version = 0;   // of the API: 32 is ONNX Runtime 1.32
  const char* text = "";  // "1.32.0"
  char path[1024] = "";   // as it was loaded

  // Loads `path`; if it is null, the environment's EOSFM_ONNXRUNTIME, or else the one that the system finds. The
  // library stays loaded, since it has threads and state that outlive its users.
  eosfm_status load(const char* path, ErrorText& error);
};

}  // namespace eosfm

#endif
