/* Clients attached to the output of a process: each gets a copy, and none of them can hold it up.
 *
 * A copy is written without waiting into a pipe that the client gave. The pipe's room is all the buffer there
 * is: a client that leaves no room for a whole piece is let go, and told.
 */
#ifndef PHANTOM_ATTACH_H
#define PHANTOM_ATTACH_H

#include <stdint.h>

#include "connection.h"
#include "log.h"

#define ATTACH_MAX         64 /* clients of all processes of a fragment */
#define ATTACH_PROCESS_MAX 16 /* of one of them */

void attach_init(void);

/* outputs[]: the writing ends of the client's pipes for stdout and stderr, or -1; taken (-1 is left).
 * Answers `to` with PH_OK and `console` (-1: none), which stays the caller's, and with PH_DETACHED later.
 * 0, or -errno (EAGAIN: too many), and nothing is
 * answered. */
int attach_client(struct log *log, int outputs[LOG_STREAMS], int console, struct reply_to to);

/* Event of the loop: a client has closed a pipe. */
void attach_hung_up(uint32_t index, uint32_t generation, uint32_t ready);

#endif
