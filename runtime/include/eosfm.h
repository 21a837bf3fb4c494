/* libeosfm: runs EoS-FM ensembles of satellite-image specialists, as bundles that `eosfm-edge export`
 * writes. C99, and C++.
 *
 *   eosfm_model *model;                    what a bundle holds; read-only, shared by all threads
 *   eosfm_context *context;                what running it needs; used by one thread at a time
 *
 *   eosfm_model_open("six.eosfm", NULL, &model);
 *   eosfm_context_create(model, NULL, &context);
 *   eosfm_context_run(context, &image, levels, NULL);
 *   eosfm_context_destroy(context);
 *   eosfm_model_close(model);
 *
 * Functions are called eosfm_<noun>_<verb>: the noun is what they make or take as their first
 * argument, or the library, or a status.
 *
 * The rules of every call:
 * - It returns a status, one of those that its comment lists. When that is not EOSFM_OK, it has written
 *   nothing to its out-parameters (except eosfm_context_verify and a fusion in eosfm_context_run, which say so),
 *   and eosfm_model_get_error() or eosfm_context_get_error() has a sentence with what was found and what was
 *   expected.
 * - Structs begin with `struct_size`, which the caller sets to sizeof the struct. The EOSFM_..._INIT
 *   macros do that and set every default. See "Growth" below.
 * - Nothing is written to the standard streams, nothing exits or throws, no signal is touched.
 * - Destroying NULL does nothing.
 *
 * Threads: a model may be used from any thread at once. A context, with its streams, is used by one call at
 * a time: another, from a second thread or from a callback, gets EOSFM_BUSY. Only
 * eosfm_context_cancel and eosfm_context_resume may be called meanwhile, from anywhere but a signal handler. Any
 * number of contexts may share a model. A model may be closed while it has contexts: it is freed with the last of
 * them.
 *
 * Callbacks must return: they must not throw, nor leave by longjmp. One that does leaves its context busy for
 * good: it can only be destroyed, which waits for the threads that are still computing, and some memory may
 * leak. Callbacks must not destroy what called them.
 *
 * Processes: the threads of a context run with signals blocked, but for faults of their own. The child of a
 * fork may use its parent's models and make contexts of its own; those of its parent it can only destroy,
 * unless they have one thread.
 *
 * Texts, names and sentences, are UTF-8 without control characters, whatever a bundle holds.
 *
 * Growth: a program runs with any later library of its major version, without being compiled again, and a
 * program of a later header runs with this library where it asks for nothing that is new. Later versions
 * append fields to structs, functions and values of enums; they never move, remove or reinterpret any. Of a
 * struct that is given, the library reads the fields that both have; those that only the library has count
 * as EOSFM_..._INIT sets them. Of a struct that it fills, it writes the fields that both have and leaves the
 * others as they are. Elements of an array of structs all have the same struct_size, which is the step from
 * one to the next. No struct lies inside another. A struct_size below that of the first version, or beyond
 * 4096, or that is no multiple of 8, is EOSFM_BAD_ARGUMENT.
 *
 * Memory: a model keeps its files mapped (or uses the caller's memory) and the weights as the
 * processor's kernels want them; the first context of a precision makes those. A context allocates all
 * that it needs when it is created, as a stream does; eosfm_context_run and eosfm_stream_pull_patch allocate nothing.
 * eosfm_context_verify does, for the known answer, and gives it back. What EOSFM_GRN_GATHER adds up has its
 * place from the start. All of it comes from the host's eosfm_allocator, if there is one, and otherwise from malloc.
 *
 * Mapped files must not be truncated or written to while the model is open: reading a page that is no longer
 * there ends the process by SIGBUS. Replace them by renaming, as `eosfm-edge export` does: a model
 * stays with the directory that it was opened from. Hosts that must survive anything else set `private_copy`.
 *
 * Environment: EOSFM_ISA forces a lower instruction set: avx2, avx512, avx512-vnni, avx512-bf16, amx,
 * neon or neon-dotprod. It is read when a model is opened. EOSFM_ONNXRUNTIME and EOSFM_TENSORRT_RTX say
 * where backends find theirs, and are read when a context is created.
 */
#ifndef EOSFM_H
#define EOSFM_H

#include <stddef.h>
#include <stdint.h>

#if defined(EOSFM_BUILD)
#define EOSFM_API __attribute__((visibility("default")))
#else
#define EOSFM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EOSFM_VERSION_MAJOR 0
#define EOSFM_VERSION_MINOR 1
#define EOSFM_VERSION_PATCH 0

/* 1002003 is 1.2.3: later versions are larger. */
#define EOSFM_VERSION_NUMBER \
  (EOSFM_VERSION_MAJOR * 1000000 + EOSFM_VERSION_MINOR * 1000 + EOSFM_VERSION_PATCH)

/* Levels of the feature pyramid: level i has a cell for every 4 << i pixels, in each direction. */
#define EOSFM_LEVELS 4

typedef struct eosfm_model eosfm_model;
typedef struct eosfm_context eosfm_context;

typedef enum eosfm_status {
  EOSFM_OK = 0,
  EOSFM_BAD_ARGUMENT = 1, /* the call is wrong; nothing is wrong with the bundle */
  EOSFM_NOT_FOUND = 2,    /* a file does not exist or cannot be read */
  EOSFM_BAD_BUNDLE = 3,   /* a file is damaged, or breaks the rules of the format */
  EOSFM_UNSUPPORTED = 4,  /* this processor or this version cannot do it */
  EOSFM_NO_MEMORY = 5,    /* no memory, or none within the limit */
  EOSFM_CANCELLED = 6,    /* eosfm_context_cancel or the progress callback ended the run */
  EOSFM_DEADLINE = 7,     /* the deadline passed before the run was done */
  EOSFM_WRONG_ANSWER = 8, /* the known answer is not reproduced */
  EOSFM_NOT_FINITE = 9,   /* the model gives values that are not finite */
  EOSFM_AGAIN = 10,       /* of a stream: push more rows first */
  EOSFM_END = 11,         /* of a stream: there are no more patches */
  EOSFM_ENGINE_FAILED = 12, /* the host's engine, or the backend, could not compute */
  EOSFM_BUSY = 13         /* another call is using the context; its sentence stays as it is */
} eosfm_status;

