#include "bundle.h"

#include <stdio.h>
#include <string.h>

#include "complain.h"
#include "ending.h"

/* The last warning, which is held back: if nothing takes over from what it is about, the error says the same. */
static char g_warning[1024];

static void print_held(void) {
  if (g_warning[0] != 0) warn(g_warning);
  g_warning[0] = 0;
}

static void hold_warning(void *user, eosfm_log_level level, const char *text) {
  (void)user;
  if (level != EOSFM_LOG_WARNING) return;
  print_held();
  snprintf(g_warning, sizeof g_warning, "%s", text);
}

static int explain(const char *what, eosfm_status status, const char *sentence) {
  const char *fix = NULL;
  int code = kWrongUse;
  switch (status) {
    case EOSFM_CANCELLED: return complain_of_signal();
    case EOSFM_NOT_FOUND: fix = "send or install what it names, or compute by another --backend"; break;
    case EOSFM_BAD_BUNDLE:
      code = kCheckFailed;
      fix = "transfer or export the bundle again";
      break;
    case EOSFM_NO_MEMORY: fix = "raise --memory-limit where it is given, or use fewer --threads"; break;
    case EOSFM_WRONG_ANSWER:
    case EOSFM_NOT_FINITE:
    case EOSFM_ENGINE_FAILED: code = kCheckFailed; break;
    default: break;
  }
  if (strstr(sentence, what) != NULL) return complain(code, NULL, fix, "%s", sentence);
  return complain(code, NULL, fix, "%s: %s", what, sentence);
}

int complain_of_status(const Bundle *bundle, const char *what, eosfm_status status) {
  return explain(what, status, eosfm_context_get_error(bundle->context));
}

int open_bundle(Bundle *bundle, const Options *options) {
  char error[1024] = "";
  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  eosfm_context_options how = EOSFM_CONTEXT_OPTIONS_INIT;
  eosfm_status status;
  *bundle = (Bundle){.path = options->bundle, .info = EOSFM_MODEL_INFO_INIT};
  open.log = hold_warning;
  open.error = error;
  open.error_size = sizeof error;
  open.memory_limit = options->memory_limit;
  how.threads = options->threads;
  how.backends = options->backend;
  status = eosfm_model_open(options->bundle, &open, &bundle->model);
  if (status == EOSFM_NOT_FOUND) {
    return refuse("the folder of a bundle, as eosfm-edge export writes it", NULL, "%s", error);
  }
  if (status != EOSFM_OK) return explain(options->bundle, status, error);
  status = eosfm_context_create(bundle->model, &how, &bundle->context);
  if (status != EOSFM_OK) return explain(options->bundle, status, eosfm_model_get_error(bundle->model));
  print_held();
  eosfm_model_describe(bundle->model, &bundle->info);
  return kDone;
}

void close_bundle(Bundle *bundle) {
  eosfm_context_destroy(bundle->context);
  eosfm_model_close(bundle->model);
}
