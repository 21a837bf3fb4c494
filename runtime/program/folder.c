#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "complain.h"

/* Of renameat2(2), for which not every C library has a function. */
enum { kNoReplace = 1, kExchange = 2 };

static int rename_with(const char *from, const char *to, unsigned flags) {
  return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

int refuse_to_write(const Folder *folder, int error) {
  return refuse(NULL,
                error == ENOSPC || error == EDQUOT ? "choose another output, or free some space"
                                                   : "choose another output",
                "cannot write %s: %s", folder->path, strerror(error));
}

/* Returns whether a name is one that a run writes: level3.npy, or level3.img and level3.hdr. */
static int is_ours(const char *name) {
  static const char *const kEndings[] = {".npy", ".img", ".hdr"};
  if (strncmp(name, "level", 5) != 0 || name[5] < '1' || name[5] > '4') return 0;
  for (size_t i = 0; i < sizeof kEndings / sizeof *kEndings; i++) {
    if (strcmp(name + 6, kEndings[i]) == 0) return 1;
  }
  return 0;
}

/* Opens a folder to read its entries, which closedir ends. NULL, with errno, if it cannot be read. */
static DIR *open_entries(const char *path, int *folder) {
  *folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (*folder < 0) return NULL;
  DIR *entries = fdopendir(*folder);
  if (entries == NULL) close(*folder);
  return entries;
}

/* Looks for an entry that no run writes, and copies its name to `other`, which is "" if there is none. Returns 0, or -1
 * if the folder cannot be read. */
static int find_other(const char *path, char *other, size_t size) {
  int folder = -1;
  DIR *entries = open_entries(path, &folder);
  other[0] = 0;
  if (entries == NULL) return -1;
  for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
    struct stat there;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    const int is_file =
        fstatat(folder, entry->d_name, &there, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(there.st_mode);
    if (!is_file || !is_ours(entry->d_name)) snprintf(other, size, "%s", entry->d_name);
  }
  closedir(entries);
  return 0;
}

static int require_replaceable(const Folder *folder) {
  struct stat there;
  char other[256];
  if (lstat(folder->place, &there) != 0) return kDone;
  if (!S_ISDIR(there.st_mode)) {
    return refuse(NULL, "choose another output", "%s exists and is not a directory", folder->path);
  }
  if (!folder->overwrite) {
    return refuse(NULL, "choose another output, or add --overwrite", "%s exists", folder->path);
  }
  if (find_other(folder->place, other, sizeof other) != 0) return refuse_to_write(folder, errno);
  if (other[0] == 0) return kDone;
  return refuse("nothing but level1 to level4 in a directory to overwrite",
                "choose another output, or remove the directory yourself",
                "%s holds %s, which eosfm did not write", folder->path, other);
}

/* Removes a folder of ours and its files; one that holds anything else stays, whole. */
static void remove_ours(const char *path) {
  char other[256];
  int folder = -1;
  if (find_other(path, other, sizeof other) != 0 || other[0] != 0) return;
  DIR *entries = open_entries(path, &folder);
  if (entries == NULL) return;
  for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
    if (is_ours(entry->d_name)) unlinkat(folder, entry->d_name, 0);
  }
  closedir(entries);
  rmdir(path);
}

/* Locks a folder for as long as this process lives; -1 if another has. */
static int lock_folder(const char *path) {
  const int file = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0 || flock(file, LOCK_EX | LOCK_NB) == 0) return file;
  close(file);
  return -1;
}

/* Splits the place at its last slash: the parent, to be freed, and the name. */
static char *parent_of(const Folder *folder, const char **name) {
  const char *slash = strrchr(folder->place, '/');
  *name = slash == NULL ? folder->place : slash + 1;
  return slash == NULL            ? strdup(".")
         : slash == folder->place ? strdup("/")
                                  : strndup(folder->place, (size_t)(slash - folder->place));
}

/* Removes what killed runs left: folders that nobody has locked. */
static void clear_away(const char *parent, const char *name) {
  char beginning[300];
  DIR *entries = opendir(parent);
  if (entries == NULL) return;
  const size_t length = (size_t)snprintf(beginning, sizeof beginning, ".%s.eosfm-", name);
  for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
    char *path = NULL;
    if (strncmp(entry->d_name, beginning, length) != 0) continue;
    if (asprintf(&path, "%s/%s", parent, entry->d_name) < 0) continue;
    const int lock = lock_folder(path);
    if (lock >= 0) {
      remove_ours(path);
      close(lock);
    }
    free(path);
  }
  closedir(entries);
}

