// What a test sets of the stand-in for libcuda.so.1, and what it can ask. It is found by its symbol.
#ifndef EOSFM_TESTS_CUDA_STANDIN_H
#define EOSFM_TESTS_CUDA_STANDIN_H

#include <stddef.h>

#define STANDIN_SYMBOL "standin"

struct Standin {
  // The GPUs, all alike, and the driver.
  int devices = 1;
  int compute = 80;        // 10 * major + minor
  int driver = 12060;
  int most_shared = 99 << 10;
  size_t memory = size_t{1} << 30;
  int schedule = 0;        // shim::Schedule
  // The calls are counted. From `fail_at` on, `fail_count` of them fail with `fail_with`.
  int fail_at = -1;
  int fail_count = 1;
  int fail_with = 999;
  int calls = 0;
  // What there is that was made and not yet unmade.
  int open = 0;
  int launches = 0;
  // What was done wrong: a call with an address, a size or a state that a driver would refuse or suffer
  // from. The first sentence is kept.
  int misuses = 0;
  char misuse[256] = "";
};

#endif
