/* Where bounce memory comes from and goes to: a bounce pool of the daemon's for each device, leased in areas. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/bounce.h"
#include "client/error.h"
#include "client/params.h"
#include "client/region.h"
#include "client/result.h"
#include "client/session.h"
#include "proto/schema.h"

enum {
        PAGE = 4096,
        SLOT_SHIFT_DEFAULT = 11, /* as the kernel's */
        SLOT_SIZE_LEAST = 64,
        OWN_AREAS_MOST = 8,
        OWN_AREA_LEAST = 64 << 10,
};
#define SIZE_DEFAULT ((size_t)1 << 20)
#define MAX_SIZE_DEFAULT ((size_t)64 << 20) /* as the kernel's whole SWIOTLB */

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

/* ---- the object ---- */

/* The low bits that survive are those within a slot: the daemon makes slots no smaller either. */
static unsigned choose_shift(const struct dmab_device *device, size_t slot_size) {
        unsigned shift = (unsigned)__builtin_ctzl(slot_size);

        while (device->min_align_mask >> shift)
                shift++;
        return shift;
}

static unsigned count_own(size_t size, unsigned slot_shift) {
        size_t least = slot_shift > 16 ? (size_t)1 << slot_shift : OWN_AREA_LEAST;
        long n = sysconf(_SC_NPROCESSORS_ONLN);

        if (n > OWN_AREAS_MOST)
                n = OWN_AREAS_MOST;
        while (n > 1 && size / n < least)
                n--;
        return n < 1 ? 1 : (unsigned)n;
}

static void choose_sizes(struct bounce *bounce, size_t size, size_t max_size, size_t slot_size) {
        unsigned shift = choose_shift(bounce->device, slot_size);

        bounce->size = size;
        bounce->max_size = max_size;
        __atomic_store_n(&bounce->n_own, count_own(size, shift), __ATOMIC_RELAXED);
        __atomic_store_n(&bounce->slot_shift, shift, __ATOMIC_RELAXED);
}

static void recalled(struct watch *watch, uint64_t bytes);

void bounce_init(struct bounce *bounce, struct dmab_device *device) {
        *bounce = (struct bounce){
                .device = device,
                .watch = { .kind = "bounce", .recalled = recalled },
        };
        choose_sizes(bounce, SIZE_DEFAULT, MAX_SIZE_DEFAULT, (size_t)1 << SLOT_SHIFT_DEFAULT);
        pthread_mutex_init(&bounce->lock, NULL);
}

/* Take an area's memory out of use, if nothing is mapped in it or `force`. With both locks held but the area's. */
static bool area_clear(struct bounce *bounce, struct bounce_area *area, bool force, struct region **ret_region,
                       uint64_t *ret_lease) {
        struct slots_usage usage;
        struct slots *slots;
        void *records;

        slots_lock(&area->lock);
        if (area->slots)
                slots_usage(area->slots, &usage);
        if (!area->slots || (usage.used && !force)) {
                slots_unlock(&area->lock);
                return false;
        }
        *ret_region = area->region;
        *ret_lease = area->lease;
        slots = area->slots;
        records = area->records;
        area->slots = NULL;
        area->records = NULL;
        area->lease = 0;
        __atomic_store_n(&area->n_free, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&area->size, 0, __ATOMIC_RELAXED);
        slots_unlock(&area->lock);
        bounce->slots -= usage.slots;
        slots_free(slots);
        free(records);
        return true;
}

void bounce_deinit(struct bounce *bounce) {
        struct dmab *dmab = bounce->device->dmab;
        struct region *region;
        uint64_t lease;

        if (dmab->agent)
                agent_unwatch(dmab->agent, &bounce->watch);
        for (unsigned i = 0; i < bounce->n_areas; i++) {
                /* Nobody has it; but in the child of a fork, a thread of the parent may have had it. */
                slots_unlock(&bounce->areas[i]->lock);
                if (area_clear(bounce, bounce->areas[i], true, &region, &lease))
                        region_release(dmab, region);
                free(bounce->areas[i]);
        }
        pthread_mutex_destroy(&bounce->lock);
}

