#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "connection.h"
#include "kernel.h"
#include "loop.h"
#include "message.h"

struct connection {
    int fd;
    uint32_t generation; /* 0: free */
    bool is_subscribed;
    bool is_behind; /* an event was lost: PH_RESYNC is due */
    bool is_listing;
    entry_source *list_source;
    uint32_t list_next;
    int64_t list_count;
    uint64_t list_serial;
};

/* Room for SCM_MAX_FD fds: all are received, so that they can be closed. */
#define FDS_ROOM CMSG_SPACE(253 * sizeof(int))

static struct connection connections[CONNECTION_MAX];
static uint32_t generations;
static uint8_t watch_kind;
static int listener;
static request_handler *handler;

static struct watch watch_of(const struct connection *connection)
{
    return (struct watch){watch_kind, connection->generation, (uint32_t)(connection - connections)};
}

static void connection_deinit(struct connection *connection)
{
    fd_close(&connection->fd);
    connection->generation = 0;
}

static struct connection *connection_of(struct reply_to to)
{
    struct connection *connection = &connections[to.index];

    return to.generation && connection->generation == to.generation ? connection : NULL;
}

/* ---- sending ---- */

static int send_message(struct connection *connection, struct ph_message *message, const void *text,
                        const int *fds, uint32_t fd_count)
{
    struct iovec parts[2] = {{message, sizeof(*message)}, {(void *)text, message->text_length}};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct msghdr packet = {.msg_iov = parts, .msg_iovlen = message->text_length ? 2 : 1};

    message->size = sizeof(*message);
    if (fd_count) {
        memset(&control, 0, sizeof(control));
        control.head.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        memcpy(CMSG_DATA(&control.head), fds, fd_count * sizeof(int));
        packet.msg_control = &control;
        packet.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    }
    return sendmsg(connection->fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void answer(struct reply_to to, struct ph_message *message, const void *text, const int *fds,
                   uint32_t fd_count)
{
    struct connection *connection = connection_of(to);

    if (!connection)
        return;
    message->serial = to.serial;
    if (send_message(connection, message, text, fds, fd_count) < 0)
        connection_deinit(connection);
}

void reply(struct reply_to to, struct ph_message *message, const int *fds, uint32_t fd_count)
{
    answer(to, message, NULL, fds, fd_count);
}

void reply_ok(struct reply_to to, int64_t value, int64_t value2)
{
    struct ph_message message = {.type = PH_OK, .value = value, .value2 = value2};

    answer(to, &message, NULL, NULL, 0);
}

void reply_text(struct reply_to to, const void *text, uint32_t length)
{
    struct ph_message message = {.type = PH_OK, .text_length = length};

    answer(to, &message, text, NULL, 0);
}

void reply_failure(struct reply_to to, const struct failure *failure)
{
    struct ph_message message = {
        .type = PH_ERROR,
        .error = failure->error,
        .value = failure->stage,
        .value2 = failure->op,
        .text_length = (uint32_t)strnlen(failure->text, sizeof(failure->text)),
    };

    answer(to, &message, failure->text, NULL, 0);
}

static void want_room(struct connection *connection)
{
    loop_change(connection->fd, watch_of(connection),
                connection->is_behind || connection->is_listing ? FOR_INPUT_AND_ROOM : FOR_INPUT);
}

void broadcast(struct ph_message *event)
{
    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        struct connection *connection = &connections[i];
        int result;

        if (!connection->generation || !connection->is_subscribed || connection->is_behind)
            continue;
        result = send_message(connection, event, NULL, NULL, 0);
        if (result == -EAGAIN) {
            connection->is_behind = true;
            want_room(connection);
        } else if (result < 0) {
            connection_deinit(connection);
        }
    }
}

/* Sends as much of a list as the peer can take now. */
static int send_list(struct connection *connection)
{
    struct ph_message message;
    int result = 0;

    while (result == 0 && connection->is_listing) {
        uint32_t next = connection->list_next;
        bool is_entry = connection->list_source(&next, &message);

        if (!is_entry)
            message = (struct ph_message){.type = PH_OK, .value = connection->list_count};
        message.serial = connection->list_serial;
        result = send_message(connection, &message, NULL, NULL, 0);
        if (result == 0) {
            connection->list_next = next;
            connection->list_count++;
            connection->is_listing = is_entry;
        }
    }
    return result;
}

static int send_resync(struct connection *connection)
{
    struct ph_message message = {.type = PH_RESYNC};
    int result = send_message(connection, &message, NULL, NULL, 0);

    if (result == 0)
        connection->is_behind = false;
    return result;
}

static void send_due(struct connection *connection)
{
    int result = connection->is_listing ? send_list(connection) : 0;

    if (result == 0 && connection->is_behind)
        result = send_resync(connection);
    if (result < 0 && result != -EAGAIN)
        connection_deinit(connection);
    else
        want_room(connection);
}

void connection_subscribe(struct reply_to to)
{
    struct connection *connection = connection_of(to);

    if (connection)
        connection->is_subscribed = true;
}

void connection_list(struct reply_to to, entry_source *source)
{
    struct connection *connection = connection_of(to);
    struct failure busy;

    if (!connection)
        return;
    if (connection->is_listing) {
        failure_set(PH_STAGE_REQUEST, EBUSY, -1, "the last list is not sent yet", &busy);
        reply_failure(to, &busy);
        return;
    }
    connection->is_listing = true;
    connection->list_source = source;
    connection->list_next = 0;
    connection->list_count = 0;
    connection->list_serial = to.serial;
    send_due(connection);
}

/* ---- receiving ---- */

static void close_fds(struct request *request)
{
    for (uint32_t i = 0; i < request->fd_count; i++)
        fd_close(&request->fds[i]);
    request->fd_count = 0;
}

/* False: more than a plan may donate; then all are closed. */
static bool take_fds(struct msghdr *packet, struct request *request)
{
    bool fits = true;

    request->fd_count = 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(packet); head; head = CMSG_NXTHDR(packet, head)) {
        size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
            if (request->fd_count < sizeof(request->fds) / sizeof(request->fds[0])) {
                request->fds[request->fd_count++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    if (!fits)
        close_fds(request);
    return fits;
}

/* True if a packet was received; false if there is none now, or the peer was disconnected. */
static bool receive(struct connection *connection, struct request *request, size_t *length)
{
    char control[FDS_ROOM] __attribute__((aligned(sizeof(struct cmsghdr))));
    struct iovec packet = {&request->message, PH_PACKET_MAX};
    struct msghdr head = {
        .msg_iov = &packet, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    ssize_t received = recvmsg(connection->fd, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    bool fits;

    if (received < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return false;
    fits = received > 0 && take_fds(&head, request);
    *length = (size_t)received;
    if (fits && !(head.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return true;
    if (fits)
        close_fds(request);
    connection_deinit(connection);
    return false;
}

static void handle(struct connection *connection, struct request *request, size_t length)
{
    struct failure unknown;
    int result = message_read(&request->message, length);

    if (result == -EBADMSG) {
        connection_deinit(connection);
        return;
    }
    request->from = (struct reply_to){(uint32_t)(connection - connections), connection->generation,
                                      request->message.serial};
    if (result == 0) {
        handler(request);
        return;
    }
    failure_set(PH_STAGE_REQUEST, result, -1, "a message of fields that are not known here", &unknown);
    reply_failure(request->from, &unknown);
}

static void connection_ready(uint32_t index, uint32_t generation, uint32_t ready)
{
    struct reply_to to = {index, generation, 0};
    struct connection *connection = connection_of(to);
    /* Not on the stack: the pages that it needs there would stay allocated in each fragment. */
    static union {
        struct request request;
        char room[offsetof(struct request, message) + PH_PACKET_MAX];
    } incoming;
    size_t length;

    if (connection && ready & READY_ROOM && (connection->is_listing || connection->is_behind))
        send_due(connection);
    if (!(ready & READY_INPUT) || !connection_of(to))
        return;
    if (receive(connection, &incoming.request, &length)) {
        handle(connection, &incoming.request, length);
        close_fds(&incoming.request);
    }
}

static void listener_ready(uint32_t index, uint32_t generation, uint32_t ready)
{
    OWNED_FD fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ucred peer;
    socklen_t length = sizeof(peer);

    (void)index, (void)generation, (void)ready;
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 || peer.uid != getuid())
        return;
    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        struct connection *connection = &connections[i];

        if (connection->generation)
            continue;
        generations = generations % 0xffffff + 1; /* 24 bits, never 0: see struct watch */
        *connection = (struct connection){.fd = fd, .generation = generations};
        if (loop_watch(fd, watch_of(connection), FOR_INPUT) < 0)
            connection->generation = 0;
        else
            fd_take(&fd);
        return;
    }
}

int connections_init(int fd, request_handler *requests)
{
    listener = fd;
    handler = requests;
    watch_kind = loop_register(connection_ready);
    return loop_watch(fd, (struct watch){.kind = loop_register(listener_ready)}, FOR_INPUT);
}
