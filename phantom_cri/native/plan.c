#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "message.h"
#include "plan.h"

/* How an op uses the slot in its first field. */
enum slot_use { SLOT_NONE, SLOT_FILLS, SLOT_READS, SLOT_CONSUMES };

/* ADOPT: the fragment may run it on itself. Such an op cannot hang and does not change the fragment's root,
 * except for the template that ROOT and the ops on it build at the assembly point. */
enum op_where { OP_IN_CHILD, OP_IN_ADOPT };

struct op_form {
    const char *signature; /* NULL: no such op */
    uint32_t flags;        /* valid in its last field; 0: no PH_OP_* flags */
    uint8_t phase;         /* enum op_phase */
    uint8_t slot;          /* enum slot_use */
    uint8_t where;         /* enum op_where */
};

static const struct op_form forms[OP_NUMBER_MAX] = {
#define OP(number, name, phase, slot, where, signature, fields, flags)                                       \
    [number] = {signature, flags, OP_##phase, SLOT_##slot, OP_IN_##where},
#include "ops.def"
#undef OP
};

_Static_assert(sizeof(struct ph_plan) >= PH_PLAN_HEAD_MIN, "a plan head only grows");

struct op_head {
    uint16_t number;
    uint16_t zero;
    uint32_t length;
};

struct reader {
    const uint8_t *next;
    const uint8_t *end;
};

/* State of the checks of one plan. */
struct check {
    uint64_t filled[PH_SLOTS / 64];
    uint64_t consumed[PH_SLOTS / 64];
    uint32_t kind;
    uint32_t slot_limit;
    bool is_closed; /* an op of phase CREDENTIALS was seen */
    bool executes;
};

void failure_set(uint32_t stage, int error, int64_t op, const char *text, struct failure *failure)
{
    size_t length = strnlen(text, sizeof(failure->text) - 1);

    memset(failure, 0, sizeof(*failure));
    failure->stage = stage;
    failure->error = error < 0 ? -error : error;
    failure->op = op;
    memcpy(failure->text, text, length);
}

enum op_phase op_phase(uint16_t number)
{
    return forms[number].phase;
}

void plan_features(struct ph_feature features[PLAN_FEATURES])
{
    uint32_t count = 0;

    for (uint16_t kind = PH_KIND_ADOPT; kind <= PH_KIND_EXEC; kind++)
        features[count++] = (struct ph_feature){PH_FEATURE_PLAN, kind, PH_PLAN_FLAGS};
    for (uint16_t number = 0; number < OP_NUMBER_MAX; number++)
        if (forms[number].signature)
            features[count++] = (struct ph_feature){PH_FEATURE_OP, number, forms[number].flags};
}

static const uint8_t *reader_take(struct reader *reader, size_t length)
{
    const uint8_t *taken = reader->next;

    if ((size_t)(reader->end - reader->next) < length)
        return NULL;
    reader->next += length;
    return taken;
}

static size_t padded(uint32_t length)
{
    return ((size_t)length + 1 + 7) & ~(size_t)7;
}

static bool read_bytes(struct reader *reader, bool is_string, struct field *field)
{
    const uint8_t *head = reader_take(reader, 8), *bytes;
    uint32_t length, zero;

    if (!head)
        return false;
    memcpy(&length, head, 4);
    memcpy(&zero, head + 4, 4);
    bytes = zero ? NULL : reader_take(reader, padded(length));
    if (!bytes || (is_string && memchr(bytes, 0, length)))
        return false;
    for (size_t i = length; i < padded(length); i++)
        if (bytes[i])
            return false;
    field->bytes = (const char *)bytes;
    field->length = length;
    return true;
}

static bool read_vector(struct reader *reader, struct field *field)
{
    const uint8_t *head = reader_take(reader, 8);
    uint32_t count, zero;
    struct field string;

    if (!head)
        return false;
    memcpy(&count, head, 4);
    memcpy(&zero, head + 4, 4);
    if (zero)
        return false;
    /* Points at the first string's text, even if there is none: plan_string_after() is not called then. */
    field->bytes = (const char *)reader->next + 8;
    field->length = count;
    for (uint32_t i = 0; i < count; i++)
        if (!read_bytes(reader, true, &string))
            return false;
    return true;
}

static bool read_field(struct reader *reader, char letter, struct field *field)
{
    const uint8_t *number;

    memset(field, 0, sizeof(*field));
    switch (letter) {
    case 'u':
    case 'i':
        number = reader_take(reader, 8);
        if (number)
            memcpy(&field->number, number, 8);
        return number != NULL;
    case 's':
    case 'b':
        return read_bytes(reader, letter == 's', field);
    default:
        return read_vector(reader, field);
    }
}

/* Reads one op; returns a description of the error, or NULL. */
static const char *read_op(struct reader *reader, struct op *op, int *error)
{
    const uint8_t *bytes = reader_take(reader, sizeof(struct op_head));
    struct reader fields;
    struct op_head head;

    *error = -EINVAL;
    if (!bytes)
        return "truncated op";
    memcpy(&head, bytes, sizeof(head));
    op->number = head.number;
    if (head.zero || head.length % 8)
        return "op head";
    fields.next = reader_take(reader, head.length);
    if (!fields.next)
        return "op longer than the plan";
    fields.end = fields.next + head.length;
    if (head.number >= OP_NUMBER_MAX || !forms[head.number].signature) {
        *error = -ENOSYS;
        return "unknown op";
    }
    for (unsigned i = 0; forms[head.number].signature[i]; i++)
        if (!read_field(&fields, forms[head.number].signature[i], &op->field[i]))
            return "op fields";
    return fields.next == fields.end ? NULL : "op with bytes left over";
}

static bool bit_test(const uint64_t *bits, uint64_t bit)
{
    return bits[bit / 64] & 1ULL << bit % 64;
}

static void bit_set(uint64_t *bits, uint64_t bit)
{
    bits[bit / 64] |= 1ULL << bit % 64;
}

static const char *check_slot(struct check *check, const struct op *op)
{
    uint64_t slot = op->field[0].number;

    if (forms[op->number].slot == SLOT_NONE)
        return NULL;
    if (slot >= PH_SLOTS)
        return "slot out of range";
    if (slot >= check->slot_limit)
        check->slot_limit = (uint32_t)slot + 1;
    if (forms[op->number].slot == SLOT_FILLS) {
        if (bit_test(check->filled, slot))
            return "slot filled twice";
        bit_set(check->filled, slot);
        return NULL;
    }
    if (!bit_test(check->filled, slot) || bit_test(check->consumed, slot))
        return "empty slot";
    if (forms[op->number].slot == SLOT_CONSUMES)
        bit_set(check->consumed, slot);
    return NULL;
}

static bool has_unknown_flags(const struct op *op)
{
    const struct op_form *form = &forms[op->number];

    return form->flags && op->field[strlen(form->signature) - 1].number & ~(uint64_t)form->flags;
}

static const char *check_op(struct check *check, const struct op *op, int *error)
{
    enum op_phase phase = op_phase(op->number);

    *error = -EINVAL;
    if (check->executes)
        return "op after EXEC";
    if (check->kind == PH_KIND_ADOPT && forms[op->number].where != OP_IN_ADOPT)
        return "not for the fragment itself";
    if (check->is_closed && phase != OP_CREDENTIALS && phase != OP_ANY)
        return "op after credentials, when all fds are closed";
    check->is_closed = check->is_closed || phase == OP_CREDENTIALS;
    if (has_unknown_flags(op)) {
        *error = -ENOSYS;
        return "op flags";
    }
    if (op->number == OP_EXEC) {
        check->executes = true;
        if (op->field[1].length == 0)
            return "no argv";
    }
    if (op->number == OP_IDS && op->field[2].length % sizeof(uint32_t))
        return "groups";
    if (op->number == OP_SECCOMP && (op->field[0].length % 8 || op->field[0].length > 8 * 4096))
        return "filter length";
    return check_slot(check, op);
}

static const char *check_slots(const struct ph_plan *head, uint32_t donated)
{
    const int32_t slots[] = {head->cgroup_slot,   head->log_slot,      head->kill_slot,    head->oom_slot,
                             head->stdio_slot[0], head->stdio_slot[1], head->stdio_slot[2]};

    if (head->slot_count != donated || donated > PH_DONATED_MAX)
        return "slot count is not the number of donated fds";
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++)
        if (slots[i] < -1 || slots[i] >= (int64_t)donated)
            return "slot in the plan head";
    return NULL;
}

