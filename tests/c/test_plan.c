/* The decoder on a plan built here, whole, cut off anywhere, and with each byte changed. */
#include <errno.h>
#include <string.h>

#include "../../phantom_cri/native/plan.h"
#include "check.h"

struct builder {
    _Alignas(8) uint8_t bytes[4096];
    size_t used;
    size_t op; /* where the current op begins */
};

static struct ph_plan *head(struct builder *builder)
{
    return (struct ph_plan *)(void *)builder->bytes;
}

static void builder_init(struct builder *builder)
{
    memset(builder, 0, sizeof(*builder));
    builder->used = sizeof(struct ph_plan);
    *head(builder) = (struct ph_plan){
        .magic = PH_PLAN_MAGIC,
        .head_size = sizeof(struct ph_plan),
        .kind = PH_KIND_CONTAINER,
        .cgroup_slot = -1,
        .log_slot = -1,
        .kill_slot = -1,
        .oom_slot = -1,
        .stdio_slot = {-1, -1, -1},
    };
}

static void finish_op(struct builder *builder)
{
    uint32_t length = (uint32_t)(builder->used - builder->op - 8);

    memcpy(builder->bytes + builder->op + 4, &length, 4);
    head(builder)->size = (uint32_t)builder->used;
}

static void begin_op(struct builder *builder, uint16_t number)
{
    builder->op = builder->used;
    memcpy(builder->bytes + builder->used, &number, 2);
    builder->used += 8;
    head(builder)->op_count++;
}

static void add_number(struct builder *builder, uint64_t number)
{
    memcpy(builder->bytes + builder->used, &number, 8);
    builder->used += 8;
}

static void add_string(struct builder *builder, const char *string)
{
    uint32_t length = (uint32_t)strlen(string);

    memcpy(builder->bytes + builder->used, &length, 4);
    memcpy(builder->bytes + builder->used + 8, string, length);
    builder->used += 8 + ((length + 8) & ~7u);
}

static void build(struct builder *builder)
{
    builder_init(builder);
    head(builder)->slot_count = 1;
    begin_op(builder, OP_JOIN_NS);
    add_number(builder, 0);
    add_number(builder, 0x20000);
    finish_op(builder);
    begin_op(builder, OP_HOSTNAME);
    add_string(builder, "web-0");
    finish_op(builder);
    begin_op(builder, OP_EXEC);
    add_string(builder, "/bin/sh");
    add_number(builder, 3);
    add_string(builder, "sh");
    add_string(builder, "");
    add_string(builder, "exactly8");
    add_number(builder, 0);
    finish_op(builder);
}

static int open_plan(const struct builder *builder, size_t size, struct plan *plan, struct failure *failure)
{
    return plan_open(builder->bytes, size, 1, 1u << PH_KIND_CONTAINER, plan, failure);
}

static void test_whole(void)
{
    struct builder builder;
    struct plan plan;
    struct failure failure;
    struct plan_cursor cursor;
    struct op op;
    const char *argument;

    build(&builder);
    CHECK(open_plan(&builder, builder.used, &plan, &failure) == 0);
    CHECK(plan.slot_limit == 1);
    plan_rewind(&plan, &cursor);
    CHECK(plan_next(&cursor, &op) && op.index == 0 && op.number == OP_JOIN_NS &&
          op.field[1].number == 0x20000);
    CHECK(plan_next(&cursor, &op) && op.index == 1 && !strcmp(op.field[0].bytes, "web-0"));
    CHECK(op.field[0].length == 5);
    CHECK(plan_next(&cursor, &op) && op.number == OP_EXEC && op.field[1].length == 3 &&
          op.field[2].length == 0);
    argument = op.field[1].bytes;
    CHECK(!strcmp(argument, "sh"));
    argument = plan_string_after(argument);
    CHECK(!strcmp(argument, ""));
    CHECK(!strcmp(plan_string_after(argument), "exactly8"));
    CHECK(!plan_next(&cursor, &op));
}

