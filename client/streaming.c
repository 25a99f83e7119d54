#include "client/streaming.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/bounce.h"
#include "client/error.h"
#include "client/pool.h"
#include "client/session.h"
#include "client/tracking.h"

enum { N_COUNTERS = 8, WORD_BITS = 8 * sizeof(unsigned long) };

/* Regions are huge pages, mostly: one guess for each serves 32 GiB. Where they are smaller, they share one, and have others. */
enum { N_DELTAS = 16384, DELTA_SHIFT = 21, N_FINE = 256, FINE_SHIFT = 16 };

struct streaming {
        struct bounce bounce;
        struct tracking *tracking; /* NULL: DMAB_DEBUG is not set */
        struct {
                uint64_t n; /* atomic */
        } __attribute__((aligned(64))) in_place[N_COUNTERS];
        /* Differences of dma addresses and the CPU's that mappings in place have had, by their addresses: the way from
         * such an address back to the memory. Guesses, to be proven. Atomic. */
        uint64_t *deltas, fine[N_FINE];
};

/* One mapping, or one piece of a scatter list. */
struct mapping {
        void *buf;
        size_t size;
        enum dmab_direction direction;
        uint32_t pieces; /* of its list; 0: of none */
        dmab_addr_t dma;
};

int streaming_new(struct dmab_device *device) {
        size_t align = _Alignof(struct streaming);
        struct streaming *streaming = aligned_alloc(align, (sizeof(*streaming) + align - 1) / align * align);

        if (!streaming)
                return error_set(ENOMEM, "there is not enough memory");
        memset(streaming, 0, sizeof(*streaming));
        bounce_init(&streaming->bounce, device);
        device->streaming = streaming;
        /* What is not used of it is never touched. */
        streaming->deltas = calloc(N_DELTAS, sizeof(*streaming->deltas));
        if (!streaming->deltas || (inspect_wanted() && !(streaming->tracking = tracking_new()))) {
                streaming_free(device);
                return error_set(ENOMEM, "there is not enough memory");
        }
        return 0;
}

void streaming_free(struct dmab_device *device) {
        if (!device->streaming)
                return;
        bounce_deinit(&device->streaming->bounce);
        tracking_free(device->streaming->tracking);
        free(device->streaming->deltas);
        free(device->streaming);
        device->streaming = NULL;
}

/* ---- what is left in the end ---- */

/* How many, and one of them. */
static size_t count_mapped(const struct dmab_device *device, struct tracked *ret) {
        struct streaming *streaming = device->streaming;
        struct bounce_record record;
        dmab_addr_t dma;
        size_t n;

        if (streaming->tracking)
                return tracking_count(streaming->tracking, ret);
        n = bounce_mapped(&streaming->bounce, &dma, &record);
        if (n)
                *ret = (struct tracked){ .buf = record.buf, .size = record.size, .dma = dma, .direction = record.direction };
        return n;
}

int streaming_sleep(struct dmab_device *device) {
        struct tracked one;
        size_t n;
        int r;

        /* Others may map meanwhile: a device that is not closed in the end is theirs to use. */
        do {
                n = count_mapped(device, &one);
                r = n ? -EBUSY : area_sleep(&device->streaming->bounce);
        } while (r == 1);
        if (!n)
                return r;
        return error_set_reason(EBUSY, "busy", "%s still has %zu mapping%s, such as the %zu bytes of %p at 0x%llx, %s",
                                device->name, n, n == 1 ? "" : "s", one.size, one.buf, (unsigned long long)one.dma,
                                bounce_direction_name(one.direction));
}

void streaming_report(const struct dmab_device *device, const char *when) {
        struct tracked one;
        size_t n;

        if (!device->streaming || !device->streaming->tracking)
                return;
        n = count_mapped(device, &one);
        if (n)
                fprintf(stderr, "libdmabroker: device %s still had %zu mapping%s %s, such as the %zu bytes of %p at "
                        "0x%llx, %s\n", device->name, n, n == 1 ? "" : "s", when, one.size, one.buf,
                        (unsigned long long)one.dma, bounce_direction_name(one.direction));
}

