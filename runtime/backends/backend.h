/* What libeosfm and its backends, which are shared objects of their own, have between them.
 *
 * libeosfm_NAME.so exports one symbol, EOSFM_BACKEND_SYMBOL: an eosfm_backend. Its name has the version of
 * this interface, so that others do not find it. */
#ifndef EOSFM_BACKEND_H
#define EOSFM_BACKEND_H

#include "eosfm.h"

#define EOSFM_BACKEND eosfm_backend_5
#define EOSFM_BACKEND_SYMBOL "eosfm_backend_5"

#ifdef __cplusplus
extern "C" {
#endif

/* What a context wants computed. All of it is there only while the engine is opened. */
typedef struct eosfm_backend_request {
  const char *name;    /* "onnxruntime-cuda" */
  const char *library; /* the file of what the backend stands on; NULL: it is searched for */
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

/* Of a backend that computes images in batches, and the next while the host is busy with the last: a slot
 * holds a batch. Calls come from one thread at a time. A function that fails returns a negative number, and
 * the engine's `error` has the reason. */
typedef struct eosfm_batches {
  int32_t batch; /* images of a slot, at most; 0: images go one by one through the engine's compute */
  int32_t slots; /* that may be under way at once */
  void *user;
  /* Where an image of a slot that is not under way is to be written: [bands][tile][tile], as the sensor stores it. */
  float *(*image)(void *user, int32_t slot, int32_t index);
  /* Starts the first `count` images of a slot and returns at once. */
  int (*start)(void *user, int32_t slot, int32_t count);
  /* 0 while the slot is under way, 1 when it is done. */
  int (*query)(void *user, int32_t slot);
  /* A level of an image of a slot that is done: [channels][height][width]. */
  float *(*level)(void *user, int32_t slot, int32_t index, int32_t level);
  const char *(*error)(void *user);
} eosfm_batches;

/* What an engine allocates, beside what libeosfm does. */
typedef struct eosfm_backend_memory {
  size_t device_bytes; /* of a GPU's memory */
  size_t pinned_bytes; /* of the host's, that cannot be paged out */
} eosfm_backend_memory;

/* Of a bundle's files, what a backend computes from. */
typedef enum eosfm_backend_reads {
  EOSFM_BACKEND_READS_GRAPHS = 0,
  EOSFM_BACKEND_READS_WEIGHTS = 1
} eosfm_backend_reads;

typedef struct eosfm_backend {
  /* Fills an engine in, or `batches`; what `close` is given is in either's `user`. Like libeosfm's own
   * functions it writes nothing to the standard streams. */
  eosfm_status (*open)(const eosfm_backend_request *request, eosfm_engine *engine, eosfm_batches *batches);
  void (*close)(void *user);
  int32_t reads; /* an eosfm_backend_reads */
  /* Says what an engine would allocate, without the device. NULL: the backend cannot know. */
  eosfm_status (*measure)(const eosfm_backend_request *request, eosfm_backend_memory *memory);
} eosfm_backend;

extern __attribute__((visibility("default"))) const eosfm_backend EOSFM_BACKEND;

#ifdef __cplusplus
}
#endif

#endif