int area_set_sizes(struct bounce *bounce, size_t size, size_t max_size, size_t slot_size) {
        const char *name = bounce->device->name;
        size_t known_size = size ? size : SIZE_DEFAULT, known_slot = slot_size ? slot_size : 1 << SLOT_SHIFT_DEFAULT;
        size_t known_max = max_size ? max_size : known_size > MAX_SIZE_DEFAULT ? known_size : MAX_SIZE_DEFAULT;
        int r = 0;

        if (known_size > SCHEMA_INTEGER_MAX || known_max > SCHEMA_INTEGER_MAX)
                return error_set_reason(E2BIG, "limit",
                                        "%zu bytes of bounce memory for %s are more than any machine has",
                                        known_max > known_size ? known_max : known_size, name);
        if (known_max < known_size)
                return error_set_reason(EINVAL, "bad_param",
                                        "bounce memory of %s cannot begin with %zu bytes and have %zu at most", name,
                                        known_size, known_max);
        if ((known_slot & (known_slot - 1)) || known_slot < SLOT_SIZE_LEAST || known_slot > known_size)
                return error_set_reason(EINVAL, "bad_param",
                                        "slots of %s cannot have %zu bytes: a power of two, at least %d and at most "
                                        "all of the %zu", name, known_slot, SLOT_SIZE_LEAST, known_size);
        pthread_mutex_lock(&bounce->lock);
        if (bounce->number) {
                r = error_set_reason(EBUSY, "busy", "%s has its bounce memory already; choose before the first mapping",
                                     name);
        } else {
                choose_sizes(bounce, known_size, known_max, known_slot);
        }
        pthread_mutex_unlock(&bounce->lock);
        return r;
}

/* ---- the pool ---- */

static int destroy(struct bounce *bounce) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        params_begin(&params);
        params_uint(&params, "bounce", bounce->number);
        params_word(&params, "force", "true", 0);
        params_end(&params);
        r = link_call(bounce->device->dmab->link,
                      &(struct link_request){ .method = "bounce.destroy", .params = params.text, .repeat = LINK_RELEASE },
                      &reply);
        link_reply_release(&reply);
        /* An administrator may have done it. */
        return r && error_is("unknown_handle") ? 0 : r;
}

static int take_slot_size(struct bounce *bounce, json_t *result) {
        uint64_t slot_size;
        int r = result_uint(result, "bounce", &bounce->number);

        if (!r)
                r = result_uint(result, "slot_size", &slot_size);
        if (!r && (!slot_size || (slot_size & (slot_size - 1))))
                r = error_set(EPROTO, "the daemon's answer has slots of %llu bytes", (unsigned long long)slot_size);
        if (!r)
                __atomic_store_n(&bounce->slot_shift, (unsigned)__builtin_ctzll(slot_size), __ATOMIC_RELAXED);
        return r;
}

/* With the lock held. The agent hears when its memory is wanted back. */
static int create(struct bounce *bounce) {
        struct dmab *dmab = bounce->device->dmab;
        struct link_reply reply = { 0 };
        char key[LINK_KEY_SIZE];
        struct params params;
        int r = agent_start(dmab);

        if (r)
                return r;
        link_make_key(dmab->link, key);
        params_begin(&params);
        params_uint(&params, "device", bounce->device->handle);
        params_uint(&params, "size", bounce->size);
        params_uint(&params, "slot_size", UINT64_C(1) << bounce->slot_shift);
        params_uint(&params, "areas", bounce->n_own);
        params_uint(&params, "max_size", bounce->max_size);
        params_uint(&params, "wait_ms", 0);
        params_word(&params, "request_key", key, '"');
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){
                              .method = "bounce.create", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        if (!r)
                r = take_slot_size(bounce, reply.result);
        link_reply_release(&reply);
        if (!r)
                agent_watch(dmab->agent, &bounce->watch, bounce->number);
        return r;
}

