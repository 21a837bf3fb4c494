// A bundle that is open: its files, what they say, and the weights as the kernels want them.
#ifndef EOSFM_MODEL_H
#define EOSFM_MODEL_H

#include <pthread.h>

#include <atomic>

#include "chain.h"
#include "kernels/kernels.h"
#include "specialist.h"
#include "status.h"

namespace eosfm {

// A file's bytes: mapped, or the caller's.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;
  ~FileBytes();

  eosfm_status map(const char* path, ErrorText& error);
  void borrow(const void* data, size_t size);
  // Gives the pages of a mapped file back, after a pass over it; they are read again when needed.
  void give_back_pages();
  Bytes bytes() const { return bytes_; }
  char path[1024] = "";

 private:
  Bytes bytes_;
  bool mapped_ = false;
};

// The weights for one precision, shared by the contexts that want it.
struct PackedModel {
  Array<NetworkWeights> networks;  // one for each specialist
  ChainWeights chain;
  size_t bytes = 0;
};

// Where a bundle's files come from.
class FileSource {
 public:
  virtual eosfm_status open(const char* path, FileBytes* file, ErrorText& error) = 0;

 protected:
  ~FileSource() = default;
};

}  // namespace eosfm

struct eosfm_model {
  eosfm::Chain chain;
  eosfm::Array<eosfm::Specialist> specialists;
  const eosfm::Kernels* kernels = nullptr;
  eosfm_log_fn log = nullptr;
  void* log_user = nullptr;
  eosfm::ErrorText error;

  eosfm_model() = default;
  eosfm_model(const eosfm_model&) = delete;
  eosfm_model& operator=(const eosfm_model&) = delete;
  ~eosfm_model();

  eosfm_status load(eosfm::FileSource& source, eosfm::ErrorText& text);

  // The shapes for one precision, without memory.
  eosfm_status shape(eosfm_precision precision, eosfm::PackedModel* packed,
                     eosfm::ErrorText& text) const;
  // The weights for one precision; packed when they are first asked for.
  eosfm_status packed(eosfm_precision precision, const eosfm::PackedModel** packed,
                      eosfm::ErrorText& text);
  size_t mapped_bytes() const;

  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  // Returns whether that was the last reference.
  bool release() { return references_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

  // Keeps a sentence for eosfm_model_error.
  eosfm_status keep(eosfm_status status, const eosfm::ErrorText& text);

 private:
  eosfm::FileBytes chain_bytes_;
  eosfm::Array<eosfm::FileBytes> specialist_bytes_;
  int widths_[eosfm::kMostSpecialists][eosfm::kLevels] = {};
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  eosfm::PackedModel* packed_[2] = {nullptr, nullptr};
  std::atomic<int> references_{1};
};

#endif
