#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "structs.h"

namespace eosfm {

namespace {

constexpr char kLink[] = "%s is a link, expected a file: a bundle holds no links";

// Opens a file of the folder, following no link on the way, so that the path cannot leave the folder. On failure
// returns a negative number and sets errno.
int open_inside(int folder, const char* path) {
  int at = folder;
  for (const char* slash; (slash = strchr(path, '/')) != nullptr; path = slash + 1) {
    char part[256];
    const size_t length = static_cast<size_t>(slash - path);
    if (length >= sizeof part) errno = ENAMETOOLONG;
    int next = -1;
    if (length < sizeof part) {
      memcpy(part, path, length);
      part[length] = '\0';
      next = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (at != folder) close(at);
    if (next < 0) return -1;
    at = next;
  }
  // Without O_NONBLOCK the opening of a FIFO waits for a writer.
  const int file = openat(at, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  const int reason = errno;
  if (at != folder) close(at);
  errno = reason;
  return file;
}

// Reads a file's content; returns whether the file had `size` bytes.
bool read_all(int file, char* to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t count = read(file, to + done, size - done);
    if (count > 0) {
      done += static_cast<size_t>(count);
    } else if (count == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace

FileBytes::~FileBytes() {
  void* memory = const_cast<uint8_t*>(bytes_.data);
  if (kind_ == Kind::mapped) munmap(memory, bytes_.size);
  if (kind_ == Kind::copied) give_back(*allocator_, memory, bytes_.size);
}

eosfm_status FileBytes::take(int file, const char* name, const eosfm_allocator* allocator, ErrorText& error) {
  struct stat info = {};
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s is a FIFO, a folder or a device, expected a file", name);
  }
  const size_t size = static_cast<size_t>(info.st_size);
  if (size == 0) return error.fail(EOSFM_NOT_FOUND, "%s is empty", name);
  if (allocator != nullptr) {
    void* memory = eosfm::take(*allocator, size);
    if (memory == nullptr) return error.no_memory(name);
    allocator_ = allocator;
    kind_ = Kind::copied;
    bytes_ = {static_cast<const uint8_t*>(memory), size};
    if (read_all(file, static_cast<char*>(memory), size)) return EOSFM_OK;
    return error.with_code(errno, error.fail(EOSFM_NOT_FOUND, "cannot read %s: %s", name, error_name(errno)));
  }
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  if (memory == MAP_FAILED) {
    return error.with_code(errno, error.fail(EOSFM_NOT_FOUND, "cannot map %s: %s", name, error_name(errno)));
  }
  bytes_ = {static_cast<const uint8_t*>(memory), size};
  kind_ = Kind::mapped;
  return EOSFM_OK;
}

void FileBytes::borrow(const void* data, size_t size) { bytes_ = {static_cast<const uint8_t*>(data), size}; }

void FileBytes::give_back_pages() {
  if (kind_ == Kind::mapped) madvise(const_cast<uint8_t*>(bytes_.data), bytes_.size, MADV_DONTNEED);
}

BundleFiles::~BundleFiles() {
  if (folder_ >= 0) close(folder_);
}

eosfm_status BundleFiles::set_directory(const eosfm_allocator& allocator, const char* path,
                                        ErrorText& error) {
  allocator_ = &allocator;
  // Graphs are opened later, when the working directory may be another.
  char absolute[PATH_MAX];
  const char* known = realpath(path, absolute) != nullptr ? absolute : path;
  const size_t length = strlen(known);
  if (length == 0 || length >= sizeof directory_) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the path of the bundle is empty or too long: %.100s", path);
  }
  memcpy(directory_, known, length + 1);
  folder_ = ::open(known, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder_ < 0) {
    const int reason = errno;
    return error.with_code(
        reason, error.fail(EOSFM_NOT_FOUND, "cannot open the bundle %s: %s", known, error_name(reason)));
  }
  return EOSFM_OK;
}

eosfm_status BundleFiles::set_memory(const eosfm_allocator& allocator, const eosfm_file* files, size_t count,
                                     ErrorText& error) {
  allocator_ = &allocator;
  const eosfm_status status = count > 0 ? check_structs(files, count, error) : EOSFM_OK;
  if (status != EOSFM_OK) return status;
  if (count > INT_MAX || !memory_.allocate(allocator, static_cast<int>(count))) {
    return error.no_memory("the files' names");
  }
  for (size_t i = 0; i < count; ++i) {
    InMemory& file = memory_[static_cast<int>(i)];
    const eosfm_file given = read_struct_at(files, i);
    const char* path = given.path;
    // Names that are longer are not those of any file that a chain can name.
    if (path == nullptr || strlen(path) >= sizeof file.path) continue;
    memcpy(file.path, path, strlen(path) + 1);
    file.data = given.data;
    file.size = given.size;
  }
  return EOSFM_OK;
}

eosfm_status BundleFiles::open(const char* path, FileBytes* file, ErrorText& error) const {
  if (folder_ >= 0) {
    const int length = snprintf(file->path, sizeof file->path, "%s/%s", directory_, path);
    if (length < 0 || static_cast<size_t>(length) >= sizeof file->path) {
      return error.fail(EOSFM_BAD_ARGUMENT, "the path of the bundle is too long: %.100s...", directory_);
    }
    const int opened = open_inside(folder_, path);
    if (opened < 0) {
      const int reason = errno;
      return error.with_code(reason, reason == ELOOP ? error.fail(EOSFM_BAD_BUNDLE, kLink, file->path)
                                                     : error.fail(EOSFM_NOT_FOUND, "cannot open %s: %s",
                                                                  file->path, error_name(reason)));
    }
    const eosfm_status status = file->take(opened, file->path, copied_ ? allocator_ : nullptr, error);
    close(opened);
    return status;
  }
  for (const InMemory& one : memory_) {
    if (one.data != nullptr && strcmp(one.path, path) == 0) {
      file->borrow(one.data, one.size);
      return EOSFM_OK;
    }
  }
  return error.fail(EOSFM_NOT_FOUND, "%s is not among the %d files in memory", path, memory_.size());
}

}  // namespace eosfm
