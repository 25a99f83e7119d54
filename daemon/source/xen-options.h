/* What the section of source xen may say. */
#ifndef DMAB_SOURCE_XEN_OPTIONS_H
#define DMAB_SOURCE_XEN_OPTIONS_H

#include "daemon/core/source.h"

/* Memory comes and goes in grains of this size, aligned: the smallest piece that is worth a window. */
#define XEN_GRAIN (UINT64_C(2) << 20)

struct xen_options {
        uint64_t limit;   /* bytes, whole grains; UINT64_MAX: none */
        uint64_t reserve; /* bytes, whole grains, at most `limit` */
        uint64_t low;     /* the same: of them below 4 GiB */
        uint64_t idle_ms;
        uint64_t domains, grant_frames;
};

/* The keys with a sentence each. */
extern const struct source_option xen_options[];

int xen_check_option(const char *key, const char *value, struct failure *failure);

/* All options together, defaults filled in. -EINVAL with a sentence. */
int xen_read_options(const struct source_option *options, size_t n, struct xen_options *ret, struct failure *failure);

#endif