/* Returns the version of the loaded library, "0.1.0". Compare it with EOSFM_VERSION_... of the header. */
EOSFM_API const char *eosfm_library_get_version(void);

/* Returns the EOSFM_VERSION_NUMBER of the loaded library. */
EOSFM_API int32_t eosfm_library_get_version_number(void);

/* Returns a few words for a status; never NULL. */
EOSFM_API const char *eosfm_status_get_text(int status);

/* ---- Models ---------------------------------------------------------------------------------- */

typedef enum eosfm_log_level { EOSFM_LOG_INFO = 0, EOSFM_LOG_WARNING = 1 } eosfm_log_level;

/* Called from the thread that made the call; `text` lives until it returns. */
typedef void (*eosfm_log_fn)(void *user, eosfm_log_level level, const char *text);

/* The host's memory: a heap, a pool or an array of its own. All memory of a model, its contexts and its streams
 * comes from here, and the library calls malloc for nothing. Beside it there are mapped files, the stacks of
 * threads, and what the system's loader, a GPU's driver, ONNX Runtime and TensorRT allocate.
 *
 * The functions are called while the host opens, creates, verifies, closes or destroys, from its thread; at the
 * same time where several of its threads do. They must not call the library, and must work until the model is
 * closed and its last context destroyed. */
typedef struct eosfm_allocator {
  size_t struct_size;
  /* Returns memory at a multiple of `alignment`, a power of two, or NULL if there is none. `size` is a
   * multiple of it too. The memory need not be zero. */
  void *(*allocate)(void *user, size_t size, size_t alignment);
  /* Takes back what allocate gave, with the size that it was asked for. */
  void (*release)(void *user, void *memory, size_t size);
  void *user;
} eosfm_allocator;

#define EOSFM_ALLOCATOR_INIT {sizeof(eosfm_allocator), NULL, NULL, NULL}

typedef struct eosfm_open_options {
  size_t struct_size;
  eosfm_log_fn log; /* NULL: nothing is logged */
  void *log_user;
  char *error; /* receives the sentence when opening fails, since there is no model then; or NULL.
                  Not written when struct_size is not set. */
  size_t error_size;
  int32_t private_copy; /* not 0: files are read into memory instead of mapped, which takes their size, and
                           later changes of them do no harm. Not for eosfm_model_open_memory. */
  int32_t *error_code; /* receives the code beneath a failure, as of eosfm_model_get_error_code; or NULL */
  size_t memory_limit; /* bytes that the model, its contexts and its streams may have taken at any moment;
                          0: no limit. What would take more fails with EOSFM_NO_MEMORY. All memory counts that
                          the allocator gives, or malloc, and what cuda allocates of the GPU's memory and
                          pinned. Mapped files do not, nor what ONNX Runtime and TensorRT allocate. */
  const eosfm_allocator *allocator; /* copied; NULL: malloc and free */
} eosfm_open_options;

#define EOSFM_OPEN_OPTIONS_INIT {sizeof(eosfm_open_options), NULL, NULL, NULL, 0, 0, NULL, 0, NULL}

/* A file of a bundle that is in memory: its path in the bundle ("chain.gguf"), and its bytes. */
typedef struct eosfm_file {
  size_t struct_size;
  const char *path;
  const void *data;
  size_t size;
} eosfm_file;

#define EOSFM_FILE_INIT {sizeof(eosfm_file), NULL, NULL, 0}

/* Opens the bundle in a directory: chain.gguf and the specialists that it names. It ignores the bundle's
 * other files and does not check SHA-256 digests: `eosfm-edge verify` does.
 *
 * Specialists' files that are not there are no failure where chain.gguf names ONNX graphs: backends that run
 * those compute without. eosfm_context_create then fails for native and cuda with EOSFM_NOT_FOUND, and names the
 * file.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NOT_FOUND, EOSFM_BAD_BUNDLE, EOSFM_UNSUPPORTED,
 * EOSFM_NO_MEMORY. */
EOSFM_API eosfm_status eosfm_model_open(const char *directory, const eosfm_open_options *options,
                                        eosfm_model **model);

/* Opens a bundle in memory, which must not change until the model is closed.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NOT_FOUND, EOSFM_BAD_BUNDLE, EOSFM_UNSUPPORTED,
 * EOSFM_NO_MEMORY. */
EOSFM_API eosfm_status eosfm_model_open_memory(const eosfm_file *files, size_t count,
                                               const eosfm_open_options *options, eosfm_model **model);

EOSFM_API void eosfm_model_close(eosfm_model *model);

/* Returns the sentence of this model's last failed call in any thread, "" if there was none. Another thread's
 * failing call changes it. */
EOSFM_API const char *eosfm_model_get_error(const eosfm_model *model);

/* Returns the code beneath that failure: the system's errno if a file could not be read or a thread not be
 * created; with EOSFM_ENGINE_FAILED, what the engine's compute returned; otherwise 0. */
EOSFM_API int32_t eosfm_model_get_error_code(const eosfm_model *model);

typedef struct eosfm_model_info {
  size_t struct_size;
  const char *name;
  const char *isa; /* the instruction set that is used */
  int32_t bands; /* of the input */
  int32_t specialists; /* in the bundle */
  int32_t runs; /* of specialists for one image; a specialist may run on several band sets */
  int32_t tile; /* pixels of the side that the bundle was made for, a multiple of 32 */
  int32_t channels[EOSFM_LEVELS]; /* of each level */
  size_t memory_bytes; /* taken now by the model, its contexts and its streams, as memory_limit counts */
  size_t memory_peak_bytes; /* the most that was taken at any moment so far */
} eosfm_model_info;

