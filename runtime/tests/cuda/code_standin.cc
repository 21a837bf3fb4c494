// Machine code for the stand-in, which looks at no more than what kind of file it is.
#include "../../backends/cuda/code.h"

namespace eosfm {
namespace {

const unsigned char kElf[] = "\x7f"
                             "ELF";
const unsigned char kPtx[] = ".version 8.5\n.target sm_80\n";

}  // namespace

const GpuCode kGpuCode[] = {
    {80, 0, 12060, kElf, sizeof kElf},
    {87, 0, 12060, kElf, sizeof kElf},
    {80, 1, 12060, kPtx, sizeof kPtx},
};
const int kGpuCodeCount = 3;

}  // namespace eosfm
