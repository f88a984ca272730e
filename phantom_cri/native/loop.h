/* The fragment's event loop: epoll, and what each registered fd belongs to. */
#ifndef PHANTOM_LOOP_H
#define PHANTOM_LOOP_H

#include <stdint.h>

enum watch_kind {
    WATCH_LISTEN,
    WATCH_SIGNALS,
    WATCH_CONNECTION,
    WATCH_STATUS,
    WATCH_STDOUT,
    WATCH_STDERR,
    WATCH_ATTACHED,
};

/* `generation` tells an event of a closed fd from one of its entry's next user. */
struct watch {
    uint8_t kind;
    uint32_t generation; /* 24 bits are kept */
    uint32_t index;
};

int loop_init(void);

enum watch_for {
    FOR_HANGUP, /* the other end is closed; also with the two others */
    FOR_INPUT,
    FOR_INPUT_AND_ROOM,
};

/* 0 or -errno. */
int loop_watch(int fd, struct watch watch, enum watch_for what);
int loop_change(int fd, struct watch watch, enum watch_for what);

/* Runs until the fragment's work is done; the process's exit status. */
int loop_run(void);

#endif
