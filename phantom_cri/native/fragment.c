/* A pod's only process of ours: its namespaces, the parent of its containers, their logs and exits.
 *
 * Born by ph_spawn() (spawn.c) in its namespaces, with PH_FD_LISTEN and PH_FD_STATE. It takes no orders but
 * over its socket, and goes on when nobody is connected.
 */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "home.h"
#include "kernel.h"
#include "launch.h"
#include "loop.h"
#include "process.h"
#include "request.h"
#include "text.h"

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

/* Ignored signals survive execve, and our children's: all back to default; and all blocked, since only
 * signalfd takes any. An ignored or default signal of an init would otherwise not even be queued. */
static void quiet_signals(void)
{
    static const uint64_t default_action[4]; /* struct sigaction as the kernel has it: SIG_DFL is 0 */
    uint64_t all = ~0ULL;

    /* By system call: the C library's own signal() refuses 32 and 33, which whoever started us may ignore. */
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(all));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
}

/* A process costs some fds here: the soft limit (1024 for select(2)'s sake) is the children's, not ours. */
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
    /* Nobody in a shared pid namespace may look into it or attach to it. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return -errno;
    prctl(PR_SET_NAME, "fragment", 0, 0, 0);
    umask(022);
    return 0;
}

int main(void)
{
    const char *step = "process attributes";
    int home, result;

    quiet_signals();
    result = make_own();
    if (result == 0)
        result = home_init(&step);
    if (result < 0)
        return complain(step, result);
    home = kernel_pidfd_open(getpid());
    if (home < 0)
        return complain("pidfd_open", home);
    processes_init(home, PH_FD_STATE);
    requests_init(home);
    result = loop_init();
    if (result < 0)
        return complain("event loop", result);
    return loop_run();
}
