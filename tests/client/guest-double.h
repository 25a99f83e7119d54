/* A TEST DOUBLE of what a guest has around it: a virtio port, at whose other end a broker is, and ivshmem devices with its
 * windows. Behind it is a real daemon, which knows nothing of guests: the double talks to it over its socket.
 *
 *  - The port is a pty. A thread passes on what is said, as a daemon does on a guest channel: it listens to nothing before the
 *    first 0xFF, forgets half a line at each, and passes no descriptors.
 *  - window.list and window.bind are answered by the double: a window is a region of the daemon's, in which the double holds
 *    the last page, marks it with magic and cookie, and leaves the rest to the guest. Nothing may be allocated elsewhere.
 *  - The devices are directories with the files that sysfs has, in which resource2 is a link to the region's memory.
 *
 * What it does not have: dma addresses are the daemon's, not the guest's, and there is no PCI. Proof of that is had in a real
 * guest only. */
#ifndef DMAB_TESTS_CLIENT_GUEST_DOUBLE_H
#define DMAB_TESTS_CLIENT_GUEST_DOUBLE_H

#include <stdbool.h>
#include <stddef.h>

struct guest;

/* Somebody is at the port's other end from now on, and there is no window. What fails here ends the program. */
struct guest *guest_start(const char *daemon_socket);
void guest_end(struct guest *guest);

const char *guest_port(const struct guest *guest);    /* path, for virtio:PATH */
const char *guest_devices(const struct guest *guest); /* directory, for window_set_devices() */

/* One more window, with so much memory, a multiple of 2 MiB; low: below 4 GiB. The guest does not know it yet. */
void guest_plug(struct guest *guest, size_t size, bool low);
/* How many there are: so many pages are allocated by the double. */
size_t guest_windows(struct guest *guest);

/* The host's end closes; and somebody is there again. */
void guest_hang_up(struct guest *guest);
void guest_come_back(struct guest *guest);

/* The daemon at the other end is replaced by one that has heard nothing, and the port does not tell. announced: it says 0xFF. */
void guest_replace(struct guest *guest, bool announced);

/* Keep back what the daemon says from now on; then say it. */
void guest_hold(struct guest *guest);
void guest_release(struct guest *guest);
/* Wait until so many lines are kept back. */
void guest_wait_held(struct guest *guest, size_t n);

/* Say this whenever a 0xFF comes, before anything else. The string must live on; NULL: nothing. */
void guest_say_first(struct guest *guest, const char *bytes, size_t n);

/* How often a 0xFF came; and wait for the nth. */
unsigned guest_resets(struct guest *guest);
void guest_wait_reset(struct guest *guest, unsigned n);

/* As if the daemon did not know where its windows are: what wants memory is refused until they are bound. */
void guest_unbind(struct guest *guest);
/* As if the last program had said that its windows are elsewhere; they can be bound as long as nothing is taken. */
void guest_misplace(struct guest *guest);
/* The next window.list is refused. */
void guest_deny_list(struct guest *guest);
/* The next window.bind is refused so; reason must live on. */
void guest_deny_bind(struct guest *guest, int error, const char *reason);
/* How often a window was bound. */
unsigned guest_binds(struct guest *guest);

/* As if it were a guest of Xen's, from now on: windows are granted to it, and there are no devices of them. What the library
 * opens instead of the kernel's device is the double's then, until its end. */
void guest_grant(struct guest *guest);
/* Window i is asked back, or is to stay after all; the guest is told, unless it is `silent`. */
void guest_ask_back(struct guest *guest, size_t i, bool silent);
void guest_keep(struct guest *guest, size_t i);
/* Is it mapped in this process, whole? Also in the child of a fork. */
bool guest_has_mapped(struct guest *guest, size_t i);
/* Tell it that something has changed, as often as it takes until the library has heeded what it was told before. */
void guest_wait_heeded(struct guest *guest);

/* What becomes of the devices: all of them, now. */
enum guest_fault {
        GUEST_FINE,       /* back to what they should be */
        GUEST_NO_DEVICE,
        GUEST_NO_ADDRESS, /* the BAR is not assigned */
        GUEST_NO_MAGIC,
        GUEST_OTHER_COOKIE,
        GUEST_OTHER_SIZE,
};
void guest_break(struct guest *guest, enum guest_fault fault);

#endif
