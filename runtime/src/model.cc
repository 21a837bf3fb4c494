#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/paths.h"
#include "made.h"

namespace eosfm {

FileBytes::~FileBytes() {
  if (mapped_) munmap(const_cast<uint8_t*>(bytes_.data), bytes_.size);
}

eosfm_status FileBytes::map(const char* file_path, ErrorText& error) {
  const int fd = open(file_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return error.fail(EOSFM_NOT_FOUND, "cannot open %s: %s", file_path, error_name(errno));
  }
  struct stat info;
  void* mapped = MAP_FAILED;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) {
    mapped = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
  }
  close(fd);
  if (mapped == MAP_FAILED) {
    return error.fail(EOSFM_NOT_FOUND, "cannot map %s: it is empty, not a file, or there is no "
                      "memory", file_path);
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

}  // namespace eosfm

using namespace eosfm;

eosfm_model::~eosfm_model() {
  for (PackedModel* packed : packed_) unmake(packed);
  pthread_mutex_destroy(&mutex_);
}

eosfm_status eosfm_model::load(FileSource& source, ErrorText& text) {
  const char* wanted = getenv("EOSFM_ISA");
  kernels = choose_kernels(wanted);
  if (kernels == nullptr) {
    return wanted != nullptr && *wanted != '\0'
               ? text.fail(EOSFM_UNSUPPORTED, "EOSFM_ISA is '%s', which this processor or this "
                           "library has not", wanted)
               : text.fail(EOSFM_UNSUPPORTED, "this processor has neither AVX2 with FMA nor NEON");
  }
  eosfm_status status = source.open("chain.gguf", &chain_bytes_, text);
  if (status == EOSFM_OK) status = chain.parse(chain_bytes_.bytes(), "chain.gguf", text);
  if (status != EOSFM_OK) return status;
  const int count = chain.specialists.size();
  if (!specialists.allocate(count) || !specialist_bytes_.allocate(count)) {
    return text.no_memory("the specialists");
  }
  for (int s = 0; s < count; ++s) {
    const char* path = chain.specialists[s].file;
    status = source.open(path, &specialist_bytes_[s], text);
    if (status == EOSFM_OK) {
      status = specialists[s].parse(specialist_bytes_[s].bytes(), path, *kernels, text);
    }
    if (status != EOSFM_OK) return status;
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

eosfm_status eosfm_model::packed(eosfm_precision precision, const PackedModel** result,
                                 ErrorText& text) {
  const bool bf16 = precision == EOSFM_BF16;
  pthread_mutex_lock(&mutex_);
  PackedModel*& kept = packed_[bf16 ? 1 : 0];
  eosfm_status status = EOSFM_OK;
  if (kept == nullptr) {
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
