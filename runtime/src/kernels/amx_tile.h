// The eight AMX tiles, registers of 16 rows of 64 bytes each, and their matmuls.
//
// Own assembly instead of the compiler's intrinsics: those of gcc 12 do not say that they read memory,
// so that stores to the configuration or to the operands may be moved behind them.
//
// With EOSFM_EMULATE_AMX the same functions are computed in software, which lets every processor with
// AVX-512 test the kernels that are built on them. Such a library is for tests only.
#ifndef EOSFM_KERNELS_AMX_TILE_H
#define EOSFM_KERNELS_AMX_TILE_H

#include <stddef.h>
#include <stdint.h>

namespace eosfm {
namespace {

constexpr int kAmxTileRows = 16;
constexpr int kAmxTileBytes = 64;  // of a row

#if !defined(EOSFM_EMULATE_AMX)

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {0};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// AMX tiles belong to the thread and whoever ran on it before: they are set up on entry and given back
// on exit.
inline void amx_tiles_begin() {
  const TileConfiguration configuration;
  asm volatile("ldtilecfg %0" : : "m"(configuration) : "memory");
}
inline void amx_tiles_end() { asm volatile("tilerelease" : : : "memory"); }

template <int kAmxTile>
inline void amx_tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kAmxTile));
}
template <int kAmxTile>
inline void amx_tile_load(const void* from, size_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kAmxTile), "r"(from), "r"(stride) : "memory");
}
template <int kAmxTile>
inline void amx_tile_store(void* to, size_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kAmxTile), "r"(to), "r"(stride) : "memory");
}
// Sums += pairs of bf16.
template <int kSums, int kA, int kB>
inline void amx_tile_dot_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
}
// Sums += quads of bytes, unsigned times signed.
template <int kSums, int kA, int kB>
inline void amx_tile_dot_bytes() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
}

#else

thread_local uint8_t emulated_amx_tiles[8][kAmxTileRows][kAmxTileBytes];
thread_local bool emulated_amx_tiles_ready = false;

inline void amx_tiles_begin() {
  __builtin_memset(emulated_amx_tiles, 0, sizeof emulated_amx_tiles);
  emulated_amx_tiles_ready = true;
}
inline void amx_tiles_end() { emulated_amx_tiles_ready = false; }
inline void require_amx_tiles() {
  if (!emulated_amx_tiles_ready) __builtin_trap();
}

template <class T>
inline T amx_tile_at(int amx_tile, int row, int index) {
  T value;
  __builtin_memcpy(&value, &emulated_amx_tiles[amx_tile][row][index * static_cast<int>(sizeof(T))],
                   sizeof value);
  return value;
}
inline float widened(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

template <int kAmxTile>
inline void amx_tile_zero() {
  require_amx_tiles();
  __builtin_memset(emulated_amx_tiles[kAmxTile], 0, sizeof emulated_amx_tiles[kAmxTile]);
}
template <int kAmxTile>
inline void amx_tile_load(const void* from, size_t stride) {
  require_amx_tiles();
  for (int r = 0; r < kAmxTileRows; ++r) {
    __builtin_memcpy(emulated_amx_tiles[kAmxTile][r], static_cast<const char*>(from) + r * stride,
                     kAmxTileBytes);
  }
}
template <int kAmxTile>
inline void amx_tile_store(void* to, size_t stride) {
  require_amx_tiles();
  for (int r = 0; r < kAmxTileRows; ++r) {
    __builtin_memcpy(static_cast<char*>(to) + r * stride, emulated_amx_tiles[kAmxTile][r], kAmxTileBytes);
  }
}
template <int kSums, int kA, int kB>
inline void amx_tile_dot_bf16() {
  require_amx_tiles();
  for (int r = 0; r < kAmxTileRows; ++r) {
    for (int c = 0; c < 16; ++c) {
      float sum = amx_tile_at<float>(kSums, r, c);
      for (int k = 0; k < 32; ++k) {
        sum += widened(amx_tile_at<uint16_t>(kA, r, k)) *
               widened(amx_tile_at<uint16_t>(kB, k / 2, 2 * c + k % 2));
      }
      __builtin_memcpy(&emulated_amx_tiles[kSums][r][4 * c], &sum, sizeof sum);
    }
  }
}
template <int kSums, int kA, int kB>
inline void amx_tile_dot_bytes() {
  require_amx_tiles();
  for (int r = 0; r < kAmxTileRows; ++r) {
    for (int c = 0; c < 16; ++c) {
      int32_t sum = amx_tile_at<int32_t>(kSums, r, c);
      for (int k = 0; k < 64; ++k) {
        sum += amx_tile_at<uint8_t>(kA, r, k) * amx_tile_at<int8_t>(kB, k / 4, 4 * c + k % 4);
      }
      __builtin_memcpy(&emulated_amx_tiles[kSums][r][4 * c], &sum, sizeof sum);
    }
  }
}

#endif

}  // namespace
}  // namespace eosfm

#endif
