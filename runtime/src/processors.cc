#include "processors.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace eosfm {
namespace {

constexpr long long kNoLimit = -1;

// Reads a small file as a text; returns whether there is one.
bool read_text(const char* path, char* text, size_t size) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  size_t length = 0;
  while (length + 1 < size) {
    const ssize_t got = read(fd, text + length, size - 1 - length);
    if (got <= 0) break;
    length += static_cast<size_t>(got);
  }
  close(fd);
  text[length] = '\0';
  return length > 0;
}

// Returns the processors, rounded up, that a group's folder grants; kNoLimit if it sets no limit.
long long granted_by(const char* folder) {
  char path[1200];
  char text[64];
  long long quota = kNoLimit;
  long long period = 0;
  snprintf(path, sizeof path, "%s/cpu.max", folder);
  if (read_text(path, text, sizeof text)) {  // version 2: "200000 100000" or "max 100000"
    char* end = text;
    quota = strtoll(text, &end, 10);
    period = end != text ? strtoll(end, nullptr, 10) : 0;
  } else {
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (read_text(path, text, sizeof text)) quota = strtoll(text, nullptr, 10);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (read_text(path, text, sizeof text)) period = strtoll(text, nullptr, 10);
  }
  return quota > 0 && period > 0 ? 1 + (quota - 1) / period : kNoLimit;
}

// Returns whether a list with commas has "cpu".
bool has_cpu(const char* list) {
  for (;;) {
    const size_t length = strcspn(list, ",");
    if (length == 3 && strncmp(list, "cpu", 3) == 0) return true;
    if (list[length] == '\0') return false;
    list += length + 1;
  }
}

// Returns the least that a group and its parents grant. In a container the path may be the host's, of which only the
// root is visible.
long long granted(const char* top, char* path) {
  long long least = kNoLimit;
  for (;;) {
    char folder[1100];
    snprintf(folder, sizeof folder, "%s%s", top, path);
    const long long mine = granted_by(folder);
    if (mine != kNoLimit && (least == kNoLimit || mine < least)) least = mine;
    char* last = strrchr(path, '/');
    if (last == nullptr) return least;
    *last = '\0';
  }
}

}  // namespace

int processors(int most) {
  cpu_set_t set;
  long long count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  char groups[4096];
  char* rest = groups;
  if (!read_text("/proc/self/cgroup", groups, sizeof groups)) groups[0] = '\0';
  while (char* line = strsep(&rest, "\n")) {  // "4:cpu,cpuacct:/path", or "0::/path" of version 2
    strsep(&line, ":");
    const char* controllers = line != nullptr ? strsep(&line, ":") : nullptr;
    if (line == nullptr || strlen(line) > 900) continue;
    const bool version2 = controllers[0] == '\0';
    if (!version2 && !has_cpu(controllers)) continue;
    const long long limit = granted(version2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu", line);
    if (limit != kNoLimit && limit < count) count = limit;
  }
  return count < 1 ? 1 : count < most ? static_cast<int>(count) : most;
}

}  // namespace eosfm
