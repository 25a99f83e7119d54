/* A dom0 that shares ordinary memory with a guest: what Xen's libxenvchan asks the other libraries for, of which each step fails
 * when it is told to. That one is Xen's own. Link with -Wl,--wrap=vchan_library,--wrap=xen_store_is_dead,--wrap=calloc. */
#ifndef DMAB_TESTS_UNIT_FAKE_VCHAN_H
#define DMAB_TESTS_UNIT_FAKE_VCHAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/guest/vchan-library.h"

enum { FAKE_VCHAN_DOMID = 7, FAKE_VCHAN_SHARES = 8, FAKE_VCHAN_NODES = 16, FAKE_VCHAN_PORT = 5 };

extern struct fake_vchan {
        /* What is told. */
        unsigned fail_step;   /* so many steps from now; 0: none */
        unsigned n_conflicts; /* of the next transactions */
        bool is_mute;         /* xenstore answers nothing until there is a byte for each time in unmute[1] */
        int unmute[2];
        atomic_bool fails_to_share; /* each time */
        bool counts_unmaps;
        /* What there is. All but the first are atomic. */
        struct fake_share {
                void *at;
                size_t size;
                uint32_t first; /* grants: as many as pages */
        } shares[FAKE_VCHAN_SHARES];
        unsigned n_grants_open, n_events_open, n_bound, n_stores;
        unsigned n_made, n_closed; /* that xenstore was told of; whose page is not shared any more */
        unsigned n_strange;        /* unmapped, while that counts, though it was never shared */
        unsigned n_told;           /* the guest, by the event channel */
        int event;                 /* the last one, an eventfd; -1 */
} fake_vchan;

void fake_vchan_begin(void);
/* Nothing may be left. */
void fake_vchan_end(void);
bool fake_vchan_has_left_nothing(void);
/* What is shared by this grant; NULL: nothing. */
void *fake_vchan_map(uint32_t grant);
/* What xenstore says; NULL: nothing. Valid until it is told something else. */
const char *fake_vchan_node(const char *path);
/* Whether dom0 has it and the guest may read it, and nobody else. */
bool fake_vchan_is_guests(const char *path);
void fake_vchan_write_node(const char *path, const char *value);
void fake_vchan_remove_node(const char *path);
/* As the guest does by its end of the event channel. */
void fake_vchan_notify(void);

#endif
