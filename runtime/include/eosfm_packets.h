/* libeosfm_packets: reads the feature packets that `eosfm-edge run --packets` writes. C99, and C++.
 * Needs libzstd and zlib; libeosfm does not need it, nor it libeosfm.
 *
 *   size_t offset = 0, lost = 0;
 *   eosfm_packet packet = EOSFM_PACKET_INIT;
 *   while (eosfm_packets_next(data, size, &offset, &lost, &packet) == EOSFM_OK) {
 *     eosfm_packets_decode(&packet, features, work);
 *   }
 *
 * There are no handles: any thread may call anything. Nothing is written to the standard streams, nothing
 * exits or throws. docs/packets.md is the format. */
#ifndef EOSFM_PACKETS_H
#define EOSFM_PACKETS_H

#include "eosfm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct eosfm_packet {
  size_t struct_size;
  uint8_t bundle[8]; /* the first of the SHA-256 of the bundle's manifest */
  int32_t level;     /* 1 to 4 */
  uint32_t row;      /* of the cells in the level of the scene */
  uint32_t column;
  int32_t height;    /* cells, at most 1024 */
  int32_t width;
  int32_t first_channel;
  int32_t channels;
  int32_t level_channels; /* of the level, of which the packet has `channels` */
  int32_t encoding;       /* 0: fp16; 1: int8 */
  const void *payload;    /* in the data that was given */
  size_t payload_size;
  size_t work_size; /* bytes of work memory that decoding takes, at most 2^28 */
  size_t spent; /* bytes of false packets that were looked at so far: 0 at first, then left as it is */
} eosfm_packet;

#define EOSFM_PACKET_INIT \
  {sizeof(eosfm_packet), {0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0}

/* Finds the next intact packet at or after *offset, and sets *offset behind it. Bytes that belong to none,
 * damaged packets among them, are passed over and added to *lost. EOSFM_END if there is none any more.
 * Reading all of the data takes time in proportion to its size: checksums of false packets are taken of at
 * most 32 bytes for each of it, and where so many false headers claim the same bytes that this is spent, packets
 * larger than what is left count as lost. */
EOSFM_API eosfm_status eosfm_packets_next(const void *data, size_t size, size_t *offset,
                                          size_t *lost, eosfm_packet *packet);

/* Writes the features, [channels][height][width], NaN where there is no data. `work` is of the packet's
 * work_size. Beside it, libzstd allocates what it needs until this returns. EOSFM_BAD_BUNDLE: the payload is
 * not what the header says, though the checksum agrees; features may have been written in part then. */
EOSFM_API eosfm_status eosfm_packets_decode(const eosfm_packet *packet, float *features,
                                            void *work);

#ifdef __cplusplus
}
#endif

#endif
