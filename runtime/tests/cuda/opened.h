// A context on the stand-in for the driver.
#ifndef EOSFM_TESTS_CUDA_OPENED_H
#define EOSFM_TESTS_CUDA_OPENED_H

#include <dlfcn.h>

#include <cstring>
#include <string>
#include <vector>

#include "../bundle.h"
#include "../check.h"
#include "standin.h"

inline const char* g_driver = nullptr;
inline const char* g_bundle = nullptr;
inline Standin* g_standin = nullptr;

// A model whose log is kept, and a context on the first of some backends.
struct Opened {
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  std::vector<std::string> warnings;
  size_t memory_limit = 0;  // of the model
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;

  eosfm_status create(const char* backends, const char* driver, int batch = 0) {
    eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
    open.log = [](void* user, eosfm_log_level level, const char* text) {
      if (level == EOSFM_LOG_WARNING) static_cast<Opened*>(user)->warnings.emplace_back(text);
    };
    open.log_user = this;
    open.memory_limit = memory_limit;
    CHECK(eosfm_model_open(g_bundle, &open, &model) == EOSFM_OK);
    CHECK(eosfm_model_describe(model, &info) == EOSFM_OK);
    options.threads = 1;
    options.batch = batch;
    options.backends = backends;
    options.backend_library = driver;
    return eosfm_context_create(model, &options, &context);
  }
  Opened() = default;
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() {
    eosfm_context_destroy(context);
    eosfm_model_close(model);
  }
  bool uses(const char* name) const { return std::strcmp(eosfm_context_get_backend(context), name) == 0; }
  eosfm_status run(TestLevels& out) {
    const TestImage pixels(info.bands, info.tile, info.tile);
    const eosfm_image view = pixels.view();
    return eosfm_context_run(context, &view, out.levels, nullptr);
  }
  TestLevels run() {
    TestLevels out(info, info.tile, info.tile);
    CHECK(run(out) == EOSFM_OK);
    CHECK(out.wrong(true) == 0);
    return out;
  }
};

inline void reset() {
  CHECK(g_standin->open == 0);
  CHECK(g_standin->misuses == 0);
  if (g_standin->misuses > 0) std::fprintf(stderr, "misuse: %s\n", g_standin->misuse);
  *g_standin = Standin();
}

// Loads the stand-in; returns whether it is there.
inline bool load_standin(const char* driver, const char* bundle) {
  g_driver = driver;
  g_bundle = bundle;
  void* library = dlopen(driver, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return false;
  }
  g_standin = static_cast<Standin*>(dlsym(library, STANDIN_SYMBOL));
  return true;
}

#endif
