#include "gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace eosfm {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint64_t kMostValues = 1024;
constexpr uint64_t kMostTensors = 1 << 13;  // the largest network that the format allows has 2,832
constexpr size_t kLeastValueBytes = 8 + 4 + 1;           // an empty name, a type, a byte
constexpr size_t kLeastTensorBytes = 8 + 4 + 8 + 4 + 8;  // an empty name, dimensions, one, type, offset
constexpr uint32_t kUint32 = 4;
constexpr uint32_t kFloat32 = 6;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;
constexpr uint32_t kTypes = 13;

// Bytes of a value of each type; 0 for those whose length is in the file.
constexpr uint8_t kTypeBytes[kTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// Returns a number below, at or above 0 if `a` comes before, equals or comes after `b`.
int compare(Bytes a, Bytes b) {
  const size_t shorter = a.size < b.size ? a.size : b.size;
  const int order = shorter > 0 ? memcmp(a.data, b.data, shorter) : 0;
  return order != 0 ? order : a.size < b.size ? -1 : a.size > b.size ? 1 : 0;
}

// Lets entry `root` of a heap of `count` sink to where none beneath it has a later name.
template <class T>
void sink(Array<T>& heap, int root, int count) {
  const T moved = heap[root];
  for (int child; (child = 2 * root + 1) < count; root = child) {
    if (child + 1 < count && compare(heap[child].name, heap[child + 1].name) < 0) ++child;
    if (compare(moved.name, heap[child].name) >= 0) break;
    heap[root] = heap[child];
  }
  heap[root] = moved;
}

// Sorts by name, in place since qsort may call malloc, and returns an entry whose name another has too; null if there is none. A hash table
// would be as quick on honest files, but a file can be made of names that collide.
template <class T>
const T* sort_by_name(Array<T>& entries) {
  const int count = entries.size();
  for (int root = count / 2 - 1; root >= 0; --root) sink(entries, root, count);
  for (int last = count - 1; last > 0; --last) {
    const T latest = entries[0];
    entries[0] = entries[last];
    entries[last] = latest;
    sink(entries, 0, last);
  }
  for (int i = 1; i < entries.size(); ++i) {
    if (compare(entries[i - 1].name, entries[i].name) == 0) return &entries[i];
  }
  return nullptr;
}

// Returns the entry of a name among sorted ones; null if there is none.
template <class T>
const T* find_by_name(const Array<T>& entries, const char* name) {
  const Bytes wanted = {reinterpret_cast<const uint8_t*>(name), strlen(name)};
  int first = 0;
  int last = entries.size();
  while (first < last) {
    const int middle = first + (last - first) / 2;
    const int order = compare(entries[middle].name, wanted);
    if (order == 0) return &entries[middle];
    if (order < 0) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return nullptr;
}

template <class T>
T load(const uint8_t* at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

// A name for messages, without characters that are not printable.
struct Printable {
  char text[64];

  explicit Printable(Bytes bytes) {
    size_t n = 0;
    for (; n < bytes.size && n + 1 < sizeof text; ++n) {
      text[n] = bytes.data[n] >= ' ' && bytes.data[n] < 127 ? static_cast<char>(bytes.data[n]) : '?';
    }
    text[n] = '\0';
  }
};

// Checks that floats are finite and that no byte is -128, so that the sum of two products of bytes fits in 16 bits.
bool all_sound(const Tensor& tensor) {
  int64_t count = 1;
  for (int64_t extent : tensor.shape) count *= extent;
  // Only infinities and NaN have an exponent of all ones.
  uint32_t bad = 0;
  if (tensor.type == TensorType::f32) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = load<uint32_t>(tensor.data + 4 * i);
      bad |= static_cast<uint32_t>((bits & 0x7f800000U) == 0x7f800000U);
    }
  } else if (tensor.type == TensorType::bf16) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = load<uint16_t>(tensor.data + 2 * i);
      bad |= static_cast<uint32_t>((bits & 0x7f80U) == 0x7f80U);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) bad |= static_cast<uint32_t>(tensor.data[i] == 0x80U);
  }
  return bad == 0;
}

}  // namespace

