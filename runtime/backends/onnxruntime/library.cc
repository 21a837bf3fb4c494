#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

namespace eosfm {

eosfm_status OrtLibrary::load(const char* wanted, ErrorText& error) {
  if (wanted == nullptr) wanted = getenv("EOSFM_ONNXRUNTIME");
  if (wanted == nullptr || *wanted == '\0') wanted = "libonnxruntime.so.1";
  snprintf(path, sizeof path, "%s", wanted);
  void* object = dlopen(wanted, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (object == nullptr) {
    const char* reason = dlerror();
    return error.fail(EOSFM_NOT_FOUND,
                      "ONNX Runtime cannot be loaded: %s; say where it is with "
                      "backend_library or EOSFM_ONNXRUNTIME",
                      reason != nullptr ? reason : wanted);
  }
  using GetApiBase = const OrtApiBase* (*)();
  const auto base = reinterpret_cast<GetApiBase>(dlsym(object, "OrtGetApiBase"));
  dlclose(object);
  if (base == nullptr) {
    return error.fail(EOSFM_UNSUPPORTED, "%s is not ONNX Runtime: it has no OrtGetApiBase", wanted);
  }
  text = base()->GetVersionString();
  // GetApi prints to stderr when it lacks the requested version, so request one that it has.
  unsigned major = 0;
  if (sscanf(text, "%u.%u", &major, &version) != 2 || major != 1 || version < kOldestApi) {
    return error.fail(EOSFM_UNSUPPORTED, "%s is ONNX Runtime %s, expected 1.%u or a later 1", wanted, text,
                      kOldestApi);
  }
  const bool has_plugins = version >= kPluginApi;
  api = base()->GetApi(has_plugins ? kPluginApi : kOldestApi);
  if (api != nullptr) return EOSFM_OK;
  return error.fail(EOSFM_UNSUPPORTED, "ONNX Runtime %s (%s) has no version %u of its API", text, wanted,
                    has_plugins ? kPluginApi : kOldestApi);
}

}  // namespace eosfm
