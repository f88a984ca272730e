#include <errno.h>
#include <string.h>

#include "plan.h"

#define KNOWN_PLAN_FLAGS (PH_PLAN_LOG | PH_PLAN_STDIN | PH_PLAN_TTY | PH_PLAN_KILL_REST | PH_PLAN_HOLD)

struct op_form {
    const char *name;
    const char *signature;
};

static const struct op_form forms[OP_NUMBER_MAX] = {
#define OP(number, name, signature, fields) [number] = {#name, signature},
#include "ops.def"
#undef OP
};

/* What an op does with the slot that its first field names. */
enum slot_use { SLOT_NONE, SLOT_FILLS, SLOT_READS, SLOT_CONSUMES };

static const uint8_t slot_uses[OP_NUMBER_MAX] = {
    [OP_JOIN_NS] = SLOT_READS,        [OP_CGROUP_PROCS] = SLOT_READS, [OP_OPEN_TREE] = SLOT_FILLS,
    [OP_OVERLAY] = SLOT_FILLS,        [OP_NEW_FS] = SLOT_FILLS,       [OP_ROOT] = SLOT_CONSUMES,
    [OP_ATTACH] = SLOT_CONSUMES,      [OP_HOST] = SLOT_CONSUMES,      [OP_MAP_IDS] = SLOT_READS,
    [OP_OVERLAY_MAPPED] = SLOT_FILLS,
};

/* Ops that the fragment may run on itself: they cannot hang and leave its root alone, but for what a ROOT
 * and the ops on it put at the assembly point, for a container to take. */
static const bool adoptable[OP_NUMBER_MAX] = {
    [OP_JOIN_NS] = true,    [OP_CGROUP_PROCS] = true, [OP_HOSTNAME] = true, [OP_SYSCTL] = true,
    [OP_NETLINK] = true,    [OP_OOM_SCORE] = true,    [OP_RLIMIT] = true,   [OP_UMASK] = true,
    [OP_NEW_FS] = true,     [OP_OPEN_TREE] = true,    [OP_ROOT] = true,     [OP_ATTACH] = true,
    [OP_MKDIR] = true,      [OP_MKNOD] = true,        [OP_SYMLINK] = true,  [OP_USER_NAMESPACE] = true,
    [OP_FILE_LABEL] = true,
};

struct op_head {
    uint16_t number;
    uint16_t zero;
    uint32_t length;
};

struct reader {
    const uint8_t *next;
    const uint8_t *end;
};

/* What the checks of one plan remember from op to op. */
struct check {
    uint64_t filled[PH_SLOTS / 64];
    uint64_t consumed[PH_SLOTS / 64];
    uint32_t kind;
    uint32_t slot_limit;
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

const char *op_name(uint16_t number)
{
    return number < OP_NUMBER_MAX && forms[number].name ? forms[number].name : "?";
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
    /* Points at the first string's text even when there is none: plan_string_after() is not called then. */
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

/* Reads one op; a description of what is wrong, or NULL. */
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
    if (head.number >= OP_NUMBER_MAX || !forms[head.number].name) {
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

    if (slot_uses[op->number] == SLOT_NONE)
        return NULL;
    if (slot >= PH_SLOTS)
        return "slot out of range";
    if (slot >= check->slot_limit)
        check->slot_limit = (uint32_t)slot + 1;
    if (slot_uses[op->number] == SLOT_FILLS) {
        if (bit_test(check->filled, slot))
            return "slot filled twice";
        bit_set(check->filled, slot);
        return NULL;
    }
    if (!bit_test(check->filled, slot) || bit_test(check->consumed, slot))
        return "empty slot";
    if (slot_uses[op->number] == SLOT_CONSUMES)
        bit_set(check->consumed, slot);
    return NULL;
}

static const char *check_op(struct check *check, const struct op *op)
{
    if (check->executes)
        return "op after EXEC";
    if (!check->kind && !adoptable[op->number])
        return "not for the fragment itself";
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

static const char *check_head(const struct ph_plan *head, size_t size, uint32_t donated, int *error)
{
    const int32_t slots[] = {head->cgroup_slot,   head->log_slot,      head->kill_slot,    head->oom_slot,
                             head->stdio_slot[0], head->stdio_slot[1], head->stdio_slot[2]};

    *error = -EINVAL;
    if (head->magic != PH_PLAN_MAGIC || head->size != size || head->reserved)
        return "plan head";
    if (head->slot_count != donated || donated > PH_DONATED_MAX)
        return "slot count is not the number of donated fds";
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++)
        if (slots[i] < -1 || slots[i] >= (int64_t)donated)
            return "slot in the plan head";
    if (!memchr(head->pid_namespace_of, 0, PH_ID_MAX))
        return "pid_namespace_of without NUL";
    if (head->flags & ~KNOWN_PLAN_FLAGS) {
        *error = -ENOSYS;
        return "plan flags";
    }
    return NULL;
}

static int check_ops(struct plan *plan, struct check *check, struct failure *failure)
{
    struct reader reader = {plan->ops, plan->end};
    struct op op;

    for (op.index = 0; op.index < plan->head->op_count; op.index++) {
        int error;
        const char *wrong = read_op(&reader, &op, &error);

        if (!wrong) {
            error = -EINVAL;
            wrong = check_op(check, &op);
        }
        if (wrong) {
            failure_set(PH_STAGE_DECODE, error, op.index, wrong, failure);
            return error;
        }
    }
    if (reader.next == reader.end && check->executes == (check->kind != 0))
        return 0;
    failure_set(PH_STAGE_DECODE, EINVAL, -1, "a plan is as long as it says and ends in EXEC", failure);
    return -EINVAL;
}

int plan_open(const void *memory, size_t size, uint32_t donated, uint32_t kinds, struct plan *plan,
              struct failure *failure)
{
    const struct ph_plan *head = memory;
    struct check check = {0};
    const char *wrong;
    int error = -EINVAL;

    if (size < sizeof(*head) || size > PLAN_SIZE_MAX)
        wrong = "plan size";
    else
        wrong = check_head(head, size, donated, &error);
    if (!wrong && (head->kind > PH_KIND_EXEC || !(kinds & 1u << head->kind)))
        wrong = "plan kind";
    if (wrong) {
        failure_set(PH_STAGE_DECODE, error, -1, wrong, failure);
        return error;
    }
    for (uint32_t slot = 0; slot < donated; slot++)
        bit_set(check.filled, slot);
    check.kind = head->kind;
    check.slot_limit = donated;
    plan->head = head;
    plan->ops = (const uint8_t *)memory + sizeof(*head);
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

    if (cursor->index == cursor->plan->head->op_count || read_op(&reader, op, &error))
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
