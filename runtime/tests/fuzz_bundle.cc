// A libFuzzer target for the reader of bundles, and what runs on what it has read. An input is four bytes
// with the size of chain.gguf, that file, and one specialist's file, which every specialist gets.
#include <cstring>
#include <string>
#include <vector>

#include "attempt.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint32_t chain_size = 0;
  if (size < sizeof chain_size) return 0;
  std::memcpy(&chain_size, data, sizeof chain_size);
  data += sizeof chain_size;
  size -= sizeof chain_size;
  if (chain_size > size) return 0;
  // Copies of exactly the size, so that a read too far is seen.
  const std::vector<uint8_t> chain(data, data + chain_size);
  const std::vector<uint8_t> specialist(data + chain_size, data + size);
  const auto file = [](const char* name, const std::vector<uint8_t>& content) {
    return eosfm_file{sizeof(eosfm_file), name, content.data(), content.size()};
  };
  attempt({file("chain.gguf", chain), file("specialists/s0.gguf", specialist),
           file("specialists/s1.gguf", specialist)});
  return 0;
}
