/* Lists the packets of a file, and writes their features one after the other: read_packets FILE [FLOATS] */
#include <eosfm_packets.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what) {
  fprintf(stderr, "read_packets: %s\n", what);
  return EXIT_FAILURE;
}

static char *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  char *data = NULL;
  long length;
  if (file == NULL) return NULL;
  if (fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0) {
    *size = (size_t)length;
    data = malloc(*size + 1);
    if (data != NULL && fread(data, 1, *size, file) != *size) {
      free(data);
      data = NULL;
    }
  }
  fclose(file);
  return data;
}

int main(int argc, char **argv) {
  size_t size = 0, offset = 0, lost = 0;
  eosfm_packet packet = EOSFM_PACKET_INIT;
  FILE *out = NULL;
  if (argc != 2 && argc != 3) return fail("usage: read_packets FILE [FLOATS]");
  char *data = read_file(argv[1], &size);
  if (data == NULL) return fail("the file cannot be read");
  if (argc == 3 && (out = fopen(argv[2], "wb")) == NULL) return fail("the floats cannot be written");
  while (eosfm_packet_find(data, size, &offset, &lost, &packet) == EOSFM_OK) {
    const size_t count = (size_t)packet.channels * (size_t)packet.height * (size_t)packet.width;
    float *features = malloc(count * sizeof *features);
    void *work = malloc(packet.work_size);
    if (features == NULL || work == NULL) return fail("there is no memory");
    if (eosfm_packet_decode(&packet, features, work) != EOSFM_OK) return fail("a packet is not whole");
    printf("level %d: channels %d to %d of %d, %d x %d cells at row %lu, column %lu\n", (int)packet.level,
           (int)packet.first_channel, (int)(packet.first_channel + packet.channels - 1),
           (int)packet.level_channels, (int)packet.height, (int)packet.width, (unsigned long)packet.row,
           (unsigned long)packet.column);
    if (out != NULL && fwrite(features, sizeof *features, count, out) != count) {
      return fail("the floats cannot be written");
    }
    free(features);
    free(work);
  }
  printf("%zu bytes belong to no intact packet\n", lost);
  free(data);
  if (out != NULL && fclose(out) != 0) return fail("the floats cannot be written");
  return EXIT_SUCCESS;
}
