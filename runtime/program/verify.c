/* Does this machine compute a bundle's known answer? */
#include <stdio.h>

#include "bundle.h"
#include "complain.h"
#include "ending.h"
#include "text.h"
#include "verbs.h"

static const char kNotChecked[] = "SHA-256 of the files, and manifest.json";

static void print_json(const char *backend, const Bundle *bundle, const double *relative,
                       const double *limit) {
  printf("{\n \"backend\": ");
  print_json_string(backend);
  printf(",\n \"isa\": ");
  print_json_string(bundle->info.isa);
  printf(",\n \"levels\": [");
  for (int l = 0; l < EOSFM_LEVELS; l++) {
    printf("%s\n  {\"level\": \"level%d\", \"relative\": %.9g, \"tolerance\": %.9g}", l > 0 ? "," : "", l + 1,
           relative[l], limit[l]);
  }
  printf("\n ],\n \"not_checked\": ");
  print_json_string(kNotChecked);
  printf("\n}\n");
}

static int compare(const Bundle *bundle, const Options *options) {
  double relative[EOSFM_LEVELS] = {0}, limit[EOSFM_LEVELS] = {0};
  const char *backend = eosfm_context_get_backend(bundle->context);
  eosfm_status status = eosfm_context_get_tolerance(bundle->context, limit);
  if (status == EOSFM_OK) status = eosfm_context_verify(bundle->context, relative);
  if (is_ending()) return complain_of_signal();
  if (status != EOSFM_OK && status != EOSFM_WRONG_ANSWER)
    return complain_of_status(bundle, bundle->path, status);
  if (options->json && status == EOSFM_OK) {
    print_json(backend, bundle, relative, limit);
  } else if (!options->json) {
    for (int l = 0; l < EOSFM_LEVELS; l++) {
      printf("known answer, level%d: %.1e of the largest value (limit %.0e, %s)\n", l + 1, relative[l],
             limit[l], backend);
    }
    printf("not checked: %s; eosfm-edge verify does\n", kNotChecked);
  }
  if (status == EOSFM_OK) return kDone;
  fflush(stdout);
  return complain(kCheckFailed, NULL, "transfer or export the bundle again, or compute by another --backend",
                  "%s: %s", bundle->path, eosfm_context_get_error(bundle->context));
}

int verify(const Options *options) {
  Bundle bundle;
  int code = open_bundle(&bundle, options);
  if (code == kDone) code = compare(&bundle, options);
  close_bundle(&bundle);
  return code;
}
