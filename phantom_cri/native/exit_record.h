/* exits/ID below the pod's state directory: how a container ended, if no daemon ran then. */
#ifndef PHANTOM_EXIT_RECORD_H
#define PHANTOM_EXIT_RECORD_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol.h"

#define EXIT_RECORD_MAX 256

/* Letters, digits, '_', '-' and '.', not starting with '.': can be used as a file name. */
bool id_is_file_name(const char id[PH_ID_SIZE]);

/* Such a name, or two with a slash between. */
bool id_is_sound(const char id[PH_ID_SIZE]);

/* Writes one line of JSON; returns its length. */
size_t exit_record_format(const struct ph_exit *exit, char text[EXIT_RECORD_MAX]);

/* Replaces exits/`id` below `directory` atomically. 0 or -errno (EINVAL: the id is not a file name).
 */
int exit_record_write(int directory, const char *id, const struct ph_exit *exit);

/* 0 also if it does not exist. */
int exit_record_remove(int directory, const char *id);

#endif