/* Reads and checks the head; returns a description of the error, or NULL. */
static const char *read_head(const void *memory, size_t size, uint32_t donated, uint32_t kinds,
                             struct ph_plan *head, int *error)
{
    uint32_t head_size;
    bool is_known;

    *error = -EINVAL;
    if (size < PH_PLAN_HEAD_MIN || size > PLAN_SIZE_MAX)
        return "plan size";
    memcpy(&head_size, (const char *)memory + offsetof(struct ph_plan, head_size), sizeof(head_size));
    if (head_size < PH_PLAN_HEAD_MIN || head_size > size || head_size % 8)
        return "plan head size";
    is_known = struct_is_known(memory, head_size, sizeof(*head));
    memset(head, 0, sizeof(*head));
    memcpy(head, memory, head_size < sizeof(*head) ? head_size : sizeof(*head));
    if (head->magic != PH_PLAN_MAGIC || head->size != size)
        return "plan head";
    if (!is_known || head->reserved || head->reserved2 || head->flags & ~PH_PLAN_FLAGS ||
        head->kind > PH_KIND_EXEC) {
        *error = -ENOSYS;
        return "plan head has a kind, flags or fields that are not known here";
    }
    if (!(kinds & 1u << head->kind))
        return "plan kind";
    if (!memchr(head->pid_namespace_of, 0, PH_ID_MAX + 1))
        return "pid_namespace_of without NUL";
    return check_slots(head, donated);
}

