// The kernels' machine code, made when the library was built: for each kind of GPU, and as PTX, which
// the driver compiles for those that are newer.
#ifndef EOSFM_CUDA_CODE_H
#define EOSFM_CUDA_CODE_H

#include <stddef.h>

namespace eosfm {

struct GpuCode {
  int compute;  // 10 * major + minor of the compute capability
  int is_ptx;
  int toolkit;  // the CUDA that made it, as the driver counts: 12060
  const unsigned char* bytes;
  size_t size;
};

extern const GpuCode kGpuCode[];
extern const int kGpuCodeCount;

// Returns the code for a GPU and a driver: the machine code that is nearest to the GPU, by the newest CUDA that
// the driver takes, or else the newest PTX that both take. Null if there is none.
//
// A driver takes machine code of its own CUDA's major version and of older ones. Of code for sm_87 there
// are two, since JetPack 6 has CUDA 12 and JetPack 7 has CUDA 13.
const GpuCode* choose_code(const GpuCode* codes, int count, int compute, int driver);

}  // namespace eosfm

#endif
