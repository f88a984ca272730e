/* The fragment's event loop: epoll, with a registered handler for each kind of watched fd. */
#ifndef PHANTOM_LOOP_H
#define PHANTOM_LOOP_H

#include <stdint.h>

/* what an fd is ready for */
#define READY_INPUT 1u /* also: the other end is closed, or an error */
#define READY_ROOM  2u

typedef void watch_handler(uint32_t index, uint32_t generation, uint32_t ready);

/* `generation` identifies late events of a closed fd whose entry was reused. */
struct watch {
    uint8_t kind;        /* as returned by loop_register() */
    uint32_t generation; /* 24 bits are kept */
    uint32_t index;
};

/* 0 or -errno. */
int loop_init(void);

/* Registers the handler for a kind of fds; returns the number of that kind. */
uint8_t loop_register(watch_handler *handler);

enum watch_for {
    FOR_HANGUP, /* the other end is closed; also with the two others */
    FOR_INPUT,
    FOR_INPUT_AND_ROOM,
};

/* 0 or -errno. */
int loop_watch(int fd, struct watch watch, enum watch_for what);
int loop_change(int fd, struct watch watch, enum watch_for what);

/* Return values of a turn, besides the nanoseconds until its next call. */
#define LOOP_WAIT (-1) /* with the next event */
#define LOOP_END  (-2) /* never again: loop_run() returns */

/* Repeats: calls `turn`, waits for events, calls their handlers. 0 or -errno. */
int loop_run(int64_t (*turn)(void));

#endif
