/* Ops on the pod's user namespace (user.h).
 *
 * Namespaces owned by a user namespace can only be created by a process in it, which cannot leave it again.
 * So a short-lived child creates them, and the fragment, which has its capabilities in all child user
 * namespaces, joins them (user_namespaces(7), "Interaction of user namespaces and other types").
 */
#include <grp.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fragment_root.h"
#include "kernel.h"
#include "launch.h"
#include "text.h"
#include "user.h"

#define OWNABLE (CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

static struct {
    int fd; /* -1: the pod has none */
    uid_t uid;
    gid_t gid; /* the host ids of its root */
} user = {.fd = -1};

/* Becomes root of the current user namespace. */
static int become_root(void)
{
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0 ||
        syscall(SYS_setresuid, 0, 0, 0) < 0)
        return -errno;
    return credentials_restore();
}

/* Runs in the child. The ids are set first: the content of a new ipc namespace (mqueue's root) belongs to its
 * creator. */
static _Noreturn void make_namespaces(int socket, uint64_t namespaces)
{
    int error = 0;

    if (read(socket, &error, sizeof(error)) != sizeof(error))
        _exit(1);
    error = become_root();
    if (error == 0 && unshare((int)namespaces) < 0)
        error = -errno;
    (void)!write(socket, &error, sizeof(error));
    /* Wait until the fragment closes the socket: it has then joined all namespaces. */
    (void)!read(socket, &error, sizeof(error));
    _exit(0);
}

static int open_of(pid_t pid, const char *file, int flags)
{
    char path[64] = "";
    struct text text = {path, sizeof(path) - 1, 0};

    text_append_string(&text, "/proc/");
    text_append_number(&text, pid);
    text_append_string(&text, file);
    return kernel_result(open(path, flags | O_CLOEXEC));
}

/* "0 FIRST COUNT": the namespace's ids from 0 are the host's from `first`. */
static int write_map(pid_t pid, const char *file, uint64_t first, uint64_t count)
{
    char line[64];
    struct text text = {line, sizeof(line), 0};
    OWNED_FD fd = open_of(pid, file, O_WRONLY);
    ssize_t written;

    if (fd < 0)
        return fd;
    text_append_string(&text, "0 ");
    text_append_number(&text, (int64_t)first);
    text_append_string(&text, " ");
    text_append_number(&text, (int64_t)count);
    written = write(fd, line, text.used);
    return written < 0 ? -errno : (size_t)written == text.used ? 0 : -EIO;
}

static int write_maps(struct launch *launch, pid_t pid, const struct op *op)
{
    int result;

    launch->step = "uid_map";
    result = write_map(pid, "/uid_map", op->field[0].number, op->field[1].number);
    if (result < 0)
        return result;
    launch->step = "gid_map";
    return write_map(pid, "/gid_map", op->field[2].number, op->field[3].number);
}

static int adopt_namespaces(struct launch *launch, pid_t pid, int pidfd, int socket, const struct op *op)
{
    OWNED_FD fd = open_of(pid, "/ns/user", O_RDONLY);
    uint64_t namespaces = op->field[4].number;
    int error = 0, result = fd < 0 ? fd : write_maps(launch, pid, op);

    if (result < 0)
        return result;
    launch->step = "namespaces of the user namespace";
    if (write(socket, &error, sizeof(error)) < 0)
        return -errno;
    if (read(socket, &error, sizeof(error)) != sizeof(error))
        return -ECHILD;
    if (error < 0)
        return error;
    if (namespaces && setns(pidfd, (int)namespaces) < 0)
        return -errno;
    launch->step = "owner of the pod's shm";
    user.uid = (uid_t)op->field[0].number;
    user.gid = (gid_t)op->field[2].number;
    if (chown(FRAGMENT_SHM, user.uid, user.gid) < 0)
        return -errno;
    user.fd = fd_take(&fd);
    return 0;
}

/* The kernel truncates numbers that are too big. */
static bool are_ids(uint64_t first, uint64_t count)
{
    return first < UINT32_MAX && count <= UINT32_MAX - first;
}

int op_USER_NAMESPACE(struct launch *launch, const struct op *op)
{
    OWNED_FD pidfd = -1;
    struct clone_args args = {
        .flags = CLONE_NEWUSER | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    siginfo_t info;
    int ends[2], pid, result;

    if (op->field[4].number & ~(uint64_t)OWNABLE)
        return -ENOSYS;
    launch->step = "ids";
    if (!are_ids(op->field[0].number, op->field[1].number) ||
        !are_ids(op->field[2].number, op->field[3].number))
        return -EINVAL;
    if (user.fd >= 0)
        return -EEXIST;
    launch->step = "clone";
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    pid = kernel_clone3(&args);
    if (pid == 0) {
        close(ends[0]);
        make_namespaces(ends[1], op->field[4].number);
    }
    close(ends[1]);
    result = pid < 0 ? pid : adopt_namespaces(launch, pid, pidfd, ends[0], op);
    close(ends[0]);
    while (pid > 0 && waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR)
        ;
    return result;
}

/* The pipes are chowned first: inside, files of the host's root cannot be changed. */
int op_JOIN_USER(struct launch *launch, const struct op *op)
{
    (void)op;
    launch->step = "no user namespace";
    if (user.fd < 0)
        return -ESRCH;
    own_standard_streams(user.uid, user.gid);
    launch->step = "setns";
    if (setns(user.fd, CLONE_NEWUSER) < 0)
        return -errno;
    launch->step = "ids";
    return become_root();
}

/* Only the ids for files: for signals and scheduling the process is still the host's root. */
int op_FILES_AS_ROOT(struct launch *launch, const struct op *op)
{
    (void)op;
    launch->step = "no user namespace";
    if (user.fd < 0)
        return -ESRCH;
    launch->step = "ids of files";
    setfsgid(user.gid);
    setfsuid(user.uid);
    /* They do not return errors, only the previous id. */
    if (setfsgid((gid_t)-1) != (int)user.gid || setfsuid((uid_t)-1) != (int)user.uid)
        return -EPERM;
    return credentials_restore();
}

int op_MAP_IDS(struct launch *launch, const struct op *op)
{
    int tree = launch->slots[op->field[0].number], result;

    launch->step = "mount_setattr";
    result = user_map_tree(tree);
    if (result == -EINVAL)
        launch->step = "its file system cannot map ids, or they are mapped already";
    return result;
}

int user_map_tree(int tree)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user.fd};
    int result;

    if (user.fd < 0)
        return -ESRCH;
    result = kernel_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr);
    /* Not recursive: a submount that cannot be mapped (as procfs) would fail all. It stays unmapped. */
    return result < 0 ? kernel_mount_setattr(tree, "", AT_EMPTY_PATH, &attr) : 0;
}

int user_take_root(void)
{
    if (user.fd < 0)
        return -ESRCH;
    if (syscall(SYS_setresgid, -1, user.gid, -1) < 0 || syscall(SYS_setresuid, -1, user.uid, -1) < 0)
        return -errno;
    return credentials_restore();
}

int user_leave_root(void)
{
    if (syscall(SYS_setresuid, -1, 0, -1) < 0 || syscall(SYS_setresgid, -1, 0, -1) < 0)
        return -errno;
    return credentials_restore();
}
