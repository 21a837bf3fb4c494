// Damaged and hostile files: test_damaged TINY.eosfm [STEP]. Truncations, flipped bits and replaced
// numbers at every STEPth byte of every file, opened from memory and run if they open.
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "attempt.h"
#include "check.h"

namespace {

// Files with one of them changed.
eosfm_status with_change(const BundleFiles& files, size_t which,
                         const std::function<void(std::vector<char>&)>& change) {
  // A buffer of exactly the size, so that a sanitizer sees the first byte too far.
  std::vector<char> changed = files.contents[which];
  change(changed);
  changed.shrink_to_fit();
  std::vector<eosfm_file> views = files.views();
  views[which].data = changed.data();
  views[which].size = changed.size();
  return attempt(views);
}

void every_truncation_is_refused(const BundleFiles& files, size_t step) {
  for (size_t f = 0; f < files.paths.size(); ++f) {
    // The last bytes may be padding after the last tensor.
    for (size_t size = 0; size + 32 < files.contents[f].size(); size += step) {
      const eosfm_status status = with_change(files, f, [&](auto& bytes) { bytes.resize(size); });
      CHECK(status == EOSFM_BAD_BUNDLE || (size == 0 && status == EOSFM_NOT_FOUND));
    }
  }
}

void changed_bytes_do_no_harm(const BundleFiles& files, size_t step) {
  long opened = 0;
  long refused = 0;
  for (size_t f = 0; f < files.paths.size(); ++f) {
    for (size_t at = 0; at < files.contents[f].size(); at += step) {
      for (unsigned char mask : {0x01, 0x80, 0xff}) {
        const eosfm_status status =
            with_change(files, f, [&](auto& bytes) { bytes[at] = static_cast<char>(bytes[at] ^ mask); });
        ++(status == EOSFM_OK ? opened : refused);
      }
    }
  }
  std::printf("changed bytes: %ld opened, %ld refused\n", opened, refused);
  CHECK(opened > 0 && refused > 0);
}

void hostile_numbers_do_no_harm(const BundleFiles& files, size_t step) {
  const uint64_t numbers[] = {0,
                              1,
                              0x7fffffff,
                              0xffffffff,
                              0x7fffffffffffffff,
                              0xffffffffffffffff,
                              0x8000000000000000,
                              0xffffffff00000000,
                              1ULL << 40,
                              (1ULL << 62) + 1};
  for (size_t f = 0; f < files.paths.size(); ++f) {
    const size_t header = files.contents[f].size() < 8192 ? files.contents[f].size() : 8192;
    for (size_t at = 0; at + 8 <= header; at += step) {
      for (uint64_t number : numbers) {
        with_change(files, f, [&](auto& bytes) { std::memcpy(&bytes[at], &number, 8); });
        with_change(files, f, [&](auto& bytes) { std::memcpy(&bytes[at], &number, 4); });
      }
    }
  }
}

// Replaces a text by another of the same length, which keeps the file's structure.
void named_lies_are_refused(const BundleFiles& files) {
  const auto replaced = [&](const std::string& from, const std::string& to) {
    return with_change(files, 0, [&](auto& bytes) {
      for (size_t at = 0; at + from.size() <= bytes.size(); ++at) {
        if (std::memcmp(&bytes[at], from.data(), from.size()) == 0) {
          std::memcpy(&bytes[at], to.data(), to.size());
        }
      }
    });
  };
  CHECK(replaced("GGUF", "GGML") == EOSFM_BAD_BUNDLE);
  CHECK(replaced("eosfm-chain", "eosfm-chian") == EOSFM_BAD_BUNDLE);
  CHECK(replaced("specialists/", "../../../../") == EOSFM_BAD_BUNDLE);
  CHECK(replaced("specialists/", "/etc/passwd/") == EOSFM_BAD_BUNDLE);
  CHECK(replaced("eosfm.tile", "eosfm.tail") == EOSFM_BAD_BUNDLE);
  CHECK(replaced("known.image", "known.imago") == EOSFM_BAD_BUNDLE);
}

// A file whose tensors all lie on each other: each is within the file, but to look at all of them would
// take time as the square of its size.
void shared_bytes_are_refused() {
  std::vector<char> file;
  const auto add = [&](auto value) {
    const char* bytes = reinterpret_cast<const char*>(&value);
    file.insert(file.end(), bytes, bytes + sizeof value);
  };
  const uint32_t tensors = 8192;
  const uint64_t floats = 1 << 18;
  file = {'G', 'G', 'U', 'F'};
  add(uint32_t{3});
  add(uint64_t{tensors});
  add(uint64_t{0});  // values
  for (uint32_t i = 0; i < tensors; ++i) {
    add(uint64_t{4});  // the name's length
    add(i);
    add(uint32_t{1});  // dimensions
    add(floats);
    add(uint32_t{0});  // F32
    add(uint64_t{0});  // where
  }
  file.resize((file.size() + 31) / 32 * 32 + floats * sizeof(float));
  const eosfm_file chain = {sizeof(eosfm_file), "chain.gguf", file.data(), file.size()};
  char error[256] = "";
  eosfm_open_options options = EOSFM_OPEN_OPTIONS_INIT;
  options.error = error;
  options.error_size = sizeof error;
  eosfm_model* model = nullptr;
  CHECK(eosfm_model_open_memory(&chain, 1, &options, &model) == EOSFM_BAD_BUNDLE);
  CHECK(std::strstr(error, "more bytes than") != nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const size_t step = argc > 2 ? static_cast<size_t>(std::atol(argv[2])) : 1;
  const BundleFiles files(argv[1]);
  CHECK(attempt(files.views()) == EOSFM_OK);
  every_truncation_is_refused(files, step);
  changed_bytes_do_no_harm(files, step);
  hostile_numbers_do_no_harm(files, step);
  named_lies_are_refused(files);
  shared_bytes_are_refused();
  return report();
}
