/* A container's output, written as the CRI's log lines:
 * "2016-10-06T00:17:09.669794202Z stdout F text\n"; P instead of F marks a partial line.
 *
 * If the disk is full, lines are dropped and counted; the file only has whole lines.
 */
#ifndef PHANTOM_LOG_H
#define PHANTOM_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_MAX                                                                                         \
    16384 /* bytes of text in one log line; longer ones are split (the kubelet reads no longer lines) */

enum log_name { LOG_STDOUT, LOG_STDERR, LOG_STREAMS };

struct log_stream {
    int fd;       /* read end, non-blocking; -1: none or at its end */
    char *buffer; /* LOG_LINE_MAX + 1 bytes: an incomplete line */
    size_t used;
};

struct log;
/* Called with the bytes read, before they are split into lines; count 0: the stream has ended. */
typedef void log_tap(struct log *log, enum log_name name, const char *bytes, size_t count);

struct log {
    int fd;          /* O_APPEND, or -1: output is read and dropped */
    bool is_console; /* \r\n ends a line */
    uint32_t dropped;
    log_tap *tap; /* or NULL */
    struct log_stream streams[LOG_STREAMS];
};

/* Takes over the fds: the log file, and the read ends of stdout and stderr; each may be -1. 0 or -errno;
 * after an error all of them are closed. */
int log_init(int fd, int out, int err, bool is_console, struct log *log);
void log_deinit(struct log *log);

/* Reads and writes a bounded amount; false once the stream has ended (and is closed). */
bool log_pump(struct log *log, enum log_name name);

/* Ends a stream as if its last writer had closed it. */
void log_end(struct log *log, enum log_name name);

bool log_is_open(const struct log *log);

/* Takes over the fd of the new log file. */
void log_reopen(struct log *log, int fd);

/* Releases the memory of the shared output buffer; call before waiting. */
void log_rest(void);

#endif
