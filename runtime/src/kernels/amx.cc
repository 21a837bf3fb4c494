// AMX (Sapphire Rapids and later): matmuls of whole AMX tiles, bf16 and int8. All else is as with AVX-512.
//
// Blocking: sixteen rows by a panel of up to four AMX tiles of columns, over all of k. Packing is that of
// body.h: sixteen words of a row are a row of an AMX tile, and sixteen word rows of a panel are the AMX tile of weights, so
// both load as they lie, and nothing is packed for AMX alone.
#include "kernels/vec_avx512.h"

#include "kernels/body.h"
#include "kernels/isa.h"
#include "kernels/amx_tile.h"

namespace eosfm {
namespace {

struct Bf16Product {
  template <int kSums, int kA, int kB>
  static void dot() {
    amx_tile_dot_bf16<kSums, kA, kB>();
  }
};

struct ByteProduct {
  template <int kSums, int kA, int kB>
  static void dot() {
    amx_tile_dot_bytes<kSums, kA, kB>();
  }
};

// Sixteen rows by a panel: its one to four AMX tiles of sums are 0 to 3, that of the rows is 4, and the
// weights take 5 to 7 in turn.
template <class P>
struct InAmxTiles {
  static constexpr int lanes = 16;
  static constexpr int panel_vectors = 4;

  struct Session {
    Session() { amx_tiles_begin(); }
    ~Session() { amx_tiles_end(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };

  static int most_rows(int) { return kAmxTileRows; }

  // Reads kAmxTileRows rows, of which those beyond `rows` are somebody else's or padding, and writes as
  // many; they are not used.
  static void multiply(const void* a, size_t a_stride, const uint32_t* panel, int vectors, int, int k_words,
                       float* sums) {
    switch (vectors) {
      case 1: return multiply_panel<1>(a, a_stride, panel, k_words, sums);
      case 2: return multiply_panel<2>(a, a_stride, panel, k_words, sums);
      case 3: return multiply_panel<3>(a, a_stride, panel, k_words, sums);
      default: return multiply_panel<4>(a, a_stride, panel, k_words, sums);
    }
  }

 private:
  template <int N>
  static void multiply_panel(const void* a, size_t a_stride, const uint32_t* panel, int k_words,
                             float* sums) {
    constexpr size_t kPanelBytes = static_cast<size_t>(N) * kAmxTileBytes;
    amx_tile_zero<0>();
    if constexpr (N > 1) amx_tile_zero<1>();
    if constexpr (N > 2) amx_tile_zero<2>();
    if constexpr (N > 3) amx_tile_zero<3>();
    const char* row = static_cast<const char*>(a);
    const char* weights = reinterpret_cast<const char*>(panel);
    for (int k = 0; k < k_words; k += kAmxTileRows) {
      amx_tile_load<4>(row, a_stride);
      amx_tile_load<5>(weights, kPanelBytes);
      P::template dot<0, 4, 5>();
      if constexpr (N > 1) {
        amx_tile_load<6>(weights + kAmxTileBytes, kPanelBytes);
        P::template dot<1, 4, 6>();
      }
      if constexpr (N > 2) {
        amx_tile_load<7>(weights + 2 * kAmxTileBytes, kPanelBytes);
        P::template dot<2, 4, 7>();
      }
      if constexpr (N > 3) {
        amx_tile_load<5>(weights + 3 * kAmxTileBytes, kPanelBytes);
        P::template dot<3, 4, 5>();
      }
      row += kAmxTileBytes;
      weights += kAmxTileRows * kPanelBytes;
    }
    amx_tile_store<0>(sums, kPanelBytes);
    if constexpr (N > 1) amx_tile_store<1>(sums + 16, kPanelBytes);
    if constexpr (N > 2) amx_tile_store<2>(sums + 32, kPanelBytes);
    if constexpr (N > 3) amx_tile_store<3>(sums + 48, kPanelBytes);
  }
};

}  // namespace

const Kernels& amx_kernels() {
  static constexpr Kernels kTable =
      Isa<Bf16Vec, InRegisters<FloatDot>, InAmxTiles<Bf16Product>, InAmxTiles<ByteProduct>>::table(
          "amx", Storage::u8, true, kAmxTileRows);
  return kTable;
}

}  // namespace eosfm
