/* The command line of a verb. */
#ifndef EOSFM_PROGRAM_OPTIONS_H
#define EOSFM_PROGRAM_OPTIONS_H

#include <eosfm.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Options {
  const char *bundle;
  const char *scene;
  const char *output;  /* a folder */
  const char *header;  /* of the scene; NULL: it is found beside it */
  const char *backend; /* names with spaces between them, as eosfm_context_options has them */
  int32_t threads;     /* 0: all cores */
  size_t memory_limit; /* bytes; 0: none */
  int32_t levels[EOSFM_LEVELS]; /* not 0: wanted */
  int32_t overlap; /* pixels; -1: the library's choice */
  int32_t rounds;
  int overwrite;
  int json;
  int quiet;
} Options;

/* A verb: what it takes and how it is called. */
typedef struct Verb {
  const char *name;
  const char *takes; /* the letters of its options, as options.c has them */
  int words;         /* arguments that are no options: 1 for BUNDLE, 2 for BUNDLE SCENE */
  const char *usage;
  const char *example; /* that an error shows */
  const char *help;
  int (*run)(const Options *options); /* returns an exit code */
} Verb;

/* Reads what follows the verb. Sets *wants_help instead where --help is there. Returns an exit code. */
int read_options(const Verb *verb, int count, char **words, Options *options, int *wants_help);

/* Prints the help of a verb: its usage, and its options. */
void print_help(const Verb *verb);

#endif
