/* A fragment's operations on cgroups, through fds donated by the daemon. */
#ifndef PHANTOM_CGROUP_H
#define PHANTOM_CGROUP_H

#include <stdint.h>

/* Signals the processes of a cgroup: `fd` is cgroup.kill opened for writing (SIGKILL only), or cgroup.procs
 * opened for reading. Number of processes signalled in this bounded turn, 0: none left (always with
 * cgroup.kill), or -errno. */
int cgroup_signal(int fd, int signal);

/* The number after "oom_kill " in memory.events (v2) or memory.oom_control (v1); 0 when it cannot be read. */
uint64_t cgroup_oom_kills(int fd);

#endif
