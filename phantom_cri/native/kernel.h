/* System calls without a wrapper in the oldest supported libc, and owned fds.
 *
 * All our functions return 0 (or an fd, a pid, a count) or -errno, so that an error cannot be overwritten by
 * later calls.
 */
#ifndef PHANTOM_KERNEL_H
#define PHANTOM_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MOUNT_ATTR_RDONLY
#error "linux/mount.h of Linux 5.12 or newer is needed"
#endif

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

/* sys/mount.h declares these too, but glibc 2.36's clashes with linux/mount.h. */
#define PH_MNT_DETACH     2
#define PH_MS_PRIVATE     (1UL << 18)
#define PH_MS_REC         (1UL << 14)
#define PH_ATTR_ATIME_ALL 0x70ULL /* MOUNT_ATTR__ATIME */

static inline int kernel_result(long value)
{
    return value < 0 ? -errno : (int)value;
}

/* In one write, as files in /proc and /sys require. */
static inline int kernel_write_all(int fd, const char *text, size_t length)
{
    ssize_t written = write(fd, text, length);

    if (written < 0)
        return -errno;
    return (size_t)written == length ? 0 : -EIO;
}

static inline int kernel_open_tree(int dirfd, const char *path, unsigned flags)
{
    return kernel_result(syscall(SYS_open_tree, dirfd, path, flags | OPEN_TREE_CLOEXEC));
}

static inline int kernel_move_mount(int from, int to, const char *to_path, unsigned flags)
{
    return kernel_result(syscall(SYS_move_mount, from, "", to, to_path, MOVE_MOUNT_F_EMPTY_PATH | flags));
}

static inline int kernel_mount_setattr(int fd, const char *path, unsigned flags,
                                       const struct mount_attr *attr)
{
    return kernel_result(syscall(SYS_mount_setattr, fd, path, flags, attr, sizeof(*attr)));
}

static inline int kernel_fsopen(const char *type)
{
    return kernel_result(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

static inline int kernel_fsconfig(int fd, unsigned command, const char *key, const char *value)
{
    return kernel_result(syscall(SYS_fsconfig, fd, command, key, value, 0));
}

static inline int kernel_fsconfig_fd(int fd, const char *key, int value)
{
    return kernel_result(syscall(SYS_fsconfig, fd, FSCONFIG_SET_FD, key, NULL, value));
}

static inline int kernel_fsmount(int fd, unsigned attributes)
{
    return kernel_result(syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes));
}

static inline int kernel_mount(const char *source, const char *target, const char *type, unsigned long flags,
                               const char *options)
{
    return kernel_result(syscall(SYS_mount, source, target, type, flags, options));
}

/* Makes `.` the root and detaches the old root: pivot_root(2), NOTES, `pivot_root(".", ".")`. */
static inline int kernel_pivot_here(void)
{
    int result = kernel_result(syscall(SYS_pivot_root, ".", "."));

    if (result == 0)
        result = kernel_result(syscall(SYS_umount2, ".", PH_MNT_DETACH));
    return result == 0 ? kernel_result(chdir("/")) : result;
}

static inline int kernel_openat2(int dirfd, const char *path, const struct open_how *how)
{
    return kernel_result(syscall(SYS_openat2, dirfd, path, how, sizeof(*how)));
}

static inline int kernel_pidfd_open(pid_t pid)
{
    return kernel_result(syscall(SYS_pidfd_open, pid, 0));
}

static inline int kernel_pidfd_signal(int pidfd, int signal)
{
    return kernel_result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}

static inline int kernel_close_range(unsigned first, unsigned last, unsigned flags)
{
    return kernel_result(syscall(SYS_close_range, first, last, flags));
}

static inline int kernel_clone3(struct clone_args *args)
{
    return kernel_result(syscall(SYS_clone3, args, sizeof(*args)));
}

/* ---- fds ---- */

static inline void fd_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

static inline int fd_take(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* An fd that is closed at the end of its scope, unless fd_take() released it. */
#define OWNED_FD __attribute__((cleanup(fd_close))) int

#endif
