// The stand-in's engines: libeosfm computes a bundle's levels.
#include <NvInferRuntime.h>
#include <eosfm.h>

#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

constexpr const char* kNames[] = {"image", "level1", "level2", "level3", "level4"};

int place_of(const char* name) {
  int at = 0;
  while (std::string(kNames[at]) != name) ++at;
  return at;
}

struct Bundle {
  std::string mode;
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;

  ~Bundle() {
    eosfm_context_destroy(context);
    eosfm_model_close(model);
  }

  Dims shape(int at, int64_t batch) const {
    if (at == 0) return {4, {batch, info.bands, info.tile, info.tile}};
    const int64_t side = info.tile >> (at + 1);
    return {4, {batch, info.channels[at - 1], side, side}};
  }
};

class Execution final : public IExecutionContext {
 public:
  Execution(std::shared_ptr<Bundle> bundle, ILogger& log) : bundle_(bundle), log_(log) {}

  bool setInputShape(const char* name, const Dims& shape) noexcept override {
    batch_ = shape.d[0];
    return place_of(name) == 0 && batch_ == 1;
  }

  bool setTensorAddress(const char* name, void* data) noexcept override {
    addresses_[place_of(name)] = static_cast<float*>(data);
    return true;
  }

  bool enqueueV3(cudaStream_t) noexcept override {
    const bool ready = bundle_->mode == "fixed" || batch_ == 1;
    if (bundle_->mode == "fail" || !ready) {
      log_.log(ILogger::Severity::kERROR, "it was told to fail");
      return false;
    }
    const ptrdiff_t side = bundle_->info.tile;
    std::vector<eosfm_band> bands;
    for (int b = 0; b < bundle_->info.bands; ++b) {
      eosfm_band band = EOSFM_BAND_INIT;
      band.data = addresses_[0] + b * side * side;
      band.column_stride = sizeof(float);
      band.row_stride = side * static_cast<ptrdiff_t>(sizeof(float));
      bands.push_back(band);
    }
    eosfm_level levels[EOSFM_LEVELS];
    for (int l = 0; l < EOSFM_LEVELS; ++l) {
      const ptrdiff_t cells = side >> (l + 2);
      levels[l] = {sizeof(eosfm_level), addresses_[l + 1], cells * cells, cells};
    }
    const eosfm_image image = {sizeof(eosfm_image), bands.data(), bands.size(), nullptr, 0, 0};
    return eosfm_context_run(bundle_->context, &image, levels, nullptr) == EOSFM_OK;
  }

 private:
  std::shared_ptr<Bundle> bundle_;
  ILogger& log_;
  int64_t batch_ = -1;
  float* addresses_[5] = {};
};

class Engine final : public ICudaEngine {
 public:
  Engine(std::shared_ptr<Bundle> bundle, ILogger& log) : bundle_(bundle), log_(log) {}

  int32_t getNbIOTensors() const noexcept override { return 5; }
  const char* getIOTensorName(int32_t index) const noexcept override { return kNames[index]; }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    return place_of(name) == 0 ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  DataType getTensorDataType(const char*) const noexcept override {
    return bundle_->mode == "half" ? DataType::kHALF : DataType::kFLOAT;
  }
  Dims getTensorShape(const char* name) const noexcept override {
    return bundle_->shape(place_of(name), bundle_->mode == "dynamic" ? -1 : 1);
  }
  IExecutionContext* createExecutionContext() noexcept override { return new Execution(bundle_, log_); }

 private:
  std::shared_ptr<Bundle> bundle_;
  ILogger& log_;
};

class Runtime final : public IRuntime {
 public:
  explicit Runtime(ILogger& log) : log_(log) {}

  ICudaEngine* deserializeCudaEngine(const void* data, size_t size) noexcept override {
    std::istringstream text(std::string(static_cast<const char*>(data), size));
    std::string path;
    auto bundle = std::make_shared<Bundle>();
    text >> path >> bundle->mode;
    if (eosfm_model_open(path.c_str(), nullptr, &bundle->model) != EOSFM_OK ||
        eosfm_context_create(bundle->model, nullptr, &bundle->context) != EOSFM_OK) {
      log_.log(ILogger::Severity::kERROR, "it is no engine");
      return nullptr;
    }
    eosfm_model_describe(bundle->model, &bundle->info);
    return new Engine(bundle, log_);
  }

 private:
  ILogger& log_;
};

}  // namespace

namespace nvinfer1 {

// EOSFM_STANDIN_RUNTIME: "null"; or "logged" and "silent", which return what TensorRT 10.16 and 11.4 do on a
// driver that does not fit.
IRuntime* createInferRuntime(ILogger& logger) noexcept {
  const char* fault = std::getenv("EOSFM_STANDIN_RUNTIME");
  if (fault == nullptr) return new Runtime(logger);
  const std::string mode = fault;
  if (mode == "null") return nullptr;
  if (mode == "logged") logger.log(ILogger::Severity::kINTERNAL_ERROR, "CUDA initialization failure");
  return reinterpret_cast<IRuntime*>(0x228);
}

}  // namespace nvinfer1

int32_t getInferLibVersion() noexcept { return 100300; }
