/* Reading the plain requests that most requests are, without the JSON parser: one object with flat parameters that are
 * short integers, strings of printable ASCII without escapes, or booleans. What is not beyond doubt is left to the parser,
 * which alone refuses, so that there is one voice for errors: a request that is taken here would have been taken there,
 * with the same outcome. */
#ifndef DMAB_PROTO_QUICK_H
#define DMAB_PROTO_QUICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/codec.h"

enum quick_kind { QUICK_INTEGER, QUICK_STRING, QUICK_TRUE, QUICK_FALSE };

/* Borrowed from the text. */
struct quick_span {
        const char *at;
        size_t length;
};

struct quick_value {
        struct quick_span name, text; /* text: a string without its quotes */
        enum quick_kind kind;
        uint64_t integer;
};

enum { QUICK_PARAMS_MAX = 12 };

struct quick {
        struct quick_span method, id; /* id: as written; length 0: none */
        struct quick_value params[QUICK_PARAMS_MAX];
        size_t n_params;
};

bool quick_read(const char *text, size_t length, struct quick *ret);

/* The parameters into the struct at ret, which is overwritten. Strings are copied into memory. false: ask the parser. */
bool quick_decode(const struct schema_struct *structure, const struct quick *quick, struct schema_memory *memory,
                  void *ret);

#endif