// A position in the file. The first read beyond the end fails, and so do all later ones.
class Gguf::Cursor {
 public:
  explicit Cursor(Bytes bytes) : at_(bytes.data), left_(bytes.size) {}

  bool take(uint64_t size, Bytes* bytes) {
    if (size > left_) return false;
    *bytes = {at_, static_cast<size_t>(size)};
    at_ += size;
    left_ -= size;
    return true;
  }

  template <class T>
  bool take(T* value) {
    Bytes bytes;
    if (!take(sizeof(T), &bytes)) return false;
    memcpy(value, bytes.data, sizeof(T));
    return true;
  }

  bool take_string(Bytes* bytes) {
    uint64_t size;
    return take(&size) && take(size, bytes);
  }

  const uint8_t* at() const { return at_; }
  size_t left() const { return left_; }

 private:
  const uint8_t* at_;
  size_t left_;
};

eosfm_status Gguf::parse(const eosfm_allocator& allocator, Bytes file, const char* file_name,
                         ErrorText& error) {
  allocator_ = &allocator;
  file_name_ = file_name;
  Cursor cursor(file);
  Bytes magic;
  uint32_t version = 0;
  uint64_t tensors = 0;
  uint64_t values = 0;
  if (!cursor.take(4, &magic) || memcmp(magic.data, "GGUF", 4) != 0) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s is not a GGUF file", file_name);
  }
  if (!cursor.take(&version) || version != kVersion) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s is of GGUF version %" PRIu32 ", expected %" PRIu32, file_name,
                      version, kVersion);
  }
  if (!cursor.take(&tensors) || !cursor.take(&values)) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s ends in its header", file_name);
  }
  if (tensors > kMostTensors || values > kMostValues) {
    return error.fail(EOSFM_BAD_BUNDLE,
                      "%s declares %" PRIu64 " tensors and %" PRIu64 " values, expected at most "
                      "%" PRIu64 " and %" PRIu64,
                      file_name, tensors, values, kMostTensors, kMostValues);
  }
  // A key or a tensor takes bytes of the file, so the directory is bounded by the file's size.
  if (values > cursor.left() / kLeastValueBytes || tensors > cursor.left() / kLeastTensorBytes) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s ends in its directory", file_name);
  }
  if (!values_.allocate(allocator, static_cast<int>(values)) ||
      !tensors_.allocate(allocator, static_cast<int>(tensors))) {
    return error.no_memory("the file's directory");
  }
  for (Value& value : values_) {
    const eosfm_status status = parse_value(cursor, &value, error);
    if (status != EOSFM_OK) return status;
  }
  for (Tensor& tensor : tensors_) {
    const eosfm_status status = parse_tensor(cursor, &tensor, error);
    if (status != EOSFM_OK) return status;
  }
  // Readers differ in which of two equal names they take, so a bundle could mean different things to them.
  if (const Value* twice = sort_by_name(values_)) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has the key %s twice", file_name, Printable(twice->name).text);
  }
  if (const Tensor* twice = sort_by_name(tensors_)) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has the tensor %s twice", file_name, Printable(twice->name).text);
  }
  return place_tensors(file, static_cast<size_t>(cursor.at() - file.data), error);
}

