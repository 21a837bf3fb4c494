/* SIGINT and SIGTERM. They are blocked, and looked for where the program can stop: nothing is interrupted in the
 * middle, and what was begun is cleaned up. */
#ifndef EOSFM_PROGRAM_ENDING_H
#define EOSFM_PROGRAM_ENDING_H

#include <stddef.h>
#include <stdint.h>

/* Blocks the signals of this thread, and of those that it makes. Returns an exit code. */
int watch_for_signals(void);

/* Returns whether one has come. */
int is_ending(void);

/* An eosfm_progress_fn that cancels when one has come. */
int end_if_signalled(void *user, int32_t done, int32_t total);

/* Waits until a pipe has bytes or has ended, or a signal has come. */
void wait_for_bytes(int file);

/* Says which signal has come; returns kInterrupted or kTerminated. */
int complain_of_signal(void);

#endif
