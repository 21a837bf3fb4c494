// libeosfm_tensorrt.so: an engine that computes with TensorRT instead of libeosfm.
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "engine.h"

using namespace eosfm;

namespace {

int compute(void* user, const float* image, float* const* levels) {
  auto* engine = static_cast<TensorRtEngine*>(user);
  try {
    engine->compute(image, levels);
    return 0;
  } catch (const std::exception& error) {
    engine->keep(error.what());
    return 1;
  }
}

const char* error(void* user) { return static_cast<TensorRtEngine*>(user)->error().c_str(); }

eosfm_status open(const eosfm_backend_request* request, eosfm_engine* engine, eosfm_batches*) {
  try {
    if (std::string(request->name) != "tensorrt") {
      throw std::runtime_error("there is no backend " + std::string(request->name));
    }
    auto opened = std::make_unique<TensorRtEngine>(*request);
    *engine = {sizeof(eosfm_engine), compute, opened.release(), nullptr, error, nullptr};
    return EOSFM_OK;
  } catch (const std::exception& error) {
    std::snprintf(request->error, request->error_size, "%s", error.what());
    return EOSFM_UNSUPPORTED;
  }
}

void close(void* user) { delete static_cast<TensorRtEngine*>(user); }

}  // namespace

const eosfm_backend EOSFM_BACKEND = {open, close, EOSFM_BACKEND_READS_GRAPHS, nullptr};
