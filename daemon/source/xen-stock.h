/* The books of source xen: which grains its memory domains have, and what each of them is at present. A grain that is
 * free is zeroed and has no grants; one that was given back while a guest still had it mapped is *awaited* until Xen
 * says that it has not any more, and until that guest has run since, or is no more with all its devices; one that an
 * earlier daemon has left is *left* until a region has it again, or until it is reclaimed.
 *
 * Not thread-safe: the source's worker has them from its first job on. */
#ifndef DMAB_SOURCE_XEN_STOCK_H
#define DMAB_SOURCE_XEN_STOCK_H

#include "daemon/core/source.h"
#include "daemon/source/xen-domain.h"
#include "daemon/source/xen-grants.h"
#include "daemon/source/xen-options.h"

struct xen_stock;

enum xen_grain_state { XEN_GRAIN_LEFT, XEN_GRAIN_FREE, XEN_GRAIN_REGION, XEN_GRAIN_AWAITED };

/* With everything that an earlier daemon of this identity has left. host, options: borrowed. -errno with a sentence. */
int xen_stock_new(struct xen_host *host, uint64_t identity, const struct xen_options *options, struct xen_stock **ret,
                  struct failure *failure);
/* give: the memory domains end, with all that they have; else everything stays for the next daemon. Returns NULL; NULL
 * is fine. */
struct xen_stock *xen_stock_free(struct xen_stock *stock, bool give);

/* Bytes in all domains; and those of them that are left. */
uint64_t xen_stock_held(const struct xen_stock *stock);
uint64_t xen_stock_left(const struct xen_stock *stock);
/* One of the domains that have what is awaited; 0 if nothing is. */
uint32_t xen_stock_awaited_of(const struct xen_stock *stock);
uint64_t xen_stock_low(const struct xen_stock *stock);
/* What its domains could have besides, and those that may be made. */
uint64_t xen_stock_room(const struct xen_stock *stock);

/* Up to `wanted` bytes from Xen, with addresses of at most so many bits, zeroed and free: arrived. Returns how many; if
 * it is not all, *ret_error is why. */
uint64_t xen_stock_grow(struct xen_stock *stock, uint64_t wanted, unsigned bits, struct source_job *job, int *ret_error);
/* Of free grains: back to Xen. What is not is arrived. -errno. */
int xen_stock_shrink(struct xen_stock *stock, struct source_job *job);

/* Make a region of grains that are all in this state: what it is made of, by address, malloc()ed. -ENOENT: they are not
 * all here; -ENXIO: their domain has ended meanwhile; -ENOMEM, -errno. */
int xen_stock_take(struct xen_stock *stock, uint64_t addr, uint64_t size, enum xen_grain_state state, struct xen_piece **ret,
                   size_t *ret_n);
/* The reverse: whoever was granted any of it has it no more, and what nobody has mapped is zeroed and free: arrived.
 * -EBUSY: some of the rest is awaited (job->awaited), as is what could not be zeroed; -ENXIO: the rest is no more. */
int xen_stock_give(struct xen_stock *stock, uint64_t addr, uint64_t size, struct source_job *job);
/* The same with all that is awaited and, unless job->later, left. -EBUSY: some of it is awaited still. */
int xen_stock_reclaim(struct xen_stock *stock, struct source_job *job);

#endif
