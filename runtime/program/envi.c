#include "envi.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "complain.h"

/* https://www.nv5geospatialsoftware.com/docs/ENVIHeaderFiles.html */
enum { kMostHeader = 1 << 22, kUnset = -1 };

int find_envi_header(const char *path, char *header, size_t size) {
  const char *name = strrchr(path, '/'), *extension;
  name = name == NULL ? path : name + 1;
  extension = strrchr(name, '.');
  const int stem = (int)(extension != NULL && extension != name ? (size_t)(extension - path) : strlen(path));
  if (snprintf(header, size, "%.*s.hdr", stem, path) < (int)size && access(header, F_OK) == 0) return 1;
  return snprintf(header, size, "%s.hdr", path) < (int)size && access(header, F_OK) == 0;
}

/* The entries of a header, before it is known whether they hold together. */
typedef struct Header {
  int64_t samples;
  int64_t lines;
  int64_t bands;
  int64_t offset;
  int64_t type;
  int64_t order;
  int64_t compression;
  char interleave[16];
  char nodata[64];
  char factor[64];
  char units[32]; /* of wavelengths */
  /* Lists, as they stand between their braces. */
  char *names;
  char *wavelengths;
  char *gains;
  char *offsets;
  char *frame_offsets;
} Header;

static char *read_text(const char *path) {
  const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  struct stat there;
  char *text = NULL;
  if (file < 0) {
    refuse("an ENVI header", NULL, "%s cannot be read: %s", path, strerror(errno));
    return NULL;
  }
  if (fstat(file, &there) != 0 || !S_ISREG(there.st_mode) || there.st_size > kMostHeader) {
    refuse("an ENVI header: a file of some lines of text", NULL, "%s is no such file", path);
  } else {
    text = calloc(1, (size_t)there.st_size + 1);
    if (text == NULL) {
      refuse_without_memory();
    } else if (read(file, text, (size_t)there.st_size) != (ssize_t)there.st_size) {
      refuse("an ENVI header", NULL, "%s cannot be read: %s", path, strerror(errno));
      free(text);
      text = NULL;
    } else if (strncmp(text, "ENVI", 4) != 0 || strlen(text) != (size_t)there.st_size) {
      refuse("text that begins with the line ENVI", NULL, "%s is no ENVI header", path);
      free(text);
      text = NULL;
    }
  }
  close(file);
  return text;
}

/* Ends a text before the spaces at its end, and returns it without those at its beginning. */
static char *trimmed(char *text) {
  while (isspace((unsigned char)*text)) text++;
  for (size_t length = strlen(text); length > 0 && isspace((unsigned char)text[length - 1]); length--) {
    text[length - 1] = 0;
  }
  return text;
}

/* Takes the next `key = value` off a text: a line, or what is in braces. Returns whether there was one; *broken is set
 * where braces do not end. */
static int take_entry(char **text, char **key, char **value, int *broken) {
  while (**text != 0) {
    char *line = *text, *end = line + strcspn(line, "\n");
    *text = *end != 0 ? end + 1 : end;
    *end = 0;
    char *equals = strchr(line, '=');
    if (equals == NULL || line[strspn(line, " \t")] == ';') continue;
    *equals = 0;
    *key = trimmed(line);
    char *start = equals + 1 + strspn(equals + 1, " \t");
    if (*start == '{') {
      if (strchr(start, '}') == NULL && *text != end) *end = '\n'; /* it goes on */
      end = strchr(start, '}');
      if (end == NULL || memchr(start + 1, '{', (size_t)(end - start - 1)) != NULL) {
        *broken = 1;
        return 0;
      }
      if (end >= *text) {
        *text = end + 1 + strcspn(end + 1, "\n");
        if (**text != 0) (*text)++;
      }
      *end = 0;
      start++;
    }
    *value = trimmed(start);
    return 1;
  }
  return 0;
}

/* Reads a whole number of 0 or more; kUnset if it is none. */
static int64_t whole(const char *text) {
  char *end = NULL;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  return isdigit((unsigned char)text[0]) && *end == 0 && errno == 0 ? (int64_t)value : kUnset;
}

