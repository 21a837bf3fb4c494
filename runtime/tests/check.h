// The least of a test harness: CHECK says where and what, the program's exit code says whether.
#ifndef EOSFM_TESTS_CHECK_H
#define EOSFM_TESTS_CHECK_H

#include <cstdio>
#include <cstdlib>

inline int& failures() {
  static int count = 0;
  return count;
}

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      if (++failures() >= 20) std::exit(1);                                        \
    }                                                                              \
  } while (false)

inline int report() {
  std::printf("%s\n", failures() == 0 ? "all checks hold" : "some checks do not hold");
  return failures() == 0 ? 0 : 1;
}

#endif
