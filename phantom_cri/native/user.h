/* The pod's user namespace, where it has one. The fragment makes it and keeps it, but stays outside: it goes
 * on with the host's privileges, and nobody inside has any over it. */
#ifndef PHANTOM_USER_H
#define PHANTOM_USER_H

#include <sys/types.h>

/* Shows the files of a detached tree, submounts included, with the pod's ids: what root owns on disk, the
 * pod's root owns there. 0 or -errno (EINVAL: the file system cannot; ESRCH: the pod has no user namespace).
 */
int user_map_tree(int tree);

/* Effective ids of the pod's root and back; the fragment does that for what the kernel lets only the owner of
 * a namespace do. 0 or -errno. */
int user_take_root(void);
int user_leave_root(void);

/* All permitted capabilities become effective, and the process stays closed to ptrace(2). */
int credentials_restore(void);
/* Gives the pipes and terminals among the standard streams to somebody; (gid_t)-1 leaves the group. */
void own_standard_streams(uid_t uid, gid_t gid);

#endif
