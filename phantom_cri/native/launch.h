/* Execution of a plan: by a child between clone3 and execve, or by the fragment on itself (ADOPT).
 *
 * Between clone and execve only system calls are allowed: no malloc and no locks, since the copied memory of
 * the fragment may be inconsistent.
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
    int status;          /* write end of the status pipe, or socket with PH_PLAN_HOLD; -1 in ADOPT */
    int handoff;         /* socket to send the pty's master to the fragment; -1: no TTY */
    bool orphanable;     /* not killed by the fragment's death (host pid namespace) */
    bool is_closed;      /* only stdio, status and fragment are still open */
    bool is_null[3];     /* stdio that was not given */
    const char *bundle;  /* of the following HOOKs, in the plan; NULL: no HOST */
    const char *label;   /* SELinux context of new mounts, in the plan; NULL: none */
    const char *step;    /* the last step tried, for the error's text */
    char reason[256];    /* the kernel's message (fscontext log), or "" */
    int slots[PH_SLOTS]; /* fds; -1: empty. Last, as the fragment itself uses only the first few */
};

/* The RLIMIT_NOFILE soft limit at the fragment's start; restored in children. */
extern rlim_t launch_soft_limit;

/* donated[] must be filled for [0, plan->head->slot_count); the other slots are emptied. */
void launch_init(const struct plan *plan, const int *donated, int fragment, struct launch *launch);

/* Runs the ops in order until one fails or EXEC succeeds. */
int launch_run(struct launch *launch, struct failure *failure);

/* Closes the slots that ops filled. */
void launch_deinit(struct launch *launch);

/* Runs in a child: stdio, ops, execve; a failure is written to the status pipe. Never returns. */
_Noreturn void launch_child(struct launch *launch, const int stdio[3]);

/* The child writes struct failures to the status pipe: one with error 0 right before execve, so that end of
 * file means success and not that the child was killed; then another one if execve failed. With PH_PLAN_HOLD
 * one of stage STAGE_HELD comes first, and the child continues when the fragment writes a byte. */
#define STAGE_HELD 100u

/* Opens a pty of the devpts mounted at /dev/pts, makes it the controlling terminal and stdio, and sends
 * the master through launch->handoff. */
int console_open(struct launch *launch);
/* Takes the master that console_open() sent: fd or -errno. Never waits. */
int console_receive(int handoff);

/* Sets the options of a vector, "key=value" or "key", on a file system context. 0 or -errno. */
int mount_options(int fs, const struct field *options, struct launch *launch);

/* Copies the kernel's message about a file system context to launch->reason. */
void mount_reason(int fs, struct launch *launch);

/* Whether this type of file system accepts launch->label as mount option "context". */
bool label_is_option(const struct launch *launch, const char *type);
/* Labels the root of a new mount whose type has labels but no such option. */
int label_root(const struct launch *launch, const char *type, int mount);

/* Pointers to the strings of a vector, and a final NULL. */
void launch_pointers(const struct field *vector, char **pointers);

#define OP(number, name, ...) int op_##name(struct launch *launch, const struct op *op);
#include "ops.def"
#undef OP

#endif
