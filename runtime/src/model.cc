#include "model.h"

#include <string.h>

#include "made.h"

using namespace eosfm;

eosfm_model::~eosfm_model() {
  for (PackedModel* packed : packed_) unmake(packed);
  pthread_mutex_destroy(&mutex_);
}

eosfm_status eosfm_model::load(const Kernels& for_kernels, ErrorText& text) {
  kernels = &for_kernels;
  eosfm_status status = files.open("chain.gguf", &chain_bytes_, text);
  if (status == EOSFM_OK) status = chain.parse(chain_bytes_.bytes(), "chain.gguf", text);
  if (status != EOSFM_OK) return status;
  const int count = chain.specialists.size();
  if (!specialists.allocate(count) || !specialist_bytes_.allocate(count)) {
    return text.no_memory("the specialists");
  }
  for (int s = 0; s < count; ++s) {
    const char* path = chain.specialists[s].file;
    status = files.open(path, &specialist_bytes_[s], text);
    if (status == EOSFM_OK) {
      status = specialists[s].parse(specialist_bytes_[s].bytes(), path, *kernels, text);
    }
    if (status != EOSFM_OK) return status;
    const char* digest = chain.specialists[s].digest;
    if (*digest != '\0' && strcmp(digest, specialists[s].digest) != 0) {
      return text.fail(EOSFM_BAD_BUNDLE, "%s is of another export than chain.gguf: its tensors are %.12s..., "
                       "expected %.12s...", path, specialists[s].digest, digest);
    }
    memcpy(widths_[s], specialists[s].widths, sizeof widths_[s]);
  }
  for (const Run& run : chain.runs) {
    if (run.bands != specialists[run.specialist].bands) {
      return text.fail(EOSFM_BAD_BUNDLE, "a run of %s has %d bands, expected the specialist's %d",
                       chain.specialists[run.specialist].name, run.bands,
                       specialists[run.specialist].bands);
    }
  }
  status = chain.check(widths_, text);
  if (status != EOSFM_OK) return status;
  PackedModel shapes;  // checks the chain's tensors too
  return shape(EOSFM_AS_STORED, &shapes, text);
}

eosfm_status eosfm_model::shape(eosfm_precision precision, PackedModel* packed,
                                ErrorText& text) const {
  const bool bf16 = precision == EOSFM_BF16;
  if (!packed->networks.allocate(specialists.size())) return text.no_memory("the specialists");
  for (int s = 0; s < specialists.size(); ++s) {
    const eosfm_status status =
        specialists[s].shape(*kernels, bf16, &packed->networks[s], &packed->bytes, text);
    if (status != EOSFM_OK) return status;
  }
  return packed->chain.shape(chain, widths_, *kernels, bf16, &packed->bytes, text);
}

eosfm_status eosfm_model::reserve(size_t bytes, const char* what, ErrorText& text) {
  size_t taken = memory_.load(std::memory_order_relaxed);
  do {
    if (memory_limit != 0 && (taken > memory_limit || bytes > memory_limit - taken)) {
      return text.fail(EOSFM_NO_MEMORY, "%s needs %zu bytes, and the model's weights, contexts and streams have "
                       "%zu of the %zu that it was opened with as memory_limit", what, bytes, taken,
                       memory_limit);
    }
  } while (!memory_.compare_exchange_weak(taken, taken + bytes, std::memory_order_relaxed));
  return EOSFM_OK;
}

eosfm_status eosfm_model::packed(eosfm_precision precision, const PackedModel** result,
                                 ErrorText& text) {
  const bool bf16 = precision == EOSFM_BF16;
  pthread_mutex_lock(&mutex_);
  PackedModel*& kept = packed_[bf16 ? 1 : 0];
  PackedModel shapes;
  eosfm_status status = kept == nullptr ? shape(precision, &shapes, text) : EOSFM_OK;
  if (kept == nullptr && status == EOSFM_OK) status = reserve(shapes.bytes, "a set of weights", text);
  if (kept == nullptr && status == EOSFM_OK) {
    PackedModel* fresh = make<PackedModel>();
    if (fresh == nullptr || !fresh->networks.allocate(specialists.size())) {
      status = text.no_memory("the weights");
    }
    for (int s = 0; status == EOSFM_OK && s < specialists.size(); ++s) {
      status = specialists[s].pack(*kernels, bf16, &fresh->networks[s], text);
      specialist_bytes_[s].give_back_pages();
    }
    if (status == EOSFM_OK) status = fresh->chain.pack(chain, widths_, *kernels, bf16, text);
    if (status == EOSFM_OK) {
      kept = fresh;
    } else {
      unmake(fresh);
      give_back(shapes.bytes);
    }
  }
  *result = kept;
  pthread_mutex_unlock(&mutex_);
  return status;
}

size_t eosfm_model::mapped_bytes() const {
  size_t total = chain_bytes_.bytes().size;
  for (const FileBytes& file : specialist_bytes_) total += file.bytes().size;
  return total;
}

eosfm_status eosfm_model::keep(eosfm_status status, const ErrorText& text) {
  if (status == EOSFM_OK) return status;
  pthread_mutex_lock(&mutex_);
  error = text;
  pthread_mutex_unlock(&mutex_);
  if (log != nullptr) log(log_user, EOSFM_LOG_WARNING, text.text);
  return status;
}
