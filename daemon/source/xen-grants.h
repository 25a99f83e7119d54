/* Grants of the memory that regions of the source xen have, by machine address, whichever memory domains it lies in:
 * what a guest's window is made of. xen-table.h says what a grant is. There is one list of them in the process, as there
 * is one hypervisor.
 *
 * Nothing here blocks: it is loads and stores to memory that is shared with Xen. Any thread may call; grants are given
 * by one. */
#ifndef DMAB_SOURCE_XEN_GRANTS_H
#define DMAB_SOURCE_XEN_GRANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"
#include "daemon/source/xen-table.h"

/* Entries one after the other, for frames one after the other: of this memory domain's table. */
struct xen_grant_run {
        uint32_t domid, first, count;
};

/* Grant the guest [addr, addr+size), whole pages of one region. *ret: in the order of addresses, malloc()ed. All or
 * nothing. Reasons: busy (some of it is granted already, or still in use), limit (the tables have no more entries),
 * bad_address (this is in no region), no_memory. */
int xen_grants_give(uint64_t addr, uint64_t size, uint32_t guest, bool is_readonly, struct xen_grant_run **ret, size_t *ret_n,
                    struct failure *failure);
/* What the guest has been granted of it, also by an earlier daemon. unknown_handle: not all of it. */
int xen_grants_find(uint64_t addr, uint64_t size, uint32_t guest, struct xen_grant_run **ret, size_t *ret_n,
                    struct failure *failure);
/* Nobody can map it any more, until it is granted again. -ENOENT: it is in no region. */
int xen_grants_revoke(uint64_t addr, uint64_t size);
/* What becomes of it at this moment, in pages. -ENOENT. */
int xen_grants_look(uint64_t addr, uint64_t size, struct xen_table_use *ret);

/* A memory domain's table as a whole. */
struct xen_table_view {
        uint32_t domid;
        struct xen_table_counts counts;
};

/* Of every memory domain, but not more than max. How many. */
size_t xen_grants_look_tables(struct xen_table_view *ret, size_t max);
/* Of those of [addr, addr+size), one of which XEN_TABLE_FULL_PERCENT are used, and were not when this was asked last; or is_over:
 * they were, and now less than XEN_TABLE_ROOM_PERCENT are. false: there is no other. */
enum { XEN_TABLE_FULL_PERCENT = 80, XEN_TABLE_ROOM_PERCENT = 70 };
bool xen_grants_find_crossed(uint64_t addr, uint64_t size, struct xen_table_view *ret, bool *ret_is_over);

/* ---- for the source ---- */

/* A piece of memory within one memory domain. */
struct xen_piece {
        uint64_t addr, size;
        uint32_t domid;
        const struct xen_table *table;
};

/* The memory of a region, by address and without gaps. */
struct xen_lot {
        const struct xen_piece *pieces;
        size_t n_pieces;
        struct xen_lot *next, **link;
};

/* A memory domain's table, in the list of them. */
struct xen_seat {
        uint32_t domid;
        const struct xen_table *table;
        bool is_full; /* that was told */
        struct xen_seat *next, **link;
};

/* It is counted from now on; the table is borrowed until it has left. */
void xen_grants_enter_table(struct xen_seat *seat);
void xen_grants_leave_table(struct xen_seat *seat);

/* It can be granted from now on; it, its pieces and their tables are borrowed until it has left. */
void xen_grants_enter(struct xen_lot *lot);
void xen_grants_leave(struct xen_lot *lot);

#endif
