#include "machine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "text.h"

/* Copies what follows `key` and a colon in a file of such lines, of its first. Returns whether it is there. */
static int look_up(const char *path, const char *key, char *value, size_t size) {
  FILE *file = fopen(path, "re");
  char *line = NULL;
  size_t room = 0;
  int found = 0;
  value[0] = 0;
  while (file != NULL && !found && getline(&line, &room, file) > 0) {
    const size_t length = strlen(key);
    if (strncmp(line, key, length) != 0) continue;
    const char *colon = strchr(line, ':');
    if (colon == NULL || line + length + strspn(line + length, " \t") != colon) continue;
    colon += 1 + strspn(colon + 1, " \t");
    snprintf(value, size, "%.*s", (int)strcspn(colon, "\n"), colon);
    found = 1;
  }
  free(line);
  if (file != NULL) fclose(file);
  return found;
}

double memory_mb(const char *key) {
  char value[64];
  return look_up("/proc/self/status", key, value, sizeof value) ? strtod(value, NULL) / 1024 : 0;
}

/* Instruction sets that kernels are written for, in the order of their names. */
static void print_flags(void) {
  static const char *const kFlags[] = {"amx_bf16",    "amx_int8",    "asimddp", "avx2",
                                       "avx512_bf16", "avx512_vnni", "avx512f"};
  char flags[8192];
  int printed = 0;
  if (!look_up("/proc/cpuinfo", "flags", flags, sizeof flags)) {
    look_up("/proc/cpuinfo", "Features", flags, sizeof flags);
  }
  for (size_t i = 0; i < sizeof kFlags / sizeof *kFlags; i++) {
    const size_t length = strlen(kFlags[i]);
    for (const char *at = flags; (at = strstr(at, kFlags[i])) != NULL; at += length) {
      if ((at > flags && at[-1] != ' ') || (at[length] != 0 && at[length] != ' ')) continue;
      printf("%s\"%s\"", printed++ > 0 ? ", " : "", kFlags[i]);
      break;
    }
  }
}

void print_machine(const char *version) {
  struct utsname system = {0};
  char model[256], text[512];
  cpu_set_t cores;
  double load = 0;
  uname(&system);
  getloadavg(&load, 1);
  if (!look_up("/proc/cpuinfo", "model name", model, sizeof model) &&
      !look_up("/proc/cpuinfo", "Model", model, sizeof model)) {
    snprintf(model, sizeof model, "unknown");
  }
  printf("{\n  \"processor\": {\"model\": ");
  print_json_string(model);
  printf(", \"flags\": [");
  print_flags();
  CPU_ZERO(&cores);
  sched_getaffinity(0, sizeof cores, &cores);
  printf("]},\n  \"cores\": %d,\n  \"system\": ", CPU_COUNT(&cores));
  snprintf(text, sizeof text, "%s %s %s", system.sysname, system.release, system.machine);
  print_json_string(text);
  printf(
      ",\n  \"python\": null,\n  \"eosfm_edge\": \"%s\",\n  \"onnxruntime\": null,\n  \"openvino\": null,\n"
      "  \"torch\": null,\n  \"load_average\": %.2f\n }",
      version, load);
}
