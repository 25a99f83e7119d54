/* What befalls the victim, kvm-storm.c, and how it is looked at: what the host sees of memory (kvm-storm-look.c), and how the
 * neighbour fares (kvm-storm-neighbour.c). */
#ifndef DMAB_TESTS_VM_KVM_STORM_H
#define DMAB_TESTS_VM_KVM_STORM_H

#include "tests/vm/kvm-bed.h"

extern struct kvm_guest storm_guests[2], *const storm_victim, *const storm_neighbour;

/* What it answers has to begin with "ok": the rest, until the next one. */
const char *storm_must(struct kvm_guest *guest, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- memory ---- */

struct storm_window {
        json_int_t window; /* 0: none */
        uint64_t machine_addr, guest_addr;
        char cookie[40];
};

struct storm_seen {
        uint64_t windows, window_bytes; /* new windows, looked at from the host */
        uint64_t outsiders, outsider_bytes; /* how often somebody else got all that was free, and looked at it */
};
extern struct storm_seen storm_seen;

/* The victim's, as the daemon tells of it. */
void storm_window_get(struct storm_window *ret);
/* Nobody has written to it, but the daemon its mark. */
void storm_window_is_clean(const struct storm_window *window);
/* The first so many bytes of `seed` are where the guest has this address. */
bool storm_window_has(const struct storm_window *window, uint64_t guest_addr, uint64_t seed, size_t size);
/* Somebody else gets all that is free, in which this machine address is (0: none), finds zeroes, and leaves other bytes. */
void storm_outsider_looks(uint64_t machine_addr);

/* ---- the neighbour ---- */

enum storm_weather { STORM_QUIET, STORM_RAGES, STORM_DAEMON_DIED, STORM_WEATHERS };

void storm_neighbour_begin(void);
/* What it did since the last time, when it has done so much more; any error of its ends the test. */
void storm_neighbour_report(enum storm_weather weather, unsigned more);
void storm_neighbour_tell(void);

#endif
