// Opens a bundle that may be damaged, and if it opens, uses all of it: nothing may go wrong but a status.
#ifndef EOSFM_TESTS_ATTEMPT_H
#define EOSFM_TESTS_ATTEMPT_H

#include <eosfm.h>

#include <cstring>
#include <string>
#include <vector>

#include "bundle.h"

// Opens each head among the files, and applies it to an image's levels. Returns the first failure.
inline eosfm_status attempt_heads(eosfm_model* model, const std::vector<eosfm_file>& files,
                                  const eosfm_level* levels) {
  for (const eosfm_file& file : files) {
    const std::string path = file.path;
    if (path.rfind("heads/", 0) != 0) continue;
    const std::string name = path.substr(6, path.size() - 6 - std::strlen(".gguf"));
    eosfm_head* head = nullptr;
    eosfm_status status = eosfm_head_open(model, name.c_str(), &head);
    if (status != EOSFM_OK) return status;
    eosfm_head_info info = EOSFM_HEAD_INFO_INIT;
    eosfm_head_describe(head, &info);
    for (int32_t i = -1; i <= info.outputs; ++i) {
      eosfm_class_info one = EOSFM_CLASS_INFO_INIT;
      eosfm_head_describe_class(head, i, &one);
    }
    const int side = 32 >> (2 + info.level);
    std::vector<float> outputs(static_cast<size_t>(info.outputs) * side * side);
    std::vector<uint8_t> classes(static_cast<size_t>(side) * side);
    eosfm_map map = EOSFM_MAP_INIT;
    map.outputs = outputs.data();
    map.channel_stride = side * side;
    map.row_stride = side;
    map.classes = info.task == EOSFM_CLASSES ? classes.data() : nullptr;
    map.class_stride = side;
    map.probabilities = info.task == EOSFM_CLASSES ? 1 : 0;
    status = eosfm_head_apply(head, levels, 32, 32, &map);
    eosfm_head_close(head);
    if (status != EOSFM_OK) return status;
  }
  return EOSFM_OK;
}

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
    if (status == EOSFM_OK) status = attempt_heads(model, files, out.levels);
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  return status;
}

#endif
