#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "complain.h"

/* Returns the bytes of the UTF-8 character at `text`, or 0 if there is none. */
static int utf8_length(const unsigned char *text) {
  const int length = text[0] < 0x80                      ? 1
                     : text[0] >= 0xc2 && text[0] < 0xe0 ? 2
                     : text[0] >= 0xe0 && text[0] < 0xf0 ? 3
                     : text[0] >= 0xf0 && text[0] < 0xf5 ? 4
                                                         : 0;
  for (int i = 1; i < length; i++) {
    if ((text[i] & 0xc0) != 0x80) return 0;
  }
  /* Overlong forms, surrogates and what is beyond Unicode. */
  if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] >= 0xa0)) return 0;
  if ((text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] >= 0x90)) return 0;
  return length;
}

void print_json_string(const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  putchar('"');
  while (*at != 0) {
    const int length = utf8_length(at);
    if (length == 0) {
      fputs("\\ufffd", stdout);
    } else if (*at < 0x20 || *at == 0x7f) {
      printf("\\u%04x", *at);
    } else {
      if (*at == '"' || *at == '\\') putchar('\\');
      fwrite(at, 1, (size_t)length, stdout);
    }
    at += length == 0 ? 1 : length;
  }
  putchar('"');
}

int finish_printing(void) {
  errno = 0;
  if (fflush(stdout) == 0 && !ferror(stdout)) return kDone;
  if (errno == EPIPE) return kDone; /* such as head, which has seen enough */
  return refuse(NULL, NULL, "cannot write the output: %s", strerror(errno != 0 ? errno : EIO));
}
