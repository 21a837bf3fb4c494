// The execution providers of ONNX Runtime: the CPU, CUDA, TensorRT or TensorRT-RTX.
#ifndef EOSFM_ORT_PROVIDERS_H
#define EOSFM_ORT_PROVIDERS_H

#include "library.h"

namespace eosfm {

// Returns whether a call succeeded; if not, keeps its reason in `error`. Releases the status.
bool succeeded(const OrtLibrary& library, OrtStatus* status, const char* what, ErrorText& error);

// Sets the execution provider of a backend, such as "onnxruntime-cuda", in the options.
eosfm_status add_provider(const OrtLibrary& library, const char* backend, OrtEnv* env,
                          OrtSessionOptions* options, ErrorText& error);

}  // namespace eosfm

#endif
