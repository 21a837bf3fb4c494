// Weights as tensor cores read them, from weights as the CPU engine's packing lays them out.
//
// A specialist's file is read and packed by the CPU engine's code for an imaginary instruction set of
// eight lanes and one panel, whose words of k lie in rows: words[k][columns]. From there it is a change of
// order into kernels/matmul.h's panels, and of floats into halves.
#ifndef EOSFM_CUDA_WEIGHTS_H
#define EOSFM_CUDA_WEIGHTS_H

#include "../../src/packing.h"
#include "kernels/descriptors.h"

namespace eosfm {

// The imaginary instruction set: for packing only, it has no functions.
extern const Kernels kGpuPacking;

// Elements of k that lie together, `count` times. Each run of them is padded to 16 words by itself.
struct KGroups {
  const int* sizes;
  int count;
};

// Returns the kind of operand for a packed matrix: floats are computed as halves unless all is to be float32.
gpu::Kind kind_of(const Matrix& matrix, bool all_float);

// Returns the words of k of a matrix in panels.
int words_of(gpu::Kind kind, const KGroups& groups);

// Returns the tiles of eight columns.
inline int tiles_of(const Matrix& matrix) { return matrix.vectors; }

inline size_t panel_words(const Matrix& matrix, gpu::Kind kind, const KGroups& groups) {
  return static_cast<size_t>(words_of(kind, groups)) * 8 * tiles_of(matrix);
}

// Writes the panels; returns whether every weight is in the range of its kind.
bool to_panels(const Matrix& matrix, gpu::Kind kind, const KGroups& groups, uint32_t* panels);

}  // namespace eosfm

#endif
