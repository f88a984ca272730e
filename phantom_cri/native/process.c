#include <signal.h>
#include <string.h>
#include <time.h>

#include "cgroup.h"
#include "exit_record.h"
#include "kernel.h"
#include "process.h"

static struct process processes[PROCESS_MAX];
static uint32_t process_limit; /* entries from here were never used: their pages stay unallocated */
static uint32_t generations;
static int state = -1;

int64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_wall(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void processes_init(int fragment, int state_directory)
{
    starts_init(fragment);
    state = state_directory;
}

struct process *process_find(const char *id)
{
    for (uint32_t i = 0; i < process_limit; i++)
        /* A failed one only has to be reaped; its id can be reused. */
        if (processes[i].phase != PROCESS_FREE && processes[i].phase != PROCESS_FAILED &&
            !strncmp(processes[i].id, id, PH_ID_SIZE))
            return &processes[i];
    return NULL;
}

struct process *process_at(uint32_t *index)
{
    while (*index < process_limit) {
        struct process *process = &processes[(*index)++];

        if (process->phase != PROCESS_FREE)
            return process;
    }
    return NULL;
}

int process_pidfd(const char *id)
{
    struct process *process = process_find(id);

    return process && process->phase == PROCESS_RUNNING ? process->pidfd : -ESRCH;
}

struct watch process_watch(const struct process *process, uint8_t kind)
{
    return (struct watch){kind, process->generation, (uint32_t)(process - processes)};
}

struct process *process_watched(uint32_t index, uint32_t generation)
{
    struct process *process = &processes[index];

    return process->phase != PROCESS_FREE && (process->generation & 0xffffff) == generation ? process : NULL;
}

/* ---- adding and dropping entries ---- */

struct process *process_init(const char *id)
{
    struct process *process = NULL;

    for (uint32_t i = 0; i < process_limit && !process; i++)
        if (processes[i].phase == PROCESS_FREE)
            process = &processes[i];
    if (!process && process_limit < PROCESS_MAX)
        process = &processes[process_limit++];
    if (!process)
        return NULL;
    memset(process, 0, sizeof(*process));
    strncpy(process->id, id, PH_ID_SIZE - 1);
    process->generation = ++generations;
    process->phase = PROCESS_STARTING;
    process->pidfd = process->status = process->handoff = process->console = -1;
    process->kill = process->oom = -1;
    process->log.fd = process->log.streams[0].fd = process->log.streams[1].fd = -1;
    return process;
}

static void release_fds(struct process *process)
{
    fd_close(&process->pidfd);
    fd_close(&process->status);
    fd_close(&process->handoff);
    fd_close(&process->console);
    fd_close(&process->kill);
    fd_close(&process->oom);
    log_deinit(&process->log);
}

void process_deinit(struct process *process)
{
    release_fds(process);
    process->phase = PROCESS_FREE;
}

void process_exited(struct process *process)
{
    struct ph_message event = {.type = PH_EXITED, .flags = process->kind, .exit = process->exit};

    memcpy(event.id, process->id, PH_ID_SIZE);
    if (process->kind == PH_KIND_EXEC && !(process->flags & PH_PLAN_KEEP)) {
        process_deinit(process);
    } else {
        /* If the disk is full, the event and the entry still report the exit. */
        if (process->kind == PH_KIND_CONTAINER)
            exit_record_write(state, process->id, &process->exit);
        release_fds(process);
        process->phase = PROCESS_EXITED;
    }
    broadcast(&event);
}

int process_forget(struct process *process)
{
    int result = 0;

    if (process->phase == PROCESS_HELD || process->phase == PROCESS_STARTING) {
        /* The pending start fails with this error; its status pipe is ignored from here. */
        failure_set(PH_STAGE_REQUEST, ECANCELED, -1, "forgotten", &process->failure);
        fd_close(&process->status);
        process->phase = PROCESS_FAILED;
        return kernel_pidfd_signal(process->pidfd, SIGKILL);
    }
    if (process->phase != PROCESS_EXITED)
        return -EBUSY;
    if (process->kind == PH_KIND_CONTAINER)
        result = exit_record_remove(state, process->id);
    process_deinit(process);
    return result;
}

/* ---- requests ---- */

void process_entry(const struct process *process, struct ph_message *message)
{
    memset(message, 0, sizeof(*message));
    message->type = PH_ENTRY;
    message->flags = process->kind;
    message->value = process->phase == PROCESS_STARTING ? PH_STARTING
                     : process->phase == PROCESS_HELD   ? PH_PREPARED
                     : process->phase == PROCESS_EXITED ? PH_EXITED_STATE
                                                        : PH_RUNNING;
    message->value2 = process->pid;
    message->exit = process->exit;
    memcpy(message->id, process->id, PH_ID_SIZE);
    if (process->phase != PROCESS_EXITED)
        message->exit.finished_at = 0;
}

bool process_list(uint32_t *next, struct ph_message *entry)
{
    struct process *process;

    do
        process = process_at(next);
    while (process && process->phase == PROCESS_FAILED);
    if (process)
        process_entry(process, entry);
    return process != NULL;
}

static bool is_alive(const struct process *process)
{
    return process->phase == PROCESS_STARTING || process->phase == PROCESS_HELD ||
           process->phase == PROCESS_RUNNING;
}

int process_signal(struct process *process, int signal, bool all)
{
    int result;

    if (!all || process->kill < 0) {
        /* Killing the first process ends a pid namespace. */
        if (all && !(process->own_pid_namespace && signal == SIGKILL))
            return -EOPNOTSUPP;
        return is_alive(process) ? kernel_pidfd_signal(process->pidfd, signal) : -ESRCH;
    }
    result = cgroup_signal(process->kill, signal);
    if (result > 0 && signal == SIGKILL)
        process_kill_rest(process);
    return result < 0 ? result : 0;
}

void process_kill_rest(struct process *process)
{
    if (process->kill < 0)
        return;
    process->is_killing = true;
    process->kill_deadline = clock_now() + PROCESS_LINGER_NS;
}

void processes_kill(void)
{
    /* As init of its pid namespace: -1 is all processes in it, and no others. */
    if (getpid() == 1)
        kill(-1, SIGKILL);
    for (uint32_t i = 0; i < process_limit; i++) {
        if (is_alive(&processes[i]))
            kernel_pidfd_signal(processes[i].pidfd, SIGKILL);
        if (is_alive(&processes[i]) || processes[i].phase == PROCESS_ENDING)
            process_kill_rest(&processes[i]);
    }
}

bool processes_are_live(void)
{
    for (uint32_t i = 0; i < process_limit; i++)
        if (processes[i].phase != PROCESS_FREE && processes[i].phase != PROCESS_EXITED)
            return true;
    return false;
}
