// A bundle that is open: its files, what they say, and the weights as the kernels want them.
#ifndef EOSFM_MODEL_H
#define EOSFM_MODEL_H

#include <pthread.h>

#include <atomic>

#include "chain.h"
#include "files.h"
#include "kernels/kernels.h"
#include "specialist.h"
#include "status.h"

namespace eosfm {

// The weights for one precision, shared by the contexts that want it.
struct PackedModel {
  Array<NetworkWeights> networks;  // one for each specialist
  ChainWeights chain;
  size_t bytes = 0;
};

}  // namespace eosfm

struct eosfm_model {
  eosfm::BundleFiles files;
  eosfm::Chain chain;
  eosfm::Array<eosfm::Specialist> specialists;
  const eosfm::Kernels* kernels = nullptr;
  eosfm_log_fn log = nullptr;
  void* log_user = nullptr;
  eosfm::ErrorText error;
  size_t memory_limit = 0;  // bytes of weights, contexts and streams together; 0: none

  eosfm_model() = default;
  eosfm_model(const eosfm_model&) = delete;
  eosfm_model& operator=(const eosfm_model&) = delete;
  ~eosfm_model();

  // Reads the bundle whose files are set, for an instruction set.
  eosfm_status load(const eosfm::Kernels& for_kernels, eosfm::ErrorText& text);

  // The shapes for one precision, without memory.
  eosfm_status shape(eosfm_precision precision, eosfm::PackedModel* packed,
                     eosfm::ErrorText& text) const;
  // The weights for one precision; packed when they are first asked for.
  eosfm_status packed(eosfm_precision precision, const eosfm::PackedModel** packed,
                      eosfm::ErrorText& text);
  // Takes bytes off the limit, or says that they would be more. `what` needs them.
  eosfm_status reserve(size_t bytes, const char* what, eosfm::ErrorText& text);
  void give_back(size_t bytes) { memory_.fetch_sub(bytes, std::memory_order_relaxed); }
  size_t memory_bytes() const { return memory_.load(std::memory_order_relaxed); }
  size_t mapped_bytes() const;

  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  // Returns whether that was the last reference.
  bool release() { return references_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

  // Keeps a sentence for eosfm_model_get_error.
  eosfm_status keep(eosfm_status status, const eosfm::ErrorText& text);

 private:
  eosfm::FileBytes chain_bytes_;
  eosfm::Array<eosfm::FileBytes> specialist_bytes_;
  int widths_[eosfm::kMostSpecialists][eosfm::kLevels] = {};
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  eosfm::PackedModel* packed_[2] = {nullptr, nullptr};
  std::atomic<int> references_{1};
  std::atomic<size_t> memory_{0};  // reserved
};

#endif
