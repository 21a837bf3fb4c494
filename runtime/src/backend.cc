#include "backend.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine_names.h"

namespace eosfm {
namespace {

// Finds the file of this library. The loader's name for it is no use: it may be relative to a directory that the
// process has left, and for a program it is whatever argv[0] says.
bool find_own_file(char* path, size_t size) {
  const auto address = reinterpret_cast<uintptr_t>(&eosfm_library_get_version);
  const int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  bool found = false;
  char text[2 * PATH_MAX];
  size_t held = 0;  // bytes of the text, from the start of a line
  while (maps >= 0 && !found) {
    const ssize_t count = read(maps, text + held, sizeof text - 1 - held);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    held += static_cast<size_t>(count);
    text[held] = '\0';
    char* line = text;
    for (char* end; !found && (end = strchr(line, '\n')) != nullptr; line = end + 1) {
      *end = '\0';
      unsigned long first = 0;
      unsigned long after = 0;
      const char* name = strchr(line, '/');
      if (name == nullptr || sscanf(line, "%lx-%lx", &first, &after) != 2) continue;
      found = address >= first && address < after;
      if (found && strlen(name) < size) memcpy(path, name, strlen(name) + 1);
    }
    held -= static_cast<size_t>(line - text);
    memmove(text, line, held);
  }
  if (maps >= 0) close(maps);
  return found;
}

// Finds a file beside this library, if it is there.
bool find_beside(const char* file, char* path, size_t size) {
  char own[PATH_MAX] = "";
  if (!find_own_file(own, sizeof own)) return false;
  const char* slash = strrchr(own, '/');
  if (slash == nullptr) return false;
  const int length = snprintf(path, size, "%.*s/%s", static_cast<int>(slash - own), own, file);
  return length > 0 && static_cast<size_t>(length) < size && access(path, R_OK) == 0;
}

}  // namespace

eosfm_status load_backend(const char* name, const eosfm_backend** result, ErrorText& error) {
  char file[kMostEngineName + 32];
  const int length = static_cast<int>(strcspn(name, "-"));
  snprintf(file, sizeof file, "libeosfm_%.*s.so", length, name);
  char beside[1024];
  const bool is_beside = find_beside(file, beside, sizeof beside);
  void* object = dlopen(is_beside ? beside : file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (object == nullptr) {
    const char* reason = dlerror();
    return error.fail(EOSFM_NOT_FOUND, "%s, %s beside libeosfm, cannot be loaded: %s", file,
                      is_beside ? "which lies" : "which does not lie", reason != nullptr ? reason : "");
  }
  *result = static_cast<const eosfm_backend*>(dlsym(object, EOSFM_BACKEND_SYMBOL));
  dlclose(object);
  if (*result != nullptr) return EOSFM_OK;
  return error.fail(EOSFM_UNSUPPORTED,
                    "%s is for another version of libeosfm: it has no " EOSFM_BACKEND_SYMBOL, file);
}

namespace {

// The request to a backend, and the files that it reads.
struct Request {
  eosfm_backend_request request = {};
  Array<FileBytes> opened;
  Array<eosfm_file> files;

  eosfm_status set(const char* name, const eosfm_backend& backend, const eosfm_model& model, int batch,
                   ErrorText& error) {
    const Chain& chain = model.chain;
    const bool reads_weights = backend.reads == EOSFM_BACKEND_READS_WEIGHTS;
    const int count = reads_weights ? chain.specialists.size() + 1 : chain.graphs.size();
    if (count == 0) {
      return error.fail(EOSFM_UNSUPPORTED,
                        "the bundle has no ONNX graph, from which it computes: export it --for all");
    }
    const eosfm_allocator& allocator = model.memory.allocator();
    if (!opened.allocate(allocator, count) || !files.allocate(allocator, count)) {
      return error.no_memory("the bundle's files");
    }
    request.allocator = &allocator;
    for (int i = 0; i < count; ++i) {
      const char* path = !reads_weights ? chain.graphs[i].file
                         : i == 0       ? "chain.gguf"
                                        : chain.specialists[i - 1].file;
      const eosfm_status status = model.files.open(path, &opened[i], error);
      if (status != EOSFM_OK) return status;
      const Bytes bytes = opened[i].bytes();
      files[i] = {sizeof(eosfm_file), path, bytes.data, bytes.size};
    }
    request.name = name;
    (reads_weights ? request.files : request.graphs) = files.begin();
    (reads_weights ? request.file_count : request.graph_count) = static_cast<size_t>(count);
    request.directory = model.files.directory();
    request.bands = chain.bands.size();
    request.tile = chain.tile;
    request.batch = batch;
    memcpy(request.channels, chain.level_channels, sizeof request.channels);
    request.error = error.text;
    request.error_size = sizeof error.text;
    return EOSFM_OK;
  }
};

}  // namespace

Backend::~Backend() {
  if (loaded_ != nullptr) loaded_->close(batches_.batch > 0 ? batches_.user : engine_.user);
  if (reserved_ > 0) memory_->release(reserved_);
}

bool Backend::reserve(size_t bytes) {
  if (limit_ != 0 && (reserved_ > limit_ || bytes > limit_ - reserved_)) return false;
  if (!memory_->reserve(bytes)) return false;
  reserved_ += bytes;
  return true;
}

eosfm_status Backend::open(const char* name, eosfm_model& model, const Settings& settings, ErrorText& error) {
  const Chain& chain = model.chain;
  const eosfm_backend* loaded = nullptr;
  eosfm_status status = load_backend(name, &loaded, error);
  if (status != EOSFM_OK) return status;
  Request wanted;
  status = wanted.set(name, *loaded, model, settings.batch, error);
  if (status != EOSFM_OK) return status;
  memory_ = &model.memory;
  limit_ = settings.memory_limit;
  const bool reads_weights = loaded->reads == EOSFM_BACKEND_READS_WEIGHTS;
  memcpy(tolerance_, reads_weights ? chain.tolerance : chain.graph_tolerance, sizeof tolerance_);
  wanted.request.library = settings.backend_library;
  wanted.request.threads = settings.threads;
  wanted.request.reserve = [](void* user, size_t bytes) {
    return static_cast<Backend*>(user)->reserve(bytes) ? 0 : 1;
  };
  wanted.request.reserve_user = this;
  wanted.request.tolerance = tolerance_;
  status = loaded->open(&wanted.request, &engine_, &batches_);
  if (status == EOSFM_OK) loaded_ = loaded;
  return status;
}

eosfm_status Backend::measure(const char* name, const eosfm_model& model, int batch,
                              eosfm_backend_memory* memory, ErrorText& error) {
  const eosfm_backend* loaded = nullptr;
  eosfm_status status = load_backend(name, &loaded, error);
  if (status != EOSFM_OK || loaded->measure == nullptr) return status;
  Request wanted;
  status = wanted.set(name, *loaded, model, batch, error);
  return status == EOSFM_OK ? loaded->measure(&wanted.request, memory) : status;
}

}  // namespace eosfm