/* Keeps what is known of an entry. Returns whether there is room for it. */
static int keep_entry(const char *key, char *value, Header *header, Layout *layout) {
  const struct {
    const char *key;
    int64_t *number;
  } numbers[] = {{"samples", &header->samples},
                 {"lines", &header->lines},
                 {"bands", &header->bands},
                 {"header offset", &header->offset},
                 {"data type", &header->type},
                 {"byte order", &header->order},
                 {"file compression", &header->compression}};
  const struct {
    const char *key;
    char **list;
  } lists[] = {{"band names", &header->names},
               {"wavelength", &header->wavelengths},
               {"data gain values", &header->gains},
               {"data offset values", &header->offsets},
               {"major frame offsets", &header->frame_offsets}};
  const struct {
    const char *key;
    char *text;
    size_t size;
  } texts[] = {{"interleave", header->interleave, sizeof header->interleave},
               {"data ignore value", header->nodata, sizeof header->nodata},
               {"reflectance scale factor", header->factor, sizeof header->factor},
               {"wavelength units", header->units, sizeof header->units},
               {"map info", layout->map_info, sizeof layout->map_info},
               {"coordinate system string", layout->coordinate_system, sizeof layout->coordinate_system}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    if (strcasecmp(key, numbers[i].key) == 0) *numbers[i].number = whole(value);
  }
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    if (strcasecmp(key, lists[i].key) == 0) *lists[i].list = value;
  }
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (strcasecmp(key, texts[i].key) != 0) continue;
    if (strlen(value) >= texts[i].size) return 0;
    strcpy(texts[i].text, value);
  }
  return 1;
}

/* Reads a list of as many finite numbers as there are bands; NULL, with a complaint, if it is another. */
static double *read_numbers(const char *path, const char *key, const char *list, int32_t bands) {
  double *numbers = calloc((size_t)bands, sizeof *numbers);
  const char *at = list;
  int32_t count = 0;
  if (numbers == NULL) {
    refuse_without_memory();
    return NULL;
  }
  for (; count < bands; count++) {
    char *end = NULL;
    numbers[count] = strtod(at, &end);
    if (end == at || !isfinite(numbers[count])) break;
    at = end + strspn(end, " \t\r\n");
    if (*at == ',') at++;
  }
  at += strspn(at, " \t\r\n");
  if (count == bands && *at == 0) return numbers;
  refuse("a finite number for each of its bands", NULL, "%s has for %s: {%.80s}", path, key, list);
  free(numbers);
  return NULL;
}

/* Splits a list of names at its commas. Returns an exit code. */
static int read_names(const char *path, const char *list, Layout *layout) {
  int32_t count = 1;
  for (const char *at = list; *at != 0; at++) count += *at == ',';
  if (count != layout->bands) {
    return refuse("a name for each of its bands", NULL, "%s has %d band names and %d bands", path, (int)count,
                  (int)layout->bands);
  }
  layout->names = calloc((size_t)count, sizeof *layout->names);
  if (layout->names == NULL) return refuse_without_memory();
  for (int32_t b = 0; b < count; b++) {
    const size_t length = strcspn(list, ",");
    char *name = strndup(list, length);
    if (name == NULL) return refuse_without_memory();
    char *inner = trimmed(name);
    memmove(name, inner, strlen(inner) + 1);
    layout->names[b] = name;
    list += length + 1;
  }
  return kDone;
}

/* GDAL names bands that have no name Band 1, Band 2, ...: these say nothing. */
static int are_mere_numbers(const Layout *layout) {
  for (int32_t b = 0; b < layout->bands; b++) {
    char number[32];
    snprintf(number, sizeof number, "Band %d", (int)(b + 1));
    if (strcasecmp(layout->names[b], number) != 0) return 0;
  }
  return 1;
}

