#include "client/bounce.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/error.h"
#include "client/session.h"

/* What is to be mapped. */
struct want {
        void *buf;
        size_t size, n; /* n: slots */
        unsigned shift; /* of their size, as it was counted with */
        uint64_t offset; /* of its first byte in the first slot */
        uint32_t pieces;
        enum dmab_direction direction;
};

const char *bounce_direction_name(enum dmab_direction direction) {
        return direction == DMAB_TO_DEVICE ? "to the device" : direction == DMAB_FROM_DEVICE ? "from the device" : "both ways";
}

static unsigned shift_of(const struct bounce *bounce) {
        return __atomic_load_n(&bounce->slot_shift, __ATOMIC_RELAXED);
}

/* ---- addresses ---- */

static dmab_addr_t dma_of(const struct bounce *bounce, const struct bounce_area *area, size_t first) {
        return area->start + ((uint64_t)first << shift_of(bounce)) +
               ((uintptr_t)area->records[first].buf & bounce->device->min_align_mask);
}

static char *memory_of(const struct bounce_area *area, dmab_addr_t dma) {
        return area->memory + (dma - area->start);
}

static unsigned own_area(const struct bounce *bounce) {
        return bounce_own_area(__atomic_load_n(&bounce->n_own, __ATOMIC_RELAXED));
}

/* The area that an address lies in, with its lock taken, or NULL; the caller's own CPU's is the likeliest. What is seen
 * without the lock is a hint: an area that gets memory at this moment may seem to have that of another. */
static struct bounce_area *lock_area(const struct bounce *bounce, dmab_addr_t dma) {
        unsigned n = __atomic_load_n(&bounce->n_areas, __ATOMIC_ACQUIRE), own = own_area(bounce);

        for (unsigned i = 0; i < n; i++, own++) {
                struct bounce_area *area = __atomic_load_n(&bounce->areas[own < n ? own : own % n], __ATOMIC_RELAXED);

                if (dma - __atomic_load_n(&area->start, __ATOMIC_RELAXED) >= __atomic_load_n(&area->size, __ATOMIC_RELAXED))
                        continue;
                slots_lock(&area->lock);
                if (area->slots && dma - area->start < area->size)
                        return area;
                slots_unlock(&area->lock);
        }
        return NULL;
}

bool bounce_has(const struct bounce *bounce, dmab_addr_t dma) {
        struct bounce_area *area = lock_area(bounce, dma);

        if (area)
                slots_unlock(&area->lock);
        return area != NULL;
}

/* ---- mapping ---- */

static void give(struct bounce_area *area, size_t first) {
        size_t n = slots_length(area->slots, first);

        slots_give(area->slots, first);
        __atomic_store_n(&area->n_free, area->n_free + n, __ATOMIC_RELAXED);
}

/* With the area's lock held. An area that is above a mask which was set later is left alone, as is one whose slots have
 * another size than those that were counted. */
static bool take(const struct bounce *bounce, struct bounce_area *area, const struct want *want, dmab_addr_t *ret_dma) {
        size_t first;

        if (!area->slots || want->shift != shift_of(bounce) ||
            area->start + (area->size - 1) > __atomic_load_n(&bounce->device->mask, __ATOMIC_RELAXED) ||
            !slots_take(area->slots, want->n, &first))
                return false;
        area->records[first] = (struct bounce_record){ .buf = want->buf, .size = want->size, .pieces = want->pieces,
                                                       .direction = (uint8_t)want->direction };
        __atomic_store_n(&area->n_free, area->n_free - want->n, __ATOMIC_RELAXED);
        area->bounced++;
        area->bounced_bytes += want->size;
        *ret_dma = dma_of(bounce, area, first);
        return true;
}

/* Areas that others are at are passed by, unless the caller waits. */
static bool look(const struct bounce *bounce, const struct want *want, bool wait, bool *ret_passed, char **ret_memory,
                 dmab_addr_t *ret_dma) {
        unsigned n = __atomic_load_n(&bounce->n_areas, __ATOMIC_ACQUIRE), own = own_area(bounce);
        bool taken = false;

        for (unsigned i = 0; i < n && !taken; i++, own++) {
                struct bounce_area *area = __atomic_load_n(&bounce->areas[own < n ? own : own % n], __ATOMIC_RELAXED);

                if (__atomic_load_n(&area->n_free, __ATOMIC_RELAXED) < want->n)
                        continue;
                if (wait) {
                        slots_lock(&area->lock);
                } else if (!slots_try_lock(&area->lock)) {
                        *ret_passed = true;
                        continue;
                }
                taken = take(bounce, area, want, ret_dma);
                if (taken)
                        *ret_memory = memory_of(area, *ret_dma);
                slots_unlock(&area->lock);
        }
        return taken;
}

