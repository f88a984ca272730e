/* OCI's createContainer hooks: programs of the host that modify a container's root before the container runs.
 *
 * Such a program sees the host's mounts, and the root with all its mounts at `rootfs` in the bundle; mounts
 * that it adds there are in the container. For that, a clone of the host's mounts is attached in the launch's
 * own mount namespace until PIVOT detaches it. Nothing is mounted on the host itself.
 */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "fragment_root.h"
#include "kernel.h"
#include "launch.h"
#include "text.h"

#define HOST       FRAGMENT_SHM /* its own content is already in the container */
#define REASON_MAX 120          /* what fits into a failure's text */

int op_HOST(struct launch *launch, const struct op *op)
{
    struct mount_attr private = {.propagation = PH_MS_PRIVATE};
    OWNED_FD tree = fd_take(&launch->slots[op->field[0].number]);
    char bytes[PATH_MAX];
    struct text target = {bytes, sizeof(bytes) - 1, 0};
    int result;

    launch->step = "no root";
    if (tree < 0 || launch->root < 0)
        return -EINVAL;
    launch->step = "propagation";
    result = kernel_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &private);
    if (result < 0)
        return result;
    launch->step = "move_mount";
    result = kernel_move_mount(tree, AT_FDCWD, HOST, 0);
    if (result < 0)
        return result;
    launch->step = "move the root";
    text_append_string(&target, HOST);
    text_append_string(&target, op->field[1].bytes);
    text_append_string(&target, "/rootfs");
    if (target.used == target.room)
        return -ENAMETOOLONG;
    bytes[target.used] = 0;
    launch->bundle = op->field[1].bytes;
    return kernel_move_mount(launch->root, AT_FDCWD, bytes, 0);
}

static int enter_bundle(const char *bundle)
{
    int result = kernel_result(chroot(HOST));

    return result < 0 ? result : kernel_result(chdir(bundle));
}

/* Runs in the hook's process. Errors before its execve are written to its output, as its own would be. */
static _Noreturn void run_hook(const struct launch *launch, const struct op *op, int input, int output,
                               char **pointers)
{
    char bytes[64];
    struct text text = {bytes, sizeof(bytes), 0};
    int result;

    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        _exit(127);
    kernel_close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    result = enter_bundle(launch->bundle);
    text_append_string(&text, result < 0 ? "bundle" : "execve");
    if (result == 0) {
        execve(op->field[0].bytes, pointers, pointers + op->field[2].length + 1);
        result = -errno;
    }
    text_append_string(&text, ": errno ");
    text_append_number(&text, -result);
    (void)!write(2, bytes, text.used);
    _exit(127);
}

/* The end of its output is taken as the reason. */
static void take_reason(int output, struct launch *launch)
{
    off_t size = lseek(output, 0, SEEK_END);
    off_t start = size > REASON_MAX ? size - REASON_MAX : 0;
    ssize_t length = pread(output, launch->reason, REASON_MAX, start);

    launch->reason[length < 0 ? 0 : length] = 0;
    for (char *byte = launch->reason; *byte; byte++)
        *byte = *byte == '\n' ? ' ' : *byte < ' ' || *byte > '~' ? '?' : *byte;
}

/* 0 if it succeeded within its timeout. */
static int wait_for_hook(int pidfd, uint64_t seconds)
{
    struct pollfd hook = {.fd = pidfd, .events = POLLIN};
    int milliseconds = seconds == 0 || seconds > INT_MAX / 1000 ? -1 : (int)seconds * 1000;
    siginfo_t end = {0};
    int ready;

    do
        ready = poll(&hook, 1, milliseconds);
    while (ready < 0 && errno == EINTR);
    if (ready <= 0)
        kernel_pidfd_signal(pidfd, SIGKILL);
    while (waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED) < 0 && errno == EINTR)
        ;
    if (ready <= 0)
        return -ETIME;
    return end.si_code == CLD_EXITED && end.si_status == 0 ? 0 : -ECANCELED;
}

static int make_input(const struct field *state)
{
    OWNED_FD input = kernel_result(memfd_create("state", MFD_CLOEXEC));

    if (input < 0)
        return input;
    if (write(input, state->bytes, state->length) != (ssize_t)state->length || lseek(input, 0, SEEK_SET) < 0)
        return -EIO;
    return fd_take(&input);
}

int op_HOOK(struct launch *launch, const struct op *op)
{
    const struct field *argv = &op->field[2], *envp = &op->field[3];
    size_t count = (size_t)argv->length + envp->length + 2;
    OWNED_FD input = make_input(&op->field[1]);
    OWNED_FD output = kernel_result(memfd_create("output", MFD_CLOEXEC));
    OWNED_FD pidfd = -1;
    struct clone_args args = {
        .flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    char **pointers;
    int result;

    launch->step = "no host";
    if (!launch->bundle)
        return -EINVAL;
    launch->step = "streams";
    if (input < 0 || output < 0)
        return input < 0 ? input : output;
    pointers = mmap(NULL, count * sizeof(char *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pointers == MAP_FAILED)
        return -errno;
    launch_pointers(argv, pointers);
    launch_pointers(envp, pointers + argv->length + 1);
    launch->step = "clone";
    result = kernel_clone3(&args);
    if (result == 0)
        run_hook(launch, op, input, output, pointers);
    munmap(pointers, count * sizeof(char *));
    if (result < 0)
        return result;
    launch->step = "it failed";
    result = wait_for_hook(pidfd, op->field[4].number);
    if (result < 0)
        take_reason(output, launch);
    return result;
}
