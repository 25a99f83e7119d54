/* The grant table of a memory domain: entries of the first version, as Xen's public headers have them, in memory that is
 * shared with the hypervisor. The table is all there is: whatever is to be known of a grant is read from its entry, so
 * that a daemon that begins anew finds everything as it was, and a kill at any instruction leaves nothing in between.
 *
 * A frame has at most one entry. It is *granted* while its guest may map it, and *in use* while it is mapped, which Xen
 * notes in the entry. To take a grant back is to revoke it, and then to wait until it is not in use: what is mapped
 * stays mapped, but nothing new can be. The entry then still says whose the frame *was*, and is used for no other frame,
 * until that is forgotten: by the bits alone nobody can tell a guest that has let go from one that is being destroyed.
 *
 * One thread gives. Any may revoke, look and forget. */
#ifndef DMAB_SOURCE_XEN_TABLE_H
#define DMAB_SOURCE_XEN_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xen_table {
        void *entries;
        uint32_t n; /* entries; the first XEN_ENTRIES_RESERVED are not used */
};

/* What becomes of some frames, counted in frames. */
struct xen_table_use {
        uint64_t granted;          /* may be mapped */
        uint64_t reading, writing; /* are mapped, readable or writable too: by Xen's word */
        uint64_t busy;             /* either of it */
        uint64_t past;             /* neither, but an entry says whose they were */
        uint32_t last;             /* one of those whose the past ones were; if there are none, whose the busy ones are */
};

/* Grant the guest `count` frames from `frame` on; refs[i] is the entry of the i-th. All or nothing. -EEXIST: one of them
 * has an entry already, be it that it is revoked and still in use, or was another guest's; -ENOSPC: so many are not
 * left; -ERANGE: a frame number has more than 32 bits, or there can be no such guest. */
int xen_table_give(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest, bool is_readonly,
                   uint32_t *refs);
/* The entries of the frames that this guest has been granted, in the same order. -ENOENT: not all are; others may be. */
int xen_table_find(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest, uint32_t *refs);
/* Whoever has been granted any of them. */
void xen_table_revoke(const struct xen_table *table, uint64_t frame, uint64_t count);
/* That those which are neither granted nor in use were this guest's. Nobody may give any of them meanwhile. */
void xen_table_forget(const struct xen_table *table, uint64_t frame, uint64_t count, uint32_t guest);
/* busy: NULL, or count bytes, of which those are set to 1 whose frame is granted or in use. Only what is not granted can be
 * relied on to stay as it is. */
void xen_table_look(const struct xen_table *table, uint64_t frame, uint64_t count, struct xen_table_use *ret,
                    unsigned char *busy);
/* All of it, counted in entries. */
struct xen_table_counts {
        uint64_t entries;  /* that can be used at all */
        uint64_t granted;  /* may be mapped */
        uint64_t mapped;   /* are mapped, granted or not */
        uint64_t revoking; /* may not be mapped any more, but are still */
        uint64_t free;     /* neither of it */
};
void xen_table_sum_up(const struct xen_table *table, struct xen_table_counts *ret);

/* Entries that are granted or in use; and those that can be used for any frame. */
uint32_t xen_table_count(const struct xen_table *table);
uint32_t xen_table_count_blank(const struct xen_table *table);

#endif
