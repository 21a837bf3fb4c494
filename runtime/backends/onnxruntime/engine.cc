#include "engine.h"

#include <stdio.h>
#include <string.h>

#include "providers.h"

namespace eosfm {
namespace {

constexpr char kImage[] = "image";
constexpr int kImageShape = EOSFM_LEVELS;

// Errors come with the calls that fail; nothing is written to the standard streams.
void ignore_log(void*, int, const char*, const char*, const char*, const char*) {}

}  // namespace

OrtEngine::~OrtEngine() {
  const OrtApi* api = library_.api;
  if (api == nullptr) return;
  for (Graph& graph : graphs_) {
    for (const Tensor& tensor : graph.inputs) free_name(tensor.name);
    for (const Tensor& tensor : graph.outputs) free_name(tensor.name);
    if (graph.session != nullptr) api->ReleaseSession(graph.session);
  }
  if (run_options_ != nullptr) api->ReleaseRunOptions(run_options_);
  if (memory_ != nullptr) api->ReleaseMemoryInfo(memory_);
  if (env_ != nullptr) api->ReleaseEnv(env_);
}

void OrtEngine::free_name(char* name) {
  if (name == nullptr) return;
  succeeded(library_, library_.api->AllocatorFree(allocator_, name), "a name", error_);
}

eosfm_status OrtEngine::open(const eosfm_backend_request& request, ErrorText& error) {
  host_memory_ = request.allocator;
  eosfm_status status = library_.load(request.library, error);
  if (status != EOSFM_OK) return status;
  const OrtApi& api = *library_.api;
  const auto ok = [&](OrtStatus* one) { return succeeded(library_, one, request.name, error); };
  if (!ok(api.CreateEnvWithCustomLogger(ignore_log, nullptr, kOrtFatal, "eosfm", &env_)) ||
      !ok(api.GetAllocatorWithDefaultOptions(&allocator_)) ||
      !ok(api.CreateCpuMemoryInfo(kOrtArenaAllocator, kOrtDefaultMemory, &memory_)) ||
      !ok(api.CreateRunOptions(&run_options_))) {
    return EOSFM_UNSUPPORTED;
  }
  OrtSessionOptions* options = nullptr;
  if (!ok(api.CreateSessionOptions(&options))) return EOSFM_UNSUPPORTED;
  // Spinning threads would steal the cores that prepare the next image. Without VNNI, products of unsigned and signed
  // bytes overflow 16 bits, unless both are unsigned.
  const bool set = ok(api.SetSessionLogSeverityLevel(options, kOrtFatal)) &&
                   ok(api.SetIntraOpNumThreads(options, request.threads)) &&
                   ok(api.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0")) &&
                   ok(api.AddSessionConfigEntry(options, "session.x64quantprecision", "1"));
  status = set ? add_provider(library_, request.name, env_, options, error) : EOSFM_UNSUPPORTED;
  if (status == EOSFM_OK && !graphs_.allocate(*host_memory_, static_cast<int>(request.graph_count))) {
    status = error.no_memory("the graphs");
  }
  for (int i = 0; status == EOSFM_OK && i < graphs_.size(); ++i) {
    status = open_graph(request.graphs[i], options, &graphs_[i], error);
  }
  api.ReleaseSessionOptions(options);
  return status == EOSFM_OK ? connect(request, error) : status;
}

eosfm_status OrtEngine::open_graph(const eosfm_file& file, const OrtSessionOptions* options, Graph* graph,
                                   ErrorText& error) {
  const OrtApi& api = *library_.api;
  const auto ok = [&](OrtStatus* one) { return succeeded(library_, one, file.path, error); };
  size_t inputs = 0;
  size_t outputs = 0;
  if (!ok(api.CreateSessionFromArray(env_, file.data, file.size, options, &graph->session)) ||
      !ok(api.SessionGetInputCount(graph->session, &inputs)) ||
      !ok(api.SessionGetOutputCount(graph->session, &outputs))) {
    return EOSFM_UNSUPPORTED;
  }
  if (!graph->inputs.allocate(*host_memory_, static_cast<int>(inputs)) ||
      !graph->outputs.allocate(*host_memory_, static_cast<int>(outputs))) {
    return error.no_memory("the graphs' tensors");
  }
  for (size_t i = 0; i < inputs; ++i) {
    Tensor& tensor = graph->inputs[static_cast<int>(i)];
    if (!ok(api.SessionGetInputName(graph->session, i, allocator_, &tensor.name))) {
      return EOSFM_UNSUPPORTED;
    }
  }
  for (size_t i = 0; i < outputs; ++i) {
    Tensor& tensor = graph->outputs[static_cast<int>(i)];
    if (!ok(api.SessionGetOutputName(graph->session, i, allocator_, &tensor.name))) {
      return EOSFM_UNSUPPORTED;
    }
  }
  return EOSFM_OK;
}

// Gives every tensor a place, and finds where each graph's inputs come from.
eosfm_status OrtEngine::connect(const eosfm_backend_request& request, ErrorText& error) {
  int places = 1;  // the first is the image's
  int most = 1;
  for (int g = 0; g < graphs_.size(); ++g) {
    Graph& graph = graphs_[g];
    for (Tensor& tensor : graph.inputs) {
      tensor.place = place_of(tensor.name, g);
      if (tensor.place >= 0) continue;
      return error.fail(EOSFM_BAD_BUNDLE, "%s takes '%s', which no graph before it gives",
                        request.graphs[g].path, tensor.name);
    }
    for (Tensor& tensor : graph.outputs) tensor.place = places++;
    most = graph.inputs.size() > most ? graph.inputs.size() : most;
    most = graph.outputs.size() > most ? graph.outputs.size() : most;
  }
  for (int level = 0; level < EOSFM_LEVELS; ++level) {
    char name[16];
    snprintf(name, sizeof name, "level%d", level + 1);
    level_places_[level] = place_of(name, graphs_.size());
    if (level_places_[level] < 0) {
      return error.fail(EOSFM_BAD_BUNDLE, "no graph gives '%s'", name);
    }
    const int64_t side = request.tile >> (level + 2);
    const int64_t shape[4] = {1, request.channels[level], side, side};
    memcpy(shapes_[level], shape, sizeof shape);
  }
  const int64_t shape[4] = {1, request.bands, request.tile, request.tile};
  memcpy(shapes_[kImageShape], shape, sizeof shape);
  const bool allocated = values_.allocate(*host_memory_, places) && names_.allocate(*host_memory_, most) &&
                         output_names_.allocate(*host_memory_, most) &&
                         inputs_.allocate(*host_memory_, most) && outputs_.allocate(*host_memory_, most);
  return allocated ? EOSFM_OK : error.no_memory("the tensors");
}

// Returns the place of a tensor that one of the first graphs gives; -1 if none does.
int OrtEngine::place_of(const char* name, int graphs) const {
  if (strcmp(name, kImage) == 0) return 0;
  for (int g = 0; g < graphs; ++g) {
    for (const Tensor& tensor : graphs_[g].outputs) {
      if (strcmp(tensor.name, name) == 0) return tensor.place;
    }
  }
  return -1;
}

bool OrtEngine::compute(const float* image, float* const* levels) {
  const OrtApi& api = *library_.api;
  // Clears the cancellation of the run before.
  bool done = succeeded(library_, api.RunOptionsUnsetTerminate(run_options_), "", error_) &&
              bind(const_cast<float*>(image), kImageShape, &values_[0]);
  for (int level = 0; done && level < EOSFM_LEVELS; ++level) {
    done = bind(levels[level], level, &values_[level_places_[level]]);
  }
  for (int g = 0; done && g < graphs_.size(); ++g) done = run(graphs_[g]);
  for (OrtValue*& value : values_) {
    if (value != nullptr) api.ReleaseValue(value);
    value = nullptr;
  }
  return done;
}

// Makes a tensor of existing memory.
bool OrtEngine::bind(void* data, int shape, OrtValue** value) {
  const int64_t* sides = shapes_[shape];
  const size_t bytes = static_cast<size_t>(sides[1] * sides[2] * sides[3]) * sizeof(float);
  return succeeded(
      library_,
      library_.api->CreateTensorWithDataAsOrtValue(memory_, data, bytes, sides, 4, kOrtFloat, value),
      "a tensor", error_);
}

// ONNX Runtime allocates outputs that are not levels.
bool OrtEngine::run(const Graph& graph) {
  for (int i = 0; i < graph.inputs.size(); ++i) {
    names_[i] = graph.inputs[i].name;
    inputs_[i] = values_[graph.inputs[i].place];
  }
  for (int i = 0; i < graph.outputs.size(); ++i) {
    output_names_[i] = graph.outputs[i].name;
    outputs_[i] = values_[graph.outputs[i].place];
  }
  const bool done =
      succeeded(library_,
                library_.api->Run(graph.session, run_options_, names_.begin(), inputs_.begin(),
                                  static_cast<size_t>(graph.inputs.size()), output_names_.begin(),
                                  static_cast<size_t>(graph.outputs.size()), outputs_.begin()),
                "running", error_);
  for (int i = 0; i < graph.outputs.size(); ++i) values_[graph.outputs[i].place] = outputs_[i];
  return done;
}

void OrtEngine::cancel() {
  ErrorText ignored;  // the run's thread may be writing the other
  succeeded(library_, library_.api->RunOptionsSetTerminate(run_options_), "", ignored);
}

}  // namespace eosfm
