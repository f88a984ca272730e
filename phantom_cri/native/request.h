#ifndef PHANTOM_REQUEST_H
#define PHANTOM_REQUEST_H

#include "connection.h"

/* Carries out a request and answers it, now or later. Fds that it takes are replaced by -1. */
void request_handle(struct request *request);

/* What the fragment is told at birth. */
void requests_init(int home);

/* Kills everything; loop_run() ends once nothing is left, and then answers `to` (generation 0: nobody). */
void shutdown_begin(struct reply_to to);
/* Whether a shutdown is under way and has nothing left to wait for. */
bool shutdown_is_done(void);
int64_t shutdown_wait(void);
void shutdown_answer(void);

#endif
