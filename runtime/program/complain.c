#include "complain.h"

#include <stdarg.h>
#include <stdio.h>

void make_printable(const char *text, char *safe, unsigned long size) {
  const unsigned char *in = (const unsigned char *)text;
  unsigned long length = 0;
  for (; *in != 0 && length + 2 < size; in++) {
    const int is_c1 = in[0] == 0xc2 && in[1] >= 0x80 && in[1] <= 0x9f; /* in UTF-8 */
    const int is_control = (*in < 0x20 && *in != '\t' && *in != '\n') || *in == 0x7f || is_c1;
    safe[length++] = is_control ? '?' : (char)*in;
    if (is_c1) in++;
  }
  safe[length] = 0;
}

int complain(int code, const char *expected, const char *fix, const char *found, ...) {
  char text[8192], safe[8192];
  va_list arguments;
  va_start(arguments, found);
  vsnprintf(text, sizeof text, found, arguments);
  va_end(arguments);
  make_printable(text, safe, sizeof safe);
  fprintf(stderr, "error: %s\n", safe);
  if (expected != NULL) {
    make_printable(expected, safe, sizeof safe);
    fprintf(stderr, "  expected: %s\n", safe);
  }
  if (fix != NULL) {
    make_printable(fix, safe, sizeof safe);
    fprintf(stderr, "  fix:      %s\n", safe);
  }
  return code;
}

void warn(const char *sentence) {
  char safe[4096];
  make_printable(sentence, safe, sizeof safe);
  fprintf(stderr, "warning: %s\n", safe);
}

int refuse_without_memory(void) {
  return refuse(NULL, "use a machine with more, or stop what else runs there", "there is too little memory");
}