#define EOSFM_MODEL_INFO_INIT {sizeof(eosfm_model_info), NULL, NULL, 0, 0, 0, 0, {0, 0, 0, 0}, 0, 0}

/* Describes the model. Texts live as long as it does.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_model_describe(eosfm_model *model, eosfm_model_info *info);

typedef struct eosfm_band_info {
  size_t struct_size;
  const char *name; /* "B04", "VV"; "" where it is not known */
  float wavelength_nm; /* 0 where it is not known */
  float scale; /* physical value = stored value * scale + offset */
  float offset;
  float fill; /* the stored value that stands for pixels without data */
  int32_t has_nodata;
  float nodata; /* the stored value that means no data */
} eosfm_band_info;

#define EOSFM_BAND_INFO_INIT {sizeof(eosfm_band_info), NULL, 0, 0, 0, 0, 0, 0}

/* Describes a band of the input.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_model_describe_band(eosfm_model *model, int32_t index, eosfm_band_info *info);

typedef struct eosfm_specialist_info {
  size_t struct_size;
  const char *name;
  const char *backbone; /* timm's name: "convnextv2_atto"; "" if the specialist's file is not there */
  const char *licence; /* "" if the file is not there, or does not say */
  int32_t bands; /* bands that it takes */
  int32_t runs; /* its runs for one image */
  float factor; /* by which the selection multiplies its features */
} eosfm_specialist_info;

#define EOSFM_SPECIALIST_INFO_INIT {sizeof(eosfm_specialist_info), NULL, NULL, NULL, 0, 0, 0}

/* Describes a specialist. Texts live as long as the model.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_model_describe_specialist(eosfm_model *model, int32_t index,
                                                       eosfm_specialist_info *info);

/* ---- Contexts -------------------------------------------------------------------------------- */

typedef enum eosfm_precision {
  EOSFM_AS_STORED = 0, /* each layer as the bundle stores it: fp32, bf16 or int8 */
  EOSFM_BF16 = 1 /* fp32 layers are computed in bf16, if the processor has that in hardware */
} eosfm_precision;

/* An engine of the host's own, which computes the levels instead of the library; reading images and streaming
 * scenes stay the library's. */
typedef struct eosfm_engine {
  size_t struct_size;
  /* Called for each image from the thread that runs. `image` is [bands][height][width] of values as the
   * bundle's sensor stores them, with pixels that are not valid filled. Each of the EOSFM_LEVELS `levels`
   * is [channels][height / stride][width / stride], and all must be written. Returns 0, or anything else
   * on failure. */
  int (*compute)(void *user, const float *image, float *const *levels);
  void *user;
  /* Called by eosfm_context_cancel, from its thread, during a run: makes compute return soon. It must not call the
   * library. NULL: compute cannot be ended early. */
  void (*cancel)(void *user);
  /* The sentence of compute's last failure. NULL: there is none. */
  const char *(*error)(void *user);
  /* By which `backends` of the context's options can name it: small letters, digits and '-', but not
   * "native". NULL: "host". */
  const char *name;
} eosfm_engine;

#define EOSFM_ENGINE_INIT {sizeof(eosfm_engine), NULL, NULL, NULL, NULL, NULL}

/* A specialist that decides for each image whether the others run. */
typedef struct eosfm_gate {
  size_t struct_size;
  int32_t specialist; /* the specialist that decides; it runs first */
  /* Called from the thread that runs with the EOSFM_LEVELS levels of the specialist's first run, as they go
   * into the fusion: [channels][height / stride][width / stride], with so many channels each, which are
   * gone after the call. Returns 0 to skip the others, whose features then count as zeros. Not called
   * when the specialist is not active. */
  int (*open)(void *user, const float *const *levels, const int32_t *channels);
  void *user;
} eosfm_gate;

#define EOSFM_GATE_INIT {sizeof(eosfm_gate), 0, NULL, NULL}

typedef struct eosfm_context_options {
  size_t struct_size;
  int32_t threads; /* 1 to 256; 0: as many as there are processors for this process,
                      or as its control groups grant, if that is less */
  int32_t precision; /* an eosfm_precision */
  int32_t width; /* pixels of the images, multiples of 32 up to 1024; 0: the bundle's tile */
  int32_t height;
  size_t memory_limit; /* bytes; 0: none. Creating fails if more is needed together: context_bytes and
                          weights_bytes of the requirements and, with cuda, what it allocates of the GPU's
                          memory and pinned, which on a board is the same memory. Mapped files, and what is
                          taken for a moment, do not count. */
  const eosfm_engine *engine; /* copied; NULL: the library's own. Where one computes, no weights are made,
                                 all specialists are active and GRN is the tile's. */
  const eosfm_gate *gate; /* copied; NULL: there is none. Not with an engine, nor where the fusion is a
                             product. */
  /* The engines that may compute: names with spaces between them, of which the first that works here is taken. NULL:
   * "native", which is this library, or the engine if there is one. With an engine, its name is to be
   * among them. See "Backends" below. */
  const char *backends;
  const char *backend_library; /* the file of the library beneath a backend; NULL: it is searched for */
  int32_t batch; /* tiles of a stream that a backend computes at once, 1 to 64; 0: its choice, which is 4 for
                    cuda. Results do not depend on it. Others than cuda compute one at a time. */
  /* Called on each of the context's own threads before it computes anything, with 1 to threads - 1; the
   * thread that runs is 0, and the host's. For its affinity, priority, name or signal mask. Creating waits
   * until all have returned; they may be called at once. NULL: nothing is called. */
  void (*thread_started)(void *user, int32_t thread);
  void *thread_user;
} eosfm_context_options;

#define EOSFM_CONTEXT_OPTIONS_INIT \
  {sizeof(eosfm_context_options), 0, EOSFM_AS_STORED, 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL, NULL}

