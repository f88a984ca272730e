/* Starts a fragment from a process that must not fork: a Python daemon with threads and gRPC. */
#ifndef PHANTOM_SPAWN_H
#define PHANTOM_SPAWN_H

#include <stdint.h>

/* Executes `binary_fd` in a new process with `clone_flags` (CLONE_NEW*), in its own session, with
 * argv[0] = title, an empty environment, `listen_fd` and `state_fd` as PH_FD_LISTEN and PH_FD_STATE,
 * /dev/null as stdin and stdout, and `stderr_fd` or /dev/null as stderr. cgroup_fd: v2 directory to be
 * started in, or -1. Returns the pid with *pidfd (close-on-exec) set once execve succeeded, or -errno;
 * after an error no process is left. */
int ph_spawn(int binary_fd, const char *title, uint64_t clone_flags, int listen_fd, int state_fd,
             int cgroup_fd, int stderr_fd, int *pidfd);

/* Raises the soft limit of open files to the hard one for this process, but not for fragments started by
 * ph_spawn(). Call it once. 0 or -errno. */
int ph_raise_file_limit(void);

/* bpf(2): its result, or -errno. */
int ph_bpf(int command, void *attributes, unsigned size);

#endif
