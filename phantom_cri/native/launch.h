/* The run of a plan: by a child between clone3 and execve, or by the fragment on itself (ADOPT).
 *
 * Between clone and execve only system calls: no malloc, no locks, nothing that a copy of the fragment's
 * memory could be inconsistent for.
 */
#ifndef PHANTOM_LAUNCH_H
#define PHANTOM_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "plan.h"

struct launch {
    const struct plan *plan;
    int fragment;        /* pidfd of the fragment: its namespaces */
    int root;            /* the container's root, between ROOT and PIVOT; else -1 */
    int status;          /* writing end of the status pipe, or socket under PH_PLAN_HOLD; -1 in ADOPT */
    int handoff;         /* socket on which the pty's master goes to the fragment; -1: no TTY */
    bool orphanable;     /* the fragment's death alone would not end this process (host pid namespace) */
    bool is_closed;      /* nothing is open any more but stdio, status and fragment */
    bool is_null[3];     /* stdio that nobody gave */
    const char *bundle;  /* of the HOOKs to come, in the plan; NULL: no HOST */
    const char *label;   /* SELinux context of new mounts, in the plan; NULL: none */
    const char *step;    /* what was tried last; for the error's text */
    char reason[256];    /* the kernel's own words (fscontext log), or "" */
    int slots[PH_SLOTS]; /* fds; -1: empty. Last, as the fragment itself touches only the first few */
};

/* RLIMIT_NOFILE's soft limit as the fragment was started with it; children get it back. */
extern rlim_t launch_soft_limit;

/* fds must be filled for [0, plan->head->slot_count); the rest is emptied. */
void launch_init(const struct plan *plan, const int *donated, int fragment, struct launch *launch);

/* Runs the ops in order until one fails or EXEC takes over; closes no slot but those that it filled. */
int launch_run(struct launch *launch, struct failure *failure);

/* Closes the slots that ops filled. */
void launch_deinit(struct launch *launch);

/* What a child does: stdio, ops, execve; on failure tells the status pipe. Never returns. */
_Noreturn void launch_child(struct launch *launch, const int stdio[3]);

/* What the status pipe carries is struct failures: one with error 0 right before execve, so that its end
 * means success and not that somebody killed the child; then one more where execve failed. Under PH_PLAN_HOLD
 * one of stage STAGE_HELD comes before all that, and a byte from the fragment lets the child go on. */
#define STAGE_HELD 100u

/* Opens a pty of the devpts mounted at /dev/pts, makes it the controlling terminal and stdio, and sends
 * the master through launch->handoff. */
int console_open(struct launch *launch);
/* Takes the master that console_open() sent: fd or -errno. Never waits. */
int console_receive(int handoff);

/* Sets the options of a vector, "key=value" or "key", on a file system context. 0 or -errno. */
int mount_options(int fs, const struct field *options, struct launch *launch);

/* Puts the kernel's own words about a file system context into launch->reason. */
void mount_reason(int fs, struct launch *launch);

/* Whether a new file system of this type takes launch->label as its option "context". */
bool label_is_option(const struct launch *launch, const char *type);
/* Labels the root of a new mount whose type takes no such option but has labels. */
int label_root(const struct launch *launch, const char *type, int mount);

/* The strings of a vector, and a NULL: one pointer more than it has strings. */
void launch_pointers(const struct field *vector, char **pointers);

#define OP(number, name, ...) int op_##name(struct launch *launch, const struct op *op);
#include "ops.def"
#undef OP

#endif
