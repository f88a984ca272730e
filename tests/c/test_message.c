/* Requests as peers of other releases, and of no release at all, send them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../phantom_cri/native/message.h"
#include "check.h"

/* In memory of just that length, but for a whole struct: the sanitizer sees each byte read beyond. */
static int result_of(const void *packet, size_t length, struct ph_message *message)
{
    struct ph_message *copy = calloc(1, length > sizeof(*copy) ? length : sizeof(*copy));
    int result;

    memcpy(copy, packet, length);
    result = message_read(copy, length);
    *message = *copy;
    free(copy);
    return result;
}

static struct ph_message usual(void)
{
    return (struct ph_message){
        .size = sizeof(struct ph_message), .type = PH_GET, .serial = 7, .value = 5, .id = "c1"};
}

static void test_whole(void)
{
    struct ph_message sent = usual(), found;

    CHECK(result_of(&sent, sizeof(sent), &found) == 0);
    CHECK(!memcmp(&sent, &found, sizeof(sent)));
}

static void test_cut_off(void)
{
    struct ph_message sent = usual(), found;

    for (size_t length = 0; length < sizeof(sent); length++)
        CHECK(result_of(&sent, length, &found) == -EBADMSG);
}

static void test_sizes_that_are_none(void)
{
    static const uint32_t sizes[] = {0, 1, PH_MESSAGE_MIN - 1, sizeof(struct ph_message) + 1, UINT32_MAX};
    struct ph_message sent = usual(), found;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        sent.size = sizes[i];
        CHECK(result_of(&sent, sizeof(sent), &found) == -EBADMSG);
    }
}

static void test_a_longer_one(void)
{
    char packet[PH_PACKET_MAX] = {0};
    struct ph_message sent = usual(), found;
    uint32_t more = 100;

    sent.size = sizeof(sent) + more;
    sent.text_length = 3;
    memcpy(packet, &sent, sizeof(sent));
    memcpy(packet + sent.size, "xyz", 3);
    CHECK(result_of(packet, sent.size + 3, &found) == 0);
    CHECK(found.size == sizeof(found) && found.serial == 7 && !strcmp(found.id, "c1"));
    CHECK(result_of(packet, sent.size + 2, &found) == -EBADMSG);
    CHECK(result_of(packet, sent.size + 4, &found) == -EBADMSG);
    packet[sent.size - 1] = 1;
    CHECK(result_of(packet, sent.size + 3, &found) == -ENOSYS);
    CHECK(found.serial == 7); /* it can be answered */
}

static void test_reserved_fields(void)
{
    struct ph_message sent = usual(), found;

    sent.reserved = 1;
    CHECK(result_of(&sent, sizeof(sent), &found) == -ENOSYS);
}

static void test_text_lengths(void)
{
    struct ph_message sent = usual(), found;

    sent.text_length = 1;
    CHECK(result_of(&sent, sizeof(sent), &found) == -EBADMSG);
    sent.text_length = UINT32_MAX;
    CHECK(result_of(&sent, sizeof(sent), &found) == -EBADMSG);
}

static void test_an_id_without_end(void)
{
    struct ph_message sent = usual(), found;

    memset(sent.id, 'a', sizeof(sent.id));
    CHECK(result_of(&sent, sizeof(sent), &found) == 0);
    CHECK(strlen(found.id) == PH_ID_SIZE - 1);
}

static void test_what_lies_beyond(void)
{
    CHECK(struct_is_known("abc\0\0", 5, 3));
    CHECK(struct_is_known("abc", 3, 8));
    CHECK(!struct_is_known("abc\0x", 5, 3));
}

int main(void)
{
    test_whole();
    test_cut_off();
    test_sizes_that_are_none();
    test_a_longer_one();
    test_reserved_fields();
    test_text_lengths();
    test_an_id_without_end();
    test_what_lies_beyond();
    return 0;
}
