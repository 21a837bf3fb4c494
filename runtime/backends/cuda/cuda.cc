// libeosfm_cuda.so: an NVIDIA GPU computes.
#include <stdio.h>

#include "engine.h"

using namespace eosfm;

namespace {

CudaEngine* engine_of(void* user) { return static_cast<CudaEngine*>(user); }

float* image(void* user, int32_t slot, int32_t index) { return engine_of(user)->image(slot, index); }

int start(void* user, int32_t slot, int32_t count) { return engine_of(user)->start(slot, count) ? 0 : -1; }

int query(void* user, int32_t slot) { return engine_of(user)->query(slot); }

float* level(void* user, int32_t slot, int32_t index, int32_t level) {
  return engine_of(user)->level(slot, index, level);
}

const char* error(void* user) { return engine_of(user)->error(); }

eosfm_status tell(const eosfm_backend_request* request, eosfm_status status, const ErrorText& text) {
  if (status != EOSFM_OK) snprintf(request->error, request->error_size, "%s", text.text);
  return status;
}

eosfm_status open(const eosfm_backend_request* request, eosfm_engine*, eosfm_batches* batches) {
  ErrorText text;
  CudaEngine* opened = make<CudaEngine>(*request->allocator);
  const eosfm_status status = opened != nullptr ? opened->open(*request, text) : text.no_memory("the engine");
  if (status == EOSFM_OK) {
    *batches = {opened->batch(), opened->slots(), opened, image, start, query, level, error};
  } else {
    unmake(*request->allocator, opened);
  }
  return tell(request, status, text);
}

void close(void* user) { unmake(engine_of(user)->allocator(), engine_of(user)); }

eosfm_status measure(const eosfm_backend_request* request, eosfm_backend_memory* memory) {
  ErrorText text;
  return tell(request, CudaEngine::measure(*request, memory, text), text);
}

}  // namespace

const eosfm_backend EOSFM_BACKEND = {open, close, EOSFM_BACKEND_READS_WEIGHTS, measure};
