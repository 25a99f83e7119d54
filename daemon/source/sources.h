/* Every memory source that this build has. A new one adds its table here and in sources.c, nowhere else. */
#ifndef DMAB_SOURCE_SOURCES_H
#define DMAB_SOURCE_SOURCES_H

#include "daemon/core/source.h"

extern const struct source_ops source_anonymous_ops;
extern const struct source_ops source_dma_heap_ops;
extern const struct source_ops source_hugetlb_ops;
extern const struct source_ops source_sim_ops;

/* All of them, ends with NULL. */
extern const struct source_ops *const source_all[];

/* By name, or NULL. */
const struct source_ops *source_find(const char *name);

#endif
