/* The daemon's connections to this fragment. Nothing here waits for a peer. */
#ifndef PHANTOM_CONNECTION_H
#define PHANTOM_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "plan.h"
#include "protocol.h"

#define CONNECTION_MAX 8

/* The receiver of an answer; an answer to a closed connection is dropped. */
struct reply_to {
    uint32_t index;
    uint32_t generation;
    uint64_t serial;
};

/* A request, as the handlers in request.c get it. */
struct request {
    struct reply_to from;
    int fds[PH_DONATED_MAX + 1];
    uint32_t fd_count;
    struct ph_message message;
};

typedef void request_handler(struct request *request);

/* Accepts connections from `listener`; requests go to `handler`. 0 or -errno. */
int connections_init(int listener, request_handler *handler);

void connection_subscribe(struct reply_to to);

/* The entry at or after *next, which is advanced past it; false: no more. */
typedef bool entry_source(uint32_t *next, struct ph_message *entry);
/* Streams all entries, then PH_OK, as fast as the peer reads. */
void connection_list(struct reply_to to, entry_source *source);

/* A peer that does not read its answers is disconnected: it has to reconnect and list. Keeps fds open. */
void reply(struct reply_to to, struct ph_message *message, const int *fds, uint32_t fd_count);
void reply_ok(struct reply_to to, int64_t value, int64_t value2);
void reply_text(struct reply_to to, const void *text, uint32_t length);
void reply_failure(struct reply_to to, const struct failure *failure);

/* To every subscriber; one that is too slow gets PH_RESYNC later instead. */
void broadcast(struct ph_message *event);

#endif
