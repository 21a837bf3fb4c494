// The part of ONNX Runtime's C API that this backend calls.
//
// ONNX Runtime only ever appends to OrtApi, so that a function's place is what a header would say of it:
// no header is needed, and one build works with every version from 1.12 on. Places are those of the table
// in https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/session/onnxruntime_c_api.cc,
// signatures those of include/onnxruntime/core/session/onnxruntime_c_api.h there.
#ifndef EOSFM_ORT_API_H
#define EOSFM_ORT_API_H

#include <stddef.h>
#include <stdint.h>

struct OrtAllocator;
struct OrtCudaOptions;
struct OrtEnv;
struct OrtEpDevice;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtTensorRtOptions;
struct OrtValue;

using OrtLog = void (*)(void* user, int severity, const char* category, const char* id, const char* place,
                        const char* message);
using OrtText = const char* const*;
using OrtUnused = void (*)();

constexpr int kOrtFatal = 4;          // OrtLoggingLevel
constexpr int kOrtFloat = 1;          // ONNXTensorElementDataType
constexpr int kOrtArenaAllocator = 1;  // OrtAllocatorType
constexpr int kOrtDefaultMemory = 0;  // OrtMemType
constexpr uint32_t kOldestApi = 12;
constexpr uint32_t kPluginApi = 22;  // whose table has what plugins of execution providers need

// Functions that return a status return null when they succeed.
struct OrtApi {
  OrtUnused slot_0[2];
  const char* (*GetErrorMessage)(const OrtStatus*);
  OrtUnused slot_3;
  OrtStatus* (*CreateEnvWithCustomLogger)(OrtLog, void* user, int severity, const char* id, OrtEnv**);
  OrtUnused slot_5[3];
  OrtStatus* (*CreateSessionFromArray)(const OrtEnv*, const void* graph, size_t size,
                                       const OrtSessionOptions*, OrtSession**);
  OrtStatus* (*Run)(OrtSession*, const OrtRunOptions*, OrtText input_names, const OrtValue* const* inputs,
                    size_t input_count, OrtText output_names, size_t output_count, OrtValue** outputs);
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions**);
  OrtUnused slot_11[11];
  OrtStatus* (*SetSessionLogSeverityLevel)(OrtSessionOptions*, int severity);
  OrtUnused slot_23;
  OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions*, int threads);
  OrtUnused slot_25[5];
  OrtStatus* (*SessionGetInputCount)(const OrtSession*, size_t*);
  OrtStatus* (*SessionGetOutputCount)(const OrtSession*, size_t*);
  OrtUnused slot_32[4];
  OrtStatus* (*SessionGetInputName)(const OrtSession*, size_t index, OrtAllocator*, char**);
  OrtStatus* (*SessionGetOutputName)(const OrtSession*, size_t index, OrtAllocator*, char**);
  OrtUnused slot_38;
  OrtStatus* (*CreateRunOptions)(OrtRunOptions**);
  OrtUnused slot_40[6];
  OrtStatus* (*RunOptionsSetTerminate)(OrtRunOptions*);
  OrtStatus* (*RunOptionsUnsetTerminate)(OrtRunOptions*);
  OrtUnused slot_48;
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, size_t bytes,
                                               const int64_t* shape, size_t dimensions, int type, OrtValue**);
  OrtUnused slot_50[19];
  OrtStatus* (*CreateCpuMemoryInfo)(int allocator, int memory, OrtMemoryInfo**);
  OrtUnused slot_70[6];
  OrtStatus* (*AllocatorFree)(OrtAllocator*, void*);
  OrtUnused slot_77;
  OrtStatus* (*GetAllocatorWithDefaultOptions)(OrtAllocator**);
  OrtUnused slot_79[13];
  void (*ReleaseEnv)(OrtEnv*);
  void (*ReleaseStatus)(OrtStatus*);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo*);
  void (*ReleaseSession)(OrtSession*);
  void (*ReleaseValue)(OrtValue*);
  void (*ReleaseRunOptions)(OrtRunOptions*);
  OrtUnused slot_98[2];
  void (*ReleaseSessionOptions)(OrtSessionOptions*);
  OrtUnused slot_101[24];
  OrtStatus* (*GetAvailableProviders)(char*** names, int* count);
  OrtStatus* (*ReleaseAvailableProviders)(char** names, int count);
  OrtUnused slot_127[3];
  OrtStatus* (*AddSessionConfigEntry)(OrtSessionOptions*, const char* key, const char* value);
  OrtUnused slot_131[39];
  OrtStatus* (*AppendTensorRt)(OrtSessionOptions*, const OrtTensorRtOptions*);
  OrtStatus* (*CreateTensorRtOptions)(OrtTensorRtOptions**);
  OrtUnused slot_172[2];
  void (*ReleaseTensorRtOptions)(OrtTensorRtOptions*);
  OrtUnused slot_175[29];
  OrtStatus* (*AppendCuda)(OrtSessionOptions*, const OrtCudaOptions*);
  OrtStatus* (*CreateCudaOptions)(OrtCudaOptions**);
  OrtStatus* (*UpdateCudaOptions)(OrtCudaOptions*, OrtText keys, OrtText values, size_t count);
  OrtUnused slot_207;
  void (*ReleaseCudaOptions)(OrtCudaOptions*);
  OrtUnused slot_209[7];
  OrtStatus* (*AppendByName)(OrtSessionOptions*, const char* provider, OrtText keys, OrtText values,
                             size_t count);
  // From kPluginApi on:
  OrtUnused slot_217[84];
  OrtStatus* (*RegisterExecutionProviderLibrary)(OrtEnv*, const char* name, const char* path);
  OrtUnused slot_302;
  OrtStatus* (*GetEpDevices)(const OrtEnv*, const OrtEpDevice* const** devices, size_t* count);
  OrtStatus* (*AppendDevices)(OrtSessionOptions*, OrtEnv*, const OrtEpDevice* const* devices, size_t count,
                              OrtText keys, OrtText values, size_t option_count);
  OrtUnused slot_305[7];
  const char* (*EpDevice_EpName)(const OrtEpDevice*);
};

#define EOSFM_ORT_SLOT(name, slot) static_assert(offsetof(OrtApi, name) == (slot) * sizeof(OrtUnused), #name)
EOSFM_ORT_SLOT(CreateSessionFromArray, 8);
EOSFM_ORT_SLOT(SetIntraOpNumThreads, 24);
EOSFM_ORT_SLOT(SessionGetOutputName, 37);
EOSFM_ORT_SLOT(CreateTensorWithDataAsOrtValue, 49);
EOSFM_ORT_SLOT(CreateCpuMemoryInfo, 69);
EOSFM_ORT_SLOT(GetAllocatorWithDefaultOptions, 78);
EOSFM_ORT_SLOT(ReleaseSessionOptions, 100);
EOSFM_ORT_SLOT(ReleaseAvailableProviders, 126);
EOSFM_ORT_SLOT(AddSessionConfigEntry, 130);
EOSFM_ORT_SLOT(AppendTensorRt, 170);
EOSFM_ORT_SLOT(AppendCuda, 204);
EOSFM_ORT_SLOT(AppendByName, 216);
EOSFM_ORT_SLOT(GetEpDevices, 303);
EOSFM_ORT_SLOT(EpDevice_EpName, 312);
#undef EOSFM_ORT_SLOT

// The struct that OrtGetApiBase returns.
struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

#endif
