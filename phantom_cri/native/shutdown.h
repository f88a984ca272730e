/* The fragment's end. */
#ifndef PHANTOM_SHUTDOWN_H
#define PHANTOM_SHUTDOWN_H

#include <stdbool.h>
#include <stdint.h>

#include "connection.h"

/* Kills everything; shutdown_is_done() once nothing is left, or in vain for 2 s. `to` is answered then
 * (generation 0: nobody). */
void shutdown_begin(struct reply_to to);
bool shutdown_is_begun(void);
bool shutdown_is_done(void);
/* ns until it is done in any case; -1: it is not begun. */
int64_t shutdown_wait(void);
void shutdown_answer(void);

#endif
