// The tables of all instruction sets (isa) that are compiled for this architecture, and the choice among them.
#ifndef EOSFM_KERNELS_ISA_H
#define EOSFM_KERNELS_ISA_H

#include "kernels/kernels.h"

namespace eosfm {

const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_vnni_kernels();
const Kernels& avx512_bf16_kernels();
const Kernels& amx_kernels();
const Kernels& neon_kernels();
const Kernels& neon_dotprod_kernels();

// Returns the kernels of the i-th isa that this processor can run, the best first; null beyond the last.
const Kernels* available_kernels(int i);

// Returns the kernels of the best isa, or of the isa `name`; null if this processor lacks it.
const Kernels* choose_kernels(const char* name);

}  // namespace eosfm

#endif
