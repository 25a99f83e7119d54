/* Where guests see their windows: the translators `guest` and `grant`. A device of a guest, passed through to it or emulated, is
 * given guest physical addresses; what lies in a window has that of the window's beginning, which the guest itself has told, plus
 * the distance. A guest that tells a wrong one has devices that write to wrong places of its own memory, and of nobody else's.
 *
 * One table for the whole daemon, on the loop's thread, as the core's calls of a translator are. */
#ifndef DMAB_GUEST_PLACE_H
#define DMAB_GUEST_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/translator.h"

/* Take every device of an owner that is a guest, whatever its name; so they come first. A guest of Xen's (xen:UUID) is granted
 * its windows. Where it is paravirtualised, what is in them has its machine address also for the guest, which is bound to that;
 * where it is not, a device that is called by its place on the bus needs to be told where the guest sees it, and to any other,
 * which is one by name only, the machine address is as good as any. */
extern const struct translator_ops translator_guest_ops, translator_grant_ops;

/* Whether this owner is a guest: kvm:UUID, xen:UUID. */
bool place_is_guest(const char *owner);

/* A window of machine addresses [addr, addr+size), not bound yet. -ENOMEM. */
int place_add(uint64_t addr, uint64_t size);
/* guest_addr: where its beginning is in the guest from now on. */
void place_bind(uint64_t addr, uint64_t guest_addr);
/* The guest has begun anew, and has not said yet where it sees it. */
void place_unbind(uint64_t addr);
/* Nothing lies in it any more. */
void place_remove(uint64_t addr);

#endif
