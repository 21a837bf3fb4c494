// IEEE half precision on the CPU: weights are converted with it, and tests compute with it.
#ifndef EOSFM_CUDA_HALF_H
#define EOSFM_CUDA_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace eosfm {

// Returns the nearest half, ties to even; values that are too large become infinite.
inline uint32_t half_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return sign | 0x7fffU;
  if (magnitude >= 0x477ff000U) return sign | 0x7c00U;
  if (magnitude < 0x38800000U) {  // below the smallest normal half: a multiple of 2^-24
    return sign | static_cast<uint32_t>(rintf(fabsf(value) * 16777216.0F));
  }
  return sign | (magnitude - 0x38000000U + 0xfffU + (magnitude >> 13 & 1U)) >> 13;
}

inline float float_of_half(uint32_t half) {
  const uint32_t sign = (half & 0x8000U) << 16;
  const uint32_t magnitude = half & 0x7fffU;
  if (magnitude < 0x400U) {
    const float value = static_cast<float>(magnitude) / 16777216.0F;
    return sign != 0 ? -value : value;
  }
  const uint32_t bits = sign | (magnitude >= 0x7c00U ? 0x7f800000U | (magnitude & 0x3ffU) << 13
                                                     : (magnitude << 13) + 0x38000000U);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace eosfm

#endif
