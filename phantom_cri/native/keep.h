/* Fds that a daemon leaves here, by name, for a later one: connections whose other side must see no end. */
#ifndef PHANTOM_KEEP_H
#define PHANTOM_KEEP_H

#define KEEP_MAX 256

/* Keeps `fd`, which is taken, under `id`, in place of what was there. 0, or -EMFILE: too many; then closed.
 */
int keep_put(const char *id, int fd);

/* Idempotent. */
void keep_drop(const char *id);

/* Stays ours; -ENOENT. */
int keep_get(const char *id);

#endif
