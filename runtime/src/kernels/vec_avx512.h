// Sixteen lanes of AVX-512 (F, BW, DQ, VL), and the dot products of what the file is compiled for.
#ifndef EOSFM_KERNELS_VEC_AVX512_H
#define EOSFM_KERNELS_VEC_AVX512_H

#include <immintrin.h>

#include "kernels/matrix.h"

namespace eosfm {
namespace {

struct Vec {
  static constexpr int lanes = 16;
  static constexpr int registers = 32;
  using F = __m512;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_int(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
  static F load_bf16(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static F load(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }
  static F load(const uint16_t* p) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(words));
  }
  static F load(const int16_t* p) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(words));
  }
  static bool any_equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) != 0; }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store_bf16(uint16_t* p, F x) {
    const __m512i high = _mm512_srli_epi32(rounded_to_bf16(x), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(high));
  }
  static void store_bf16_pairs(uint32_t* p, F low, F high) {
    const __m512i l = _mm512_srli_epi32(rounded_to_bf16(low), 16);
    const __m512i h = _mm512_and_si512(rounded_to_bf16(high), _mm512_set1_epi32(-65536));
    _mm512_storeu_si512(p, _mm512_or_si512(l, h));
  }
  static void store_s16(int16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
  }
  static void store_bytes(void* p, F x) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
  }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F reciprocal(F x) {
    const F r = _mm512_rcp14_ps(x);
    return mul(r, _mm512_fnmadd_ps(x, r, set1(2.0F)));  // one step of Newton's method
  }
  static float sum(F x) { return _mm512_reduce_add_ps(x); }

 private:
  // The upper 16 bits are the nearest bf16, ties to even. Values are finite.
  static __m512i rounded_to_bf16(F x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  }
};

struct FloatDot {
  static constexpr int lanes = 16;
  static constexpr int registers = 32;
  using Acc = __m512;
  using A = __m512;
  using B = __m512;
  static Acc zero() { return _mm512_setzero_ps(); }
  static B load(const uint32_t* p) { return _mm512_loadu_ps(p); }
  static A broadcast(const uint32_t* p) { return _mm512_set1_ps(*reinterpret_cast<const float*>(p)); }
  static void dot(Acc& sum, A a, B b) { sum = _mm512_fmadd_ps(a, b, sum); }
  static void store(float* p, Acc sum) { _mm512_storeu_ps(p, sum); }
};

// Shared by the integer dot products.
struct IntegerDot {
  static constexpr int lanes = 16;
  static constexpr int registers = 32;
  using Acc = __m512i;
  using A = __m512i;
  using B = __m512i;
  static Acc zero() { return _mm512_setzero_si512(); }
  static B load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static A broadcast(const uint32_t* p) { return _mm512_set1_epi32(*reinterpret_cast<const int*>(p)); }
  static void store(float* p, Acc sum) { _mm512_storeu_si512(p, sum); }
};

// Pairs of 16-bit integers: exact, where the byte dot product of AVX-512 BW would saturate.
struct PairDot : IntegerDot {
  static void dot(Acc& sum, A a, B b) { sum = _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
};

#if defined(__AVX512VNNI__)

struct ByteDot : IntegerDot {
  static void dot(Acc& sum, A a, B b) { sum = _mm512_dpbusd_epi32(sum, a, b); }
};

#endif
#if defined(__AVX512BF16__)

// The processor's own rounding to bf16.
struct Bf16Vec : Vec {
  static void store_bf16(uint16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
  }
};

#endif

}  // namespace
}  // namespace eosfm

#endif