// Finds the bytes of every tensor behind the directory, and checks them.
eosfm_status Gguf::place_tensors(Bytes file, size_t directory_end, ErrorText& error) {
  uint32_t alignment = 32;
  if (has("general.alignment")) {
    const eosfm_status status = read_uint("general.alignment", 8, 1 << 16, &alignment, error);
    if (status != EOSFM_OK) return status;
  }
  if ((alignment & (alignment - 1)) != 0) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has an alignment of %" PRIu32 ", expected a power of two",
                      file_name_, alignment);
  }
  const size_t start = round_up(directory_end, alignment);
  const size_t space = start < file.size ? file.size - start : 0;
  uint64_t total = 0;
  for (Tensor& tensor : tensors_) {
    uint64_t size = tensor_type_bytes(tensor.type);
    for (int64_t extent : tensor.shape) size *= static_cast<uint64_t>(extent);
    if (tensor.offset % alignment != 0 || tensor.offset > space || size > space - tensor.offset) {
      return error.fail(EOSFM_BAD_BUNDLE,
                        "tensor %s of %s is said to have %" PRIu64 " bytes at %" PRIu64
                        ", which is not within the file or not aligned",
                        Printable(tensor.name).text, file_name_, size, tensor.offset);
    }
    // Tensors that share bytes could make a small file take as long as a very large one.
    total += size;
    if (total > space) {
      return error.fail(EOSFM_BAD_BUNDLE,
                        "the tensors of %s have more bytes than the %zu that are "
                        "there for them: they overlap",
                        file_name_, space);
    }
    tensor.data = file.data + start + tensor.offset;
    if (!all_sound(tensor)) {
      return error.fail(EOSFM_BAD_BUNDLE, "tensor %s of %s has values that are not finite, or bytes of -128",
                        Printable(tensor.name).text, file_name_);
    }
  }
  return EOSFM_OK;
}

eosfm_status Gguf::parse_value(Cursor& cursor, Value* value, ErrorText& error) const {
  const auto cut = [&] {
    return error.fail(EOSFM_BAD_BUNDLE, "%s ends in value %s", file_name_, Printable(value->name).text);
  };
  if (!cursor.take_string(&value->name) || !cursor.take(&value->type)) return cut();
  uint32_t type = value->type;
  if (type == kArray) {
    if (!cursor.take(&value->element_type) || !cursor.take(&value->count)) return cut();
    type = value->element_type;
  }
  if (type >= kTypes || type == kArray) {
    return error.fail(EOSFM_BAD_BUNDLE, "value %s of %s has a type that is not known (%" PRIu32 ")",
                      Printable(value->name).text, file_name_, type);
  }
  if (type != kString) {
    if (value->count > cursor.left() / kTypeBytes[type]) return cut();
    return cursor.take(value->count * kTypeBytes[type], &value->bytes) ? EOSFM_OK : cut();
  }
  // Each string has its length before it. The view is of all strings, which are walked when one is read.
  const uint8_t* first = cursor.at();
  for (uint64_t i = 0; i < value->count; ++i) {
    Bytes string;
    if (!cursor.take_string(&string)) return cut();
  }
  value->bytes = {first, static_cast<size_t>(cursor.at() - first)};
  return EOSFM_OK;
}

eosfm_status Gguf::parse_tensor(Cursor& cursor, Tensor* tensor, ErrorText& error) const {
  const auto cut = [&] {
    return error.fail(EOSFM_BAD_BUNDLE, "%s ends in the entry of tensor %s", file_name_,
                      Printable(tensor->name).text);
  };
  uint32_t dimensions = 0;
  if (!cursor.take_string(&tensor->name) || !cursor.take(&dimensions)) return cut();
  if (dimensions < 1 || dimensions > 4) {
    return error.fail(EOSFM_BAD_BUNDLE, "tensor %s of %s has %" PRIu32 " dimensions, expected 1 to 4",
                      Printable(tensor->name).text, file_name_, dimensions);
  }
  tensor->dimensions = static_cast<int>(dimensions);
  uint64_t elements = 1;
  for (int i = tensor->dimensions - 1; i >= 0; --i) {  // the file has the fastest first
    uint64_t extent = 0;
    if (!cursor.take(&extent)) return cut();
    constexpr uint64_t kMostElements = uint64_t{1} << 40;
    if (extent < 1 || extent > kMostElements / elements) {
      return error.fail(EOSFM_BAD_BUNDLE, "tensor %s of %s has an extent of %" PRIu64,
                        Printable(tensor->name).text, file_name_, extent);
    }
    elements *= extent;
    tensor->shape[i] = static_cast<int64_t>(extent);
  }
  uint32_t type = 0;
  if (!cursor.take(&type) || !cursor.take(&tensor->offset)) return cut();
  tensor->type = static_cast<TensorType>(type);
  if (tensor->type != TensorType::f32 && tensor->type != TensorType::bf16 && tensor->type != TensorType::i8) {
    return error.fail(EOSFM_BAD_BUNDLE,
                      "tensor %s of %s is of GGUF type %" PRIu32 ", expected 0 (F32), 24 (I8) or 30 (BF16)",
                      Printable(tensor->name).text, file_name_, type);
  }
  return EOSFM_OK;
}

