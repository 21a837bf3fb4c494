// Checks that values are finite. Comparisons would miss a NaN: a maximum over it is whatever follows it.
#ifndef EOSFM_FINITE_H
#define EOSFM_FINITE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/matrix.h"

namespace eosfm {

// The exponent's bits are all ones only in infinities and NaN.
inline bool all_finite(const float* values, size_t count) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    memcpy(&bits, values + i, sizeof bits);
    bad |= (bits & kExponent) == kExponent ? 1U : 0U;
  }
  return bad == 0;
}

inline bool all_finite(const uint16_t* bf16_values, size_t count) {
  constexpr uint32_t kExponent = 0x7f80;
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i) {
    bad |= (bf16_values[i] & kExponent) == kExponent ? 1U : 0U;
  }
  return bad == 0;
}

// Rows of values: `stride` bytes from one to the next.
inline bool all_finite(const char* rows, Storage storage, size_t count, size_t row_count, size_t stride) {
  bool finite = true;
  for (size_t i = 0; i < row_count; ++i, rows += stride) {
    finite &= storage == Storage::bf16 ? all_finite(reinterpret_cast<const uint16_t*>(rows), count)
                                       : all_finite(reinterpret_cast<const float*>(rows), count);
  }
  return finite;
}

}  // namespace eosfm

#endif
