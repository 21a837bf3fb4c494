// What a host's process keeps of libeosfm: test_process LIBRARY BUNDLE. Loads it at run time, as a plugin
// would, so that it can be unloaded, and forks while a context has threads.
#include <dlfcn.h>
#include <eosfm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "bundle.h"
#include "check.h"

namespace {

struct Library {
  void* handle;

  explicit Library(const char* path) : handle(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {}
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() {
    if (handle != nullptr) CHECK(dlclose(handle) == 0);
  }

  template <class F>
  F* find(const char* name) const {
    void* found = handle != nullptr ? dlsym(handle, name) : nullptr;
    CHECK(found != nullptr);
    return reinterpret_cast<F*>(found);
  }
};

// Opens, verifies and closes; `threads` of the context.
bool use(const Library& library, const char* bundle, int threads) {
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = threads;
  double worst[EOSFM_LEVELS];
  bool good =
      library.find<decltype(eosfm_model_open)>("eosfm_model_open")(bundle, nullptr, &model) == EOSFM_OK;
  good = good && library.find<decltype(eosfm_context_create)>("eosfm_context_create")(model, &options,
                                                                                      &context) == EOSFM_OK;
  library.find<decltype(eosfm_model_close)>("eosfm_model_close")(model);
  good = good &&
         library.find<decltype(eosfm_context_verify)>("eosfm_context_verify")(context, worst) == EOSFM_OK;
  library.find<decltype(eosfm_context_destroy)>("eosfm_context_destroy")(context);
  return good;
}

size_t lines_of(const char* path, const char* with) {
  std::ifstream file(path);
  std::string line;
  size_t count = 0;
  while (std::getline(file, line)) count += line.find(with) != std::string::npos ? 1 : 0;
  return count;
}

long value_of(const char* key) {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    long value = 0;
    if (word == key && file >> value) return value;
  }
  return -1;
}

void unloading_leaves_nothing(const char* path, const char* bundle) {
  long before = 0;
  for (int i = 0; i < 60; ++i) {
    {
      const Library library(path);
      CHECK(use(library, bundle, 3));
      CHECK(lines_of("/proc/self/maps", "libeosfm") > 0);
    }
    CHECK(lines_of("/proc/self/maps", "libeosfm") == 0);
    CHECK(lines_of("/proc/self/maps", ".gguf") == 0);
    CHECK(value_of("Threads:") == 1);
    if (i == 20) before = value_of("VmRSS:");
  }
  CHECK(value_of("VmRSS:") - before < 1024);  // kilobytes
}

void a_child_opens_its_own(const char* path, const char* bundle) {
  const Library library(path);
  eosfm_model* model = nullptr;
  eosfm_context* context = nullptr;
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  options.threads = 3;
  CHECK(library.find<decltype(eosfm_model_open)>("eosfm_model_open")(bundle, nullptr, &model) == EOSFM_OK);
  const auto create = library.find<decltype(eosfm_context_create)>("eosfm_context_create");
  CHECK(create(model, &options, &context) == EOSFM_OK);
  const auto verify = library.find<decltype(eosfm_context_verify)>("eosfm_context_verify");
  double worst[EOSFM_LEVELS];
  CHECK(verify(context, worst) == EOSFM_OK);
  const pid_t child = fork();
  if (child == 0) _exit(use(library, bundle, 3) ? 0 : 1);
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(verify(context, worst) == EOSFM_OK);
  library.find<decltype(eosfm_context_destroy)>("eosfm_context_destroy")(context);
  library.find<decltype(eosfm_model_close)>("eosfm_model_close")(model);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  unloading_leaves_nothing(argv[1], argv[2]);
  a_child_opens_its_own(argv[1], argv[2]);
  return report();
}
