// A bundle's graphs in ONNX Runtime: sessions that run one after the other.
#ifndef EOSFM_ORT_ENGINE_H
#define EOSFM_ORT_ENGINE_H

#include "../../src/memory.h"
#include "../backend.h"
#include "library.h"

namespace eosfm {

class OrtEngine {
 public:
  OrtEngine() = default;
  OrtEngine(const OrtEngine&) = delete;
  OrtEngine& operator=(const OrtEngine&) = delete;
  ~OrtEngine();

  eosfm_status open(const eosfm_backend_request& request, ErrorText& error);
  // `image` is (bands, tile, tile); levels are dense planes too.
  bool compute(const float* image, float* const* levels);
  void cancel();
  const char* error() const { return error_.text; }

  const eosfm_allocator& memory() const { return *host_memory_; }

 private:
  // Names are ONNX Runtime's; places are those of tensors in values_.
  struct Tensor {
    char* name = nullptr;
    int place = -1;
  };
  struct Graph {
    OrtSession* session = nullptr;
    Array<Tensor> inputs;
    Array<Tensor> outputs;
  };

  eosfm_status open_graph(const eosfm_file& file, const OrtSessionOptions* options, Graph* graph,
                          ErrorText& error);
  eosfm_status connect(const eosfm_backend_request& request, ErrorText& error);
  int place_of(const char* name, int graphs) const;
  void free_name(char* name);
  bool bind(void* data, int shape, OrtValue** value);
  bool run(const Graph& graph);

  const eosfm_allocator* host_memory_ = nullptr;
  OrtLibrary library_;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  OrtRunOptions* run_options_ = nullptr;
  OrtAllocator* allocator_ = nullptr;  // ONNX Runtime's, of names
  Array<Graph> graphs_;
  Array<OrtValue*> values_;  // of one run: the image, and what graphs give
  Array<const char*> names_;        // of one graph's inputs or outputs
  Array<const char*> output_names_;
  Array<OrtValue*> inputs_;
  Array<OrtValue*> outputs_;
  int level_places_[EOSFM_LEVELS] = {};
  int64_t shapes_[EOSFM_LEVELS + 1][4] = {};  // of the levels, and of the image
  ErrorText error_;
};

}  // namespace eosfm

#endif
