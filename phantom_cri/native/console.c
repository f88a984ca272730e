/* The pty of a container: made by the child inside the container's devpts, kept by the fragment. */
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <termios.h>

#include "kernel.h"
#include "launch.h"

#define DEVPTS_MAGIC 0x1cd1

static int open_master(void)
{
    struct statfs fs;
    OWNED_FD master =
        kernel_result(open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));

    if (master < 0)
        return master;
    /* On an exec, the container may have replaced it. */
    if (fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_MAGIC)
        return -ENODEV;
    return fd_take(&master);
}

static int send_master(int handoff, int master)
{
    char byte = 0;
    struct iovec bytes = {&byte, 1};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {
        .head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.room)};

    memcpy(CMSG_DATA(&control.head), &master, sizeof(master));
    return sendmsg(handoff, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int console_open(struct launch *launch)
{
    int unlocked = 0;
    OWNED_FD master = open_master();
    OWNED_FD slave = -1;

    if (master < 0)
        return master;
    /* TIOCGPTPEER opens the other end without resolving a path of the container (Linux 4.13). */
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return -errno;
    slave = kernel_result(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (slave < 0)
        return slave;
    if (ioctl(slave, TIOCSCTTY, 0) < 0)
        return -errno;
    for (int fd = 0; fd < 3; fd++)
        if (dup2(slave, fd) < 0)
            return -errno;
    return send_master(launch->handoff, master);
}

int console_receive(int handoff)
{
    char byte;
    int master = -ENOTTY;
    struct iovec bytes = {&byte, 1};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    if (recvmsg(handoff, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
        return -errno;
    if (CMSG_FIRSTHDR(&message) && control.head.cmsg_type == SCM_RIGHTS)
        memcpy(&master, CMSG_DATA(&control.head), sizeof(master));
    return master;
}
