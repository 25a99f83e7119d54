/* The memory domains of one daemon: which there are, that each ends when it has nothing, and that another one is made
 * when none has room. Not thread-safe: they belong to the books of source xen (xen-stock.h). */
#ifndef DMAB_SOURCE_XEN_MEMBER_H
#define DMAB_SOURCE_XEN_MEMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/source/xen-domain.h"
#include "daemon/source/xen-grants.h"
#include "daemon/source/xen-options.h"
#include "daemon/source/xen-table.h"

enum { XEN_GRAIN_PAGES = XEN_GRAIN / XEN_PAGE };

struct xen_member {
        struct xen_domain domain;
        struct xen_table table;
        struct xen_seat seat;
        void *handle;      /* of the mapping of the table */
        uint64_t n_grains; /* that the books know of */
        bool is_gone;      /* somebody else has ended it */
};

struct xen_members {
        struct xen_host *host;             /* borrowed */
        const struct xen_options *options; /* borrowed */
        uint64_t identity;
        struct xen_member **all; /* by number; each stays where it is */
        size_t n;
};

/* Those of an earlier daemon. -errno. */
int xen_members_find(struct xen_members *members);
/* give: they end, with all that they have. */
void xen_members_deinit(struct xen_members *members, bool give);

/* Mark those that somebody else has ended: their frames may be anybody's by now. -errno. */
int xen_members_look(struct xen_members *members);
/* Those that have no grains end; so do those that are gone, as far as this process is concerned. */
void xen_members_sweep(struct xen_members *members);
/* NULL: there is none of this number. */
struct xen_member *xen_members_of(const struct xen_members *members, uint32_t number);

/* One that has room for so many pages in one piece, or for as many as there can be: a large piece is worth another domain.
 * -errno with a sentence. */
int xen_members_pick(struct xen_members *members, uint64_t pages, struct xen_member **ret, struct failure *failure);
/* In grains. */
uint64_t xen_member_room(const struct xen_member *member);
/* In bytes, of those that may yet be made too. */
uint64_t xen_members_room(const struct xen_members *members);
/* In pages, of one that is new. */
uint64_t xen_members_capacity(const struct xen_members *members);

#endif
