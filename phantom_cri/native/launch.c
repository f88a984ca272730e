#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "kernel.h"
#include "launch.h"

typedef int op_function(struct launch *launch, const struct op *op);

static op_function *const functions[OP_NUMBER_MAX] = {
#define OP(number, name, ...) [number] = op_##name,
#include "ops.def"
#undef OP
};

rlim_t launch_soft_limit;

static void restore_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = launch_soft_limit;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void launch_init(const struct plan *plan, const int *donated, int fragment, struct launch *launch)
{
    launch->plan = plan;
    for (uint32_t i = 0; i < plan->slot_limit; i++)
        launch->slots[i] = i < plan->head.slot_count ? donated[i] : -1;
    launch->fragment = fragment;
    launch->root = -1;
    launch->status = -1;
    launch->handoff = -1;
    launch->bundle = NULL;
    launch->label = NULL;
    launch->orphanable = false;
    launch->is_closed = false;
    launch->step = "";
    launch->reason[0] = 0;
}

void launch_deinit(struct launch *launch)
{
    for (uint32_t i = launch->plan->head.slot_count; i < launch->plan->slot_limit; i++)
        fd_close(&launch->slots[i]);
    fd_close(&launch->root);
}

/* Replaces the host's /dev/null in missing streams by the container's own, which its root can name. */
static void use_own_null(const struct launch *launch)
{
    struct stat status;
    OWNED_FD null = -1;

    for (int fd = 0; fd < 3; fd++) {
        if (!launch->is_null[fd] || launch->handoff >= 0)
            continue;
        if (null < 0)
            null = open("/dev/null", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        /* The image may lack it, and on an exec the container may have replaced it. */
        if (null < 0 || fstat(null, &status) < 0 || !S_ISCHR(status.st_mode) ||
            status.st_rdev != makedev(1, 3))
            return;
        fcntl(null, F_SETFL, 0);
        dup2(null, fd);
    }
}

/* Called before the first op of phase CREDENTIALS, when mounts and root are complete.
 *
 * Opens the pty, since it belongs to the root's devpts and gets its owner with IDS. Then closes everything
 * except two fds that are not directories: /proc/self/fd/N of a directory leads out of the root, for CHDIR
 * and for EXEC, as O_CLOEXEC takes effect only after the program's path was resolved (CVE-2024-21626). */
static int close_fds_for_exec(struct launch *launch)
{
    unsigned low = (unsigned)(launch->status < launch->fragment ? launch->status : launch->fragment);
    unsigned high = (unsigned)(launch->status < launch->fragment ? launch->fragment : launch->status);
    int result = 0;

    launch->is_closed = true;
    if (launch->handoff >= 0) {
        launch->step = "console";
        result = console_open(launch);
    }
    if (result < 0)
        return result;
    use_own_null(launch);
    launch->step = "close_range";
    if (low > 3)
        result = kernel_close_range(3, low - 1, 0);
    if (result == 0 && high > low + 1)
        result = kernel_close_range(low + 1, high - 1, 0);
    return result == 0 ? kernel_close_range(high + 1, ~0U, 0) : result;
}

static int run_op(struct launch *launch, const struct op *op)
{
    int result;

    launch->step = "";
    launch->reason[0] = 0;
    if (op_phase(op->number) == OP_CREDENTIALS && !launch->is_closed && launch->status >= 0) {
        result = close_fds_for_exec(launch);
        if (result < 0)
            return result;
    }
    return functions[op->number](launch, op);
}

int launch_run(struct launch *launch, struct failure *failure)
{
    struct plan_cursor cursor;
    struct op op;

    plan_rewind(launch->plan, &cursor);
    while (plan_next(&cursor, &op)) {
        int result = run_op(launch, &op);

        if (result < 0) {
            failure_set(PH_STAGE_OP, result, op.index, launch->reason[0] ? launch->reason : launch->step,
                        failure);
            return result;
        }
    }
    return 0;
}

_Noreturn void launch_child(struct launch *launch, const int stdio[3])
{
    uint64_t none = 0;
    struct failure failure;

    failure_set(PH_STAGE_CLONE, 0, -1, "standard streams", &failure);
    for (int fd = 0; fd < 3; fd++) {
        launch->is_null[fd] = stdio[fd] < 0;
        if (stdio[fd] >= 0 && dup2(stdio[fd], fd) < 0)
            failure.error = errno;
    }
    /* The fragment's stderr may be the daemon's log. */
    if (stdio[2] < 0 && dup2(0, 2) < 0)
        failure.error = errno;
    if (failure.error == 0) {
        setsid();
        restore_limit();
        /* The fragment blocks all signals; its dispositions are the default ones. */
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
        launch_run(launch, &failure);
    }
    while (write(launch->status, &failure, sizeof(failure)) < 0 && errno == EINTR)
        ;
    _exit(127);
}
