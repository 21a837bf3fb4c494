// Pixels as hosts store them: every dtype of eosfm.h, in either byte order.
#ifndef EOSFM_PIXELS_H
#define EOSFM_PIXELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "eosfm.h"

namespace eosfm {

// Returns the dtype without its byte order.
inline int32_t dtype_kind(int32_t dtype) { return dtype & ~EOSFM_BIG_ENDIAN; }

// Returns the bytes of a pixel; 0 for an unknown dtype.
inline size_t dtype_bytes(int32_t dtype) {
  switch (dtype_kind(dtype)) {
    case EOSFM_U8:
    case EOSFM_I8: return 1;
    case EOSFM_U16:
    case EOSFM_I16: return 2;
    case EOSFM_F32:
    case EOSFM_I32:
    case EOSFM_U32: return 4;
    case EOSFM_F64: return 8;
    default: return 0;
  }
}

// Returns whether bytes must be swapped for this machine, which is little-endian.
inline bool is_swapped(int32_t dtype) { return (dtype & EOSFM_BIG_ENDIAN) != 0 && dtype_bytes(dtype) > 1; }

// The stored value that stands for no data.
struct Nodata {
  double value;      // NaN: there is none, since nothing equals it
  bool is_float32;   // a bundle's is: what is stored is rounded to float32 before they are compared

  template <class T>
  bool is(T stored) const {
    constexpr bool stores_float32 = static_cast<T>(0.5F) != 0 && sizeof(T) == sizeof(float);
    if (is_float32 || stores_float32) return static_cast<float>(stored) == static_cast<float>(value);
    return static_cast<double>(stored) == value;
  }
};

// Large integers and doubles are converted in double: float32 would round them first.
template <class T>
constexpr bool kIsWide = sizeof(T) == 8 || (sizeof(T) == 4 && static_cast<T>(0.5F) == 0);

template <class T, bool kSwapped>
T load_pixel(const char* from) {
  T value;
  char bytes[sizeof value];
  memcpy(bytes, from, sizeof value);
  for (size_t i = 0; kSwapped && i < sizeof value / 2; ++i) {
    const char first = bytes[i];
    bytes[i] = bytes[sizeof value - 1 - i];
    bytes[sizeof value - 1 - i] = first;
  }
  memcpy(&value, bytes, sizeof value);
  return value;
}

// A row of pixels, each `stride` bytes after the one before it.
struct PixelRow {
  const char* data;
  int32_t dtype;
  ptrdiff_t stride;
  Nodata nodata;
};

// Writes to[x] = convert(the pixel in column(x)), and valid[x] = 0 where that is nodata or not finite.
template <class Column, class Convert>
void read_row(const PixelRow& row, int width, const Column& column, const Convert& convert, float* to,
              uint8_t* valid) {
  const auto read = [&](auto load) {
    for (int x = 0; x < width; ++x) {
      const auto stored = load(row.data + column(x) * row.stride);
      to[x] = convert(stored);
      if (row.nodata.is(stored) || !isfinite(to[x])) valid[x] = 0;
    }
  };
  const auto read_as = [&](auto type) {
    using T = decltype(type);
    if (is_swapped(row.dtype)) {
      read(load_pixel<T, true>);
    } else {
      read(load_pixel<T, false>);
    }
  };
  switch (dtype_kind(row.dtype)) {
    case EOSFM_U8: return read_as(uint8_t{});
    case EOSFM_U16: return read_as(uint16_t{});
    case EOSFM_I16: return read_as(int16_t{});
    case EOSFM_F32: return read_as(float{});
    case EOSFM_I8: return read_as(int8_t{});
    case EOSFM_I32: return read_as(int32_t{});
    case EOSFM_U32: return read_as(uint32_t{});
    case EOSFM_F64: return read_as(double{});
  }
}

}  // namespace eosfm

#endif
