/* Does this device compute a bundle's known answer, and by which backend?
 *
 *   verify NAME.eosfm ["onnxruntime-cuda native"] */
#include <eosfm.h>
#include <stdio.h>
#include <stdlib.h>

static void print_warning(void *user, eosfm_log_level level, const char *text) {
  (void)user;
  if (level == EOSFM_LOG_WARNING) fprintf(stderr, "verify: %s\n", text);
}

int main(int argc, char **argv) {
  char error[256] = "";
  double relative[EOSFM_LEVELS];
  eosfm_open_options open = EOSFM_OPEN_OPTIONS_INIT;
  eosfm_model_info info = EOSFM_MODEL_INFO_INIT;
  eosfm_context_options options = EOSFM_CONTEXT_OPTIONS_INIT;
  eosfm_model *model;
  eosfm_context *context;

  if (argc != 2 && argc != 3) {
    fprintf(stderr, "usage: verify NAME.eosfm [\"BACKEND ...\"]\n");
    return EXIT_FAILURE;
  }
  open.error = error;
  open.error_size = sizeof error;
  open.log = print_warning;
  options.backends = argc == 3 ? argv[2] : NULL;
  if (eosfm_model_open(argv[1], &open, &model) != EOSFM_OK) {
    fprintf(stderr, "verify: %s\n", error);
    return EXIT_FAILURE;
  }
  eosfm_model_describe(model, &info);
  if (eosfm_context_create(model, &options, &context) != EOSFM_OK) {
    eosfm_model_close(model); /* the log has said why */
    return EXIT_FAILURE;
  }
  eosfm_status status = eosfm_context_verify(context, relative);
  if (status == EOSFM_OK) {
    printf("libeosfm %s (%s, %s) computes the known answer:", eosfm_library_get_version(),
           eosfm_context_get_backend(context), info.isa);
    for (int l = 0; l < EOSFM_LEVELS; l++) printf(" %.1e", relative[l]);
    printf(" of each level's largest value\n");
  } else {
    fprintf(stderr, "verify: %s\n", eosfm_context_get_error(context));
  }
  eosfm_context_destroy(context);
  eosfm_model_close(model);
  return status == EOSFM_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
