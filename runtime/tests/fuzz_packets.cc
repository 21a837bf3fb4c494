// A libFuzzer target for the reader of packets. Whatever the bytes are, all packets that it finds are
// decoded, and each byte belongs to a packet or is lost.
#include <eosfm_packets.h>
#include <zlib.h>

#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void read_all(const std::vector<uint8_t>& data) {
  size_t offset = 0;
  size_t lost = 0;
  size_t owned = 0;
  size_t before = 0;
  eosfm_packet packet = EOSFM_PACKET_INIT;
  while (eosfm_packet_find(data.data(), data.size(), &offset, &lost, &packet) == EOSFM_OK) {
    require(offset > before && offset <= data.size());
    owned += packet.payload_size + 52;
    require(owned + lost == offset);
    before = offset;
    const size_t values = static_cast<size_t>(packet.channels) * packet.height * packet.width;
    if (values > (1U << 22)) continue;  // to go on is worth more than to fill gigabytes
    std::vector<float> features(values);
    std::vector<char> work(packet.work_size);
    eosfm_packet_decode(&packet, features.data(), work.data());
  }
  require(owned + lost == data.size() && packet.spent <= 32 * data.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  std::vector<uint8_t> data(bytes, bytes + size);
  read_all(data);
  // Again with a first packet whose size and checksum agree, which no mutation finds.
  if (size < 52 || size > UINT32_MAX) return 0;
  std::memcpy(data.data(), "EOSP\1\0\64\0", 8);
  const auto put = [&](size_t at, uLong value) {
    for (size_t i = 0; i < 4; ++i) data[at + i] = static_cast<uint8_t>(value >> (8 * i));
  };
  put(8, static_cast<uLong>(size));
  put(12, crc32_z(0, data.data() + 16, size - 16));
  read_all(data);
  return 0;
}
