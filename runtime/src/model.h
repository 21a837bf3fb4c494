// An open bundle: its files, their content, and the weights as the kernels read them.
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

// The weights for one precision, which contexts share.
struct PackedModel {
  Array<NetworkWeights> networks;  // one for each specialist
  ChainWeights chain;
  size_t bytes = 0;
};

}  // namespace eosfm

struct eosfm_model {
  eosfm::Memory memory;  // of all that follows, of the contexts and of their streams
  eosfm::BundleFiles files;
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

  // Makes a model in the allocator's memory, of which null is malloc. A limit of 0 is none.
  static eosfm_status make(const eosfm_allocator* allocator, size_t limit, eosfm_model** result,
                           eosfm::ErrorText& text);
  static void unmake(eosfm_model* model);

  // Reads the bundle whose files are set, for an instruction set. Specialists whose files cannot be had are no
  // failure where the chain names graphs, from which others compute.
  eosfm_status load(const eosfm::Kernels& for_kernels, eosfm::ErrorText& text);
  // Returns whether the specialists' files were read.
  bool has_weights() const { return no_weights_.text[0] == '\0'; }

  // Finds the shapes for one precision, without memory. Fails without the specialists' files.
  eosfm_status shape(eosfm_precision precision, eosfm::PackedModel* packed, eosfm::ErrorText& text) const;
  // Finds the weights for one precision, and packs them the first time.
  eosfm_status packed(eosfm_precision precision, const eosfm::PackedModel** packed, eosfm::ErrorText& text);
  // Checks that the limit leaves room for a context's bytes, and for the weights if they are yet to be packed.
  eosfm_status check_room(eosfm_precision precision, size_t weights, size_t context, eosfm::ErrorText& text);
  size_t mapped_bytes() const;

  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  // Drops a reference, and the model with the last of them.
  static void drop(eosfm_model* model) {
    if (model->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) unmake(model);
  }

  // Keeps a sentence for eosfm_model_get_error.
  eosfm_status keep(eosfm_status status, const eosfm::ErrorText& text);

 private:
  eosfm::FileBytes chain_bytes_;
  eosfm::Array<eosfm::FileBytes> specialist_bytes_;
  eosfm::ErrorText no_weights_;  // why the specialists' files were not read; empty: they were
  int widths_[eosfm::kMostSpecialists][eosfm::kLevels] = {};
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  eosfm::PackedModel* packed_[2] = {nullptr, nullptr};
  std::atomic<int> references_{1};
};

#endif
