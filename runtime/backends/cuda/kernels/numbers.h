// Numbers as they are stored, and GELU. Formulas are the CPU engine's, term by term, so that both
// engines round alike.
#ifndef EOSFM_CUDA_KERNELS_NUMBERS_H
#define EOSFM_CUDA_KERNELS_NUMBERS_H

#include "cuda.h"
#include "descriptors.h"

namespace eosfm::gpu {

EOSFM_DEVICE int smaller(int a, int b) { return a < b ? a : b; }
EOSFM_DEVICE int round_up_to(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// The nearest bf16, ties to even.
EOSFM_DEVICE unsigned bf16_of(float value) {
  const unsigned bits = bits_of(value);
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

// A value times its scale plus the zero point becomes a code of 0 to 255, stored less 128.
EOSFM_DEVICE unsigned byte_of(float code) {
  return static_cast<unsigned>(static_cast<int>(rintf(fminf(fmaxf(code, 0.0F), 255.0F))) - 128) & 0xffU;
}

// x * Phi(x), where Phi(x) - 1/2 is x * p(x^2) / q(x^2) on |x| <= 5.2: within 2e-7.
EOSFM_DEVICE float gelu(float x) {
  const float c = fminf(fmaxf(x, -5.2F), 5.2F);
  const float u = c * c;
  float p = fmaf(u, -1.4522287e-08F, 4.7344106e-06F);
  p = fmaf(u, p, 3.6320838e-04F);
  p = fmaf(u, p, 5.7856156e-03F);
  p = fmaf(u, p, 5.5845615e-02F);
  p = fmaf(u, p, 3.9894220e-01F);
  float q = fmaf(u, 1.2106983e-04F, 2.9819026e-03F);
  q = fmaf(u, q, 4.0618501e-02F);
  q = fmaf(u, q, 3.0664775e-01F);
  q = fmaf(u, q, 1.0F);
  return x * fmaf(c * p, 1.0F / q, 0.5F);
}

// The same to 1.3e-4, which is less than what bf16 leaves of it.
EOSFM_DEVICE float gelu_coarse(float x) {
  const float c = fminf(fmaxf(x, -4.0F), 4.0F);
  const float u = c * c;
  float p = fmaf(u, -4.6344731e-10F, 5.2192377e-08F);
  p = fmaf(u, p, -2.3541456e-06F);
  p = fmaf(u, p, 5.8005822e-05F);
  p = fmaf(u, p, -8.8738685e-04F);
  p = fmaf(u, p, 9.0582427e-03F);
  p = fmaf(u, p, -6.5099284e-02F);
  p = fmaf(u, p, 3.9820904e-01F);
  return x * fmaf(c, p, 0.5F);
}

// One kind of operand: how many elements a word holds, how float values become a word, what the
// sums are, and how they become values.
template <int kKind>
struct Operand;

template <>
struct Operand<kFloat> {
  static constexpr int kPerWord = 1;
  using Sum = float;
  EOSFM_DEVICE static unsigned word(const float (&v)[1]) { return bits_of(v[0]); }
  EOSFM_DEVICE static float scaled(float v, const float*, int, float) { return v; }
  EOSFM_DEVICE static float value(float sum, const Weights& w, int column) { return sum + w.bias[column]; }
};

template <>
struct Operand<kHalf> {
  static constexpr int kPerWord = 2;
  using Sum = float;
  EOSFM_DEVICE static unsigned word(const float (&v)[2]) { return pack_halves(v[0], v[1]); }
  EOSFM_DEVICE static float scaled(float v, const float*, int, float) { return v; }
  EOSFM_DEVICE static float value(float sum, const Weights& w, int column) { return sum + w.bias[column]; }
};

template <>
struct Operand<kByte> {
  static constexpr int kPerWord = 4;
  using Sum = int;
  EOSFM_DEVICE static unsigned word(const float (&v)[4]) {
    return byte_of(v[0]) | byte_of(v[1]) << 8 | byte_of(v[2]) << 16 | byte_of(v[3]) << 24;
  }
  EOSFM_DEVICE static float scaled(float v, const float* inverse, int i, float zero) {
    return fmaf(v, inverse[i], zero);
  }
  EOSFM_DEVICE static float value(int sum, const Weights& w, int column) {
    return fmaf(static_cast<float>(sum), w.scale[column], w.bias[column]);
  }
};

// Sum over the lanes of a warp; every lane gets it.
EOSFM_DEVICE float warp_sum(float value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += shuffle_xor(value, lanes);
  return value;
}

}  // namespace eosfm::gpu

#endif
