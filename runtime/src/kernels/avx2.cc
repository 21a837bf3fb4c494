// AVX2 and FMA: every x86-64 processor since 2015 (x86-64-v3).
#include "kernels/vec_avx2.h"

#include "kernels/body.h"
#include "kernels/isa.h"

namespace eosfm {

const Kernels& avx2_kernels() {
  using Float = InRegisters<FloatDot>;
  static constexpr Kernels kTable =
      Isa<Vec, Float, Float, InRegisters<PairDot>>::table("avx2", Storage::s16, false, 1);
  return kTable;
}

}  // namespace eosfm
