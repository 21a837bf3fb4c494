#include "ladder.h"

#include <stdio.h>
#include <string.h>

#include "engines.h"

namespace eosfm {
namespace {

template <class T>
void raise(T* most, T value) {
  if (value > *most) *most = value;
}

// Creates a context on the engine that a name stands for. One that is named is taken only if it gives the known
// answer, unless it is the library's own.
eosfm_status create_on(const char* name, eosfm_model* model, const Settings& settings, eosfm_context** result,
                       ErrorText& error) {
  eosfm_context* context = make<eosfm_context>(model->memory.allocator());
  eosfm_status status =
      context != nullptr ? context->create(model, settings, name, error) : error.no_memory("the context");
  if (status == EOSFM_OK && name != nullptr && strcmp(name, kNative) != 0) {
    status = context->prove(error);
  }
  if (status != EOSFM_OK) {
    unmake(model->memory.allocator(), context);
    return status;
  }
  *result = context;
  return EOSFM_OK;
}

void log_next(const eosfm_model& model, const char* name, const char* reason, const char* next) {
  if (model.log == nullptr) return;
  char line[kTextSize + 3 * kMostEngineName];
  snprintf(line, sizeof line, "%s is not used: %s; %s is next", name, reason, next);
  model.log(model.log_user, EOSFM_LOG_WARNING, line);
}

}  // namespace

eosfm_status measure_most(const eosfm_model& model, const Settings& settings, eosfm_requirements* most,
                          ErrorText& error) {
  eosfm_status status = EOSFM_OK;
  bool is_any = false;
  const auto include = [&](const char* name) {
    eosfm_requirements one = EOSFM_REQUIREMENTS_INIT;
    status = measure_engine(name, model, settings, &one, error);
    if (status != EOSFM_OK) return;
    is_any = true;
    raise(&most->context_bytes, one.context_bytes);
    raise(&most->weights_bytes, one.weights_bytes);
    raise(&most->device_bytes, one.device_bytes);
    raise(&most->pinned_bytes, one.pinned_bytes);
  };
  if (settings.backends == nullptr) include(nullptr);
  char name[kMostEngineName];
  for (const char* left = settings.backends; left != nullptr && *left != '\0';) {
    left = take_name(left, name);
    include(name);
    // An engine whose files the bundle lacks leaves the work to the others.
    if (status != EOSFM_OK && status != EOSFM_NOT_FOUND) return status;
  }
  most->context_bytes += eosfm_context::own_bytes(settings, model.chain);
  return is_any ? EOSFM_OK : status;
}

eosfm_status create_first(eosfm_model* model, const Settings& settings, eosfm_context** result,
                          ErrorText& error) {
  if (settings.backends == nullptr) return create_on(nullptr, model, settings, result, error);
  char name[kMostEngineName];
  char next[kMostEngineName];
  const char* left = take_name(settings.backends, name);
  for (;;) {
    const eosfm_status status = create_on(name, model, settings, result, error);
    if (status == EOSFM_OK || *left == '\0') return status;
    left = take_name(left, next);
    log_next(*model, name, error.text, next);
    memcpy(name, next, sizeof name);
  }
}

}  // namespace eosfm