static bool find_room(const struct bounce *bounce, const struct want *want, char **ret_memory, dmab_addr_t *ret_dma) {
        bool passed = false;

        return look(bounce, want, false, &passed, ret_memory, ret_dma) ||
               (passed && look(bounce, want, true, &passed, ret_memory, ret_dma));
}

static void count_slots(struct bounce *bounce, struct slots_usage *ret) {
        unsigned n = __atomic_load_n(&bounce->n_areas, __ATOMIC_ACQUIRE);

        *ret = (struct slots_usage){ 0 };
        for (unsigned i = 0; i < n; i++) {
                struct bounce_area *area = __atomic_load_n(&bounce->areas[i], __ATOMIC_RELAXED);
                struct slots_usage one = { 0 };

                slots_lock(&area->lock);
                if (area->slots)
                        slots_usage(area->slots, &one);
                slots_unlock(&area->lock);
                ret->slots += one.slots;
                ret->used += one.used;
                ret->high_water += one.high_water;
                ret->runs += one.runs;
                if (one.largest_free > ret->largest_free)
                        ret->largest_free = one.largest_free;
        }
}

/* The last error says why there is no more; this is what has become of it. */
static int full_error(struct bounce *bounce, const struct want *want) {
        struct slots_usage usage;
        char why[256];

        count_slots(bounce, &usage);
        snprintf(why, sizeof(why), "%s", dmab_last_error());
        __atomic_add_fetch(&bounce->fulls, 1, __ATOMIC_RELAXED);
        return error_set_reason(ENOMEM, usage.slots - usage.used < want->n ? "no_memory" : "no_contiguous",
                                "the bounce slots of %s (pool %llu) are full: a run of %zu was asked for, %zu of %zu "
                                "are in use, and the longest free run has %zu. %s", bounce->device->name,
                                (unsigned long long)bounce->number, want->n, usage.used, usage.slots,
                                usage.largest_free, why);
}

int bounce_map(struct bounce *bounce, void *buf, size_t size, enum dmab_direction direction, uint32_t pieces,
               dmab_addr_t *ret_dma) {
        const struct dmab_device *device = bounce->device;
        struct want want = { .buf = buf, .size = size, .pieces = pieces, .direction = direction };
        dmab_addr_t dma;
        char *memory;
        int r;

        want.offset = (uintptr_t)buf & device->min_align_mask;
        if (device->boundary && want.offset + size > device->boundary)
                return error_set_reason(E2BIG, "limit",
                                        "%zu bytes that begin %llu bytes behind an aligned address are too long for "
                                        "%s, which cannot cross a boundary of %llu", size,
                                        (unsigned long long)want.offset, device->name,
                                        (unsigned long long)device->boundary);
        if (size > SIZE_MAX - want.offset)
                return error_set_reason(E2BIG, "limit", "%zu bytes are more than %s can ever have", size, device->name);
        for (;;) {
                unsigned changes = __atomic_load_n(&bounce->changes, __ATOMIC_ACQUIRE);

                want.shift = shift_of(bounce);
                want.n = ((want.offset + size - 1) >> want.shift) + 1;
                if (find_room(bounce, &want, &memory, &dma))
                        break;
                r = area_grow(bounce, want.n, changes);
                if (r == -ENOMEM || r == -EAGAIN)
                        return full_error(bounce, &want);
                if (r)
                        return r;
        }
        /* Also what comes from the device: it may write less than all of it, and what it does not write must come back as
         * it was, and not as what another mapping left in the slots. */
        memcpy(memory, buf, size);
        *ret_dma = dma;
        return 0;
}

/* ---- claims ---- */

static int not_mapped(const struct bounce *bounce, dmab_addr_t dma) {
        return error_set_reason(EFAULT, "bad_address",
                                "nothing is mapped at 0x%llx for %s; it may have been unmapped already",
                                (unsigned long long)dma, bounce->device->name);
}

