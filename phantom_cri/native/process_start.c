/* From clone3 to execve. */
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "cgroup.h"
#include "kernel.h"
#include "launch.h"
#include "process.h"

static int fragment = -1; /* its pidfd */
static bool is_init;      /* of its pid namespace: all processes end with the fragment */
static uint8_t status_kind, output_kinds[LOG_STREAMS];

static void status_ready(uint32_t index, uint32_t generation, uint32_t ready)
{
    struct process *process = process_watched(index, generation);

    (void)ready;
    if (process && process->status >= 0)
        process_settle(process);
}

static void read_output(uint32_t index, uint32_t generation, enum log_name name)
{
    struct process *process = process_watched(index, generation);

    if (process && process->log.streams[name].fd >= 0)
        log_pump(&process->log, name);
}

static void stdout_ready(uint32_t index, uint32_t generation, uint32_t ready)
{
    (void)ready;
    read_output(index, generation, LOG_STDOUT);
}

static void stderr_ready(uint32_t index, uint32_t generation, uint32_t ready)
{
    (void)ready;
    read_output(index, generation, LOG_STDERR);
}

void starts_init(int fragment_pidfd)
{
    fragment = fragment_pidfd;
    is_init = getpid() == 1;
    status_kind = loop_register(status_ready);
    output_kinds[LOG_STDOUT] = loop_register(stdout_ready);
    output_kinds[LOG_STDERR] = loop_register(stderr_ready);
}

/* The child's ends of its pipes and sockets to the fragment. */
struct child_ends {
    int status;
    int handoff;
    int stdio[3];
    int made[3]; /* stdio created here, to be closed in the fragment */
};

static void child_ends_deinit(struct child_ends *ends)
{
    fd_close(&ends->status);
    fd_close(&ends->handoff);
    for (int i = 0; i < 3; i++)
        fd_close(&ends->made[i]);
}

static int make_pipe(int *ours, int *theirs, bool we_read)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    *ours = ends[we_read ? 0 : 1];
    *theirs = ends[we_read ? 1 : 0];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

/* The same, but bidirectional. */
static int make_socket(int *ours, int *theirs)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    *ours = ends[0];
    *theirs = ends[1];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int make_output(struct process *process, int log_fd, struct child_ends *ends)
{
    int out = -1, err = -1;
    int result = make_pipe(&out, &ends->made[1], true);

    if (result == 0)
        result = make_pipe(&err, &ends->made[2], true);
    if (result < 0) {
        fd_close(&out);
        fd_close(&log_fd);
        return result;
    }
    process->needs_reading = true;
    return log_init(log_fd, out, err, false, &process->log);
}

static int make_ends(struct process *process, const struct ph_plan *head, int *donated,
                     struct child_ends *ends)
{
    int result = head->flags & PH_PLAN_HOLD ? make_socket(&process->status, &ends->status)
                                            : make_pipe(&process->status, &ends->status, true);

    for (int i = 0; i < 3 && result == 0; i++)
        ends->stdio[i] = head->stdio_slot[i] < 0 ? -1 : donated[head->stdio_slot[i]];
    if (result == 0 && head->flags & PH_PLAN_TTY) {
        int pair[2];

        result = kernel_result(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
        if (result == 0) {
            process->handoff = pair[0];
            ends->handoff = pair[1];
        }
        return result;
    }
    if (result == 0 && head->flags & PH_PLAN_STDIN)
        result = make_pipe(&process->console, &ends->made[0], false);
    if (result == 0 && head->flags & PH_PLAN_LOG)
        result = make_output(process, head->log_slot < 0 ? -1 : fd_take(&donated[head->log_slot]), ends);
    for (int i = 0; i < 3; i++)
        if (ends->made[i] >= 0)
            ends->stdio[i] = ends->made[i];
    return result;
}

/* A new process is started in the pid namespace of pid_for_children: set it, clone, and set it back. */
static int enter_pid_namespace(const char *id)
{
    static bool away;
    int pidfd = fragment, result;

    if (!*id && !away)
        return 0;
    if (*id)
        pidfd = process_pidfd(id);
    result = pidfd < 0 ? pidfd : kernel_result(setns(pidfd, CLONE_NEWPID));
    if (result == 0)
        away = *id != 0;
    return result;
}

static int clone_child(struct process *process, const struct plan *plan, const int *donated)
{
    const struct ph_plan *head = &plan->head;
    struct clone_args args = {
        .flags = head->clone_flags | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&process->pidfd,
        .exit_signal = SIGCHLD,
    };
    int result;

    if (head->cgroup_slot >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)donated[head->cgroup_slot];
    }
    result = enter_pid_namespace(head->pid_namespace_of);
    if (result < 0)
        return result;
    result = kernel_clone3(&args);
    if (result != 0 && *head->pid_namespace_of && enter_pid_namespace("") < 0)
        /* Retried before the next clone; until then no process can be started. */
        return result;
    return result;
}

/* Runs in the child. */
static _Noreturn void run_child(const struct plan *plan, const int *donated, const struct child_ends *ends)
{
    static struct launch launch;

    launch_init(plan, donated, fragment, &launch);
    launch.status = ends->status;
    launch.handoff = ends->handoff;
    launch.orphanable = !is_init;
    launch_child(&launch, ends->stdio);
}