/* Backends. Others can compute instead of this library, from the bundle's weights or its ONNX graphs:
 *
 *   native                   this library
 *   cuda                     our kernels on an NVIDIA GPU of compute capability 8.0 or later, with its
 *                            driver (525 or later) and nothing else: layers that are stored as int8 in
 *                            int8, others in half precision with float32 sums. cuda-1 is the second
 *                            GPU; cuda-fp32 and cuda-1-fp32 compute in float32, for checking
 *   onnxruntime              ONNX Runtime 1.12 or later, on the CPU
 *   onnxruntime-cuda         with CUDA
 *   onnxruntime-tensorrt     with TensorRT, which builds its engines when the context is created
 *   onnxruntime-tensorrt-rtx with TensorRT-RTX: of ONNX Runtime's own build, or NVIDIA's plugin
 *   tensorrt                 TensorRT 8.6 or later, with the engines that `eosfm-edge build` left in the
 *                            bundle for this GPU and this version
 *
 * as in "onnxruntime-tensorrt onnxruntime-cuda native". The name up to its first '-' is that of a shared
 * object, libeosfm_NAME.so, which is loaded when it is first asked for: from the directory of this
 * library, or else as the system finds it. It loads the library beneath it in turn: ONNX Runtime is
 * `backend_library`, or else the environment's EOSFM_ONNXRUNTIME, or else libonnxruntime.so.1 as the
 * system finds it; NVIDIA's plugin is EOSFM_TENSORRT_RTX, or else
 * libonnxruntime_providers_nv_tensorrt_rtx.so; the driver for cuda is `backend_library`, or else
 * libcuda.so.1. Loaded libraries stay loaded.
 *
 * An engine of the host's takes its turn where `backends` has its name, before a shared object of that name:
 * as in "mine onnxruntime-cuda native". It may open its own resources when it first computes, which is for
 * the known answer. One that is given without `backends` is used without that check.
 *
 * A backend is taken only if it gives the bundle's known answer. For one that is not, the model's log gets
 * a warning with the reason, and the next is tried; if it was the last, eosfm_context_create fails with
 * that reason. Backends other than native run images of the bundle's tile size, all specialists, and GRN
 * over the tile. They allocate memory of their own: cuda when the context is created, as the requirements
 * say; the others, which the requirements do not count, while running too. eosfm_context_cancel ends ONNX
 * Runtime's runs soon; those of TensorRT go on to their end. A deadline is checked before and after. A run
 * on cuda returns within a fraction of a millisecond of either, and the next waits for what the GPU was given.
 *
 * With cuda, a stream gives the GPU the tiles that follow in their row, a batch of them and then another,
 * while the host blends those before. eosfm_context_run, and another stream of the same context, take its place: it
 * then computes again what was ahead. */

typedef struct eosfm_requirements {
  size_t struct_size;
  size_t context_bytes; /* of the context itself, without the stacks of its threads */
  size_t weights_bytes; /* the weights for this precision, which contexts of a model share */
  size_t mapped_bytes; /* the bundle's files */
  size_t device_bytes; /* of a GPU's memory, that cuda allocates: beside what its driver takes for itself */
  size_t pinned_bytes; /* of the host's, that cuda has pinned for copies */
} eosfm_requirements;

#define EOSFM_REQUIREMENTS_INIT {sizeof(eosfm_requirements), 0, 0, 0, 0, 0}

/* Gives the needs of a context with these options; with several backends, those of the neediest. NULL
 * options are the defaults. A backend whose library or files are missing needs nothing; of native alone that is
 * EOSFM_NOT_FOUND. Creating takes a little more for a moment, which memory_peak_bytes shows afterwards.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NOT_FOUND, EOSFM_UNSUPPORTED, EOSFM_NO_MEMORY. */
EOSFM_API eosfm_status eosfm_model_get_requirements(eosfm_model *model, const eosfm_context_options *options,
                                                    eosfm_requirements *requirements);

/* Creates a context. NULL options are the defaults. EOSFM_WRONG_ANSWER and EOSFM_ENGINE_FAILED come from
 * backends other than native; from native EOSFM_NOT_FOUND is of specialists' files.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NOT_FOUND, EOSFM_BAD_BUNDLE, EOSFM_UNSUPPORTED,
 * EOSFM_NO_MEMORY, EOSFM_WRONG_ANSWER, EOSFM_ENGINE_FAILED. */
EOSFM_API eosfm_status eosfm_context_create(eosfm_model *model, const eosfm_context_options *options,
                                            eosfm_context **context);

EOSFM_API void eosfm_context_destroy(eosfm_context *context);

/* Returns the sentence of this context's last failed call, "" if there was none. */
EOSFM_API const char *eosfm_context_get_error(const eosfm_context *context);

/* Returns the code beneath that failure, as eosfm_model_get_error_code does. */
EOSFM_API int32_t eosfm_context_get_error_code(const eosfm_context *context);

/* Returns the name of the engine that computes: one of `backends`, or that of the options' engine. */
EOSFM_API const char *eosfm_context_get_backend(const eosfm_context *context);

/* An engine on which a context can be created. */
typedef struct eosfm_engine_info {
  size_t struct_size;
  const char *name; /* as in eosfm_context_options.backends; lives for ever */
  int64_t status; /* an eosfm_status: EOSFM_OK if it is here; EOSFM_NOT_FOUND if its shared object cannot be
                       loaded; EOSFM_UNSUPPORTED if that is of another version, or the processor lacks what
                       the native engine needs */
  char *reason; /* the caller's, or NULL: where the sentence goes if it is not here, and "" if it is */
  size_t reason_size;
  const char *isa; /* the instruction set that the native engine would use here: "avx512-vnni"; NULL for
                      other engines, and if it is not here; lives for ever */
} eosfm_engine_info;

#define EOSFM_ENGINE_INFO_INIT {sizeof(eosfm_engine_info), NULL, 0, NULL, 0, NULL}

