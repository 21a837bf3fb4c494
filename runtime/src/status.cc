#include "status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

namespace eosfm {

const char* error_name(int error_number) {
  switch (error_number) {
    case ENOENT: return "it is not there";
    case EACCES: return "permission denied";
    case EISDIR: return "it is a directory";
    case ENOTDIR: return "a part of its path is not a directory";
    case EMFILE:
    case ENFILE: return "too many files are open";
    case ENAMETOOLONG: return "its path is too long";
    default: return "the system refuses";
  }
}

namespace {

// Returns how many bytes the character has that begins here; 0 if it is not UTF-8.
int character_bytes(const unsigned char* at) {
  const int bytes = *at < 0x80 ? 1 : *at < 0xC2 ? 0 : *at < 0xE0 ? 2 : *at < 0xF0 ? 3 : *at < 0xF5 ? 4 : 0;
  for (int i = 1; i < bytes; ++i) {
    if ((at[i] & 0xC0) != 0x80) return 0;
  }
  return bytes;
}

}  // namespace

void make_printable(char* text) {
  auto* at = reinterpret_cast<unsigned char*>(text);
  while (*at != '\0') {
    const int bytes = character_bytes(at);
    const bool is_control = *at < ' ' || *at == 0x7F || (*at == 0xC2 && at[1] < 0xA0);
    if (bytes > 0 && !is_control) {
      at += bytes;
    } else {
      *at++ = '?';
    }
  }
}

eosfm_status ErrorText::fail(eosfm_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  make_printable(text);
  code = 0;
  return status;
}

}  // namespace eosfm
