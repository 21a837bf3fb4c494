#include "npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "complain.h"

/* https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
static const char kMagic[] = "\x93NUMPY";
enum { kMagicSize = 6, kMostHeader = 65536 };

static const char kExpected[] =
    "an array [bands][height][width] of integers of 8, 16 or 32 bits, float32 or float64";
static const char kFix[] = "numpy.save(NAME, numpy.ascontiguousarray(bands))";

int is_npy(int file) {
  char magic[kMagicSize];
  return pread(file, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
         memcmp(magic, kMagic, kMagicSize) == 0;
}

static int read_dtype(const char *text, Layout *layout) {
  static const struct {
    const char *name;
    int32_t dtype;
    size_t size;
  } kTypes[] = {{"u1", EOSFM_U8, 1},  {"i1", EOSFM_I8, 1},  {"u2", EOSFM_U16, 2}, {"i2", EOSFM_I16, 2},
                {"u4", EOSFM_U32, 4}, {"i4", EOSFM_I32, 4}, {"f4", EOSFM_F32, 4}, {"f8", EOSFM_F64, 8}};
  if (strchr("<>|", text[0]) == NULL) return 0;
  for (size_t i = 0; i < sizeof kTypes / sizeof *kTypes; i++) {
    if (strcmp(text + 1, kTypes[i].name) != 0) continue;
    if ((text[0] == '|') != (kTypes[i].size == 1)) return 0;
    layout->dtype = kTypes[i].dtype + (text[0] == '>' ? EOSFM_BIG_ENDIAN : 0);
    layout->pixel_size = kTypes[i].size;
    return 1;
  }
  return 0;
}

/* Reads the text after `'KEY':` and the spaces behind it, up to its end. NULL if the header has no such key. */
static const char *value_of(const char *header, const char *key) {
  char quoted[32];
  snprintf(quoted, sizeof quoted, "'%s':", key);
  const char *at = strstr(header, quoted);
  return at == NULL ? NULL : at + strlen(quoted) + strspn(at + strlen(quoted), " ");
}

/* Reads a tuple of three whole numbers. */
static int read_shape(const char *text, int64_t shape[3]) {
  if (*text != '(') return 0;
  text++;
  for (int i = 0; i < 3; i++) {
    char *end = NULL;
    text += strspn(text, " ");
    if (*text < '0' || *text > '9') return 0;
    shape[i] = strtoll(text, &end, 10);
    text = end + strspn(end, " ");
    if (i < 2 && *text++ != ',') return 0;
  }
  if (*text == ',') text += 1 + strspn(text + 1, " ");
  return *text == ')';
}

int read_npy_header(const char *path, int file, Layout *layout) {
  unsigned char prefix[12];
  int64_t shape[3] = {0, 0, 0};
  char dtype[16] = "";
  int code = kDone;
  if (pread(file, prefix, sizeof prefix, 0) != (ssize_t)sizeof prefix || prefix[6] < 1 || prefix[6] > 3) {
    return refuse(kExpected, NULL, "%s is a damaged NumPy file, or of an unknown version", path);
  }
  const size_t before = prefix[6] == 1 ? 10 : 12;
  const size_t length = prefix[6] == 1 ? prefix[8] | (size_t)prefix[9] << 8
                                       : prefix[8] | (size_t)prefix[9] << 8 | (size_t)prefix[10] << 16 |
                                             (size_t)prefix[11] << 24;
  char *header = length > kMostHeader ? NULL : malloc(length + 1);
  if (header == NULL) return refuse(kExpected, NULL, "%s has a header of %zu bytes", path, length);
  if (pread(file, header, length, (off_t)before) != (ssize_t)length) {
    code = refuse(kExpected, "transfer it again", "%s ends in its header", path);
  } else {
    header[length] = 0;
    const char *descr = value_of(header, "descr"), *order = value_of(header, "fortran_order");
    const char *tuple = value_of(header, "shape");
    if (descr != NULL) sscanf(descr, "'%15[^']'", dtype);
    if (!read_dtype(dtype, layout)) {
      code = refuse(kExpected, "numpy.save(NAME, bands.astype(numpy.float32))",
                    "%s holds values of the type %s", path, dtype[0] != 0 ? dtype : "of a structure");
    } else if (order == NULL || strncmp(order, "False", 5) != 0) {
      code = refuse("bands in C's order", kFix, "%s is in Fortran's order", path);
    } else if (tuple == NULL || !read_shape(tuple, shape)) {
      code = refuse(kExpected, kFix, "%s has the shape %.*s", path,
                    tuple == NULL ? 0 : (int)strcspn(tuple, "}'") - 2, tuple == NULL ? "" : tuple);
    }
  }
  free(header);
  if (code != kDone) return code;
  if (shape[0] < 1 || shape[0] > kMostBands) {
    return refuse(kExpected, kFix, "%s has %" PRId64 " bands", path, shape[0]);
  }
  layout->bands = (int32_t)shape[0];
  layout->height = shape[1];
  layout->width = shape[2];
  layout->interleave = kBandSequential;
  layout->start = before + length;
  return kDone;
}

size_t make_npy_header(char *header, size_t size, int64_t height, int64_t width, int32_t channels) {
  enum { kBefore = 10, kMultiple = 64 };
  memcpy(header, kMagic, kMagicSize);
  const int length =
      snprintf(header + kBefore, size - kBefore,
               "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRId64 ", %" PRId64 ", %d), }", height,
               width, (int)channels);
  const size_t whole = (kBefore + (size_t)length + 1 + kMultiple - 1) / kMultiple * kMultiple;
  memset(header + kBefore + length, ' ', whole - kBefore - (size_t)length);
  header[whole - 1] = '\n';
  header[6] = 1; /* version 1.0 */
  header[7] = 0;
  header[8] = (char)((whole - kBefore) & 0xff);
  header[9] = (char)((whole - kBefore) >> 8);
  return whole;
}
