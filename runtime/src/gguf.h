// A reader of GGUF version 3 that trusts nothing in the file.
//
// The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count, length and offset is checked
// against the bytes of the file before it is used. Values and tensors are views into those bytes.
#ifndef EOSFM_GGUF_H
#define EOSFM_GGUF_H

#include <stdint.h>

#include "memory.h"
#include "status.h"

namespace eosfm {

struct Bytes {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

enum class TensorType : uint32_t { f32 = 0, i8 = 24, bf16 = 30 };

constexpr size_t tensor_type_bytes(TensorType type) {
  return type == TensorType::f32 ? 4 : type == TensorType::bf16 ? 2 : 1;
}

// A tensor of one to four dimensions. shape[0] is the slowest, as numpy has it.
struct Tensor {
  Bytes name;
  uint64_t offset = 0;  // in the file's tensor data
  TensorType type = TensorType::f32;
  int dimensions = 0;
  int64_t shape[4] = {1, 1, 1, 1};
  const uint8_t* data = nullptr;
};

class Gguf {
 public:
  // Reads the directory of a file, and makes sure that floats are finite, bytes not -128, and that no
  // two keys and no two tensors have one name. `file_name` is for messages and must outlive the reader,
  // as must the bytes.
  eosfm_status parse(const eosfm_allocator& allocator, Bytes file, const char* file_name, ErrorText& error);

  // Returns the allocator of the reader, for those who read its tensors too.
  const eosfm_allocator& allocator() const { return *allocator_; }
  const char* file_name() const { return file_name_; }

  // Checks the architecture of the file and the version of its format.
  eosfm_status expect(const char* architecture, uint32_t version, ErrorText& error) const;

  // Values by key. A missing key, another type or a value out of range is an error.
  eosfm_status read_uint(const char* key, uint32_t least, uint32_t most, uint32_t* value,
                         ErrorText& error) const;
  // Copies a string of less than `size` bytes, without zero bytes inside and with one at its end, and replaces
  // characters that are not printable. An optional string is for people: one that is too long is cut between two
  // UTF-8 characters, and a missing one is empty, since writers leave empty strings out.
  eosfm_status read_text(const char* key, char* text, size_t size, ErrorText& error) const;
  eosfm_status read_optional_text(const char* key, char* text, size_t size, ErrorText& error) const;
  // Reads the number of elements of an array.
  eosfm_status read_count(const char* key, uint32_t least, uint32_t most, uint32_t* count,
                          ErrorText& error) const;
  // Read elements of arrays, after read_count was called for the key.
  eosfm_status read_uint_at(const char* key, uint32_t index, uint32_t least, uint32_t most, uint32_t* value,
                            ErrorText& error) const;
  // Reads a finite number.
  eosfm_status read_float_at(const char* key, uint32_t index, float* value, ErrorText& error) const;
  eosfm_status read_text_at(const char* key, uint32_t index, char* text, size_t size, ErrorText& error) const;
  bool has(const char* key) const { return find(key) != nullptr; }

  // Reads the tensor of a name, and checks its shape and that its type is one of `types`, a string of 'f', 'b' and 'i'.
  eosfm_status read_tensor(const char* name, const char* types, int dimensions, const int64_t* shape,
                           Tensor* tensor, ErrorText& error) const;
  // Returns the tensor of a name; null if there is none.
  const Tensor* find_tensor(const char* name) const;

 private:
  struct Value {
    Bytes name;
    uint32_t type = 0;
    uint32_t element_type = 0;  // of an array
    uint64_t count = 1;
    Bytes bytes;
  };
  class Cursor;

  const Value* find(const char* key) const;
  eosfm_status element(const char* key, uint32_t index, uint32_t type, const uint8_t** at,
                       ErrorText& error) const;
  eosfm_status parse_value(Cursor& cursor, Value* value, ErrorText& error) const;
  eosfm_status parse_tensor(Cursor& cursor, Tensor* tensor, ErrorText& error) const;
  eosfm_status place_tensors(Bytes file, size_t directory_end, ErrorText& error);
  eosfm_status copy_text(const char* key, Bytes bytes, char* text, size_t size, ErrorText& error) const;

  const eosfm_allocator* allocator_ = nullptr;
  const char* file_name_ = "";
  Array<Value> values_;  // both sorted by name
  Array<Tensor> tensors_;
};

}  // namespace eosfm

#endif
