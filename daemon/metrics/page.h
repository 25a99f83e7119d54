/* What is measured, as a page in the text format of Prometheus (version 0.0.4), from the same counters as stats.get. */
#ifndef DMAB_METRICS_PAGE_H
#define DMAB_METRICS_PAGE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/rpc/server.h"

#define METRICS_PAGE_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct page_facts {
        const struct server *server;
        double started;   /* seconds since 1970 */
        size_t owners_max; /* so many of those that have most are told */
};

/* The caller's; free(). -ENOMEM. */
int page_make(const struct page_facts *facts, char **ret_text, size_t *ret_length);

#endif
