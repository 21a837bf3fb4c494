// A reader of GGUF version 3 that trusts nothing in the file.
//
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count, length and offset is held
// against the bytes that are there before it is used; values and tensors are views into them.
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

  // What it took memory from, as do those who read its tensors.
  const eosfm_allocator& allocator() const { return *allocator_; }
  const char* file_name() const { return file_name_; }

  // That the file is of an architecture, and of a version of its format.
  eosfm_status expect(const char* architecture, uint32_t version, ErrorText& error) const;

  // Values by key. A missing key, another type or a value out of range is an error.
  eosfm_status read_uint(const char* key, uint32_t least, uint32_t most, uint32_t* value,
                         ErrorText& error) const;
  // A string without zero bytes, of less than `size` bytes, copied with a zero at its end. What is not
  // printable of it is replaced.
  // An optional one is for people: too long, it is cut between two characters of UTF-8; missing, it
  // is empty, since writers leave empty strings out.
  eosfm_status read_text(const char* key, char* text, size_t size, ErrorText& error) const;
  eosfm_status read_optional_text(const char* key, char* text, size_t size, ErrorText& error) const;
  // The number of elements of an array.
  eosfm_status read_count(const char* key, uint32_t least, uint32_t most, uint32_t* count,
                          ErrorText& error) const;
  // Elements of arrays, after read_count has been called for the key.
  eosfm_status read_uint_at(const char* key, uint32_t index, uint32_t least, uint32_t most, uint32_t* value,
                            ErrorText& error) const;
  // Finite.
  eosfm_status read_float_at(const char* key, uint32_t index, float* value, ErrorText& error) const;
  eosfm_status read_text_at(const char* key, uint32_t index, char* text, size_t size, ErrorText& error) const;
  bool has(const char* key) const { return find(key) != nullptr; }

  // The tensor of this name; its type one of `types` (a zero-terminated string of 'f', 'b', 'i'),
  // its shape the given one.
  eosfm_status read_tensor(const char* name, const char* types, int dimensions, const int64_t* shape,
                           Tensor* tensor, ErrorText& error) const;
  // Null if there is none.
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
