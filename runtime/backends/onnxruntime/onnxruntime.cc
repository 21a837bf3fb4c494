// libeosfm_onnxruntime.so: engines that compute with ONNX Runtime instead of libeosfm.
#include <stdio.h>

#include "engine.h"

using namespace eosfm;

namespace {

int compute(void* user, const float* image, float* const* levels) {
  return static_cast<OrtEngine*>(user)->compute(image, levels) ? 0 : 1;
}

void cancel(void* user) { static_cast<OrtEngine*>(user)->cancel(); }

const char* error(void* user) { return static_cast<OrtEngine*>(user)->error(); }

eosfm_status open(const eosfm_backend_request* request, eosfm_engine* engine, eosfm_batches*) {
  ErrorText text;
  OrtEngine* opened = make<OrtEngine>(*request->allocator);
  const eosfm_status status = opened != nullptr ? opened->open(*request, text) : text.no_memory("the engine");
  if (status != EOSFM_OK) {
    unmake(*request->allocator, opened);
    snprintf(request->error, request->error_size, "%s", text.text);
    return status;
  }
  *engine = {sizeof(eosfm_engine), compute, opened, cancel, error, nullptr};
  return EOSFM_OK;
}

void close(void* user) {
  OrtEngine* engine = static_cast<OrtEngine*>(user);
  unmake(engine->memory(), engine);
}

}  // namespace

const eosfm_backend EOSFM_BACKEND = {open, close, EOSFM_BACKEND_READS_GRAPHS, nullptr};
