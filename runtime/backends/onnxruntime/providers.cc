#include "providers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace eosfm {
namespace {

constexpr char kCuda[] = "CUDAExecutionProvider";
constexpr char kTensorRt[] = "TensorrtExecutionProvider";
constexpr char kTensorRtRtx[] = "NvTensorRTRTXExecutionProvider";
constexpr char kTensorRtRtxByName[] = "NvTensorRtRtx";  // how AppendByName calls it

// Returns whether this ONNX Runtime was built with a provider. `all` gets the names of its providers.
bool has_provider(const OrtLibrary& library, const char* provider, char* all, size_t size) {
  char** names = nullptr;
  int count = 0;
  bool found = false;
  ErrorText ignored;
  if (!succeeded(library, library.api->GetAvailableProviders(&names, &count), "", ignored)) {
    return false;
  }
  *all = '\0';
  for (int i = 0; i < count; ++i) {
    const size_t used = strlen(all);
    snprintf(all + used, size - used, "%s%s", i > 0 ? ", " : "", names[i]);
    found = found || strcmp(names[i], provider) == 0;
  }
  succeeded(library, library.api->ReleaseAvailableProviders(names, count), "", ignored);
  return found;
}

eosfm_status require_provider(const OrtLibrary& library, const char* provider, ErrorText& error) {
  char all[256] = "";
  if (has_provider(library, provider, all, sizeof all)) return EOSFM_OK;
  return error.fail(EOSFM_UNSUPPORTED, "ONNX Runtime %s (%s) has no %s, only %s", library.text, library.path,
                    provider, all);
}

eosfm_status add_cuda(const OrtLibrary& library, OrtSessionOptions* options, ErrorText& error) {
  const OrtApi& api = *library.api;
  OrtCudaOptions* cuda = nullptr;
  if (!succeeded(library, api.CreateCudaOptions(&cuda), kCuda, error)) return EOSFM_UNSUPPORTED;
  // TensorFloat-32 has ten bits of mantissa, which is not fp32. Versions that do not know the option refuse it:
  // there the known answer decides.
  const char* key = "use_tf32";
  const char* value = "0";
  ErrorText ignored;
  succeeded(library, api.UpdateCudaOptions(cuda, &key, &value, 1), kCuda, ignored);
  const bool added = succeeded(library, api.AppendCuda(options, cuda), kCuda, error);
  api.ReleaseCudaOptions(cuda);
  return added ? EOSFM_OK : EOSFM_UNSUPPORTED;
}

eosfm_status add_tensorrt(const OrtLibrary& library, OrtSessionOptions* options, ErrorText& error) {
  const OrtApi& api = *library.api;
  OrtTensorRtOptions* tensorrt = nullptr;
  if (!succeeded(library, api.CreateTensorRtOptions(&tensorrt), kTensorRt, error)) {
    return EOSFM_UNSUPPORTED;
  }
  const bool added = succeeded(library, api.AppendTensorRt(options, tensorrt), kTensorRt, error);
  api.ReleaseTensorRtOptions(tensorrt);
  return added ? EOSFM_OK : EOSFM_UNSUPPORTED;
}

// Finds the GPUs of NVIDIA's plugin. Registers it if needed: all users of ONNX Runtime in the process share one
// environment.
eosfm_status find_rtx_device(const OrtLibrary& library, OrtEnv* env, const OrtEpDevice** device,
                             ErrorText& error) {
  const OrtApi& api = *library.api;
  const char* path = getenv("EOSFM_TENSORRT_RTX");
  if (path == nullptr || *path == '\0') path = "libonnxruntime_providers_nv_tensorrt_rtx.so";
  for (int turn = 0; turn < 2; ++turn) {
    const OrtEpDevice* const* devices = nullptr;
    size_t count = 0;
    if (!succeeded(library, api.GetEpDevices(env, &devices, &count), kTensorRtRtx, error)) {
      return EOSFM_UNSUPPORTED;
    }
    for (size_t i = 0; i < count; ++i) {
      *device = devices[i];
      if (strcmp(api.EpDevice_EpName(devices[i]), kTensorRtRtx) == 0) return EOSFM_OK;
    }
    if (turn == 0 &&
        !succeeded(library, api.RegisterExecutionProviderLibrary(env, kTensorRtRtx, path), path, error)) {
      return EOSFM_UNSUPPORTED;
    }
  }
  return error.fail(EOSFM_UNSUPPORTED, "%s finds no GPU that it can use", path);
}

eosfm_status add_tensorrt_rtx(const OrtLibrary& library, OrtEnv* env, OrtSessionOptions* options,
                              ErrorText& error) {
  const OrtApi& api = *library.api;
  char all[256];
  if (has_provider(library, kTensorRtRtx, all, sizeof all)) {
    OrtStatus* status = api.AppendByName(options, kTensorRtRtxByName, nullptr, nullptr, 0);
    return succeeded(library, status, kTensorRtRtx, error) ? EOSFM_OK : EOSFM_UNSUPPORTED;
  }
  if (library.version < kPluginApi) {
    return error.fail(EOSFM_UNSUPPORTED,
                      "ONNX Runtime %s (%s) has no %s, and takes no plugins: 1.%u and "
                      "later do",
                      library.text, library.path, kTensorRtRtx, kPluginApi);
  }
  const OrtEpDevice* device = nullptr;
  const eosfm_status status = find_rtx_device(library, env, &device, error);
  if (status != EOSFM_OK) return status;
  OrtStatus* added = api.AppendDevices(options, env, &device, 1, nullptr, nullptr, 0);
  return succeeded(library, added, kTensorRtRtx, error) ? EOSFM_OK : EOSFM_UNSUPPORTED;
}

}  // namespace

bool succeeded(const OrtLibrary& library, OrtStatus* status, const char* what, ErrorText& error) {
  if (status == nullptr) return true;
  error.fail(EOSFM_UNSUPPORTED, "ONNX Runtime %s, %s: %s", library.text, what,
             library.api->GetErrorMessage(status));
  library.api->ReleaseStatus(status);
  return false;
}

eosfm_status add_provider(const OrtLibrary& library, const char* backend, OrtEnv* env,
                          OrtSessionOptions* options, ErrorText& error) {
  eosfm_status status = EOSFM_OK;
  if (strcmp(backend, "onnxruntime") == 0) return EOSFM_OK;  // the CPU is always there
  if (strcmp(backend, "onnxruntime-cuda") == 0) {
    status = require_provider(library, kCuda, error);
    return status == EOSFM_OK ? add_cuda(library, options, error) : status;
  }
  if (strcmp(backend, "onnxruntime-tensorrt") == 0) {
    status = require_provider(library, kTensorRt, error);
    return status == EOSFM_OK ? add_tensorrt(library, options, error) : status;
  }
  if (strcmp(backend, "onnxruntime-tensorrt-rtx") == 0) {
    return add_tensorrt_rtx(library, env, options, error);
  }
  return error.fail(EOSFM_BAD_ARGUMENT,
                    "there is no backend %s, expected onnxruntime, onnxruntime-cuda, "
                    "onnxruntime-tensorrt or onnxruntime-tensorrt-rtx",
                    backend);
}

}  // namespace eosfm
