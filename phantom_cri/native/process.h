/* The processes that a fragment started: it is their parent, keeps their pidfds, logs and exits. */
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
/* For output of somebody outside who keeps a pipe open, or a cgroup that does not empty. */
#define PROCESS_LINGER_NS 1000000000LL

enum process_phase {
    PROCESS_FREE,
    PROCESS_STARTING, /* cloned; execve not seen yet */
    PROCESS_HELD,     /* waits right before execve for process_go() */
    PROCESS_FAILED,   /* told us so, or is not wanted any more; killed, not reaped yet */
    PROCESS_RUNNING,
    PROCESS_ENDING, /* reaped; the rest of its cgroup or its output is still to come */
    PROCESS_EXITED, /* only its entry is left */
};

struct process {
    char id[PH_ID_SIZE];
    enum process_phase phase;
    uint32_t kind;  /* PH_KIND_* */
    uint32_t flags; /* PH_PLAN_* */
    uint32_t generation;
    bool own_pid_namespace;
    bool about_to_exec; /* told by the status pipe */
    bool is_dead;       /* reaped */
    bool is_killing;    /* its cgroup is being emptied, until kill_deadline */
    bool needs_reading; /* its output is read by the fragment */
    pid_t pid;
    int pidfd;
    int status;  /* reading end of the status pipe; a socket while the child may be held */
    int handoff; /* on which the child sends its pty's master */
    int console; /* pty master, or the writing end of stdin's pipe; -1 */
    int kill;    /* see cgroup.h */
    int oom;
    uint64_t oom_kills; /* at start */
    int64_t deadline;   /* CLOCK_MONOTONIC, ns: waits no longer for output */
    int64_t kill_deadline;
    struct ph_exit exit;
    struct failure failure;
    struct reply_to starter;
    struct log log;
};

/* `fragment`: its pidfd. */
void processes_init(int fragment, int state_directory);

/* Clones a child that runs the plan; the answer to `starter` is sent once execve succeeded or all is undone.
 * donated[]: what is kept is taken (-1 is left). 0, or -errno and *failure. */
int process_start(const char *id, const struct plan *plan, int *donated, struct reply_to starter,
                  struct failure *failure);

/* Lets a held process go on to its execve; answered as process_start() is. 0 or -errno. */
int process_go(struct process *process, struct reply_to starter);

struct process *process_find(const char *id);
/* Its pidfd while it runs, or -ESRCH. */
int process_pidfd(const char *id);
void process_entry(const struct process *process, struct ph_message *message);
/* In the order of the table: see entry_source. */
bool process_list(uint32_t *next, struct ph_message *entry);

/* Sends a signal to the first process, or to everything in the cgroup. 0 or -errno. */
int process_signal(struct process *process, int signal, bool all);

/* Drops an exited process's entry and its exit record, and ends one that never came to its execve. 0 or
 * -errno (EBUSY: it runs). */
int process_forget(struct process *process);

/* SIGKILL for everything the fragment is responsible for. */
void processes_kill(void);
/* Whether a process lives, or has an end to be told. */
bool processes_are_live(void);

/* Goes on killing what is in the cgroup in the turns to come. */
void process_kill_rest(struct process *process);

/* True: there may be more. */
bool processes_reap(void);
/* Goes on with ending processes; ns until it wants to be called again, or -1. */
int64_t processes_tick(void);

/* ---- between process.c, process_start.c and process_end.c ---- */

struct process *process_init(const char *id); /* NULL: too many */
void process_deinit(struct process *process);
void starts_init(int fragment);
/* Every entry in use: the first at or after *index, which is moved past it; NULL: no more. */
struct process *process_at(uint32_t *index);
struct watch process_watch(const struct process *process, uint8_t kind);
struct process *process_watched(uint32_t index, uint32_t generation);
/* Learns from the status pipe what became of a launch. */
void process_settle(struct process *process);
/* The end has been seen in full: records and tells it. */
void process_exited(struct process *process);

int64_t clock_now(void);  /* CLOCK_MONOTONIC, ns */
int64_t clock_wall(void); /* CLOCK_REALTIME, ns since the epoch */

#endif
