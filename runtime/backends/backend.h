/* The interface between libeosfm and its backends, which are shared objects of their own.
 *
 * libeosfm_NAME.so exports one symbol, EOSFM_BACKEND_SYMBOL: an eosfm_backend. The symbol has the version of
 * this interface in its name, so that libeosfm does not find a backend of another version. */
#ifndef EOSFM_BACKEND_H
#define EOSFM_BACKEND_H

#include "eosfm.h"

#define EOSFM_BACKEND eosfm_backend_5
#define EOSFM_BACKEND_SYMBOL "eosfm_backend_5"

#ifdef __cplusplus
extern "C" {
#endif

/* The bundle and settings that an engine is opened with. They live only until `open` returns. */
typedef struct eosfm_backend_request {
  const char *name;    /* "onnxruntime-cuda" */
  const char *library; /* the file of the library beneath the backend; NULL: it is searched for */
  const eosfm_file *files; /* chain.gguf and the specialists, of a backend that reads weights */
  size_t file_count;
  const eosfm_file *
      graphs; /* of one that reads graphs: ONNX, in the order in which they run: the first takes "image", (1, bands,
                               tile, tile) float32; each gives tensors that those behind it take by their
                               names, "level1" to "level4" among them */
  size_t graph_count;
  const char *directory; /* of the bundle; NULL: it is in memory */
  int32_t threads;
  int32_t bands;
  int32_t tile; /* pixels of the image's side */
  int32_t batch; /* images that are computed at once, as the host wishes; 0: the backend's choice */
  int32_t channels[EOSFM_LEVELS]; /* of the levels */
  const eosfm_allocator *allocator; /* what the backend takes memory of its own from, until it is closed */
  /* To be called before the backend allocates elsewhere, as of a GPU's memory. Returns 0 if so many bytes are
   * within the limits; they count as taken until it is closed. */
  int (*reserve)(void *user, size_t bytes);
  void *reserve_user;
  float *tolerance; /* [EOSFM_LEVELS]: how far the known answer may be off, relative to a level's largest
                       value. A backend that reads weights raises what its own rounding needs. */
  char *error; /* where the reason goes when there will be no engine */
  size_t error_size;
} eosfm_backend_request;

/* The functions of an engine that computes batches of images while the host does other work. A slot holds a batch.
 * Calls come from one thread at a time. A function that fails returns a negative number, and `error` then has the
 * reason. */
typedef struct eosfm_batches {
  int32_t batch; /* images of a slot, at most; 0: images go one by one through the engine's compute */
  int32_t slots; /* that may be under way at once */
  void *user;
  /* Returns where to write an image of a slot that is not under way: [bands][tile][tile], as the sensor stores it. */
  float *(*image)(void *user, int32_t slot, int32_t index);
  /* Starts the first `count` images of a slot and returns at once. */
  int (*start)(void *user, int32_t slot, int32_t count);
  /* Returns 0 while the slot is under way, 1 when it is done. */
  int (*query)(void *user, int32_t slot);
  /* Returns a level of an image of a slot that is done: [channels][height][width]. */
  float *(*level)(void *user, int32_t slot, int32_t index, int32_t level);
  const char *(*error)(void *user);
} eosfm_batches;

/* Bytes that an engine allocates, beside those of libeosfm. */
typedef struct eosfm_backend_memory {
  size_t device_bytes; /* of a GPU's memory */
  size_t pinned_bytes; /* of the host's, that cannot be paged out */
} eosfm_backend_memory;

/* The files of a bundle that a backend computes from. */
typedef enum eosfm_backend_reads {
  EOSFM_BACKEND_READS_GRAPHS = 0,
  EOSFM_BACKEND_READS_WEIGHTS = 1
} eosfm_backend_reads;

typedef struct eosfm_backend {
  /* Fills in an engine, or `batches`; `close` gets the `user` of the one that was filled in. Like libeosfm's own
   * functions it writes nothing to the standard streams. */
  eosfm_status (*open)(const eosfm_backend_request *request, eosfm_engine *engine, eosfm_batches *batches);
  void (*close)(void *user);
  int32_t reads; /* an eosfm_backend_reads */
  /* Finds how much an engine would allocate, without the device. NULL: the backend cannot know. */
  eosfm_status (*measure)(const eosfm_backend_request *request, eosfm_backend_memory *memory);
} eosfm_backend;

extern __attribute__((visibility("default"))) const eosfm_backend EOSFM_BACKEND;

#ifdef __cplusplus
}
#endif

#endif
