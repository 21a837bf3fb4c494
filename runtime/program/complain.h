/* Errors and warnings on standard error: found, expected, fix. */
#ifndef EOSFM_PROGRAM_COMPLAIN_H
#define EOSFM_PROGRAM_COMPLAIN_H

/* Exit codes, as of `eosfm-edge`. Functions that can fail return one of them; kDone is success. */
enum {
  kDone = 0,
  kCheckFailed = 1,  /* everything was read and run, but the result is not what it must be */
  kWrongUse = 2,     /* the user can fix it: a wrong command line, bad input, a full disk */
  kBug = 3,          /* the user cannot */
  kInterrupted = 130, /* 128 and the number of the signal, as shells have it */
  kTerminated = 143
};

/* Prints an error and returns `code`. `expected` and `fix` may be NULL. Control characters, which names of
 * others may have, are printed as question marks. */
int complain(int code, const char *expected, const char *fix, const char *found, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with kWrongUse. */
#define refuse(expected, fix, ...) complain(kWrongUse, expected, fix, __VA_ARGS__)

/* Prints a warning. */
void warn(const char *sentence);

/* Complains that memory cannot be had; returns kWrongUse. */
int refuse_without_memory(void);

/* Writes a text of some length into `safe`, with a question mark for each control character but tabs and line
 * ends: a terminal would obey them. Cuts what does not fit. */
void make_printable(const char *text, char *safe, unsigned long size);

#endif
