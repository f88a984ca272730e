/* Paths inside a root that somebody hostile may have filled: nothing here leaves it.
 *
 * Every path is resolved by openat2(2) with RESOLVE_IN_ROOT (absolute symlinks and `..` stay below the
 * root, also while somebody renames directories) and RESOLVE_NO_MAGICLINKS (/proc/PID/fd and friends).
 */
#ifndef PHANTOM_PATH_H
#define PHANTOM_PATH_H

#include <stdbool.h>

/* Room for the last component of a path. */
#define PATH_NAME_MAX 256

/* O_PATH fd of `path` below `root`; `flags`: O_DIRECTORY, O_NOFOLLOW. */
int path_resolve(int root, const char *path, int flags);

/* The same, but makes what is missing: directories 0755, and the last component a directory or an empty
 * file (0644). A dangling symlink on the way is followed, inside, and its target made. */
int path_create(int root, const char *path, bool directory);

/* O_PATH fd of the directory above `path`, made when missing; sets `name` to the last component. */
int path_parent(int root, const char *path, char name[PATH_NAME_MAX]);

#endif
