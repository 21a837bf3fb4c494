#include "model.h"

#include <string.h>

using namespace eosfm;

eosfm_model::~eosfm_model() {
  for (PackedModel* packed : packed_) eosfm::unmake(memory.allocator(), packed);
  pthread_mutex_destroy(&mutex_);
}

eosfm_status eosfm_model::make(const eosfm_allocator* allocator, size_t limit, eosfm_model** result,
                               ErrorText& text) {
  constexpr size_t kBytes = bytes_of<eosfm_model>();
  Memory first;
  first.set(allocator, limit);
  void* place = take(first.allocator(), kBytes);
  if (place == nullptr) {
    const eosfm_status status = first.check_room(kBytes, "the model", text);
    return status != EOSFM_OK ? status : text.no_memory("the model");
  }
  if (reinterpret_cast<uintptr_t>(place) % kAlignment != 0) {
    give_back(first.allocator(), place, kBytes);
    return text.fail(EOSFM_BAD_ARGUMENT,
                     "the allocator gives memory at %p, expected a multiple of the alignment "
                     "that it is given, %zu",
                     place, kAlignment);
  }
  *result = new (place) eosfm_model();
  (*result)->memory.set(allocator, limit);
  (*result)->memory.reserve(kBytes);
  return EOSFM_OK;
}

void eosfm_model::unmake(eosfm_model* model) {
  const eosfm_allocator given = model->memory.given();
  model->~eosfm_model();
  give_back(given, model, bytes_of<eosfm_model>());
}

eosfm_status eosfm_model::load(const Kernels& for_kernels, ErrorText& text) {
  kernels = &for_kernels;
  eosfm_status status = files.open("chain.gguf", &chain_bytes_, text);
  if (status == EOSFM_OK) status = chain.parse(memory.allocator(), chain_bytes_.bytes(), "chain.gguf", text);
  if (status != EOSFM_OK) return status;
  const int count = chain.specialists.size();
  if (!specialists.allocate(memory.allocator(), count) ||
      !specialist_bytes_.allocate(memory.allocator(), count)) {
    return text.no_memory("the specialists");
  }
  for (int s = 0; s < count; ++s) {
    const char* path = chain.specialists[s].file;
    status = files.open(path, &specialist_bytes_[s], text);
    if (status == EOSFM_NOT_FOUND && chain.graphs.size() > 0) {
      no_weights_ = text;
      return EOSFM_OK;
    }
    if (status == EOSFM_OK) {
      status = specialists[s].parse(memory.allocator(), specialist_bytes_[s].bytes(), path, *kernels, text);
    }
    if (status != EOSFM_OK) return status;
    const char* digest = chain.specialists[s].digest;
    if (*digest != '\0' && strcmp(digest, specialists[s].digest) != 0) {
      return text.fail(EOSFM_BAD_BUNDLE,
                       "%s is of another export than chain.gguf: its tensors are %.12s..., "
                       "expected %.12s...",
                       path, specialists[s].digest, digest);
    }
    memcpy(widths_[s], specialists[s].widths, sizeof widths_[s]);
  }
  for (const Run& run : chain.runs) {
    if (run.bands != specialists[run.specialist].bands) {
      return text.fail(EOSFM_BAD_BUNDLE, "a run of %s has %d bands, expected the specialist's %d",
                       chain.specialists[run.specialist].name, run.bands, specialists[run.specialist].bands);
    }
  }
  status = chain.check(widths_, text);
  if (status != EOSFM_OK) return status;
  PackedModel shapes;  // checks the chain's tensors too
  return shape(EOSFM_AS_STORED, &shapes, text);
}

eosfm_status eosfm_model::shape(eosfm_precision precision, PackedModel* packed, ErrorText& text) const {
  if (!has_weights()) {
    return text.with_code(
        no_weights_.code,
        text.fail(EOSFM_NOT_FOUND,
                  "%.380s; native and cuda compute from the specialists' files, others from the ONNX graphs",
                  no_weights_.text));
  }
  const bool bf16 = precision == EOSFM_BF16;
  if (!packed->networks.allocate(memory.allocator(), specialists.size())) {
    return text.no_memory("the specialists");
  }
  packed->bytes += bytes_of<PackedModel>() + bytes_of<NetworkWeights>(specialists.size());
  for (int s = 0; s < specialists.size(); ++s) {
    const eosfm_status status =
        specialists[s].shape(*kernels, bf16, &packed->networks[s], &packed->bytes, text);
    if (status != EOSFM_OK) return status;
  }
  return packed->chain.shape(chain, widths_, *kernels, bf16, &packed->bytes, text);
}

eosfm_status eosfm_model::packed(eosfm_precision precision, const PackedModel** result, ErrorText& text) {
  const bool bf16 = precision == EOSFM_BF16;
  pthread_mutex_lock(&mutex_);
  PackedModel*& kept = packed_[bf16 ? 1 : 0];
  eosfm_status status = EOSFM_OK;
  if (kept == nullptr) {
    PackedModel* fresh = eosfm::make<PackedModel>(memory.allocator());
    if (fresh == nullptr || !fresh->networks.allocate(memory.allocator(), specialists.size())) {
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
      eosfm::unmake(memory.allocator(), fresh);
    }
  }
  *result = kept;
  pthread_mutex_unlock(&mutex_);
  return status;
}

eosfm_status eosfm_model::check_room(eosfm_precision precision, size_t weights, size_t context,
                                     ErrorText& text) {
  pthread_mutex_lock(&mutex_);
  const bool is_packed = packed_[precision == EOSFM_BF16 ? 1 : 0] != nullptr;
  pthread_mutex_unlock(&mutex_);
  return memory.check_room(context + (is_packed ? 0 : weights), "a context with its weights", text);
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
