/* How fast is a bundle here? Rounds of some runs each over one image, and the median of the rounds' medians. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bundle.h"
#include "clock.h"
#include "complain.h"
#include "ending.h"
#include "machine.h"
#include "manifest.h"
#include "text.h"
#include "verbs.h"

enum { kWarmUp = 5, kRuns = 10 };
static const double kSecondsBetweenLines = 10;

/* An image of noise, and the place of its levels. Time does not depend on the values, as long as they are finite. */
typedef struct Work {
  eosfm_band *bands;
  float *pixels;
  eosfm_image image;
  eosfm_level levels[EOSFM_LEVELS];
} Work;

static void free_work(Work *work) {
  for (int l = 0; l < EOSFM_LEVELS; l++) free(work->levels[l].data);
  free(work->bands);
  free(work->pixels);
}

static int make_work(const Bundle *bundle, Work *work) {
  const size_t tile = (size_t)bundle->info.tile, plane = tile * tile, bands = (size_t)bundle->info.bands;
  uint32_t random = 1;
  *work = (Work){.image = EOSFM_IMAGE_INIT};
  work->bands = calloc(bands, sizeof *work->bands);
  work->pixels = malloc(bands * plane * sizeof *work->pixels);
  if (work->bands == NULL || work->pixels == NULL) return refuse_without_memory();
  for (size_t b = 0; b < bands; b++) {
    eosfm_band_info info = EOSFM_BAND_INFO_INIT;
    eosfm_model_describe_band(bundle->model, (int32_t)b, &info);
    float *pixels = work->pixels + b * plane;
    for (size_t i = 0; i < plane; i++) {
      random = random * 1664525U + 1013904223U;
      /* Reflectances from 0.05 to 0.45, as the sensor stores them. */
      pixels[i] = (0.05F + 0.4F * (float)(random >> 8) / 16777216.0F - info.offset) / info.scale;
    }
    work->bands[b] = (eosfm_band)EOSFM_BAND_INIT;
    work->bands[b].data = pixels;
    work->bands[b].column_stride = sizeof *pixels;
    work->bands[b].row_stride = (ptrdiff_t)(tile * sizeof *pixels);
  }
  work->image.bands = work->bands;
  work->image.band_count = bands;
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    const size_t side = tile >> (l + 2);
    work->levels[l] = (eosfm_level)EOSFM_LEVEL_INIT;
    work->levels[l].row_stride = (ptrdiff_t)side;
    work->levels[l].channel_stride = (ptrdiff_t)(side * side);
    work->levels[l].data = malloc(side * side * (size_t)bundle->info.channels[l] * sizeof(float));
    if (work->levels[l].data == NULL) return refuse_without_memory();
  }
  return kDone;
}

