// Reads and writes the structs of eosfm.h for callers of any version.
//
// Each struct has the size of its first version, which is the least that a caller may give, and may have grown since.
// A new field begins at or behind the sizeof that its struct had before: a field in former padding could not be told
// from the padding of an older caller. tests/native/test_abi.py compares the header with that of the first version.
#ifndef EOSFM_STRUCTS_H
#define EOSFM_STRUCTS_H

#include <string.h>

#include "status.h"

namespace eosfm {

constexpr size_t kStructAlignment = 8;
constexpr size_t kMostStructSize = 4096;  // a larger size was never set

constexpr size_t struct_size_up_to(size_t end) {
  return (end + kStructAlignment - 1) / kStructAlignment * kStructAlignment;
}

// A struct's first size, and its defaults.
template <class T>
struct StructOf;

// `last` is the last field of the first version.
#define EOSFM_STRUCT(type, last, init)                                                     \
  template <>                                                                              \
  struct StructOf<type> {                                                                  \
    static constexpr size_t kFirstSize =                                                   \
        struct_size_up_to(offsetof(type, last) + sizeof(decltype(type::last)));            \
    static constexpr const char* kName = #type;                                            \
    static type defaults() { return init; }                                                \
    static_assert(alignof(type) == kStructAlignment && sizeof(type) >= kFirstSize, #type); \
  }

EOSFM_STRUCT(eosfm_open_options, allocator, EOSFM_OPEN_OPTIONS_INIT);
EOSFM_STRUCT(eosfm_allocator, user, EOSFM_ALLOCATOR_INIT);
EOSFM_STRUCT(eosfm_file, size, EOSFM_FILE_INIT);
EOSFM_STRUCT(eosfm_model_info, memory_peak_bytes, EOSFM_MODEL_INFO_INIT);
EOSFM_STRUCT(eosfm_band_info, nodata, EOSFM_BAND_INFO_INIT);
EOSFM_STRUCT(eosfm_specialist_info, factor, EOSFM_SPECIALIST_INFO_INIT);
EOSFM_STRUCT(eosfm_engine, name, EOSFM_ENGINE_INIT);
EOSFM_STRUCT(eosfm_gate, user, EOSFM_GATE_INIT);
EOSFM_STRUCT(eosfm_context_options, thread_user, EOSFM_CONTEXT_OPTIONS_INIT);
EOSFM_STRUCT(eosfm_requirements, pinned_bytes, EOSFM_REQUIREMENTS_INIT);
EOSFM_STRUCT(eosfm_band, column_origin, EOSFM_BAND_INIT);
EOSFM_STRUCT(eosfm_image, mask_row_stride, EOSFM_IMAGE_INIT);
EOSFM_STRUCT(eosfm_level, row_stride, EOSFM_LEVEL_INIT);
EOSFM_STRUCT(eosfm_run_options, present_count, EOSFM_RUN_OPTIONS_INIT);
EOSFM_STRUCT(eosfm_stream_band, column_origin, EOSFM_STREAM_BAND_INIT);
EOSFM_STRUCT(eosfm_head_info, levels, EOSFM_HEAD_INFO_INIT);
EOSFM_STRUCT(eosfm_class_info, blue, EOSFM_CLASS_INFO_INIT);
EOSFM_STRUCT(eosfm_map, probabilities, EOSFM_MAP_INIT);
EOSFM_STRUCT(eosfm_stream_head, probabilities, EOSFM_STREAM_HEAD_INIT);
EOSFM_STRUCT(eosfm_patch_map, width, EOSFM_PATCH_MAP_INIT);
EOSFM_STRUCT(eosfm_stream_options, mask, EOSFM_STREAM_OPTIONS_INIT);
EOSFM_STRUCT(eosfm_patch_level, width, EOSFM_PATCH_LEVEL_INIT);
EOSFM_STRUCT(eosfm_patch, levels, EOSFM_PATCH_INIT);
EOSFM_STRUCT(eosfm_engine_info, isa, EOSFM_ENGINE_INFO_INIT);
EOSFM_STRUCT(eosfm_statistics, blend_ns, EOSFM_STATISTICS_INIT);
EOSFM_STRUCT(eosfm_specialist_statistics, compute_ns, EOSFM_SPECIALIST_STATISTICS_INIT);

template <class T>
bool has_size(const T* given) {
  return given->struct_size >= StructOf<T>::kFirstSize && given->struct_size <= kMostStructSize &&
         given->struct_size % kStructAlignment == 0;
}

// Checks that a caller's struct is not NULL and has a possible size.
template <class T>
eosfm_status check_struct(const T* given, ErrorText& error) {
  if (given == nullptr) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the %s is NULL", StructOf<T>::kName);
  }
  if (has_size(given)) return EOSFM_OK;
  return error.fail(EOSFM_BAD_ARGUMENT,
                    "the %s has a struct_size of %zu, expected a multiple of %zu from "
                    "%zu to %zu: initialise it with its EOSFM_..._INIT",
                    StructOf<T>::kName, given->struct_size, kStructAlignment, StructOf<T>::kFirstSize,
                    kMostStructSize);
}

// Returns a checked struct with the fields that only this library has at their defaults.
template <class T>
T read_struct(const T* given) {
  T own = StructOf<T>::defaults();
  memcpy(&own, given, given->struct_size < sizeof own ? given->struct_size : sizeof own);
  own.struct_size = sizeof own;
  return own;
}

// Fills a checked struct, except the fields that only the caller has.
template <class T>
void write_struct(const T& own, T* given) {
  const size_t size = given->struct_size;
  memcpy(given, &own, size < sizeof own ? size : sizeof own);
  given->struct_size = size;
}

// Reads a struct for which NULL means the defaults.
template <class T>
eosfm_status read_options(const T* given, T* own, ErrorText& error) {
  *own = StructOf<T>::defaults();
  if (given == nullptr) return EOSFM_OK;
  const eosfm_status status = check_struct(given, error);
  if (status == EOSFM_OK) *own = read_struct(given);
  return status;
}

// Returns element `i` of a caller's array, whose elements lie as far apart as their size says.
template <class T>
T* struct_at(T* first, size_t i) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(first) + i * first->struct_size);
}

template <class T>
T read_struct_at(const T* first, size_t i) {
  return read_struct(struct_at(first, i));
}

// Checks that an array is not NULL and that all its elements have the same possible size.
template <class T>
eosfm_status check_structs(const T* first, size_t count, ErrorText& error) {
  eosfm_status status = check_struct(first, error);
  for (size_t i = 1; status == EOSFM_OK && i < count; ++i) {
    const size_t size = struct_at(first, i)->struct_size;
    if (size == first->struct_size) continue;
    status = error.fail(EOSFM_BAD_ARGUMENT,
                        "element %zu of an array of %s has a struct_size of %zu, expected "
                        "%zu as the first has",
                        i, StructOf<T>::kName, size, first->struct_size);
  }
  return status;
}

}  // namespace eosfm

#endif