/* Describes the engine `index`, from 0, of those that this version knows; EOSFM_END behind the last. Loads its
 * shared object, but not the libraries beneath it: whether there is a GPU, or an ONNX Runtime, is
 * known when eosfm_context_create is asked for it.
 *
 * Status: EOSFM_OK, EOSFM_END, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_library_describe_engine(int32_t index, eosfm_engine_info *info);

/* A context's work since it was created; times in nanoseconds of the wall clock. */
typedef struct eosfm_statistics {
  size_t struct_size;
  int64_t images; /* computed, tiles of streams included */
  int64_t failures; /* begun but not finished: cancelled, late, not finite, or the engine failed */
  int64_t tiles; /* tiles of streams whose patches were given */
  int64_t tiles_skipped; /* those of them that were skipped for want of valid pixels */
  int64_t read_ns; /* spent on reading pixels into planes */
  int64_t compute_ns; /* spent in the specialists, or in the engine */
  int64_t fuse_ns; /* spent on fusion, and on writing levels into the caller's memory */
  int64_t blend_ns; /* spent on blending tiles of streams into patches */
} eosfm_statistics;

#define EOSFM_STATISTICS_INIT {sizeof(eosfm_statistics), 0, 0, 0, 0, 0, 0, 0, 0}

/* Fills in a context's statistics.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_measure(eosfm_context *context, eosfm_statistics *statistics);

/* A specialist's work in a context of the native engine; zeros where another engine computes. */
typedef struct eosfm_specialist_statistics {
  size_t struct_size;
  int64_t runs; /* finished runs; a specialist may run more than once for an image */
  int64_t compute_ns; /* from their beginnings to their ends: where each runs on a thread of its own, those of
                         several specialists are more together than the statistics' compute_ns */
} eosfm_specialist_statistics;

#define EOSFM_SPECIALIST_STATISTICS_INIT {sizeof(eosfm_specialist_statistics), 0, 0}

/* Fills in the statistics of one specialist.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_measure_specialist(eosfm_context *context, int32_t index,
                                                        eosfm_specialist_statistics *statistics);

/* Chooses which specialists run, for the runs that follow: `active` has one flag for each specialist.
 * The features of the others count as zeros. At least one must be active.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_UNSUPPORTED, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_set_active(eosfm_context *context, const uint8_t *active, size_t count);

/* The pixels over which global response normalisation (GRN) takes the norms of a specialist's hidden channels. */
typedef enum eosfm_grn {
  EOSFM_GRN_TILE = 0, /* over the image of each run, as the network was trained: the default */
  EOSFM_GRN_GATHER = 1, /* over its valid pixels, and the sums of squares are added up over the images */
  EOSFM_GRN_SCENE = 2 /* over the valid pixels of all images that were gathered */
} eosfm_grn;

/* Chooses GRN's mode for the runs that follow. With EOSFM_GRN_TILE, a cell's features depend on all of
 * its tile. To make those of a scene's tiles agree, run every tile with EOSFM_GRN_GATHER, and then every
 * tile with EOSFM_GRN_SCENE: a specialist's network looks no farther than its convolutions then. Layer
 * normalisation of the chain, where the bundle has it, stays the tile's.
 *
 * A cell counts by the share of its pixels that are valid, and once: where tiles of a stream overlap, their
 * cells are weighted as they are blended. Images of eosfm_context_run count whole.
 *
 * The sums are of each run of each specialist and each block, in double, and belong to the context. Each
 * call with EOSFM_GRN_GATHER forgets them; EOSFM_GRN_TILE keeps them. A run that is cancelled, too late
 * or refused adds nothing to them, nor does eosfm_context_verify, which takes each image's own norms in any mode;
 * specialists that are not active add nothing to theirs. EOSFM_GRN_SCENE is refused, and the mode stays
 * as it was, if nothing was gathered of a specialist that is active; as long as it is the mode,
 * eosfm_context_set_active refuses such a specialist too.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_UNSUPPORTED, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_set_grn(eosfm_context *context, eosfm_grn mode);

/* ---- Running --------------------------------------------------------------------------------- */

typedef enum eosfm_dtype {
  EOSFM_U8 = 0,
  EOSFM_U16 = 1,
  EOSFM_I16 = 2,
  EOSFM_F32 = 3,
  EOSFM_I8 = 4,
  EOSFM_I32 = 5,
  EOSFM_U32 = 6,
  EOSFM_F64 = 7,
  EOSFM_BIG_ENDIAN = 256 /* added to one of these: the most significant byte comes first */
} eosfm_dtype;

/* One band of an image in the caller's memory. scale, offset and nodata are the bundle's (eosfm_model_describe_band),
 * unless `calibrated` is not 0: then they are those given here. Values of 32-bit integers and doubles are
 * scaled in double and then rounded to float32; others are scaled in float32. */
typedef struct eosfm_band {
  size_t struct_size;
  const void *data; /* the first pixel of the first row; aligned for its dtype */
  int32_t dtype; /* an eosfm_dtype */
  ptrdiff_t column_stride; /* bytes from a pixel to the next of its row */
  ptrdiff_t row_stride; /* bytes from a row to the next; may be negative */
  int32_t calibrated;
  float scale; /* physical = stored * scale + offset; not 0 */
  float offset;
  int32_t has_nodata;
  double nodata; /* compared with stored values: as float32 in bands of EOSFM_F32, and otherwise exactly.
                    The bundle's is a float32: stored values are rounded to float32 before. */
  int32_t step; /* pixels of the image, in each direction, that one of this band covers: 1 to 1024. Each
                    pixel of the image takes the value that covers it. */
  int32_t row_origin; /* pixels of the image by which the band's first row begins before the image's, */
  int32_t column_origin; /* and its first column: 0 to step - 1 */
} eosfm_band;

#define EOSFM_BAND_INIT {sizeof(eosfm_band), NULL, EOSFM_F32, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0}

/* The bands in the model's order. A pixel where any band has its nodata value or is not finite, or the mask
 * is 0, is given every band's fill value: the bundle's, in the bundle's scale and offset also where the band
 * is calibrated. */
