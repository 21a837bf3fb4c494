/* The folder that a run writes. It is made beside its place under another name, and takes its place when it is
 * whole: whoever is killed leaves the old one there, or the new, or none. The names, and the lock by which a later run
 * knows what a killed one left, are those of `eosfm-edge`. */
#ifndef EOSFM_PROGRAM_FOLDER_H
#define EOSFM_PROGRAM_FOLDER_H

typedef struct Folder {
  const char *path; /* as it was given */
  char *place; /* of it, without slashes at the end */
  char *scratch; /* where it is made; NULL: nowhere yet */
  int lock;
  int overwrite;
} Folder;

/* Makes the scratch folder, after a look whether its place may be taken. Returns an exit code; abandon_folder in any
 * case. */
int create_folder(Folder *folder, const char *path, int overwrite);

/* Returns whether a file lies in the folder that would be replaced, and so would be lost. */
int folder_holds(const Folder *folder, const char *file);

/* Makes the path of a file in the scratch folder, to be freed; NULL if there is no memory. */
char *path_in_folder(const Folder *folder, const char *name);

/* Has the disk hold the folder, and puts it in its place. Returns an exit code. */
int publish_folder(Folder *folder);

/* Removes what is left of the scratch folder: all of it, if it was not published. */
void abandon_folder(Folder *folder);

/* Complains that it cannot be written; returns kWrongUse. */
int refuse_to_write(const Folder *folder, int error);

#endif
