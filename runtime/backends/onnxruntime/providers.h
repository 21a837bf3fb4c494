// Who computes within ONNX Runtime: the CPU, CUDA, TensorRT or TensorRT-RTX.
#ifndef EOSFM_ORT_PROVIDERS_H
#define EOSFM_ORT_PROVIDERS_H

#include "library.h"

namespace eosfm {

// Keeps what a failed call says, and lets go of it. Whether the call succeeded.
bool succeeded(const OrtLibrary& library, OrtStatus* status, const char* what, ErrorText& error);

// Has options use the execution provider of a backend: "onnxruntime-cuda".
eosfm_status add_provider(const OrtLibrary& library, const char* backend, OrtEnv* env,
                          OrtSessionOptions* options, ErrorText& error);

}  // namespace eosfm

#endif
