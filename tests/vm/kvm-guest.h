/* The program in a guest, kvm-guest.c, and what it does in a storm (kvm-storm.c). Each command is answered with one line. */
#ifndef DMAB_TESTS_VM_KVM_GUEST_H
#define DMAB_TESTS_VM_KVM_GUEST_H

#include <dmabroker.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KVM_GUEST_PORT "/dev/virtio-ports/org.dmabroker.0"

extern dmab_t *guest_dmab;
extern dmab_device_t *guest_device;

void guest_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void guest_say_result(int r);

/* kvm-guest-work.c: allocations come and go in a thread, at a steady pace, and are looked at, from now on. */
void work_begin(void);
/* What came of it since the last report, when so many operations more are done. */
void work_report(uint64_t least);

/* kvm-guest-storm.c: everything that can be had, found zeroed and filled; the first piece is told. */
bool storm_take(uint64_t seed, void **ret_first, dmab_addr_t *ret_dma, size_t *ret_size);
/* Whether it is all there still. */
void storm_look(uint64_t seed);
void storm_drop(void);
/* "KIND SEED KIB": through the port go garbage, requests without an end, or bytes that begin anew. */
void storm_flood(char *arguments);

#endif