/* ---- in place ---- */

static uint64_t *delta_of(struct streaming *streaming, dmab_addr_t dma) {
        return &streaming->deltas[(dma >> DELTA_SHIFT) % N_DELTAS];
}

static uint64_t *fine_delta_of(struct streaming *streaming, dmab_addr_t dma) {
        return &streaming->fine[(dma >> FINE_SHIFT) % N_FINE];
}

static void note_delta(uint64_t *place, uint64_t delta) {
        if (__atomic_load_n(place, __ATOMIC_RELAXED) != delta)
                __atomic_store_n(place, delta, __ATOMIC_RELAXED);
}

static void note_deltas(struct streaming *streaming, dmab_addr_t dma, uint64_t delta) {
        note_delta(delta_of(streaming, dma), delta);
        note_delta(fine_delta_of(streaming, dma), delta);
}

static bool crosses_boundary(const struct dmab_device *device, dmab_addr_t dma, size_t size) {
        return device->boundary && ((dma ^ (dma + (size - 1))) & ~(device->boundary - 1));
}

/* Does all of [at, at+size) lie in the piece? Blocks of a pool may reach from one slab into the next. */
static bool covers(const struct memory *memory, const struct piece *piece, uintptr_t at, size_t size) {
        const void *pool = piece->kind == PIECE_SLAB ? __atomic_load_n(&piece->of, __ATOMIC_RELAXED) : NULL;
        size_t room;

        while (size > (room = piece->size - (at - piece->start))) {
                const struct piece *next = pool ? memory_find(memory, (void *)(at + room)) : NULL;

                if (!next || __atomic_load_n(&next->of, __ATOMIC_RELAXED) != pool || next->delta != piece->delta)
                        return false;
                at += room;
                size -= room;
                piece = next;
        }
        return true;
}

/* Can the device reach all of it where it is, at an address with the low bits that it wants? */
static bool is_reachable(const struct dmab_device *device, const void *buf, size_t size, dmab_addr_t *ret_dma) {
        const struct piece *piece = memory_find(&device->dmab->memory, buf);
        dmab_addr_t dma;

        if (!piece || piece->device != device || (piece->delta & device->min_align_mask) ||
            !covers(&device->dmab->memory, piece, (uintptr_t)buf, size))
                return false;
        dma = (uintptr_t)buf + piece->delta;
        if (dma + (size - 1) > __atomic_load_n(&device->mask, __ATOMIC_RELAXED) || crosses_boundary(device, dma, size))
                return false;
        note_deltas(device->streaming, dma, piece->delta);
        *ret_dma = dma;
        return true;
}

/* The memory at a dma address, if this is the difference. */
static struct piece *piece_by_delta(const struct dmab *dmab, dmab_addr_t dma, uint64_t delta) {
        struct piece *piece = memory_find(&dmab->memory, (void *)(uintptr_t)(dma - delta));

        return piece && piece->delta == delta && dma - delta - piece->start < piece->size ? piece : NULL;
}

static struct piece *piece_by_guess(const struct dmab_device *device, dmab_addr_t dma) {
        uint64_t *places[] = { delta_of(device->streaming, dma), fine_delta_of(device->streaming, dma) };

        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                struct piece *piece = piece_by_delta(device->dmab, dma, __atomic_load_n(places[i], __ATOMIC_RELAXED));

                if (piece && piece->device == device)
                        return piece;
        }
        return NULL;
}

/* The number of the page in a chunk that the last page of a piece is, if it were as long as that. */
static size_t last_page_of(const struct memory *memory, size_t chunk, const struct piece *piece) {
        return (piece->start + (piece->size - 1) - (memory->start + (chunk << MEMORY_CHUNK_SHIFT))) >> MEMORY_PAGE_SHIFT;
}

/* The long way, through everything that is mapped. The device's own is preferred. */
static struct piece *piece_by_search(const struct dmab_device *device, dmab_addr_t dma) {
        struct dmab *dmab = device->dmab;
        struct piece *found = NULL;

