// AVX-512 without VNNI (Skylake-X).
#include "kernels/vec_avx512.h"

#include "kernels/body.h"
#include "kernels/isa.h"

namespace eosfm {

const Kernels& avx512_kernels() {
  using Float = InRegisters<FloatDot>;
  static constexpr Kernels kTable =
      Isa<Vec, Float, Float, InRegisters<PairDot>>::table("avx512", Storage::s16, false, 1);
  return kTable;
}

}  // namespace eosfm
