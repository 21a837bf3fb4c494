// AVX-512 with VNNI and BF16 (Cooper Lake, Zen 4, Zen 5). Zen's bf16 dot product does twice the work
// of its fused multiply-add; on Sapphire Rapids it does not, which is why that has kernels for AMX.
#include "kernels/vec_avx512.h"

#include "kernels/body.h"
#include "kernels/isa.h"

namespace eosfm {
namespace {

struct Bf16Dot {
  static constexpr int lanes = 16;
  static constexpr int registers = 32;
  using Acc = __m512;
  using A = __m512i;
  using B = __m512i;
  static Acc zero() { return _mm512_setzero_ps(); }
  static B load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static A broadcast(const uint32_t* p) { return _mm512_set1_epi32(*reinterpret_cast<const int*>(p)); }
  static void dot(Acc& sum, A a, B b) { sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  static void store(float* p, Acc sum) { _mm512_storeu_ps(p, sum); }
};

}  // namespace

const Kernels& avx512_bf16_kernels() {
  static constexpr Kernels kTable =
      Isa<Bf16Vec, InRegisters<FloatDot>, InRegisters<Bf16Dot>, InRegisters<ByteDot>>::table(
          "avx512-bf16", Storage::u8, true, 1);
  return kTable;
}

}  // namespace eosfm
