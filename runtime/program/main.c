/* eosfm: verifies, runs and times bundles, without Python. It uses nothing of libeosfm but its header. */
#include <eosfm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "complain.h"
#include "ending.h"
#include "options.h"
#include "text.h"
#include "verbs.h"

static const Verb kVerbs[] = {
    {"verify", "btmj", 1, "eosfm verify BUNDLE [OPTIONS]", "eosfm verify six.eosfm",
     "Check that this machine computes the bundle's known answer. Exits with 1 if a level is off by more\n"
     "than the bundle allows. It does not check SHA-256 of the files, nor manifest.json: eosfm-edge verify\n"
     "does, on any machine with Python.\n",
     verify},
    {"run", "owHlpbtmjq", 2, "eosfm run BUNDLE SCENE -o FOLDER [OPTIONS]",
     "eosfm run six.eosfm scene.npy -o features",
     "Run a bundle over a scene and write its feature levels, cells [height][width][channels] of float32, "
     "NaN\n"
     "where there is no data. SCENE is\n"
     "  - a NumPy array [bands][height][width] (.npy), with the bundle's bands in order: level1.npy ... are\n"
     "    written;\n"
     "  - raw pixels with an ENVI header beside them (scene.hdr): level1.img and level1.hdr ... are "
     "written,\n"
     "    with the georeference of the scene;\n"
     "  - \"-\", such pixels from standard input, line by line (bil or bip), with --header.\n"
     "Memory does not grow with the length of the scene.\n",
     run},
    {"bench", "btmrjq", 1, "eosfm bench BUNDLE [OPTIONS]", "eosfm bench six.eosfm",
     "Time a bundle on this machine, on an image of noise. Nothing else should run meanwhile. --json is for\n"
     "eosfm-edge prune --measured.\n",
     bench},
};
enum { kVerbCount = sizeof kVerbs / sizeof *kVerbs };

static const char kUsage[] = "eosfm verify | run | bench BUNDLE ..., eosfm --help, eosfm --version";

static void print_usage(void) {
  printf("usage: %s\n\n", kUsage);
  for (int i = 0; i < kVerbCount; i++) printf("  %s\n", kVerbs[i].usage);
  printf("\neosfm VERB --help says more. Exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 a "
         "bug in\n"
         "eosfm; 130 interrupted; 143 terminated.\n");
}

/* Prints the version, and which engines are here. */
static void print_version(void) {
  printf("eosfm %s\n", eosfm_library_get_version());
  for (int32_t i = 0;; i++) {
    char reason[512] = "";
    eosfm_engine_info engine = EOSFM_ENGINE_INFO_INIT;
    engine.reason = reason;
    engine.reason_size = sizeof reason;
    if (eosfm_library_describe_engine(i, &engine) != EOSFM_OK) break;
    const char *state = engine.status == EOSFM_NOT_FOUND ? "not here"
                        : engine.status != EOSFM_OK      ? reason
                        : engine.isa != NULL             ? engine.isa
                                                         : "here";
    printf("  %-26s%s\n", engine.name, state);
  }
}

static int obey(int count, char **words) {
  if (count < 2) return refuse(kUsage, "eosfm --help", "no verb was given");
  if (strcmp(words[1], "--help") == 0 || strcmp(words[1], "-h") == 0) {
    print_usage();
    return kDone;
  }
  if (strcmp(words[1], "--version") == 0) {
    print_version();
    return kDone;
  }
  for (int i = 0; i < kVerbCount; i++) {
    const Verb *verb = &kVerbs[i];
    Options options;
    int wants_help = 0, code;
    if (strcmp(words[1], verb->name) != 0) continue;
    code = read_options(verb, count - 1, words + 1, &options, &wants_help);
    if (code != kDone) return code;
    if (wants_help) {
      print_help(verb);
      return kDone;
    }
    code = watch_for_signals();
    return code != kDone ? code : verb->run(&options);
  }
  return refuse(kUsage, "eosfm --help", "there is no verb %s", words[1]);
}

int main(int count, char **words) {
  static char printed_at_once[1 << 16];
  /* A pipe without a reader and a file that is too large are errors of write. */
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  setvbuf(stdout, printed_at_once, _IOFBF, sizeof printed_at_once);
  const int code = obey(count, words);
  const int printed = finish_printing();
  return code != kDone ? code : printed;
}
