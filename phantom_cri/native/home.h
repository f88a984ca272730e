/* The fragment's own root: a few mounts that pin nothing of the host. */
#ifndef PHANTOM_HOME_H
#define PHANTOM_HOME_H

#define HOME_NULL   "/null"   /* the host's /dev/null: covers masked files */
#define HOME_EMPTY  "/empty"  /* empty and read-only: covers masked directories */
#define HOME_SHM    "/shm"    /* the pod's /dev/shm */
#define HOME_ROOTFS "/rootfs" /* where a container's root is assembled, in the child's own copy */

/* Replaces the inherited mounts by the tiny root; *step says what failed. 0 or -errno. */
int home_init(const char **step);

#endif
