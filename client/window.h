/* Windows: where a guest sees the broker's memory.
 *
 * In a guest of Xen's a window is what the broker says it has granted (grant-window.h). In all others it is the memory of an
 * ivshmem device, its BAR 2, which the broker has plugged into the guest. The broker says what windows there are (window.list),
 * and in the last page of each it has written its magic and the window's cookie: that is how the device is found which has it,
 * whatever its address is. The broker must be told where the guest sees it (window.bind),
 * since what a device of the guest must be given is an address of the guest's.
 *
 * Nothing is remembered here: windows come and go, and are looked for again whenever something is not known. Whenever the broker
 * has said what windows there are, those that were granted and are to leave are unmapped as soon as nothing is used in them
 * (regions_heed()): nobody else can take them from this process. */
#ifndef DMAB_CLIENT_WINDOW_H
#define DMAB_CLIENT_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/fork.h"

struct dmab;

enum { WINDOW_MARK_SIZE = 4096 }; /* bytes at its end that hold no memory */

/* Find every window of this guest, and tell the broker where it is unless it knows. -errno with a sentence, if there is none or
 * one of them cannot be used. Makes calls. */
int windows_look(struct dmab *dmab);

/* Find those that the broker believes to know of, and tell it where they are if they are not there. -errno with a sentence: it
 * refuses to hear that of one, in which nothing lies: what it gave of that would have a wrong address. WINDOWS_LATER, with no
 * sentence: nothing is known. Makes calls. */
enum { WINDOWS_LATER = 1 };
int windows_check(struct dmab *dmab);

/* Of a window, to be mapped. */
struct window_memory {
        struct fork_file file; /* the caller's, to map `size` bytes of it, shared */
        size_t size;
        bool granted;  /* Xen's, who has it back when it is unmapped */
        uint64_t look; /* regions_ask()'s of the list that it is from */
};

/* The window that is this region: the broker knows where it is now. -ENOENT: there is none; -ENODEV: no device has it; -ENXIO:
 * it has no address; -EACCES; with a sentence, and the reason source_unavailable. Makes calls. */
int window_open(struct dmab *dmab, uint64_t region, struct window_memory *ret);

/* Look for devices here instead of in /sys/bus/pci/devices: for tests. The string must live on. */
void window_set_devices(const char *directory);

#endif
