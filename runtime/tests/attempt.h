// Opens a bundle that may be damaged, and if it opens, uses all of it: nothing may go wrong but a status.
#ifndef EOSFM_TESTS_ATTEMPT_H
#define EOSFM_TESTS_ATTEMPT_H

#include <eosfm.h>

#include <vector>

#include "bundle.h"

inline eosfm_status attempt(const std::vector<eosfm_file>& files) {
  eosfm_model* model = nullptr;
  eosfm_status status = eosfm_model_open_memory(files.data(), files.size(), nullptr, &model);
  if (status != EOSFM_OK) return status;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  eosfm_model_describe(model, &info);
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = 1;
  options.width = 32;
  options.height = 32;
  options.memory_limit = 64 << 20;
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  status = eosfm_model_get_requirements(model, &options, &needs);
  eosfm_context* context = nullptr;
  const bool small = status == EOSFM_OK && needs.weights_bytes < (64U << 20);
  if (small) status = eosfm_context_create(model, &options, &context);
  if (context != nullptr) {
    const TestImage image(info.bands, 32, 32);
    TestLevels out(info, 32, 32);
    const eosfm_image view = image.view();
    status = eosfm_context_run(context, &view, out.levels, nullptr);
    double worst[EOSFM_LEVELS];
    if (info.tile == 32) eosfm_context_verify(context, worst);
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  return status;
}

#endif
