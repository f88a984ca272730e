#include <signal.h>
#include <string.h>

#include "cgroup.h"
#include "kernel.h"
#include "text.h"

#define CHUNKS_MAX 64 /* about 40 000 processes in one turn of the loop */

/* Cgroup v1 caches the list of an open file for a second (CGROUP_PIDLIST_DESTROY_DELAY), so the file is
 * opened again for each read; /proc is the fragment's own. */
static int reopen(int fd)
{
    char path[40] = "/proc/self/fd/";
    struct text text = {path, sizeof(path) - 1, strlen(path)};

    text_append_number(&text, fd);
    return kernel_result(open(path, O_RDONLY | O_CLOEXEC));
}

struct listing {
    pid_t pid; /* digits read so far */
    int signal;
    int signalled;
};

static void signal_chunk(struct listing *listing, const char *text, ssize_t length)
{
    for (ssize_t i = 0; i < length; i++) {
        if (text[i] != '\n') {
            listing->pid = listing->pid * 10 + (text[i] - '0');
            continue;
        }
        /* In v2, 0 is a process of another pid namespace. */
        if (listing->pid > 0 && listing->pid != getpid() && kill(listing->pid, listing->signal) == 0)
            listing->signalled++;
        listing->pid = 0;
    }
}

static int signal_listed(int fd, int signal)
{
    OWNED_FD list = reopen(fd);
    struct listing listing = {.signal = signal};
    char text[4096];
    ssize_t length = 0;

    if (list < 0)
        return list;
    for (int i = 0; i < CHUNKS_MAX && (length = read(list, text, sizeof(text))) > 0; i++)
        signal_chunk(&listing, text, length);
    return length < 0 ? -errno : listing.signalled;
}

int cgroup_signal(int fd, int signal)
{
    int mode = fcntl(fd, F_GETFL);

    if (mode < 0)
        return -errno;
    if ((mode & O_ACCMODE) == O_RDONLY)
        return signal_listed(fd, signal);
    if (signal != SIGKILL)
        return -EOPNOTSUPP;
    return write(fd, "1", 1) < 0 ? -errno : 0;
}

uint64_t cgroup_oom_kills(int fd)
{
    static const char key[] = "oom_kill ";
    char text[512];
    ssize_t length = fd < 0 ? 0 : pread(fd, text, sizeof(text) - 1, 0);
    const char *line = text;
    uint64_t count = 0;

    text[length < 0 ? 0 : length] = 0;
    while (strncmp(line, key, sizeof(key) - 1)) {
        line = strchr(line, '\n');
        if (!line)
            return 0;
        line++;
    }
    for (line += sizeof(key) - 1; *line >= '0' && *line <= '9'; line++)
        count = count * 10 + (uint64_t)(*line - '0');
    return count;
}
