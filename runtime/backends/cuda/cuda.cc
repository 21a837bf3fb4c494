// libeosfm_cuda.so: an NVIDIA GPU computes.
#include <stdio.h>

#include "../../src/made.h"
#include "engine.h"

using namespace eosfm;

namespace {

int compute(void* user, const float* image, float* const* levels) {
  return static_cast<CudaEngine*>(user)->compute(image, levels) ? 0 : 1;
}

const char* error(void* user) { return static_cast<CudaEngine*>(user)->error(); }

eosfm_status open(const eosfm_backend_request* request, eosfm_engine* engine) {
  ErrorText text;
  CudaEngine* opened = make<CudaEngine>();
  const eosfm_status status =
      opened != nullptr ? opened->open(*request, text) : text.no_memory("the engine");
  if (status != EOSFM_OK) {
    unmake(opened);
    snprintf(request->error, request->error_size, "%s", text.text);
    return status;
  }
  *engine = {sizeof(eosfm_engine), compute, opened, nullptr, error};
  return EOSFM_OK;
}

void close(const eosfm_engine* engine) { unmake(static_cast<CudaEngine*>(engine->user)); }

}  // namespace

const eosfm_backend EOSFM_BACKEND = {open, close, EOSFM_BACKEND_READS_WEIGHTS};
