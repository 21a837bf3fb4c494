// Memory: its source, its limit, and its owners.
//
// All that the library allocates comes from an eosfm_allocator. A model's counts bytes, holds a limit and takes them
// from the host's, or from malloc. Nothing else in the library calls malloc (tests/test_allocation.cc).
#ifndef EOSFM_MEMORY_H
#define EOSFM_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <atomic>
#include <new>

#include "status.h"

namespace eosfm {

constexpr size_t kAlignment = 64;

constexpr size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Takes zeroed memory, aligned to kAlignment; null when there is none. `size` is not 0.
void* take(const eosfm_allocator& allocator, size_t size);
void give_back(const eosfm_allocator& allocator, void* memory, size_t size);

// Counts the bytes that a model, its contexts and its streams have taken from the host's allocator or malloc.
class Memory {
 public:
  // Takes from malloc, without a limit.
  Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Sets the source, of which null is malloc, and the limit, of which 0 is none. `given` is copied. Call this before
  // anything is taken.
  void set(const eosfm_allocator* given, size_t limit);

  // Returns the allocator that counts bytes and holds the limit.
  const eosfm_allocator& allocator() const { return counting_; }
  // Returns its source.
  const eosfm_allocator& given() const { return given_; }

  // Counts bytes that others allocate; returns false if they are beyond the limit.
  bool reserve(size_t bytes);
  void release(size_t bytes) { taken_.fetch_sub(bytes, std::memory_order_relaxed); }
  // Checks that so many bytes more are within the limit; `what` needs them.
  eosfm_status check_room(size_t bytes, const char* what, ErrorText& error) const;

  size_t bytes() const { return taken_.load(std::memory_order_relaxed); }
  size_t peak_bytes() const { return peak_.load(std::memory_order_relaxed); }

 private:
  eosfm_allocator given_;
  eosfm_allocator counting_;
  size_t limit_ = 0;
  std::atomic<size_t> taken_{0};
  std::atomic<size_t> peak_{0};
};

// One piece of memory for values without constructors.
class Span {
 public:
  Span() = default;
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;
  ~Span() {
    if (data_ != nullptr) give_back(*allocator_, data_, size_);
  }

  // Takes zeroed memory; returns whether there was any. Called once.
  bool allocate(const eosfm_allocator& allocator, size_t size) {
    if (size == 0) return true;
    allocator_ = &allocator;
    size_ = size;
    data_ = static_cast<char*>(take(allocator, size));
    return data_ != nullptr;
  }

  char* data() const { return data_; }

 private:
  const eosfm_allocator* allocator_ = nullptr;
  char* data_ = nullptr;
  size_t size_ = 0;
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

// Returns the bytes that an object, or an array of some, takes.
template <class T>
constexpr size_t bytes_of(int count = 1) {
  return round_up(static_cast<size_t>(count > 0 ? count : 1) * sizeof(T), kAlignment);
}

// An array of values that owns its memory and can say that there was none.
template <class T>
class Array {
 public:
  Array() = default;
  Array(Array&& other) noexcept : allocator_(other.allocator_), data_(other.data_), count_(other.count_) {
    other.data_ = nullptr;
    other.count_ = 0;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  Array& operator=(Array&&) = delete;
  ~Array() {
    for (int i = 0; i < count_; ++i) data_[i].~T();
    if (data_ != nullptr) give_back(*allocator_, data_, bytes_of<T>(count_));
  }

  // Makes `count` default values; returns whether there was memory. Called once.
  bool allocate(const eosfm_allocator& allocator, int count) {
    void* fresh = take(allocator, bytes_of<T>(count));
    if (fresh == nullptr) return false;
    allocator_ = &allocator;
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
  const eosfm_allocator* allocator_ = nullptr;
  T* data_ = nullptr;
  int count_ = 0;
};

// Makes one object; null when there is no memory.
template <class T, class... Arguments>
T* make(const eosfm_allocator& allocator, Arguments&&... arguments) {
  void* memory = take(allocator, bytes_of<T>());
  return memory != nullptr ? new (memory) T(static_cast<Arguments&&>(arguments)...) : nullptr;
}

template <class T>
void unmake(const eosfm_allocator& allocator, T* object) {
  if (object == nullptr) return;
  object->~T();
  give_back(allocator, object, bytes_of<T>());
}

}  // namespace eosfm

#endif
