// Single objects on the heap, without exceptions: null when there is no memory.
#ifndef EOSFM_MADE_H
#define EOSFM_MADE_H

#include <stdlib.h>

#include <new>

namespace eosfm {

template <class T>
T* make() {
  void* memory = malloc(sizeof(T));
  return memory != nullptr ? new (memory) T() : nullptr;
}

template <class T>
void unmake(T* object) {
  if (object == nullptr) return;
  object->~T();
  free(object);
}

}  // namespace eosfm

#endif
