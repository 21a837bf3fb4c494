#ifndef EOSFM_PROGRAM_MANIFEST_H
#define EOSFM_PROGRAM_MANIFEST_H

#include <stdint.h>

/* Returns the multiply-accumulates of a tile, which manifest.json of a bundle may say; 0 if it does not. */
int64_t read_macs(const char *bundle);

#endif
