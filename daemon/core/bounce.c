/* Bounce pools: memory that a device can reach, in slots. A client copies through them what lies where its device cannot
 * reach it. Runs of slots are found with an arena over the parts: coherent allocations that the pool holds, the first from
 * the start, others on demand.
 *
 * Whoever asks for something waits in the pool's queue (wait.c), also whoever has the pool made. At most one part is being
 * fetched at any time, for the first in the queue; what is given back meanwhile serves the queue just the same. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

#define SLOT_SIZE 2048
/* No two mappings share a cache line. */
#define SLOT_SIZE_MIN 64
/* Parts that are fetched for one request: others may use them before it does. */
#define FETCHES_MAX 16
/* What is larger than this cannot be told to a client as a JSON number. */
#define SIZE_LIMIT (UINT64_C(1) << HANDLE_BITS)

struct part {
        struct part *idle_prev, *idle_next; /* in broker->idle_parts, while unused; not the first one */
        struct bounce *bounce;
        struct alloc *alloc;
        uint32_t index; /* in bounce->parts; the tag of its span */
        uint64_t taken; /* slots */
        bool rests;     /* slots of it rest while the pool ends */
        uint64_t idle_since_ms;
};

/* Slots that a vanished client had: a device may still write there. There is one for each run that is taken, made when
 * it is taken: giving back must not fail. */
struct rest {
        struct resting resting;
        struct rest *prev, *next; /* in bounce->resting, or by next in bounce->spare */
        struct bounce *bounce;
        uint64_t dma_addr, slots, since_ms;
};

struct bounce {
        struct holder holder;        /* unit: bytes of a slot */
        struct bounce *prev, *next;  /* in device->bounces */
        struct arena *arena;         /* by dma address; granule: a slot */
        struct part **parts;         /* by index; NULL: none */
        uint32_t parts_capacity;
        uint64_t n_parts;            /* 0: it is being made, and nobody can find it */
        uint64_t size;               /* bytes of all parts */
        uint64_t first_size, max_size;
        uint64_t first_alloc;        /* handle of the first part's allocation, as the ledger says */
        uint64_t areas;
        uint64_t used, leased, quarantined, high_water; /* slots */
        uint64_t n_mappings;
        struct rest *spare, *resting;
        uint64_t n_rests, n_taken; /* runs */
        uint64_t last_ask;
        struct ticket *fetch; /* of a part, while it is fetched */
        bool fetching;
        bool fetch_waits;     /* ... and it waits for memory to become free */
        bool fetch_least;     /* ... and less would not do */
        uint64_t fetch_for;   /* the ask that it was begun for */
        struct part *fetch_came; /* what came of it; until the ask is tried again */
        struct failure fetch_failure;
        uint64_t maps, unmaps, syncs, fulls, grows;
        uint64_t born_ms;
};

/* A run of slots, as somebody needs it. */
struct need {
        uint64_t size, offset; /* of a mapping: bytes; offset: of its start within the first slot */
        uint64_t slots;
        enum dma_direction direction;
};

/* What somebody asks of a pool. */
struct ask {
        struct waiter waiter;
        enum { ASK_CREATE, ASK_MAP, ASK_LEASE } kind;
        uint64_t id;           /* not reused by the pool */
        struct need need;
        unsigned begun;        /* parts that were fetched for it */
        unsigned failed;       /* 1: more than it needs was not to be had; 2: what it needs was not either */
        enum reason grow;      /* why not */
        bool full;             /* it has been counted */
        uint64_t handle;       /* the answer */
        broker_done_fn done;
        void *userdata;
};

static struct bounce *bounce_of(const struct holder *holder) {
        return (struct bounce *)holder;
}

static struct broker *broker_of(const struct bounce *bounce) {
        return bounce->holder.device->owner->broker;
}

/* The last byte that the device can be given both for streaming and at all. */
static uint64_t reach(const struct device *device) {
        return smaller(device->mask, device->coherent_mask);
}

/* Parts are whole slots and whole pages. */
static uint64_t part_unit(const struct bounce *bounce) {
        return larger(bounce->holder.unit, PAGE);
}

static uint64_t slots_of(const struct bounce *bounce) {
        return bounce->size / bounce->holder.unit;
}

/* ---- parts ---- */

static int parts_reserve(struct bounce *bounce, uint32_t from, uint32_t *ret_index) {
        struct part **parts;
        uint32_t i, capacity;

        for (i = from; i < bounce->parts_capacity; i++)
                if (!bounce->parts[i])
                        break;
        if (i == bounce->parts_capacity) {
                capacity = i ? 2 * i : 4;
                parts = realloc(bounce->parts, capacity * sizeof(*parts));
                if (!parts)
                        return -ENOMEM;
                memset(parts + i, 0, (capacity - i) * sizeof(*parts));
                bounce->parts = parts;
                bounce->parts_capacity = capacity;
        }
        *ret_index = i;
        return 0;
}

static void part_rest_begin(struct part *part) {
        struct broker *broker = broker_of(part->bounce);

        if (!part->index)
                return;
        part->idle_since_ms = now_ms(broker);
        DL_APPEND2(broker->idle_parts, part, idle_prev, idle_next);
}

static void part_rest_end(struct part *part) {
        if (part->index)
                DL_DELETE2(broker_of(part->bounce)->idle_parts, part, idle_prev, idle_next);
}

/* first: it is the one that the pool was made with. */
static int part_put(struct bounce *bounce, struct alloc *alloc, bool first, struct failure *failure) {
        struct part *part = calloc(1, sizeof(*part));
        uint32_t index = 0;
        int r = -ENOMEM;

        if (part)
                r = first && bounce->parts && !bounce->parts[0] ? 0 : parts_reserve(bounce, first ? 0 : 1, &index);
        if (r == 0)
                r = arena_add(bounce->arena, alloc_dma_addr(alloc), alloc_size(alloc), index);
        if (r < 0) {
                free(part);
                if (r == -ENOMEM)
                        return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
                return failure_set(failure, REASON_source_unavailable, "The translation of device %s gave an address that "
                                   "does not suit: 0x%llx", alloc->device->name, (unsigned long long)alloc_dma_addr(alloc));
        }
        *part = (struct part){ .bounce = bounce, .alloc = alloc, .index = index };
        bounce->parts[index] = part;
        bounce->size += alloc_size(alloc);
        bounce->grows += bounce->n_parts > 0;
        bounce->n_parts++;
        part_rest_begin(part);
        bounce->fetch_came = part;
        return 0;
}

static int part_add(struct bounce *bounce, struct alloc *alloc, struct failure *failure) {
        return part_put(bounce, alloc, !bounce->n_parts, failure);
}

/* Nothing of it is taken. */
static void part_free(struct part *part) {
        struct bounce *bounce = part->bounce;

        part_rest_end(part);
        if (bounce->fetch_came == part)
                bounce->fetch_came = NULL;
        arena_remove(bounce->arena, alloc_dma_addr(part->alloc), alloc_size(part->alloc));
        bounce->parts[part->index] = NULL;
        bounce->size -= alloc_size(part->alloc);
        bounce->n_parts--;
        if (part->rests)
                alloc_rest(part->alloc);
        else
                alloc_free(part->alloc);
        free(part);
}

