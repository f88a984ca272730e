/* libFuzzer: whatever plan_open() accepts can be walked to its end, and every string in it has its NUL. */
#include <stdlib.h>
#include <string.h>

#include "../../phantom_cri/native/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void touch(const struct field *field, char letter)
{
    const char *string = field->bytes;

    if (letter == 's' && strlen(string) != field->length)
        abort();
    if (letter == 'b' && string[field->length] != 0)
        abort();
    for (uint32_t i = 0; letter == 'v' && i < field->length; i++, string = plan_string_after(string))
        if (strlen(string) > PLAN_SIZE_MAX)
            abort();
}

static const char *signature_of(uint16_t number)
{
    switch (number) {
#define OP(number, name, phase, slot, where, signature, fields, flags)                                       \
    case number:                                                                                             \
        return signature;
#include "../../phantom_cri/native/ops.def"
#undef OP
    }
    abort();
}

static void walk(const struct plan *plan)
{
    struct plan_cursor cursor;
    struct op op;
    uint32_t count = 0;

    plan_rewind(plan, &cursor);
    while (plan_next(&cursor, &op)) {
        const char *signature = signature_of(op.number);

        for (int i = 0; signature[i]; i++)
            touch(&op.field[i], signature[i]);
        count++;
    }
    if (count != plan->head.op_count || plan->slot_limit > PH_SLOTS)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct plan plan;
    struct failure failure;
    /* Memory of just that size: the sanitizer sees each byte read beyond. */
    void *copy = malloc(size ? size : 1);
    struct ph_plan *head = copy; /* its last fields may be missing */

    memcpy(copy, bytes, size);
    if (size >= PH_PLAN_HEAD_MIN) {
        /* What a mutation would only break. */
        head->magic = PH_PLAN_MAGIC;
        head->size = (uint32_t)size;
        head->slot_count %= PH_DONATED_MAX + 1;
        if (plan_open(copy, size, head->slot_count, 7, &plan, &failure) == 0)
            walk(&plan);
    } else if (plan_open(copy, size, 0, 7, &plan, &failure) == 0) {
        abort();
    }
    free(copy);
    return 0;
}
