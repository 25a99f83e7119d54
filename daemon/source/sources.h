/* Every memory source that this build has. A new one adds its table here and in sources.c, nowhere else. */
#ifndef DMAB_SOURCE_SOURCES_H
#define DMAB_SOURCE_SOURCES_H

#include "daemon/core/source.h"

extern const struct source_ops source_anonymous_ops;
extern const struct source_ops source_dma_heap_ops;
extern const struct source_ops source_hugetlb_ops;
extern const struct source_ops source_sim_ops;
extern const struct source_ops source_xen_ops; /* only in a build with Xen */

/* All of them, ends with NULL. */
extern const struct source_ops *const source_all[];

/* The daemon's state directory, for a source that leaves memory elsewhere than in the keep: borrowed. Once, before any source is
 * opened or asked what is kept. -1: there is none. */
void source_set_directory(int fd);
int source_directory(void);

/* Whether a source keeps what outlives the daemon without a keep; and whether any of them has anything. */
bool source_needs_no_keep(const char *name);
bool source_any_kept(void);

/* By name, or NULL. */
const struct source_ops *source_find(const char *name);

#endif