static int keep_donated(struct process *process, const struct ph_plan *head, int *donated)
{
    if (head->kill_slot >= 0)
        process->kill = fd_take(&donated[head->kill_slot]);
    if (head->oom_slot >= 0)
        process->oom = fd_take(&donated[head->oom_slot]);
    if (head->flags & PH_PLAN_TTY && head->log_slot >= 0)
        process->log.fd = fd_take(&donated[head->log_slot]);
    process->oom_kills = cgroup_oom_kills(process->oom);
    /* Input is only watched for a held one: for others only the end, at execve, matters. */
    return loop_watch(process->status, process_watch(process, status_kind),
                      head->flags & PH_PLAN_HOLD ? FOR_INPUT : FOR_HANGUP);
}

static int watch_output(struct process *process)
{
    int result = 0;

    for (int i = 0; i < LOG_STREAMS && result == 0; i++)
        if (process->log.streams[i].fd >= 0)
            result =
                loop_watch(process->log.streams[i].fd, process_watch(process, output_kinds[i]), FOR_INPUT);
    return result;
}

int process_start(const char *id, const struct plan *plan, int *donated, struct reply_to starter,
                  struct failure *failure)
{
    struct process *process = process_init(id);
    struct child_ends ends = {.status = -1, .handoff = -1, .stdio = {-1, -1, -1}, .made = {-1, -1, -1}};
    int result;

    if (!process) {
        failure_set(PH_STAGE_REQUEST, EAGAIN, -1, "too many processes", failure);
        return -EAGAIN;
    }
    process->kind = plan->head.kind;
    process->flags = plan->head.flags;
    process->own_pid_namespace = plan->head.clone_flags & CLONE_NEWPID;
    process->starter = starter;
    result = make_ends(process, &plan->head, donated, &ends);
    if (result == 0)
        result = watch_output(process);
    if (result == 0)
        result = clone_child(process, plan, donated);
    if (result == 0)
        run_child(plan, donated, &ends);
    child_ends_deinit(&ends);
    if (result < 0) {
        failure_set(PH_STAGE_CLONE, result, -1, "clone", failure);
        process_deinit(process);
        return result;
    }
    process->pid = result;
    if (keep_donated(process, &plan->head, donated) < 0)
        kernel_pidfd_signal(process->pidfd, SIGKILL);
    return 0;
}

/* ---- from clone to execve ---- */

static void answer_started(struct process *process)
{
    struct ph_message message = {.type = PH_OK, .exit.started_at = process->exit.started_at};
    int fds[2] = {process->pidfd, process->console};

    memcpy(message.id, process->id, PH_ID_SIZE);
    reply(process->starter, &message, fds, process->console >= 0 ? 2 : 1);
}

/* The pty's master: read by the fragment for a log; an exec's is sent only to the caller of its start. */
static int take_console(struct process *process)
{
    bool is_read = !(process->flags & PH_PLAN_UNREAD) &&
                   (process->kind == PH_KIND_CONTAINER || process->flags & PH_PLAN_LOG);
    int copy, result;

    process->console = console_receive(process->handoff);
    fd_close(&process->handoff);
    if (process->console < 0 || !is_read)
        return process->console;
    copy = kernel_result(fcntl(process->console, F_DUPFD_CLOEXEC, 3));
    if (copy < 0)
        return copy;
    result = log_init(fd_take(&process->log.fd), copy, -1, true, &process->log);
    process->needs_reading = true;
    return result < 0 ? result : watch_output(process);
}

static void fail(struct process *process)
{
    process->phase = PROCESS_FAILED;
    kernel_pidfd_signal(process->pidfd, SIGKILL);
}

static bool has_console(struct process *process)
{
    int result = process->handoff < 0 ? 0 : take_console(process);

    if (result < 0) {
        failure_set(PH_STAGE_OP, result, -1, "console", &process->failure);
        fail(process);
    }
    return result >= 0;
}

/* Includes its console, so that clients can attach before its first output. */
static void hold(struct process *process)
{
    if (!has_console(process))
        return;
    process->phase = PROCESS_HELD;
    answer_started(process);
    process->starter = (struct reply_to){0};
}

int process_go(struct process *process, struct reply_to starter)
{
    if (process->phase != PROCESS_HELD)
        return -EALREADY;
    /* EPIPE: it was killed while it waited, which is not reported yet. */
    if (write(process->status, "", 1) < 0)
        return errno == EPIPE ? -ECHILD : -errno;
    process->phase = PROCESS_STARTING;
    process->starter = starter;
    return 0;
}

static void succeed(struct process *process)
{
    process->phase = PROCESS_RUNNING;
    process->exit.started_at = clock_wall();
    if (!has_console(process))
        return;
    answer_started(process);
    if (process->kind == PH_KIND_EXEC && process->flags & PH_PLAN_TTY && !(process->flags & PH_PLAN_UNREAD) &&
        !process->needs_reading)
        fd_close(&process->console);
}

/* Reads the status pipe; at its end the result of the launch is known. */
void process_settle(struct process *process)
{
    struct failure status;
    ssize_t length;

    while ((length = read(process->status, &status, sizeof(status))) > 0) {
        if (length != sizeof(status))
            failure_set(PH_STAGE_CLONE, EPROTO, -1, "status pipe", &status);
        if (status.stage == STAGE_HELD) {
            hold(process);
            return;
        }
        if (status.error == 0) {
            process->about_to_exec = true;
            continue;
        }
        process->failure = status;
        fd_close(&process->status);
        fail(process);
        return;
    }
    if (length < 0 && errno == EAGAIN && !process->is_dead)
        return;
    fd_close(&process->status);
    if (process->about_to_exec) {
        succeed(process);
        return;
    }
    failure_set(PH_STAGE_OP, ECHILD, -1, "killed before execve", &process->failure);
    fail(process);
}
