#include "scene.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "complain.h"
#include "ending.h"
#include "envi.h"
#include "npy.h"

enum { kMostWidth = 1 << 20, kMostHeight = 1 << 28, kRowsAtOnce = 32, kBytesAtOnce = 1 << 20 };

static const char kScenes[] =
    "a NumPy array (.npy), or raw pixels with an ENVI header (scene.hdr) beside them";

void free_layout(Layout *layout) {
  for (int32_t b = 0; layout->names != NULL && b < layout->bands; b++) free(layout->names[b]);
  free(layout->names);
  free(layout->wavelengths);
  free(layout->scales);
  free(layout->offsets);
}

/* ---- The header ------------------------------------------------------------------------------- */

static int refuse_kind(const Scene *scene, mode_t mode) {
  if (S_ISDIR(mode)) return refuse(kScenes, NULL, "%s is a folder", scene->path);
  return refuse(kScenes, "pass it through a pipe: eosfm run BUNDLE - --header scene.hdr -o FOLDER < PIPE",
                "%s is a FIFO, a socket or a device", scene->path);
}

/* Returns whether the first four bytes of the file are these. */
static int begins_with(const Scene *scene, const char *bytes) {
  char magic[4];
  return pread(scene->file, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
         memcmp(magic, bytes, sizeof magic) == 0;
}

static int refuse_format(const Scene *scene) {
  const char *fix = "write the header, or name it with --header";
  if (begins_with(scene, "II*\0") || begins_with(scene, "MM\0*") || begins_with(scene, "II+\0")) {
    fix = "gdal_translate -of ENVI SCENE scene.img, or run it by eosfm-edge, which reads GeoTIFF";
  } else if (begins_with(scene, "ENVI")) {
    fix = "name the file with the pixels, which this is the header of";
  }
  return refuse(kScenes, fix, "%s is no NumPy array and no file with an ENVI header", scene->path);
}

/* Opens the file and reads what describes it. */
static int read_header(Scene *scene, const char *header) {
  struct stat there;
  scene->is_pipe = strcmp(scene->path, "-") == 0;
  if (scene->is_pipe) {
    scene->path = "standard input";
    scene->file = dup(STDIN_FILENO);
  } else {
    scene->file = open(scene->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a FIFO is not waited for */
  }
  if (scene->file < 0) {
    return refuse(kScenes, NULL, "%s cannot be read: %s", scene->path, strerror(errno));
  }
  if (!scene->is_pipe) {
    if (fstat(scene->file, &there) != 0) there.st_mode = 0;
    if (!S_ISREG(there.st_mode)) return refuse_kind(scene, there.st_mode);
    scene->size = (uint64_t)there.st_size;
  }
  if (header == NULL && !scene->is_pipe && is_npy(scene->file)) {
    snprintf(scene->header, sizeof scene->header, "%s", scene->path);
    return read_npy_header(scene->path, scene->file, &scene->layout);
  }
  scene->is_envi = 1;
  if (header != NULL) {
    if (snprintf(scene->header, sizeof scene->header, "%s", header) >= (int)sizeof scene->header) {
      return refuse(NULL, NULL, "the name of the header is too long");
    }
  } else if (scene->is_pipe) {
    return refuse("an ENVI header that describes it", "add --header scene.hdr",
                  "nothing describes standard input");
  } else if (begins_with(scene, "ENVI") ||
             !find_envi_header(scene->path, scene->header, sizeof scene->header)) {
    return refuse_format(scene);
  }
  return read_envi_header(scene->header, &scene->layout);
}

static uint64_t pixel_bytes(const Layout *layout) {
  return (uint64_t)layout->width * (uint64_t)layout->height * (uint64_t)layout->bands * layout->pixel_size;
}

/* Checks the sizes of a scene, and that its file has as many bytes as the header says. */
static int check_size(Scene *scene) {
  Layout *layout = &scene->layout;
  if (layout->width < 1 || layout->width > kMostWidth || layout->height < 1 || layout->height > kMostHeight) {
    return refuse("1 to 1048576 columns and 1 to 268435456 rows", NULL,
                  "%s has %" PRId64 " columns and %" PRId64 " rows", scene->header, layout->width,
                  layout->height);
  }
  if (layout->bands == 1) layout->interleave = kByLine; /* one band's rows come one after the other */
  if (scene->is_pipe) {
    if (layout->interleave != kBandSequential) return kDone;
    return refuse(
        "interleave = bil or bip: band after band cannot be read from a pipe without keeping all of it",
        "name the file, or send line after line", "%s says that standard input is band sequential",
        scene->header);
  }
  const uint64_t size = scene->size, needed = pixel_bytes(layout);
  if (size >= layout->start && size - layout->start == needed) return kDone;
  char expected[160];
  snprintf(expected, sizeof expected,
           "%" PRIu64 ": %" PRIu64 " before the pixels, and %d bands of %" PRId64 " x %" PRId64
           " pixels of %zu bytes",
           layout->start + needed, layout->start, (int)layout->bands, layout->height, layout->width,
           layout->pixel_size);
  return refuse(expected,
                size < layout->start + needed ? "transfer it again, if it is cut off" : "look at its header",
                "%s has %" PRIu64 " bytes", scene->path, size);
}

/* ---- Bands ------------------------------------------------------------------------------------ */

/* Writes the names of the bundle's bands into `text`, with commas between them. */
static void list_bands(const Bundle *bundle, char *text, size_t size) {
  size_t length = 0;
  text[0] = 0;
  for (int32_t b = 0; b < bundle->info.bands && length < size; b++) {
    eosfm_band_info band = EOSFM_BAND_INFO_INIT;
    eosfm_model_describe_band(bundle->model, b, &band);
    length += (size_t)snprintf(text + length, size - length, "%s%s", b > 0 ? ", " : "",
                               band.name[0] != 0 ? band.name : "?");
  }
}

/* Finds the bundle's bands among those that a header names. Those of a file that names none are the bundle's, in
 * order. */
static int choose_bands(Scene *scene, const Bundle *bundle) {
  const Layout *layout = &scene->layout;
  char wanted[1024], expected[1100];
  list_bands(bundle, wanted, sizeof wanted);
  snprintf(expected, sizeof expected, "the bands of %s: %s", bundle->path, wanted);
  if (layout->names == NULL) {
    if (layout->bands != bundle->info.bands) {
      return refuse(expected,
                    scene->is_envi
                        ? "give the file these bands, in this order, or name its bands: band names = {...}"
                        : "give the array these bands, in this order",
                    "%s has %d bands, without names", scene->header, (int)layout->bands);
    }
    for (int32_t b = 0; b < scene->wanted; b++) scene->order[b] = b;
    return kDone;
  }
  for (int32_t b = 0; b < scene->wanted; b++) {
    eosfm_band_info band = EOSFM_BAND_INFO_INIT;
    int found = 0;
    eosfm_model_describe_band(bundle->model, b, &band);
    for (int32_t of_file = 0; of_file < layout->bands; of_file++) {
      if (band.name[0] == 0 || strcasecmp(layout->names[of_file], band.name) != 0) continue;
      scene->order[b] = of_file;
      found++;
    }
    if (found == 1) continue;
    return refuse(expected, "call the bands of the file so, in its order: band names = {...}",
                  "%s names %s %s", scene->header, found == 0 ? "no band" : "more than one band",
                  band.name[0] != 0 ? band.name : "as the bundle, which has no names");
  }
  return kDone;
}

/* Returns the wavelength of a band of the bundle in nm, which Sentinel-2's names say too; 0 if it is not known. */
static double wavelength_of(const eosfm_band_info *band) {
  static const struct {
    const char *name;
    double nm;
  } kSentinel2[] = {{"B01", 443},  {"B02", 490},  {"B03", 560}, {"B04", 665}, {"B05", 705},
                    {"B06", 740},  {"B07", 783},  {"B08", 842}, {"B8A", 865}, {"B09", 945},
                    {"B10", 1375}, {"B11", 1610}, {"B12", 2190}};
  if (band->wavelength_nm > 0) return (double)band->wavelength_nm;
  for (size_t i = 0; i < sizeof kSentinel2 / sizeof *kSentinel2; i++) {
    if (strcmp(band->name, kSentinel2[i].name) == 0) return kSentinel2[i].nm;
  }
  return 0;
}

/* Refuses a file whose bands are of another wavelength than those of the bundle that they would be taken for. */
static int check_wavelengths(const Scene *scene, const Bundle *bundle) {
  const double *wavelengths = scene->layout.wavelengths;
  for (int32_t b = 0; wavelengths != NULL && b < scene->wanted; b++) {
    const double nm = wavelengths[scene->order[b]];
    eosfm_band_info band = EOSFM_BAND_INFO_INIT;
    eosfm_model_describe_band(bundle->model, b, &band);
    const double expected_nm = wavelength_of(&band);
    if (!(expected_nm > 0) || fabs(nm - expected_nm) <= 0.05 * expected_nm) continue;
    char expected[80];
    snprintf(expected, sizeof expected, "%s, of about %g nm", band.name, expected_nm);
    return refuse(expected, "name the bands of the file as the bundle does: band names = {...}",
                  "%s gives band %d a wavelength of %g nm", scene->header, (int)(scene->order[b] + 1), nm);
  }
  return kDone;
}

/* Says how a band's values are read: as the bundle says, but for what the file says itself. As `eosfm-edge run` does,
 * a nodata value of the bundle counts if the file stores what the bundle takes; and one that the bundle gives to other
 * bands and not to this one is a measurement in this one. */
static int calibrate(const Scene *scene, const Bundle *bundle, int32_t index, eosfm_stream_band *band) {
  const Layout *layout = &scene->layout;
  eosfm_band_info info = EOSFM_BAND_INFO_INIT;
  eosfm_model_describe_band(bundle->model, index, &info);
  const int32_t of_file = scene->order[index];
  double scale = (double)info.scale, offset = (double)info.offset;
  if (layout->has_scale && (layout->scales[of_file] != 1 || layout->offsets[of_file] != 0)) {
    scale = layout->scales[of_file];
    offset = layout->offsets[of_file];
  } else if (layout->reflectance_factor > 0 && fabs(layout->reflectance_factor * scale - 1) > 1e-6) {
    char expected[80];
    snprintf(expected, sizeof expected, "the scale of the bundle, %g", scale);
    return refuse(expected, "say what the file stores, for each band: data gain values = {...}",
                  "%s has the reflectance scale factor %g, a scale of %g", scene->header,
                  layout->reflectance_factor, 1 / layout->reflectance_factor);
  }
  if (scale == 0) return refuse("another number", NULL, "%s has a data gain value of 0", scene->header);
  band->scale = (float)scale;
  band->offset = (float)offset;
  if (layout->has_nodata) {
    band->has_nodata = !isnan(layout->nodata); /* what is not a number is no data anyway */
    band->nodata = layout->nodata;
  } else if (info.has_nodata && fabs(scale - (double)info.scale) <= 1e-6 * fabs(scale)) {
    band->has_nodata = 1;
    band->nodata = (double)info.nodata;
  }
  for (int32_t b = 0; b < scene->wanted && !info.has_nodata && band->has_nodata; b++) {
    eosfm_band_info other = EOSFM_BAND_INFO_INIT;
    eosfm_model_describe_band(bundle->model, b, &other);
    if (other.has_nodata && (double)other.nodata == band->nodata) band->has_nodata = 0;
  }
  band->calibrated = layout->has_scale || layout->has_nodata;
  return kDone;
}

static int prepare_bands(Scene *scene, const Bundle *bundle) {
  const Layout *layout = &scene->layout;
  const size_t row = (size_t)layout->width * layout->pixel_size;
  scene->wanted = bundle->info.bands;
  const size_t count = (size_t)scene->wanted;
  scene->order = calloc(count, sizeof *scene->order);
  scene->bands = calloc(count, sizeof *scene->bands);
  scene->given = calloc(count, sizeof *scene->given);
  if (scene->order == NULL || scene->bands == NULL || scene->given == NULL) return refuse_without_memory();
  int code = choose_bands(scene, bundle);
  if (code == kDone) code = check_wavelengths(scene, bundle);
  for (int32_t b = 0; b < scene->wanted && code == kDone; b++) {
    eosfm_stream_band *band = &scene->bands[b];
    *band = (eosfm_stream_band)EOSFM_STREAM_BAND_INIT;
    band->dtype = layout->dtype;
    if (layout->interleave == kByPixel) band->column_stride = (ptrdiff_t)layout->pixel_size * layout->bands;
    if (layout->interleave != kBandSequential) band->row_stride = (ptrdiff_t)row * layout->bands;
    code = calibrate(scene, bundle, b, band);
  }
  if (code != kDone) return code;
  /* Of a file that has its bands one after the other, only the wanted ones are read. */
  const size_t at_once =
      row * (size_t)(layout->interleave == kBandSequential ? scene->wanted : layout->bands);
  scene->most = (int32_t)(kBytesAtOnce / at_once < 1             ? 1
                          : kBytesAtOnce / at_once > kRowsAtOnce ? kRowsAtOnce
                                                                 : kBytesAtOnce / at_once);
  scene->rows = malloc(at_once * (size_t)scene->most);
  return scene->rows != NULL ? kDone : refuse_without_memory();
}

/* ---- Rows ------------------------------------------------------------------------------------- */

/* Reads `size` bytes: from `offset`, or of a pipe the next. Returns an exit code. */
static int read_bytes(Scene *scene, void *to, size_t size, uint64_t offset) {
  for (size_t done = 0; done < size;) {
    if (scene->is_pipe) wait_for_bytes(scene->file);
    if (is_ending()) return complain_of_signal();
    const ssize_t got = scene->is_pipe
                            ? read(scene->file, (char *)to + done, size - done)
                            : pread(scene->file, (char *)to + done, size - done, (off_t)(offset + done));
    if (got > 0) {
      done += (size_t)got;
    } else if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
      continue;
    } else if (got < 0) {
      return refuse(NULL, NULL, "%s cannot be read: %s", scene->path, strerror(errno));
    } else {
      char expected[64];
      snprintf(expected, sizeof expected, "%" PRId64 " rows, as %s says", scene->layout.height,
               scene->is_envi ? "its header" : "it");
      return refuse(expected, "send or transfer it again, whole", "%s ends at row %" PRId64, scene->path,
                    scene->row);
    }
  }
  return kDone;
}

/* Skips what stands in a pipe before the pixels. */
static int skip_start(Scene *scene) {
  for (uint64_t left = scene->layout.start; left > 0;) {
    unsigned char skipped[4096];
    const size_t size = left < sizeof skipped ? (size_t)left : sizeof skipped;
    const int code = read_bytes(scene, skipped, size, 0);
    if (code != kDone) return code;
    left -= size;
  }
  return kDone;
}

/* Refuses a pipe that has more than its header says: then it is of another scene. */
static int require_end(Scene *scene) {
  unsigned char more;
  ssize_t got;
  do {
    wait_for_bytes(scene->file);
    if (is_ending()) return complain_of_signal();
    got = read(scene->file, &more, 1);
  } while (got < 0 && (errno == EINTR || errno == EAGAIN));
  if (got == 0) return kDone;
  return refuse("its end", "look at the header, or send one scene at a time",
                "%s goes on after the %" PRId64 " rows of its header", scene->path, scene->layout.height);
}

/* Reads the next rows. */
static int read_rows(Scene *scene) {
  const Layout *layout = &scene->layout;
  const uint64_t row = (uint64_t)layout->width * layout->pixel_size;
  const int64_t left = layout->height - scene->row;
  int code = kDone;
  scene->count = left < scene->most ? (int32_t)left : scene->most;
  memset(scene->given, 0, (size_t)scene->wanted * sizeof *scene->given);
  if (layout->interleave != kBandSequential) {
    const uint64_t line = row * (uint64_t)layout->bands;
    return read_bytes(scene, scene->rows, (size_t)(line * (uint64_t)scene->count),
                      layout->start + line * (uint64_t)scene->row);
  }
  for (int32_t b = 0; b < scene->wanted && code == kDone; b++) {
    const uint64_t first = (uint64_t)scene->order[b] * (uint64_t)layout->height + (uint64_t)scene->row;
    const size_t size = (size_t)(row * (uint64_t)scene->count);
    code = read_bytes(scene, scene->rows + (size_t)b * size, size, layout->start + first * row);
  }
  return code;
}

/* Returns where the rows of a band begin that no stream has taken. */
static const unsigned char *next_row(const Scene *scene, int32_t b) {
  const Layout *layout = &scene->layout;
  const size_t row = (size_t)layout->width * layout->pixel_size, given = (size_t)scene->given[b];
  const size_t of_file = (size_t)scene->order[b];
  switch (layout->interleave) {
    case kBandSequential: return scene->rows + ((size_t)b * (size_t)scene->count + given) * row;
    case kByLine: return scene->rows + (given * (size_t)layout->bands + of_file) * row;
    default: return scene->rows + given * (size_t)layout->bands * row + of_file * layout->pixel_size;
  }
}

int feed(Scene *scene, eosfm_stream *stream, const Bundle *bundle, int *has_ended) {
  int all_given = 1;
  for (int32_t b = 0; b < scene->wanted; b++) all_given &= scene->given[b] == scene->count;
  if (all_given) {
    scene->row += scene->count;
    scene->count = 0;
    if (scene->row == scene->layout.height) {
      *has_ended = 1;
      return scene->is_pipe ? require_end(scene) : kDone;
    }
    const int code = read_rows(scene);
    if (code != kDone) return code;
  }
  for (int32_t b = 0; b < scene->wanted; b++) {
    int32_t taken = 0;
    const int32_t left = scene->count - scene->given[b];
    if (left == 0) continue;
    const eosfm_status status =
        eosfm_stream_push_rows(stream, b, next_row(scene, b), left, (int32_t)scene->layout.width, &taken);
    if (status != EOSFM_OK) return complain_of_status(bundle, scene->path, status);
    scene->given[b] += taken;
  }
  return kDone;
}

int open_scene(Scene *scene, const char *path, const char *header, const Bundle *bundle) {
  memset(scene, 0, sizeof *scene);
  scene->path = path;
  scene->file = -1;
  int code = read_header(scene, header);
  if (code == kDone) code = check_size(scene);
  if (code == kDone) code = prepare_bands(scene, bundle);
  if (code == kDone && scene->is_pipe) code = skip_start(scene);
  return code;
}

void close_scene(Scene *scene) {
  if (scene->file >= 0) close(scene->file);
  free_layout(&scene->layout);
  free(scene->order);
  free(scene->bands);
  free(scene->given);
  free(scene->rows);
}
