/* Features of every scene that is moved into a folder: watch_folder [--trust-values] BUNDLE INBOX OUTBOX
 *
 * For systemd: see eosfm-watch.service. Scenes are moved in by renaming, so that they are whole when they
 * are seen; what begins with a dot is not looked at. Scenes that OUTBOX has already are left alone, so that
 * a restart goes on where it was; one that fails is tried again whenever another comes.
 * SIGTERM ends it after the scene that is being run. */
#define _GNU_SOURCE /* ppoll */
#include <dirent.h>
#include <errno.h>
#include <gdal.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "features.h"

static volatile sig_atomic_t g_ending;
static int g_trust_values; /* of scenes, however strange */

static void end(int signal) {
  (void)signal;
  g_ending = 1;
}

static void run_scene(eosfm_model *model, eosfm_context *context, const char *inbox, const char *outbox,
                      const char *name) {
  char input[4096], working[4096], output[4096];
  struct stat there;
  snprintf(input, sizeof input, "%s/%s", inbox, name);
  snprintf(working, sizeof working, "%s/.%s", outbox, name);
  snprintf(output, sizeof output, "%s/%s", outbox, name);
  if (stat(output, &there) == 0 || stat(input, &there) != 0) return;
  printf("%s: ", name);
  if (write_features(model, context, input, working, g_trust_values) == 0) {
    /* Whoever looks into the outbox sees all of a scene's features, or none. */
    if (rename(working, output) != 0) fprintf(stderr, "%s: %s\n", output, strerror(errno));
  } else {
    rmdir(working);
  }
  fflush(stdout);
}

/* Runs what the inbox has and the outbox has not. */
static int run_all(eosfm_model *model, eosfm_context *context, const char *inbox, const char *outbox) {
  struct dirent **entries;
  sigset_t pending;
  const int count = scandir(inbox, &entries, NULL, alphasort);
  if (count < 0) return -1;
  for (int i = 0; i < count; i++) {
    sigpending(&pending);
    g_ending |= sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT);
    if (!g_ending && entries[i]->d_name[0] != '.') {
      run_scene(model, context, inbox, outbox, entries[i]->d_name);
    }
    free(entries[i]);
  }
  free(entries);
  return 0;
}

static int watch(eosfm_model *model, eosfm_context *context, const char *inbox, const char *outbox,
                 const sigset_t *awake) {
  char events[4096];
  struct pollfd ready = {inotify_init1(IN_NONBLOCK | IN_CLOEXEC), POLLIN, 0};
  int failed = ready.fd < 0 || inotify_add_watch(ready.fd, inbox, IN_MOVED_TO) < 0;
  /* Watched first: what comes while the inbox is read is not missed. */
  while (!failed && !g_ending) {
    failed = run_all(model, context, inbox, outbox) != 0;
    if (failed || g_ending) break;
    if (ppoll(&ready, 1, NULL, awake) < 0 && errno != EINTR) failed = 1;
    while (read(ready.fd, events, sizeof events) > 0) continue;
  }
  if (failed) fprintf(stderr, "%s: %s\n", inbox, strerror(errno));
  if (ready.fd >= 0) close(ready.fd);
  return failed ? -1 : 0;
}

int main(int argc, char **argv) {
  char error[256] = "";
  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  eosfm_model *model = NULL;
  eosfm_context *context = NULL;
  struct sigaction action;
  sigset_t ending, before;
  int result = EXIT_FAILURE;
  g_trust_values = argc > 1 && strcmp(argv[1], "--trust-values") == 0;
  argv += g_trust_values;
  if (argc - g_trust_values != 4) {
    fprintf(stderr, "usage: watch_folder [--trust-values] BUNDLE INBOX OUTBOX\n");
    return EXIT_FAILURE;
  }
  /* Signals come while it waits, and at no other time: none is missed, and no scene is interrupted. */
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigprocmask(SIG_BLOCK, &ending, &before);
  memset(&action, 0, sizeof action);
  action.sa_handler = end;
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  GDALAllRegister();
  open.error = error;
  open.error_size = sizeof error;
  if (eosfm_model_open(argv[1], &open, &model) != EOSFM_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], error);
  } else if (eosfm_context_create(model, NULL, &context) != EOSFM_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], eosfm_model_get_error(model));
  } else {
    double worst[EOSFM_LEVELS];
    if (eosfm_context_verify(context, worst) != EOSFM_OK) {
      fprintf(stderr, "%s: %s\n", argv[1], eosfm_context_get_error(context));
    } else if (watch(model, context, argv[2], argv[3], &before) == 0) {
      result = EXIT_SUCCESS;
    }
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  GDALDestroyDriverManager();
  return result;
}
