/* containerd-shim-phantom-v2: what containerd runs to start a shim, to clean up after one, and to ask about
 * it.
 *
 * It hands its arguments, its folder and its stdin to phantom-cri and prints the answer; no process stays.
 * The one thing that it does itself: when no daemon is there, `delete` kills the task in whose bundle it
 * runs.
 *
 * To the daemon: the number of strings in decimal, then the strings, each with a NUL behind it: the
 * arguments, the current folder, $TTRPC_ADDRESS; then stdin as it is, until we shut down our side. From it:
 * one byte, our exit status, then what to print.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_VARIABLE "PHANTOM_SHIM_SOCKET"
#define SOCKET_DEFAULT  "/run/phantom/shim.sock"
#define INIT_FILE       "phantom.init" /* in a bundle: the first process's pid and start time (shim/bundle.py) */

#define TRIES     300 /* a daemon that is being restarted is back within these */
#define PAUSE_NS  10000000
#define DEATH_MS  4000
#define KILLED    137
#define STDIN_MAX (1 << 20)

static char request[STDIN_MAX + (1 << 16)];
static size_t length;

static _Noreturn void fail(const char *what, const char *name)
{
    fprintf(stderr, "containerd-shim-phantom-v2: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static void append(const char *text)
{
    size_t size = strlen(text) + 1;

    if (length + size > sizeof(request)) {
        errno = E2BIG;
        fail("read", "the arguments");
    }
    memcpy(request + length, text, size);
    length += size;
}

static void append_stdin(void)
{
    size_t limit = length + STDIN_MAX < sizeof(request) ? length + STDIN_MAX : sizeof(request);
    ssize_t got;

    if (isatty(0))
        return;
    while ((got = read(0, request + length, limit - length)) != 0) {
        if (got < 0 && errno != EINTR)
            fail("read", "stdin");
        length += got > 0 ? (size_t)got : 0;
        if (length == limit) {
            errno = EFBIG;
            fail("read", "stdin");
        }
    }
}

static bool write_all(int fd, const void *bytes, size_t size)
{
    ssize_t put;

    for (size_t at = 0; at < size; at += (size_t)put)
        if ((put = write(fd, (const char *)bytes + at, size - at)) < 0)
            return false;
    return true;
}

static void print(int fd, const void *bytes, size_t size)
{
    if (!write_all(fd, bytes, size))
        fail("write to", fd == 1 ? "stdout" : "stderr");
}

/* Returns -1 when nobody listens. */
static int connected(const char *path, int tries)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timespec pause = {.tv_nsec = PAUSE_NS};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        fail("connect to", path);
    }
    strcpy(address.sun_path, path);
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        if (--tries <= 0 || (errno != ENOENT && errno != ECONNREFUSED && errno != EINTR)) {
            close(fd);
            return -1;
        }
        nanosleep(&pause, NULL);
    }
    return fd;
}

/* Returns our exit status, or -1 when no daemon answers. One that dies meanwhile is asked again: it is safe.
 */
static int ask(const char *path, int tries)
{
    static char answer[1 << 16];
    unsigned char status;
    ssize_t got;
    int fd;

    while ((fd = connected(path, tries)) >= 0) {
        if (write_all(fd, request, length) && shutdown(fd, SHUT_WR) == 0 && read(fd, &status, 1) == 1)
            break;
        close(fd);
    }
    if (fd < 0)
        return -1;
    while ((got = read(fd, answer, sizeof(answer))) > 0)
        print(status ? 2 : 1, answer, (size_t)got);
    return status;
}

/* ---- delete without a daemon ---- */

/* Field 22 of /proc/PID/stat (proc_pid_stat(5)); 0 when it cannot be read. */
static unsigned long long start_time(long pid)
{
    char path[64], text[4096], *place;
    unsigned long long found = 0;
    ssize_t size;
    int fd;

    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[size > 0 ? size : 0] = 0;
    place = strrchr(text, ')');
    for (int field = 2; place && field < 22; field++)
        place = strchr(place + 1, ' ');
    if (place)
        sscanf(place, "%llu", &found);
    return found;
}

/* The fragment ends what is left of a task whose first process ended. Returns the pid, 0 for none. */
static long kill_task(void)
{
    unsigned long long started;
    long pid = 0;
    FILE *file = fopen(INIT_FILE, "re");
    int pidfd = -1;

    if (!file)
        return 0;
    if (fscanf(file, "%ld %llu", &pid, &started) == 2 && pid > 0)
        pidfd = pidfd_open((pid_t)pid, 0);
    fclose(file);
    if (pidfd < 0)
        return pid;
    /* Now that the process is held, its pid cannot be another's. */
    if (start_time(pid) == started) {
        struct pollfd watched = {.fd = pidfd, .events = POLLIN};

        pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
        poll(&watched, 1, DEATH_MS);
    }
    close(pidfd);
    return pid;
}

static unsigned char *put_varint(unsigned char *place, unsigned char key, uint64_t value)
{
    *place++ = key;
    for (; value > 127; value >>= 7)
        *place++ = (unsigned char)(value | 128);
    *place++ = (unsigned char)value;
    return place;
}

/* A task's DeleteResponse { pid = 1; exit_status = 2; exited_at = 3 { seconds = 1 } }. */
static int delete_here(void)
{
    unsigned char seconds[16], answer[64], *end;
    size_t size = (size_t)(put_varint(seconds, 0x08, (uint64_t)time(NULL)) - seconds);

    end = put_varint(answer, 0x08, (uint64_t)kill_task());
    end = put_varint(end, 0x10, KILLED);
    end = put_varint(end, 0x1a, size);
    memcpy(end, seconds, size);
    print(1, answer, (size_t)(end - answer) + size);
    return 0;
}

int main(int count, char **arguments)
{
    const char *path = getenv(SOCKET_VARIABLE), *address = getenv("TTRPC_ADDRESS");
    bool deletes = count > 1 && strcmp(arguments[count - 1], "delete") == 0;
    char folder[4096], number[16];
    int status;

    signal(SIGPIPE, SIG_IGN);
    path = path && *path ? path : SOCKET_DEFAULT;
    if (!getcwd(folder, sizeof(folder)))
        fail("getcwd", "");
    snprintf(number, sizeof(number), "%d", count + 1);
    append(number);
    for (int i = 1; i < count; i++)
        append(arguments[i]);
    append(folder);
    append(address ? address : "");
    append_stdin();
    status = ask(path, deletes ? 1 : TRIES);
    if (status < 0 && deletes)
        return delete_here();
    if (status < 0)
        fail("connect to phantom-cri at", path);
    return status;
}
