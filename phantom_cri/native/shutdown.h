/* The fragment's end. */
#ifndef PHANTOM_SHUTDOWN_H
#define PHANTOM_SHUTDOWN_H

#include <stdbool.h>
#include <stdint.h>

#include "connection.h"

/* Kills all processes; shutdown_is_done() when none is left, or after 2 s. Then `to` gets its answer
 * (generation 0: none). */
void shutdown_begin(struct reply_to to);
bool shutdown_is_begun(void);
bool shutdown_is_done(void);
/* ns until it ends in any case; -1: not begun. */
int64_t shutdown_wait(void);
void shutdown_answer(void);

#endif