int bounce_check_unmap_direction(const struct dmab_device *device, dmab_addr_t dma, enum dmab_direction mapped,
                                 enum dmab_direction direction) {
        if (mapped == direction)
                return 0;
        return error_set_reason(EINVAL, "wrong_direction",
                                "the mapping at 0x%llx of %s goes %s, and is unmapped as one that goes %s",
                                (unsigned long long)dma, device->name, bounce_direction_name(mapped),
                                bounce_direction_name(direction));
}

int bounce_check_sync_direction(const struct dmab_device *device, dmab_addr_t dma, enum dmab_direction mapped,
                                enum dmab_direction direction, bool for_cpu) {
        if (mapped == DMAB_BIDIRECTIONAL)
                return 0;
        if (mapped != direction)
                return error_set_reason(EINVAL, "wrong_direction",
                                        "the mapping at 0x%llx of %s goes %s, and is synced as one that goes %s",
                                        (unsigned long long)dma, device->name, bounce_direction_name(mapped),
                                        bounce_direction_name(direction));
        if (for_cpu != (mapped == DMAB_TO_DEVICE))
                return 0;
        return error_set_reason(EINVAL, "wrong_direction",
                                "the mapping at 0x%llx of %s goes %s only: there is nothing to sync for the %s",
                                (unsigned long long)dma, device->name, bounce_direction_name(mapped),
                                for_cpu ? "CPU" : "device");
}

static int check_kind(const struct bounce *bounce, const struct bounce_claim *claim, const struct bounce_record *record) {
        if (claim->pieces == record->pieces)
                return 0;
        if (!claim->pieces || !record->pieces)
                return error_set_reason(EINVAL, "bad_param",
                                        "0x%llx of %s was mapped with dmab_map_%s(), and is not a mapping of "
                                        "dmab_map_%s()", (unsigned long long)claim->dma, bounce->device->name,
                                        record->pieces ? "sg" : "single", record->pieces ? "single" : "sg");
        return error_set_reason(EINVAL, "wrong_size",
                                "0x%llx of %s is of a list of %u pieces, and a list of %u is given",
                                (unsigned long long)claim->dma, bounce->device->name, record->pieces, claim->pieces);
}

/* Is this what bounce_unmap() may end? With the area's lock held. */
static int check_claim(const struct bounce *bounce, const struct bounce_area *area, const struct bounce_claim *claim,
                       size_t *ret_first) {
        const struct bounce_record *record;
        size_t first;
        int r;

        if (!slots_find_run(area->slots, (claim->dma - area->start) >> shift_of(bounce), &first) || area->records[first].ending)
                return not_mapped(bounce, claim->dma);
        record = &area->records[first];
        if (dma_of(bounce, area, first) != claim->dma)
                return error_set_reason(EFAULT, "bad_address",
                                        "0x%llx of %s is not the start of a mapping, but of the slots of the one at "
                                        "0x%llx", (unsigned long long)claim->dma, bounce->device->name,
                                        (unsigned long long)dma_of(bounce, area, first));
        r = check_kind(bounce, claim, record);
        if (!r && record->size != claim->size)
                r = error_set_reason(EINVAL, "wrong_size",
                                     "the mapping at 0x%llx of %s was made with %zu bytes, and is unmapped with %zu",
                                     (unsigned long long)claim->dma, bounce->device->name, record->size, claim->size);
        if (!r)
                r = bounce_check_unmap_direction(bounce->device, claim->dma, record->direction, claim->direction);
        if (!r)
                *ret_first = first;
        return r;
}

int bounce_check(struct bounce *bounce, const struct bounce_claim *claim, void **ret_buf) {
        struct bounce_area *area = lock_area(bounce, claim->dma);
        size_t first;
        int r;

        if (!area)
                return 1;
        r = check_claim(bounce, area, claim, &first);
        if (!r)
                *ret_buf = area->records[first].buf;
        slots_unlock(&area->lock);
        return r;
}

static int end(struct bounce *bounce, const struct bounce_claim *claim, bool copy) {
        struct bounce_area *area = lock_area(bounce, claim->dma);
        struct bounce_record *record;
        size_t first;
        int r;

        if (!area)
                return 1;
        r = check_claim(bounce, area, claim, &first);
        if (!r && !copy)
                give(area, first);
        else if (!r) {
                record = &area->records[first];
                record->ending = true;
                slots_unlock(&area->lock);
                memcpy(record->buf, memory_of(area, claim->dma), claim->size);
                slots_lock(&area->lock);
                give(area, first);
        }
        slots_unlock(&area->lock);
        return r;
}