const Gguf::Value* Gguf::find(const char* key) const { return find_by_name(values_, key); }

const Tensor* Gguf::find_tensor(const char* name) const { return find_by_name(tensors_, name); }

eosfm_status Gguf::expect(const char* architecture, uint32_t version, ErrorText& error) const {
  char text[32];
  uint32_t found = 0;
  eosfm_status status = read_text("general.architecture", text, sizeof text, error);
  if (status != EOSFM_OK) return status;
  if (strcmp(text, architecture) != 0) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s is of architecture %s, expected %s", file_name_, text,
                      architecture);
  }
  status = read_uint("eosfm.version", 0, UINT32_MAX, &found, error);
  if (status != EOSFM_OK || found == version) return status;
  return error.fail(EOSFM_BAD_BUNDLE,
                    "%s is of version %" PRIu32 " of its format, expected %" PRIu32
                    ": export the bundle again",
                    file_name_, found, version);
}

eosfm_status Gguf::read_uint(const char* key, uint32_t least, uint32_t most, uint32_t* value,
                             ErrorText& error) const {
  const Value* found = find(key);
  if (found == nullptr || found->type != kUint32) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has no value %s of type uint32", file_name_, key);
  }
  const uint32_t read = load<uint32_t>(found->bytes.data);
  if (read < least || read > most) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s of %s is %" PRIu32 ", expected %" PRIu32 " to %" PRIu32, key,
                      file_name_, read, least, most);
  }
  *value = read;
  return EOSFM_OK;
}

eosfm_status Gguf::copy_text(const char* key, Bytes bytes, char* text, size_t size, ErrorText& error) const {
  if (bytes.size >= size || memchr(bytes.data, '\0', bytes.size) != nullptr) {
    return error.fail(EOSFM_BAD_BUNDLE,
                      "%s of %s is %zu bytes or has a zero byte, expected a text "
                      "of at most %zu",
                      key, file_name_, bytes.size, size - 1);
  }
  memcpy(text, bytes.data, bytes.size);
  text[bytes.size] = '\0';
  make_printable(text);
  return EOSFM_OK;
}

eosfm_status Gguf::read_text(const char* key, char* text, size_t size, ErrorText& error) const {
  const Value* found = find(key);
  if (found == nullptr || found->type != kString) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has no value %s of type string", file_name_, key);
  }
  return copy_text(key, {found->bytes.data + 8, found->bytes.size - 8}, text, size, error);
}

eosfm_status Gguf::read_optional_text(const char* key, char* text, size_t size, ErrorText& error) const {
  text[0] = '\0';
  const Value* found = find(key);
  if (found == nullptr || found->type != kString) {
    return found == nullptr ? EOSFM_OK : read_text(key, text, size, error);
  }
  Bytes bytes = {found->bytes.data + 8, found->bytes.size - 8};
  if (bytes.size >= size) {
    bytes.size = size - 1;
    // The byte after the cut begins a character.
    while (bytes.size > 0 && (bytes.data[bytes.size] & 0xC0) == 0x80) --bytes.size;
  }
  return copy_text(key, bytes, text, size, error);
}

eosfm_status Gguf::read_count(const char* key, uint32_t least, uint32_t most, uint32_t* count,
                              ErrorText& error) const {
  const Value* found = find(key);
  if (found == nullptr || found->type != kArray) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has no array %s", file_name_, key);
  }
  if (found->count < least || found->count > most) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s of %s has %" PRIu64 " elements, expected %" PRIu32 " to %" PRIu32,
                      key, file_name_, found->count, least, most);
  }
  *count = static_cast<uint32_t>(found->count);
  return EOSFM_OK;
}

