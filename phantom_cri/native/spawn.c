/* clone3 with CLONE_VM and CLONE_VFORK: the daemon's page tables are not copied, and the calling thread is
 * suspended until the child has its own memory. The child has its own stack, so that it cannot change the
 * caller's frames; it only makes system calls.
 */
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "kernel.h"
#include "protocol.h"
#include "spawn.h"

#define STACK_SIZE 16384
#define BINARY_FD  5 /* above the fds that the fragment is started with */
#define HIGH_FD    16

/* RLIMIT_NOFILE at this process's start: fragments, and so containers, are started with it. */
static struct rlimit first_limit;
static bool is_raised;

struct spawn {
    int binary_fd;
    int listen_fd;
    int state_fd;
    int stderr_fd;
    const char *title;
    int error; /* set by the child, which shares our memory */
};

/* dup2 to low numbers, from copies at high numbers: the caller's fds may be low ones too. */
static int place_fds(const struct spawn *spawn)
{
    const int from[] = {spawn->stderr_fd, spawn->listen_fd, spawn->state_fd, spawn->binary_fd};
    static const int to[] = {STDERR_FILENO, PH_FD_LISTEN, PH_FD_STATE, BINARY_FD};
    int high[4], null;

    for (int i = 0; i < 4; i++) {
        high[i] = from[i] < 0 ? -1 : fcntl(from[i], F_DUPFD_CLOEXEC, HIGH_FD);
        if (from[i] >= 0 && high[i] < 0)
            return -errno;
    }
    null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        if (null < 0 || (null != fd && dup2(null, fd) < 0))
            return -errno;
    for (int i = 0; i < 4; i++)
        if (high[i] >= 0 && dup3(high[i], to[i], to[i] == BINARY_FD ? O_CLOEXEC : 0) < 0)
            return -errno;
    return kernel_close_range(BINARY_FD + 1, ~0U, 0);
}

static _Noreturn void exec_fragment(void *argument)
{
    struct spawn *spawn = argument;
    char *const argv[] = {(char *)spawn->title, NULL};
    char *const envp[] = {NULL};
    int error = place_fds(spawn);

    if (error == 0 && is_raised)
        error = kernel_result(setrlimit(RLIMIT_NOFILE, &first_limit));
    if (error == 0) {
        setsid();
        syscall(SYS_execveat, BINARY_FD, "", argv, envp, AT_EMPTY_PATH);
        error = -errno;
    }
    spawn->error = error;
    _exit(127);
}

#if defined(__x86_64__)
/* The child's first instruction runs on the new stack: it must not return into the caller's frame. */
static long clone_onto(struct clone_args *args, void (*function)(void *), void *argument)
{
    register void (*entry)(void *) __asm__("r8") = function;
    register void *value __asm__("r9") = argument;
    long result = SYS_clone3;

    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r9, %%rdi\n\t"
                     "call *%%r8\n\t"
                     "ud2\n"
                     "1:"
                     : "+a"(result)
                     : "D"(args), "S"(sizeof(*args)), "r"(entry), "r"(value)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static long clone_onto(struct clone_args *args, void (*function)(void *), void *argument)
{
    register long result __asm__("x0") = (long)args;
    register size_t size __asm__("x1") = sizeof(*args);
    register void (*entry)(void *) __asm__("x10") = function;
    register void *value __asm__("x11") = argument;
    register long number __asm__("x8") = SYS_clone3;

    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, x11\n\t"
                     "blr x10\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(result)
                     : "r"(size), "r"(entry), "r"(value), "r"(number)
                     : "memory", "x30", "cc");
    return result;
}
#else
#error "clone_onto() is not written for this architecture"
#endif

int ph_spawn(int binary_fd, const char *title, uint64_t clone_flags, int listen_fd, int state_fd,
             int cgroup_fd, int stderr_fd, int *pidfd)
{
    char stack[STACK_SIZE] __attribute__((aligned(16)));
    struct spawn spawn = {binary_fd, listen_fd, state_fd, stderr_fd, title, 0};
    struct clone_args args = {
        .flags = clone_flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = sizeof(stack),
    };
    uint64_t all = ~0ULL, before;
    long pid;

    *pidfd = -1;
    if (cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
    }
    /* A signal handler of the daemon would run in the child, with the daemon's memory. */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
    pid = clone_onto(&args, exec_fragment, &spawn);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
    if (pid < 0 || spawn.error == 0)
        return (int)pid;
    while (waitid(P_PID, (id_t)pid, NULL, WEXITED) < 0 && errno == EINTR)
        ;
    fd_close(pidfd);
    return spawn.error;
}

int ph_raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    first_limit = limit;
    is_raised = true;
    limit.rlim_cur = limit.rlim_max;
    return kernel_result(setrlimit(RLIMIT_NOFILE, &limit));
}

int ph_bpf(int command, void *attributes, unsigned size)
{
    return kernel_result(syscall(SYS_bpf, command, attributes, size));
}
