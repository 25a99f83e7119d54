/* The guest's end of a ring of libxenvchan's protocol, which dom0 has made: two streams of bytes in memory that both have mapped.
 * Xen's own header (xen/io/libxenvchan.h) says the same; a guest need not have that, nor any library of Xen's.
 *
 * Nothing that the other end can write to is trusted: where the data is was read once, what is ours in the indices is kept here,
 * and an index that cannot be is the end of it. Nothing here waits, or makes a system call. */
#ifndef DMAB_CLIENT_VCHAN_RING_H
#define DMAB_CLIENT_VCHAN_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
        VCHAN_PAGE = 4096,
        VCHAN_ORDER_MAX = 20, /* the largest stream: 1 MiB */
        /* Who wants to be told when something was written, or read. */
        VCHAN_WROTE = 1,
        VCHAN_READ = 2,
};

struct vchan_indices {
        uint32_t read, written; /* bytes in all, modulo 2^32 */
};

/* The page that is shared. */
struct vchan_page {
        struct vchan_indices to_host, to_guest;
        uint16_t to_host_order, to_guest_order; /* log2 of the bytes; 10, 11: they are in this page, at that offset */
        uint8_t guest_lives, host_lives; /* 0: is no more; 1; 2: has not come yet */
        uint8_t tell_host, tell_guest;   /* what of: who is told clears it */
        uint32_t grants[];               /* of the pages of to_host, then of to_guest, unless they are in this page */
};

struct vchan_ring {
        struct vchan_page *page;
        char *to_host, *to_guest;
        uint32_t to_host_size, to_guest_size;
        uint32_t written, read; /* by us: the page has copies */
};

/* What is in a page: its sizes, and how many grants there are to be mapped for each stream. -EPROTO: it is none of a ring. */
struct vchan_layout {
        uint32_t to_host_size, to_guest_size;
        unsigned n_to_host, n_to_guest;
};
int vchan_layout_read(const struct vchan_page *page, struct vchan_layout *ret);

/* to_host, to_guest: where their pages are mapped, if they have any. Takes up what whoever had it before has left, and mends
 * what that cannot have been. */
void vchan_ring_init(struct vchan_ring *ring, struct vchan_page *page, const struct vchan_layout *layout, char *to_host,
                     char *to_guest);

/* At most n bytes; -EAGAIN: there is nothing, and the host will tell when there is; fewer than n: it will tell of more. 0: the
 * host has gone, and all is read. -EPROTO. *ret_tell: the host wants to be told now. */
ssize_t vchan_ring_read(struct vchan_ring *ring, void *buffer, size_t n, bool *ret_tell);

/* -EAGAIN: there is no room, and the host will tell when there is; fewer than n: likewise. -EPIPE: the host has gone. -EPROTO. */
ssize_t vchan_ring_write(struct vchan_ring *ring, const void *bytes, size_t n, bool *ret_tell);

#endif
