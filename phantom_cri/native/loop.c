#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "attach.h"
#include "connection.h"
#include "kernel.h"
#include "log.h"
#include "loop.h"
#include "process.h"
#include "request.h"

#define EVENTS_MAX 32

static int epoll = -1, signals = -1;
static bool reap_again;

static uint64_t pack(struct watch watch)
{
    return (uint64_t)watch.kind << 56 | (uint64_t)(watch.generation & 0xffffff) << 32 | watch.index;
}

static struct watch unpack(uint64_t packed)
{
    return (struct watch){(uint8_t)(packed >> 56), packed >> 32 & 0xffffff, (uint32_t)packed};
}

static int control(int operation, int fd, struct watch watch, enum watch_for what)
{
    static const uint32_t events[] = {
        [FOR_HANGUP] = 0, /* EPOLLHUP is always told */
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
    sigset_t watched;
    int result;

    epoll = kernel_result(epoll_create1(EPOLL_CLOEXEC));
    if (epoll < 0)
        return epoll;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    signals = kernel_result(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
    if (signals < 0)
        return signals;
    result = loop_watch(signals, (struct watch){.kind = WATCH_SIGNALS}, FOR_INPUT);
    return result < 0 ? result : loop_watch(PH_FD_LISTEN, (struct watch){.kind = WATCH_LISTEN}, FOR_INPUT);
}

static void signals_ready(void)
{
    struct signalfd_siginfo info;

    while (read(signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap_again = true;
        /* As init of a shared pid namespace the fragment is in its containers' sight; a sender outside of
         * the namespace has no pid in it: only that one is obeyed. */
        else if (getpid() != 1 || info.ssi_pid == 0)
            shutdown_begin((struct reply_to){0});
    }
}

static void dispatch(const struct epoll_event *event)
{
    struct watch watch = unpack(event->data.u64);

    switch (watch.kind) {
    case WATCH_LISTEN:
        connection_accept(PH_FD_LISTEN);
        break;
    case WATCH_SIGNALS:
        signals_ready();
        break;
    case WATCH_CONNECTION:
        connection_ready(watch.index, watch.generation, event->events & (EPOLLIN | EPOLLHUP | EPOLLERR),
                         event->events & EPOLLOUT);
        break;
    case WATCH_STATUS:
        process_status_ready(watch.index, watch.generation);
        break;
    case WATCH_STDOUT:
        process_output_ready(watch.index, watch.generation, LOG_STDOUT);
        break;
    case WATCH_STDERR:
        process_output_ready(watch.index, watch.generation, LOG_STDERR);
        break;
    case WATCH_ATTACHED:
        attach_hung_up(watch.index, watch.generation);
        break;
    }
}

/* Whole milliseconds, up; -1: no limit. */
static int milliseconds(int64_t nanoseconds)
{
    return nanoseconds < 0 ? -1 : (int)((nanoseconds + 999999) / 1000000);
}

int loop_run(void)
{
    struct epoll_event events[EVENTS_MAX];

    while (!shutdown_is_done()) {
        int64_t wait = processes_tick(), end = shutdown_wait();
        int count;

        if (end >= 0 && (wait < 0 || end < wait))
            wait = end;
        if (wait < 0)
            log_rest();
        count =
            epoll_wait(epoll, events, EVENTS_MAX, reap_again || shutdown_is_done() ? 0 : milliseconds(wait));
        if (count < 0 && errno != EINTR)
            return 1;
        for (int i = 0; i < count; i++)
            dispatch(&events[i]);
        if (reap_again)
            reap_again = processes_reap();
    }
    shutdown_answer();
    return 0;
}
