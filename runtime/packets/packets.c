/* The packets of eosfm_packets.h. docs/packets.md describes the bytes. */
#include "eosfm_packets.h"

#include <math.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum {
  kHeader = 52,
  kCheckedFrom = 16,
  kVersion = 1,
  kMostSide = 1024,
  kNodata = -128,
  kMostChannels = 65535
};

/* libzstd's level: more effort takes several times as long and saves a few per cent. */
enum { kCompression = 3 };

/* Structs are read and filled by the caller's size, as src/structs.h does for those of eosfm.h. Every caller's has
 * all fields up to these. */
static const size_t kFirstPacketSize = offsetof(eosfm_packet, spent) + sizeof(size_t);
static const size_t kFirstLevelSize = offsetof(eosfm_level, row_stride) + sizeof(ptrdiff_t);
static const size_t kMostStructSize = 4096;

static int is_size(size_t given, size_t first) {
  return given >= first && given <= kMostStructSize && given % 8 == 0;
}

static size_t smaller_size(size_t a, size_t b) { return a < b ? a : b; }

static eosfm_packet read_packet(const eosfm_packet *given) {
  eosfm_packet own = EOSFM_PACKET_INIT;
  memcpy(&own, given, smaller_size(given->struct_size, sizeof own));
  own.struct_size = sizeof own;
  return own;
}

static void fill_packet(eosfm_packet own, eosfm_packet *given) {
  own.struct_size = given->struct_size;
  memcpy(given, &own, smaller_size(given->struct_size, sizeof own));
}

static eosfm_level read_level(const eosfm_level *given) {
  eosfm_level own = EOSFM_LEVEL_INIT;
  memcpy(&own, given, smaller_size(given->struct_size, sizeof own));
  own.struct_size = sizeof own;
  return own;
}

static const size_t kMostContent = (size_t)1 << 28;

static uint32_t u16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }

static uint32_t u32(const uint8_t *at) { return u16(at) | u16(at + 2) << 16; }

/* Checksums of false packets are taken of at most twice so many bytes for each byte of the data: every byte
 * may be claimed by many false headers. Damage alone comes nowhere near it. */
static const size_t kCredit = 16;

/* Returns the bytes of the content of a packet with these fields; 0 if there can be no such packet. */
static size_t content_size(const eosfm_packet *packet) {
  const int has_sides =
      packet->height >= 1 && packet->height <= kMostSide && packet->width >= 1 && packet->width <= kMostSide;
  const int has_channels = packet->level_channels <= kMostChannels && packet->channels >= 1 &&
                           packet->channels <= packet->level_channels && packet->first_channel >= 0 &&
                           packet->first_channel <= packet->level_channels - packet->channels;
  if (!has_sides || !has_channels || packet->level < 1 || packet->level > EOSFM_LEVELS ||
      packet->encoding < EOSFM_PACKET_FP16 || packet->encoding > EOSFM_PACKET_INT8) {
    return 0;
  }
  const size_t cells = (size_t)packet->height * (size_t)packet->width;
  const size_t each = packet->encoding == EOSFM_PACKET_FP16 ? 2 * cells : cells + sizeof(float);
  const size_t size = each * (size_t)packet->channels;
  return size <= kMostContent ? size : 0;
}

/* Reads the header of the packet that may begin here; returns how many bytes it claims, or 0 if it contradicts
 * itself. Does not read behind the header. */
