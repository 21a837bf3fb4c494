// The few things of CUDA that the kernels use, under one name each.
//
// CUDA's compiler gets its own; any other C++17 compiler gets a thread block of fibers on the CPU
// (tests/cuda/shim.h), where the same kernels run unchanged. Nothing of NVIDIA's headers is needed.
#ifndef EOSFM_CUDA_KERNELS_CUDA_H
#define EOSFM_CUDA_KERNELS_CUDA_H

#ifdef __CUDACC__

#define EOSFM_DEVICE __device__ __forceinline__
#define EOSFM_KERNEL(name, ...) \
  extern "C" __global__ void __launch_bounds__(eosfm::gpu::kThreads) name(__VA_ARGS__)
#define SYNC_THREADS() __syncthreads()
#define SYNC_WARP() __syncwarp()

namespace eosfm::gpu {

// The dynamic shared memory of the thread block.
EOSFM_DEVICE unsigned* shared_words() {
  extern __shared__ uint4 memory[];
  return reinterpret_cast<unsigned*>(memory);
}

EOSFM_DEVICE float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(0xffffffffU, value, lanes); }

// d += a * b for fragments of 16 x 16 and 16 x 8 halves; see matmul.h.
EOSFM_DEVICE void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same of 16 x 32 and 32 x 8 bytes.
EOSFM_DEVICE void mma(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats as halves, rounded to the nearest, `low` in the low 16 bits; and back.
EOSFM_DEVICE unsigned pack_halves(float low, float high) {
  unsigned word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

EOSFM_DEVICE float unpack_half(unsigned bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<unsigned short>(bits)));
  return value;
}

EOSFM_DEVICE unsigned bits_of(float value) { return __float_as_uint(value); }
EOSFM_DEVICE float float_of(unsigned bits) { return __uint_as_float(bits); }

}  // namespace eosfm::gpu

#else
#include "shim.h"
#endif

#endif
