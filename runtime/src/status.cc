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

eosfm_status ErrorText::fail(eosfm_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace eosfm
