/* A packet's header, from a peer that may be of another release. */
#ifndef PHANTOM_MESSAGE_H
#define PHANTOM_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol.h"

/* Whether a struct of `have` bytes is zero beyond our own `size`. */
bool struct_is_known(const void *bytes, size_t have, size_t size);

/* Decodes a request in place: a packet of `length` bytes, in memory for at least a whole struct. Afterwards
 * *message has our size, and its id ends with a NUL. 0, -EBADMSG (its length is wrong), or -ENOSYS (it has
 * unknown fields; the others are decoded). */
int message_read(struct ph_message *message, size_t length);

#endif
