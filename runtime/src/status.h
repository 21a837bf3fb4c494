// Failures inside the library: a status of eosfm.h, and a sentence for the handle.
#ifndef EOSFM_STATUS_H
#define EOSFM_STATUS_H

#include "eosfm.h"

namespace eosfm {

constexpr size_t kTextSize = 512;

// Returns the words for an error number, without the buffer that strerror shares between threads.
const char* error_name(int error_number);

// Replaces control characters, which terminals obey, and bytes that are not UTF-8. Names and reasons from bundles,
// files and other libraries may have them.
void make_printable(char* text);

// The sentence of a failure. Passed down and filled in where something goes wrong.
struct ErrorText {
  char text[kTextSize] = "";
  int32_t code = 0;  // beneath the failure: the system's or an engine's own; 0: there is none

  // Keeps the sentence, without a code, and returns the status.
  __attribute__((format(printf, 3, 4))) eosfm_status fail(eosfm_status status, const char* format, ...);

  // Adds the code to a failure.
  eosfm_status with_code(int32_t beneath, eosfm_status status) {
    code = beneath;
    return status;
  }

  eosfm_status no_memory(const char* what) {
    return fail(EOSFM_NO_MEMORY, "there is no memory for %s", what);
  }
};

}  // namespace eosfm

#endif
