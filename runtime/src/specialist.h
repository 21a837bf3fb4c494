// A specialist's file.
#ifndef EOSFM_SPECIALIST_H
#define EOSFM_SPECIALIST_H

#include "format.h"
#include "gguf.h"
#include "network.h"
#include "packing.h"

namespace eosfm {

// A specialist's network: its shape and the texts of its file.
struct Specialist {
  Gguf file;
  char backbone[64];
  char licence[256];
  char digest[80];  // of its tensors, by their writer
  int bands = 0;
  int depths[kStages];
  int widths[kStages];
  int hidden[kStages][kMostDepth];

  // Reads a file and checks every tensor against the shape.
  eosfm_status parse(const eosfm_allocator& allocator, Bytes bytes, const char* file_name,
                     const Kernels& kernels, ErrorText& error);

  // Lays the weights out for an isa, without memory: shapes and storages are set, `bytes` grows by
  // what they need. With `widest_bf16`, fp32 weights are computed in bf16 where the isa can.
  eosfm_status shape(const Kernels& kernels, bool widest_bf16, NetworkWeights* weights, size_t* bytes,
                     ErrorText& error) const;
  // Lays the weights out with memory, and packs them.
  eosfm_status pack(const Kernels& kernels, bool widest_bf16, NetworkWeights* weights,
                    ErrorText& error) const;

 private:
  eosfm_status lay_out(Packer& packer, const Kernels& kernels, Layout& layout, NetworkWeights* weights) const;
  eosfm_status lay_out_stem(Packer& packer, Layout& layout, NetworkWeights* weights) const;
  eosfm_status lay_out_downsample(Packer& packer, Layout& layout, int stage, NetworkWeights* weights) const;
  eosfm_status lay_out_block(Packer& packer, const Kernels& kernels, Layout& layout, int s, int b,
                             StageWeights* stage) const;
};

}  // namespace eosfm

#endif
