// NEON with the dot-product extension (Armv8.2: Cortex-A76, A78AE, Neoverse).
#include "kernels/vec_neon.h"

#include "kernels/body.h"
#include "kernels/isa.h"

namespace eosfm {
namespace {

struct ByteDot : SignedBytes {
  static void dot(Acc& sum, A a, B b) { sum = vdotq_s32(sum, a, b); }
};

}  // namespace

const Kernels& neon_dotprod_kernels() {
  using Float = InRegisters<FloatDot>;
  static constexpr Kernels kTable =
      Isa<Vec, Float, Float, InRegisters<ByteDot>>::table("neon-dotprod", Storage::s8, false, 1);
  return kTable;
}

}  // namespace eosfm
