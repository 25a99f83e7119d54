/* A look at a JSON text before it is parsed: what must be known before memory is spent on it, and what the parser
 * forgets, which is how a request's id was written. It does not check the grammar; the parser does. */
#ifndef DMAB_PROTO_SCAN_H
#define DMAB_PROTO_SCAN_H

#include <stdbool.h>
#include <stddef.h>

enum scan_verdict {
        SCAN_FINE,
        SCAN_NUL,       /* a raw NUL byte */
        SCAN_TOO_DEEP,  /* more levels of nesting than allowed */
        SCAN_TOO_MANY,  /* more elements in the outermost array than allowed */
        SCAN_NO_MEMORY,
};

/* Where the value of an id lies in the text; length 0: none was found, or it is an array or object. */
struct scan_span {
        size_t start, length;
};

struct scan {
        bool batch;                /* the outermost value is an array */
        size_t n_elements;         /* of it; 1 if it is none */
        struct scan_span *ids;     /* n_elements of them */
        size_t size;
};

/* scan is zeroed or was used before, which saves memory; its owner frees ids. */
enum scan_verdict scan_text(struct scan *scan, const char *text, size_t length, size_t nesting, size_t elements);

#endif
