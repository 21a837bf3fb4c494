// The eight tiles of AMX, each 16 rows of 64 bytes, and the products of tiles.
//
// Own assembly instead of the compiler's intrinsics: those of gcc 12 do not say that they read memory,
// so that stores to the configuration or to the operands may be moved behind them.
//
// With EOSFM_EMULATE_AMX the same functions are computed in software, which lets every processor with
// AVX-512 test the kernels that are built on them. Such a library is for tests only.
#ifndef EOSFM_KERNELS_TILES_H
#define EOSFM_KERNELS_TILES_H

#include <stddef.h>
#include <stdint.h>

namespace eosfm {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row

#if !defined(EOSFM_EMULATE_AMX)

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {0};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The tiles belong to the thread and whoever ran on it before: they are set up on entry and given back
// on exit.
inline void tiles_begin() {
  const TileConfiguration configuration;
  asm volatile("ldtilecfg %0" : : "m"(configuration) : "memory");
}
inline void tiles_end() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
inline void tile_load(const void* from, size_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride) : "memory");
}
template <int kTile>
inline void tile_store(void* to, size_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride) : "memory");
}
// Sums += pairs of bf16.
template <int kSums, int kA, int kB>
inline void tile_dot_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
}
// Sums += quads of bytes, unsigned times signed.
template <int kSums, int kA, int kB>
inline void tile_dot_bytes() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
}

#else

thread_local uint8_t emulated_tiles[8][kTileRows][kTileBytes];
thread_local bool emulated_tiles_ready = false;

inline void tiles_begin() {
  __builtin_memset(emulated_tiles, 0, sizeof emulated_tiles);
  emulated_tiles_ready = true;
}
inline void tiles_end() { emulated_tiles_ready = false; }
inline void require_tiles() {
  if (!emulated_tiles_ready) __builtin_trap();
}

template <class T>
inline T tile_at(int tile, int row, int index) {
  T value;
  __builtin_memcpy(&value, &emulated_tiles[tile][row][index * static_cast<int>(sizeof(T))], sizeof value);
  return value;
}
inline float widened(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

template <int kTile>
inline void tile_zero() {
  require_tiles();
  __builtin_memset(emulated_tiles[kTile], 0, sizeof emulated_tiles[kTile]);
}
template <int kTile>
inline void tile_load(const void* from, size_t stride) {
  require_tiles();
  for (int r = 0; r < kTileRows; ++r) {
    __builtin_memcpy(emulated_tiles[kTile][r], static_cast<const char*>(from) + r * stride, kTileBytes);
  }
}
template <int kTile>
inline void tile_store(void* to, size_t stride) {
  require_tiles();
  for (int r = 0; r < kTileRows; ++r) {
    __builtin_memcpy(static_cast<char*>(to) + r * stride, emulated_tiles[kTile][r], kTileBytes);
  }
}
template <int kSums, int kA, int kB>
inline void tile_dot_bf16() {
  require_tiles();
  for (int r = 0; r < kTileRows; ++r) {
    for (int c = 0; c < 16; ++c) {
      float sum = tile_at<float>(kSums, r, c);
      for (int k = 0; k < 32; ++k) {
        sum += widened(tile_at<uint16_t>(kA, r, k)) * widened(tile_at<uint16_t>(kB, k / 2, 2 * c + k % 2));
      }
      __builtin_memcpy(&emulated_tiles[kSums][r][4 * c], &sum, sizeof sum);
    }
  }
}
template <int kSums, int kA, int kB>
inline void tile_dot_bytes() {
  require_tiles();
  for (int r = 0; r < kTileRows; ++r) {
    for (int c = 0; c < 16; ++c) {
      int32_t sum = tile_at<int32_t>(kSums, r, c);
      for (int k = 0; k < 64; ++k) {
        sum += tile_at<uint8_t>(kA, r, k) * tile_at<int8_t>(kB, k / 4, 4 * c + k % 4);
      }
      __builtin_memcpy(&emulated_tiles[kSums][r][4 * c], &sum, sizeof sum);
    }
  }
}

#endif

}  // namespace
}  // namespace eosfm

#endif
