#include <string.h>

#include "text.h"

void text_append(struct text *text, const char *bytes, size_t length)
{
    if (length > text->room - text->used)
        length = text->room - text->used;
    memcpy(text->bytes + text->used, bytes, length);
    text->used += length;
}

void text_append_string(struct text *text, const char *string)
{
    text_append(text, string, strlen(string));
}

void text_append_number(struct text *text, int64_t number)
{
    char digits[21];
    size_t start = sizeof(digits);
    uint64_t value = number < 0 ? -(uint64_t)number : (uint64_t)number;

    do
        digits[--start] = (char)('0' + value % 10);
    while (value /= 10);
    if (number < 0)
        digits[--start] = '-';
    text_append(text, digits + start, sizeof(digits) - start);
}

void text_digits(char *to, unsigned width, uint64_t number)
{
    while (width--) {
        to[width] = (char)('0' + number % 10);
        number /= 10;
    }
}

/* The proleptic Gregorian calendar with years that begin in March, so that the leap day is the last. */
void text_time(int64_t nanoseconds, char to[TEXT_TIME_LENGTH])
{
    uint64_t seconds = (uint64_t)nanoseconds / 1000000000, second = seconds % 86400;
    uint64_t day = seconds / 86400 + 719468; /* since 0000-03-01 */
    uint64_t era = day / 146097, day_of_era = day % 146097;
    uint64_t year = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    uint64_t march_month = (5 * day_of_year + 2) / 153;
    uint64_t month = march_month < 10 ? march_month + 3 : march_month - 9;

    memcpy(to, "0000-00-00T00:00:00.000000000Z", TEXT_TIME_LENGTH);
    text_digits(to, 4, era * 400 + year + (month <= 2));
    text_digits(to + 5, 2, month);
    text_digits(to + 8, 2, day_of_year - (153 * march_month + 2) / 5 + 1);
    text_digits(to + 11, 2, second / 3600);
    text_digits(to + 14, 2, second / 60 % 60);
    text_digits(to + 17, 2, second % 60);
    text_digits(to + 20, 9, (uint64_t)nanoseconds % 1000000000);
}
