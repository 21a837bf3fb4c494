#include "engine_names.h"

#include <string.h>

namespace eosfm {

const char* take_name(const char* names, char (&name)[kMostEngineName]) {
  names += strspn(names, " ");
  const size_t length = strspn(names, "abcdefghijklmnopqrstuvwxyz0123456789-");
  const bool ends = names[length] == ' ' || names[length] == '\0';
  if (length == 0 || *names == '-' || length >= sizeof name || !ends) return nullptr;
  memcpy(name, names, length);
  name[length] = '\0';
  return names + length + strspn(names + length, " ");
}

bool are_engine_names(const char* names) {
  char name[kMostEngineName];
  do {
    names = take_name(names, name);
  } while (names != nullptr && *names != '\0');
  return names != nullptr;
}

bool names_engine(const char* names, const char* wanted) {
  char name[kMostEngineName];
  while (*names != '\0') {
    names = take_name(names, name);
    if (strcmp(name, wanted) == 0) return true;
  }
  return false;
}

bool is_host_engine_name(const char* name) {
  char copy[kMostEngineName];
  const char* left = take_name(name, copy);
  return left != nullptr && *left == '\0' && strcmp(name, copy) == 0 && strcmp(name, kNative) != 0;
}

}  // namespace eosfm
