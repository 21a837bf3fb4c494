#ifndef EOSFM_PROGRAM_CLOCK_H
#define EOSFM_PROGRAM_CLOCK_H

/* Returns seconds from some moment on. */
double seconds_now(void);

#endif