        pthread_mutex_lock(&dmab->lock);
        for (size_t i = 0; i < dmab->memory.size >> MEMORY_CHUNK_SHIFT; i++) {
                const struct memory_chunk *chunk = dmab->memory.chunks[i];

                /* Nothing is mapped in as many chunks as a word of the bitmap stands for. */
                if (i % WORD_BITS == 0 && !dmab->memory.taken[i / WORD_BITS]) {
                        i += WORD_BITS - 1;
                        continue;
                }
                for (size_t j = 0; chunk && j < MEMORY_CHUNK_PAGES; j++) {
                        struct piece *piece = chunk->pages[j];

                        if (!piece)
                                continue;
                        if (piece->device && dma - piece->delta - piece->start < piece->size &&
                            (!found || piece->device == device))
                                found = piece;
                        j = last_page_of(&dmab->memory, i, piece);
                }
        }
        pthread_mutex_unlock(&dmab->lock);
        return found;
}

/* Whose is it, if it is bounced? */
static int foreign_error(const struct dmab_device *device, dmab_addr_t dma) {
        struct dmab *dmab = device->dmab;
        const struct dmab_device *other;
        int r = 0;

        pthread_mutex_lock(&dmab->lock);
        for (other = dmab->devices; other && !r; other = other->next)
                if (other != device && bounce_has(&other->streaming->bounce, dma))
                        r = error_set_reason(EXDEV, "wrong_device", "0x%llx is bounce memory of %s, not of %s",
                                             (unsigned long long)dma, other->name, device->name);
        pthread_mutex_unlock(&dmab->lock);
        return r ? r : error_set_reason(EFAULT, "bad_address", "0x%llx is not the address of a mapping of %s",
                                        (unsigned long long)dma, device->name);
}

/* The memory behind [dma, dma+size) which is not bounced: *ret_buf. */
static int find_in_place(const struct dmab_device *device, dmab_addr_t dma, size_t size, void **ret_buf) {
        struct piece *piece = piece_by_guess(device, dma);

        if (!piece)
                piece = piece_by_search(device, dma);
        if (!piece)
                return foreign_error(device, dma);
        if (piece->device != device)
                return error_set_reason(EXDEV, "wrong_device", "0x%llx is memory of %s, not of %s",
                                        (unsigned long long)dma, piece->device ? piece->device->name : "another device",
                                        device->name);
        note_deltas(device->streaming, dma, piece->delta);
        if (!covers(&device->dmab->memory, piece, dma - piece->delta, size))
                return error_set_reason(EFAULT, "bad_address",
                                        "%zu bytes at 0x%llx of %s reach beyond the memory that it has there", size,
                                        (unsigned long long)dma, device->name);
        *ret_buf = (void *)(uintptr_t)(dma - piece->delta);
        return 0;
}

/* ---- one mapping ---- */

static int check_direction(const struct dmab_device *device, enum dmab_direction direction) {
        if ((unsigned)direction <= DMAB_FROM_DEVICE)
                return 0;
        return error_set_reason(EINVAL, "bad_param", "%u is not a direction of a mapping of %s", (unsigned)direction,
                                device->name);
}

static int check_buf(const struct dmab_device *device, const struct mapping *mapping) {
        if (!mapping->buf)
                return error_set_reason(EINVAL, "bad_param", "NULL cannot be mapped for %s", device->name);
        if (!mapping->size)
                return error_set_reason(EINVAL, "bad_param", "0 bytes of %p cannot be mapped for %s", mapping->buf,
                                        device->name);
        if ((uintptr_t)mapping->buf + (mapping->size - 1) < (uintptr_t)mapping->buf)
                return error_set_reason(EINVAL, "bad_param",
                                        "%zu bytes at %p, to be mapped for %s, reach beyond the end of all memory",
                                        mapping->size, mapping->buf, device->name);
        if (device->max_segment && mapping->size > device->max_segment)
                return error_set_reason(E2BIG, "limit", "%zu bytes are more than the %llu that %s takes in one segment",
                                        mapping->size, (unsigned long long)device->max_segment, device->name);
        return check_direction(device, mapping->direction);
}

