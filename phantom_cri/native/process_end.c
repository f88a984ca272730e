/* From a child's death to PH_EXITED: the rest of its cgroup, the rest of its output, its record. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "cgroup.h"
#include "kernel.h"
#include "process.h"

#define KILL_TURN_NS 2000000LL /* between checks of a cgroup that is being killed */
#define REAP_MAX     256       /* children per turn of the loop */

static struct process *find_by_pid(pid_t pid)
{
    struct process *process;

    for (uint32_t i = 0; (process = process_at(&i));)
        if (process->pid == pid && (process->phase == PROCESS_STARTING || process->phase == PROCESS_FAILED ||
                                    process->phase == PROCESS_HELD || process->phase == PROCESS_RUNNING))
            return process;
    return NULL;
}

/* Called at once and again at the end: until then other processes of the cgroup may be killed, and a service
 * manager may remove an empty cgroup, after which it cannot be read. */
static void note_oom(struct process *process)
{
    if (cgroup_oom_kills(process->oom) > process->oom_kills)
        process->exit.oom = 1;
}

static void record_death(struct process *process, const siginfo_t *info)
{
    process->is_dead = true;
    if (process->phase == PROCESS_STARTING)
        process_settle(process);
    if (process->phase == PROCESS_HELD) {
        process_deinit(process);
        return;
    }
    if (process->phase == PROCESS_FAILED) {
        struct reply_to starter = process->starter;
        struct failure failure = process->failure;

        process_deinit(process);
        reply_failure(starter, &failure);
        return;
    }
    process->phase = PROCESS_ENDING;
    process->exit.finished_at = clock_wall();
    process->exit.signal = info->si_code == CLD_EXITED ? 0 : info->si_status;
    process->exit.code = info->si_code == CLD_EXITED ? info->si_status : 128 + info->si_status;
    process->deadline = clock_now() + PROCESS_LINGER_NS;
    note_oom(process);
    if (process->flags & PH_PLAN_KILL_REST)
        process_kill_rest(process);
}

bool processes_reap(void)
{
    for (int i = 0; i < REAP_MAX; i++) {
        siginfo_t info = {0};
        struct process *process;

        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
            return false;
        /* Other children are orphans that the kernel reparented to the fragment. */
        process = find_by_pid(info.si_pid);
        if (process)
            record_death(process, &info);
    }
    return true;
}

static void end_output(struct process *process)
{
    for (int name = 0; name < LOG_STREAMS; name++)
        if (process->log.streams[name].fd >= 0 && log_pump(&process->log, (enum log_name)name))
            log_end(&process->log, (enum log_name)name);
}

static int64_t kill_turn(struct process *process, int64_t now)
{
    if (cgroup_signal(process->kill, SIGKILL) > 0 && now < process->kill_deadline)
        return KILL_TURN_NS;
    process->is_killing = false;
    return -1;
}

static int64_t end_turn(struct process *process, int64_t now)
{
    if (now >= process->deadline)
        end_output(process);
    if (process->is_killing || log_is_open(&process->log))
        return process->deadline - now;
    note_oom(process);
    process->exit.dropped_lines = process->log.dropped;
    process_exited(process);
    return -1;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

int64_t processes_tick(void)
{
    int64_t now = clock_now(), wait = -1;
    struct process *process;

    for (uint32_t i = 0; (process = process_at(&i));) {
        if (process->is_killing)
            wait = sooner(wait, kill_turn(process, now));
        if (process->phase == PROCESS_ENDING)
            wait = sooner(wait, end_turn(process, now));
    }
    return wait;
}
