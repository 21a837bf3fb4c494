// AVX-512 with VNNI (Cascade Lake, Ice Lake): dot products of bytes with 32-bit sums.
#include "kernels/vec_avx512.h"

#include "kernels/body.h"
#include "kernels/isa.h"

namespace eosfm {

const Kernels& avx512_vnni_kernels() {
  using Float = InRegisters<FloatDot>;
  static constexpr Kernels kTable =
      Isa<Vec, Float, Float, InRegisters<ByteDot>>::table("avx512-vnni", Storage::u8, false, 1);
  return kTable;
}

}  // namespace eosfm
