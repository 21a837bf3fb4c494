// The levels of an image, for comparing processors: print_levels BUNDLE < image > levels
//
// The image is of the bundle's tile size, float32 [bands][tile][tile] of stored values, and the levels
// come one after the other, float32 [channels][cells][cells].
#include <eosfm.h>

#include <cstdio>
#include <vector>

#include "bundle.h"

int main(int argc, char** argv) {
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  if (argc != 2 || eosfm_model_open(argv[1], nullptr, &model) != EOSFM_OK) return 2;
  if (eosfm_context_create(model, nullptr, &context) != EOSFM_OK) return 2;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  eosfm_model_describe(model, &info);
  TestImage image(info.bands, info.tile, info.tile);
  if (std::fread(image.pixels.data(), sizeof(float), image.pixels.size(), stdin) != image.pixels.size()) {
    return 2;
  }
  std::vector<float> buffers[EOSFM_LEVELS];
  eosfm_level levels[EOSFM_LEVELS];
  for (int l = 0; l < EOSFM_LEVELS; ++l) {
    const int side = info.tile >> (l + 2);
    buffers[l].resize(static_cast<size_t>(side) * side * info.channels[l]);
    levels[l] = {sizeof(eosfm_level), buffers[l].data(), side * side, side};
  }
  const eosfm_image view = image.view();
  const eosfm_status status = eosfm_context_run(context, &view, levels, nullptr);
  for (const std::vector<float>& buffer : buffers) {
    std::fwrite(buffer.data(), sizeof(float), buffer.size(), stdout);
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  return status == EOSFM_OK ? 0 : 1;
}