/* ---- leases ---- */

static void give_back(struct bounce *bounce, uint64_t lease) {
        struct link_reply reply = { 0 };
        struct params params;

        params_begin(&params);
        params_uint(&params, "lease", lease);
        params_end(&params);
        /* Whatever the answer is: it ends with the pool. */
        link_call(bounce->device->dmab->link,
                  &(struct link_request){ .method = "bounce.return", .params = params.text, .repeat = LINK_RELEASE }, &reply);
        link_reply_release(&reply);
}

/* The first empty area: those of the CPUs come first. With the lock held. */
static int find_empty(struct bounce *bounce, struct bounce_area **ret) {
        struct bounce_area *area;

        for (unsigned i = 0; i < bounce->n_areas; i++)
                if (!bounce->areas[i]->size) {
                        *ret = bounce->areas[i];
                        return 0;
                }
        if (bounce->n_areas == BOUNCE_AREAS_MOST)
                return error_set_reason(ENOMEM, "limit", "the bounce memory of %s is in %d pieces already",
                                        bounce->device->name, BOUNCE_AREAS_MOST);
        area = aligned_alloc(_Alignof(struct bounce_area), sizeof(*area));
        if (!area)
                return no_memory();
        *area = (struct bounce_area){ 0 };
        __atomic_store_n(&bounce->areas[bounce->n_areas], area, __ATOMIC_RELAXED);
        __atomic_store_n(&bounce->n_areas, bounce->n_areas + 1, __ATOMIC_RELEASE);
        *ret = area;
        return 0;
}

struct answer {
        struct region_place place;
        uint64_t lease, slots;
};

static int take_answer(json_t *result, struct answer *answer) {
        int r = result_uint(result, "lease", &answer->lease);

        if (!r)
                r = region_read_place(result, &answer->place);
        if (!r)
                r = result_uint(result, "slots", &answer->slots);
        return r;
}

/* Make a lease an area of the bounce memory, if it can hold a run of n slots: whoever wants one would ask again and again. */
static int settle(struct bounce *bounce, const struct answer *answer, int fd, size_t n, struct bounce_area *area) {
        const struct dmab_device *device = bounce->device;
        struct bounce_record *records = calloc(answer->slots, sizeof(*records));
        uint64_t boundary = device->boundary >> bounce->slot_shift;
        struct slots_usage usage = { 0 };
        struct slots *slots = NULL;
        struct region *region;
        char *memory;
        int r;

        /* Within a slot there is no boundary that matters: a mapping is no longer than one. */
        if (device->boundary && !boundary)
                boundary = 1;
        r = records ? slots_new(answer->slots, answer->place.dma_addr >> bounce->slot_shift, boundary, &slots) : -ENOMEM;
        if (r)
                r = r == -ENOMEM ? no_memory() : error_set(EPROTO, "the daemon leased %llu slots at once",
                                                           (unsigned long long)answer->slots);
        else
                slots_usage(slots, &usage);
        if (!r && usage.longest < n)
                r = error_set_reason(ENOMEM, "no_contiguous",
                                     "A lease of %zu slots holds no run of %zu within the boundary of the device",
                                     usage.slots, n);
        if (!r)
                r = region_use(device->dmab, &answer->place, fd, &region, NULL);
        if (r)
                goto free_slots;
        memory = region_address(region, answer->place.offset, answer->slots << bounce->slot_shift);
        if (!memory || answer->place.dma_addr & ((UINT64_C(1) << bounce->slot_shift) - 1)) {
                r = error_set(EPROTO, "the daemon's answer puts a lease outside its region");
                goto release_region;
        }
        if (answer->place.dma_addr + ((answer->slots << bounce->slot_shift) - 1) >
            __atomic_load_n(&device->mask, __ATOMIC_RELAXED)) {
                r = error_set_reason(ERANGE, "mask", "bounce memory at 0x%llx is above the mask of %s",
                                     (unsigned long long)answer->place.dma_addr, device->name);
                goto release_region;
        }
        slots_lock(&area->lock);
        area->slots = slots;
        area->records = records;
        area->memory = memory;
        area->region = region;
        area->lease = answer->lease;
        __atomic_store_n(&area->start, answer->place.dma_addr, __ATOMIC_RELAXED);
        __atomic_store_n(&area->size, answer->slots << bounce->slot_shift, __ATOMIC_RELAXED);
        __atomic_store_n(&area->n_free, answer->slots, __ATOMIC_RELAXED);
        slots_unlock(&area->lock);
        bounce->slots += answer->slots;
        return 0;

release_region:
        region_release(device->dmab, region);
free_slots:
        slots_free(slots);
        free(records);
        return r;
}