static size_t read_header(const uint8_t *at, size_t size, eosfm_packet *found) {
  if (size < kHeader || memcmp(at, "EOSP", 4) != 0 || u16(at + 4) != kVersion || u16(at + 6) != kHeader) {
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
  return content_size(found) > 0 && content_size(found) == found->work_size ? whole : 0;
}

/* Returns whether the checksum matches, and whether the payload promises as much content as the header. */
static int is_intact(const uint8_t *at, size_t whole, const eosfm_packet *found) {
  return crc32_z(0, at + kCheckedFrom, whole - kCheckedFrom) == u32(at + 12) &&
         ZSTD_getFrameContentSize(found->payload, found->payload_size) == found->work_size;
}

eosfm_status eosfm_packet_find(const void *data, size_t size, size_t *offset, size_t *lost,
                               eosfm_packet *packet) {
  const uint8_t *bytes = data;
  if ((data == NULL && size > 0) || offset == NULL || lost == NULL || packet == NULL ||
      !is_size(packet->struct_size, kFirstPacketSize) || *offset > size) {
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
        fill_packet(found, packet);
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

/* Converts IEEE 754 binary16 to binary32. */
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

eosfm_status eosfm_packet_decode(const eosfm_packet *packet, float *features, void *work) {
  if (packet == NULL || !is_size(packet->struct_size, kFirstPacketSize) || packet->payload == NULL ||
      features == NULL || work == NULL) {
    return EOSFM_BAD_ARGUMENT;
  }
  const uint8_t *content = work;
  const size_t cells = (size_t)packet->height * (size_t)packet->width;
  const size_t count = cells * (size_t)packet->channels;
  const size_t given = ZSTD_decompress(work, packet->work_size, packet->payload, packet->payload_size);
  if (ZSTD_isError(given) || given != packet->work_size) return EOSFM_BAD_BUNDLE;
  if (packet->encoding == EOSFM_PACKET_FP16) { /* all low bytes, then all high bytes */
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

/* ---- Writing --------------------------------------------------------------------------------- */

static void put16(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)value;
  at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value) {
  put16(at, value);
  put16(at + 2, value >> 16);
}

/* Converts binary32 to IEEE 754 binary16, rounded to nearest, ties to even. All NaN become one, which compresses
 * better. */
static uint32_t to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000U;
  const uint32_t size = bits & 0x7fffffffU;
  if (size > 0x7f800000U) return 0x7e00U;
  if (size >= 0x477ff000U) return sign | 0x7c00U; /* 65520 and more round to infinity */
  if (size < 0x38800000U) return sign | (uint32_t)lrintf(ldexpf(fabsf(value), 24)); /* below what is normal */
  return sign | (((size + 0xfffU + (size >> 13 & 1U)) >> 13) - (112U << 10));
}

/* The arguments of a writing, and its memory. */
typedef struct Writing {
  const eosfm_level *features;
  size_t most;
  eosfm_packet_send_fn send;
  void *user;
  ZSTD_CCtx *zstd;
  uint8_t *content;
  uint8_t *packet;
  size_t room; /* for the packet */
} Writing;

/* The part of the features that is packed: its first value, and which packet it becomes. */
typedef struct Part {
  const float *first;
  eosfm_packet fields;
} Part;

static float value_at(const Writing *writing, const Part *part, int32_t channel, int32_t y, int32_t x) {
  return part->first[channel * writing->features->channel_stride + y * writing->features->row_stride + x];
}

/* Writes all low bytes, then all high bytes. Returns whether fp16 can hold the values. */
static int write_halves(const Writing *writing, const Part *part) {
  const eosfm_packet *fields = &part->fields;
  uint8_t *low = writing->content;
  uint8_t *high = low + (size_t)fields->channels * (size_t)fields->height * (size_t)fields->width;
  for (int32_t c = 0; c < fields->channels; c++) {
    for (int32_t y = 0; y < fields->height; y++) {
      for (int32_t x = 0; x < fields->width; x++) {
        const uint32_t half = to_half(value_at(writing, part, c, y, x));
        if ((half & 0x7fffU) == 0x7c00U) return 0;
        *low++ = (uint8_t)half;
        *high++ = (uint8_t)(half >> 8);
      }
    }
  }
  return 1;
}

/* Writes a step for each channel, its largest value / 127, and then integers. */
static void write_integers(const Writing *writing, const Part *part) {
  const eosfm_packet *fields = &part->fields;
  uint8_t *integer = writing->content + (size_t)fields->channels * sizeof(float);
  for (int32_t c = 0; c < fields->channels; c++) {
    float largest = 0.0F;
    for (int32_t y = 0; y < fields->height; y++) {
      for (int32_t x = 0; x < fields->width; x++) {
        const float size = fabsf(value_at(writing, part, c, y, x));
        if (isfinite(size) && size > largest) largest = size;
      }
    }
    const float scale = largest / 127.0F;
    const float step = scale > 0.0F ? scale : 1.0F;
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    put32(writing->content + (size_t)c * sizeof(float), bits);
    for (int32_t y = 0; y < fields->height; y++) {
      for (int32_t x = 0; x < fields->width; x++) {
        const float value = value_at(writing, part, c, y, x);
        const float rounded = isfinite(value) ? rintf(value / step) : 0.0F; /* a subnormal step is inexact */
        const float clipped = fmaxf(-127.0F, fminf(rounded, 127.0F));
        *integer++ = (uint8_t)(isfinite(value) ? (int)clipped : kNodata);
      }
    }
  }
}

/* Makes the packet of a part, and gives its bytes. */
static eosfm_status pack(const Writing *writing, const Part *part, size_t *size) {
  const eosfm_packet *fields = &part->fields;
  const size_t content = content_size(fields);
  uint8_t *at = writing->packet;
  if (fields->encoding == EOSFM_PACKET_INT8) {
    write_integers(writing, part);
  } else if (!write_halves(writing, part)) {
    return EOSFM_NOT_FINITE;
  }
  const size_t payload = ZSTD_compressCCtx(writing->zstd, at + kHeader, writing->room - kHeader,
                                           writing->content, content, kCompression);
  if (ZSTD_isError(payload)) return EOSFM_NO_MEMORY; /* nothing else can go wrong: the room is the bound's */
  *size = kHeader + payload;
  memset(at, 0, kHeader);
  memcpy(at, "EOSP", 4); /* NOLINT(bugprone-not-null-terminated-result): four letters, no text */
  put16(at + 4, kVersion);
  put16(at + 6, kHeader);
  put32(at + 8, (uint32_t)*size);
  memcpy(at + 16, fields->bundle, sizeof fields->bundle);
  at[24] = (uint8_t)fields->level;
  at[25] = (uint8_t)fields->encoding;
  put32(at + 28, fields->row);
  put32(at + 32, fields->column);
  put16(at + 36, (uint32_t)fields->height);
  put16(at + 38, (uint32_t)fields->width);
  put16(at + 40, (uint32_t)fields->first_channel);
  put16(at + 42, (uint32_t)fields->channels);
  put16(at + 44, (uint32_t)fields->level_channels);
  put32(at + 48, (uint32_t)content);
  put32(at + 12, (uint32_t)crc32_z(0, at + kCheckedFrom, *size - kCheckedFrom));
  return EOSFM_OK;
}

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* Sends a part as one packet or, cut along one side into about as many parts as are needed, as several. Each
 * cut leaves a third at most, so it is not deep. */
static eosfm_status send_part(const Writing *writing, const Part *whole) {
  size_t size = 0;
  eosfm_status status = pack(writing, whole, &size);
  if (status != EOSFM_OK) return status;
  if (size <= writing->most) {
    return writing->send(writing->user, writing->packet, size) == 0 ? EOSFM_OK : EOSFM_CANCELLED;
  }
  const eosfm_packet *fields = &whole->fields;
  const size_t room = writing->most - kHeader;
  const size_t wanted = (size - kHeader + room - 1) / room + 1;
  /* Cut channels first: a reader more often wants all cells of some channels than all channels of some cells. */
  const int axis = fields->channels > 1 ? 0 : fields->height > 1 ? 1 : 2;
  const int32_t length = axis == 0 ? fields->channels : axis == 1 ? fields->height : fields->width;
  const int32_t even =
      wanted < (size_t)length ? length / (int32_t)wanted : 1; /* NOLINT: at least 2 are wanted */
  for (int32_t start = 0; status == EOSFM_OK && start < length; start += even) {
    const int32_t count = smaller(even, length - start);
    Part part = *whole;
    if (axis == 0) {
      part.first += start * writing->features->channel_stride;
      part.fields.first_channel += start;
      part.fields.channels = count;
    } else if (axis == 1) {
      part.first += start * writing->features->row_stride;
      part.fields.row += (uint32_t)start;
      part.fields.height = count;
    } else {
      part.first += start;
      part.fields.column += (uint32_t)start;
      part.fields.width = count;
    }
    status = send_part(writing, &part);
  }
  return status;
}

static int has_data(const Writing *writing, const Part *part) {
  for (int32_t c = 0; c < part->fields.channels; c++) {
    for (int32_t y = 0; y < part->fields.height; y++) {
      for (int32_t x = 0; x < part->fields.width; x++) {
        if (!isnan(value_at(writing, part, c, y, x))) return 1;
      }
    }
  }
  return 0;
}

static size_t packet_room(size_t content) { return kHeader + ZSTD_compressBound(content); }

eosfm_status eosfm_packet_get_work_size(const eosfm_packet *packet, size_t *work_size) {
  if (packet == NULL || !is_size(packet->struct_size, kFirstPacketSize) || work_size == NULL) {
    return EOSFM_BAD_ARGUMENT;
  }
  const eosfm_packet own = read_packet(packet);
  const size_t content = content_size(&own);
  const uint32_t most = UINT32_MAX - kMostSide; /* parts begin up to so much later */
  if (content == 0 || own.row > most || own.column > most) return EOSFM_BAD_ARGUMENT;
  *work_size = content + packet_room(content);
  return EOSFM_OK;
}

eosfm_status eosfm_packet_encode(const eosfm_packet *packet, const eosfm_level *features, size_t most,
                                 eosfm_packet_send_fn send, void *user, void *work, size_t work_size) {
  size_t needed = 0;
  eosfm_status status = eosfm_packet_get_work_size(packet, &needed);
  if (status != EOSFM_OK) return status;
  if (features == NULL || !is_size(features->struct_size, kFirstLevelSize) || features->data == NULL ||
      most < EOSFM_PACKET_LEAST || send == NULL || work == NULL || work_size < needed) {
    return EOSFM_BAD_ARGUMENT;
  }
  const eosfm_level level = read_level(features);
  const Part whole = {level.data, read_packet(packet)};
  const size_t content = content_size(&whole.fields);
  Writing writing = {&level, most, send, user, NULL, work, (uint8_t *)work + content, packet_room(content)};
  if (!has_data(&writing, &whole)) return EOSFM_OK;
  writing.zstd = ZSTD_createCCtx();
  if (writing.zstd == NULL) return EOSFM_NO_MEMORY;
  status = send_part(&writing, &whole);
  ZSTD_freeCCtx(writing.zstd);
  return status;
}
