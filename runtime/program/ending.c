#include "ending.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "complain.h"

#include <stdio.h>

static int g_signals = -1; /* readable once a signal has come, which stays in it */

int watch_for_signals(void) {
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGINT);
  sigaddset(&ending, SIGTERM);
  sigprocmask(SIG_BLOCK, &ending, NULL);
  g_signals = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
  return g_signals >= 0 ? kDone : complain(kBug, NULL, NULL, "signals cannot be read: %s", strerror(errno));
}

int is_ending(void) {
  struct pollfd signals = {g_signals, POLLIN, 0};
  return poll(&signals, 1, 0) > 0;
}

int end_if_signalled(void *user, int32_t done, int32_t total) {
  (void)user;
  (void)done;
  (void)total;
  return is_ending();
}

void wait_for_bytes(int file) {
  struct pollfd either[] = {{file, POLLIN, 0}, {g_signals, POLLIN, 0}};
  poll(either, 2, -1);
}

int complain_of_signal(void) {
  struct signalfd_siginfo signal;
  const int is_term =
      read(g_signals, &signal, sizeof signal) == (ssize_t)sizeof signal && signal.ssi_signo == SIGTERM;
  fprintf(stderr, "%s; nothing was written\n", is_term ? "terminated" : "interrupted");
  return is_term ? kTerminated : kInterrupted;
}
