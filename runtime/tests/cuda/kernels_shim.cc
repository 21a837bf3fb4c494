// The kernels, compiled for the shim, and how many barriers they have.
#include "../../backends/cuda/kernels/kernels.cu"

extern "C" int eosfm_barrier_count() { return __COUNTER__; }
