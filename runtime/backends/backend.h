/* What libeosfm and its backends, which are shared objects of their own, have between them.
 *
 * libeosfm_NAME.so exports one symbol, EOSFM_BACKEND_SYMBOL: an eosfm_backend. Its name has the version of
 * this interface, so that others do not find it. */
#ifndef EOSFM_BACKEND_H
#define EOSFM_BACKEND_H

#include "eosfm.h"

#define EOSFM_BACKEND eosfm_backend_1
#define EOSFM_BACKEND_SYMBOL "eosfm_backend_1"

#ifdef __cplusplus
extern "C" {
#endif

/* What a context wants computed. All of it is there only while the engine is opened. */
typedef struct eosfm_backend_request {
  const char *name;    /* "onnxruntime-cuda" */
  const char *library; /* the file of what the backend stands on; NULL: it is searched for */
  const eosfm_file *graphs; /* ONNX, in the order in which they run: the first takes "image", (1, bands,
                               tile, tile) float32; each gives tensors that those behind it take by their
                               names, "level1" to "level4" among them */
  size_t graph_count;
  const char *directory; /* of the bundle; NULL: it is in memory */
  int32_t threads;
  int32_t bands;
  int32_t tile;                   /* pixels of the image's side */
  int32_t channels[EOSFM_LEVELS]; /* of the levels */
  char *error;                    /* where the reason goes when there will be no engine */
  size_t error_size;
} eosfm_backend_request;

typedef struct eosfm_backend {
  /* Fills an engine in. Like libeosfm's own functions it writes nothing to the standard streams. */
  eosfm_status (*open)(const eosfm_backend_request *request, eosfm_engine *engine);
  void (*close)(const eosfm_engine *engine);
} eosfm_backend;

extern __attribute__((visibility("default"))) const eosfm_backend EOSFM_BACKEND;

#ifdef __cplusplus
}
#endif

#endif
