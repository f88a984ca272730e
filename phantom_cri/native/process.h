/* The processes started by a fragment: it is their parent, and keeps their pidfds, logs and exits. */
#ifndef PHANTOM_PROCESS_H
#define PHANTOM_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "connection.h"
#include "log.h"
#include "loop.h"
#include "plan.h"
#include "protocol.h"

#define PROCESS_MAX 512
/* Time limit if another process keeps the output open, or a cgroup does not become empty. */
#define PROCESS_LINGER_NS 1000000000LL

enum process_phase {
    PROCESS_FREE,
    PROCESS_STARTING, /* cloned; execve not reported yet */
    PROCESS_HELD,     /* waits right before execve for process_go() */
    PROCESS_FAILED,   /* reported a failure, or was cancelled; killed, not reaped yet */
    PROCESS_RUNNING,
    PROCESS_ENDING, /* reaped; its cgroup or output has not ended yet */
    PROCESS_EXITED, /* only the entry is left */
};

struct process {
    char id[PH_ID_SIZE];
    enum process_phase phase;
    uint32_t kind;  /* PH_KIND_* */
    uint32_t flags; /* PH_PLAN_* */
    uint32_t generation;
    bool own_pid_namespace;
    bool about_to_exec; /* reported by the status pipe */
    bool is_dead;       /* reaped */
    bool is_killing;    /* its cgroup is being emptied, until kill_deadline */
    bool needs_reading; /* its output is read by the fragment */
    pid_t pid;
    int pidfd;
    int status;  /* read end of the status pipe; a socket while the child may be held */
    int handoff; /* socket from which the pty's master is received */
    int console; /* pty master, or the write end of stdin's pipe; -1 */
    int kill;    /* see cgroup.h */
    int oom;
    uint64_t oom_kills; /* at start */
    int64_t deadline;   /* CLOCK_MONOTONIC, ns: end of the wait for output */
    int64_t kill_deadline;
    struct ph_exit exit;
    struct failure failure;
    struct reply_to starter;
    struct log log;
};

/* `fragment`: its pidfd. */
void processes_init(int fragment, int state_directory);

/* Clones a child that runs the plan; `starter` gets an answer when execve has succeeded, or failed and all is
 * cleaned up. donated[]: fds that are kept are set to -1. 0, or -errno and *failure. */
int process_start(const char *id, const struct plan *plan, int *donated, struct reply_to starter,
                  struct failure *failure);

/* Lets a held process continue to its execve; answered as process_start(). 0 or -errno. */
int process_go(struct process *process, struct reply_to starter);

struct process *process_find(const char *id);
/* Its pidfd while it runs, or -ESRCH. */
int process_pidfd(const char *id);
void process_entry(const struct process *process, struct ph_message *message);
/* In the order of the table: see entry_source. */
bool process_list(uint32_t *next, struct ph_message *entry);

/* Sends a signal to the first process, or to everything in the cgroup. 0 or -errno. */
int process_signal(struct process *process, int signal, bool all);

/* Drops an exited process's entry and its exit record, and kills one that has not reached its execve. 0 or
 * -errno (EBUSY: it runs). */
int process_forget(struct process *process);

/* SIGKILLs all processes of the fragment. */
void processes_kill(void);
/* Whether a process runs, or its exit is not reported yet. */
bool processes_are_live(void);

/* Kills the rest of the cgroup, in this and later turns. */
void process_kill_rest(struct process *process);

/* True: there may be more. */
bool processes_reap(void);
/* Continues the ending of processes; returns ns until the next call, or -1. */
int64_t processes_tick(void);

/* ---- between process.c, process_start.c and process_end.c ---- */

struct process *process_init(const char *id); /* NULL: too many */
void process_deinit(struct process *process);
void starts_init(int fragment);
/* Iterates entries in use: the first at or after *index, which is advanced past it; NULL: no more. */
struct process *process_at(uint32_t *index);
struct watch process_watch(const struct process *process, uint8_t kind);
struct process *process_watched(uint32_t index, uint32_t generation);
/* Reads the result of a launch from the status pipe. */
void process_settle(struct process *process);
/* Process, cgroup and output have ended: records and reports the exit. */
void process_exited(struct process *process);

int64_t clock_now(void);  /* CLOCK_MONOTONIC, ns */
int64_t clock_wall(void); /* CLOCK_REALTIME, ns since the epoch */

#endif
