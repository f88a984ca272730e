#include <sys/epoll.h>

#include "kernel.h"
#include "loop.h"

#define EVENTS_MAX 32
#define KINDS_MAX  16

static int epoll = -1;
static watch_handler *handlers[KINDS_MAX];
static uint8_t kinds;

static uint64_t pack(struct watch watch)
{
    return (uint64_t)watch.kind << 56 | (uint64_t)(watch.generation & 0xffffff) << 32 | watch.index;
}

static int control(int operation, int fd, struct watch watch, enum watch_for what)
{
    static const uint32_t events[] = {
        [FOR_HANGUP] = 0, /* EPOLLHUP is always reported */
        [FOR_INPUT] = EPOLLIN,
        [FOR_INPUT_AND_ROOM] = EPOLLIN | EPOLLOUT,
    };
    struct epoll_event event = {.events = events[what], .data.u64 = pack(watch)};

    return kernel_result(epoll_ctl(epoll, operation, fd, &event));
}

int loop_watch(int fd, struct watch watch, enum watch_for what)
{
    return control(EPOLL_CTL_ADD, fd, watch, what);
}

int loop_change(int fd, struct watch watch, enum watch_for what)
{
    return control(EPOLL_CTL_MOD, fd, watch, what);
}

int loop_init(void)
{
    epoll = kernel_result(epoll_create1(EPOLL_CLOEXEC));
    return epoll < 0 ? epoll : 0;
}

uint8_t loop_register(watch_handler *handler)
{
    handlers[kinds] = handler;
    return kinds++;
}

static void dispatch(const struct epoll_event *event)
{
    uint64_t packed = event->data.u64;
    uint32_t ready = (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? READY_INPUT : 0) |
                     (event->events & EPOLLOUT ? READY_ROOM : 0);

    handlers[packed >> 56]((uint32_t)packed, packed >> 32 & 0xffffff, ready);
}

/* In milliseconds, rounded up; -1: no limit. */
static int milliseconds(int64_t nanoseconds)
{
    return nanoseconds < 0 ? -1 : (int)((nanoseconds + 999999) / 1000000);
}

int loop_run(int64_t (*turn)(void))
{
    struct epoll_event events[EVENTS_MAX];
    int64_t wait;

    while ((wait = turn()) != LOOP_END) {
        int count = kernel_result(epoll_wait(epoll, events, EVENTS_MAX, milliseconds(wait)));

        if (count < 0 && count != -EINTR)
            return count;
        for (int i = 0; i < count; i++)
            dispatch(&events[i]);
    }
    return 0;
}
