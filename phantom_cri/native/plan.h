/* The plan's decoder: checks all bytes from the daemon, then returns them as ops. */
#ifndef PHANTOM_PLAN_H
#define PHANTOM_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

#define PLAN_FIELDS_MAX 6
#define PLAN_SIZE_MAX   (16u << 20)

enum op_number {
#define OP(number, name, ...) OP_##name = number,
#include "ops.def"
#undef OP
    OP_NUMBER_MAX = 128
};

enum {
    PLAN_FEATURES = 3 /* kinds of plan */
#define OP(...) +1
#include "ops.def"
#undef OP
};

enum op_phase { OP_ANY, OP_ENTER, OP_GATHER, OP_ASSEMBLE, OP_IDENTITY, OP_CREDENTIALS };

/* A field of an op: u, i: number; s, b: bytes and their length (a NUL follows); v: first string and count. */
struct field {
    uint64_t number;
    const char *bytes;
    uint32_t length;
};

struct op {
    uint32_t index;
    uint16_t number;
    struct field field[PLAN_FIELDS_MAX];
};

struct plan {
    struct ph_plan head;
    const uint8_t *ops;
    const uint8_t *end;
    uint32_t slot_limit; /* all slots of ops are below it */
};

struct plan_cursor {
    const struct plan *plan;
    const uint8_t *next;
    uint32_t index;
};

/* An error; sent through the status pipe and as PH_ERROR. */
struct failure {
    uint32_t stage; /* enum ph_stage */
    int32_t error;  /* errno */
    int64_t op;     /* index of the op, -1: none */
    char text[128]; /* short description of the failed step */
};

void failure_set(uint32_t stage, int error, int64_t op, const char *text, struct failure *failure);

/* Checks every byte of `size` bytes at `memory` (8-aligned) and sets *plan, whose ops point into them.
 * `donated`: number of fds received with it; `kinds`: mask of 1 << PH_KIND_* (1 << 0: ADOPT) allowed here.
 * 0, or -errno and *failure. */
int plan_open(const void *memory, size_t size, uint32_t donated, uint32_t kinds, struct plan *plan,
              struct failure *failure);

void plan_rewind(const struct plan *plan, struct plan_cursor *cursor);
/* The next op of a plan that plan_open() accepted; false at the end. */
bool plan_next(struct plan_cursor *cursor, struct op *op);

/* The string after `string` in a vector. */
const char *plan_string_after(const char *string);

enum op_phase op_phase(uint16_t number);

/* Supported features: one for each kind of plan and each op. */
void plan_features(struct ph_feature features[PLAN_FEATURES]);

#endif
