/* Formats numbers without stdio, whose buffers and locale tables would cost memory in every fragment. */
#ifndef PHANTOM_TEXT_H
#define PHANTOM_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
    char *bytes;
    size_t room;
    size_t used; /* bytes; text that does not fit is dropped */
};

void text_append(struct text *text, const char *bytes, size_t length);
void text_append_string(struct text *text, const char *string);
void text_append_number(struct text *text, int64_t number);

/* Decimal digits at [to, to + width), with leading zeros. */
void text_digits(char *to, unsigned width, uint64_t number);

#define TEXT_TIME_LENGTH 30

/* "2016-10-06T00:17:09.669794202Z" of nanoseconds since the epoch (0 and later); no NUL. */
void text_time(int64_t nanoseconds, char to[TEXT_TIME_LENGTH]);

#endif
