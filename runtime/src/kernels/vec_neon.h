// Four lanes of NEON (every aarch64 processor).
#ifndef EOSFM_KERNELS_VEC_NEON_H
#define EOSFM_KERNELS_VEC_NEON_H

#include <arm_neon.h>

#include "kernels/matrix.h"

namespace eosfm {
namespace {

struct Vec {
  static constexpr int lanes = 4;
  static constexpr int registers = 32;
  using F = float32x4_t;

  static F zero() { return vdupq_n_f32(0.0F); }
  static F set1(float x) { return vdupq_n_f32(x); }
  static F load(const float* p) { return vld1q_f32(p); }
  static F load_int(const int32_t* p) { return vcvtq_f32_s32(vld1q_s32(p)); }
  static F load_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
  static F load(const uint8_t* p) {
    uint32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    const uint16x8_t words = vmovl_u8(vcreate_u8(four));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(words)));
  }
  static F load(const uint16_t* p) { return vcvtq_f32_u32(vmovl_u16(vld1_u16(p))); }
  static F load(const int16_t* p) { return vcvtq_f32_s32(vmovl_s16(vld1_s16(p))); }
  static bool any_equal(F a, F b) { return vmaxvq_u32(vceqq_f32(a, b)) != 0; }
  static void store(float* p, F x) { vst1q_f32(p, x); }
  static void store_bf16(uint16_t* p, F x) { vst1_u16(p, vshrn_n_u32(rounded_to_bf16(x), 16)); }
  static void store_bf16_pairs(uint32_t* p, F low, F high) {
    const uint32x4_t h = vandq_u32(rounded_to_bf16(high), vdupq_n_u32(0xffff0000U));
    vst1q_u32(p, vorrq_u32(vshrq_n_u32(rounded_to_bf16(low), 16), h));
  }
  static void store_s16(int16_t* p, F x) { vst1_s16(p, vmovn_s32(vcvtnq_s32_f32(x))); }
  static void store_bytes(void* p, F x) {
    const int16x4_t words = vmovn_s32(vcvtnq_s32_f32(x));
    const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
    vst1_lane_s32(static_cast<int32_t*>(p), vreinterpret_s32_s8(bytes), 0);
  }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F min(F a, F b) { return vminq_f32(a, b); }
  static F max(F a, F b) { return vmaxq_f32(a, b); }
  static F reciprocal(F x) { return vdivq_f32(set1(1.0F), x); }
  static float sum(F x) { return vaddvq_f32(x); }

 private:
  // The upper 16 bits are the nearest bf16, ties to even. Values are finite.
  static uint32x4_t rounded_to_bf16(F x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  }
};

struct FloatDot {
  static constexpr int lanes = 4;
  static constexpr int registers = 32;
  using Acc = float32x4_t;
  using A = float32x4_t;
  using B = float32x4_t;
  static Acc zero() { return vdupq_n_f32(0.0F); }
  static B load(const uint32_t* p) { return vreinterpretq_f32_u32(vld1q_u32(p)); }
  static A broadcast(const uint32_t* p) { return vreinterpretq_f32_u32(vld1q_dup_u32(p)); }
  static void dot(Acc& sum, A a, B b) { sum = vfmaq_f32(sum, a, b); }
  static void store(float* p, Acc sum) { vst1q_f32(p, sum); }
};

// Shared by the integer dot products: four signed bytes to a word.
struct SignedBytes {
  static constexpr int lanes = 4;
  static constexpr int registers = 32;
  using Acc = int32x4_t;
  using A = int8x16_t;
  using B = int8x16_t;
  static Acc zero() { return vdupq_n_s32(0); }
  static B load(const uint32_t* p) { return vreinterpretq_s8_u32(vld1q_u32(p)); }
  static A broadcast(const uint32_t* p) { return vreinterpretq_s8_u32(vld1q_dup_u32(p)); }
  static void store(float* p, Acc sum) { vst1q_s32(reinterpret_cast<int32_t*>(p), sum); }
};

}  // namespace
}  // namespace eosfm

#endif
