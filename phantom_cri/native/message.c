#include <errno.h>
#include <string.h>

#include "message.h"

_Static_assert(sizeof(struct ph_message) >= PH_MESSAGE_MIN, "a message only grows");

bool struct_is_known(const void *bytes, size_t have, size_t size)
{
    for (size_t i = size; i < have; i++)
        if (((const char *)bytes)[i])
            return false;
    return true;
}

int message_read(struct ph_message *message, size_t length)
{
    uint32_t size = message->size;
    bool is_known;

    if (length < PH_MESSAGE_MIN || size < PH_MESSAGE_MIN || size > length ||
        length - size != message->text_length)
        return -EBADMSG;
    is_known = struct_is_known(message, size, sizeof(*message));
    if (size < sizeof(*message))
        memset((char *)message + size, 0, sizeof(*message) - size);
    message->size = sizeof(*message);
    message->id[PH_ID_SIZE - 1] = 0;
    return is_known && !message->reserved ? 0 : -ENOSYS;
}
