// Weights as the micro-kernels read them.
#ifndef EOSFM_KERNELS_MATRIX_H
#define EOSFM_KERNELS_MATRIX_H

#include <cstddef>
#include <cstdint>

namespace eosfm {

// How the elements of a left operand (activations) are stored: in 32-bit words of one float, two bf16 or int16, or
// four bytes. A micro-kernel broadcasts one word at a time.
enum class Storage : uint8_t {
  f32,
  bf16,
  s16,  // int8 where there is no dot product of bytes: a code 0..255 in 16 bits
  u8,   // a code 0..255
  s8,   // a code 0..255, less 128
};

constexpr int elements_per_word(Storage s) {
  return s == Storage::f32 ? 1 : (s == Storage::bf16 || s == Storage::s16) ? 2 : 4;
}
constexpr int element_bytes(Storage s) { return 4 / elements_per_word(s); }
constexpr bool is_integer(Storage s) { return s >= Storage::s16; }

// A matrix of k x n weights, applied as out[row][n] = sum over k of a[row][k] * w[k][n] + bias[n].
//
// Columns lie in panels of up to `panel_vectors` vectors; a panel is [k_words][panel columns] words.
// Both k and n are padded with zeros. For integers, activations are quantised as
// q = clamp(round(value * inverse[k]) + zero, 0, 255), which whoever writes them does; sums are
// multiplied by `scale` before the bias, which then holds the correction for the zero point too.
struct Matrix {
  uint32_t* words = nullptr;
  float* bias = nullptr;
  float* scale = nullptr;    // null unless the storage is an integer, as `inverse` is
  float* inverse = nullptr;  // [inputs, padded as they lie in a row and to a vector's lanes]
  int k_words = 0;
  int vectors = 0;  // padded columns / lanes
  int columns = 0;  // true columns
  Storage storage = Storage::f32;
  float zero = 0.0F;
};

// The panels of a matrix: as few as possible, and as equal as possible, so that no panel is so
// narrow that its micro-kernel waits for loads.
struct PanelSplit {
  int count;
  int narrow;  // vectors in a narrow panel; the first `wide_panels` have one more
  int wide_panels;

  constexpr PanelSplit(int vectors, int widest)
      : count((vectors + widest - 1) / widest),
        narrow(count ? vectors / count : 0),
        wide_panels(count ? vectors % count : 0) {}
  constexpr int width(int panel) const { return narrow + (panel < wide_panels ? 1 : 0); }
};

}  // namespace eosfm

#endif