/* Makes a folder and those above it. Returns 0, or -1 with errno. */
static int make_folders(char *path) {
  for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
    *slash = 0;
    const int made = mkdir(path, 0777) == 0 || errno == EEXIST;
    *slash = '/';
    if (!made) return -1;
  }
  return mkdir(path, 0777) == 0 || errno == EEXIST ? 0 : -1;
}

int create_folder(Folder *folder, const char *path, int overwrite) {
  *folder = (Folder){.path = path, .lock = -1, .overwrite = overwrite};
  const char *name = NULL;
  folder->place = strdup(path);
  if (folder->place == NULL) return refuse_without_memory();
  for (size_t end = strlen(path); end > 1 && folder->place[end - 1] == '/'; end--) folder->place[end - 1] = 0;
  char *parent = parent_of(folder, &name);
  if (parent == NULL) return refuse_without_memory();
  int code = kDone;
  if (name[0] == 0) {
    code = refuse("the folder to write", NULL, "the output is \"%s\"", path);
  } else if (strlen(name) > 240) {
    code = refuse_to_write(folder, ENAMETOOLONG);
  } else if (make_folders(parent) != 0) {
    code = refuse_to_write(folder, errno);
  } else {
    clear_away(parent, name);
    code = require_replaceable(folder);
  }
  if (code == kDone && asprintf(&folder->scratch, "%s/.%s.eosfm-XXXXXX", parent, name) < 0) {
    folder->scratch = NULL;
    code = refuse_without_memory();
  }
  free(parent);
  if (code != kDone) return code;
  if (mkdtemp(folder->scratch) == NULL) {
    const int error = errno;
    free(folder->scratch);
    folder->scratch = NULL;
    return refuse_to_write(folder, error);
  }
  folder->lock = lock_folder(folder->scratch);
  return kDone;
}

int folder_holds(const Folder *folder, const char *file) {
  char *place = realpath(folder->place, NULL), *real = realpath(file, NULL);
  const size_t length = place == NULL ? 0 : strlen(place);
  const int is_in = place != NULL && real != NULL && strncmp(real, place, length) == 0 && real[length] == '/';
  free(place);
  free(real);
  return is_in;
}

char *path_in_folder(const Folder *folder, const char *name) {
  char *path = NULL;
  return asprintf(&path, "%s/%s", folder->scratch, name) < 0 ? NULL : path;
}

/* Has the disk hold a folder: which names are in it. Some file systems cannot. */
static int sync_folder(const char *path) {
  const int file = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int failed = file < 0 || (fsync(file) != 0 && errno != EINVAL);
  if (file >= 0) close(file);
  return failed ? -1 : 0;
}

int publish_folder(Folder *folder) {
  struct stat there;
  const char *name;
  const mode_t mask = umask(0);
  umask(mask);
  if (chmod(folder->scratch, 0777 & ~mask) != 0 || sync_folder(folder->scratch) != 0) {
    return refuse_to_write(folder, errno);
  }
  const int replaces = lstat(folder->place, &there) == 0;
  const int code = require_replaceable(folder); /* once more: others may have written there meanwhile */
  if (code != kDone) return code;
  int failed = rename_with(folder->scratch, folder->place, replaces ? kExchange : kNoReplace);
  const int has_no_flags = failed != 0 && (errno == EINVAL || errno == ENOSYS);
  if (has_no_flags && replaces) {
    return refuse(NULL, "remove the directory yourself, or choose another output",
                  "%s cannot be replaced in one step: its file system cannot swap two directories",
                  folder->path);
  }
  if (has_no_flags) failed = rename(folder->scratch, folder->place);
  if (failed) return refuse_to_write(folder, errno);
  if (!replaces) {
    free(folder->scratch); /* there is no such folder any more */
    folder->scratch = NULL;
  }
  char *parent = parent_of(folder, &name);
  if (parent == NULL) return refuse_without_memory();
  const int is_synced = sync_folder(parent) == 0;
  free(parent);
  return is_synced ? kDone : refuse_to_write(folder, errno);
}

void abandon_folder(Folder *folder) {
  if (folder->scratch != NULL) remove_ours(folder->scratch);
  if (folder->lock >= 0) close(folder->lock);
  free(folder->scratch);
  free(folder->place);
}
