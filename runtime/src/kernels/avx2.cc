// AVX2 and FMA: every x86-64 processor since 2015 (x86-64-v3).
#include "kernels/vec_avx2.h"

#include "kernels/body.h"
#include "kernels/paths.h"

namespace eosfm {

const Kernels& avx2_kernels() {
  using Float = RegisterTiles<FloatDot>;
  static constexpr Kernels kTable =
      Path<Vec, Float, Float, RegisterTiles<PairDot>>::table("avx2", Storage::s16, false, 1);
  return kTable;
}

}  // namespace eosfm
