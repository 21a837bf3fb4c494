// Memory: owned buffers, and one span that is laid out once and then only used.
#ifndef EOSFM_MEMORY_H
#define EOSFM_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <new>

namespace eosfm {

constexpr size_t kAlignment = 64;

constexpr size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// An owned, aligned, zeroed span; empty when there was no memory for it.
class Span {
 public:
  Span() = default;
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;
  ~Span() { free(memory_); }

  // Returns whether there was memory. Called once. Large spans come as the system's zero pages, which
  // nobody has to write.
  bool allocate(size_t size) {
    memory_ = calloc(1, size + kAlignment);
    if (memory_ == nullptr) return false;
    data_ = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(memory_), kAlignment));
    return true;
  }

  char* data() const { return data_; }

 private:
  void* memory_ = nullptr;
  char* data_ = nullptr;
};

// Lays out parts of one span. Used twice with the same calls: first without a span, to learn the
// size, then with it, to learn where each part is.
class Layout {
 public:
  explicit Layout(char* base = nullptr) : base_(base) {}

  template <class T>
  T* take(size_t count) {
    const size_t at = size_;
    size_ += round_up(count * sizeof(T), kAlignment);
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }

  size_t size() const { return size_; }

 private:
  char* base_;
  size_t size_ = 0;
};

// An array of plain values that owns its memory and can say that there was none.
template <class T>
class Array {
 public:
  Array() = default;
  Array(Array&& other) noexcept : data_(other.data_), count_(other.count_) {
    other.data_ = nullptr;
    other.count_ = 0;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  Array& operator=(Array&&) = delete;
  ~Array() {
    for (int i = 0; i < count_; ++i) data_[i].~T();
    free(data_);
  }

  // Makes `count` default values; returns whether there was memory. Called once.
  bool allocate(int count) {
    void* fresh = calloc(count > 0 ? static_cast<size_t>(count) : 1, sizeof(T));
    if (fresh == nullptr) return false;
    data_ = static_cast<T*>(fresh);
    count_ = count;
    for (int i = 0; i < count_; ++i) new (static_cast<void*>(&data_[i])) T();
    return true;
  }

  int size() const { return count_; }
  T& operator[](int i) { return data_[i]; }
  const T& operator[](int i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + count_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + count_; }

 private:
  T* data_ = nullptr;
  int count_ = 0;
};

}  // namespace eosfm

#endif
