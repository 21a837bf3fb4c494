// Structs of other versions: read over defaults, filled as far as they go, refused beyond limits.
#include "../src/structs.h"

#include <vector>

#include "check.h"

// What a later version of the library would have, and programs of the first and of a still later one.
struct Grown {
  size_t struct_size;
  int32_t first;
  int64_t added;
};
struct First {
  size_t struct_size;
  int32_t first;
};
struct Later {
  size_t struct_size;
  int32_t first;
  int64_t added;
  int64_t unknown;
};

#define GROWN_INIT {sizeof(Grown), 1, 42}

namespace eosfm {
EOSFM_STRUCT(Grown, first, GROWN_INIT);
}

using namespace eosfm;

namespace {

template <class T>
const Grown* given(const T* one) {
  return reinterpret_cast<const Grown*>(one);
}

void structs_are_read_over_defaults() {
  const First first = {sizeof(First), 7};
  const Grown read = read_struct(given(&first));
  CHECK(read.struct_size == sizeof(Grown) && read.first == 7 && read.added == 42);
  const Later later = {sizeof(Later), 8, 9, 10};
  const Grown shorter = read_struct(given(&later));
  CHECK(shorter.struct_size == sizeof(Grown) && shorter.first == 8 && shorter.added == 9);
}

void structs_are_filled_as_far_as_they_go() {
  struct {
    First one;
    int64_t behind;
  } small = {{sizeof(First), 0}, -1};
  const Grown own = {sizeof(Grown), 5, 6};
  write_struct(own, reinterpret_cast<Grown*>(&small.one));
  CHECK(small.one.struct_size == sizeof(First) && small.one.first == 5 && small.behind == -1);
  Later later = {sizeof(Later), 0, 0, -1};
  write_struct(own, reinterpret_cast<Grown*>(&later));
  CHECK(later.struct_size == sizeof(Later) && later.first == 5 && later.added == 6 && later.unknown == -1);
}

template <class T>
void arrays_are_stepped_by_the_given_size() {
  std::vector<T> array(3);
  for (size_t i = 0; i < array.size(); ++i) {
    array[i].struct_size = sizeof(T);
    array[i].first = static_cast<int32_t>(10 + i);
  }
  ErrorText error;
  CHECK(check_structs(given(array.data()), array.size(), error) == EOSFM_OK);
  for (size_t i = 0; i < array.size(); ++i) {
    CHECK(read_struct_at(given(array.data()), i).first == static_cast<int32_t>(10 + i));
  }
  array[2].struct_size += 8;
  CHECK(check_structs(given(array.data()), array.size(), error) == EOSFM_BAD_ARGUMENT);
  CHECK(strstr(error.text, "element 2") != nullptr);
}

void sizes_that_cannot_be_are_refused() {
  for (const size_t size : {size_t{0}, size_t{8}, size_t{15}, size_t{17}, size_t{20}, size_t{4097},
                            size_t{4104}, SIZE_MAX, SIZE_MAX - 7}) {
    const Later one = {size, 0, 0, 0};
    ErrorText error;
    CHECK(check_struct(given(&one), error) == EOSFM_BAD_ARGUMENT);
    CHECK(strstr(error.text, "struct_size") != nullptr && strstr(error.text, "Grown") != nullptr);
  }
  for (const size_t size : {size_t{16}, size_t{24}, size_t{32}, size_t{4096}}) {
    const Later one = {size, 0, 0, 0};
    ErrorText error;
    CHECK(check_struct(given(&one), error) == EOSFM_OK);
  }
  ErrorText error;
  const Grown* none = nullptr;
  CHECK(check_struct(none, error) == EOSFM_BAD_ARGUMENT);
  CHECK(check_structs(none, 2, error) == EOSFM_BAD_ARGUMENT);
  Grown own;
  CHECK(read_options(none, &own, error) == EOSFM_OK && own.first == 1 && own.added == 42);
}

}  // namespace

int main() {
  structs_are_read_over_defaults();
  structs_are_filled_as_far_as_they_go();
  arrays_are_stepped_by_the_given_size<First>();
  arrays_are_stepped_by_the_given_size<Grown>();
  arrays_are_stepped_by_the_given_size<Later>();
  sizes_that_cannot_be_are_refused();
  return report();
}
