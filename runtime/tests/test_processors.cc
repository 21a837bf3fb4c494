// Prints how many threads a context has that is asked for as many as there are processors: test_processors
// BUNDLE. Control groups are read from the folder EOSFM_TEST_ROOT instead of the system's root.
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fcntl.h>

#include "bundle.h"
#include "check.h"

extern "C" int __real_open(const char* path, int flags, ...);

extern "C" int __wrap_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
  va_end(arguments);
  const bool group = std::strcmp(path, "/proc/self/cgroup") == 0 || std::strncmp(path, "/sys/", 5) == 0;
  const std::string place = (group ? std::getenv("EOSFM_TEST_ROOT") : "") + std::string(path);
  return __real_open(place.c_str(), flags, mode);
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open(argv[1], nullptr, &model) == EOSFM_OK);
  eosfm_context* context = nullptr;
  CHECK(eosfm_context_create(model, nullptr, &context) == EOSFM_OK);
  int threads = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    threads += entry.is_directory() ? 1 : 0;
  }
  std::printf("%d\n", threads);
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  return failures() == 0 ? 0 : 1;
}
