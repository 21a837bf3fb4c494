#include "ladder.h"

#include <stdio.h>
#include <string.h>

namespace eosfm {
namespace {

// Takes the first name off a list and returns what is left; null when there is no name, or a bad one.
const char* take_name(const char* names, char (&name)[kMostBackendName]) {
  names += strspn(names, " ");
  const size_t length = strspn(names, "abcdefghijklmnopqrstuvwxyz0123456789-");
  const bool ends = names[length] == ' ' || names[length] == '\0';
  if (length == 0 || *names == '-' || length >= sizeof name || !ends) return nullptr;
  memcpy(name, names, length);
  name[length] = '\0';
  return names + length + strspn(names + length, " ");
}

eosfm_status create_on(eosfm_model* model, const Settings& settings, const char* backend,
                       eosfm_context** result, ErrorText& error) {
  eosfm_context* context = make<eosfm_context>(model->memory.allocator());
  const eosfm_status status =
      context != nullptr ? context->create(model, settings, backend, error) : error.no_memory("the context");
  if (status != EOSFM_OK) {
    unmake(model->memory.allocator(), context);
    return status;
  }
  *result = context;
  return EOSFM_OK;
}

void log_next(const eosfm_model& model, const char* name, const char* reason, const char* next) {
  if (model.log == nullptr) return;
  char line[kTextSize + 3 * kMostBackendName];
  snprintf(line, sizeof line, "%s is not used: %s; %s is next", name, reason, next);
  model.log(model.log_user, EOSFM_LOG_WARNING, line);
}

}  // namespace

bool are_backends(const char* names) {
  char name[kMostBackendName];
  do {
    names = take_name(names, name);
  } while (names != nullptr && *names != '\0');
  return names != nullptr;
}

bool names_backend(const char* names, const char* backend) {
  char name[kMostBackendName];
  while (*names != '\0') {
    names = take_name(names, name);
    if (strcmp(name, backend) == 0) return true;
  }
  return false;
}

bool names_others(const char* names) {
  char name[kMostBackendName];
  while (*names != '\0') {
    names = take_name(names, name);
    if (strcmp(name, kNative) != 0) return true;
  }
  return false;
}

bool is_engine_name(const char* name) {
  char copy[kMostBackendName];
  const char* left = take_name(name, copy);
  return left != nullptr && *left == '\0' && strcmp(name, copy) == 0 && strcmp(name, kNative) != 0;
}

eosfm_backend_memory most_memory(const eosfm_model& model, const Settings& settings) {
  eosfm_backend_memory most = {0, 0};
  char name[kMostBackendName];
  for (const char* left = settings.backends; *left != '\0';) {
    left = take_name(left, name);
    eosfm_backend_memory one = {0, 0};
    ErrorText ignored;
    const bool is_host = settings.engine.compute != nullptr && strcmp(name, settings.engine.name) == 0;
    if (strcmp(name, kNative) == 0 || is_host ||
        Backend::measure(name, model, settings.batch, &one, ignored) != EOSFM_OK) {
      continue;
    }
    if (one.device_bytes > most.device_bytes) most.device_bytes = one.device_bytes;
    if (one.pinned_bytes > most.pinned_bytes) most.pinned_bytes = one.pinned_bytes;
  }
  return most;
}

eosfm_status create_first(eosfm_model* model, const Settings& settings, eosfm_context** result,
                          ErrorText& error) {
  if (settings.backends == nullptr) return create_on(model, settings, nullptr, result, error);
  char name[kMostBackendName];
  char next[kMostBackendName];
  const char* left = take_name(settings.backends, name);
  for (;;) {
    const eosfm_status status = create_on(model, settings, name, result, error);
    if (status == EOSFM_OK || *left == '\0') return status;
    left = take_name(left, next);
    log_next(*model, name, error.text, next);
    memcpy(name, next, sizeof name);
  }
}

}  // namespace eosfm
