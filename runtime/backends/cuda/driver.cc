#include "driver.h"

#include <dlfcn.h>

namespace eosfm {
namespace {

// CUDA 12.0: code of 12.6 runs on its drivers by minor version compatibility.
constexpr int kOldestVersion = 12000;

}  // namespace

eosfm_status CudaDriver::load(const char* path, ErrorText& error) {
  const char* file = path != nullptr ? path : "libcuda.so.1";
  void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = dlerror();
    return error.fail(EOSFM_NOT_FOUND,
                      "there is no NVIDIA driver: %s; fix: install the driver of the "
                      "GPU, 525 or later",
                      reason != nullptr ? reason : file);
  }
  const char* missing = nullptr;
#define EOSFM_CUDA_FIND(name, symbol, arguments)                          \
  name = reinterpret_cast<CuResult(*) arguments>(dlsym(library, symbol)); \
  if (name == nullptr && missing == nullptr) missing = symbol;
  EOSFM_CUDA_FUNCTIONS(EOSFM_CUDA_FIND)
#undef EOSFM_CUDA_FIND
  dlclose(library);
  if (missing != nullptr) {
    return error.fail(EOSFM_UNSUPPORTED,
                      "the NVIDIA driver is too old: %s has no %s; fix: install "
                      "driver 525 or later",
                      file, missing);
  }
  if (!succeeded(driver_version(&version), "asking for its version", error)) return EOSFM_UNSUPPORTED;
  if (version < kOldestVersion) {
    return error.fail(EOSFM_UNSUPPORTED,
                      "the NVIDIA driver is for CUDA %d.%d, expected %d.%d or later; "
                      "fix: install driver 525 or later",
                      version / 1000, version % 1000 / 10, kOldestVersion / 1000, kOldestVersion % 1000 / 10);
  }
  return succeeded(init(0), "starting it", error) ? EOSFM_OK : EOSFM_UNSUPPORTED;
}

bool CudaDriver::succeeded(CuResult result, const char* what, ErrorText& error) const {
  if (result == 0) return true;
  const char* name = nullptr;
  const char* text = nullptr;
  error_name(result, &name);
  error_string(result, &text);
  error.fail(EOSFM_ENGINE_FAILED, "the NVIDIA driver failed at %s: %s (%s, %d)", what,
             text != nullptr ? text : "an error that it has no words for", name != nullptr ? name : "no name",
             result);
  return false;
}

}  // namespace eosfm
