/* A packet's head, from a peer that may be of another release. */
#ifndef PHANTOM_MESSAGE_H
#define PHANTOM_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol.h"

/* Whether of a struct of `have` bytes all that lies beyond our own `size` is zero. */
bool struct_is_known(const void *bytes, size_t have, size_t size);

/* Reads a request in place: a packet of `length` bytes, in memory for at least a whole struct. *message has
 * our size afterwards, and an id that ends in a NUL. 0, -EBADMSG (it is not as long as it says), or -ENOSYS
 * (it has something that is not known here; the rest is read). */
int message_read(struct ph_message *message, size_t length);

#endif