/* One more area with n slots, for a run of so many. With the lock held. */
static int lease_area(struct bounce *bounce, size_t n, size_t run) {
        struct dmab *dmab = bounce->device->dmab;
        struct link_reply reply = { 0 };
        struct answer answer = { 0 };
        struct bounce_area *area = NULL;
        char key[LINK_KEY_SIZE];
        struct params params;
        int r = find_empty(bounce, &area);

        if (r)
                return r;
        link_make_key(dmab->link, key);
        params_begin(&params);
        params_uint(&params, "bounce", bounce->number);
        params_uint(&params, "slots", n);
        params_uint(&params, "wait_ms", 0);
        if (link_takes_fds(dmab->link))
                params_word(&params, "fd", "true", 0);
        params_word(&params, "request_key", key, '"');
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){
                              .method = "bounce.lease", .params = params.text, .repeat = LINK_KEYED },
                      &reply);
        if (!r)
                r = take_answer(reply.result, &answer);
        if (!r)
                r = settle(bounce, &answer, reply.n_fds ? reply.fds[0] : -1, run, area);
        link_reply_release(&reply);
        if (r && answer.lease) {
                struct error_state *saved = error_save();

                give_back(bounce, answer.lease);
                error_restore(saved);
        }
        return r;
}

/* ---- growing ---- */

/* Leases are whole pages, so that one begins where a page does. */
static size_t whole_pages(const struct bounce *bounce, size_t n) {
        size_t per_page = bounce->slot_shift < 12 ? (size_t)PAGE >> bounce->slot_shift : 1;

        return (n + per_page - 1) / per_page * per_page;
}

/* The areas of the CPUs, each for a run of so many slots; the pool has the memory for them since it was made. */
static int lease_own(struct bounce *bounce, size_t run) {
        size_t n = whole_pages(bounce, (bounce->size >> bounce->slot_shift) / bounce->n_own), left;
        int r = 0;

        for (unsigned i = 0; i < bounce->n_own && !r; i++) {
                left = (bounce->size >> bounce->slot_shift) - bounce->slots;
                r = left ? lease_area(bounce, left < n ? left : n, bounce->slots ? 1 : run) : 0;
        }
        return bounce->slots ? 0 : r;
}

static bool is_no_memory(int r) {
        return r == -ENOMEM || r == -EAGAIN || r == -E2BIG;
}

/* Take what is idle back to the daemon. With the lock held. */
static void shrink(struct bounce *bounce) {
        struct region *region;
        uint64_t lease;

        for (unsigned i = bounce->n_areas; i--;) {
                if (!area_clear(bounce, bounce->areas[i], false, &region, &lease))
                        continue;
                region_release(bounce->device->dmab, region);
                give_back(bounce, lease);
                __atomic_store_n(&bounce->changes, bounce->changes + 1, __ATOMIC_RELEASE);
        }
}