typedef struct eosfm_image {
  size_t struct_size;
  const eosfm_band *bands;
  size_t band_count;
  const uint8_t *mask; /* of the first pixel: 0 where the image is not valid; NULL: there is none */
  ptrdiff_t mask_column_stride; /* bytes from a pixel's to the next of its row; 0: they are adjacent */
  ptrdiff_t mask_row_stride; /* bytes from a row to the next; 0: they are adjacent */
} eosfm_image;

#define EOSFM_IMAGE_INIT {sizeof(eosfm_image), NULL, 0, NULL, 0, 0}

/* The place of a level in the caller's memory: `channels` planes of (height / stride) x (width / stride)
 * floats, with adjacent cells in a row. Strides are in floats, and data is aligned to them. data NULL: the
 * level is not wanted. */
typedef struct eosfm_level {
  size_t struct_size;
  float *data;
  ptrdiff_t channel_stride;
  ptrdiff_t row_stride;
} eosfm_level;

#define EOSFM_LEVEL_INIT {sizeof(eosfm_level), NULL, 0, 0}

/* Called now and then from the thread that runs, with how many runs of specialists are done. Returns 0 to
 * continue; anything else cancels. */
typedef int (*eosfm_progress_fn)(void *user, int32_t done, int32_t total);

typedef struct eosfm_run_options {
  size_t struct_size;
  int64_t deadline_ms; /* from the call on; 0: none. Checked whenever cancellation is. */
  eosfm_progress_fn progress;
  void *progress_user;
  /* A flag for each specialist, or NULL: which are in the levels, when the run succeeds. With it, a run
   * whose deadline passes succeeds with the specialists that were done, in their order in the bundle as a
   * rule; the features of the others count as zeros. It fails only if none was, or if the fusion is a
   * product. */
  uint8_t *present;
  size_t present_count;
} eosfm_run_options;

#define EOSFM_RUN_OPTIONS_INIT {sizeof(eosfm_run_options), 0, NULL, NULL, NULL, 0}

/* Computes the levels of an image. The caller's buffers are written at the end: a run that is
 * cancelled, too late or refused leaves them as they were. EOSFM_NOT_FINITE if a specialist, an engine or
 * the fusion gives infinities or NaN, as with damaged weights and with images whose values are in
 * another unit: only where the fusion is the first to do so have levels been written. Once fusion has
 * started, cancellation and the deadline are ignored and the run completes.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_CANCELLED, EOSFM_DEADLINE, EOSFM_NOT_FINITE,
 * EOSFM_ENGINE_FAILED, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_run(eosfm_context *context, const eosfm_image *image,
                                         const eosfm_level levels[EOSFM_LEVELS],
                                         const eosfm_run_options *options);

/* Cancels the context until eosfm_context_resume: a run in another thread ends, and it and all later ones return
 * EOSFM_CANCELLED, so a run that begins a moment later is not missed. Runs check between tasks, some rows of one
 * layer each: mostly every few milliseconds, more for wide networks on slow processors. A run that is already
 * fusing and writing its levels completes. */
EOSFM_API void eosfm_context_cancel(eosfm_context *context);

/* Lets a cancelled context run again; from any thread but a signal handler, at any time. A run that is being
 * cancelled still ends. A stream's cancelled tile is computed again next. */
EOSFM_API void eosfm_context_resume(eosfm_context *context);

/* Runs the bundle's known answer, as EOSFM_GRN_TILE does, and compares: `worst` receives each level's largest
 * difference over its largest value, also with EOSFM_WRONG_ANSWER, when one is too large. Values
 * that are not finite are infinitely far off. The context must be of the bundle's tile
 * size, with every specialist active. Allocates an image and its levels until it returns.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NO_MEMORY, EOSFM_CANCELLED, EOSFM_WRONG_ANSWER,
 * EOSFM_ENGINE_FAILED, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_verify(eosfm_context *context, double worst[EOSFM_LEVELS]);

/* Gives how far eosfm_context_verify lets each level be off, in parts of its largest value: as the bundle allows its
 * weights or its graphs, whichever are computed from. A host's engine is taken to compute from the graphs.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_get_tolerance(eosfm_context *context, double tolerance[EOSFM_LEVELS]);

/* ---- Heads ----------------------------------------------------------------------------------- */

/* A head turns levels into an answer for each cell: a class, or numbers. It is a file of the bundle,
 * heads/NAME.gguf, and is a linear function of one or several levels, of which the coarser are resampled
 * bilinearly to the finest: that level's cells are those of the answer. Whichever engine computes the levels, the
 * answer is computed from them in float32 by this library, so equal levels give equal answers. */
typedef struct eosfm_head eosfm_head;

typedef enum eosfm_task {
  EOSFM_CLASSES = 0, /* an output for each class: the largest is the cell's */
  EOSFM_REGRESSION = 1 /* outputs are the numbers that were asked for */
} eosfm_task;

/* The code of cells without data among those of classes. */
#define EOSFM_NO_CLASS 255

/* Heads of one stream, at most. */
#define EOSFM_MOST_HEADS 16

typedef struct eosfm_head_info {
  size_t struct_size;
  const char *name;
  int32_t task; /* an eosfm_task */
  int32_t outputs; /* of a cell: as many as there are classes, or numbers */
  int32_t level; /* whose cells it answers for, from 0: one for every 4 << level pixels */
  int32_t levels[EOSFM_LEVELS]; /* not 0: it reads the level */
} eosfm_head_info;

#define EOSFM_HEAD_INFO_INIT {sizeof(eosfm_head_info), NULL, 0, 0, 0, {0, 0, 0, 0}}

typedef struct eosfm_class_info {
  size_t struct_size;
  const char *name;
  int32_t code; /* in maps: 0 to 254 */
  int32_t red; /* 0 to 255, as are the others */
  int32_t green;
  int32_t blue;
} eosfm_class_info;

#define EOSFM_CLASS_INFO_INIT {sizeof(eosfm_class_info), NULL, 0, 0, 0, 0}

