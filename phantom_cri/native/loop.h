/* The fragment's event loop: epoll, and whom to call for each watched fd. It knows none of those it calls. */
#ifndef PHANTOM_LOOP_H
#define PHANTOM_LOOP_H

#include <stdint.h>

/* what an fd is ready for */
#define READY_INPUT 1u /* also: the other end is closed, or an error */
#define READY_ROOM  2u

typedef void watch_handler(uint32_t index, uint32_t generation, uint32_t ready);

/* `generation` tells an event of a closed fd from one of its entry's next user. */
struct watch {
    uint8_t kind;        /* what loop_register() answered */
    uint32_t generation; /* 24 bits are kept */
    uint32_t index;
};

/* 0 or -errno. */
int loop_init(void);

/* Who is called for a kind of fds; the number of that kind. */
uint8_t loop_register(watch_handler *handler);

enum watch_for {
    FOR_HANGUP, /* the other end is closed; also with the two others */
    FOR_INPUT,
    FOR_INPUT_AND_ROOM,
};

/* 0 or -errno. */
int loop_watch(int fd, struct watch watch, enum watch_for what);
int loop_change(int fd, struct watch watch, enum watch_for what);

/* What a turn answers beside nanoseconds until it wants to be called again. */
#define LOOP_WAIT (-1) /* with the next event */
#define LOOP_END  (-2) /* not again: loop_run() returns */

/* Calls `turn`, then waits for events and hands them out, again and again. 0 or -errno. */
int loop_run(int64_t (*turn)(void));

#endif
