// A bundle's files: in a directory, or in the caller's memory.
#ifndef EOSFM_FILES_H
#define EOSFM_FILES_H

#include "gguf.h"
#include "memory.h"
#include "status.h"

namespace eosfm {

// A file's bytes: mapped, copied, or the caller's.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;
  ~FileBytes();

  // Of an open file, which stays the caller's to close. `name` is for messages; with an allocator, the file is
  // copied.
  eosfm_status take(int file, const char* name, const eosfm_allocator* allocator, ErrorText& error);
  void borrow(const void* data, size_t size);
  // Gives the pages of a mapped file back, after a pass over it; they are read again when needed.
  void give_back_pages();
  Bytes bytes() const { return bytes_; }
  char path[1024] = "";

 private:
  enum class Kind { borrowed, mapped, copied };

  Bytes bytes_;
  Kind kind_ = Kind::borrowed;
  const eosfm_allocator* allocator_ = nullptr;  // of a copy
};

// Where a bundle's files come from. They may be opened as long as the bundle is, all of the same directory:
// one that takes its place under its name is another bundle.
class BundleFiles {
 public:
  BundleFiles() = default;
  BundleFiles(const BundleFiles&) = delete;
  BundleFiles& operator=(const BundleFiles&) = delete;
  ~BundleFiles();

  // Has files copied instead of mapped.
  void copy() { copied_ = true; }
  eosfm_status set_directory(const eosfm_allocator& allocator, const char* path, ErrorText& error);
  eosfm_status set_memory(const eosfm_allocator& allocator, const eosfm_file* files, size_t count,
                          ErrorText& error);

  // `path` is relative, in the bundle.
  eosfm_status open(const char* path, FileBytes* file, ErrorText& error) const;
  // Null if they are in memory.
  const char* directory() const { return directory_[0] != '\0' ? directory_ : nullptr; }

 private:
  struct InMemory {
    char path[160];
    const void* data;
    size_t size;
  };

  char directory_[1024] = "";
  int folder_ = -1;
  bool copied_ = false;
  const eosfm_allocator* allocator_ = nullptr;
  Array<InMemory> memory_;
};

}  // namespace eosfm

#endif
