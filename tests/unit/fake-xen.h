/* A hypervisor that fails when it is told to, for what a real one (tests/vm/xen.sh) cannot be made to do: as much of Xen's
 * libraries as the source xen uses, over ordinary memory. Link with -Wl,--wrap=xen_library. */
#ifndef DMAB_TESTS_UNIT_FAKE_XEN_H
#define DMAB_TESTS_UNIT_FAKE_XEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RAM ends where a piece of Xen's notes on frames does. */
enum { FAKE_PAGES = 262144, FAKE_DOMAINS = 8, FAKE_ENTRIES = 64 * 512, FAKE_PIECE = 262144 };
enum { FAKE_UNSAID = -1 }; /* of an errno: it is 0 */

struct fake_domain {
        bool is_there;
        bool is_hvm, is_paused;
        bool is_stopped; /* by an administrator, or for its end, of which Xen tells nothing else */
        uint64_t ran_ns;
        uint8_t handle[16];
        uint64_t max_pages, pages;
        void *table;
};

extern struct fake_xen {
        struct fake_domain domains[FAKE_DOMAINS]; /* domid 0 is dom0 */
        uint16_t owner[FAKE_PAGES];               /* of each frame; 0: nobody */
        bool is_used[FAKE_PAGES];                 /* by the kernel of its owner: it is mapped there */
        unsigned exchanges, exchanges_max;        /* extents that were, and that may be */
        unsigned order_max;                       /* that is given in one piece */
        unsigned bits[64], n_bits;                /* what was asked for, one after the other */
        int no_create, no_ask, no_table, no_version, no_give_back, no_notes, no_call; /* errnos */
        int maps_to_pass, maps_to_fail;           /* so many of the next, and then so many */
        int no_map;                               /* the errno of these, if it is not ENOMEM */
        bool has_hole;                            /* there is memory behind a hole as large as a piece of the notes, too */
        unsigned creates;
        unsigned tables;                          /* times that one was mapped */
        unsigned n_loud;                          /* handles whose messages would be seen */
        unsigned refused;                         /* frames that were to be mapped as somebody's whose they are not */
        void (*exchanged)(void);                  /* once, after something was exchanged */
        void (*listed)(void);                     /* once, after domains were listed: what happens then */
} fake_xen;

void fake_xen_begin(void);
void fake_xen_end(void);
uint64_t fake_xen_free(void);
/* What somebody notes of a frame of its own: the name that the first memory domain has for it. */
void fake_xen_forge(uint64_t frame, uint16_t owner);
/* That lives, with nothing. */
void fake_xen_guest(uint16_t domid);
/* It has these frames, calls them by names from `pfn` on, and uses none of them. */
void fake_xen_give(uint16_t domid, uint64_t frame, uint64_t count, uint64_t pfn);
uint64_t fake_xen_name(uint64_t frame);
uint8_t *fake_xen_page(uint64_t frame); /* until fake_xen_end() */
/* As an administrator does. */
void fake_xen_destroy(uint16_t domid);

#endif