static void test_cut_off(void)
{
    struct builder builder;
    struct plan plan;
    struct failure failure;

    build(&builder);
    for (size_t size = 0; size < builder.used; size++) {
        /* In memory of just that size, so that the sanitizer sees each byte read beyond. */
        uint8_t *copy = malloc(size + 1);

        memcpy(copy, builder.bytes, size);
        if (size >= 8)
            ((struct ph_plan *)(void *)copy)->size = (uint32_t)size;
        CHECK(plan_open(copy, size, 1, 1u << PH_KIND_CONTAINER, &plan, &failure) < 0);
        CHECK(failure.stage == PH_STAGE_DECODE && failure.error > 0 && failure.text[0]);
        free(copy);
    }
}

static void test_changed_bytes(void)
{
    struct builder builder;
    struct plan plan;
    struct failure failure;
    int refused = 0;

    build(&builder);
    for (size_t at = 0; at < builder.used; at++) {
        uint8_t kept = builder.bytes[at];

        for (int value = 0; value < 256; value++) {
            builder.bytes[at] = (uint8_t)value;
            refused += open_plan(&builder, builder.used, &plan, &failure) < 0;
        }
        builder.bytes[at] = kept;
    }
    CHECK(refused > 10000);
}

static int result_of(struct builder *builder, struct failure *failure)
{
    struct plan plan;

    return open_plan(builder, builder->used, &plan, failure);
}

static void test_slots(void)
{
    struct builder builder;
    struct failure failure;

    builder_init(&builder);
    head(&builder)->slot_count = 1;
    begin_op(&builder, OP_OPEN_TREE);
    add_number(&builder, PH_SLOTS - 1);
    add_string(&builder, "/");
    add_number(&builder, 0);
    finish_op(&builder);
    begin_op(&builder, OP_ROOT);
    add_number(&builder, PH_SLOTS - 1);
    finish_op(&builder);
    CHECK(result_of(&builder, &failure) == -EINVAL && failure.op == -1); /* no EXEC */
    begin_op(&builder, OP_ROOT);
    add_number(&builder, PH_SLOTS - 1);
    finish_op(&builder);
    CHECK(result_of(&builder, &failure) == -EINVAL && failure.op == 2 && !strcmp(failure.text, "empty slot"));
}

static void test_vector_that_claims_too_much(void)
{
    struct builder builder;
    struct failure failure;
    uint32_t many = UINT32_MAX;
    size_t count;

    builder_init(&builder);
    head(&builder)->slot_count = 1;
    begin_op(&builder, OP_EXEC);
    add_string(&builder, "x");
    count = builder.used;
    add_number(&builder, 1);
    add_string(&builder, "x");
    add_number(&builder, 0);
    finish_op(&builder);
    CHECK(result_of(&builder, &failure) == 0);
    memcpy(builder.bytes + count, &many, 4);
    CHECK(result_of(&builder, &failure) == -EINVAL);
}

/* A head that is longer by `more` bytes, the last of them `last`. */
static int result_of_longer_head(uint32_t more, uint8_t last, struct failure *failure)
{
    struct builder builder, longer = {0};
    size_t head_size = sizeof(struct ph_plan);

    build(&builder);
    memcpy(longer.bytes, builder.bytes, head_size);
    memcpy(longer.bytes + head_size + more, builder.bytes + head_size, builder.used - head_size);
    longer.used = builder.used + more;
    if (more)
        longer.bytes[head_size + more - 1] = last;
    head(&longer)->head_size = (uint32_t)head_size + more;
    head(&longer)->size = (uint32_t)longer.used;
    return result_of(&longer, failure);
}

static void test_heads_of_other_releases(void)
{
    struct builder builder;
    struct failure failure;

    CHECK(result_of_longer_head(0, 0, &failure) == 0);
    CHECK(result_of_longer_head(8, 0, &failure) == 0);
    CHECK(result_of_longer_head(1024, 0, &failure) == 0);
    CHECK(result_of_longer_head(1024, 1, &failure) == -ENOSYS && failure.stage == PH_STAGE_DECODE);
    CHECK(result_of_longer_head(4, 0, &failure) == -EINVAL);
    build(&builder);
    for (uint32_t size = 0; size < PH_PLAN_HEAD_MIN; size += 8) {
        head(&builder)->head_size = size;
        CHECK(result_of(&builder, &failure) == -EINVAL);
    }
    head(&builder)->head_size = (uint32_t)builder.used + 8;
    CHECK(result_of(&builder, &failure) == -EINVAL);
    head(&builder)->head_size = UINT32_MAX & ~7u;
    CHECK(result_of(&builder, &failure) == -EINVAL);
    head(&builder)->head_size = sizeof(struct ph_plan);
    head(&builder)->reserved = 1;
    CHECK(result_of(&builder, &failure) == -ENOSYS);
    head(&builder)->reserved = 0;
    head(&builder)->kind = PH_KIND_EXEC + 1;
    CHECK(result_of(&builder, &failure) == -ENOSYS);
}

