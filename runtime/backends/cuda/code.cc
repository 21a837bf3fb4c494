#include "code.h"

namespace eosfm {

namespace {

// Machine code runs on later GPUs of its major version, but for Orin (8.7), which has its own.
bool runs_on(int code, int compute) {
  constexpr int kOrin = 87;
  if (code == compute) return true;
  return code / 10 == compute / 10 && code < compute && code != kOrin && compute != kOrin;
}

}  // namespace

const GpuCode* choose_code(const GpuCode* codes, int count, int compute, int driver) {
  const GpuCode* best = nullptr;
  for (int i = 0; i < count; ++i) {
    const GpuCode& one = codes[i];
    // PTX needs a compiler as new as what made it; machine code only the major version.
    const bool taken = one.is_ptx != 0 ? one.toolkit <= driver && one.compute <= compute
                                       : one.toolkit / 1000 <= driver / 1000 && runs_on(one.compute, compute);
    if (!taken) continue;
    const bool better =
        best == nullptr || one.is_ptx < best->is_ptx ||
        (one.is_ptx == best->is_ptx &&
         (one.compute > best->compute || (one.compute == best->compute && one.toolkit > best->toolkit)));
    if (better) best = &one;
  }
  return best;
}

}  // namespace eosfm
