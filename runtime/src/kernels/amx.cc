// AMX (Sapphire Rapids and later): matmuls of whole AMX tiles, bf16 and int8. All else is as with AVX-512.
//
// Blocking: sixteen rows by a panel of up to four AMX tiles of columns, over all of k. Packing is that of
// body.h: sixteen words of a row are a tile's row, and sixteen word rows of a panel are the tile of weights, so
// both load as they lie, and nothing is packed for AMX alone.
#include "kernels/vec_avx512.h"

#include "kernels/body.h"
#include "kernels/paths.h"
#include "kernels/tiles.h"

namespace eosfm {
namespace {

struct Bf16Product {
  template <int kSums, int kA, int kB>
  static void dot() { tile_dot_bf16<kSums, kA, kB>(); }
};

struct ByteProduct {
  template <int kSums, int kA, int kB>
  static void dot() { tile_dot_bytes<kSums, kA, kB>(); }
};

// Sixteen rows by a panel: its one to four tiles of sums are 0 to 3, the rows' tile is 4, and the
// weights take 5 to 7 in turn.
template <class P>
struct MatrixTiles {
  static constexpr int lanes = 16;
  static constexpr int panel_vectors = 4;

  struct Session {
    Session() { tiles_begin(); }
    ~Session() { tiles_end(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };

  static int most_rows(int) { return kTileRows; }

  // Reads kTileRows rows, of which those beyond `rows` are somebody else's or padding, and writes as
  // many; they are not used.
  static void multiply(const void* a, size_t a_stride, const uint32_t* panel, int vectors, int,
                       int k_words, float* tile) {
    switch (vectors) {
      case 1: return multiply_panel<1>(a, a_stride, panel, k_words, tile);
      case 2: return multiply_panel<2>(a, a_stride, panel, k_words, tile);
      case 3: return multiply_panel<3>(a, a_stride, panel, k_words, tile);
      default: return multiply_panel<4>(a, a_stride, panel, k_words, tile);
    }
  }

 private:
  template <int N>
  static void multiply_panel(const void* a, size_t a_stride, const uint32_t* panel, int k_words,
                             float* tile) {
    constexpr size_t kPanelBytes = static_cast<size_t>(N) * kTileBytes;
    tile_zero<0>();
    if constexpr (N > 1) tile_zero<1>();
    if constexpr (N > 2) tile_zero<2>();
    if constexpr (N > 3) tile_zero<3>();
    const char* row = static_cast<const char*>(a);
    const char* weights = reinterpret_cast<const char*>(panel);
    for (int k = 0; k < k_words; k += kTileRows) {
      tile_load<4>(row, a_stride);
      tile_load<5>(weights, kPanelBytes);
      P::template dot<0, 4, 5>();
      if constexpr (N > 1) {
        tile_load<6>(weights + kTileBytes, kPanelBytes);
        P::template dot<1, 4, 6>();
      }
      if constexpr (N > 2) {
        tile_load<7>(weights + 2 * kTileBytes, kPanelBytes);
        P::template dot<2, 4, 7>();
      }
      if constexpr (N > 3) {
        tile_load<5>(weights + 3 * kTileBytes, kPanelBytes);
        P::template dot<3, 4, 5>();
      }
      row += kTileBytes;
      weights += kTileRows * kPanelBytes;
    }
    tile_store<0>(tile, kPanelBytes);
    if constexpr (N > 1) tile_store<1>(tile + 16, kPanelBytes);
    if constexpr (N > 2) tile_store<2>(tile + 32, kPanelBytes);
    if constexpr (N > 3) tile_store<3>(tile + 48, kPanelBytes);
  }
};

}  // namespace

const Kernels& amx_kernels() {
  static constexpr Kernels kTable =
      Path<Bf16Vec, RegisterTiles<FloatDot>, MatrixTiles<Bf16Product>,
           MatrixTiles<ByteProduct>>::table("amx", Storage::u8, true, kTileRows);
  return kTable;
}

}  // namespace eosfm
