#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "kernel.h"
#include "log.h"
#include "text.h"

#define PUMP_MAX    65536 /* bytes of one stream per turn of the loop, so that others get their turn soon */
#define OUTPUT_ROOM 65536
#define HEAD_LENGTH (TEXT_TIME_LENGTH + sizeof(" stdout F ") - 1)
#define HEAD_TAG    (HEAD_LENGTH - 2)

/* One buffer for all streams: it is empty between turns. */
static char output[OUTPUT_ROOM] __attribute__((aligned(4096)));
static size_t output_used;
static bool output_touched;

int log_init(int fd, int out, int err, bool is_console, struct log *log)
{
    const int fds[LOG_STREAMS] = {out, err};
    int result = 0;

    memset(log, 0, sizeof(*log));
    log->fd = fd;
    log->is_console = is_console;
    for (int i = 0; i < LOG_STREAMS; i++)
        log->streams[i].fd = fds[i];
    for (int i = 0; i < LOG_STREAMS && result == 0; i++) {
        void *buffer;

        if (fds[i] < 0)
            continue;
        buffer = mmap(NULL, LOG_LINE_MAX + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (buffer == MAP_FAILED)
            result = -errno;
        else
            log->streams[i].buffer = buffer;
    }
    if (result < 0)
        log_deinit(log);
    return result;
}

static void close_stream(struct log *log, enum log_name name)
{
    log->streams[name].used = 0;
    fd_close(&log->streams[name].fd);
    if (log->tap)
        log->tap(log, name, NULL, 0);
}

void log_deinit(struct log *log)
{
    for (int i = 0; i < LOG_STREAMS; i++) {
        close_stream(log, (enum log_name)i);
        if (log->streams[i].buffer)
            munmap(log->streams[i].buffer, LOG_LINE_MAX + 1);
        log->streams[i].buffer = NULL;
    }
    fd_close(&log->fd);
}

/* Counts the lines that could not be written, and truncates a partly written one. */
static void drop(struct log *log, size_t written)
{
    size_t whole = written;
    off_t end;

    while (whole && output[whole - 1] != '\n')
        whole--;
    for (const char *at = output + whole; (at = memchr(at, '\n', (size_t)(output + output_used - at))); at++)
        log->dropped++;
    if (whole == written)
        return;
    end = lseek(log->fd, 0, SEEK_CUR);
    if (end >= (off_t)(written - whole))
        (void)!ftruncate(log->fd, end - (off_t)(written - whole));
}

static void flush(struct log *log)
{
    size_t written = 0;

    while (written < output_used) {
        ssize_t count = write(log->fd, output + written, output_used - written);

        if (count <= 0) {
            drop(log, written);
            break;
        }
        written += (size_t)count;
    }
    output_used = 0;
}

static void emit(struct log *log, char *head, char tag, const char *text, size_t length)
{
    if (OUTPUT_ROOM - output_used < HEAD_LENGTH + length + 1)
        flush(log);
    head[HEAD_TAG] = tag;
    memcpy(output + output_used, head, HEAD_LENGTH);
    memcpy(output + output_used + HEAD_LENGTH, text, length);
    output_used += HEAD_LENGTH + length;
    output[output_used++] = '\n';
}

static void format_head(enum log_name name, char head[HEAD_LENGTH])
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    text_time((int64_t)now.tv_sec * 1000000000 + now.tv_nsec, head);
    memcpy(head + TEXT_TIME_LENGTH, name == LOG_STDOUT ? " stdout F " : " stderr F ",
           HEAD_LENGTH - TEXT_TIME_LENGTH);
}

/* Handles `fresh` bytes added to the buffer, which had no end of line before; writes the complete lines, and
 * the first part of one that fills the buffer. */
static void split(struct log *log, enum log_name name, size_t fresh)
{
    struct log_stream *stream = &log->streams[name];
    char *line = stream->buffer, *unseen = stream->buffer + stream->used;
    char *end = unseen + fresh, *newline;
    char head[HEAD_LENGTH];

    format_head(name, head);
    while ((newline = memchr(unseen, '\n', (size_t)(end - unseen)))) {
        size_t length = (size_t)(newline - line);

        if (log->is_console && length && line[length - 1] == '\r')
            length--;
        emit(log, head, 'F', line, length);
        unseen = line = newline + 1;
    }
    if (end - line > LOG_LINE_MAX) {
        emit(log, head, 'P', line, LOG_LINE_MAX);
        line += LOG_LINE_MAX;
    }
    stream->used = (size_t)(end - line);
    if (stream->used && line != stream->buffer)
        memmove(stream->buffer, line, stream->used);
}

static void finish(struct log *log, enum log_name name)
{
    struct log_stream *stream = &log->streams[name];
    char head[HEAD_LENGTH];

    if (log->fd >= 0 && stream->used) {
        format_head(name, head);
        emit(log, head, 'P', stream->buffer, stream->used);
        flush(log);
    }
    close_stream(log, name);
}

bool log_pump(struct log *log, enum log_name name)
{
    struct log_stream *stream = &log->streams[name];
    size_t total = 0;
    ssize_t count;
    bool is_open;

    output_touched = true;
    do {
        count = read(stream->fd, stream->buffer + stream->used, LOG_LINE_MAX + 1 - stream->used);
        if (count <= 0)
            break;
        total += (size_t)count;
        if (log->tap)
            log->tap(log, name, stream->buffer + stream->used, (size_t)count);
        if (log->fd >= 0)
            split(log, name, (size_t)count);
    } while (total < PUMP_MAX);
    /* Else end of file, or EIO from a pty's master when its last slave is closed. */
    is_open = count > 0 || (count < 0 && errno == EAGAIN);
    if (log->fd >= 0)
        flush(log);
    if (!is_open)
        finish(log, name);
    return is_open;
}

void log_end(struct log *log, enum log_name name)
{
    if (log->streams[name].fd >= 0)
        finish(log, name);
}

bool log_is_open(const struct log *log)
{
    return log->streams[LOG_STDOUT].fd >= 0 || log->streams[LOG_STDERR].fd >= 0;
}

void log_reopen(struct log *log, int fd)
{
    fd_close(&log->fd);
    log->fd = fd;
}

void log_rest(void)
{
    if (output_touched)
        madvise(output, sizeof(output), MADV_DONTNEED);
    output_touched = false;
}
