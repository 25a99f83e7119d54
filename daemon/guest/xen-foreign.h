/* What a guest of Xen's and this host grant each other by grant tables that are the kernels' own: a guest's, of which we read
 * what becomes of its entries; and this host's, in which /dev/xen/gntalloc makes entries of pages that belong to a descriptor.
 *
 * It is a few calls of the hypervisor's, which do not block; xen_share_open() takes as long as the kernel takes for the pages.
 * All functions belong to the loop's thread. */
#ifndef DMAB_GUEST_XEN_FOREIGN_H
#define DMAB_GUEST_XEN_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/broker.h"
#include "daemon/core/failure.h"

struct xen_foreign_use {
        uint64_t in_use;      /* pages that somebody has mapped */
        uint64_t not_granted; /* that this host may not map, or not write though it is to */
        uint32_t first_not_granted;
};

/* The domain's table, mapped as large as it is now until xen_foreign_close(). -EOPNOTSUPP: it has another form than is known
 * here; -ENOENT: there is no such domain any more; -errno. */
struct xen_foreign;
int xen_foreign_open(uint32_t domain, struct xen_foreign **ret);
/* Returns NULL; NULL is fine. */
struct xen_foreign *xen_foreign_close(struct xen_foreign *foreign);
/* What becomes of these entries at this moment. writes: it is asked whether this host may write, too. */
void xen_foreign_look(const struct xen_foreign *foreign, const struct grant_run *runs, size_t n_runs, bool writes,
                      struct xen_foreign_use *ret);

/* Grant the domain so many new pages of this host's, which are zero. *ret_fd: the caller's; they are to be mapped from offset 0
 * on, and are there as long as the descriptor is, or anybody has them mapped. *ret_runs: in their order, malloc()ed. Reasons:
 * limit (the kernel grants no more), source_unavailable. */
int xen_share_open(uint32_t domain, uint64_t pages, bool is_writable, int *ret_fd, struct grant_run **ret_runs,
                   size_t *ret_n_runs, struct failure *failure);
/* The domain can map nothing of it any more, as soon as nobody has it mapped here, whoever has the descriptor. */
void xen_share_end(int fd, uint64_t pages);

#endif