static uint64_t part_idle_until(const struct broker *broker, const struct part *part) {
        uint64_t until = part->idle_since_ms + broker->options.region_idle_ms;

        return until < part->idle_since_ms ? UINT64_MAX : until;
}

static struct part *part_at(const struct bounce *bounce, uint64_t dma_addr) {
        struct arena_block block = {};
        bool is_free;

        arena_lookup(bounce->arena, dma_addr, &block, &is_free);
        return bounce->parts[block.tag];
}

/* ---- runs of slots ---- */

/* What is mapped must not cross the boundary, and a lease must leave room for whatever it could hold: a small one does not
 * cross it, a large one starts at it, as does a slot that is no smaller. */
static struct arena_request run_want(const struct bounce *bounce, const struct ask *ask) {
        const uint64_t boundary = bounce->holder.device->boundary, size = ask->need.slots * bounce->holder.unit;

        return (struct arena_request){
                .size = size,
                .align = size > boundary ? boundary : 0,
                .boundary = size > boundary ? 0 : boundary,
                .limit = reach(bounce->holder.device),
        };
}

static int rest_reserve(struct bounce *bounce) {
        struct rest *rest;

        if (bounce->n_taken < bounce->n_rests)
                return 0;
        rest = calloc(1, sizeof(*rest));
        if (!rest)
                return -ENOMEM;
        rest->bounce = bounce;
        LL_PREPEND(bounce->spare, rest);
        bounce->n_rests++;
        return 0;
}

/* -ENOSPC: there is no such run now. */
static int run_take(struct bounce *bounce, const struct ask *ask, struct arena_block *ret, struct failure *failure) {
        const struct arena_request want = run_want(bounce, ask);
        struct part *part;
        int r;

        r = rest_reserve(bounce);
        if (r == 0)
                r = arena_alloc(bounce->arena, &want, ret);
        if (r == -ENOMEM)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        if (r < 0)
                return -ENOSPC;
        part = bounce->parts[ret->tag];
        if (!part->taken)
                part_rest_end(part);
        part->taken += ask->need.slots;
        bounce->n_taken++;
        return 0;
}

static void run_free(struct bounce *bounce, uint64_t dma_addr, uint64_t slots) {
        struct arena_block merged;
        struct part *part;

        if (arena_release_at(bounce->arena, dma_addr, &merged) < 0)
                return;
        part = bounce->parts[merged.tag];
        part->taken -= slots;
        if (!part->taken)
                part_rest_begin(part);
        bounce->n_taken--;
        if (bounce->holder.waiters)
                holder_due(&bounce->holder);
}

/* By its machine address, which nothing else has. */
static uint64_t rest_addr(const struct rest *rest) {
        const struct alloc *alloc = part_at(rest->bounce, rest->dma_addr)->alloc;

        return alloc_addr_at(alloc, rest->dma_addr);
}

static void rest_tell(const struct rest *rest) {
        struct broker *broker = broker_of(rest->bounce);
        struct row_writer *row = book_begin(broker);

        if (!row)
                return;
        row_number(row, rest->bounce->holder.handle);
        row_number(row, rest->dma_addr);
        row_number(row, rest->slots);
        row_number(row, rest->resting.until_ms);
        row_number(row, rest->since_ms);
        book_end(broker, ROW_REST, rest_addr(rest));
}

/* There is one to spare. */
static struct rest *rest_begin(struct bounce *bounce, uint64_t dma_addr, uint64_t slots, uint64_t since_ms,
                               uint64_t until_ms) {
        struct rest *rest = bounce->spare;

        LL_DELETE(bounce->spare, rest);
        rest->dma_addr = dma_addr;
        rest->slots = slots;
        rest->since_ms = since_ms;
        quarantine_enter(broker_of(bounce), &rest->resting, RESTING_SLOTS, until_ms, slots * bounce->holder.unit);
        DL_APPEND(bounce->resting, rest);
        bounce->quarantined += slots;
        return rest;
}

static void run_return(struct bounce *bounce, uint64_t dma_addr, uint64_t slots, bool died) {
        const uint64_t now = now_ms(broker_of(bounce)), ms = died ? quarantine_ms(bounce->holder.device) : 0;

        if (ms && bounce->spare)
                rest_tell(rest_begin(bounce, dma_addr, slots, now, later(now, ms)));
        else
                run_free(bounce, dma_addr, slots);
}

static void rest_leave(struct rest *rest) {
        struct bounce *bounce = rest->bounce;

        book_drop(broker_of(bounce), ROW_REST, rest_addr(rest));
        quarantine_leave(broker_of(bounce), &rest->resting, rest->slots * bounce->holder.unit);
        DL_DELETE(bounce->resting, rest);
        bounce->quarantined -= rest->slots;
        LL_PREPEND(bounce->spare, rest);
}

static struct rest *rest_of(const struct resting *resting) {
        return (struct rest *)resting; /* its first member */
}

static struct owner *slots_owner(const struct resting *resting) {
        return rest_of(resting)->bounce->holder.device->owner;
}

static void slots_look(const struct resting *resting, struct quarantine_view *ret) {
        const struct rest *rest = rest_of(resting);
        const struct holder *holder = &rest->bounce->holder;
        const struct region *region = part_at(rest->bounce, rest->dma_addr)->alloc->region;

        ret->what = QUARANTINE_SLOTS;
        ret->owner = holder->device->owner->name;
        ret->device_name = holder->device->name;
        ret->bounce = holder->handle;
        ret->region = region->handle;
        ret->machine_addr = rest_addr(rest);
        ret->count = rest->slots;
        ret->bytes = rest->slots * holder->unit;
        ret->since_ms = rest->since_ms;
        ret->simulated = region->supply->info.flags & SOURCE_SIMULATED;
}

static bool slots_hold(const struct resting *resting, uint64_t machine_addr) {
        const struct rest *rest = rest_of(resting);
        const uint64_t start = rest_addr(rest);

        return machine_addr >= start && machine_addr - start < rest->slots * rest->bounce->holder.unit;
}

static void slots_end(struct resting *resting) {
        struct rest *rest = rest_of(resting);

        rest_leave(rest);
        run_free(rest->bounce, rest->dma_addr, rest->slots);
}

const struct resting_ops slots_resting_ops = {
        .owner = slots_owner, .look = slots_look, .holds = slots_hold, .end = slots_end,
};

static void high_water(struct bounce *bounce) {
        bounce->high_water = larger(bounce->high_water, bounce->used + bounce->leased);
}

void bounce_unmapped(const struct mapping *mapping, bool died) {
        struct bounce *bounce = bounce_of(mapping->holder);

        bounce->used -= mapping->slots;
        bounce->n_mappings--;
        bounce->unmaps++;
        run_return(bounce, mapping->dma_addr & ~(bounce->holder.unit - 1), mapping->slots, died);
}

