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
  int multiprocessors = 2;
  int integrated = 0;      // 1: CPU and GPU share their memory
  int patience = 1;        // how often a stream says that it is not ready
  // The calls are counted. From `fail_at` on, `fail_count` of them fail with `fail_with`.
  int fail_at = -1;
  int fail_count = 1;
  int fail_with = 999;
  int calls = 0;
  // What there is that was made and not yet unmade.
  int open = 0;
  size_t device_bytes = 0;  // of all memory that was allocated
  size_t pinned_bytes = 0;
  int launches = 0;
  int most_under_way = 0;  // graphs on different streams
  // What was done wrong: a call with an address, a size or a state that a driver would refuse or suffer
  // from. The first sentence is kept.
  int misuses = 0;
  char misuse[256] = "";
};

#endif