eosfm_status Gguf::element(const char* key, uint32_t index, uint32_t type, const uint8_t** at,
                           ErrorText& error) const {
  const Value* found = find(key);
  if (found == nullptr || found->type != kArray || found->element_type != type || index >= found->count) {
    return error.fail(EOSFM_BAD_BUNDLE,
                      "array %s of %s has no element %" PRIu32 " of the type that "
                      "is expected",
                      key, file_name_, index);
  }
  if (type == kString) {
    *at = found->bytes.data;
    for (uint32_t i = 0; i < index; ++i) *at += 8 + load<uint64_t>(*at);
  } else {
    *at = found->bytes.data + static_cast<size_t>(index) * kTypeBytes[type];
  }
  return EOSFM_OK;
}

eosfm_status Gguf::read_uint_at(const char* key, uint32_t index, uint32_t least, uint32_t most,
                                uint32_t* value, ErrorText& error) const {
  const uint8_t* at = nullptr;
  const eosfm_status status = element(key, index, kUint32, &at, error);
  if (status != EOSFM_OK) return status;
  const uint32_t read = load<uint32_t>(at);
  if (read < least || read > most) {
    return error.fail(EOSFM_BAD_BUNDLE,
                      "%s[%" PRIu32 "] of %s is %" PRIu32 ", expected %" PRIu32 " to %" PRIu32, key, index,
                      file_name_, read, least, most);
  }
  *value = read;
  return EOSFM_OK;
}

eosfm_status Gguf::read_float_at(const char* key, uint32_t index, float* value, ErrorText& error) const {
  const uint8_t* at = nullptr;
  const eosfm_status status = element(key, index, kFloat32, &at, error);
  if (status != EOSFM_OK) return status;
  const float read = load<float>(at);
  if (!isfinite(read)) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s[%" PRIu32 "] of %s is not finite", key, index, file_name_);
  }
  *value = read;
  return EOSFM_OK;
}

eosfm_status Gguf::read_text_at(const char* key, uint32_t index, char* text, size_t size,
                                ErrorText& error) const {
  const uint8_t* at = nullptr;
  const eosfm_status status = element(key, index, kString, &at, error);
  if (status != EOSFM_OK) return status;
  return copy_text(key, {at + 8, static_cast<size_t>(load<uint64_t>(at))}, text, size, error);
}

eosfm_status Gguf::read_tensor(const char* name, const char* types, int dimensions, const int64_t* shape,
                               Tensor* tensor, ErrorText& error) const {
  const Tensor* found = find_tensor(name);
  if (found == nullptr) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s has no tensor %s", file_name_, name);
  }
  const char type = found->type == TensorType::f32 ? 'f' : found->type == TensorType::bf16 ? 'b' : 'i';
  if (strchr(types, type) == nullptr) {
    return error.fail(EOSFM_BAD_BUNDLE, "tensor %s of %s has a type that is not allowed for it", name,
                      file_name_);
  }
  bool fits = found->dimensions == dimensions;
  for (int i = 0; fits && i < dimensions; ++i) fits = found->shape[i] == shape[i];
  if (!fits) {
    char got[96];
    char wanted[96];
    int g = 0;
    int w = 0;
    for (int i = 0; i < 4; ++i) {
      if (i < found->dimensions) {
        g += snprintf(got + g, sizeof got - g, "%s%" PRId64, i ? " x " : "", found->shape[i]);
      }
      if (i < dimensions) {
        w += snprintf(wanted + w, sizeof wanted - w, "%s%" PRId64, i ? " x " : "", shape[i]);
      }
    }
    return error.fail(EOSFM_BAD_BUNDLE, "tensor %s of %s is %s, expected %s", name, file_name_, got, wanted);
  }
  *tensor = *found;
  return EOSFM_OK;
}

}  // namespace eosfm
