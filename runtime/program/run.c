/* A bundle over a scene, whose rows stream through it. */
#include <inttypes.h>
#include <stdio.h>

#include "bundle.h"
#include "clock.h"
#include "complain.h"
#include "ending.h"
#include "features.h"
#include "folder.h"
#include "scene.h"
#include "text.h"
#include "verbs.h"

static const double kSecondsBetweenLines = 10;

typedef struct Report {
  int64_t tiles;
  int64_t skipped;
  double seconds;
  double compute_seconds;
} Report;

/* Says why a tile gave values that are not finite: the bundle, if its known answer does not come out either, and else
 * the scene. */
static int blame(const Bundle *bundle, const Scene *scene) {
  char sentence[1024];
  double relative[EOSFM_LEVELS];
  snprintf(sentence, sizeof sentence, "%s", eosfm_context_get_error(bundle->context));
  if (eosfm_context_verify(bundle->context, relative) != EOSFM_OK) {
    return complain(kCheckFailed, NULL, "transfer or export the bundle again",
                    "the bundle is damaged: it does not give its known answer here, and %s", sentence);
  }
  return complain(kCheckFailed, NULL, "look at the values of the scene, and at their scale and offset",
                  "%s: %s", scene->path, sentence);
}

/* Pushes rows and takes patches until the scene ends. */
static int stream_scene(eosfm_stream *stream, const Bundle *bundle, Scene *scene, Features *features,
                        const Options *options, Report *report) {
  eosfm_patch_level levels[EOSFM_LEVELS] = EOSFM_PATCH_LEVELS_INIT;
  eosfm_patch patch = EOSFM_PATCH_INIT;
  eosfm_run_options how = EOSFM_RUN_OPTIONS_INIT;
  double reported = seconds_now();
  patch.levels = levels;
  how.progress = end_if_signalled;
  for (;;) {
    const double before = seconds_now();
    const eosfm_status status = eosfm_stream_pull_patch(stream, &how, &patch);
    report->compute_seconds += seconds_now() - before;
    if (is_ending()) return complain_of_signal();
    int code = kDone;
    if (status == EOSFM_OK) {
      code = write_patch(features, &patch);
    } else if (status == EOSFM_AGAIN) {
      int has_ended = 0;
      code = feed(scene, stream, bundle, &has_ended);
      if (code == kDone && has_ended) eosfm_stream_end(stream);
    } else if (status == EOSFM_END) {
      break;
    } else {
      return status == EOSFM_NOT_FINITE ? blame(bundle, scene)
                                        : complain_of_status(bundle, scene->path, status);
    }
    if (code != kDone) return code;
    if (!options->quiet && seconds_now() - reported >= kSecondsBetweenLines) {
      reported = seconds_now();
      fprintf(stderr, "rows %" PRId64 " of %" PRId64 "\n", scene->row, scene->layout.height);
    }
  }
  report->tiles = patch.tiles;
  report->skipped = patch.tiles_skipped;
  if (patch.tiles_skipped < patch.tiles) return kDone;
  return refuse(NULL, "look at the file, and at its nodata value",
                "%s has no valid pixel: every one is nodata or not a number", scene->path);
}

static int compute(const Bundle *bundle, Scene *scene, Features *features, const Options *options,
                   Report *report) {
  eosfm_stream_options how = EOSFM_STREAM_OPTIONS_INIT;
  eosfm_stream *stream = NULL;
  how.width = (int32_t)scene->layout.width;
  how.overlap = options->overlap;
  how.bands = scene->bands;
  how.band_count = (size_t)scene->wanted;
  for (int l = 0; l < EOSFM_LEVELS; l++) how.levels[l] = options->levels[l];
  const eosfm_status status = eosfm_stream_create(bundle->context, &how, &stream);
  if (status != EOSFM_OK) return complain_of_status(bundle, scene->path, status);
  const int code = stream_scene(stream, bundle, scene, features, options, report);
  eosfm_stream_destroy(stream);
  return code;
}

static void print_report(const Bundle *bundle, const Scene *scene, const Features *features,
                         const Options *options, const Report *report) {
  const double megapixels = (double)scene->layout.width * (double)scene->layout.height / 1e6;
  const char *backend = eosfm_context_get_backend(bundle->context);
  uint64_t all = 0;
  if (options->json) {
    printf("{\n \"output\": ");
    print_json_string(options->output);
    printf(",\n \"report\": {\n  \"backend\": ");
    print_json_string(backend);
    printf(",\n  \"grn\": \"tile\",\n  \"megapixels\": %.9g,\n  \"tiles\": %" PRId64
           ",\n  \"skipped_tiles\": %" PRId64
           ",\n  \"seconds\": %.6f,\n  \"compute_seconds\": %.6f,\n  \"bytes\": {",
           megapixels, report->tiles, report->skipped, report->seconds, report->compute_seconds);
  } else {
    printf("scene       %.2f megapixels\n", megapixels);
    printf("tiles       %" PRId64 ", of which %" PRId64 " without data\n", report->tiles, report->skipped);
    printf("time        %.1f s, %.2f s per megapixel (%s: %.1f s)\n", report->seconds,
           report->seconds / megapixels, backend, report->compute_seconds);
  }
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    const LevelFile *level = &features->levels[l];
    if (level->file < 0) continue;
    if (options->json) {
      printf("%s\n   \"%s\": %" PRIu64, all > 0 ? "," : "", level->name, level_bytes(level));
    } else {
      printf("%s  %.1f MB\n", level->name, (double)level_bytes(level) / 1e6);
    }
    all += level_bytes(level);
  }
  if (options->json) {
    printf("\n  }\n }\n}\n");
  } else {
    printf("all         %.1f MB in %s\n", (double)all / 1e6, options->output);
  }
}

int run(const Options *options) {
  const double started = seconds_now();
  Bundle bundle;
  Scene scene = {.file = -1};
  Folder folder = {.lock = -1};
  Features features = {.row = NULL};
  Report report = {0, 0, 0, 0};
  for (int l = 0; l < EOSFM_LEVELS; l++) features.levels[l].file = -1;
  int code = open_bundle(&bundle, options);
  if (code == kDone) code = open_scene(&scene, options->scene, options->header, &bundle);
  if (code == kDone) code = create_folder(&folder, options->output, options->overwrite);
  if (code == kDone && (folder_holds(&folder, options->scene) || folder_holds(&folder, scene.header))) {
    code = refuse(NULL, "choose another output", "the input %s is in the output %s", options->scene,
                  options->output);
  }
  if (code == kDone) code = create_features(&features, &folder, &scene, &bundle, options->levels);
  if (code == kDone) code = compute(&bundle, &scene, &features, options, &report);
  if (code == kDone) code = finish_features(&features);
  if (code == kDone && is_ending()) code = complain_of_signal();
  if (code == kDone) code = publish_folder(&folder);
  if (code == kDone) {
    report.seconds = seconds_now() - started;
    print_report(&bundle, &scene, &features, options, &report);
  }
  close_features(&features);
  abandon_folder(&folder);
  close_scene(&scene);
  close_bundle(&bundle);
  return code;
}
