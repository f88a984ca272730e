/* Clients attached to the output of a process: each gets a copy, and none of them can block it.
 *
 * A copy is written without waiting to a pipe from the client. The pipe is the only buffer: a client whose
 * pipe has no room for a whole chunk is detached with an error.
 */
#ifndef PHANTOM_ATTACH_H
#define PHANTOM_ATTACH_H

#include <stdint.h>

#include "connection.h"
#include "log.h"

#define ATTACH_MAX         64 /* clients of all processes of a fragment */
#define ATTACH_PROCESS_MAX 16 /* of one of them */

void attach_init(void);

/* outputs[]: the write ends of the client's pipes for stdout and stderr, or -1; taken over (set to -1).
 * Sends `to` PH_OK and `console` (-1: none), which the caller keeps, and PH_DETACHED later.
 * 0, or -errno (EAGAIN: too many): then nothing is sent. */
int attach_client(struct log *log, int outputs[LOG_STREAMS], int console, struct reply_to to);

/* Event of the loop: a client has closed a pipe. */
void attach_hung_up(uint32_t index, uint32_t generation, uint32_t ready);

#endif
