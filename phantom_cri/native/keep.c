#include <string.h>

#include "keep.h"
#include "kernel.h"
#include "protocol.h"

static struct kept {
    char id[PH_ID_SIZE];
    int fd; /* meaningful where there is an id */
} table[KEEP_MAX];
static uint32_t used; /* of the table, from its start: what was never used costs no memory */

static struct kept *find(const char *id)
{
    for (uint32_t i = 0; i < used; i++)
        if (strcmp(table[i].id, id) == 0)
            return &table[i];
    return NULL;
}

int keep_put(const char *id, int fd)
{
    struct kept *kept = find(id);

    if (kept) {
        fd_close(&kept->fd);
    } else {
        kept = find("");
        if (!kept && used < KEEP_MAX)
            kept = &table[used++];
        if (!kept) {
            fd_close(&fd);
            return -EMFILE;
        }
        strcpy(kept->id, id);
    }
    kept->fd = fd;
    return 0;
}

void keep_drop(const char *id)
{
    struct kept *kept = find(id);

    if (!kept)
        return;
    fd_close(&kept->fd);
    *kept->id = 0;
}

int keep_get(const char *id)
{
    struct kept *kept = find(id);

    return kept ? kept->fd : -ENOENT;
}
