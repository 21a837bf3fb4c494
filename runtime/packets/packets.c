/* See eosfm_packets.h, and docs/packets.md for what the bytes are. */
#include "eosfm_packets.h"

#include <math.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { kHeader = 52, kCheckedFrom = 16, kMostSide = 1024, kHalf = 0, kInteger = 1, kNodata = -128 };

static const size_t kMostContent = (size_t)1 << 28;

static uint32_t u16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }

static uint32_t u32(const uint8_t *at) { return u16(at) | u16(at + 2) << 16; }

/* Checksums of false packets are taken of at most twice so many bytes for each byte of the data: every byte
 * may be claimed by many false headers. Damage alone comes nowhere near it. */
static const size_t kCredit = 16;

/* Reads the header of the packet that may begin here; returns how many bytes it claims, or 0 if it contradicts
 * itself. Nothing behind the header is looked at. */
static size_t read_header(const uint8_t *at, size_t size, eosfm_packet *found) {
  if (size < kHeader || memcmp(at, "EOSP", 4) != 0 || u16(at + 4) != 1 || u16(at + 6) != kHeader) {
    return 0;
  }
  const size_t whole = u32(at + 8);
  if (whole < kHeader || whole > size) return 0;
  memcpy(found->bundle, at + 16, sizeof found->bundle);
  found->level = at[24];
  found->encoding = at[25];
  found->row = u32(at + 28);
  found->column = u32(at + 32);
  found->height = (int32_t)u16(at + 36);
  found->width = (int32_t)u16(at + 38);
  found->first_channel = (int32_t)u16(at + 40);
  found->channels = (int32_t)u16(at + 42);
  found->level_channels = (int32_t)u16(at + 44);
  found->work_size = u32(at + 48);
  found->payload = at + kHeader;
  found->payload_size = whole - kHeader;
  const int sides = found->height >= 1 && found->height <= kMostSide && found->width >= 1 &&
                    found->width <= kMostSide;
  if (!sides || found->level < 1 || found->level > EOSFM_LEVELS || found->encoding > kInteger ||
      found->channels < 1 || found->first_channel + found->channels > found->level_channels) {
    return 0;
  }
  const size_t cells = (size_t)found->height * (size_t)found->width;
  const size_t each = found->encoding == kHalf ? 2 * cells : cells + sizeof(float);
  return found->work_size == each * (size_t)found->channels && found->work_size <= kMostContent ? whole : 0;
}

/* Whether the packet is as it was sent, and its payload says that it gives what the header says. */
static int is_intact(const uint8_t *at, size_t whole, const eosfm_packet *found) {
  return crc32_z(0, at + kCheckedFrom, whole - kCheckedFrom) == u32(at + 12) &&
         ZSTD_getFrameContentSize(found->payload, found->payload_size) == found->work_size;
}

eosfm_status eosfm_packets_next(const void *data, size_t size, size_t *offset, size_t *lost,
                                eosfm_packet *packet) {
  const uint8_t *bytes = data;
  if ((data == NULL && size > 0) || offset == NULL || lost == NULL || packet == NULL ||
      packet->struct_size < sizeof(eosfm_packet) || *offset > size) {
    return EOSFM_BAD_ARGUMENT;
  }
  while (*offset < size) {
    const uint8_t *at = memchr(bytes + *offset, 'E', size - *offset);
    const size_t start = at != NULL ? (size_t)(at - bytes) : size;
    *lost += start - *offset;
    *offset = start;
    if (at == NULL) break;
    eosfm_packet found = EOSFM_PACKET_INIT;
    const size_t whole = read_header(at, size - start, &found);
    if (whole > 0 && packet->spent + whole <= kCredit * (size + start)) {
      if (is_intact(at, whole, &found)) {
        found.spent = packet->spent;
        *packet = found;
        *offset = start + whole;
        return EOSFM_OK;
      }
      packet->spent += whole;
    }
    ++*lost; /* the next may begin within what this one claims to be */
    ++*offset;
  }
  return EOSFM_END;
}

/* IEEE 754 binary16 to binary32. */
static float from_half(uint32_t half) {
  const uint32_t sign = (half & 0x8000U) << 16;
  const uint32_t exponent = half >> 10 & 0x1fU;
  const uint32_t fraction = half & 0x3ffU;
  uint32_t bits;
  float value;
  if (exponent == 0) { /* zero or below what is normal: fraction * 2**-24 */
    value = ldexpf((float)fraction, -24);
    return sign != 0 ? -value : value;
  }
  bits = exponent == 0x1fU ? sign | 0x7f800000U | fraction << 13
                           : sign | (exponent + 112U) << 23 | fraction << 13;
  memcpy(&value, &bits, sizeof value);
  return value;
}

eosfm_status eosfm_packets_decode(const eosfm_packet *packet, float *features, void *work) {
  if (packet == NULL || packet->struct_size < sizeof(eosfm_packet) || packet->payload == NULL ||
      features == NULL || work == NULL) {
    return EOSFM_BAD_ARGUMENT;
  }
  const uint8_t *content = work;
  const size_t cells = (size_t)packet->height * (size_t)packet->width;
  const size_t count = cells * (size_t)packet->channels;
  const size_t given =
      ZSTD_decompress(work, packet->work_size, packet->payload, packet->payload_size);
  if (ZSTD_isError(given) || given != packet->work_size) return EOSFM_BAD_BUNDLE;
  if (packet->encoding == kHalf) { /* all low bytes, then all high bytes */
    for (size_t i = 0; i < count; i++) {
      features[i] = from_half((uint32_t)content[i] | (uint32_t)content[count + i] << 8);
    }
    return EOSFM_OK;
  }
  const uint8_t *integers = content + (size_t)packet->channels * sizeof(float);
  for (size_t c = 0; c < (size_t)packet->channels; c++) {
    const uint32_t bits = u32(content + c * sizeof(float));
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    for (size_t i = c * cells; i < (c + 1) * cells; i++) {
      const int value = integers[i] < 128 ? integers[i] : (int)integers[i] - 256;
      features[i] = value == kNodata ? NAN : (float)value * scale;
    }
  }
  return EOSFM_OK;
}
