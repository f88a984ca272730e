/* The fragment's own root: a few mounts that keep none of the host's busy. */
#ifndef PHANTOM_FRAGMENT_ROOT_H
#define PHANTOM_FRAGMENT_ROOT_H

#define FRAGMENT_NULL   "/null"   /* the host's /dev/null: covers masked files */
#define FRAGMENT_EMPTY  "/empty"  /* empty and read-only: covers masked directories */
#define FRAGMENT_SHM    "/shm"    /* the pod's /dev/shm */
#define FRAGMENT_ROOTFS "/rootfs" /* where a container's root is assembled, in the child's own copy */

/* Replaces the inherited mounts by the small root; *step: what failed. 0 or -errno. */
int fragment_root_init(const char **step);

#endif
