// From the tensors of a file to what the kernels read.
#ifndef EOSFM_PACKING_H
#define EOSFM_PACKING_H

#include "gguf.h"
#include "kernels/kernels.h"
#include "memory.h"

namespace eosfm {

// The input rows of a matrix lie in groups, each of which is padded with zeros by itself: the four
// corners of a downsampling patch, or the feature sets of a fusion.
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

  // Reads `name`.weight and what belongs to it. `types` are those that the weight may have.
  eosfm_status read_matrix(const char* name, const char* types, int rows, int columns, MatrixSource* source);
  // Reads a float vector.
  eosfm_status read_vector(const char* name, int count, Tensor* tensor);

  ErrorText& error() { return error_; }

  // How this isa computes with a tensor of that type.
  Storage storage_of(TensorType type) const;

  // Lays a matrix out and, when the layout has memory, packs it.
  eosfm_status pack(const MatrixSource& source, const RowGroup* groups, int count, Storage storage,
                    Layout& layout, Matrix* matrix);
  // The fp32 form of a packed matrix, with as many rows as that one has after its padding.
  eosfm_status pack_source(const MatrixSource& source, const Matrix& packed, Layout& layout, Matrix* matrix);
  // A vector, or rows of one, padded with zeros.
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