void bounce_synced(struct holder *holder) {
        bounce_of(holder)->syncs++;
}

static void lease_ended(struct lease *lease, bool died) {
        struct bounce *bounce = bounce_of(lease->holder);

        bounce->leased -= lease->count;
        run_return(bounce, alloc_dma_at(lease->alloc, lease->addr), lease->count, died);
}

/* ---- why not ---- */

static void add_numbers(struct failure *failure, const struct bounce *bounce, const struct ask *ask) {
        struct arena_usage usage;

        arena_usage(bounce->arena, &usage);
        failure_add_number(failure, "bounce", bounce->holder.handle);
        failure_add_number(failure, "asked", ask->need.slots);
        failure_add_number(failure, "slots", slots_of(bounce));
        failure_add_number(failure, "in_use", slots_of(bounce) - usage.free_bytes / bounce->holder.unit);
        failure_add_number(failure, "largest_free", usage.largest_free / bounce->holder.unit);
        if (bounce->quarantined)
                failure_add_number(failure, "quarantined", bounce->quarantined);
}

static void explain_full(const struct bounce *bounce, struct ask *ask) {
        struct failure *failure = &ask->waiter.failure;
        const uint64_t unit = bounce->holder.unit;
        const bool capped = bounce->max_size && bounce->max_size < bounce->size + ask->need.slots * unit;
        struct arena_usage usage;
        const char *why;

        arena_usage(bounce->arena, &usage);
        why = usage.largest_free >= ask->need.slots * unit ? ": what is free does not suit the device's mask or boundary"
              : ask->grow                             ? ", and it could not grow"
              : capped                                ? ", and it has grown as far as it may"
                                                      : "";
        failure_set(failure, usage.free_bytes < ask->need.slots * unit ? REASON_no_memory : REASON_no_contiguous,
                    "Bounce pool %llu of device %s is full: a run of %llu slots was asked for, %llu of %llu slots are in use, "
                    "and the largest free run has %llu%s", (unsigned long long)bounce->holder.handle,
                    bounce->holder.device->name, (unsigned long long)ask->need.slots,
                    (unsigned long long)(slots_of(bounce) - usage.free_bytes / unit), (unsigned long long)slots_of(bounce),
                    (unsigned long long)(usage.largest_free / unit), why);
        add_numbers(failure, bounce, ask);
        if (ask->grow)
                failure_add_text(failure, "grow", reason_name(ask->grow));
}

static void ask_refuse(struct waiter *waiter, enum reason reason) {
        struct ask *ask = (struct ask *)waiter;
        const struct bounce *bounce = bounce_of(waiter->holder);
        const struct arena_request want = run_want(bounce, ask);
        struct failure *failure = &waiter->failure;
        struct arena_block block;

        if (reason == REASON_timeout && ask->kind == ASK_CREATE) {
                failure_set(failure, reason, "No memory became free for the bounce pool within %llu ms",
                            (unsigned long long)waiter->wait_ms);
                failure_add_number(failure, "asked", bounce->first_size);
                failure_add_number(failure, "wait_ms", waiter->wait_ms);
        } else if (reason == REASON_timeout) {
                failure_set(failure, reason, "No run of %llu slots became free in bounce pool %llu within %llu ms",
                            (unsigned long long)ask->need.slots, (unsigned long long)bounce->holder.handle,
                            (unsigned long long)waiter->wait_ms);
                add_numbers(failure, bounce, ask);
                failure_add_number(failure, "wait_ms", waiter->wait_ms);
        } else if (arena_find(bounce->arena, &want, &block) == 0) {
                failure_set(failure, reason, "Earlier requests wait for slots of bounce pool %llu; this one was told not to wait",
                            (unsigned long long)bounce->holder.handle);
                add_numbers(failure, bounce, ask);
        } else {
                explain_full(bounce, ask);
        }
}

/* ---- growing ---- */

static void fetched(void *userdata, const struct failure *failure, uint64_t handle) {
        struct bounce *bounce = userdata;
        struct alloc *alloc;

        bounce->fetching = false;
        bounce->fetch = NULL;
        if (failure) {
                bounce->fetch_failure = *failure;
        } else {
                bounce->fetch_failure.error = 0;
                alloc = handle_find(&broker_of(bounce)->handles, HANDLE_ALLOC, handle);
                if (alloc && part_add(bounce, alloc, &bounce->fetch_failure) < 0)
                        alloc_free(alloc);
        }
        holder_due(&bounce->holder);
}

static void fetch_end(struct bounce *bounce) {
        if (!bounce->fetching)
                return;
        request_withdraw(bounce->fetch);
        /* Others may want what it would have got. */
        broker_of(bounce)->serve_again = true;
        bounce->fetching = false;
        bounce->fetch = NULL;
}

/* The device's boundary must leave room for whatever run the part can hold: a small one does not cross it, a large one
 * starts at it. */
static struct arena_request part_want(const struct bounce *bounce, uint64_t size) {
        uint64_t boundary = bounce->holder.device->boundary;

        return (struct arena_request){
                .size = size,
                .align = larger(part_unit(bounce), size > boundary ? boundary : 0),
                .boundary = size > boundary ? 0 : boundary,
                .limit = reach(bounce->holder.device),
        };
}

/* Only while answers are being given: then nothing but a refusal comes before this returns. */
static void fetch_begin(struct bounce *bounce, struct ask *ask, uint64_t size, bool least) {
        const struct arena_request want = part_want(bounce, size);
        uint64_t now = now_ms(broker_of(bounce)), wait_ms = 0;

        if (least && ask->waiter.wait_ms)
                wait_ms = ask->waiter.deadline_ms > now ? ask->waiter.deadline_ms - now : 1;
        bounce->fetching = true;
        bounce->fetch_waits = wait_ms > 0;
        bounce->fetch_least = least;
        bounce->fetch_for = ask->id;
        ask->begun++;
        bounce->fetch = alloc_for_holder(&bounce->holder, &want, wait_ms, ask->waiter.high, fetched, bounce);
}

static bool part_is_spare(const struct part *part) {
        return part && part->index && !part->taken;
}

/* Parts that nothing uses make room below max_size for one that is large enough; but not in vain, since somebody else may
 * be about to use them. */
static void make_room(struct bounce *bounce, uint64_t needed) {
        uint64_t spare = 0;
        uint32_t i;

        for (i = 0; i < bounce->parts_capacity; i++)
                if (part_is_spare(bounce->parts[i]))
                        spare += alloc_size(bounce->parts[i]->alloc);
        if (bounce->size - spare + needed > bounce->max_size)
                return;
        for (i = 0; i < bounce->parts_capacity && bounce->size + needed > bounce->max_size; i++)
                if (part_is_spare(bounce->parts[i]))
                        part_free(bounce->parts[i]);
}

