#include "memory.h"

#include <stdlib.h>

namespace eosfm {
namespace {

void* allocate_by_malloc(void*, size_t size, size_t alignment) { return aligned_alloc(alignment, size); }

void release_by_free(void*, void* memory, size_t) { free(memory); }

void* allocate_counted(void* user, size_t size, size_t alignment) {
  Memory* memory = static_cast<Memory*>(user);
  if (!memory->reserve(size)) return nullptr;
  void* taken = memory->given().allocate(memory->given().user, size, alignment);
  if (taken == nullptr) memory->release(size);
  return taken;
}

void release_counted(void* user, void* taken, size_t size) {
  Memory* memory = static_cast<Memory*>(user);
  memory->given().release(memory->given().user, taken, size);
  memory->release(size);
}

}  // namespace

void* take(const eosfm_allocator& allocator, size_t size) {
  const size_t rounded = round_up(size, kAlignment);
  void* memory = allocator.allocate(allocator.user, rounded, kAlignment);
  if (memory != nullptr) memset(memory, 0, rounded);
  return memory;
}

void give_back(const eosfm_allocator& allocator, void* memory, size_t size) {
  allocator.release(allocator.user, memory, round_up(size, kAlignment));
}

Memory::Memory()
    : given_{sizeof(eosfm_allocator), allocate_by_malloc, release_by_free, nullptr},
      counting_{sizeof(eosfm_allocator), allocate_counted, release_counted, this} {}

void Memory::set(const eosfm_allocator* given, size_t limit) {
  if (given != nullptr) given_ = *given;
  limit_ = limit;
}

bool Memory::reserve(size_t bytes) {
  size_t taken = taken_.load(std::memory_order_relaxed);
  do {
    if (limit_ != 0 && (taken > limit_ || bytes > limit_ - taken)) return false;
  } while (!taken_.compare_exchange_weak(taken, taken + bytes, std::memory_order_relaxed));
  taken += bytes;
  size_t peak = peak_.load(std::memory_order_relaxed);
  while (peak < taken && !peak_.compare_exchange_weak(peak, taken, std::memory_order_relaxed)) {
  }
  return true;
}

eosfm_status Memory::check_room(size_t needed, const char* what, ErrorText& error) const {
  const size_t taken = bytes();
  if (limit_ == 0 || (taken <= limit_ && needed <= limit_ - taken)) return EOSFM_OK;
  return error.fail(EOSFM_NO_MEMORY,
                    "%s needs %zu bytes, and %zu of the %zu of the model's memory_limit are "
                    "taken",
                    what, needed, taken, limit_);
}

}  // namespace eosfm
