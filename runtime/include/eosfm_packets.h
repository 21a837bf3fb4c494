/* libeosfm_packets: writes features as packets for a downlink, as `eosfm-edge run --packets` does, and reads
 * them. C99, and C++. Needs libzstd and zlib; libeosfm does not need it, nor it libeosfm.
 *
 * Reading:
 *
 *   size_t offset = 0, lost = 0;
 *   eosfm_packet packet = EOSFM_PACKET_INIT;
 *   while (eosfm_packet_find(data, size, &offset, &lost, &packet) == EOSFM_OK) {
 *     eosfm_packet_decode(&packet, features, work);
 *   }
 *
 * Writing, for instance a level of a patch that eosfm_stream_pull_patch gave:
 *
 *   eosfm_packet packet = EOSFM_PACKET_INIT;   which features: level, row, column, height, width, ...
 *   eosfm_packet_get_work_size(&packet, &size);
 *   eosfm_packet_encode(&packet, &features, 200000, send, user, work, size);
 *
 * There are no handles: any thread may call anything. Nothing is written to the standard streams, nothing
 * exits or throws. docs/packets.md is the format. */
#ifndef EOSFM_PACKETS_H
#define EOSFM_PACKETS_H

#include "eosfm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The encodings of a packet's values. */
typedef enum eosfm_packet_encoding {
  EOSFM_PACKET_FP16 = 0, /* IEEE 754 binary16, rounded to nearest */
  EOSFM_PACKET_INT8 = 1  /* integers from -127 to 127 times a step for each channel */
} eosfm_packet_encoding;

typedef struct eosfm_packet {
  size_t struct_size;
  uint8_t bundle[8]; /* the first of the SHA-256 of the bundle's manifest.json */
  int32_t level;     /* 1 to 4 */
  uint32_t row;      /* of the cells in the level of the scene */
  uint32_t column;
  int32_t height;    /* cells, at most 1024 */
  int32_t width;
  int32_t first_channel;
  int32_t channels;
  int32_t level_channels; /* of the level, of which the packet has `channels` */
  int32_t encoding;       /* an eosfm_packet_encoding */
  const void *payload; /* in the data that was given; this and what follows are not looked at in writing */
  size_t payload_size;
  size_t work_size; /* bytes of work memory that decoding takes, at most 2^28 */
  size_t spent; /* bytes of false packets that were read so far: 0 at first, then left as it is */
} eosfm_packet;

#define EOSFM_PACKET_INIT \
  {sizeof(eosfm_packet), {0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0}

/* Finds the next intact packet at or after *offset, and sets *offset behind it. Bytes that belong to none,
 * damaged packets among them, are passed over and added to *lost. EOSFM_END if there is none any more.
 * Reading all of the data takes time in proportion to its size: checksums of false packets are taken of at
 * most 32 bytes for each of it, and where so many false headers claim the same bytes that this is spent, packets
 * larger than what is left count as lost.
 *
 * Status: EOSFM_OK, EOSFM_END, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_packet_find(const void *data, size_t size, size_t *offset, size_t *lost,
                                         eosfm_packet *packet);

/* Decodes a packet into features, [channels][height][width], NaN where there is no data. `work` has the packet's
 * work_size bytes. Beside it, libzstd allocates what it needs until this returns. EOSFM_BAD_BUNDLE: the payload is
 * not what the header says, though the checksum agrees; features may have been written in part then.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_BAD_BUNDLE. */
EOSFM_API eosfm_status eosfm_packet_decode(const eosfm_packet *packet, float *features, void *work);

/* The least `most` of eosfm_packet_encode: a header, and room for a cell or some. */
#define EOSFM_PACKET_LEAST 256

/* Takes a packet's bytes, which are gone after the call. Returns 0 to continue; anything else ends the writing. */
typedef int (*eosfm_packet_send_fn)(void *user, const void *data, size_t size);

/* Gives the bytes of work memory that writing takes. EOSFM_BAD_ARGUMENT unless the packet has a
 * level from 1 to 4, sides of 1 to 1024 cells, 1 to 65535 channels that are among the level's, and at most
 * 2^28 bytes of content, 2 for a value in fp16 and 1 in int8.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT. */
EOSFM_API eosfm_status eosfm_packet_get_work_size(const eosfm_packet *packet, size_t *work_size);

/* Writes features as one packet, or as several if one would have more than `most` bytes: groups of channels,
 * and rows and columns of one channel only where that does not fit. They are the packets of `eosfm-edge run
 * --packets`, to the byte where libzstd is of the same version. Nothing is sent if no cell has data.
 *
 * `features` are `packet->channels` planes of height x width floats, as an eosfm_level or a patch's level lie;
 * NaN is a cell without data, and infinities in int8 are so too. `work` is of eosfm_packet_get_work_size's size, which
 * `work_size` says. Beside it, libzstd allocates what it needs until this returns.
 *
 * EOSFM_NOT_FINITE: a value is larger than fp16 can hold, 65504; nothing has been sent. EOSFM_CANCELLED:
 * `send` returned another value than 0. EOSFM_NO_MEMORY: libzstd had none; some may have been sent.
 * EOSFM_BAD_ARGUMENT: as for eosfm_packet_get_work_size, or `most` is below EOSFM_PACKET_LEAST, `work_size` too
 * small or something NULL.
 *
 * Status: EOSFM_OK, EOSFM_BAD_ARGUMENT, EOSFM_NO_MEMORY, EOSFM_CANCELLED, EOSFM_NOT_FINITE. */
EOSFM_API eosfm_status eosfm_packet_encode(const eosfm_packet *packet, const eosfm_level *features,
                                           size_t most, eosfm_packet_send_fn send, void *user, void *work,
                                           size_t work_size);

#ifdef __cplusplus
}
#endif

#endif