static int set_type(const char *path, const Header *header, Layout *layout) {
  static const struct {
    int64_t code;
    int32_t dtype;
    size_t size;
  } kTypes[] = {{1, EOSFM_U8, 1},  {2, EOSFM_I16, 2},  {3, EOSFM_I32, 4}, {4, EOSFM_F32, 4},
                {5, EOSFM_F64, 8}, {12, EOSFM_U16, 2}, {13, EOSFM_U32, 4}};
  for (size_t i = 0; i < sizeof kTypes / sizeof *kTypes; i++) {
    if (kTypes[i].code != header->type) continue;
    layout->dtype = kTypes[i].dtype + (header->order == 1 ? EOSFM_BIG_ENDIAN : 0);
    layout->pixel_size = kTypes[i].size;
    return kDone;
  }
  return refuse("1 (uint8), 2 (int16), 3 (int32), 4 (float32), 5 (float64), 12 (uint16) or 13 (uint32)",
                "gdal_translate -of ENVI -ot Float32", "%s has the data type %" PRId64, path, header->type);
}

static int set_interleave(const char *path, const Header *header, Layout *layout) {
  static const char *const kNames[] = {"bsq", "bil", "bip"};
  for (int i = 0; i < 3; i++) {
    if (strcasecmp(header->interleave, kNames[i]) != 0) continue;
    layout->interleave = (Interleave)i;
    return kDone;
  }
  return refuse("bsq, bil or bip", NULL, "%s has the interleave \"%s\"", path, header->interleave);
}

/* Wavelengths are in nanometres where the header says so or has numbers like these. */
static void to_nanometres(const char *units, Layout *layout) {
  for (int32_t b = 0; b < layout->bands; b++) {
    const int is_micro = strncasecmp(units, "micro", 5) == 0 || strncasecmp(units, "um", 2) == 0 ||
                         (strncasecmp(units, "nano", 4) != 0 && layout->wavelengths[b] < 100);
    if (is_micro) layout->wavelengths[b] *= 1000;
  }
}

static int set_values(const char *path, const Header *header, Layout *layout) {
  if (header->nodata[0] != 0) {
    char *end = NULL;
    layout->nodata = strtod(header->nodata, &end);
    layout->has_nodata = 1;
    if (end == header->nodata || *end != 0) {
      return refuse("a number", NULL, "%s has the data ignore value %s", path, header->nodata);
    }
  }
  if (header->factor[0] != 0) {
    layout->reflectance_factor = strtod(header->factor, NULL);
    if (!(layout->reflectance_factor > 0) || !isfinite(layout->reflectance_factor)) {
      return refuse("a number above 0", NULL, "%s has the reflectance scale factor %s", path, header->factor);
    }
  }
  if (header->gains != NULL || header->offsets != NULL) {
    layout->has_scale = 1;
    const struct {
      const char *key, *list;
      double **numbers, usual;
    } lists[] = {{"data gain values", header->gains, &layout->scales, 1},
                 {"data offset values", header->offsets, &layout->offsets, 0}};
    for (int i = 0; i < 2; i++) {
      if (lists[i].list != NULL) {
        *lists[i].numbers = read_numbers(path, lists[i].key, lists[i].list, layout->bands);
        if (*lists[i].numbers == NULL) return kWrongUse;
        continue;
      }
      *lists[i].numbers = calloc((size_t)layout->bands, sizeof(double));
      if (*lists[i].numbers == NULL) return refuse_without_memory();
      for (int32_t b = 0; b < layout->bands; b++) (*lists[i].numbers)[b] = lists[i].usual;
    }
  }
  if (header->wavelengths != NULL) {
    layout->wavelengths = read_numbers(path, "wavelength", header->wavelengths, layout->bands);
    if (layout->wavelengths == NULL) return kWrongUse;
    to_nanometres(header->units, layout);
  }
  return kDone;
}

