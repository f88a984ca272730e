/* Ops that drop privileges, and EXEC. */
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "kernel.h"
#include "launch.h"
#include "user.h"

#define PTS_MAJOR_FIRST 136
#define PTS_MAJOR_LAST  143

int op_NO_NEW_PRIVS(struct launch *launch, const struct op *op)
{
    (void)launch;
    (void)op;
    return kernel_result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

int op_BOUNDING(struct launch *launch, const struct op *op)
{
    (void)launch;
    for (unsigned capability = 0; capability < 64; capability++) {
        if (op->field[0].number >> capability & 1)
            continue;
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            /* EINVAL: beyond the kernel's last capability. */
            return errno == EINVAL ? 0 : -errno;
    }
    return 0;
}

static int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];

    for (int i = 0; i < 2; i++) {
        sets[i].effective = (uint32_t)(effective >> 32 * i);
        sets[i].permitted = (uint32_t)(permitted >> 32 * i);
        sets[i].inheritable = (uint32_t)(inheritable >> 32 * i);
    }
    return kernel_result(syscall(SYS_capset, &head, sets));
}

/* A process that opens /dev/stdout again has to own its pipe or pty. */
void own_standard_streams(uid_t uid, gid_t gid)
{
    for (int fd = 0; fd < 3; fd++) {
        struct stat status;

        if (fstat(fd, &status) < 0)
            continue;
        if (S_ISFIFO(status.st_mode) ||
            (S_ISCHR(status.st_mode) && major(status.st_rdev) >= PTS_MAJOR_FIRST &&
             major(status.st_rdev) <= PTS_MAJOR_LAST))
            (void)!fchown(fd, uid, gid);
    }
}

/* A change of ids clears the effective set, and with fs.suid_dumpable=1 it makes the process traceable by
 * other processes while it still has privileges and fds that they must not get. */
int credentials_restore(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];

    if (syscall(SYS_capget, &head, sets) < 0)
        return -errno;
    sets[0].effective = sets[0].permitted;
    sets[1].effective = sets[1].permitted;
    if (syscall(SYS_capset, &head, sets) < 0)
        return -errno;
    return kernel_result(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

/* Keeps the permitted set effective, so that a filter can still be loaded without NO_NEW_PRIVS. */
int op_IDS(struct launch *launch, const struct op *op)
{
    uid_t uid = (uid_t)op->field[0].number;
    gid_t gid = (gid_t)op->field[1].number;

    own_standard_streams(uid, (gid_t)-1);
    launch->step = "setgroups";
    if (syscall(SYS_setgroups, op->field[2].length / sizeof(gid_t), op->field[2].bytes) < 0)
        return -errno;
    launch->step = "setresgid";
    if (syscall(SYS_setresgid, gid, gid, gid) < 0)
        return -errno;
    launch->step = "setresuid";
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0)
        return -errno;
    launch->step = "capset";
    return credentials_restore();
}

int op_CAPABILITIES(struct launch *launch, const struct op *op)
{
    uint64_t ambient = op->field[3].number;
    int result = set_capabilities(op->field[0].number, op->field[1].number, op->field[2].number);

    launch->step = "capset";
    if (result < 0)
        return result;
    launch->step = "ambient";
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -errno;
    for (unsigned capability = 0; capability < 64; capability++)
        if (ambient >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
            return -errno;
    return 0;
}

int op_SECCOMP(struct launch *launch, const struct op *op)
{
    struct sock_fprog program = {
        .len = (unsigned short)(op->field[0].length / sizeof(struct sock_filter)),
        .filter = (struct sock_filter *)op->field[0].bytes,
    };

    (void)launch;
    return kernel_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, op->field[1].number, &program));
}

int op_CHDIR(struct launch *launch, const struct op *op)
{
    launch->step = "chdir";
    return kernel_result(chdir(op->field[0].bytes));
}

void launch_pointers(const struct field *vector, char **pointers)
{
    const char *string = vector->bytes;

    for (uint32_t i = 0; i < vector->length; i++, string = plan_string_after(string))
        pointers[i] = (char *)string;
    pointers[vector->length] = NULL;
}

static const char *search_path(char *const *environment)
{
    for (; *environment; environment++)
        if (!strncmp(*environment, "PATH=", 5))
            return *environment + 5;
    return "/bin:/usr/bin";
}

/* Tries every directory of PATH; as in execvpe(3), EACCES is remembered and the search continues. */
static int execute_by_search(const char *name, char *const *arguments, char *const *environment)
{
    char path[PATH_MAX];
    const char *directory = search_path(environment);
    size_t name_length = strlen(name);
    int error = -ENOENT;

    while (name_length) {
        size_t length = strcspn(directory, ":");

        if (length + name_length + 2 <= sizeof(path)) {
            memcpy(path, directory, length);
            path[length] = '/';
            memcpy(path + length + (length != 0), name, name_length + 1);
            execve(path, arguments, environment);
            if (errno == EACCES)
                error = -EACCES;
            else if (errno != ENOENT && errno != ENOTDIR)
                return -errno;
        }
        directory += length;
        if (!*directory++)
            break;
    }
    return error;
}

static int die_with_fragment(const struct launch *launch)
{
    struct pollfd fragment = {.fd = launch->fragment, .events = POLLIN};

    if (!launch->orphanable)
        return 0;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return -errno;
    /* A readable pidfd: the fragment died before the prctl. */
    return poll(&fragment, 1, 0) > 0 ? -ESRCH : 0;
}

static int wait_for_go(const struct launch *launch, const struct op *op)
{
    struct failure held;
    ssize_t length;
    char go;

    failure_set(STAGE_HELD, 0, op->index, "", &held);
    if (write(launch->status, &held, sizeof(held)) < 0)
        return -errno;
    do
        length = read(launch->status, &go, 1);
    while (length < 0 && errno == EINTR);
    return length == 1 ? 0 : -ESHUTDOWN;
}

int op_EXEC(struct launch *launch, const struct op *op)
{
    const struct field *argv = &op->field[1], *envp = &op->field[2];
    size_t count = (size_t)argv->length + envp->length + 2;
    char **pointers =
        mmap(NULL, count * sizeof(char *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct failure about_to_exec;
    int result;

    if (pointers == MAP_FAILED)
        return -errno;
    launch_pointers(argv, pointers);
    launch_pointers(envp, pointers + argv->length + 1);
    launch->step = "die with the fragment";
    result = die_with_fragment(launch);
    if (result < 0)
        return result;
    /* All our fds are O_CLOEXEC; this covers one that is not (CVE-2024-21626). */
    kernel_close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    if (launch->plan->head.flags & PH_PLAN_HOLD) {
        launch->step = "wait to go on";
        result = wait_for_go(launch, op);
        if (result < 0)
            return result;
    }
    launch->step = "execve";
    failure_set(PH_STAGE_OP, 0, op->index, "", &about_to_exec);
    if (write(launch->status, &about_to_exec, sizeof(about_to_exec)) < 0)
        return -errno;
    if (strchr(op->field[0].bytes, '/'))
        execve(op->field[0].bytes, pointers, pointers + argv->length + 1);
    else
        return execute_by_search(op->field[0].bytes, pointers, pointers + argv->length + 1);
    return -errno;
}