static void test_phases(void)
{
    struct builder builder;
    struct failure failure;

    builder_init(&builder);
    head(&builder)->slot_count = 1;
    begin_op(&builder, OP_NO_NEW_PRIVS);
    finish_op(&builder);
    begin_op(&builder, OP_UMASK); /* in no phase */
    add_number(&builder, 022);
    finish_op(&builder);
    begin_op(&builder, OP_JOIN_NS); /* a slot whose fd is closed by now */
    add_number(&builder, 0);
    add_number(&builder, 0x20000);
    finish_op(&builder);
    CHECK(result_of(&builder, &failure) == -EINVAL && failure.op == 2);
}

static void test_op_flags(void)
{
    struct builder builder;
    struct failure failure;

    builder_init(&builder);
    head(&builder)->slot_count = 1;
    begin_op(&builder, OP_OPEN_TREE);
    add_number(&builder, 1);
    add_string(&builder, "/");
    add_number(&builder, 1ULL << 63 | PH_OP_OPEN_CREATE);
    finish_op(&builder);
    CHECK(result_of(&builder, &failure) == -ENOSYS && failure.op == 0 && !strcmp(failure.text, "op flags"));
}

static void test_plan_flags(void)
{
    struct builder builder;
    struct failure failure;

    build(&builder);
    head(&builder)->flags = PH_PLAN_FLAGS;
    CHECK(result_of(&builder, &failure) == 0);
    head(&builder)->flags = PH_PLAN_FLAGS + 1;
    CHECK(result_of(&builder, &failure) == -ENOSYS && failure.op == -1);
}

/* Flags are the last field, wherever that is. */
static void test_op_flags_behind_a_vector(void)
{
    struct builder builder;
    struct failure failure;

    for (uint64_t unknown = 0; unknown <= 2; unknown += 2) {
        builder_init(&builder);
        head(&builder)->slot_count = 1;
        begin_op(&builder, OP_OVERLAY_WITH);
        add_number(&builder, 1);
        add_number(&builder, 1);
        add_string(&builder, "/lower");
        add_string(&builder, "/upper");
        add_string(&builder, "/work");
        add_number(&builder, 1);
        add_string(&builder, "index=off");
        add_number(&builder, unknown | PH_OP_OVERLAY_VOLATILE);
        finish_op(&builder);
        begin_op(&builder, OP_EXEC);
        add_string(&builder, "x");
        add_number(&builder, 1);
        add_string(&builder, "x");
        add_number(&builder, 0);
        finish_op(&builder);
        CHECK(result_of(&builder, &failure) == (unknown ? -ENOSYS : 0));
    }
}

static void test_features(void)
{
    struct ph_feature features[PLAN_FEATURES];
    uint32_t flags = 0;

    plan_features(features);
    CHECK(features[PLAN_FEATURES - 1].number == OP_EXEC);
    for (uint32_t i = 0; i < PLAN_FEATURES; i++)
        if (features[i].kind == PH_FEATURE_OP && features[i].number == OP_OPEN_TREE)
            flags = features[i].flags;
    CHECK(flags == (PH_OP_OPEN_RECURSIVE | PH_OP_OPEN_CREATE));
}

int main(void)
{
    test_whole();
    test_cut_off();
    test_changed_bytes();
    test_slots();
    test_vector_that_claims_too_much();
    test_heads_of_other_releases();
    test_phases();
    test_op_flags();
    test_plan_flags();
    test_op_flags_behind_a_vector();
    test_features();
    return 0;
}
