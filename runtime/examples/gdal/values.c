#include "values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  kSide = 128,  /* pixels of the sample, in each direction */
  kWindows = 8, /* without overviews: windows in each direction, of kSide / kWindows pixels */
  kPixels = kSide * kSide
};

static const char kEightBit[] = "-scale 0.00392157 -offset 0";

/* The valid pixels of one band, sorted by value. */
typedef struct {
  const SceneBand *read;
  double *stored;
  int count;
  int is_shortwave; /* beyond 1300 nm, where water and shadow are black */
  int is_cirrus;    /* where all is black under a clear sky */
  double step;      /* of physical values, between two stored integers */
  double dark, median, bright; /* the 1st, 50th and 99th percentile of physical values */
  double lowest, highest;
} Sample;

static double physical(const Sample *band, double stored) {
  return stored * (double)band->read->scale + (double)band->read->offset;
}

static int compare(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static double percentile(const Sample *band, double percent) {
  return physical(band, band->stored[(int)lround(percent / 100.0 * (band->count - 1))]);
}

/* The share of a band's pixels that have its lowest value, or less than an edge. */
static double share_of_lowest(const Sample *band) {
  int count = 0;
  while (count < band->count && band->stored[count] == band->stored[0]) count++;
  return (double)count / band->count;
}

static double share_below(const Sample *band, double edge) {
  int count = 0;
  while (count < band->count && physical(band, band->stored[count]) < edge) count++;
  return (double)count / band->count;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int read_window(const SceneBand *band, int column, int row, int width, int height, int side, int line,
                       double *values, unsigned char *masks) {
  const GSpacing size = sizeof *values, pitch = size * line;
  if (GDALRasterIOEx(band->band, GF_Read, column, row, width, height, values, side, side, GDT_Float64, size,
                     pitch, NULL) != CE_None) {
    return -1;
  }
  return band->mask != NULL && GDALRasterIOEx(band->mask, GF_Read, column, row, width, height, masks, side,
                                              side, GDT_Byte, 1, line, NULL) != CE_None
             ? -1
             : 0;
}

/* Reads kSide * kSide pixels of a band, NaN where it has no data: an overview, or windows side by side where
 * an overview would decode all of the band. */
static int read_sample(const SceneBand *band, double *values) {
  static unsigned char masks[kPixels];
  const int side = kSide / kWindows;
  const int is_small = band->width <= 4 * kSide || band->height <= 4 * kSide;
  memset(masks, 1, sizeof masks);
  if (is_small || GDALGetOverviewCount(band->band) > 0) {
    if (read_window(band, band->column, band->row, band->width, band->height, kSide, kSide, values, masks)) {
      return -1;
    }
  }
  for (int w = 0; !is_small && GDALGetOverviewCount(band->band) == 0 && w < kWindows * kWindows; w++) {
    const int across = w % kWindows, down = w / kWindows;
    const int pixels = side / band->step > 0 ? side / band->step : 1;
    const int at = down * side * kSide + across * side;
    if (read_window(band, band->column + (band->width - pixels) * across / (kWindows - 1),
                    band->row + (band->height - pixels) * down / (kWindows - 1), pixels, pixels, side, kSide,
                    values + at, masks + at)) {
      return -1;
    }
  }
  for (int i = 0; i < kPixels; i++) {
    if (masks[i] == 0 || (band->has_nodata && (float)values[i] == band->nodata)) values[i] = NAN;
  }
  return 0;
}

/* Keeps the pixels in which every band has data, and sorts them. */
static void summarise(Sample *samples, int count) {
  int kept = 0;
  for (int i = 0; i < kPixels; i++) {
    int valid = 1;
    for (int b = 0; b < count; b++) valid &= isfinite(samples[b].stored[i]) != 0;
    if (!valid) continue;
    for (int b = 0; b < count; b++) samples[b].stored[kept] = samples[b].stored[i];
    kept++;
  }
  for (int b = 0; b < count; b++) {
    Sample *band = &samples[b];
    band->count = kept;
    if (kept == 0) continue;
    qsort(band->stored, (size_t)kept, sizeof *band->stored, compare);
    band->step = fabs((double)band->read->scale);
    band->dark = percentile(band, 1);
    band->median = percentile(band, 50);
    band->bright = percentile(band, 99);
    band->lowest = physical(band, band->stored[0]);
    band->highest = physical(band, band->stored[kept - 1]);
  }
}

/* ---- What cannot be right -------------------------------------------------------------------- */

/* What was found, what was expected, and GDAL's tags, or a step before, that fix it. */
static int refuse(const char *input, const char *found, const char *expected, const char *fix) {
  fprintf(stderr,
          "%s, read as declared, %s\n  expected: %s\n  fix: %s; if the values are right, --trust-values\n",
          input, found, expected, fix);
  return -1;
}

static int refuse_with_tags(const char *input, const char *found, const char *expected, const char *tags) {
  char fix[160];
  snprintf(fix, sizeof fix, "give the size of a stored step in the file: gdal_edit.py %s FILE", tags);
  return refuse(input, found, expected, fix);
}

/* A value that most bands have in over 1 % of their pixels, and that none of them can have. */
static int find_nodata(const Sample *bands, int count, double least) {
  int often = 0, first = -1;
  for (int b = 0; b < count; b++) {
    if (bands[b].lowest >= least || share_of_lowest(&bands[b]) <= 0.01) continue;
    if (often++ == 0) first = b;
  }
  return often * 2 > count ? first : -1;
}

static int refuse_nodata(const char *input, const Sample *band, double least) {
  char found[120], expected[40], tags[40];
  snprintf(found, sizeof found, "has over 1 %% of its pixels at one value, which would be %.6g",
           band->lowest);
  snprintf(expected, sizeof expected, "%g or more", least);
  snprintf(tags, sizeof tags, "-a_nodata %.9g", band->stored[0]);
  return refuse_with_tags(input, found, expected, tags);
}

static int is_eight_bit(const Sample *band) {
  const GDALDataType type = GDALGetRasterDataType(band->read->band);
  return GDALGetDataTypeSizeBytes(type) == 1;
}

/* An 8-bit picture, stored reflectances, or stored integers, instead of what the bundle's scale means. */
static int doubt_scale(const char *input, const Sample *bands, int count) {
  static const char expected[] = "reflectances from 0 to about 1";
  int pictures = 0, narrow = 0, small = 0, large = 0, dark = 0, shortwave = 0, eight_bit = 0;
  double bright = 0.0, median = 0.0, highest = 0.0;
  char found[160];
  for (int b = 0; b < count; b++) {
    const Sample *band = &bands[b];
    const double last = band->stored[band->count - 1], usual = band->stored[(band->count - 1) * 99 / 100];
    const double most = fmax(fabs(usual), fabs(band->stored[(band->count - 1) / 100]));
    pictures += band->step < 1e-3 && last <= 255.0 && usual >= 100.0;
    narrow += is_eight_bit(band) && 255.0 * band->step + (double)band->read->offset < 0.1;
    small += band->step <= 0.01 && most < 2.5;
    large += band->median > 2.5;
    dark += band->dark > 0.45;
    shortwave |= band->is_shortwave;
    eight_bit += last <= 255.0;
    bright += band->bright / count;
    median += band->median / count;
    highest = fmax(highest, band->highest);
  }
  if (pictures == count || narrow == count) {
    snprintf(found, sizeof found, "has reflectances up to %.3g: an 8-bit picture", highest);
    return refuse_with_tags(input, found, expected, kEightBit);
  }
  if (small == count) {
    snprintf(found, sizeof found, "has no stored value beyond 2.5, which are reflectances up to %.3g",
             highest);
    return refuse(input, found, expected,
                  "if they are reflectances as they are, store them as the bundle does: gdal_translate -ot "
                  "UInt16 -scale 0 1 0 10000, and gdal_edit.py -scale 0.0001 -offset 0");
  }
  snprintf(found, sizeof found, "has a median reflectance of %.3g", median);
  if (large == count) {
    return refuse_with_tags(input, found, expected,
                            eight_bit == count ? kEightBit : "-scale 0.0001 -offset 0");
  }
  if (dark == count && (shortwave || bright > 1.25)) {
    return refuse(
        input, found, expected,
        "give the size of a stored step: of Landsat Collection 2, gdal_edit.py -scale 0.00002 -offset -0.1 "
        "(level 1) or -scale 0.0000275 -offset -0.2 (level 2) FILE");
  }
  return 0;
}

/* An offset that the product does not have, or that nobody subtracted. */
static int doubt_offset(const char *input, const Sample *bands, int count) {
  int negative = 0, floored = 0, darkish = 0, rather = 0;
  int cirrus = 0, cirrus_darkish = 0, cirrus_rather = 0, shortwave_darkish = 0;
  double lowest = INFINITY;
  char found[160];
  for (int b = 0; b < count; b++) {
    const Sample *band = &bands[b];
    const int is_darkish = band->dark < 0.15, is_rather = band->dark < 0.17;
    lowest = fmin(lowest, band->lowest);
    negative += band->dark < -0.02;
    floored += share_below(band, 0.095) <= 0.01;
    darkish += is_darkish;
    rather += is_rather;
    cirrus += band->is_cirrus;
    cirrus_darkish |= band->is_cirrus && is_darkish;
    cirrus_rather |= band->is_cirrus && is_rather;
    shortwave_darkish |= band->is_shortwave && is_darkish;
  }
  if (negative * 2 > count) {
    snprintf(found, sizeof found,
             "has reflectances down to %.3f, and more than 1 %% below -0.02 in most bands", lowest);
    return refuse(
        input, found, "0 or more, but for the noise of dark water",
        "if the product has no offset (Sentinel-2 before baseline 04.00), gdal_edit.py -scale 0.0001 "
        "-offset 0 FILE");
  }
  const int raised = cirrus > 0 ? cirrus_darkish || (cirrus_rather && rather * 2 > count)
                                : shortwave_darkish && darkish * 2 > count;
  if (lowest < 0.09 || floored < count || !raised) return 0;
  snprintf(found, sizeof found, "has no reflectance below %.3f in any band", lowest);
  return refuse(
      input, found, "dark pixels near 0: water and shadow in the infrared, cirrus (B10) under a clear sky",
      "Sentinel-2 from baseline 04.00 stores 1000 more: gdal_edit.py -scale 0.0001 -offset -0.1 FILE");
}

static int doubt_light(const char *input, const Sample *bands, int count, int is_known) {
  if (count == 0) return 0;
  if (is_known) {
    if (doubt_scale(input, bands, count) != 0) return -1;
    const int nodata = find_nodata(bands, count, -0.5);
    if (nodata >= 0) return refuse_nodata(input, &bands[nodata], -0.5);
  } else {
    for (int b = 0; b < count; b++) {
      if (bands[b].dark < -0.5 || bands[b].bright > 2.5) return 0;
    }
  }
  return doubt_offset(input, bands, count);
}

static int doubt_radar(const char *input, const Sample *bands, int count) {
  static const char expected[] = "backscatter in dB, about -30 to 5";
  int linear = 0, faint = 0;
  char found[120];
  if (count == 0) return 0;
  for (int b = 0; b < count; b++) {
    linear += bands[b].dark >= 0;
    faint += bands[b].median < -80;
  }
  snprintf(found, sizeof found, "has a median backscatter of %.3g", bands[0].median);
  if (linear == count) {
    return refuse(input, found, expected, "convert it to dB: 10 * log10 of power, 20 * log10 of amplitude");
  }
  if (faint == count) return refuse_with_tags(input, found, expected, "-scale 0.01 -offset 0");
  const int nodata = find_nodata(bands, count, -80);
  return nodata >= 0 ? refuse_nodata(input, &bands[nodata], -80) : 0;
}

/* ---- Which bands are of which kind ------------------------------------------------------------ */

static int is_one_of(const char *name, const char *const *names) {
  for (; *names != NULL; names++) {
    if (strcmp(name, *names) == 0) return 1;
  }
  return 0;
}

static int is_sunlight(const eosfm_band_info *band) {
  static const char *const names[] = {"B01", "B02", "B03", "B04", "B05", "B06", "B07",
                                      "B08", "B8A", "B09", "B10", "B11", "B12", NULL};
  const float nm = band->wavelength_nm;
  const int is_usual = band->scale == 1.0F || (band->scale >= 1e-5F && band->scale <= 0.01F);
  return is_usual && fabsf(band->offset) <= 0.5F &&
         (nm > 0 ? nm >= 350 && nm <= 2500 : is_one_of(band->name, names));
}

static int is_decibels(const eosfm_band_info *band) {
  static const char *const names[] = {"VV", "VH", "HH", "HV", NULL};
  const float s = band->scale;
  return (s == 1.0F || s == 0.1F || s == 0.01F || s == 0.001F) && band->offset == 0 &&
         is_one_of(band->name, names);
}

static void describe(Sample *sample, const eosfm_band_info *band) {
  static const char *const shortwave[] = {"B10", "B11", "B12", NULL};
  const float nm = band->wavelength_nm;
  sample->is_shortwave = nm > 0 ? nm >= 1300 : is_one_of(band->name, shortwave);
  sample->is_cirrus = nm > 0 ? nm >= 1360 && nm <= 1390 : strcmp(band->name, "B10") == 0;
}

int require_plausible(const Scene *scene, eosfm_model *model, const char *input) {
  Sample all[kMostBands], light[kMostBands], radar[kMostBands];
  int lights = 0, radars = 0, is_known = 1, result = 0;
  double *values = malloc((size_t)scene->count * kPixels * sizeof *values);
  if (values == NULL) return complain(input, "there is no memory for a sample of its pixels");
  for (int b = 0; b < scene->count && result == 0; b++) {
    all[b].read = &scene->bands[b];
    all[b].stored = values + (size_t)b * kPixels;
    if (read_sample(&scene->bands[b], all[b].stored) != 0) {
      result = complain("a band cannot be read", CPLGetLastErrorMsg());
    }
  }
  if (result == 0) summarise(all, scene->count);
  for (int b = 0; b < scene->count && result == 0; b++) {
    eosfm_band_info band = EOSFM_BAND_INFO_INIT;
    eosfm_model_describe_band(model, b, &band);
    describe(&all[b], &band);
    if (is_sunlight(&band)) {
      is_known &= band.scale != 1.0F;
      light[lights++] = all[b];
    } else if (is_decibels(&band)) {
      radar[radars++] = all[b];
    }
  }
  if (result == 0 && all[0].count > 0) result = doubt_light(input, light, lights, is_known);
  if (result == 0 && all[0].count > 0) result = doubt_radar(input, radar, radars);
  free(values);
  return result;
}