static struct bounce_claim claim_of(const struct mapping *mapping) {
        return (struct bounce_claim){ mapping->dma, mapping->size, mapping->direction, mapping->pieces };
}

static struct tracked tracked_of(const struct mapping *mapping) {
        return (struct tracked){ mapping->buf, mapping->size, mapping->dma, mapping->direction, mapping->pieces };
}

/* Nobody has been told of the mapping yet: it leaves no trace, in buf either, where others may have written meanwhile. */
static int track(struct dmab_device *device, const struct mapping *mapping, bool bounced) {
        struct bounce_claim claim = claim_of(mapping);
        struct tracked what = tracked_of(mapping), other;
        int r = tracking_add(device->streaming->tracking, &what, &other);

        if (r && bounced)
                bounce_undo(&device->streaming->bounce, &claim);
        if (r == -EEXIST)
                error_set_reason(EEXIST, "busy",
                                 "%zu bytes of %p, to be mapped %s, overlap %zu bytes of %p that are mapped for %s at "
                                 "0x%llx, %s", mapping->size, mapping->buf, bounce_direction_name(mapping->direction),
                                 other.size, other.buf, device->name, (unsigned long long)other.dma,
                                 bounce_direction_name(other.direction));
        return r;
}

static int map(struct dmab_device *device, struct mapping *mapping) {
        struct streaming *streaming = device->streaming;
        bool bounced = !is_reachable(device, mapping->buf, mapping->size, &mapping->dma);
        int r = 0;

        if (__atomic_load_n(&device->dmab->lost, __ATOMIC_RELAXED))
                return error_set_reason(ESTALE, "gone",
                                        "the daemon has forgotten this session, and the memory of %s with it; "
                                        "disconnect and connect again", device->name);
        if (bounced)
                r = bounce_map(&streaming->bounce, mapping->buf, mapping->size, mapping->direction, mapping->pieces,
                               &mapping->dma);
        else
                __atomic_add_fetch(&streaming->in_place[bounce_own_area(N_COUNTERS)].n, 1, __ATOMIC_RELAXED);
        return r || !streaming->tracking ? r : track(device, mapping, bounced);
}

static int check_address(const struct dmab_device *device, const struct mapping *mapping) {
        if (mapping->dma == DMAB_ADDR_NONE)
                return error_set_reason(EFAULT, "bad_address",
                                        "DMAB_ADDR_NONE, which a map that fails leaves, is given as a mapping of %s: "
                                        "look at what the map returned", device->name);
        if (!mapping->size)
                return error_set_reason(EINVAL, "wrong_size",
                                        "a mapping of %s cannot have 0 bytes, as is said of 0x%llx", device->name,
                                        (unsigned long long)mapping->dma);
        if (mapping->dma + (mapping->size - 1) < mapping->dma)
                return error_set_reason(EFAULT, "bad_address",
                                        "%zu bytes at 0x%llx of %s reach beyond the end of all addresses",
                                        mapping->size, (unsigned long long)mapping->dma, device->name);
        return check_direction(device, mapping->direction);
}

/* Why is it not what is known of that memory? */
static int mismatch_error(const struct dmab_device *device, const struct mapping *mapping, const struct tracked *known) {
        unsigned long long dma = mapping->dma;

        if (!mapping->pieces != !known->pieces)
                return error_set_reason(EINVAL, "bad_param",
                                        "0x%llx of %s was mapped with dmab_map_%s(), and is not a mapping of "
                                        "dmab_map_%s()", dma, device->name, known->pieces ? "sg" : "single",
                                        known->pieces ? "single" : "sg");
        if (mapping->pieces != known->pieces)
                return error_set_reason(EINVAL, "wrong_size",
                                        "0x%llx of %s is of a list of %u pieces, and a list of %u is given", dma,
                                        device->name, known->pieces, mapping->pieces);
        if (mapping->size != known->size)
                return error_set_reason(EINVAL, "wrong_size",
                                        "the mapping at 0x%llx of %s was made with %zu bytes, and is unmapped with %zu",
                                        dma, device->name, known->size, mapping->size);
        return bounce_check_unmap_direction(device, mapping->dma, known->direction, mapping->direction);
}

