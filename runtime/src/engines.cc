#include "engines.h"

#include <string.h>

#include "batch_engine.h"
#include "image_engine.h"
#include "native_engine.h"

namespace eosfm {
namespace {

const char* const kKnown[] = {
    kNative,   "cuda", "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx",
    "tensorrt"};

enum class Kind { native, host, backend };

Kind kind_of(const char* name, const Settings& settings) {
  if (name == nullptr) return Kind::host;
  if (strcmp(name, kNative) == 0) return Kind::native;
  const bool is_host = settings.host.compute != nullptr && strcmp(name, settings.host.name) == 0;
  return is_host ? Kind::host : Kind::backend;
}

eosfm_status make_native(RunState& state, Engine** result, ErrorText& error) {
  EngineBytes bytes;
  const eosfm_status status = NativeEngine::measure(*state.model, state.settings, &bytes, error);
  if (status != EOSFM_OK) return status;
  *result = make<NativeEngine>(state.model->memory.allocator(), state, bytes);
  return *result != nullptr ? EOSFM_OK : error.no_memory("the engine");
}

// As a rule, a host's engine computes from the graphs, so their tolerance applies.
eosfm_status make_host(RunState& state, Engine** result, ErrorText& error) {
  const Chain& chain = state.model->chain;
  const float* tolerance = chain.graphs.size() > 0 ? chain.graph_tolerance : chain.tolerance;
  Backend* const none = nullptr;
  *result = make<ImageEngine>(state.model->memory.allocator(), state, state.settings.host, tolerance, none);
  return *result != nullptr ? EOSFM_OK : error.no_memory("the engine");
}

eosfm_status make_of_backend(const char* name, RunState& state, Engine** result, ErrorText& error) {
  const eosfm_allocator& allocator = state.model->memory.allocator();
  Backend* backend = make<Backend>(allocator);
  if (backend == nullptr) return error.no_memory("the engine");
  eosfm_status status = backend->open(name, *state.model, state.settings, error);
  if (status == EOSFM_OK) {
    if (backend->batches().batch > 0) {
      *result = make<BatchEngine>(allocator, state, backend);
    } else {
      *result = make<ImageEngine>(allocator, state, backend->engine(), backend->tolerance(), backend);
    }
    if (*result == nullptr) status = error.no_memory("the engine");
  }
  if (status != EOSFM_OK) unmake(allocator, backend);
  return status;
}

// Checks that engines other than the library's own can do what the settings want.
eosfm_status check_whole(const RunState& state, ErrorText& error) {
  const Settings& settings = state.settings;
  const int tile = state.model->chain.tile;
  if (settings.width != tile || settings.height != tile) {
    return error.fail(EOSFM_UNSUPPORTED, "it runs images of the bundle's %d x %d pixels, not %d x %d", tile,
                      tile, settings.width, settings.height);
  }
  if (settings.precision != EOSFM_AS_STORED || settings.gate.open != nullptr) {
    return error.fail(EOSFM_UNSUPPORTED, "it computes all specialists, as the bundle's graphs are: there "
                                         "is no gate, and no other precision");
  }
  return EOSFM_OK;
}

}  // namespace

const char* known_engine(int index) {
  constexpr int kCount = static_cast<int>(sizeof kKnown / sizeof *kKnown);
  return index < kCount ? kKnown[index] : nullptr;
}

eosfm_status find_engine(const char* name, const char** isa, ErrorText& error) {
  *isa = nullptr;
  const eosfm_backend* backend = nullptr;
  if (strcmp(name, kNative) != 0) return load_backend(name, &backend, error);
  const Kernels* kernels = nullptr;
  const eosfm_status status = NativeEngine::choose_kernels(&kernels, error);
  if (status == EOSFM_OK) *isa = kernels->name;
  return status;
}

eosfm_status make_engine(const char* name, RunState& state, Engine** result, ErrorText& error) {
  const Kind kind = kind_of(name, state.settings);
  if (kind == Kind::native) return make_native(state, result, error);
  // An engine that the host gives without a list of names may take images of any size.
  if (name != nullptr) {
    const eosfm_status status = check_whole(state, error);
    if (status != EOSFM_OK) return status;
  }
  return kind == Kind::host ? make_host(state, result, error) : make_of_backend(name, state, result, error);
}

eosfm_status measure_engine(const char* name, const eosfm_model& model, const Settings& settings,
                            eosfm_requirements* needs, ErrorText& error) {
  EngineBytes bytes;
  switch (kind_of(name, settings)) {
    case Kind::native: {
      const eosfm_status status = NativeEngine::measure(model, settings, &bytes, error);
      if (status != EOSFM_OK) return status;
      break;
    }
    case Kind::host: bytes = ImageEngine::measure(settings, model.chain); break;
    case Kind::backend: {
      // The backend may compute in batches, which take less; that is known only when it is open.
      bytes = ImageEngine::measure(settings, model.chain);
      bytes.object += bytes_of<Backend>();
      eosfm_backend_memory memory = {0, 0};
      ErrorText ignored;
      if (Backend::measure(name, model, settings.batch, &memory, ignored) == EOSFM_OK) {
        needs->device_bytes = memory.device_bytes;
        needs->pinned_bytes = memory.pinned_bytes;
      }
    }
  }
  needs->context_bytes = bytes.object + bytes.images;
  needs->weights_bytes = bytes.weights;
  return EOSFM_OK;
}

}  // namespace eosfm