/* Opens the head `name` of a model's bundle: heads/NAME.gguf, in its directory or among its files in memory. Checks
 * that it fits the bundle's levels and gives its own known answer; EOSFM_WRONG_ANSWER if it was fitted for the
 * features of another bundle. The sentence of a failure is at eosfm_model_get_error.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NOT_FOUND, EOSFM_BAD_BUNDLE, EOSFM_NO_MEMORY, EOSFM_WRONG_ANSWER. */
EOSFM_API eosfm_status eosfm_head_open(eosfm_model *model, const char *name, eosfm_head **head);

/* Closes a head; NULL does nothing. Streams that have it keep it until they are destroyed, and it keeps the model's
 * memory. */
EOSFM_API void eosfm_head_close(eosfm_head *head);

/* Describes a head. Texts live as long as it does.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_head_describe(eosfm_head *head, eosfm_head_info *info);

/* Describes a class, from 0: that of the output of this index. EOSFM_BAD_ARGUMENT for a regression, which has none.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_head_describe_class(eosfm_head *head, int32_t index, eosfm_class_info *info);

/* The place of a head's answer for an image in the caller's memory. Strides are in elements. */
typedef struct eosfm_map {
  size_t struct_size;
  float *outputs; /* planes of (height >> (2 + level)) x (width >> (2 + level)) cells, one for each output */
  ptrdiff_t channel_stride;
  ptrdiff_t row_stride;
  uint8_t *
      classes; /* the code of each cell's class, EOSFM_NO_CLASS where an output is not finite; NULL: not wanted */
  ptrdiff_t class_stride; /* from row to row */
  int32_t probabilities; /* not 0: outputs are those of classes, which add up to 1; else before softmax */
} eosfm_map;

#define EOSFM_MAP_INIT {sizeof(eosfm_map), NULL, 0, 0, NULL, 0, 0}

/* Computes a head's answer from the levels of an image, as eosfm_context_run gives them, of `width` x `height`
 * pixels: multiples of 32 up to 1024. Levels that the head does not read may be NULL. Allocates nothing, and may be
 * called from several threads at once.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_head_apply(eosfm_head *head, const eosfm_level levels[EOSFM_LEVELS],
                                        int32_t width, int32_t height, const eosfm_map *map);

/* ---- Streams --------------------------------------------------------------------------------- */

/* A scene of any length, whose rows come as a decoder makes them:
 *
 *   eosfm_patch_level levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
 *   eosfm_patch patch = EOSFM_PATCH_INIT;
 *   patch.levels = levels;
 *   eosfm_stream_create(context, &options, &stream);
 *   for (;;) {
 *     status = eosfm_stream_pull_patch(stream, NULL, &patch);
 *     if (status == EOSFM_OK) write(&patch);
 *     else if (status != EOSFM_AGAIN) break;
 *     else if (decode(...)) eosfm_stream_push_rows(stream, band, rows, count, width, &taken);
 *     else eosfm_stream_end(stream);
 *   }
 *   eosfm_stream_destroy(stream);
 *
 * The scene is cut into tiles of the context's size that overlap. Where they do, their features are
 * blended, with weights that rise linearly from a tile's edge over the overlap, or from its halo over what
 * is left of it. With a halo as wide as the network looks, in a bundle whose GRN is static, the levels are
 * those of the whole scene in one image, to rounding: a block of stage s looks 12 << s pixels to each side
 * (s from 0), and a level sees what its own and all earlier stages' blocks see. Each tile completes a
 * patch of cells of each level, and the patches of all tiles are the levels of the scene, without gaps.
 * The last tile of a row or column of tiles is moved back so that it ends with the scene, but for its
 * start on a multiple of 32 pixels; what of a tile lies beyond the scene is mirrored.
 *
 * The result does not depend on how many rows are pushed at once, in which order the bands are pushed, or when
 * the end is reported.
 *
 * A stream belongs to its context, is used by the same thread, and is destroyed before it. It allocates
 * all that it needs when it begins. Its errors are at eosfm_context_get_error. */
typedef struct eosfm_stream eosfm_stream;

/* The layout of a band's pushed rows. scale, offset and nodata are as those of eosfm_band. */
typedef struct eosfm_stream_band {
  size_t struct_size;
  int32_t dtype; /* an eosfm_dtype */
  int32_t step; /* pixels of the scene, in each direction, that one of this band covers: 1 for the
                    finest bands; 2 and 6 for Sentinel-2's of 20 and 60 m beside those of 10 m. Each
                    pixel of the scene takes the value that covers it. */
  ptrdiff_t column_stride; /* bytes from a pixel to the next of its row; 0: they are adjacent */
  ptrdiff_t row_stride; /* bytes from a row to the next of those pushed at once; 0: adjacent */
  int32_t calibrated;
  float scale;
  float offset;
  int32_t has_nodata;
  double nodata;
  int32_t row_origin; /* pixels of the scene by which the band's first row begins before the scene's, */
  int32_t column_origin; /* and its first column: 0 to step - 1 */
} eosfm_stream_band;

#define EOSFM_STREAM_BAND_INIT {sizeof(eosfm_stream_band), EOSFM_F32, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0}

/* A head of the model whose answers a stream gives. */
typedef struct eosfm_stream_head {
  size_t struct_size;
  eosfm_head *head;
  int32_t probabilities; /* as of eosfm_map */
} eosfm_stream_head;

#define EOSFM_STREAM_HEAD_INIT {sizeof(eosfm_stream_head), NULL, 0}

