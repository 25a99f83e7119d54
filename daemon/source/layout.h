/* A made-up physical memory: a list of spans as written in the configuration, with holes cut out. */
#ifndef DMAB_SOURCE_LAYOUT_H
#define DMAB_SOURCE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

enum {
        LAYOUT_GRAIN = 4096,
        LAYOUT_SPANS_MAX = 256,
};

/* The most that a layout may have in all: much more than any test, much less than what could overflow a sum. */
#define LAYOUT_TOTAL_MAX (UINT64_C(1) << 44)
/* Every span ends at or below this: 52 bits is what the processors of today can address. */
#define LAYOUT_ADDR_MAX (UINT64_C(1) << 52)

struct layout_span {
        uint64_t addr, size;
        unsigned rank; /* its position in the text: spans are handed out in this order */
};

struct layout {
        struct layout_span spans[LAYOUT_SPANS_MAX];
        size_t n;
};

/* Read a comma-separated list of SIZE@ADDR, each a multiple of LAYOUT_GRAIN, no two of them overlapping, into *ret.
 * -EINVAL with a sentence that names the key and the item. */
int layout_parse(const char *key, const char *text, struct layout *ret, struct failure *failure);

/* Take what `holes` covers out of `layout`; a hole outside every span takes nothing. -EINVAL with a sentence when more
 * spans would be left than there is room for, or none at all; the layout is then undefined. */
int layout_cut(struct layout *layout, const struct layout *holes, struct failure *failure);

uint64_t layout_total(const struct layout *layout);

#endif
