/* The pod's user namespace, if it has one. The fragment creates it and keeps it open, but stays outside: it
 * keeps the host's privileges, and processes inside have none over it. */
#ifndef PHANTOM_USER_H
#define PHANTOM_USER_H

#include <sys/types.h>

/* Maps the owners of a detached tree, submounts included, to the pod's ids: root's files on disk belong to
 * the pod's root. 0 or -errno (EINVAL: not supported by the file system; ESRCH: the pod has no user
 * namespace).
 */
int user_map_tree(int tree);

/* Switch to the effective ids of the pod's root and back, for operations that the kernel allows only to the
 * owner of a namespace. 0 or -errno. */
int user_take_root(void);
int user_leave_root(void);

/* Makes all permitted capabilities effective, and keeps the process protected from ptrace(2). */
int credentials_restore(void);
/* Changes the owner of pipes and terminals among the standard streams; (gid_t)-1: not the group. */
void own_standard_streams(uid_t uid, gid_t gid);

#endif
