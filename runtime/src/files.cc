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

namespace eosfm {

FileBytes::~FileBytes() {
  if (mapped_) munmap(const_cast<uint8_t*>(bytes_.data), bytes_.size);
}

eosfm_status FileBytes::map(const char* file_path, ErrorText& error) {
  // Without O_NONBLOCK the opening of a FIFO waits for a writer.
  const int fd = open(file_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    return errno == ELOOP
               ? error.fail(EOSFM_BAD_BUNDLE, "%s is a link, expected a file: a bundle holds no links",
                            file_path)
               : error.fail(EOSFM_NOT_FOUND, "cannot open %s: %s", file_path, error_name(errno));
  }
  struct stat info = {};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  void* mapped = MAP_FAILED;
  if (regular && info.st_size > 0) {
    mapped = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
  }
  close(fd);
  if (!regular) {
    return error.fail(EOSFM_BAD_BUNDLE, "%s is a FIFO, a folder or a device, expected a file", file_path);
  }
  if (mapped == MAP_FAILED) {
    return error.fail(EOSFM_NOT_FOUND, "cannot map %s: it is empty, or there is no memory", file_path);
  }
  bytes_ = {static_cast<const uint8_t*>(mapped), static_cast<size_t>(info.st_size)};
  mapped_ = true;
  return EOSFM_OK;
}

void FileBytes::borrow(const void* data, size_t size) {
  bytes_ = {static_cast<const uint8_t*>(data), size};
}

void FileBytes::give_back_pages() {
  if (mapped_) madvise(const_cast<uint8_t*>(bytes_.data), bytes_.size, MADV_DONTNEED);
}

eosfm_status BundleFiles::set_directory(const char* path, ErrorText& error) {
  // Graphs are opened later, when the process may be elsewhere.
  char absolute[PATH_MAX];
  const char* known = realpath(path, absolute) != nullptr ? absolute : path;
  const size_t length = strlen(known);
  if (length == 0 || length >= sizeof directory_) {
    return error.fail(EOSFM_BAD_ARGUMENT, "the path of the bundle is empty or too long: %.100s", path);
  }
  memcpy(directory_, known, length + 1);
  return EOSFM_OK;
}

eosfm_status BundleFiles::set_memory(const eosfm_file* files, size_t count, ErrorText& error) {
  if (count > INT_MAX || !memory_.allocate(static_cast<int>(count))) {
    return error.no_memory("the files' names");
  }
  for (size_t i = 0; i < count; ++i) {
    InMemory& file = memory_[static_cast<int>(i)];
    const char* path = files[i].path;
    // Names that are longer are not those of any file that a chain can name.
    if (path == nullptr || strlen(path) >= sizeof file.path) continue;
    memcpy(file.path, path, strlen(path) + 1);
    file.data = files[i].data;
    file.size = files[i].size;
  }
  return EOSFM_OK;
}

eosfm_status BundleFiles::open(const char* path, FileBytes* file, ErrorText& error) const {
  if (directory_[0] != '\0') {
    const int length = snprintf(file->path, sizeof file->path, "%s/%s", directory_, path);
    if (length < 0 || static_cast<size_t>(length) >= sizeof file->path) {
      return error.fail(EOSFM_BAD_ARGUMENT, "the path of the bundle is too long: %.100s...",
                        directory_);
    }
    return file->map(file->path, error);
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
