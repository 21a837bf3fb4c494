// NEON as every aarch64 processor has it (Armv8.0).
#include "kernels/vec_neon.h"

#include "kernels/body.h"
#include "kernels/isa.h"

namespace eosfm {
namespace {

// Sums of two byte products fit in 16 bits, since weights are never -128.
struct ByteDot : SignedBytes {
  static void dot(Acc& sum, A a, B b) {
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    sum = vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(a, b)));
  }
};

}  // namespace

const Kernels& neon_kernels() {
  using Float = InRegisters<FloatDot>;
  static constexpr Kernels kTable =
      Isa<Vec, Float, Float, InRegisters<ByteDot>>::table("neon", Storage::s8, false, 1);
  return kTable;
}

}  // namespace eosfm