/* As much as the pool had at first is asked for; if there is not so much, what is needed. 0: it does not grow. */
static uint64_t fetch_size(struct bounce *bounce, const struct ask *ask, bool *ret_least) {
        uint64_t needed = round_up(ask->need.slots * bounce->holder.unit, part_unit(bounce)), room;

        *ret_least = true;
        if (ask->kind == ASK_CREATE)
                return ask->failed ? 0 : bounce->first_size;
        if (bounce->max_size < bounce->size + needed)
                make_room(bounce, needed);
        room = bounce->max_size > bounce->size ? bounce->max_size - bounce->size : 0;
        if (room < needed || ask->failed > 1 || ask->begun >= FETCHES_MAX)
                return 0;
        if (ask->failed || smaller(bounce->first_size, room) <= needed)
                return needed;
        *ret_least = false;
        return smaller(bounce->first_size, room);
}

/* No run suits: WAITER_*, or -errno when it is no use to wait. */
static int ask_fetch(struct bounce *bounce, struct ask *ask) {
        struct failure *failure = &ask->waiter.failure;
        uint64_t size;
        bool least;

        while (!bounce->fetching) {
                if (bounce->fetch_failure.error && bounce->fetch_for == ask->id) {
                        ask->failed += bounce->fetch_least ? 2 : 1;
                        ask->grow = bounce->fetch_failure.reason;
                        *failure = bounce->fetch_failure;
                }
                /* It came, nobody has used it, and yet it does not suit: another would not either. */
                if (bounce->fetch_came && bounce->fetch_for == ask->id && !bounce->fetch_came->taken)
                        ask->failed = 2;
                bounce->fetch_failure.error = 0;
                bounce->fetch_came = NULL;
                size = fetch_size(bounce, ask, &least);
                if (!size)
                        break;
                fetch_begin(bounce, ask, size, least);
        }
        if (bounce->fetching && (!bounce->fetch_waits || ask->waiter.wait_ms))
                return WAITER_FETCHING;
        if (ask->kind == ASK_CREATE)
                return -failure->error;
        return WAITER_BLOCKED;
}

/* ---- serving ---- */

static int give_mapping(struct bounce *bounce, struct ask *ask, const struct arena_block *run) {
        const struct part *part = bounce->parts[run->tag];
        struct mapping *mapping;
        int r;

        r = mapping_new(&(struct mapping){
                                .session = ask->waiter.session,
                                .device = bounce->holder.device,
                                .holder = &bounce->holder,
                                .alloc = part->alloc,
                                .addr = alloc_addr_at(part->alloc, run->addr) + ask->need.offset,
                                .dma_addr = run->addr + ask->need.offset,
                                .size = ask->need.size,
                                .slots = ask->need.slots,
                                .direction = ask->need.direction,
                                .key = ask->waiter.key,
                        },
                        &mapping, &ask->waiter.failure);
        if (r < 0)
                return r;
        ask->handle = mapping->handle;
        bounce->n_mappings++;
        bounce->maps++;
        bounce->used += ask->need.slots;
        return 0;
}

static int give_lease(struct bounce *bounce, struct ask *ask, const struct arena_block *run) {
        const struct part *part = bounce->parts[run->tag];
        struct lease *lease;
        int r;

        r = lease_new(ask->waiter.session, &bounce->holder, part->alloc, alloc_addr_at(part->alloc, run->addr),
                      ask->need.slots, ask->waiter.key, &lease, &ask->waiter.failure);
        if (r < 0)
                return r;
        ask->handle = lease->handle;
        bounce->leased += ask->need.slots;
        return 0;
}

static int ask_give(struct bounce *bounce, struct ask *ask, const struct arena_block *run) {
        int r;

        r = ask->kind == ASK_MAP ? give_mapping(bounce, ask, run) : give_lease(bounce, ask, run);
        if (r < 0) {
                run_free(bounce, run->addr, ask->need.slots);
                return r;
        }
        ask->waiter.key = NULL;
        high_water(bounce);
        return 0;
}

static int serve_create(struct bounce *bounce, struct ask *ask) {
        if (!bounce->n_parts)
                return ask_fetch(bounce, ask);
        ask->handle = bounce->holder.handle;
        book_note(broker_of(bounce), ROW_BOUNCE, bounce->holder.handle);
        bounce->holder.key = ask->waiter.key;
        if (bounce->holder.key)
                bounce->holder.key->handle = ask->handle;
        ask->waiter.key = NULL;
        return 0;
}

static int ask_serve(struct waiter *waiter) {
        struct bounce *bounce = bounce_of(waiter->holder);
        struct ask *ask = (struct ask *)waiter;
        struct arena_block run;
        int r;

        if (ask->kind == ASK_CREATE)
                return serve_create(bounce, ask);
        r = run_take(bounce, ask, &run, &waiter->failure);
        if (r == 0)
                return ask_give(bounce, ask, &run);
        if (r != -ENOSPC)
                return r;
        bounce->fulls += !ask->full;
        ask->full = true;
        r = ask_fetch(bounce, ask);
        if (r != WAITER_BLOCKED)
                return r;
        explain_full(bounce, ask);
        holder_recall(&bounce->holder, ask->need.slots * bounce->holder.unit);
        /* Nothing that could be given back. */
        return bounce->n_taken ? r : -waiter->failure.error;
}

static void ask_tell(struct waiter *waiter) {
        static const enum handle_kind kinds[] = {
                [ASK_CREATE] = HANDLE_BOUNCE, [ASK_MAP] = HANDLE_MAPPING, [ASK_LEASE] = HANDLE_LEASE,
        };
        struct ask *ask = (struct ask *)waiter;

        /* Another answer may have ended it. */
        if (!waiter->failure.error && !handle_find(&waiter->broker->handles, kinds[ask->kind], ask->handle))
                failure_set(&waiter->failure, REASON_gone, "What was asked for has ended already");
        ask->done(ask->userdata, waiter->failure.error ? &waiter->failure : NULL, waiter->failure.error ? 0 : ask->handle);
}

static void bounce_end(struct bounce *bounce);

static void ask_undo(struct waiter *waiter) {
        const struct handle_table *handles = &waiter->broker->handles;
        struct ask *ask = (struct ask *)waiter;
        struct mapping *mapping = handle_find(handles, HANDLE_MAPPING, ask->handle);
        struct lease *lease = handle_find(handles, HANDLE_LEASE, ask->handle);
        struct bounce *bounce = handle_find(handles, HANDLE_BOUNCE, ask->handle);

        if (ask->kind == ASK_MAP && mapping)
                mapping_end(mapping, false);
        if (ask->kind == ASK_LEASE && lease)
                lease_end(lease, false);
        if (ask->kind == ASK_CREATE && bounce)
                bounce_end(bounce);
}

static void nobody_waits(struct holder *holder) {
        struct bounce *bounce = bounce_of(holder);

        fetch_end(bounce);
        bounce->fetch_failure.error = 0;
        if (!bounce->n_parts)
                bounce_end(bounce);
}

static const struct holder_ops ask_ops = {
        .serve = ask_serve,
        .refuse = ask_refuse,
        .tell = ask_tell,
        .undo = ask_undo,
        .nobody_waits = nobody_waits,
};

/* ---- making and ending ---- */

