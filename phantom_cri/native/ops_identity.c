/* Ops that give a process, or the fragment itself, its identity. */
#include <limits.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "kernel.h"
#include "launch.h"
#include "text.h"
#include "user.h"

int op_HOSTNAME(struct launch *launch, const struct op *op)
{
    (void)launch;
    return kernel_result(sethostname(op->field[0].bytes, op->field[0].length));
}

static int write_sysctl(struct launch *launch, const struct op *op)
{
    struct open_how how = {
        .flags = O_WRONLY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    OWNED_FD directory = kernel_result(open("/proc/sys", O_PATH | O_DIRECTORY | O_CLOEXEC));
    OWNED_FD file = directory < 0 ? directory : kernel_openat2(directory, op->field[0].bytes, &how);

    launch->step = "open";
    if (file < 0)
        return file;
    launch->step = "write";
    return kernel_write_all(file, op->field[1].bytes, op->field[1].length);
}

/* Sysctls of an ipc namespace may only be set by the root of its user namespace (Linux 6.10,
 * ipc_permissions()).
 */
int op_SYSCTL(struct launch *launch, const struct op *op)
{
    int result = write_sysctl(launch, op), left;

    if (result != -EACCES || user_take_root() < 0)
        return result;
    result = write_sysctl(launch, op);
    left = user_leave_root();
    return left < 0 ? left : result;
}

/* rtnetlink numbers messages NEW, DEL, GET, SET in groups of four. The flags are ambiguous: NLM_F_DUMP's bits
 * are REPLACE and EXCL in a NEW. */
static bool is_query(uint16_t type)
{
    return (type - RTM_BASE) % 4 == 2;
}

/* rtnetlink handles a request within sendto(): the answer is available when it returns. */
static int netlink_request(int fd, const struct nlmsghdr *request)
{
    uint32_t answer[64];
    const struct nlmsghdr *head = (const void *)answer;
    ssize_t length;

    if (send(fd, request, request->nlmsg_len, 0) < 0)
        return -errno;
    do {
        length = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
        if (length < 0)
            return -errno;
        if ((size_t)length < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
            return -EPROTO;
    } while (head->nlmsg_type != NLMSG_ERROR || head->nlmsg_seq != request->nlmsg_seq);
    return ((const struct nlmsgerr *)NLMSG_DATA(head))->error;
}

int op_NETLINK(struct launch *launch, const struct op *op)
{
    OWNED_FD fd = kernel_result(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    const char *next = op->field[0].bytes;
    size_t left = op->field[0].length;
    int on = 1;

    launch->step = "socket";
    if (fd < 0)
        return fd;
    /* Without this option the answer repeats the request, of any length. */
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    while (left) {
        const struct nlmsghdr *request = (const void *)next;
        size_t step;
        int result;

        launch->step = "malformed request";
        if (left < sizeof(*request) || request->nlmsg_len < sizeof(*request) || request->nlmsg_len > left ||
            !(request->nlmsg_flags & NLM_F_ACK) || is_query(request->nlmsg_type))
            return -EINVAL;
        launch->step = "request";
        result = netlink_request(fd, request);
        if (result < 0)
            return result;
        step = NLMSG_ALIGN(request->nlmsg_len);
        if (step > left)
            step = left;
        next += step;
        left -= step;
    }
    return 0;
}

static int write_score(int fd, int64_t score)
{
    char text[24];
    char *start = text + sizeof(text);
    uint64_t value = score < 0 ? (uint64_t)-score : (uint64_t)score;

    do
        *--start = (char)('0' + value % 10);
    while (value /= 10);
    if (score < 0)
        *--start = '-';
    return kernel_write_all(fd, start, (size_t)(text + sizeof(text) - start));
}

static int64_t read_score(int fd)
{
    char text[16] = "";
    int64_t value = 0;
    const char *digit = text;

    if (pread(fd, text, sizeof(text) - 1, 0) < 0)
        return 0;
    for (digit += *digit == '-'; *digit >= '0' && *digit <= '9'; digit++)
        value = value * 10 + (*digit - '0');
    return text[0] == '-' ? -value : value;
}

/* Without CAP_SYS_RESOURCE a score cannot be lowered below the value last set by a privileged process
 * (proc(5), oom_score_adj); that bound cannot be read, so this searches for it. */
int op_OOM_SCORE(struct launch *launch, const struct op *op)
{
    OWNED_FD fd = kernel_result(open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC));
    int64_t refused = (int64_t)op->field[0].number, granted;
    int result;

    launch->step = "open";
    if (fd < 0)
        return fd;
    launch->step = "write";
    if (refused < -1000 || refused > 1000)
        return -EINVAL;
    result = write_score(fd, refused);
    if (result != -EACCES)
        return result;
    granted = read_score(fd);
    while (granted - refused > 1) {
        int64_t middle = refused + (granted - refused) / 2;

        if (write_score(fd, middle) == 0)
            granted = middle;
        else
            refused = middle;
    }
    return 0;
}

int op_RLIMIT(struct launch *launch, const struct op *op)
{
    struct rlimit limit = {.rlim_cur = op->field[1].number, .rlim_max = op->field[2].number};

    (void)launch;
    return kernel_result(setrlimit((int)op->field[0].number, &limit));
}

int op_UMASK(struct launch *launch, const struct op *op)
{
    (void)launch;
    umask((mode_t)op->field[0].number & 0777);
    return 0;
}