static int untrack(struct dmab_device *device, struct mapping *mapping) {
        struct tracked what = tracked_of(mapping), known;
        int r = tracking_remove(device->streaming->tracking, &what, &known);

        if (r == -EINVAL)
                return mismatch_error(device, mapping, &known);
        return !r ? 0 : error_set_reason(EFAULT, "bad_address",
                                         "nothing is mapped at 0x%llx for %s; it may have been unmapped already",
                                         (unsigned long long)mapping->dma, device->name);
}

/* Could it be unmapped? Fills mapping->buf. */
static int check_unmap(struct dmab_device *device, struct mapping *mapping) {
        struct bounce_claim claim = claim_of(mapping);
        int r = check_address(device, mapping);

        if (!r)
                r = bounce_check(&device->streaming->bounce, &claim, &mapping->buf);
        return r == 1 ? find_in_place(device, mapping->dma, mapping->size, &mapping->buf) : r;
}

static int unmap(struct dmab_device *device, struct mapping *mapping) {
        struct streaming *streaming = device->streaming;
        struct bounce_claim claim = claim_of(mapping);
        int r = 0;

        if (streaming->tracking)
                r = check_unmap(device, mapping);
        if (streaming->tracking && !r)
                r = untrack(device, mapping);
        if (!r)
                r = bounce_unmap(&streaming->bounce, &claim);
        return r == 1 ? find_in_place(device, mapping->dma, mapping->size, &mapping->buf) : r;
}

static int sync_in_place(struct dmab_device *device, struct mapping *mapping, bool for_cpu) {
        struct tracking *tracking = device->streaming->tracking;
        struct tracked known;
        int r = find_in_place(device, mapping->dma, mapping->size, &mapping->buf);

        if (r || !tracking)
                return r;
        if (!tracking_find(tracking, mapping->buf, mapping->size, mapping->dma, mapping->pieces, &known))
                return error_set_reason(EFAULT, "bad_address", "%zu bytes at 0x%llx of %s do not lie in any mapping",
                                        mapping->size, (unsigned long long)mapping->dma, device->name);
        if (mapping->pieces && mapping->pieces != known.pieces)
                return mismatch_error(device, mapping, &known);
        return bounce_check_sync_direction(device, mapping->dma, known.direction, mapping->direction, for_cpu);
}

static int sync(struct dmab_device *device, struct mapping *mapping, bool for_cpu) {
        struct bounce_claim claim = claim_of(mapping);
        int r = check_address(device, mapping);

        if (!r)
                r = bounce_sync(&device->streaming->bounce, &claim, for_cpu);
        return r == 1 ? sync_in_place(device, mapping, for_cpu) : r;
}

int dmab_map_single(dmab_device_t *device, void *buf, size_t size, enum dmab_direction direction, dmab_addr_t *ret_dma) {
        struct mapping mapping = { .buf = buf, .size = size, .direction = direction };
        int r = session_check(device->dmab);

        if (!r)
                r = check_buf(device, &mapping);
        if (!r)
                r = map(device, &mapping);
        *ret_dma = r ? DMAB_ADDR_NONE : mapping.dma;
        return r;
}

int dmab_unmap_single(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction) {
        struct mapping mapping = { .dma = dma, .size = size, .direction = direction };
        int r = session_check(device->dmab);

        if (!r)
                r = check_address(device, &mapping);
        return r ? r : unmap(device, &mapping);
}

static int sync_single(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction, bool for_cpu) {
        struct mapping mapping = { .dma = dma, .size = size, .direction = direction };
        int r = session_check(device->dmab);

        return r ? r : sync(device, &mapping, for_cpu);
}