static void bounce_enter(struct bounce *bounce) {
        struct device *device = bounce->holder.device;

        DL_APPEND(device->bounces, bounce);
        device->n_bounces++;
        device_charge(device, QUOTA_pools, 1);
        device->owner->broker->counts.bounces++;
}

static int bounce_new(struct device *device, const struct bounce_options *options, struct bounce **ret,
                      struct failure *failure) {
        struct broker *broker = device->owner->broker;
        struct bounce *bounce = calloc(1, sizeof(*bounce));
        uint64_t unit;

        if (!bounce)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        bounce->holder = (struct holder){
                .kind = HOLDER_BOUNCE,
                .device = device,
                .unit = larger(options->slot_size ? options->slot_size : SLOT_SIZE, device->min_align_mask + 1),
                .lease_ended = lease_ended,
                .ops = &ask_ops,
        };
        unit = part_unit(bounce);
        bounce->first_size = round_up(options->size, unit);
        bounce->max_size = options->max_size ? round_up(options->max_size, unit) : 0;
        bounce->areas = options->areas ? options->areas : 1;
        bounce->born_ms = now_ms(broker);
        if (arena_new(bounce->holder.unit, &bounce->arena) < 0 ||
            handle_new(&broker->handles, HANDLE_BOUNCE, bounce, &bounce->holder.handle) < 0) {
                arena_free(bounce->arena);
                free(bounce);
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        bounce_enter(bounce);
        *ret = bounce;
        return 0;
}

/* Nothing of it is taken, and nobody waits. */
static void bounce_free(struct bounce *bounce) {
        struct device *device = bounce->holder.device;
        struct owner *owner = device->owner;
        struct rest *rest, *next;
        uint32_t i;

        for (i = 0; i < bounce->parts_capacity; i++)
                if (bounce->parts[i])
                        part_free(bounce->parts[i]);
        LL_FOREACH_SAFE(bounce->spare, rest, next)
                free(rest);
        DL_DELETE(device->bounces, bounce);
        device->n_bounces--;
        device_discharge(device, QUOTA_pools, 1);
        owner->broker->counts.bounces--;
        key_forget(owner, bounce->holder.key);
        handle_release(&owner->broker->handles, bounce->holder.handle, owner->id);
        book_note(owner->broker, ROW_BOUNCE, bounce->holder.handle);
        arena_free(bounce->arena);
        free(bounce->parts);
        free(bounce);
        device_forget(device);
}

static void tell_leak(const struct bounce *bounce) {
        const struct device *device = bounce->holder.device;
        struct event event = {
                .topic = EVENT_LEAK,
                .owner = device->owner->name,
                .bounce = bounce->holder.handle,
                .device = device->handle,
                .name = device->name,
                .count = bounce->n_mappings + bounce->holder.n_leases,
                .bytes = (bounce->used + bounce->leased) * bounce->holder.unit,
        };

        if (event.count)
                event_tell(device->owner->broker, &event);
}

static void bounce_end(struct bounce *bounce) {
        struct mapping *mapping, *next;

        tell_leak(bounce);
        waiters_end(&bounce->holder);
        fetch_end(bounce);
        for (mapping = bounce->n_mappings ? bounce->holder.device->mappings : NULL; mapping; mapping = next) {
                next = mapping->device_next;
                if (mapping->holder == &bounce->holder)
                        mapping_end(mapping, false);
        }
        while (bounce->holder.leases)
                lease_end(bounce->holder.leases, false);
        while (bounce->resting) {
                part_at(bounce, bounce->resting->dma_addr)->rests = true;
                slots_end(&bounce->resting->resting);
        }
        bounce_free(bounce);
}

void bounces_end(struct device *device) {
        while (device->bounces)
                bounce_end(device->bounces);
}

/* The id of another session that has slots of it; 0: there is none. */
static uint32_t other_user(const struct bounce *bounce, const struct session *session) {
        const struct mapping *mapping;
        const struct lease *lease;

        DL_FOREACH2(bounce->holder.leases, lease, holder_next)
                if (lease->session != session)
                        return lease->session->id;
        DL_FOREACH2(bounce->n_mappings ? bounce->holder.device->mappings : NULL, mapping, device_next)
                if (mapping->holder == &bounce->holder && mapping->session != session)
                        return mapping->session->id;
        return 0;
}

void bounces_leave(struct device *device, const struct session *session) {
        struct bounce *bounce, *next;

        DL_FOREACH_SAFE(device->bounces, bounce, next) {
                if (bounce->holder.maker != session->id)
                        continue;
                bounce->holder.maker = other_user(bounce, session);
                book_note(broker_of(bounce), ROW_BOUNCE, bounce->holder.handle);
                if (!bounce->holder.maker)
                        bounce_end(bounce);
        }
}

/* ---- the ledger ---- */

bool bounce_is_made(const struct bounce *bounce) {
        return bounce->n_parts > 0;
}

void bounce_save(struct row_writer *row, const struct bounce *bounce) {
        const struct holder *holder = &bounce->holder;

        row_number(row, holder->device->handle);
        row_number(row, holder->maker);
        row_number(row, holder->unit);
        row_number(row, bounce->first_size);
        row_number(row, bounce->max_size);
        row_number(row, bounce->areas);
        row_number(row, bounce->parts[0]->alloc->handle);
        row_number(row, bounce->born_ms);
        row_key(row, holder->key);
}

void bounce_save_rests(struct bounce *bounce) {
        const struct rest *rest;

        DL_FOREACH(bounce->resting, rest)
                rest_tell(rest);
}

static int bounce_read(struct load *load, struct bounce *bounce) {
        bounce->holder.device = load_object(load, HANDLE_DEVICE);
        bounce->holder.maker = (uint32_t)row_read_number(&load->row);
        bounce->holder.unit = row_read_number(&load->row);
        bounce->first_size = row_read_number(&load->row);
        bounce->max_size = row_read_number(&load->row);
        bounce->areas = row_read_number(&load->row);
        bounce->first_alloc = row_read_number(&load->row);
        bounce->born_ms = row_read_number(&load->row);
        if (!bounce->holder.device)
                return -ENOENT;
        if (load->row.failed || !power_of_two(bounce->holder.unit) || !bounce->areas)
                return -EBADMSG;
        bounce->parts = calloc(4, sizeof(*bounce->parts));
        if (!bounce->parts || arena_new(bounce->holder.unit, &bounce->arena) < 0)
                return -ENOMEM;
        bounce->parts_capacity = 4;
        return handle_restore(&load->broker->handles, HANDLE_BOUNCE, bounce, load->id);
}

int bounce_load(struct load *load) {
        struct bounce *bounce = calloc(1, sizeof(*bounce));
        int r;

        if (!bounce)
                return -ENOMEM;
        r = bounce_read(load, bounce);
        if (r < 0) {
                arena_free(bounce->arena);
                free(bounce->parts);
                free(bounce);
                return r;
        }
        bounce->holder.kind = HOLDER_BOUNCE;
        bounce->holder.ops = &ask_ops;
        bounce->holder.lease_ended = lease_ended;
        bounce->holder.handle = load->id;
        bounce->holder.key = load_key(load, bounce->holder.device->owner, HANDLE_BOUNCE);
        bounce_enter(bounce);
        return 0;
}

int bounce_load_part(struct bounce *bounce, struct alloc *alloc) {
        struct failure failure = {};
        int r;

        r = part_put(bounce, alloc, alloc->handle == bounce->first_alloc, &failure);
        bounce->fetch_came = NULL;
        return r < 0 && failure.reason != REASON_no_memory ? -EBADMSG : r;
}

/* -EBADMSG: there is no such run, or somebody has it. */
static int run_restore(struct bounce *bounce, uint64_t dma_addr, uint64_t slots) {
        struct arena_block block;
        struct part *part;
        int r;

        if (!slots || slots > slots_of(bounce))
                return -EBADMSG;
        r = rest_reserve(bounce);
        if (r == 0)
                r = arena_alloc_at(bounce->arena, dma_addr, slots * bounce->holder.unit, &block);
        if (r < 0)
                return r == -ENOMEM ? r : -EBADMSG;
        part = bounce->parts[block.tag];
        if (!part->taken)
                part_rest_end(part);
        part->taken += slots;
        bounce->n_taken++;
        return 0;
}

int bounce_load_lease(struct lease *lease) {
        struct bounce *bounce = bounce_of(lease->holder);
        int r;

        r = run_restore(bounce, alloc_dma_at(lease->alloc, lease->addr), lease->count);
        if (r < 0)
                return r;
        bounce->leased += lease->count;
        high_water(bounce);
        return 0;
}

int bounce_load_mapping(struct mapping *mapping) {
        struct bounce *bounce = bounce_of(mapping->holder);
        int r;

        r = run_restore(bounce, mapping->dma_addr & ~(bounce->holder.unit - 1), mapping->slots);
        if (r < 0)
                return r;
        bounce->n_mappings++;
        bounce->used += mapping->slots;
        high_water(bounce);
        return 0;
}

int rest_load(struct load *load) {
        struct bounce *bounce = load_object(load, HANDLE_BOUNCE);
        uint64_t dma_addr = row_read_number(&load->row), slots = row_read_number(&load->row);
        uint64_t until_ms = row_read_number(&load->row), since_ms = row_read_number(&load->row);
        int r;

        if (!bounce)
                return -ENOENT;
        r = run_restore(bounce, dma_addr, slots);
        if (r < 0)
                return r;
        rest_begin(bounce, dma_addr, slots, since_ms, until_ms);
        return 0;
}

/* One that has lost the part that it was made with is none any more. */
void bounces_loaded(struct device *device) {
        struct bounce *bounce, *next;

        DL_FOREACH_SAFE(device->bounces, bounce, next)
                if (!bounce->parts[0])
                        bounce_end(bounce);
}

/* ---- the clock, and when memory is short ---- */

void bounces_tick(struct broker *broker, uint64_t now) {
        struct part *part;

        while ((part = broker->idle_parts) && part_idle_until(broker, part) <= now)
                part_free(part);
}

uint64_t bounces_deadline(const struct broker *broker) {
        return broker->idle_parts ? part_idle_until(broker, broker->idle_parts) : UINT64_MAX;
}

bool bounces_reclaim(struct broker *broker, const struct request *request) {
        struct part *part, *next;
        struct region *region;
        bool any = false;

        DL_FOREACH_SAFE2(broker->idle_parts, part, next, idle_next) {
                region = part->alloc->region;
                if (region->device != request_reserve(request) || region->addr > request->want.limit ||
                    region->addr + region->size <= request->want.floor)
                        continue;
                part_free(part);
                any = true;
        }
        return any;
}

bool bounces_trim(struct broker *broker) {
        struct part *part, *next;
        bool any = false;

        DL_FOREACH_SAFE2(broker->idle_parts, part, next, idle_next) {
                if (part->alloc->region->device)
                        continue;
                part_free(part);
                any = true;
        }
        return any;
}

/* ---- asking ---- */

static int bad_param(struct failure *failure, const char *param, const char *sentence) {
        failure_set(failure, REASON_bad_param, "%s", sentence);
        failure_add_text(failure, "param", param);
        return -EINVAL;
}

static int too_large(struct failure *failure, const char *what, uint64_t asked, uint64_t limit) {
        failure_set(failure, REASON_limit, "%s: %llu, and the most is %llu", what, (unsigned long long)asked,
                    (unsigned long long)limit);
        failure_add_number(failure, "asked", asked);
        failure_add_number(failure, "limit", limit);
        return -reason_errno(REASON_limit);
}

static int options_check(const struct device *device, const struct bounce_options *options, struct failure *failure) {
        uint64_t slot;
        int r;

        if (!options->size)
                return bad_param(failure, "size", "A bounce pool needs a size above zero");
        r = power_check(options->slot_size, "slot_size", REASON_bad_param, failure);
        if (r < 0)
                return r;
        if (options->slot_size && options->slot_size < SLOT_SIZE_MIN)
                return bad_param(failure, "slot_size", "A slot has at least 64 bytes: no two mappings share a cache line");
        slot = larger(larger(options->slot_size, SLOT_SIZE_MIN), device->min_align_mask + 1);
        if (larger(options->size, larger(options->max_size, slot)) > SIZE_LIMIT)
                return too_large(failure, "Larger than a bounce pool can be, in bytes",
                                 larger(options->size, larger(options->max_size, slot)), SIZE_LIMIT);
        if (options->max_size && options->max_size < options->size)
                return bad_param(failure, "max_size", "A bounce pool cannot grow to less than its size");
        slot = larger(options->slot_size ? options->slot_size : SLOT_SIZE, device->min_align_mask + 1);
        if (options->areas > round_up(options->size, larger(slot, PAGE)) / slot)
                return bad_param(failure, "areas", "An area has at least one slot");
        return 0;
}

static struct ask *ask_new(struct bounce *bounce, int kind, struct session *session, uint64_t wait_ms, bool high,
                           broker_done_fn done, void *userdata, struct failure *failure) {
        struct ask *ask = waiter_new(sizeof(*ask), session, &bounce->holder, wait_ms, high, failure);

        if (!ask)
                return NULL;
        ask->kind = kind;
        ask->id = ++bounce->last_ask;
        ask->done = done;
        ask->userdata = userdata;
        return ask;
}

static struct ticket *refuse(struct owner *owner, struct request_key *key, const struct failure *failure,
                             broker_done_fn done, void *userdata) {
        key_forget(owner, key);
        done(userdata, failure, 0);
        return NULL;
}

struct ticket *bounce_create(const struct caller *caller, const struct bounce_options *options, broker_done_fn done,
                             void *userdata) {
        struct owner *owner = caller->session->owner;
        struct request_key *key = NULL;
        struct failure failure = {};
        struct bounce *bounce = NULL;
        struct device *device;
        struct ask *ask;
        int r;

        device = device_of(caller, options->device, &failure);
        r = device ? options_check(device, options, &failure) : -ENOENT;
        if (r == 0)
                r = key_begin(owner, options->request_key, HANDLE_BOUNCE, options->request_digest, &key, &failure);
        if (r == 1) {
                done(userdata, NULL, key->handle);
                return NULL;
        }
        if (r == 0)
                r = device_check(device, QUOTA_pools, 1, &failure);
        if (r == 0)
                r = bounce_new(device, options, &bounce, &failure);
        if (r < 0)
                return refuse(owner, key, &failure, done, userdata);
        bounce->holder.maker = caller->session->id;
        ask = ask_new(bounce, ASK_CREATE, caller->session, options->wait_ms, options->high, done, userdata, &failure);
        if (!ask) {
                bounce_free(bounce);
                return refuse(owner, key, &failure, done, userdata);
        }
        ask->waiter.key = key;
        return waiter_submit(&ask->waiter);
}

static int bounce_find(const struct caller *caller, uint64_t handle, struct bounce **ret, struct failure *failure) {
        struct bounce *bounce = handle_find(&caller->session->owner->broker->handles, HANDLE_BOUNCE, handle);

        if (!bounce || !bounce->n_parts || (bounce->holder.device->owner != caller->session->owner && !caller->admin))
                return handle_not_found(caller, HANDLE_BOUNCE, handle, failure);
        *ret = bounce;
        return 0;
}

/* Slots of the largest run that there can ever be. */
static uint64_t most_slots(const struct bounce *bounce) {
        uint64_t most = bounce->first_size;

        if (bounce->max_size > bounce->first_size)
                most = larger(most, bounce->max_size - bounce->first_size);
        return most / bounce->holder.unit;
}

/* What of a request can be told before anything is looked for. */
static int request_check(const struct bounce *bounce, const struct bounce_request *request, struct need *ret,
                         struct failure *failure) {
        const struct device *device = bounce->holder.device;
        const uint64_t unit = bounce->holder.unit;

        if ((unsigned)request->direction > DMA_BIDIRECTIONAL)
                return bad_param(failure, "direction", "There is no such direction");
        if (!request->size)
                return bad_param(failure, "size", "A mapping needs a size above zero");
        if (request->size > SIZE_LIMIT)
                return too_large(failure, "Larger than a mapping can be, in bytes", request->size, SIZE_LIMIT);
        if (device->max_segment && request->size > device->max_segment)
                return too_large(failure, "Larger than a segment of the device, in bytes", request->size, device->max_segment);
        ret->offset = request->align_offset & device->min_align_mask;
        ret->size = request->size;
        ret->direction = request->direction;
        ret->slots = (ret->offset + ret->size + unit - 1) / unit;
        if (!device->boundary || ret->offset + ret->size <= device->boundary)
                return 0;
        failure_set(failure, REASON_boundary, "%llu bytes that begin at %llu of a slot cannot lie between two boundaries of %llu",
                    (unsigned long long)ret->size, (unsigned long long)ret->offset, (unsigned long long)device->boundary);
        failure_add_number(failure, "asked", ret->size);
        failure_add_number(failure, "boundary", device->boundary);
        return -reason_errno(REASON_boundary);
}

/* kind: ASK_MAP or ASK_LEASE. */
static struct ticket *ask_submit(const struct caller *caller, const struct bounce_request *request, int kind,
                                 broker_done_fn done, void *userdata) {
        struct owner *owner = caller->session->owner;
        struct request_key *key = NULL;
        struct failure failure = {};
        struct bounce *bounce = NULL;
        struct need need = {};
        struct ask *ask;
        int r;

        r = bounce_find(&(struct caller){ .session = caller->session }, request->bounce, &bounce, &failure);
        if (r == 0 && kind == ASK_MAP)
                r = request_check(bounce, request, &need, &failure);
        else if (r == 0)
                need.slots = request->size ? request->size : larger(bounce->first_size / bounce->holder.unit / bounce->areas, 1);
        if (r == 0 && need.slots > most_slots(bounce))
                r = too_large(&failure, "More slots than the pool can ever have in one run", need.slots, most_slots(bounce));
        if (r == 0)
                r = key_begin(owner, request->request_key, kind == ASK_MAP ? HANDLE_MAPPING : HANDLE_LEASE,
                              request->request_digest, &key, &failure);
        if (r == 1) {
                done(userdata, NULL, key->handle);
                return NULL;
        }
        if (r == 0)
                r = device_check(bounce->holder.device, kind == ASK_MAP ? QUOTA_mappings : QUOTA_leases, 1, &failure);
        if (r < 0)
                return refuse(owner, key, &failure, done, userdata);
        ask = ask_new(bounce, kind, caller->session, request->wait_ms, request->high, done, userdata, &failure);
        if (!ask)
                return refuse(owner, key, &failure, done, userdata);
        ask->need = need;
        ask->waiter.key = key;
        return waiter_submit(&ask->waiter);
}

struct ticket *bounce_map(const struct caller *caller, const struct bounce_request *request, broker_done_fn done,
                          void *userdata) {
        return ask_submit(caller, request, ASK_MAP, done, userdata);
}

struct ticket *bounce_lease(const struct caller *caller, const struct bounce_request *request, broker_done_fn done,
                            void *userdata) {
        return ask_submit(caller, request, ASK_LEASE, done, userdata);
}

/* ---- the outside's view ---- */

static void bounce_look(const struct bounce *bounce, struct bounce_view *ret) {
        const struct holder *holder = &bounce->holder;
        const struct alloc *alloc = bounce->parts[0]->alloc;
        struct arena_usage usage;

        arena_usage(bounce->arena, &usage);
        *ret = (struct bounce_view){
                .handle = holder->handle,
                .device = holder->device->handle,
                .owner = holder->device->owner->name,
                .device_name = holder->device->name,
                .region = alloc->region->handle,
                .offset = alloc_addr(alloc) - alloc->region->addr,
                .dma_addr = alloc_dma_addr(alloc),
                .machine_addr = alloc_addr(alloc),
                .size = bounce->size,
                .max_size = bounce->max_size,
                .slot_size = holder->unit,
                .areas = bounce->areas,
                .slots = slots_of(bounce),
                .free = usage.free_bytes / holder->unit,
                .used = bounce->used,
                .leased = bounce->leased,
                .quarantined = bounce->quarantined,
                .largest_free = usage.largest_free / holder->unit,
                .high_water = bounce->high_water,
                .parts = bounce->n_parts,
                .leases = holder->n_leases,
                .waiters = holder->n_waiters,
                .maps = bounce->maps,
                .unmaps = bounce->unmaps,
                .syncs = bounce->syncs,
                .fulls = bounce->fulls,
                .waits = holder->waits,
                .timeouts = holder->timeouts,
                .grows = bounce->grows,
                .recalls = holder->recalls,
                .age_ms = now_ms(broker_of(bounce)) - bounce->born_ms,
                .simulated = alloc->region->supply->info.flags & SOURCE_SIMULATED,
        };
}

int bounce_get(const struct caller *caller, uint64_t handle, struct bounce_view *ret, struct failure *failure) {
        struct bounce *bounce = NULL;
        int r;

        r = bounce_find(caller, handle, &bounce, failure);
        if (r == 0)
                bounce_look(bounce, ret);
        return r;
}

int bounce_visit(const struct caller *caller, uint64_t device, const char *name, uint64_t after, bounce_visit_fn visit,
                 void *userdata, struct failure *failure) {
        struct selection selection;
        struct bounce_view view;
        struct bounce *bounce;
        int r;

        r = selection_begin(&selection, caller, name, device, after, failure);
        if (r < 0)
                return r;
        while ((bounce = selection_next(&selection, HANDLE_BOUNCE))) {
                if (!bounce->n_parts || !selection_has(&selection, bounce->holder.device->owner, bounce->holder.device))
                        continue;
                bounce_look(bounce, &view);
                if (visit(&view, userdata))
                        break;
        }
        return 0;
}

/* A lease as if it were a mapping. */
static void lease_as_mapping(const struct bounce *bounce, const struct lease *lease, struct mapping_view *ret) {
        mapping_look(&(struct mapping){
                             .session = lease->session,
                             .device = bounce->holder.device,
                             .holder = lease->holder,
                             .alloc = lease->alloc,
                             .addr = lease->addr,
                             .dma_addr = alloc_dma_at(lease->alloc, lease->addr),
                             .size = lease->count * bounce->holder.unit,
                             .slots = lease->count,
                             .direction = DMA_BIDIRECTIONAL,
                             .born_ms = lease->born_ms,
                     },
                     ret);
        ret->lease = lease->handle;
}

static void report(const struct bounce *bounce, mapping_visit_fn visit, void *userdata) {
        struct mapping_view view;
        struct mapping *mapping;
        struct lease *lease;

        for (mapping = bounce->holder.device->mappings; mapping; mapping = mapping->device_next) {
                if (mapping->holder != &bounce->holder)
                        continue;
                mapping_look(mapping, &view);
                if (visit(&view, userdata))
                        return;
        }
        for (lease = bounce->holder.leases; lease; lease = lease->holder_next) {
                lease_as_mapping(bounce, lease, &view);
                if (visit(&view, userdata))
                        return;
        }
}

int bounce_destroy(const struct caller *caller, uint64_t handle, bool force, mapping_visit_fn visit, void *userdata,
                   struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct bounce *bounce = NULL;
        int r;

        r = bounce_find(caller, handle, &bounce, failure);
        if (r < 0)
                return r;
        report(bounce, visit, userdata);
        if ((bounce->n_mappings || bounce->holder.n_leases) && !force) {
                failure_set(failure, REASON_busy, "Bounce pool %llu still has %llu mappings and %llu leases",
                            (unsigned long long)handle, (unsigned long long)bounce->n_mappings,
                            (unsigned long long)bounce->holder.n_leases);
                failure_add_number(failure, "bounce", handle);
                failure_add_number(failure, "mappings", bounce->n_mappings);
                failure_add_number(failure, "leases", bounce->holder.n_leases);
                return -reason_errno(REASON_busy);
        }
        bounce_end(bounce);
        requests_serve(broker);
        return 0;
}

/* ---- the books ---- */

static void check_run(struct check *check, const struct bounce *bounce, uint64_t dma_addr, uint64_t slots) {
        struct arena_block block;
        bool is_free;

        if (arena_lookup(bounce->arena, dma_addr, &block, &is_free) < 0 || is_free || block.addr != dma_addr ||
            block.size != slots * bounce->holder.unit)
                check_complain(check, "bounce", bounce->holder.handle, "Its slots do not know of 0x%llx",
                               (unsigned long long)dma_addr);
}

static void check_parts(struct check *check, const struct bounce *bounce) {
        uint64_t n = 0, size = 0, taken = 0;
        const struct part *part;
        uint32_t i;

        for (i = 0; i < bounce->parts_capacity; i++) {
                part = bounce->parts[i];
                if (!part)
                        continue;
                n++;
                size += alloc_size(part->alloc);
                taken += part->taken;
                if (!(part->alloc->flags & ALLOC_HELD) || part->alloc->holder != &bounce->holder)
                        check_complain(check, "bounce", bounce->holder.handle, "Allocation %llu is not its own",
                                       (unsigned long long)part->alloc->handle);
        }
        check_equal(check, "bounce", bounce->holder.handle, "parts", bounce->n_parts, n);
        check_equal(check, "bounce", bounce->holder.handle, "size", bounce->size, size);
        check_equal(check, "bounce", bounce->holder.handle, "taken slots", taken,
                    bounce->used + bounce->leased + bounce->quarantined);
}

static void check_runs(struct check *check, const struct bounce *bounce) {
        uint64_t n = 0, used = 0, leased = 0, resting = 0, handle = bounce->holder.handle;
        const struct mapping *mapping;
        struct arena_usage usage;
        const struct lease *lease;
        const struct rest *rest;

        for (mapping = bounce->holder.device->mappings; mapping; mapping = mapping->device_next) {
                if (mapping->holder != &bounce->holder)
                        continue;
                n++;
                used += mapping->slots;
                check_run(check, bounce, mapping->dma_addr & ~(bounce->holder.unit - 1), mapping->slots);
        }
        check_equal(check, "bounce", handle, "mappings", bounce->n_mappings, n);
        for (n = 0, lease = bounce->holder.leases; lease; lease = lease->holder_next, n++) {
                leased += lease->count;
                check_run(check, bounce, alloc_dma_at(lease->alloc, lease->addr), lease->count);
        }
        check_equal(check, "bounce", handle, "leases", bounce->holder.n_leases, n);
        DL_FOREACH(bounce->resting, rest) {
                resting += rest->slots;
                check_run(check, bounce, rest->dma_addr, rest->slots);
        }
        check_equal(check, "bounce", handle, "used", bounce->used, used);
        check_equal(check, "bounce", handle, "leased", bounce->leased, leased);
        check_equal(check, "bounce", handle, "quarantined", bounce->quarantined, resting);
        arena_usage(bounce->arena, &usage);
        check_equal(check, "bounce", handle, "taken runs", bounce->n_taken, usage.n_allocated);
        check_equal(check, "bounce", handle, "free", usage.free_bytes / bounce->holder.unit,
                    slots_of(bounce) - used - leased - resting);
}

void check_bounces(struct check *check, const struct device *device, struct quota *counted) {
        const struct bounce *bounce;
        const struct waiter *waiter;
        uint64_t n = 0, waiters;

        DL_FOREACH(device->bounces, bounce) {
                n++;
                counted->of[QUOTA_leases] += bounce->holder.n_leases;
                check_arena(check, "bounce", bounce->arena);
                check_parts(check, bounce);
                check_runs(check, bounce);
                waiters = 0;
                DL_FOREACH(bounce->holder.waiters, waiter)
                        waiters++;
                check_equal(check, "bounce", bounce->holder.handle, "waiters", bounce->holder.n_waiters, waiters);
        }
        check_equal(check, "device", device->handle, "bounce pools", device->n_bounces, n);
        counted->of[QUOTA_pools] += n;
}
