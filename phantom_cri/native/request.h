/* The requests of a connected daemon. */
#ifndef PHANTOM_REQUEST_H
#define PHANTOM_REQUEST_H

#include "connection.h"

/* `fragment`: pidfd of the fragment. */
void requests_init(int fragment);

/* Executes a request and answers it, now or later. Fds that it keeps are replaced by -1. */
void request_handle(struct request *request);

#endif