int dmab_sync_single_for_cpu(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction) {
        return sync_single(device, dma, size, direction, true);
}

int dmab_sync_single_for_device(dmab_device_t *device, dmab_addr_t dma, size_t size, enum dmab_direction direction) {
        return sync_single(device, dma, size, direction, false);
}

/* ---- lists ---- */

/* Walks over a list that was mapped: the pieces that the caller gave, each where it begins for the device. What was merged
 * lies there in the same order, one piece behind the other. */
struct walk {
        const struct dmab_sg *sg;
        size_t n, i, segment;
        uint64_t offset; /* into the segment */
};

static int walk_error(const struct dmab_device *device, const struct walk *walk) {
        return error_set_reason(EINVAL, "wrong_size",
                                "the %zu pieces are not the list that was mapped for %s at 0x%llx: give as many as "
                                "dmab_map_sg() was given, and leave them as they are", walk->n, device->name,
                                (unsigned long long)walk->sg[0].dma_addr);
}

/* 1: *ret is the next piece; 0: that was all; -EINVAL: it is not such a list. */
static int walk_next(const struct dmab_device *device, struct walk *walk, enum dmab_direction direction, struct mapping *ret) {
        const struct dmab_sg *piece = &walk->sg[walk->i], *segment = &walk->sg[walk->segment];

        if (walk->i == walk->n) {
                bool all = !walk->offset && (walk->segment == walk->n || !walk->sg[walk->segment].dma_size);

                return all ? 0 : walk_error(device, walk);
        }
        if (walk->segment >= walk->n || !piece->size || piece->size > segment->dma_size - walk->offset)
                return walk_error(device, walk);
        *ret = (struct mapping){ .buf = piece->addr, .size = piece->size, .direction = direction, .pieces = (uint32_t)walk->n,
                                 .dma = segment->dma_addr + walk->offset };
        walk->i++;
        walk->offset += piece->size;
        if (walk->offset == segment->dma_size) {
                walk->segment++;
                walk->offset = 0;
        }
        return 1;
}

static int check_list(const struct dmab_device *device, const struct dmab_sg *sg, size_t n, enum dmab_direction direction) {
        if (!sg || !n)
                return error_set_reason(EINVAL, "bad_param", "a scatter list of %s has at least one piece",
                                        device->name);
        if (n > UINT32_MAX)
                return error_set_reason(E2BIG, "limit", "a scatter list of %zu pieces is longer than any for %s", n,
                                        device->name);
        return check_direction(device, direction);
}

/* Can a piece at dma be one with the segment before it? */
static bool can_merge(const struct dmab_device *device, const struct dmab_sg *segment, dmab_addr_t dma, size_t size) {
        return segment->dma_addr + segment->dma_size == dma && size <= SIZE_MAX - segment->dma_size &&
               (!device->max_segment || segment->dma_size + size <= device->max_segment) &&
               !crosses_boundary(device, segment->dma_addr, segment->dma_size + size);
}

/* sg[i].dma_addr is where each piece lies; make of it the device's list. */
static size_t merge(const struct dmab_device *device, struct dmab_sg *sg, size_t n) {
        size_t last = 0;

        sg[0].dma_size = sg[0].size;
        for (size_t i = 1; i < n; i++) {
                if (can_merge(device, &sg[last], sg[i].dma_addr, sg[i].size)) {
                        sg[last].dma_size += sg[i].size;
                        continue;
                }
                last++;
                sg[last].dma_addr = sg[i].dma_addr;
                sg[last].dma_size = sg[i].size;
        }
        for (size_t i = last + 1; i < n; i++) {
                sg[i].dma_addr = DMAB_ADDR_NONE;
                sg[i].dma_size = 0;
        }
        return last + 1;
}

