/* Regions as this process sees them: each is mapped once, whole, for as long as an allocation in it lives. In a guest they are
 * the broker's windows (window.h), which stay mapped until the session ends; but those that Xen has granted only until the broker
 * wants them back and nobody uses them. */
#ifndef DMAB_CLIENT_REGION_H
#define DMAB_CLIENT_REGION_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/dmabroker.h"

struct dmab;
struct region;

/* Guarded by its session's lock. */
struct region_table {
        struct region *first;
        uint64_t asked, heeded; /* looks at what windows there are: the last one that began, and whose answer counts */
};

/* Where the daemon's answer says that memory is. */
struct region_place {
        uint64_t region, offset;
        dmab_addr_t dma_addr;
        enum dmab_addressing addressing;
};

/* The members that every answer with memory has. 0, or -EPROTO with a sentence. */
int region_read_place(json_t *result, struct region_place *ret);

/* The region of that place, mapped now if it is not yet; *ret has one more user. fd is its memory, borrowed, or -1:
 * it is then asked for, or looked for, if it is needed. *ret_mapped (may be NULL) tells whether it was mapped now, and not found
 * in a window: the next one's memory had better be asked for at once. -errno with a sentence. */
int region_use(struct dmab *dmab, const struct region_place *place, int fd, struct region **ret, bool *ret_mapped);

/* Are the addresses of the region that vaddr lies in real? 0: it lies in none. Takes the session's lock. */
enum dmab_addressing region_addressing_at(struct dmab *dmab, const void *vaddr);
enum dmab_addressing region_addressing(const struct region *region);

/* One user less; the last one unmaps it. */
void region_release(struct dmab *dmab, struct region *region);

/* The broker is asked what windows there are. Returns the number of this look. */
uint64_t regions_ask(struct dmab *dmab);
/* That is what it has said: windows that were granted and do not stay are unmapped when they have no users, now or later. It
 * counts unless a later look has. stays is called with the session's lock held. */
void regions_heed(struct dmab *dmab, uint64_t look, bool (*stays)(uint64_t region, const void *userdata), const void *userdata);
/* None stays: the session is over. */
void regions_session_lost(struct dmab *dmab);
/* Is any window mapped that was granted; and was nothing heard of them when the broker was asked last? */
bool regions_are_granted(struct dmab *dmab);
bool regions_are_unheard_of(struct dmab *dmab);

/* Unmap the windows, at the end of the session: nobody uses them any more. */
void regions_deinit(struct dmab *dmab);

/* The CPU's address of `size` bytes at `offset`, or NULL if they do not lie in the region. */
void *region_address(const struct region *region, uint64_t offset, uint64_t size);

#endif
