#include "packing.h"

#include <stdio.h>
#include <string.h>

namespace eosfm {
namespace {

float float_at(const uint8_t* data, int64_t i) {
  float value;
  memcpy(&value, data + 4 * i, sizeof value);
  return value;
}

// Fills in the factors that quantise inputs, in the order of a row. The memory is zero, so padding becomes the zero
// point.
void pack_inverse(const Tensor& input, const RowGroup* groups, int count, float* inverse) {
  int64_t from = 0;
  for (int g = 0; g < count; ++g) {
    for (int i = 0; i < groups[g].rows; ++i) inverse[i] = 1.0F / float_at(input.data, from++);
    inverse += groups[g].padded;
  }
}

// Returns the nearest bf16, ties to even.
uint32_t bf16_of(uint32_t bits) { return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16; }

// Adds a row of weights to a row of words, as element `place` of each.
template <class Encode>
void merge(uint32_t* words, int columns, int shift, const Encode& encode) {
  for (int c = 0; c < columns; ++c) words[c] |= encode(c) << shift;
}

void merge_row(const Tensor& weight, int64_t row, Storage storage, int place, uint32_t* words) {
  const int columns = static_cast<int>(weight.shape[1]);
  const uint8_t* from = weight.data + row * columns * tensor_type_bytes(weight.type);
  const int shift = place * 8 * element_bytes(storage);
  const auto f32 = [from](int c) {
    uint32_t bits;
    memcpy(&bits, from + 4 * static_cast<size_t>(c), sizeof bits);
    return bits;
  };
  const auto bf16 = [from](int c) {
    uint16_t bits;
    memcpy(&bits, from + 2 * static_cast<size_t>(c), sizeof bits);
    return static_cast<uint32_t>(bits);
  };
  switch (storage) {
    case Storage::f32:
      if (weight.type == TensorType::f32) return merge(words, columns, 0, f32);
      return merge(words, columns, 0, [&](int c) { return bf16(c) << 16; });
    case Storage::bf16:
      if (weight.type == TensorType::bf16) return merge(words, columns, shift, bf16);
      return merge(words, columns, shift, [&](int c) { return bf16_of(f32(c)); });
    case Storage::s16:
      return merge(words, columns, shift,
                   [from](int c) { return static_cast<uint32_t>(static_cast<int8_t>(from[c])) & 0xffffU; });
    case Storage::u8:
    case Storage::s8:
      return merge(words, columns, shift, [from](int c) { return static_cast<uint32_t>(from[c]); });
  }
}

}  // namespace

eosfm_status Packer::read_vector(const char* name, int count, Tensor* tensor) {
  const int64_t shape[] = {count};
  return file_.read_tensor(name, "f", 1, shape, tensor, error_);
}

eosfm_status Packer::read_matrix(const char* name, const char* types, int rows, int columns,
                                 MatrixSource* source) {
  char full[96];
  const auto named = [&](const char* part) {
    snprintf(full, sizeof full, "%s.%s", name, part);
    return full;
  };
  const int64_t shape[] = {rows, columns};
  eosfm_status status = file_.read_tensor(named("weight"), types, 2, shape, &source->weight, error_);
  if (status == EOSFM_OK) status = read_vector(named("bias"), columns, &source->bias);
  if (status != EOSFM_OK || source->weight.type != TensorType::i8) return status;
  status = read_vector(named("weight_scale"), columns, &source->scale);
  if (status == EOSFM_OK) status = read_vector(named("input"), rows + 1, &source->input);
  return status == EOSFM_OK ? check_input(full, source->input) : status;
}

// Checks that each input has a scale above 0 and a zero point; the reader has checked that they are finite.
eosfm_status Packer::check_input(const char* name, const Tensor& input) {
  const int inputs = static_cast<int>(input.shape[0]) - 1;
  for (int i = 0; i < inputs; ++i) {
    const float scale = float_at(input.data, i);
    if (scale > 0.0F) continue;
    return error_.fail(EOSFM_BAD_BUNDLE, "%s of %s has a scale of %g for input %d, expected one above 0",
                       name, file_.file_name(), static_cast<double>(scale), i);
  }
  const float zero = float_at(input.data, inputs);
  if (zero >= 0.0F && zero <= 255.0F && zero == static_cast<float>(static_cast<int>(zero))) {
    return EOSFM_OK;
  }
  return error_.fail(EOSFM_BAD_BUNDLE,
                     "%s of %s has a zero point of %g, expected a whole number from "
                     "0 to 255",
                     name, file_.file_name(), static_cast<double>(zero));
}

Storage Packer::storage_of(TensorType type) const {
  if (type == TensorType::i8) return kernels_.integer;
  const bool bf16 = type == TensorType::bf16 || widest_bf16_;
  return bf16 && kernels_.native_bf16 ? Storage::bf16 : Storage::f32;
}

eosfm_status Packer::pack(const MatrixSource& source, const RowGroup* groups, int count, Storage storage,
                          Layout& layout, Matrix* matrix) {
  int rows = 0;
  for (int g = 0; g < count; ++g) rows += groups[g].padded;
  const int columns = static_cast<int>(source.weight.shape[1]);
  const size_t per_word = static_cast<size_t>(elements_per_word(storage));
  matrix->storage = storage;
  matrix->columns = columns;
  matrix->vectors = (columns + kernels_.lanes - 1) / kernels_.lanes;
  matrix->k_words = static_cast<int>(round_up(round_up(static_cast<size_t>(rows), per_word) / per_word,
                                              static_cast<size_t>(kernels_.k_word_multiple)));
  const size_t padded = static_cast<size_t>(matrix->vectors) * kernels_.lanes;
  matrix->words = layout.take<uint32_t>(matrix->k_words * padded);
  matrix->bias = layout.take<float>(padded);
  if (is_integer(storage)) {
    matrix->scale = layout.take<float>(padded);
    matrix->inverse =
        layout.take<float>(round_up(static_cast<size_t>(rows), static_cast<size_t>(kernels_.lanes)));
    matrix->zero = float_at(source.input.data, source.weight.shape[0]);
  }
  if (matrix->words == nullptr) return EOSFM_OK;  // only the size is wanted
  if (is_integer(storage)) pack_inverse(source.input, groups, count, matrix->inverse);
  return pack_words(source, groups, count, matrix);
}

eosfm_status Packer::pack_source(const MatrixSource& source, const Matrix& packed, Layout& layout,
                                 Matrix* matrix) {
  const RowGroup group = {static_cast<int>(source.weight.shape[0]),
                          packed.k_words * elements_per_word(packed.storage)};
  return pack(source, &group, 1, Storage::f32, layout, matrix);
}

const float* Packer::pack_rows(const Tensor& tensor, int rows, int columns, int padded, Layout& layout) {
  float* to = layout.take<float>(static_cast<size_t>(rows) * padded);
  for (int r = 0; to != nullptr && r < rows; ++r) {
    memcpy(to + static_cast<size_t>(r) * padded,
           tensor.data + sizeof(float) * static_cast<size_t>(r) * columns,
           static_cast<size_t>(columns) * sizeof(float));
  }
  return to;
}

// Packs the rows. The memory is zero, so all that is not written is padding.
eosfm_status Packer::pack_words(const MatrixSource& source, const RowGroup* groups, int count,
                                Matrix* matrix) {
  const int columns = matrix->columns;
  const int per_word = elements_per_word(matrix->storage);
  Array<uint32_t> words;
  Array<int32_t> sums;
  if (!words.allocate(file_.allocator(), columns) || !sums.allocate(file_.allocator(), columns)) {
    return error_.no_memory("packing weights");
  }

  // The file has fp32 rows in the order of the panels.
  const bool verbatim = source.weight.type == TensorType::f32 && matrix->storage == Storage::f32;
  int group = 0;
  int in_group = 0;
  int64_t row = 0;
  for (int k = 0; k < matrix->k_words; ++k) {
    const void* ready = nullptr;
    if (!verbatim) memset(words.begin(), 0, static_cast<size_t>(columns) * sizeof(uint32_t));
    for (int place = 0; place < per_word && group < count; ++place) {
      if (in_group < groups[group].rows) {
        if (verbatim) {
          ready = source.weight.data + row * columns * sizeof(float);
        } else {
          merge_row(source.weight, row, matrix->storage, place, words.begin());
          ready = words.begin();
        }
        if (is_integer(matrix->storage)) {
          const int8_t* from = reinterpret_cast<const int8_t*>(source.weight.data) + row * columns;
          for (int c = 0; c < columns; ++c) sums[c] += from[c];
        }
        ++row;
      }
      if (++in_group == groups[group].padded) {
        in_group = 0;
        ++group;
      }
    }
    if (ready != nullptr) copy_to_panels(static_cast<const char*>(ready), k, matrix);
  }
  pack_bias(source, matrix, sums.begin());
  return EOSFM_OK;
}

// Copies one row of words to its place in every panel.
void Packer::copy_to_panels(const char* words, int k, Matrix* matrix) {
  const PanelSplit split(matrix->vectors, kernels_.panel_vectors);
  uint32_t* panel = matrix->words;
  int column = 0;
  for (int p = 0; p < split.count; ++p) {
    const int width = split.width(p) * kernels_.lanes;
    const int used = matrix->columns - column < width ? matrix->columns - column : width;
    memcpy(panel + static_cast<size_t>(k) * width, words + sizeof(uint32_t) * column,
           static_cast<size_t>(used) * sizeof(uint32_t));
    panel += static_cast<size_t>(matrix->k_words) * width;
    column += width;
  }
}

// Stored activations are a = q - shift, and stand for (q - zero) times a scale that is in the weights.
void Packer::pack_bias(const MatrixSource& source, Matrix* matrix, const int32_t* sums) {
  for (int c = 0; c < matrix->columns; ++c) {
    matrix->bias[c] = float_at(source.bias.data, c);
    if (!is_integer(matrix->storage)) continue;
    const float shift = matrix->storage == Storage::s8 ? 128.0F : 0.0F;
    const float scale = float_at(source.scale.data, c);
    matrix->scale[c] = scale;
    matrix->bias[c] += (shift - matrix->zero) * scale * static_cast<float>(sums[c]);
  }
}

}  // namespace eosfm