static int check_ops(struct plan *plan, struct check *check, struct failure *failure)
{
    struct reader reader = {plan->ops, plan->end};
    struct op op;

    for (op.index = 0; op.index < plan->head.op_count; op.index++) {
        int error;
        const char *wrong = read_op(&reader, &op, &error);

        if (!wrong)
            wrong = check_op(check, &op, &error);
        if (wrong) {
            failure_set(PH_STAGE_DECODE, error, op.index, wrong, failure);
            return error;
        }
    }
    if (reader.next == reader.end && check->executes == (check->kind != PH_KIND_ADOPT))
        return 0;
    failure_set(PH_STAGE_DECODE, EINVAL, -1, "a plan is as long as it says and ends in EXEC", failure);
    return -EINVAL;
}

int plan_open(const void *memory, size_t size, uint32_t donated, uint32_t kinds, struct plan *plan,
              struct failure *failure)
{
    struct check check = {0};
    int error;
    const char *wrong = read_head(memory, size, donated, kinds, &plan->head, &error);

    if (wrong) {
        failure_set(PH_STAGE_DECODE, error, -1, wrong, failure);
        return error;
    }
    for (uint32_t slot = 0; slot < donated; slot++)
        bit_set(check.filled, slot);
    check.kind = plan->head.kind;
    check.slot_limit = donated;
    plan->ops = (const uint8_t *)memory + plan->head.head_size;
    plan->end = (const uint8_t *)memory + size;
    error = check_ops(plan, &check, failure);
    plan->slot_limit = check.slot_limit;
    return error;
}

void plan_rewind(const struct plan *plan, struct plan_cursor *cursor)
{
    cursor->plan = plan;
    cursor->next = plan->ops;
    cursor->index = 0;
}

bool plan_next(struct plan_cursor *cursor, struct op *op)
{
    struct reader reader = {cursor->next, cursor->plan->end};
    int error;

    if (cursor->index == cursor->plan->head.op_count || read_op(&reader, op, &error))
        return false;
    op->index = cursor->index++;
    cursor->next = reader.next;
    return true;
}

const char *plan_string_after(const char *string)
{
    uint32_t length;

    memcpy(&length, string - 8, 4);
    return string + padded(length) + 8;
}