int bounce_unmap(struct bounce *bounce, const struct bounce_claim *claim) {
        return end(bounce, claim, claim->direction != DMAB_TO_DEVICE);
}

int bounce_undo(struct bounce *bounce, const struct bounce_claim *claim) {
        return end(bounce, claim, false);
}

/* ---- syncing ---- */

static int check_sync(const struct bounce *bounce, const struct bounce_area *area, const struct bounce_claim *claim, bool for_cpu,
                      struct bounce_record *ret, uint64_t *ret_offset) {
        dmab_addr_t start;
        size_t first;
        int r;

        if (!slots_find_run(area->slots, (claim->dma - area->start) >> shift_of(bounce), &first) || area->records[first].ending)
                return not_mapped(bounce, claim->dma);
        *ret = area->records[first];
        start = dma_of(bounce, area, first);
        *ret_offset = claim->dma - start;
        if (claim->dma < start || *ret_offset > ret->size || claim->size > ret->size - *ret_offset)
                return error_set_reason(EFAULT, "bad_address",
                                        "%zu bytes at 0x%llx of %s do not lie in the mapping of %zu bytes at 0x%llx",
                                        claim->size, (unsigned long long)claim->dma, bounce->device->name, ret->size,
                                        (unsigned long long)start);
        /* Any part of any mapping may be synced by itself. */
        r = claim->pieces ? check_kind(bounce, claim, ret) : 0;
        return r ? r : bounce_check_sync_direction(bounce->device, claim->dma, ret->direction, claim->direction, for_cpu);
}

int bounce_sync(struct bounce *bounce, const struct bounce_claim *claim, bool for_cpu) {
        struct bounce_area *area = lock_area(bounce, claim->dma);
        struct bounce_record record = { 0 };
        uint64_t offset = 0;
        char *memory;
        int r;

        if (!area)
                return 1;
        r = check_sync(bounce, area, claim, for_cpu, &record, &offset);
        memory = memory_of(area, claim->dma);
        slots_unlock(&area->lock);
        if (r)
                return r;
        if (for_cpu && claim->direction != DMAB_TO_DEVICE)
                memcpy((char *)record.buf + offset, memory, claim->size);
        else if (!for_cpu && claim->direction != DMAB_FROM_DEVICE)
                memcpy(memory, (char *)record.buf + offset, claim->size);
        return 0;
}

/* ---- looking ---- */

size_t bounce_mapped(struct bounce *bounce, dmab_addr_t *ret_dma, struct bounce_record *ret_first) {
        unsigned n_areas = __atomic_load_n(&bounce->n_areas, __ATOMIC_ACQUIRE);
        size_t n = 0, first;

        for (unsigned i = 0; i < n_areas; i++) {
                struct bounce_area *area = __atomic_load_n(&bounce->areas[i], __ATOMIC_RELAXED);
                struct slots_usage usage = { 0 };

                slots_lock(&area->lock);
                if (area->slots)
                        slots_usage(area->slots, &usage);
                if (!n && usage.runs && slots_next_run(area->slots, 0, &first)) {
                        *ret_dma = dma_of(bounce, area, first);
                        *ret_first = area->records[first];
                }
                n += usage.runs;
                slots_unlock(&area->lock);
        }
        return n;
}

void bounce_info(struct bounce *bounce, struct dmab_bounce_info *ret) {
        struct slots_usage usage;

        count_slots(bounce, &usage);
        pthread_mutex_lock(&bounce->lock);
        ret->slot_size = (size_t)1 << bounce->slot_shift;
        ret->slots = usage.slots;
        ret->used = usage.used;
        if (usage.high_water > bounce->high_water)
                bounce->high_water = usage.high_water;
        ret->high_water = bounce->high_water;
        ret->largest_free = usage.largest_free;
        for (unsigned i = 0; i < bounce->n_areas; i++) {
                struct bounce_area *area = bounce->areas[i];

                slots_lock(&area->lock);
                ret->areas += area->slots != NULL;
                if (area->slots)
                        ret->addressing = region_addressing(area->region);
                ret->bounced += area->bounced;
                ret->bounced_bytes += area->bounced_bytes;
                slots_unlock(&area->lock);
        }
        pthread_mutex_unlock(&bounce->lock);
        ret->fulls = __atomic_load_n(&bounce->fulls, __ATOMIC_RELAXED);
}
