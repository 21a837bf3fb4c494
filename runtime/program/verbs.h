/* The verbs. */
#ifndef EOSFM_PROGRAM_VERBS_H
#define EOSFM_PROGRAM_VERBS_H

#include "options.h"

/* Each returns an exit code. */
int verify(const Options *options);
int run(const Options *options);
int bench(const Options *options);

#endif
