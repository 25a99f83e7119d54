/* What went wrong, in a form that a person and a program can act on. A step that can fail takes a struct failure and
 * returns a negative errno; the struct then says the same with reason, sentence and the values that matter. */
#ifndef DMAB_CORE_FAILURE_H
#define DMAB_CORE_FAILURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/reason.h"

enum failure_kind {
        FAILURE_NUMBER, /* sizes, counts, handles */
        FAILURE_HEX,    /* addresses and masks */
        FAILURE_TEXT,
};

struct failure_value {
        const char *name; /* static */
        enum failure_kind kind;
        uint64_t number;
        char text[48];
};

enum { FAILURE_VALUES_MAX = 8 };

struct failure {
        int error; /* positive errno; 0: nothing failed */
        enum reason reason;
        char sentence[256];
        size_t n_values;
        struct failure_value values[FAILURE_VALUES_MAX];
};

/* Both forget what the struct held, and return -errno, so that a caller can `return failure_set(...)`. failure may be NULL. */
int failure_set(struct failure *failure, enum reason reason, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
int failure_set_errno(struct failure *failure, enum reason reason, int error, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

/* Add a value to a failure that is set; beyond FAILURE_VALUES_MAX they are dropped. */
void failure_add_number(struct failure *failure, const char *name, uint64_t value);
void failure_add_hex(struct failure *failure, const char *name, uint64_t value);
void failure_add_text(struct failure *failure, const char *name, const char *value);

#endif