static size_t count_idle(struct bounce *bounce) {
        struct slots_usage usage;
        size_t n = 0;

        for (unsigned i = 0; i < bounce->n_areas; i++) {
                struct bounce_area *area = bounce->areas[i];

                slots_lock(&area->lock);
                if (area->slots) {
                        slots_usage(area->slots, &usage);
                        n += usage.used ? 0 : usage.slots;
                }
                slots_unlock(&area->lock);
        }
        return n;
}

static size_t room_of(const struct bounce *bounce) {
        size_t most = bounce->max_size >> bounce->slot_shift;

        return most > bounce->slots ? most - bounce->slots : 0;
}

/* As much again as there is, so that there are few areas however large it grows; less if the daemon has not so much, but n at
 * least. */
static int lease_more(struct bounce *bounce, size_t n) {
        size_t most = bounce->max_size >> bounce->slot_shift, least = whole_pages(bounce, n), want;
        int r;

        if (n > most)
                return error_set_reason(E2BIG, "limit",
                                        "%zu slots of %zu bytes in one run are more than the %zu that %s can ever "
                                        "have; see dmab_set_bounce()", n, (size_t)1 << bounce->slot_shift, most,
                                        bounce->device->name);
        /* Areas that are idle but too short may make room for one that is not. */
        if (room_of(bounce) < least && room_of(bounce) + count_idle(bounce) >= n)
                shrink(bounce);
        if (room_of(bounce) < n)
                return error_set_reason(ENOMEM, "no_memory", "It has grown as far as it may");
        if (least > room_of(bounce))
                least = n;
        want = bounce->slots > least ? bounce->slots : least;
        if (want > room_of(bounce))
                want = room_of(bounce);
        for (;;) {
                r = lease_area(bounce, want, n);
                if (!r || !is_no_memory(r) || want <= least)
                        return r;
                want = want / 2 > least ? whole_pages(bounce, want / 2) : least;
        }
}

/* With the lock held. */
static int grow(struct bounce *bounce, size_t n) {
        unsigned shift = bounce->slot_shift;
        int r = bounce->number ? 0 : create(bounce);

        /* The daemon has made slots of another size: the caller has to count them anew. */
        if (r || bounce->slot_shift != shift)
                return r;
        if (!bounce->slots && n <= (bounce->size >> shift) / bounce->n_own)
                return lease_own(bounce, n);
        return lease_more(bounce, n);
}

int area_grow(struct bounce *bounce, size_t n, unsigned changes) {
        int r = 0;

        pthread_mutex_lock(&bounce->lock);
        if (bounce->changes == changes) {
                r = grow(bounce, n);
                __atomic_store_n(&bounce->changes, bounce->changes + !r, __ATOMIC_RELEASE);
        }
        pthread_mutex_unlock(&bounce->lock);
        return r;
}

/* ---- giving back ---- */

/* Called by the agent. */
static void recalled(struct watch *watch, uint64_t bytes) {
        struct bounce *bounce = (struct bounce *)((char *)watch - offsetof(struct bounce, watch));

        pthread_mutex_lock(&bounce->lock);
        shrink(bounce);
        pthread_mutex_unlock(&bounce->lock);
}

int area_sleep(struct bounce *bounce) {
        struct dmab *dmab = bounce->device->dmab;
        int r;

        if (__atomic_load_n(&dmab->agent, __ATOMIC_ACQUIRE))
                agent_unwatch(dmab->agent, &bounce->watch);
        pthread_mutex_lock(&bounce->lock);
        shrink(bounce);
        r = bounce->slots ? 1 : bounce->number ? destroy(bounce) : 0;
        /* What the daemon has forgotten is gone, too. */
        if (!r || r == -ESTALE || link_is_unknown(r))
                bounce->number = 0;
        else if (bounce->number)
                agent_watch(dmab->agent, &bounce->watch, bounce->number);
        pthread_mutex_unlock(&bounce->lock);
        return r;
}
