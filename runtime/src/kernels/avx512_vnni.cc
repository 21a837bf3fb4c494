// AVX-512 with VNNI (Cascade Lake, Ice Lake): byte products with 32-bit sums.
#include "kernels/vec_avx512.h"

#include "kernels/body.h"
#include "kernels/paths.h"

namespace eosfm {

const Kernels& avx512_vnni_kernels() {
  using Float = RegisterTiles<FloatDot>;
  static constexpr Kernels kTable =
      Path<Vec, Float, Float, RegisterTiles<ByteDot>>::table("avx512-vnni", Storage::u8, false, 1);
  return kTable;
}

}  // namespace eosfm