/* The first n again, whose addresses are still their own. */
static void undo(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction, uint32_t pieces) {
        struct error_state *saved = error_save();

        for (size_t i = 0; i < n; i++) {
                struct mapping mapping = { .buf = sg[i].addr, .size = sg[i].size, .direction = direction, .pieces = pieces,
                                           .dma = sg[i].dma_addr };
                struct bounce_claim claim = claim_of(&mapping);

                if (device->streaming->tracking)
                        untrack(device, &mapping);
                bounce_undo(&device->streaming->bounce, &claim);
                sg[i].dma_addr = DMAB_ADDR_NONE;
        }
        error_restore(saved);
}

int dmab_map_sg(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction, size_t *ret_n) {
        int r = session_check(device->dmab);

        if (!r)
                r = check_list(device, sg, n, direction);
        for (size_t i = 0; i < n && !r; i++) {
                struct mapping mapping = { .buf = sg[i].addr, .size = sg[i].size, .direction = direction };

                r = check_buf(device, &mapping);
        }
        for (size_t i = 0; i < n && !r; i++) {
                struct mapping mapping = { .buf = sg[i].addr, .size = sg[i].size, .direction = direction,
                                           .pieces = (uint32_t)n };

                r = map(device, &mapping);
                if (r)
                        undo(device, sg, i, direction, (uint32_t)n);
                else
                        sg[i].dma_addr = mapping.dma;
        }
        if (!r)
                *ret_n = merge(device, sg, n);
        return r;
}

/* Is each piece what it is said to be? */
static int check_pieces(dmab_device_t *device, const struct dmab_sg *sg, size_t n, enum dmab_direction direction) {
        struct walk walk = { .sg = sg, .n = n };
        struct mapping mapping;
        int r = session_check(device->dmab), left;

        if (!r)
                r = check_list(device, sg, n, direction);
        while (!r && (left = walk_next(device, &walk, direction, &mapping)))
                r = left < 0 ? left : check_unmap(device, &mapping);
        return r;
}

int dmab_unmap_sg(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction) {
        struct walk walk = { .sg = sg, .n = n };
        struct mapping mapping;
        int r = check_pieces(device, sg, n, direction);

        while (!r && walk_next(device, &walk, direction, &mapping) > 0)
                r = unmap(device, &mapping);
        for (size_t i = 0; i < n && !r; i++) {
                sg[i].dma_addr = DMAB_ADDR_NONE;
                sg[i].dma_size = 0;
        }
        return r;
}

static int sync_sg(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction, bool for_cpu) {
        struct walk walk = { .sg = sg, .n = n };
        struct mapping mapping;
        int r = session_check(device->dmab), left;

        if (!r)
                r = check_list(device, sg, n, direction);
        while (!r && (left = walk_next(device, &walk, direction, &mapping)))
                r = left < 0 ? left : sync(device, &mapping, for_cpu);
        return r;
}

int dmab_sync_sg_for_cpu(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction) {
        return sync_sg(device, sg, n, direction, true);
}

int dmab_sync_sg_for_device(dmab_device_t *device, struct dmab_sg *sg, size_t n, enum dmab_direction direction) {
        return sync_sg(device, sg, n, direction, false);
}

/* ---- the bounce memory ---- */

int dmab_set_bounce(dmab_device_t *device, size_t size, size_t max_size, size_t slot_size) {
        int r = session_check(device->dmab);

        return r ? r : area_set_sizes(&device->streaming->bounce, size, max_size, slot_size);
}

int dmab_bounce_info(dmab_device_t *device, struct dmab_bounce_info *ret) {
        struct dmab_bounce_info info = DMAB_BOUNCE_INFO_INIT;
        size_t size = ret->struct_size;
        int r = session_check(device->dmab);

        if (r)
                return r;
        if (size < sizeof(size))
                return error_set(EINVAL, "struct_size of struct dmab_bounce_info is %zu; set it to sizeof(the "
                                 "structure)", size);
        bounce_info(&device->streaming->bounce, &info);
        for (size_t i = 0; i < N_COUNTERS; i++)
                info.mapped_in_place += __atomic_load_n(&device->streaming->in_place[i].n, __ATOMIC_RELAXED);
        memcpy(ret, &info, size < sizeof(info) ? size : sizeof(info));
        ret->struct_size = size;
        return 0;
}