static int set_layout(const char *path, const Header *header, Layout *layout) {
  const struct {
    const char *key;
    int64_t value, least, most;
  } numbers[] = {{"samples", header->samples, 1, 1 << 20}, {"lines", header->lines, 1, 1 << 28},
                 {"bands", header->bands, 1, kMostBands},  {"header offset", header->offset, 0, INT64_MAX},
                 {"byte order", header->order, 0, 1},      {"file compression", header->compression, 0, 0}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    if (numbers[i].value >= numbers[i].least && numbers[i].value <= numbers[i].most) continue;
    char expected[80];
    snprintf(expected, sizeof expected, "a whole number from %" PRId64 " to %" PRId64, numbers[i].least,
             numbers[i].most);
    if (numbers[i].value == kUnset)
      return refuse(expected, NULL, "%s has no usable %s", path, numbers[i].key);
    return refuse(expected, NULL, "%s has %s = %" PRId64, path, numbers[i].key, numbers[i].value);
  }
  if (header->frame_offsets != NULL &&
      strspn(header->frame_offsets, "0, \t\r\n") < strlen(header->frame_offsets)) {
    return refuse("pixels without gaps", "gdal_translate -of ENVI", "%s has major frame offsets", path);
  }
  layout->width = header->samples;
  layout->height = header->lines;
  layout->bands = (int32_t)header->bands;
  layout->start = (uint64_t)header->offset;
  int code = set_type(path, header, layout);
  if (code == kDone) code = set_interleave(path, header, layout);
  if (code == kDone) code = set_values(path, header, layout);
  if (code != kDone || header->names == NULL) return code;
  code = read_names(path, header->names, layout);
  if (code != kDone || !are_mere_numbers(layout)) return code;
  for (int32_t b = 0; b < layout->bands; b++) free(layout->names[b]);
  free(layout->names);
  layout->names = NULL;
  return kDone;
}

int read_envi_header(const char *path, Layout *layout) {
  Header header = {.samples = kUnset, .lines = kUnset, .bands = kUnset, .type = kUnset};
  char *text = read_text(path), *rest, *key = NULL, *value = NULL;
  int broken = 0, code;
  if (text == NULL) return kWrongUse;
  rest = text + strcspn(text, "\n");
  if (*rest != 0) rest++;
  int fits = 1;
  while (fits && take_entry(&rest, &key, &value, &broken)) fits = keep_entry(key, value, &header, layout);
  code = !fits    ? refuse("a shorter value", NULL, "%s has for %s: %.80s", path, key, value)
         : broken ? refuse("every { to have its }", NULL, "%s ends within %s", path, key)
                  : set_layout(path, &header, layout);
  free(text);
  return code;
}

/* Writes map info with cells of `stride` pixels: the pixel of reference counts from 1, at the corner of the scene. */
static void write_map_info(FILE *file, const char *info, int32_t stride) {
  enum { kColumn = 1, kRow = 2, kWidth = 5, kHeight = 6 };
  fputs("map info = {", file);
  for (int field = 0; *info != 0; field++) {
    const int length = (int)strcspn(info, ",");
    const double number = strtod(info, NULL);
    if (field > 0) fputc(',', file);
    if (field == kColumn || field == kRow) {
      fprintf(file, " %.17g", (number - 1) / stride + 1);
    } else if (field == kWidth || field == kHeight) {
      fprintf(file, " %.17g", number * stride);
    } else {
      fprintf(file, "%.*s", length, info);
    }
    info += length;
    if (*info == ',') info++;
  }
  fputs("}\n", file);
}

void write_envi_header(FILE *file, const Layout *scene, int64_t height, int64_t width, int32_t channels,
                       int32_t stride) {
  fprintf(file,
          "ENVI\nsamples = %" PRId64 "\nlines = %" PRId64
          "\nbands = %d\nheader offset = 0\nfile type = ENVI Standard\ndata type = 4\ninterleave = bip\n"
          "byte order = 0\ndata ignore value = nan\n",
          width, height, (int)channels);
  if (scene->map_info[0] != 0) write_map_info(file, scene->map_info, stride);
  if (scene->coordinate_system[0] != 0) {
    fprintf(file, "coordinate system string = {%s}\n", scene->coordinate_system);
  }
}
