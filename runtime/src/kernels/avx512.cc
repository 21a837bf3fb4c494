// AVX-512 without VNNI (Skylake-X).
#include "kernels/vec_avx512.h"

#include "kernels/body.h"
#include "kernels/paths.h"

namespace eosfm {

const Kernels& avx512_kernels() {
  using Float = RegisterTiles<FloatDot>;
  static constexpr Kernels kTable =
      Path<Vec, Float, Float, RegisterTiles<PairDot>>::table("avx512", Storage::s16, false, 1);
  return kTable;
}

}  // namespace eosfm
