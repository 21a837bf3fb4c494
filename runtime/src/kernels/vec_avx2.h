// Eight lanes of AVX2 with FMA: the x86 base.
#ifndef EOSFM_KERNELS_VEC_AVX2_H
#define EOSFM_KERNELS_VEC_AVX2_H

#include <immintrin.h>

#include "kernels/matrix.h"

namespace eosfm {
namespace {

struct Vec {
  static constexpr int lanes = 8;
  static constexpr int registers = 16;
  using F = __m256;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load_int(const int32_t* p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_bf16(const uint16_t* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static F load(const uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
  }
  static F load(const uint16_t* p) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(words));
  }
  static F load(const int16_t* p) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words));
  }
  static bool any_equal(F a, F b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) != 0; }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static void store_bf16(uint16_t* p, F x) { store_16(p, _mm256_srli_epi32(rounded_to_bf16(x), 16)); }
  static void store_bf16_pairs(uint32_t* p, F low, F high) {
    const __m256i l = _mm256_srli_epi32(rounded_to_bf16(low), 16);
    const __m256i h = _mm256_and_si256(rounded_to_bf16(high), _mm256_set1_epi32(-65536));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_or_si256(l, h));
  }
  static void store_s16(int16_t* p, F x) { store_16(p, _mm256_cvtps_epi32(x)); }
  static void store_bytes(void* p, F x) {
    const __m256i wide = _mm256_cvtps_epi32(x);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  // The processor's 12-bit estimate would need two steps of Newton's method; a division takes no longer.
  static F reciprocal(F x) { return _mm256_div_ps(set1(1.0F), x); }
  static float sum(F x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }

 private:
  // The low 16 bits of each lane; lanes hold 0..65535.
  static void store_16(void* p, __m256i x) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storeu_si128(static_cast<__m128i*>(p), words);
  }
  // The upper 16 bits are the nearest bf16, ties to even. Values are finite.
  static __m256i rounded_to_bf16(F x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  }
};

struct FloatDot {
  static constexpr int lanes = 8;
  static constexpr int registers = 16;
  using Acc = __m256;
  using A = __m256;
  using B = __m256;
  static Acc zero() { return _mm256_setzero_ps(); }
  static B load(const uint32_t* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
  static A broadcast(const uint32_t* p) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(p)); }
  static void dot(Acc& sum, A a, B b) { sum = _mm256_fmadd_ps(a, b, sum); }
  static void store(float* p, Acc sum) { _mm256_storeu_ps(p, sum); }
};

// Pairs of 16-bit integers: exact, where AVX2's byte dot product would saturate.
struct PairDot {
  static constexpr int lanes = 8;
  static constexpr int registers = 16;
  using Acc = __m256i;
  using A = __m256i;
  using B = __m256i;
  static Acc zero() { return _mm256_setzero_si256(); }
  static B load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static A broadcast(const uint32_t* p) { return _mm256_set1_epi32(static_cast<int>(*p)); }
  static void dot(Acc& sum, A a, B b) { sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
  static void store(float* p, Acc sum) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), sum); }
};

}  // namespace
}  // namespace eosfm

#endif
