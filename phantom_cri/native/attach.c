#include "attach.h"

#include "kernel.h"
#include "loop.h"
#include "protocol.h"

struct client {
    uint32_t generation; /* 0: free */
    struct log *log;
    int outputs[LOG_STREAMS];
    struct reply_to asker;
};

static struct client clients[ATTACH_MAX];
static uint32_t client_limit; /* entries from here were never used: their pages stay unallocated */
static uint32_t generations;
static uint8_t watch_kind;

static struct client *client_init(struct log *log, struct reply_to asker)
{
    struct client *client = NULL;
    uint32_t siblings = 0;

    for (uint32_t i = 0; i < client_limit; i++) {
        if (!clients[i].generation)
            client = &clients[i];
        else if (clients[i].log == log)
            siblings++;
    }
    if (siblings >= ATTACH_PROCESS_MAX || (!client && client_limit == ATTACH_MAX))
        return NULL;
    if (!client)
        client = &clients[client_limit++];
    generations = generations % 0xffffff + 1; /* 24 bits, never 0: see struct watch */
    *client = (struct client){generations, log, {-1, -1}, asker};
    return client;
}

static void client_deinit(struct client *client)
{
    struct log *log = client->log;
    bool is_last = true;

    for (int name = 0; name < LOG_STREAMS; name++)
        fd_close(&client->outputs[name]);
    client->generation = 0;
    for (uint32_t i = 0; i < client_limit; i++)
        is_last = is_last && !(clients[i].generation && clients[i].log == log);
    if (is_last)
        log->tap = NULL;
}

/* error 0: no more output, or the client has disconnected. */
static void detach(struct client *client, int error)
{
    struct ph_message message = {.type = PH_DETACHED, .error = error};
    struct reply_to asker = client->asker;

    client_deinit(client);
    reply(asker, &message, NULL, 0);
}

static void detach_if_done(struct client *client)
{
    if (client->outputs[LOG_STDOUT] < 0 && client->outputs[LOG_STDERR] < 0)
        detach(client, 0);
}

static void copy(struct client *client, enum log_name name, const char *bytes, size_t count)
{
    ssize_t written = write(client->outputs[name], bytes, count);

    if (written < 0 && (errno == EPIPE || errno == ECONNRESET)) /* ECONNRESET: a socket with unread data */
        detach(client, 0);
    else if (written != (ssize_t)count)
        detach(client, ENOBUFS);
}

static void tap(struct log *log, enum log_name name, const char *bytes, size_t count)
{
    for (uint32_t i = 0; i < client_limit; i++) {
        struct client *client = &clients[i];

        if (!client->generation || client->log != log || client->outputs[name] < 0)
            continue;
        if (count) {
            copy(client, name, bytes, count);
        } else {
            fd_close(&client->outputs[name]);
            detach_if_done(client);
        }
    }
}

/* Makes writes non-blocking, and watches for a closed read end: EPOLLERR of a pipe, EPOLLHUP of a socket.
 */
static int watch_outputs(const struct client *client)
{
    struct watch watch = {watch_kind, client->generation, (uint32_t)(client - clients)};
    int result = 0;

    for (int name = 0; name < LOG_STREAMS && result == 0; name++) {
        if (client->outputs[name] < 0)
            continue;
        result = kernel_result(fcntl(client->outputs[name], F_SETFL, O_NONBLOCK));
        if (result == 0)
            result = loop_watch(client->outputs[name], watch, FOR_HANGUP);
    }
    return result;
}

int attach_client(struct log *log, int outputs[LOG_STREAMS], int console, struct reply_to to)
{
    struct ph_message message = {.type = PH_OK};
    struct client *client = client_init(log, to);
    int result;

    if (!client)
        return -EAGAIN;
    for (int name = 0; name < LOG_STREAMS; name++)
        client->outputs[name] = fd_take(&outputs[name]);
    result = watch_outputs(client);
    if (result < 0) {
        client_deinit(client);
        return result;
    }
    log->tap = tap;
    reply(to, &message, &console, console >= 0);
    for (int name = 0; name < LOG_STREAMS; name++)
        if (log->streams[name].fd < 0)
            fd_close(&client->outputs[name]);
    detach_if_done(client);
    return 0;
}

void attach_hung_up(uint32_t index, uint32_t generation, uint32_t ready)
{
    struct client *client = &clients[index];

    (void)ready;
    if (client->generation && client->generation == generation)
        detach(client, 0);
}

void attach_init(void)
{
    watch_kind = loop_register(attach_hung_up);
}
