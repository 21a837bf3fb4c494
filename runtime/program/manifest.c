/* manifest.json, of which libeosfm reads nothing. */
#include "manifest.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kMostManifest = 1 << 24 };

static char *read_manifest(const char *bundle) {
  char *path = NULL, *text = NULL;
  struct stat there;
  if (asprintf(&path, "%s/manifest.json", bundle) < 0) return NULL;
  const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  free(path);
  if (file < 0) return NULL;
  if (fstat(file, &there) == 0 && S_ISREG(there.st_mode) && there.st_size <= kMostManifest) {
    text = calloc(1, (size_t)there.st_size + 1);
  }
  if (text != NULL && read(file, text, (size_t)there.st_size) != (ssize_t)there.st_size) text[0] = 0;
  close(file);
  return text;
}

/* Returns what follows a string, whose first quote is at `text`. */
static const char *after_string(const char *text) {
  for (text++; *text != 0 && *text != '"'; text++) {
    if (*text == '\\' && text[1] != 0) text++;
  }
  return *text == 0 ? text : text + 1;
}

int64_t read_macs(const char *bundle) {
  static const char kKey[] = "\"macs\"";
  char *text = read_manifest(bundle);
  int64_t macs = 0;
  int depth = 0;
  for (const char *at = text; at != NULL && *at != 0;) {
    if (*at == '"') {
      const char *end = after_string(at), *colon = end + strspn(end, " \t\r\n");
      if (depth == 1 && *colon == ':' && end - at == (ptrdiff_t)strlen(kKey) &&
          strncmp(at, kKey, strlen(kKey)) == 0) {
        macs = strtoll(colon + 1, NULL, 10); /* null is 0 */
        break;
      }
      at = end;
      continue;
    }
    depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
    at++;
  }
  free(text);
  return macs > 0 ? macs : 0;
}
