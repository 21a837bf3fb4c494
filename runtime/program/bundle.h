/* A bundle, opened, and a context that computes it. */
#ifndef EOSFM_PROGRAM_BUNDLE_H
#define EOSFM_PROGRAM_BUNDLE_H

#include <eosfm.h>

#include "options.h"

typedef struct Bundle {
  const char *path;
  eosfm_model *model;
  eosfm_context *context;
  eosfm_model_info info;
} Bundle;

/* Opens the bundle of the options and makes a context. Returns an exit code; close_bundle in any case. */
int open_bundle(Bundle *bundle, const Options *options);

void close_bundle(Bundle *bundle);

/* Complains of a failed call for the context, whose sentence the library has; returns an exit code. `what` is what
 * the sentence is about: the bundle, or a scene. */
int complain_of_status(const Bundle *bundle, const char *what, eosfm_status status);

#endif