typedef struct eosfm_stream_options {
  size_t struct_size;
  int32_t width; /* pixels of the scene's rows, 1 to 1048576 */
  int32_t overlap; /* pixels that neighbouring tiles share, a multiple of 32 below their sides; -1: a
                      quarter of the smaller side, rounded up to that */
  int32_t halo; /* pixels along a tile's edges towards its neighbours whose features are not used,
                      since their surroundings are not in the tile; 0 to half of the overlap, a multiple
                      of 32. See below. */
  const eosfm_stream_band *bands; /* the model's, in order */
  size_t band_count;
  float least_valid; /* share of a cell's pixels, 0 to 1: with fewer that are valid it is nodata */
  float skip_below; /* a tile with a smaller share of valid pixels is skipped, as are those in which
                        no cell would have enough */
  int32_t levels[EOSFM_LEVELS]; /* not 0: the level is wanted */
  const eosfm_stream_band *mask; /* how the rows of a mask of the host's come, which are pushed as those of
                                    the band EOSFM_STREAM_MASK: EOSFM_U8, 0 where the scene is not valid.
                                    NULL: there is none. Calibration and nodata are ignored. */
  const eosfm_stream_head
      *heads; /* up to EOSFM_MOST_HEADS, whose answers patches have beside the levels that are wanted, or
                                     without any: memory then follows the answers, since a level that only heads
                                     read is kept for one tile */
  size_t head_count;
} eosfm_stream_options;

#define EOSFM_STREAM_OPTIONS_INIT \
  {sizeof(eosfm_stream_options), 0, -1, 0, NULL, 0, 0.5F, 0, {1, 1, 1, 1}, NULL, NULL, 0}

/* The mask, beside the model's bands. */
#define EOSFM_STREAM_MASK (-1)

/* Gives the bytes that a stream with these options takes, beside its context's.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_context_get_stream_bytes(eosfm_context *context,
                                                      const eosfm_stream_options *options, size_t *bytes);

/* Begins a scene.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NO_MEMORY, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_stream_create(eosfm_context *context, const eosfm_stream_options *options,
                                           eosfm_stream **stream);

/* Gives the next `count` rows of a band, or of EOSFM_STREAM_MASK, which are copied. `rows` NULL: they are
 * missing, and become nodata. `width` is how many pixels a row has, of which none is left out: as many as
 * it takes to cover the scene's from the band's origin on, (width + column_origin) / step, rounded up.
 * EOSFM_BAD_ARGUMENT for rows of any other length: they would shear. It is ignored if the rows are
 * missing. `taken` gets how many had room: the bands' rows may come in any order, but none more than two
 * tiles ahead of the others. Push the rest after EOSFM_AGAIN; if no band takes any then, one has ended and
 * so has the scene. The scene ends where its shortest band, or mask, does.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_stream_push_rows(eosfm_stream *stream, int32_t band, const void *rows,
                                              int32_t count, int32_t width, int32_t *taken);

/* Ends the scene: there are no more rows.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_stream_end(eosfm_stream *stream);

/* Begins another scene with the stream's options, wherever the stream is in the last one: its rows and patches are
 * gone and counts restart at 0. Allocates nothing.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_stream_reset(eosfm_stream *stream);

/* A level's part of a patch. Cells that are nodata are NaN. */
typedef struct eosfm_patch_level {
  size_t struct_size;
  const float *data; /* NULL if the level is not wanted: then all the rest is 0 */
  ptrdiff_t channel_stride; /* in floats */
  ptrdiff_t row_stride;
  const float *valid; /* [height][width]: the share of a cell's pixels that are valid */
  ptrdiff_t valid_stride; /* floats from row to row */
  int64_t row; /* where in the level of the scene the patch begins, in cells */
  int32_t column;
  int32_t height; /* cells */
  int32_t width;
} eosfm_patch_level;

#define EOSFM_PATCH_LEVEL_INIT {sizeof(eosfm_patch_level), NULL, 0, 0, NULL, 0, 0, 0, 0, 0}

/* Of an array of all levels. */
#define EOSFM_PATCH_LEVELS_INIT \
  {EOSFM_PATCH_LEVEL_INIT, EOSFM_PATCH_LEVEL_INIT, EOSFM_PATCH_LEVEL_INIT, EOSFM_PATCH_LEVEL_INIT}

/* A head's part of a patch: its outputs are blended where tiles overlap, as levels are. */
typedef struct eosfm_patch_map {
  size_t struct_size;
  const float *outputs; /* a plane for each; NaN where there is no data */
  ptrdiff_t channel_stride; /* in floats */
  ptrdiff_t row_stride;
  const uint8_t
      *classes; /* [height][width]: codes, EOSFM_NO_CLASS where there is no data; NULL of a regression */
  ptrdiff_t class_stride; /* from row to row */
  int64_t row; /* where in the answer for the scene the patch begins, in cells of the head's level */
  int32_t column;
  int32_t height; /* cells */
  int32_t width;
} eosfm_patch_map;

#define EOSFM_PATCH_MAP_INIT {sizeof(eosfm_patch_map), NULL, 0, 0, NULL, 0, 0, 0, 0, 0}

typedef struct eosfm_patch {
  size_t struct_size;
  int64_t tile_row; /* which tile completed it */
  int32_t tile_column;
  int32_t skipped; /* not 0: that tile was skipped */
  int64_t tiles; /* of the stream so far */
  int64_t tiles_skipped;
  eosfm_patch_level *levels; /* the caller's array of EOSFM_LEVELS, which is filled in */
  eosfm_patch_map
      *maps; /* the same, of as many as the stream has heads, in their order; NULL if it has none */
} eosfm_patch;

#define EOSFM_PATCH_INIT {sizeof(eosfm_patch), 0, 0, 0, 0, 0, NULL, NULL}

/* Computes the next tile, from left to right and from top to bottom, and gives the patch that it
 * completes; it stays until the next call for this stream. EOSFM_AGAIN if there are too few rows for
 * that, EOSFM_END after the last patch. The deadline of the options is that of the tile. After a
 * failure, also a cancellation, the same tile is computed next.
 *
 * Status: EOSFM_OK, EOSFM_AGAIN, EOSFM_END, EOSFM_BAD_ARGUMENT, EOSFM_CANCELLED, EOSFM_DEADLINE,
 * EOSFM_NOT_FINITE, EOSFM_ENGINE_FAILED, EOSFM_BUSY. */
EOSFM_API eosfm_status eosfm_stream_pull_patch(eosfm_stream *stream, const eosfm_run_options *options,
                                               eosfm_patch *patch);

EOSFM_API void eosfm_stream_destroy(eosfm_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
