// NVIDIA's driver, loaded on first use: libcuda.so.1 and those of its functions that are used.
//
// Declared here, from the driver API's documentation, so that no header of NVIDIA's is needed to build.
#ifndef EOSFM_CUDA_DRIVER_H
#define EOSFM_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "../../src/status.h"

namespace eosfm {

using CuResult = int;
using CuDevice = int;
using CuPointer = unsigned long long;
using CuContext = struct CuContextOpaque*;
using CuModule = struct CuModuleOpaque*;
using CuFunction = struct CuFunctionOpaque*;
using CuStream = struct CuStreamOpaque*;
using CuGraph = struct CuGraphOpaque*;
using CuGraphExec = struct CuGraphExecOpaque*;

constexpr int kCuMajor = 75;  // attributes of a device
constexpr int kCuMinor = 76;
constexpr int kCuMostShared = 97;
constexpr int kCuMultiprocessors = 16;
constexpr int kCuIntegrated = 18;  // the GPU's memory is the host's
constexpr int kCuDynamicShared = 8;      // attribute of a function
constexpr int kCuCaptureRelaxed = 2;     // mode of a capture
constexpr unsigned kCuNonBlocking = 1;   // flag of a stream
constexpr unsigned kCuDeviceMap = 2;     // flag of pinned memory: the GPU reads and writes it
constexpr int kCuOutOfMemory = 2;
constexpr int kCuNoDevice = 100;
constexpr int kCuNotReady = 600;

// name, as it is called here; its symbol; its arguments.
#define EOSFM_CUDA_FUNCTIONS(X)                                                                             \
  X(init, "cuInit", (unsigned flags))                                                                       \
  X(driver_version, "cuDriverGetVersion", (int* version))                                                   \
  X(device_count, "cuDeviceGetCount", (int* count))                                                         \
  X(device, "cuDeviceGet", (CuDevice * device, int index))                                                  \
  X(device_name, "cuDeviceGetName", (char* name, int size, CuDevice device))                                \
  X(device_attribute, "cuDeviceGetAttribute", (int* value, int attribute, CuDevice device))                 \
  X(retain_context, "cuDevicePrimaryCtxRetain", (CuContext * context, CuDevice device))                     \
  X(release_context, "cuDevicePrimaryCtxRelease_v2", (CuDevice device))                                     \
  X(push_context, "cuCtxPushCurrent_v2", (CuContext context))                                               \
  X(pop_context, "cuCtxPopCurrent_v2", (CuContext * context))                                               \
  X(load_module, "cuModuleLoadData", (CuModule * module, const void* image))                                \
  X(unload_module, "cuModuleUnload", (CuModule module))                                                     \
  X(function, "cuModuleGetFunction", (CuFunction * function, CuModule module, const char* name))            \
  X(set_function_attribute, "cuFuncSetAttribute", (CuFunction function, int attribute, int value))          \
  X(memory_info, "cuMemGetInfo_v2", (size_t* free, size_t* total))                                          \
  X(allocate, "cuMemAlloc_v2", (CuPointer * pointer, size_t bytes))                                         \
  X(release, "cuMemFree_v2", (CuPointer pointer))                                                           \
  X(allocate_host, "cuMemHostAlloc", (void** pointer, size_t bytes, unsigned flags))                        \
  X(release_host, "cuMemFreeHost", (void* pointer))                                                         \
  X(host_pointer, "cuMemHostGetDevicePointer_v2", (CuPointer * pointer, void* host, unsigned flags))        \
  X(copy_in, "cuMemcpyHtoD_v2", (CuPointer to, const void* from, size_t bytes))                             \
  X(copy_in_async, "cuMemcpyHtoDAsync_v2", (CuPointer to, const void* from, size_t bytes, CuStream stream)) \
  X(copy_out_async, "cuMemcpyDtoHAsync_v2", (void* to, CuPointer from, size_t bytes, CuStream stream))      \
  X(set_bytes, "cuMemsetD8_v2", (CuPointer to, unsigned char value, size_t bytes))                          \
  X(create_stream, "cuStreamCreate", (CuStream * stream, unsigned flags))                                   \
  X(destroy_stream, "cuStreamDestroy_v2", (CuStream stream))                                                \
  X(synchronize, "cuStreamSynchronize", (CuStream stream))                                                  \
  X(query, "cuStreamQuery", (CuStream stream))                                                              \
  X(begin_capture, "cuStreamBeginCapture_v2", (CuStream stream, int mode))                                  \
  X(end_capture, "cuStreamEndCapture", (CuStream stream, CuGraph * graph))                                  \
  X(instantiate, "cuGraphInstantiateWithFlags",                                                             \
    (CuGraphExec * exec, CuGraph graph, unsigned long long flags))                                          \
  X(destroy_graph, "cuGraphDestroy", (CuGraph graph))                                                       \
  X(destroy_exec, "cuGraphExecDestroy", (CuGraphExec exec))                                                 \
  X(launch_graph, "cuGraphLaunch", (CuGraphExec exec, CuStream stream))                                     \
  X(launch, "cuLaunchKernel",                                                                               \
    (CuFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,              \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, CuStream stream, void** arguments,          \
     void** extra))                                                                                         \
  X(error_name, "cuGetErrorName", (CuResult result, const char** text))                                     \
  X(error_string, "cuGetErrorString", (CuResult result, const char** text))

struct CudaDriver {
#define EOSFM_CUDA_DECLARE(name, symbol, arguments) CuResult(*name) arguments = nullptr;
  EOSFM_CUDA_FUNCTIONS(EOSFM_CUDA_DECLARE)
#undef EOSFM_CUDA_DECLARE
  int version = 0;  // 1000 * major + 10 * minor of the CUDA that it is for

  // Loads the driver and initialises it. Null for `path` lets the system find libcuda.so.1.
  eosfm_status load(const char* path, ErrorText& error);
  // Returns whether a call succeeded; if not, `error` gets what was done and the driver's reason.
  bool succeeded(CuResult result, const char* what, ErrorText& error) const;
};

}  // namespace eosfm

#endif