static int compare_numbers(const void *one, const void *other) {
  const double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

/* Returns a quartile of sorted numbers, or with 2 their median: between the two that are nearest. */
static double quartile(const double *sorted, int count, int quarter) {
  const int below = quarter * (count - 1) / 4, rest = quarter * (count - 1) % 4;
  return rest == 0 ? sorted[below] : sorted[below] + rest * 0.25 * (sorted[below + 1] - sorted[below]);
}

/* Runs the image so many times; `ms` gets the median. Returns an exit code. */
static int time_runs(const Bundle *bundle, const Work *work, int runs, double *ms) {
  double times[kRuns];
  eosfm_run_options how = EOSFM_RUN_OPTIONS_INIT;
  how.progress = end_if_signalled;
  for (int i = 0; i < runs; i++) {
    const double before = seconds_now();
    const eosfm_status status = eosfm_context_run(bundle->context, &work->image, work->levels, &how);
    times[i] = (seconds_now() - before) * 1e3;
    if (is_ending()) return complain_of_signal();
    if (status != EOSFM_OK) return complain_of_status(bundle, bundle->path, status);
  }
  qsort(times, (size_t)runs, sizeof *times, compare_numbers);
  *ms = quartile(times, runs, 2);
  return kDone;
}

static void print_json(const Bundle *bundle, const Options *options, double load_ms, const double *rounds,
                       double memory) {
  const int64_t macs = read_macs(bundle->path);
  printf("{\n \"schema_version\": 1,\n \"machine\": ");
  print_machine(eosfm_library_get_version());
  printf(",\n \"bundle\": ");
  print_json_string(bundle->path);
  printf(",\n \"threads\": %d,\n \"macs\": ", (int)options->threads);
  if (macs > 0) {
    printf("%" PRId64, macs);
  } else {
    printf("null");
  }
  printf(",\n \"timings\": [\n  {\n   \"name\": ");
  print_json_string(eosfm_context_get_backend(bundle->context));
  printf(",\n   \"load_ms\": %.6g,\n   \"round_ms\": [", load_ms);
  for (int i = 0; i < options->rounds; i++) printf("%s%.9g", i > 0 ? ", " : "", rounds[i]);
  printf("],\n   \"memory_mb\": %.6g\n  }\n ]\n}\n", memory);
}

static int print_text(const Bundle *bundle, const Options *options, double load_ms, double *rounds,
                      double memory) {
  eosfm_requirements needs = EOSFM_REQUIREMENTS_INIT;
  eosfm_context_options how = EOSFM_CONTEXT_OPTIONS_INIT;
  const double tile = (double)bundle->info.tile;
  how.threads = options->threads;
  how.backends = options->backend;
  const eosfm_status status = eosfm_model_get_requirements(bundle->model, &how, &needs);
  if (status != EOSFM_OK) {
    return refuse(NULL, NULL, "%s: %s", bundle->path, eosfm_model_get_error(bundle->model));
  }
  qsort(rounds, (size_t)options->rounds, sizeof *rounds, compare_numbers);
  const double median = quartile(rounds, options->rounds, 2);
  printf("%-10s%d specialists in %d runs, a tile of %d x %d pixels, %s\n",
         eosfm_context_get_backend(bundle->context), (int)bundle->info.specialists, (int)bundle->info.runs,
         (int)bundle->info.tile, (int)bundle->info.tile, bundle->info.isa);
  printf("tile      %.2f ms (%.2f to %.2f), the median and quartiles of %d rounds\n", median,
         quartile(rounds, options->rounds, 1), quartile(rounds, options->rounds, 3), (int)options->rounds);
  printf("speed     %.2f megapixels per second, of tiles that do not overlap\n", tile * tile / 1e3 / median);
  printf("load      %.0f ms\n", load_ms);
  printf("memory    %.1f MB for the context and %.1f MB for the weights, beside %.1f MB of mapped files\n",
         (double)needs.context_bytes / 1e6, (double)needs.weights_bytes / 1e6,
         (double)needs.mapped_bytes / 1e6);
  printf("peak      %.1f MB of the process, its image and its levels included\n", memory * 1.048576);
  return kDone;
}

static int time_rounds(const Bundle *bundle, const Options *options, double load_ms, double base_mb) {
  Work work;
  double *rounds = calloc((size_t)options->rounds, sizeof *rounds), warm_up, reported = seconds_now();
  int code = rounds == NULL ? refuse_without_memory() : kDone;
  if (code == kDone) {
    code = make_work(bundle, &work);
    if (code == kDone) code = time_runs(bundle, &work, kWarmUp, &warm_up);
    for (int i = 0; i < options->rounds && code == kDone; i++) {
      code = time_runs(bundle, &work, kRuns, &rounds[i]);
      if (!options->quiet && seconds_now() - reported >= kSecondsBetweenLines) {
        reported = seconds_now();
        fprintf(stderr, "rounds %d of %d\n", i + 1, (int)options->rounds);
      }
    }
    free_work(&work);
  }
  if (code == kDone && options->json) {
    print_json(bundle, options, load_ms, rounds, memory_mb("VmHWM") - base_mb);
  } else if (code == kDone) {
    code = print_text(bundle, options, load_ms, rounds, memory_mb("VmHWM"));
  }
  free(rounds);
  return code;
}

int bench(const Options *options) {
  Bundle bundle;
  const double base_mb = memory_mb("VmRSS"), started = seconds_now();
  int code = open_bundle(&bundle, options);
  if (code == kDone) code = time_rounds(&bundle, options, (seconds_now() - started) * 1e3, base_mb);
  close_bundle(&bundle);
  return code;
}
