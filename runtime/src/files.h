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

  // Maps an open file, which the caller closes; with an allocator, copies it instead. `name` is for messages.
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

// The source of a bundle's files. Files can be opened as long as the bundle is, all from the directory that was first
// opened, even if another has taken its name since.
class BundleFiles {
 public:
  BundleFiles() = default;
  BundleFiles(const BundleFiles&) = delete;
  BundleFiles& operator=(const BundleFiles&) = delete;
  ~BundleFiles();

  // Makes later opens copy files instead of mapping them.
  void copy() { copied_ = true; }
  eosfm_status set_directory(const eosfm_allocator& allocator, const char* path, ErrorText& error);
  eosfm_status set_memory(const eosfm_allocator& allocator, const eosfm_file* files, size_t count,
                          ErrorText& error);

  // Opens a file by its path in the bundle.
  eosfm_status open(const char* path, FileBytes* file, ErrorText& error) const;
  // Returns the bundle's directory; null if its files are in memory.
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
