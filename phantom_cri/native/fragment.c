/* The only runtime process of a pod: holds its namespaces, starts its containers, writes their logs and
 * exits.
 *
 * Started by ph_spawn() (spawn.c) in its namespaces, with PH_FD_LISTEN and PH_FD_STATE. It is controlled only
 * through its socket, and keeps running without a connection.
 */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "attach.h"
#include "connection.h"
#include "fragment_root.h"
#include "kernel.h"
#include "launch.h"
#include "log.h"
#include "loop.h"
#include "process.h"
#include "request.h"
#include "shutdown.h"
#include "text.h"

static int signals = -1;
static bool reap_again;

static int complain(const char *step, int error)
{
    char bytes[128];
    struct text text = {bytes, sizeof(bytes), 0};

    text_append_string(&text, "fragment: ");
    text_append_string(&text, step);
    text_append_string(&text, ": errno ");
    text_append_number(&text, -error);
    text_append_string(&text, "\n");
    (void)!write(STDERR_FILENO, bytes, text.used);
    return 1;
}

/* Ignored signals are inherited through execve, also by our children: all are reset to default. All are
 * blocked, since signalfd reads them; the kernel would not queue an init's unblocked default signals. */
static void quiet_signals(void)
{
    static const uint64_t default_action[4]; /* the kernel's struct sigaction: SIG_DFL is 0 */
    uint64_t all = ~0ULL;

    /* By system call: the C library's signal() refuses 32 and 33, which our parent may ignore. */
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(all));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
}

/* A process needs some fds here: the soft limit (1024 for select(2)) is for children only. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    launch_soft_limit = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int make_own(void)
{
    raise_limit();
    /* Other processes of a shared pid namespace must not read its memory or trace it. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return -errno;
    prctl(PR_SET_NAME, "fragment", 0, 0, 0);
    umask(022);
    return 0;
}

static void signals_ready(uint32_t index, uint32_t generation, uint32_t ready)
{
    struct signalfd_siginfo info;

    (void)index, (void)generation, (void)ready;
    while (read(signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap_again = true;
        /* As init of a shared pid namespace the fragment is visible to containers; a sender outside of the
         * namespace has pid 0: only its signals are accepted. */
        else if (getpid() != 1 || info.ssi_pid == 0)
            shutdown_begin((struct reply_to){0});
    }
}

static int watch_signals(void)
{
    sigset_t watched;

    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    signals = kernel_result(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
    if (signals < 0)
        return signals;
    return loop_watch(signals, (struct watch){.kind = loop_register(signals_ready)}, FOR_INPUT);
}

/* Periodic work before the loop waits for the next event. */
static int64_t turn(void)
{
    static bool is_last;
    int64_t wait, end;

    if (reap_again)
        reap_again = processes_reap();
    wait = processes_tick();
    if (is_last)
        return LOOP_END;
    /* One more turn: requests received before the end are answered. */
    is_last = shutdown_is_done();
    if (is_last || reap_again)
        return 0;
    end = shutdown_wait();
    if (end >= 0 && (wait < 0 || end < wait))
        wait = end;
    if (wait < 0)
        log_rest();
    return wait;
}

static int start_to_listen(void)
{
    int fragment = kernel_pidfd_open(getpid());
    int result = fragment < 0 ? fragment : loop_init();

    if (result < 0)
        return result;
    processes_init(fragment, PH_FD_STATE);
    requests_init(fragment);
    attach_init();
    result = watch_signals();
    return result < 0 ? result : connections_init(PH_FD_LISTEN, request_handle);
}

int main(void)
{
    const char *step = "process attributes";
    int result;

    quiet_signals();
    result = make_own();
    if (result == 0)
        result = fragment_root_init(&step);
    if (result < 0)
        return complain(step, result);
    result = start_to_listen();
    if (result < 0)
        return complain("event loop", result);
    result = loop_run(turn);
    if (result < 0)
        return complain("wait for events", result);
    shutdown_answer();
    return 0;
}
