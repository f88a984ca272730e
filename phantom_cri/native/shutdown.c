#include "shutdown.h"
#include "process.h"

#define LIMIT_NS 2000000000LL

static bool is_begun;
static struct reply_to asker;
static int64_t deadline;

void shutdown_begin(struct reply_to to)
{
    if (to.generation || !is_begun)
        asker = to;
    if (!is_begun)
        deadline = clock_now() + LIMIT_NS;
    is_begun = true;
    processes_kill();
}

bool shutdown_is_begun(void)
{
    return is_begun;
}

bool shutdown_is_done(void)
{
    return is_begun && (!processes_are_live() || clock_now() >= deadline);
}

int64_t shutdown_wait(void)
{
    int64_t left;

    if (!is_begun)
        return -1;
    left = deadline - clock_now();
    return left < 0 ? 0 : left;
}

void shutdown_answer(void)
{
    reply_ok(asker, 0, 0);
}
