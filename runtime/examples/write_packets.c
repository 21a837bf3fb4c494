/* Writes a file of floats, [channels][height][width], as packets, as a host does with a level that a run gave:
 *
 *   write_packets FLOATS LEVEL CHANNELS HEIGHT WIDTH fp16|int8 MOST PACKETS
 *
 * MOST is how many bytes a packet may have. read_packets reads them. */
#include <eosfm_packets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what) {
  fprintf(stderr, "write_packets: %s\n", what);
  return EXIT_FAILURE;
}

static int append(void *file, const void *data, size_t size) { return fwrite(data, 1, size, file) != size; }

int main(int argc, char **argv) {
  eosfm_packet packet = EOSFM_PACKET_INIT;
  eosfm_level level = EOSFM_LEVEL_INIT;
  size_t size = 0;
  if (argc != 9) {
    return fail("usage: write_packets FLOATS LEVEL CHANNELS HEIGHT WIDTH fp16|int8 MOST PACKETS");
  }
  packet.level = atoi(argv[2]);
  packet.channels = packet.level_channels = atoi(argv[3]);
  packet.height = atoi(argv[4]);
  packet.width = atoi(argv[5]);
  packet.encoding = strcmp(argv[6], "fp16") == 0 ? EOSFM_PACKET_FP16 : EOSFM_PACKET_INT8;
  if (eosfm_packet_get_work_size(&packet, &size) != EOSFM_OK) return fail("there is no such level");
  level.row_stride = packet.width;
  level.channel_stride = (ptrdiff_t)packet.width * packet.height;
  const size_t count = (size_t)packet.channels * (size_t)level.channel_stride;
  void *work = malloc(size);
  level.data = malloc(count * sizeof *level.data);
  if (work == NULL || level.data == NULL) return fail("there is no memory");
  FILE *in = fopen(argv[1], "rb");
  if (in == NULL || fread(level.data, sizeof *level.data, count, in) != count) {
    return fail("there are fewer floats than that");
  }
  fclose(in);
  FILE *out = fopen(argv[8], "wb");
  if (out == NULL) return fail("the packets cannot be written");
  const eosfm_status status =
      eosfm_packet_encode(&packet, &level, (size_t)atol(argv[7]), append, out, work, size);
  free(level.data);
  free(work);
  if (fclose(out) != 0 || status == EOSFM_CANCELLED) return fail("the packets cannot be written");
  if (status == EOSFM_NOT_FINITE) return fail("a value is larger than fp16 can hold: use int8");
  return status == EOSFM_OK ? EXIT_SUCCESS : fail("MOST is too small, or there is no memory");
}
