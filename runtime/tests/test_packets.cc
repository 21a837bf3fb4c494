// Packets that are damaged at every byte: test_packets FILE. For sanitizers, and for what must not be given.
#include <eosfm_packets.h>

#include <fstream>
#include <iterator>
#include <vector>

#include <zlib.h>

#include "check.h"

namespace {

using Bytes = std::vector<unsigned char>;

// Decodes all; returns how many packets there are.
int decode_all(const Bytes& data, size_t* lost) {
  size_t offset = 0;
  int count = 0;
  *lost = 0;
  eosfm_packet packet = EOSFM_PACKET_INIT;
  while (eosfm_packet_find(data.data(), data.size(), &offset, lost, &packet) == EOSFM_OK) {
    std::vector<float> features(static_cast<size_t>(packet.channels) * packet.height * packet.width);
    Bytes work(packet.work_size);
    const eosfm_status status = eosfm_packet_decode(&packet, features.data(), work.data());
    CHECK(status == EOSFM_OK || status == EOSFM_BAD_BUNDLE);
    ++count;
  }
  CHECK(offset == data.size());
  return count;
}

void damaged(const Bytes& whole, int packets) {
  size_t lost = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned char bits : {0x01, 0x80, 0xff}) {
      Bytes data = whole;
      data[at] = static_cast<unsigned char>(data[at] ^ bits);
      CHECK(decode_all(data, &lost) == packets - 1 && lost > 0);
      // The same with a checksum that agrees, as only a hostile sender makes it.
      if (at < 16) continue;
      const size_t size = data[8] + (data[9] << 8U) + (data[10] << 16U);
      if (at >= size) continue;
      const uLong sum = crc32(0, data.data() + 16, static_cast<uInt>(size - 16));
      for (unsigned i = 0; i < 4; ++i) data[12 + i] = static_cast<unsigned char>(sum >> (8 * i));
      decode_all(data, &lost);
    }
  }
  for (size_t size = 0; size < whole.size(); ++size) {
    decode_all(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)), &lost);
  }
}

void wrong_calls_are_refused() {
  size_t offset = 0;
  size_t lost = 0;
  float feature = 7.0F;
  unsigned char work[8];
  eosfm_packet packet = EOSFM_PACKET_INIT;
  CHECK(eosfm_packet_find(nullptr, 0, &offset, &lost, &packet) == EOSFM_END);
  CHECK(eosfm_packet_find(nullptr, 4, &offset, &lost, &packet) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_packet_find(work, 8, nullptr, &lost, &packet) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_packet_find(work, 8, &offset, nullptr, &packet) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_packet_find(work, 8, &offset, &lost, nullptr) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_packet_decode(&packet, &feature, work) == EOSFM_BAD_ARGUMENT);
  packet.struct_size = 4;
  CHECK(eosfm_packet_find(work, 8, &offset, &lost, &packet) == EOSFM_BAD_ARGUMENT);
  offset = 9;
  packet.struct_size = sizeof packet;
  CHECK(eosfm_packet_find(work, 8, &offset, &lost, &packet) == EOSFM_BAD_ARGUMENT);
}

void wrong_writing_is_refused() {
  eosfm_packet packet = EOSFM_PACKET_INIT;
  packet.level = 4;
  packet.height = packet.width = 3;
  packet.channels = packet.level_channels = 2;
  size_t needed = 7;
  const auto planned = [&](const auto& change) {
    eosfm_packet other = packet;
    change(other);
    return eosfm_packet_get_work_size(&other, &needed);
  };
  const auto refused = [&](const auto& change) { return planned(change) == EOSFM_BAD_ARGUMENT; };
  CHECK(refused([](eosfm_packet& p) { p.level = 0; }) && refused([](eosfm_packet& p) { p.level = 5; }));
  CHECK(refused([](eosfm_packet& p) { p.width = 0; }) && refused([](eosfm_packet& p) { p.height = 1025; }));
  CHECK(refused([](eosfm_packet& p) { p.channels = 0; }) && refused([](eosfm_packet& p) { p.channels = 3; }));
  CHECK(refused([](eosfm_packet& p) { p.first_channel = -1; }));
  CHECK(refused([](eosfm_packet& p) { p.first_channel = 1; }));
  CHECK(refused([](eosfm_packet& p) { p.channels = p.level_channels = 65536; }));
  CHECK(refused([](eosfm_packet& p) { p.encoding = 2; }) &&
        refused([](eosfm_packet& p) { p.encoding = -1; }));
  CHECK(refused([](eosfm_packet& p) { p.row = 0xffffffffU; }) &&
        refused([](eosfm_packet& p) { p.struct_size = 8; }));
  CHECK(refused([](eosfm_packet& p) {  // 2^29 bytes of content
    p.height = p.width = 1024;
    p.channels = p.level_channels = 256;
  }));
  CHECK(eosfm_packet_get_work_size(nullptr, &needed) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_packet_get_work_size(&packet, nullptr) == EOSFM_BAD_ARGUMENT && needed == 7);
  CHECK(eosfm_packet_get_work_size(&packet, &needed) == EOSFM_OK && needed > 2 * 9 * 2);

  std::vector<float> values(18, 1.0F);
  eosfm_level level = EOSFM_LEVEL_INIT;
  level.data = values.data();
  level.channel_stride = 9;
  level.row_stride = 3;
  std::vector<unsigned char> work(needed);
  int sent = 0;
  const auto count = [](void* user, const void*, size_t) { return ++*static_cast<int*>(user) > 1 ? 1 : 0; };
  const auto encode = [&](const eosfm_level* features, size_t most, size_t size) {
    return eosfm_packet_encode(&packet, features, most, count, &sent, work.data(), size);
  };
  CHECK(encode(nullptr, 256, needed) == EOSFM_BAD_ARGUMENT &&
        encode(&level, 255, needed) == EOSFM_BAD_ARGUMENT);
  CHECK(encode(&level, 256, needed - 1) == EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_packet_encode(&packet, &level, 256, nullptr, nullptr, work.data(), needed) ==
        EOSFM_BAD_ARGUMENT);
  CHECK(eosfm_packet_encode(&packet, &level, 256, count, &sent, nullptr, needed) == EOSFM_BAD_ARGUMENT);
  level.struct_size = 4;
  CHECK(encode(&level, 256, needed) == EOSFM_BAD_ARGUMENT);
  level.struct_size = sizeof level;
  CHECK(sent == 0 && encode(&level, 256, needed) == EOSFM_OK && sent == 1);
  CHECK(encode(&level, 256, needed) == EOSFM_CANCELLED && sent == 2);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::ifstream file(argv[1], std::ios::binary);
  const Bytes whole{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  size_t lost = 0;
  const int packets = decode_all(whole, &lost);
  CHECK(packets > 1 && lost == 0);
  damaged(whole, packets);
  wrong_calls_are_refused();
  wrong_writing_is_refused();
  return report();
}
