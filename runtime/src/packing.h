// Packs the tensors of a file into the panels that kernels read (kernels/matrix.h).
#ifndef EOSFM_PACKING_H
#define EOSFM_PACKING_H

#include "gguf.h"
#include "kernels/kernels.h"
#include "memory.h"

namespace eosfm {

// A group of input rows of a matrix, padded with zeros by itself: one of the four corners of a downsampling patch, or
// one of the feature sets of a fusion.
struct RowGroup {
  int rows;
  int padded;
};

// A matrix as a file holds it: weight [rows][columns], bias [columns]; for int8 also a scale for
// each column, and in `input` a scale for each row's activations and their zero point.
struct MatrixSource {
  Tensor weight;
  Tensor bias;
  Tensor scale;
  Tensor input;
};

class Packer {
 public:
  Packer(const Gguf& file, const Kernels& kernels, bool widest_bf16, ErrorText& error)
      : file_(file), kernels_(kernels), widest_bf16_(widest_bf16), error_(error) {}

  // Reads `name`.weight with its bias and scales. `types` lists the types that the weight may have.
  eosfm_status read_matrix(const char* name, const char* types, int rows, int columns, MatrixSource* source);
  // Reads a float vector.
  eosfm_status read_vector(const char* name, int count, Tensor* tensor);

  ErrorText& error() { return error_; }

  // Returns how this isa stores the activations for weights of a type.
  Storage storage_of(TensorType type) const;

  // Lays a matrix out and, when the layout has memory, packs it.
  eosfm_status pack(const MatrixSource& source, const RowGroup* groups, int count, Storage storage,
                    Layout& layout, Matrix* matrix);
  // Lays out and packs a matrix in fp32, with as many rows as the packed one has after its padding.
  eosfm_status pack_source(const MatrixSource& source, const Matrix& packed, Layout& layout, Matrix* matrix);
  // Lays out and packs rows of floats, padded with zeros.
  const float* pack_rows(const Tensor& tensor, int rows, int columns, int padded, Layout& layout);

 private:
  eosfm_status check_input(const char* name, const Tensor& input);
  eosfm_status pack_words(const MatrixSource& source, const RowGroup* groups, int count, Matrix* matrix);
  void copy_to_panels(const char* words, int k, Matrix* matrix);
  void pack_bias(const MatrixSource& source, Matrix* matrix, const int32_t* sums);

  const Gguf& file_;
  const Kernels& kernels_;
  bool widest_bf16_;
  ErrorText& error_;
};

}  // namespace eosfm

#endif
