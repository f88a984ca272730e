/* Paths inside a root with hostile content: no function leaves the root.
 *
 * Every path is resolved by openat2(2) with RESOLVE_IN_ROOT (absolute symlinks and `..` stay below the
 * root, also during concurrent renames) and RESOLVE_NO_MAGICLINKS (such as /proc/PID/fd).
 */
#ifndef PHANTOM_PATH_H
#define PHANTOM_PATH_H

#include <stdbool.h>

/* Room for the last component of a path. */
#define PATH_NAME_MAX 256

/* O_PATH fd of `path` below `root`; `flags`: O_DIRECTORY, O_NOFOLLOW. */
int path_resolve(int root, const char *path, int flags);

/* The same, but creates missing components: directories 0755, and the last one as a directory or an empty
 * file (0644). The target of a dangling symlink is created too, inside the root. */
int path_create(int root, const char *path, bool directory);

/* O_PATH fd of the directory above `path`, created if missing; sets `name` to the last component. */
int path_parent(int root, const char *path, char name[PATH_NAME_MAX]);

#endif
