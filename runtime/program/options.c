#include "options.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "complain.h"

enum { kMostThreads = 256, kLeastRounds = 2, kMostRounds = 100000 };

/* All options. A verb takes those whose letters it names. */
static const struct Known {
  struct option option;
  const char *value;
  const char *help;
} kKnown[] = {
    {{"output", required_argument, NULL, 'o'},
     "FOLDER",
     "the folder to write, which appears whole; required"},
    {{"overwrite", no_argument, NULL, 'w'}, "", "replace an output that is there"},
    {{"header", required_argument, NULL, 'H'}, "FILE", "the ENVI header of SCENE, if it is not beside it"},
    {{"levels", required_argument, NULL, 'l'},
     "LEVELS",
     "which levels are written, as in 3,4; by default all"},
    {{"overlap", required_argument, NULL, 'p'},
     "PIXELS",
     "that neighbouring tiles share, a multiple of 32; by default a quarter of a tile"},
    {{"backend", required_argument, NULL, 'b'},
     "NAME",
     "who computes; by default native. Several, with spaces between them: the first that works"},
    {{"threads", required_argument, NULL, 't'}, "N", "of the backend; 0, the default, for all cores"},
    {{"memory-limit", required_argument, NULL, 'm'},
     "SIZE",
     "bytes that the library may take, as in 200MB; by default there is no limit"},
    {{"rounds", required_argument, NULL, 'r'}, "N", "of 10 runs each; 20 by default"},
    {{"json", no_argument, NULL, 'j'}, "", "print the result as JSON"},
    {{"quiet", no_argument, NULL, 'q'}, "", "no progress"},
    {{"help", no_argument, NULL, 'h'}, "", "show this"},
};
enum { kKnownCount = sizeof kKnown / sizeof *kKnown };

/* Those with a short name. */
static const char kShort[] = "oqh";

static int takes(const Verb *verb, int letter) {
  return letter == 'h' || strchr(verb->takes, letter) != NULL;
}

void print_help(const Verb *verb) {
  printf("usage: %s\n\n%s\noptions:\n", verb->usage, verb->help);
  for (int i = 0; i < kKnownCount; i++) {
    const struct Known *known = &kKnown[i];
    const int letter = known->option.val;
    char names[64], shortly[8] = "    ";
    if (!takes(verb, letter)) continue;
    if (strchr(kShort, letter) != NULL) snprintf(shortly, sizeof shortly, "-%c, ", letter);
    snprintf(names, sizeof names, "%s--%s %s", shortly, known->option.name, known->value);
    printf("  %-26s %s\n", names, known->help);
  }
}

/* Reads a whole number from `least` to `most`. */
static int read_number(const char *name, const char *text, int32_t least, int32_t most, int32_t *number) {
  char *end = NULL, expected[64];
  const long value = strtol(text, &end, 10);
  if (isdigit((unsigned char)text[0]) && *end == 0 && value >= least && value <= most) {
    *number = (int32_t)value;
    return kDone;
  }
  snprintf(expected, sizeof expected, "a whole number from %d to %d", (int)least, (int)most);
  return refuse(expected, NULL, "--%s is %s", name, text);
}

/* Reads a size: 1400, 200kB, 1.5MB or 2GB. */
static int read_size(const char *name, const char *text, size_t *bytes) {
  static const struct {
    const char *unit;
    double bytes;
  } kUnits[] = {{"", 1}, {"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
  char *unit = NULL;
  const double value = isdigit((unsigned char)text[0]) ? strtod(text, &unit) : -1;
  /* No hexadecimal numbers and no exponents, which strtod would take. */
  const int is_plain = unit != NULL && strspn(text, "0123456789.") == (size_t)(unit - text);
  for (size_t i = 0; is_plain && i < sizeof kUnits / sizeof *kUnits; i++) {
    const double size = value * kUnits[i].bytes;
    if (strcmp(unit, kUnits[i].unit) != 0 || size < 1 || size > 1e18) continue;
    *bytes = (size_t)size;
    return kDone;
  }
  return refuse("a size like 1400, 200kB, 1.5MB or 2GB", NULL, "--%s is %s", name, text);
}

/* Reads which levels are wanted: "3,4". */
static int read_levels(const char *text, int32_t *levels) {
  const char *at = text;
  for (int l = 0; l < EOSFM_LEVELS; l++) levels[l] = 0;
  for (;;) {
    if (*at < '1' || *at > '0' + EOSFM_LEVELS || levels[*at - '1']) break;
    levels[*at - '1'] = 1;
    if (at[1] == 0) return kDone;
    if (at[1] != ',') break;
    at += 2;
  }
  return refuse("some of 1, 2, 3 and 4, as in 3,4", NULL, "--levels is %s", text);
}

static int read_option(int letter, const char *name, const char *value, Options *options) {
  switch (letter) {
    case 'o': options->output = value; return kDone;
    case 'w': options->overwrite = 1; return kDone;
    case 'H': options->header = value; return kDone;
    case 'l': return read_levels(value, options->levels);
    case 'p': return read_number(name, value, 0, 1024, &options->overlap);
    case 'b': options->backend = value; return kDone;
    case 't': return read_number(name, value, 0, kMostThreads, &options->threads);
    case 'm': return read_size(name, value, &options->memory_limit);
    case 'r': return read_number(name, value, kLeastRounds, kMostRounds, &options->rounds);
    case 'j': options->json = 1; return kDone;
    default: options->quiet = 1; return kDone;
  }
}

int read_options(const Verb *verb, int count, char **words, Options *options, int *wants_help) {
  struct option known[kKnownCount + 1];
  const char *names[256] = {NULL}, *missing;
  char letters[32] = ":";
  int given = 0, letter;
  for (int i = 0; i < kKnownCount; i++) {
    const int short_name = kKnown[i].option.val;
    if (!takes(verb, short_name)) continue;
    names[short_name] = kKnown[i].option.name;
    known[given++] = kKnown[i].option;
    if (strchr(kShort, short_name) == NULL) continue;
    const size_t length = strlen(letters);
    snprintf(letters + length, sizeof letters - length, "%c%s", short_name,
             kKnown[i].option.has_arg ? ":" : "");
  }
  memset(&known[given], 0, sizeof known[given]);

  *options = (Options){.backend = "native", .levels = {1, 1, 1, 1}, .overlap = -1, .rounds = 20};
  *wants_help = 0;
  opterr = 0;
  while ((letter = getopt_long(count, words, letters, known, NULL)) != -1) {
    if (letter == '?') {
      return refuse(verb->usage, NULL, "eosfm %s has no option %s", verb->name, words[optind - 1]);
    }
    if (letter == ':') return refuse(verb->usage, NULL, "%s lacks its value", words[optind - 1]);
    if (letter == 'h') {
      *wants_help = 1;
      return kDone;
    }
    const int code = read_option(letter, names[letter], optarg, options);
    if (code != kDone) return code;
  }
  missing = optind + verb->words > count           ? (optind == count ? "BUNDLE" : "SCENE")
            : takes(verb, 'o') && !options->output ? "--output"
                                                   : NULL;
  if (missing != NULL) return refuse(verb->usage, verb->example, "eosfm %s lacks %s", verb->name, missing);
  if (optind + verb->words < count) {
    return refuse(verb->usage, NULL, "eosfm %s has no use for %s", verb->name, words[optind + verb->words]);
  }
  options->bundle = words[optind];
  options->scene = verb->words > 1 ? words[optind + 1] : NULL;
  return kDone;
}
