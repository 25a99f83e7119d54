/* A memory source's stock, and the jobs that move memory between the system, stock and regions. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"
#include "daemon/probes.h"

/* Growing doubles what is held, up to this many bytes at a time: adjacency comes with numbers, faulting costs time. */
#define GROW_STEP_MAX (UINT64_C(1) << 30)
/* How long a source that had nothing more to give is left alone. */
#define DRY_MS 1000
/* After how long it is asked again for what holders had in use. */
#define RECLAIM_MS 1000
/* After how long it is tried again to enter what there was no memory for. */
#define LATE_MS 50
/* Longer than any daemon runs, and far from overflow when added to a time. */
#define IDLE_MAX_MS (UINT64_C(1) << 40)
#define REGION_MIN (UINT64_C(64) << 10)
#define REGION_MAX (UINT64_C(64) << 20)

static struct stock *stock_of(struct supply *supply, int node) {
        struct stock *stocks;
        size_t i;

        for (i = 0; i < supply->n_stocks; i++)
                if (supply->stocks[i].node == node)
                        return &supply->stocks[i];
        stocks = realloc(supply->stocks, (supply->n_stocks + 1) * sizeof(*stocks));
        if (!stocks)
                return NULL;
        supply->stocks = stocks;
        stocks[supply->n_stocks] = (struct stock){ .node = node };
        if (arena_new(supply->info.grain, &stocks[supply->n_stocks].arena) < 0)
                return NULL;
        return &stocks[supply->n_stocks++];
}

bool supply_claims(const struct supply *supply, uint64_t addr, uint64_t size) {
        size_t i = region_index(supply, addr);

        if (i > 0 && supply->regions[i - 1]->addr + supply->regions[i - 1]->size > addr)
                return true;
        return i < supply->n_regions && supply->regions[i]->addr < addr + size;
}

/* What is in stock, and was taken out of the arena only to become one with what came. */
static void stock_put_back(struct supply *supply, struct stock *stock, const struct arena_block *block);

/* The free runs on either side; one that is not there is empty. */
static void find_neighbours(const struct stock *stock, uint64_t addr, uint64_t size, struct arena_block *before,
                            struct arena_block *after) {
        if (!addr || arena_span(stock->arena, addr - 1, before) < 0 || before->addr + before->size != addr)
                *before = (struct arena_block){ .addr = addr };
        if (arena_span(stock->arena, addr + size, after) < 0 || after->addr != addr + size)
                *after = (struct arena_block){ .addr = addr + size };
}

/* It becomes one with the free runs on either side: a span that was cut apart must be able to become whole again. */
static int stock_join(struct supply *supply, struct stock *stock, uint64_t addr, uint64_t size) {
        struct arena_block before, after;
        int r;

        find_neighbours(stock, addr, size, &before, &after);
        if (before.size && arena_remove(stock->arena, before.addr, before.size) < 0)
                before = (struct arena_block){ .addr = addr };
        if (after.size && arena_remove(stock->arena, after.addr, after.size) < 0)
                after = (struct arena_block){ .addr = addr + size };
        r = arena_add(stock->arena, before.addr, before.size + size + after.size, 0);
        if (r < 0) {
                stock_put_back(supply, stock, &before);
                stock_put_back(supply, stock, &after);
        }
        return r;
}

static int stock_enter(struct supply *supply, const struct source_run *run) {
        struct stock *stock = stock_of(supply, run->node);
        int r;

        if (!stock)
                return -ENOMEM;
        r = supply_claims(supply, run->addr, run->size) ? -EEXIST : stock_join(supply, stock, run->addr, run->size);
        if (r < 0)
                return r;
        supply->free += run->size;
        supply->free_low += low_part(run->addr, run->size);
        supply->held += run->size;
        supply->held_low += low_part(run->addr, run->size);
        return 0;
}

/* It is entered as soon as there is memory for that. */
static bool late_note(struct supply *supply, const struct source_run *run) {
        if (supply->n_late == SUPPLY_LATE_MAX)
                return false;
        supply->late[supply->n_late++] = *run;
        supply->late_bytes += run->size;
        supply->late_since_ms = now_ms(supply->broker);
        return true;
}

static void stock_put(struct supply *supply, const struct source_run *run) {
        int r = stock_enter(supply, run);

        /* Memory cannot arrive where something is already. If a source says so, one of the two claims is wrong: keep
         * the arrival out of service, the other may be in a device's hands. */
        if (r < 0 && (r != -ENOMEM || !late_note(supply, run)))
                supply->lost += run->size;
}

static void supply_drop(struct supply *supply, uint64_t addr, uint64_t size) {
        supply->held -= size;
        supply->held_low -= low_part(addr, size);
}

static void stock_put_back(struct supply *supply, struct stock *stock, const struct arena_block *block) {
        struct source_run run = { .addr = block->addr, .size = block->size, .node = stock->node };

        if (!block->size || arena_add(stock->arena, block->addr, block->size, 0) == 0)
                return;
        supply->free -= block->size;
        supply->free_low -= low_part(block->addr, block->size);
        supply_drop(supply, block->addr, block->size);
        if (!late_note(supply, &run))
                supply->lost += block->size;
}

/* Whether anything was entered. */
static bool late_put(struct supply *supply) {
        size_t n = supply->n_late, i;
        bool any = false;

        supply->n_late = 0;
        supply->late_bytes = 0;
        for (i = 0; i < n; i++) {
                struct source_run run = supply->late[i]; /* which may be noted again in a place before */

                any |= stock_enter(supply, &run) == 0 || !late_note(supply, &run);
        }
        return any;
}

static int stock_take(struct supply *supply, struct stock *stock, uint64_t addr, uint64_t size) {
        int r = arena_remove(stock->arena, addr, size);

        if (r < 0)
                return r;
        supply->free -= size;
        supply->free_low -= low_part(addr, size);
        return 0;
}

static void arrivals_put(struct supply *supply, const struct source_job *job) {
        size_t i;

        late_put(supply);
        for (i = 0; i < job->n_arrived; i++)
                stock_put(supply, &job->arrived[i]);
}

/* A job of which somebody may want to know why it failed; freed with free(). */
static struct supply_job *job_new(enum source_job_kind kind) {
        struct {
                struct supply_job job;
                struct failure failure;
        } *both = calloc(1, sizeof(*both));

        if (!both)
                return NULL;
        both->job.job.kind = kind;
        both->job.job.failure = &both->failure;
        return &both->job;
}

static bool brings_memory(const struct supply_job *job) {
        return job->job.kind == SOURCE_GROW || job->job.kind == SOURCE_RESTORE || job->job.kind == SOURCE_RECLAIM;
}

static void job_submit(struct supply *supply, struct supply_job *job, void (*done)(struct source_job *job)) {
        job->job.done = done;
        job->job.userdata = supply;
        supply->pending++;
        supply->returning += brings_memory(job);
        if (job->request) {
                job->request->jobs++;
                job->request->state = REQUEST_WORKING;
        }
        book_hold(supply->broker, &job->job);
        if (!supply->broker->book.ledger && !supply->broker->leaving)
                book_release(supply->broker);
}

static void job_ended(struct supply *supply, struct supply_job *job) {
        struct request *request = job->request;

        supply->pending--;
        if (!supply->broker->leaving)
                supply->submitted--;
        supply->returning -= brings_memory(job);
        supply->broker->returned += brings_memory(job);
        job->request = NULL;
        if (request)
                request_job_done(request, job->job.status, job->job.failure);
}

/* ---- growing and shrinking ---- */

static void grow_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;
        uint64_t before = supply->held, high_before = supply->held - supply->held_low;

        arrivals_put(supply, source_job);
        supply->source->ops->describe(supply->source, &supply->info);
        /* Where what was to lie low has come from does not say where other memory would. */
        if (job->request && supply->held > before && source_job->limit > LOW_LIMIT && !source_job->kept_low)
                supply->grows_low = supply->held - supply->held_low == high_before;
        supply->touched_ms = now_ms(supply->broker);
        supply->broker->counters[COUNTER_grown_bytes] += supply->held - before;
        if (supply->held == before && source_job->limit > LOW_LIMIT)
                supply->dry_until_ms = supply->touched_ms + DRY_MS;
        if (supply->held == before)
                supply->low_dry_until_ms = supply->touched_ms + DRY_MS;
        /* A request that asked for more goes on with what there is; it finds out by itself whether that suffices. */
        source_job->status = 0;
        job_ended(supply, job);
        source_job_deinit(source_job);
        free(job);
        requests_serve(supply->broker);
}

static int grow_submit(struct supply *supply, struct request *request, uint64_t size, int node) {
        struct supply_job *job = job_new(SOURCE_GROW);

        if (!job)
                return -ENOMEM;
        job->job.size = size;
        job->job.node = node;
        job->job.limit = request && supply->info.flags & SOURCE_AIMS ? request->want.limit : UINT64_MAX;
        job->request = request;
        job_submit(supply, job, grow_done);
        return 0;
}

static bool aims_low(const struct supply *supply, const struct request *request) {
        return supply->info.flags & SOURCE_AIMS && request->want.limit <= LOW_LIMIT;
}

/* How much is asked for at once, where so much is needed. What is scarce is not taken in advance. */
static uint64_t grow_step(const struct supply *supply, const struct request *request, uint64_t needed) {
        uint64_t step = larger(needed, smaller(supply->held, GROW_STEP_MAX));

        if (aims_low(supply, request))
                return smaller(needed, supply->info.available);
        step = larger(step, smaller(UINT64_C(8) << 20, 4 * supply->info.grain));
        return smaller(step, supply->info.available);
}

static bool is_dry(const struct supply *supply, const struct request *request) {
        const bool low = aims_low(supply, request);

        return now_ms(supply->broker) < (low ? supply->low_dry_until_ms : supply->dry_until_ms);
}

int supply_grow(struct supply *supply, struct request *request, uint64_t size, int node) {
        const uint64_t needed = round_up(size, supply->info.grain);
        int r;

        if (supply_chooses(supply) || !supply_suits(supply, request) || is_dry(supply, request))
                return -ENOSPC;
        supply->source->ops->describe(supply->source, &supply->info);
        /* Nothing is taken from the system for what even all of it could not serve, or its owner could not be given. */
        if (!supply->info.available || (needed > supply->free && needed - supply->free > supply->info.available)) {
                /* Others may give some back to the system, and nobody tells: whoever waits looks again. */
                if (request->wait_ms)
                        supply->dry_until_ms = now_ms(supply->broker) + DRY_MS;
                return -ENOSPC;
        }
        /* Nor for what is promised to others. */
        if (!guarantee_allows(request->owner, request->high || guarantee_covers(request->owner, 0, needed), 0, needed))
                return -ENOSPC;
        r = owner_check(request->owner, QUOTA_held_bytes, needed, &request->failure);
        if (r == 0)
                r = owner_check(request->owner, QUOTA_regions, 1, &request->failure);
        if (r == 0)
                r = owner_check(request->owner, QUOTA_grants, supply_granted_pages(supply, size), &request->failure);
        if (r < 0)
                return r;
        return grow_submit(supply, request, grow_step(supply, request, needed), node);
}

/* Holders have it in use: it comes back by a later RECLAIM, once they have not. Of the bytes that did not come back this is
 * not lost. */
static uint64_t await(struct supply *supply, const struct source_job *job, uint64_t missing) {
        const bool is_awaited = job->status == -EBUSY && supply->info.flags & SOURCE_RETURNS;
        const uint64_t bytes = is_awaited ? smaller(job->awaited, missing) : 0;

        supply->awaited += bytes;
        if (is_awaited)
                supply->reclaim_ms = now_ms(supply->broker) + RECLAIM_MS;
        return bytes;
}

/* What an earlier daemon has left counts towards the reserve. */
static void reclaim_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;
        uint64_t before = supply->held + supply->late_bytes, awaited = supply->awaited, missing;

        arrivals_put(supply, source_job);
        /* The first one brings what nobody has known of. */
        missing = source_job->later ? awaited - smaller(awaited, supply->held + supply->late_bytes - before) : UINT64_MAX;
        supply->awaited = 0;
        await(supply, source_job, missing);
        if (source_job->later)
                supply->lost += missing - supply->awaited;
        supply->source->ops->describe(supply->source, &supply->info);
        if (source_job->n_arrived)
                supply->touched_ms = now_ms(supply->broker);
        if (!source_job->later && supply->held < supply->info.reserve)
                grow_submit(supply, NULL, supply->info.reserve - supply->held, -1);
        job_ended(supply, job);
        source_job_deinit(source_job);
        free(job);
        requests_serve(supply->broker);
}

/* later: only what is awaited. */
static int reclaim_submit(struct supply *supply, bool later) {
        struct supply_job *job = job_new(SOURCE_RECLAIM);

        if (!job)
                return -ENOMEM;
        job->job.later = later;
        job->job.node = -1;
        job_submit(supply, job, reclaim_done);
        return 0;
}

static void shrink_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;
        uint64_t kept = supply->held;

        supply->leaving -= source_job->size;
        supply_drop(supply, source_job->addr, source_job->size);
        arrivals_put(supply, source_job);
        supply->broker->counters[COUNTER_shrunk_bytes] += kept - supply->held;
        release_note(supply->broker, kept - supply->held);
        supply->source->ops->describe(supply->source, &supply->info);
        job_ended(supply, job);
        source_job_deinit(source_job);
        free(job);
        requests_serve(supply->broker);
}

static int shrink_submit(struct supply *supply, struct stock *stock, uint64_t addr, uint64_t size) {
        struct supply_job *job = job_new(SOURCE_SHRINK);
        int r;

        if (!job)
                return -ENOMEM;
        r = stock_take(supply, stock, addr, size);
        if (r < 0) {
                free(job);
                return r;
        }
        supply->leaving += size;
        job->job.addr = addr;
        job->job.size = size;
        job->job.node = stock->node;
        job_submit(supply, job, shrink_done);
        return 0;
}

struct run_list {
        struct arena_block *blocks;
        size_t n, capacity;
};

static int run_note(const struct arena_block *block, bool is_free, void *userdata) {
        struct run_list *list = userdata;

        if (is_free && list->n < list->capacity)
                list->blocks[list->n++] = *block;
        return 0;
}

static int by_size(const void *a, const void *b) {
        const struct arena_block *x = a, *y = b;

        return (x->size > y->size) - (x->size < y->size);
}

/* The smallest runs go first: what is left is worth the most. */
static void stock_shrink(struct supply *supply, struct stock *stock, uint64_t *excess) {
        struct arena_usage usage;
        struct run_list list = {};
        uint64_t size;
        size_t i;

        arena_usage(stock->arena, &usage);
        list.capacity = usage.n_free;
        list.blocks = calloc(usage.n_free + 1, sizeof(*list.blocks));
        if (!list.blocks)
                return;
        arena_visit(stock->arena, run_note, &list);
        qsort(list.blocks, list.n, sizeof(*list.blocks), by_size);
        for (i = 0; i < list.n && *excess; i++) {
                size = smaller(list.blocks[i].size, *excess);
                if (shrink_submit(supply, stock, list.blocks[i].addr, size) == 0)
                        *excess -= size;
        }
        free(list.blocks);
}

uint64_t supply_above_reserve(const struct supply *supply) {
        uint64_t held = supply->held - supply->leaving;

        if (supply_chooses(supply))
                return held;
        return held > supply->info.reserve ? held - supply->info.reserve : 0;
}

uint64_t supplies_above_minimum(const struct broker *broker) {
        const struct supply *supply;
        uint64_t held = 0;

        LL_FOREACH(broker->supplies, supply)
                held += supply->held - supply->leaving;
        return held > broker->options.minimum ? held - broker->options.minimum : 0;
}

uint64_t supply_shrink(struct supply *supply, uint64_t most) {
        uint64_t excess, left;
        size_t i;

        if (supply_chooses(supply))
                return 0;
        excess = smaller(smaller(supply->free, supply_above_reserve(supply)), guarantees_spare(supply));
        excess = smaller(excess, supplies_above_minimum(supply->broker));
        if (most < excess)
                excess = smaller(excess, round_up(most, supply->info.grain));
        excess &= ~(supply->info.grain - 1);
        left = excess;
        for (i = 0; i < supply->n_stocks && left; i++)
                stock_shrink(supply, &supply->stocks[i], &left);
        return excess - left;
}

static bool stock_is_idle(const struct supply *supply) {
        return supply->info.idle_ms && !supply->pending && supply->free && supply->held > supply->info.reserve;
}

uint64_t supply_deadline(const struct supply *supply) {
        uint64_t deadline = UINT64_MAX;

        if (supply->idle)
                deadline = supply->idle->idle_since_ms + supply->broker->options.region_idle_ms;
        if (stock_is_idle(supply))
                deadline = smaller(deadline, supply->touched_ms + smaller(supply->info.idle_ms, IDLE_MAX_MS));
        if (supply->dry_until_ms && supply->broker->n_requests)
                deadline = smaller(deadline, supply->dry_until_ms);
        if (supply->low_dry_until_ms && supply->broker->n_requests)
                deadline = smaller(deadline, supply->low_dry_until_ms);
        if (supply->n_late)
                deadline = smaller(deadline, supply->late_since_ms + LATE_MS);
        if (supply->reclaim_ms)
                deadline = smaller(deadline, supply->reclaim_ms);
        return deadline;
}

static void stock_tick(struct supply *supply, uint64_t now) {
        if (!stock_is_idle(supply) || now < supply->touched_ms + smaller(supply->info.idle_ms, IDLE_MAX_MS))
                return;
        supply_shrink(supply, UINT64_MAX);
        supply->touched_ms = now;
}

void supply_tick(struct supply *supply, uint64_t now) {
        if (supply->n_late && now >= supply->late_since_ms + LATE_MS && late_put(supply))
                requests_serve(supply->broker);
        if (now >= supply->dry_until_ms)
                supply->dry_until_ms = 0;
        if (now >= supply->low_dry_until_ms)
                supply->low_dry_until_ms = 0;
        while (supply->idle && now >= supply->idle->idle_since_ms + supply->broker->options.region_idle_ms)
                region_restore(supply->idle);
        stock_tick(supply, now);
        /* The last of all: with a job under way no stock is idle. */
        if (supply->reclaim_ms && now >= supply->reclaim_ms)
                supply->reclaim_ms = reclaim_submit(supply, true) < 0 ? now + RECLAIM_MS : 0;
}

/* ---- regions ---- */

/* Whether anything of [addr, addr+size) is in the books already. */
static bool occupied(const struct broker *broker, uint64_t addr, uint64_t size) {
        uint64_t free_bytes, largest;
        struct supply *supply;
        size_t i;

        LL_FOREACH(every_supply(broker), supply) {
                if (supply_claims(supply, addr, size))
                        return true;
                for (i = 0; i < supply->n_stocks; i++) {
                        arena_usage_within(supply->stocks[i].arena, addr, addr + size - 1, &free_bytes, &largest);
                        if (free_bytes)
                                return true;
                }
        }
        return false;
}

/* Whether the region has room for what is wanted. */
static bool has_place(const struct region *region, const struct arena_request *want) {
        uint64_t last = region->addr + (region->size - 1), align = larger(want->align, 1), at;

        at = round_up(larger(region->addr, want->floor), align);
        if (want->boundary && (at ^ (at + (want->size - 1))) >= want->boundary)
                at = round_up(at, larger(want->boundary, align));
        return at >= region->addr && at <= last && last - at >= want->size - 1 && at + (want->size - 1) <= want->limit;
}

/* Does the place that a source chose serve the request? With a sentence if not. */
static int choice_judge(const struct supply *supply, const struct region *region, const struct arena_request *want,
                        struct failure *failure) {
        uint64_t last = region->addr + (region->size - 1);
        enum reason reason = REASON_source_unavailable;
        const char *why;

        if (last < region->addr || region->addr % supply->info.grain ||
            occupied(supply->broker, region->addr, region->size)) {
                why = "where no memory of it can be";
        } else if (last < want->floor || region->addr > want->limit || want->limit - region->addr < want->size - 1) {
                reason = REASON_mask;
                why = "out of the mask's reach";
        } else if (!has_place(region, want)) {
                reason = REASON_no_contiguous;
                why = "where nothing suits the alignment and the boundary";
        } else {
                return 0;
        }
        failure_set(failure, reason, "The source %s, which alone chooses addresses, chose 0x%llx, %s", supply->info.name,
                    (unsigned long long)region->addr, why);
        failure_add_hex(failure, "machine_addr", region->addr);
        failure_add_number(failure, "asked", want->size);
        failure_add_hex(failure, "mask", want->limit);
        return -failure->error;
}

/* A generous region is not insisted upon. A request that can wait does so, and one for which unused regions can be given
 * up is tried again. */
static void choice_missed(struct supply *supply, struct supply_job *job) {
        uint64_t until = now_ms(supply->broker) + DRY_MS;
        bool generous = job->region->size > round_up(job->request->want.size, supply->info.grain);

        /* What is too much of ordinary memory for one is not for another, and nobody waits for it. */
        if (job->request->anonymous)
                return;
        if (generous)
                supply->scant_until_ms = until;
        else
                supply->dry_until_ms = until;
        if (generous || supply->idle || supply->returning || job->request->wait_ms)
                job->job.status = -EAGAIN;
}

/* The memory of a source that chooses is in the books from here until it has been restored. */
static void choice_take(struct supply *supply, struct supply_job *job) {
        struct region *region = job->region;

        supply->source->ops->describe(supply->source, &supply->info);
        if (job->job.status < 0) {
                if (job->job.status == -ENOMEM)
                        choice_missed(supply, job);
                return;
        }
        region_unhold(region);
        region->addr = job->job.addr;
        region_hold(region);
        supply->held += region->size;
        supply->held_low += low_part(region->addr, region->size);
}

static void carve_fail(struct supply *supply, struct supply_job *job) {
        supply->broker->counters[COUNTER_carve_failures]++;
        if (!supply_chooses(supply))
                supply_drop(supply, job->region->addr, job->region->size);
        arrivals_put(supply, &job->job);
        /* The region goes before the request is tried again: it is charged no more. */
        region_discard(job->region);
        /* Another user of the same pages got between: there is other stock to try. */
        if (job->job.status == -EAGAIN)
                job->job.status = 0;
        job_ended(supply, job);
}

static void carve_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;
        struct broker *broker = supply->broker;
        struct region *region = job->region;
        int r = 0;

        if (supply_chooses(supply))
                choice_take(supply, job);
        PROBE_CARVE(supply->info.name, region->addr, region->size, source_job->status);
        if (source_job->status < 0) {
                carve_fail(supply, job);
        } else {
                region->backing = source_job->backing;
                broker->counters[COUNTER_carves]++;
                if (supply_chooses(supply))
                        r = choice_judge(supply, region, &job->request->want, source_job->failure);
                if (r == 0)
                        r = region_go_live(region, job->request);
                source_job->status = r;
                job_ended(supply, job);
                if (r < 0)
                        supply_restore(region);
        }
        source_job_deinit(source_job);
        free(job);
        requests_serve(broker);
}

uint64_t supply_emergency(const struct supply *supply) {
        const struct broker_options *options = &supply->broker->options;
        uint64_t all = supply->held + smaller(supply->info.available, UINT64_MAX - supply->held);

        return smaller(all / 1000 * options->emergency_permille, options->emergency_max) & ~(supply->info.grain - 1);
}

static uint64_t low_share(const struct supply *supply, uint64_t bytes) {
        uint64_t all = supply->held + supply->info.available;

        return all ? (uint64_t)((double)bytes * (double)supply->held_low / (double)all) & ~(supply->info.grain - 1) : 0;
}

/* Memory below 4 GiB is kept for those who can use no other, and some of all for those who may not fail. */
static bool may_take(const struct supply *supply, const struct request *request, const struct arena_block *block) {
        uint64_t low = low_part(block->addr, block->size), high = block->size - low;
        uint64_t emergency = supply_emergency(supply), share = low_share(supply, emergency), keep;
        bool covered = guarantee_covers(request->owner, low, high), spared = request->high || covered;

        if (!guarantee_allows(request->owner, spared, low, high))
                return false;
        /* Low memory and the rest each have their share of the emergency reserve: one is no help to who needs the other. */
        if (!spared && low && supply->free_low - low < share)
                return false;
        if (!spared && high &&
            supply->free - supply->free_low - high + supply->info.available < emergency - share)
                return false;
        if (!low || covered || request->want.limit <= LOW_LIMIT || supply->held == supply->held_low)
                return true;
        keep = supply->held_low / 100 * supply->broker->options.low_keep_percent;
        return supply->free_low - low >= keep;
}

static int run_find(struct supply *supply, struct stock *stock, const struct request *request,
                    const struct arena_request *want, uint64_t size, struct arena_block *ret) {
        struct arena_request run = *want;
        int r;

        run.size = round_up(size, supply->info.grain);
        run.align = larger(want->align, supply->info.grain);
        /* A grain never crosses a boundary that is larger than it, and offers a place that suits a smaller one. */
        if (run.size > run.boundary)
                run.boundary = 0;
        r = arena_find(stock->arena, &run, ret);
        return r < 0 ? r : may_take(supply, request, ret) ? 0 : -ENOSPC;
}

/* An owner with many small allocations gets regions that grow with it, so that it has few of them. Below 4 GiB, where
 * slack is dear, they stay small. */
static uint64_t region_size(const struct request *request, const struct arena_request *want) {
        uint64_t size = REGION_MIN;

        if (request->kind != REQUEST_ALLOC)
                return want->size;
        while (want->floor > LOW_LIMIT && size < request->owner->usage.of[QUOTA_held_bytes] / 2 && size < REGION_MAX)
                size *= 2;
        return larger(size, want->size);
}

/* A region for the request, and the job that carves it. */
static int carve_new(struct supply *supply, struct request *request, uint64_t addr, uint64_t size, int node,
                     struct supply_job **ret, struct failure *failure) {
        struct region *region;
        struct supply_job *job;
        int r;

        r = region_new(supply, request->owner, addr, size, node, &region, failure);
        if (r < 0)
                return r;
        job = job_new(SOURCE_CARVE);
        if (!job) {
                region_discard(region);
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        job->region = region;
        job->request = request;
        job->job.addr = addr;
        job->job.size = size;
        job->job.node = node;
        *ret = job;
        return 0;
}

static void carve_submit(struct supply *supply, struct supply_job *job) {
        job->job.id = job->region->id = ++supply->broker->last_region_id;
        job_submit(supply, job, carve_done);
}

int supply_carve(struct supply *supply, struct request *request, const struct arena_request *want, int node,
                 struct failure *failure) {
        struct stock *stock = stock_of(supply, node);
        struct arena_block block;
        struct supply_job *job;
        uint64_t size;
        int r;

        if (!stock)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        supply->touched_ms = now_ms(supply->broker);
        r = -ENOSPC;
        for (size = region_size(request, want); r < 0 && size > want->size; size /= 2)
                if (owner_check(request->owner, QUOTA_held_bytes, round_up(size, supply->info.grain), NULL) == 0)
                        r = run_find(supply, stock, request, want, size, &block);
        if (r < 0)
                r = run_find(supply, stock, request, want, want->size, &block);
        if (r < 0)
                return -ENOSPC;
        r = carve_new(supply, request, block.addr, block.size, node, &job, failure);
        if (r < 0)
                return r;
        r = stock_take(supply, stock, block.addr, block.size);
        if (r < 0) {
                region_discard(job->region);
                free(job);
                return -ENOSPC;
        }
        carve_submit(supply, job);
        return 0;
}

/* Nobody knows beforehand where such memory lies, so all of it counts as low. A request that could use any memory leaves
 * those that cannot their share, if there are other sources. */
static bool may_choose(const struct supply *supply, const struct request *request, uint64_t size) {
        const struct broker *broker = supply->broker;
        bool covered = guarantee_covers(request->owner, size, 0), spared = request->high || covered;
        uint64_t left, keep;

        if (request->anonymous)
                return size <= supply->info.available;
        if (size > supply->info.available || !guarantee_allows(request->owner, spared, size, 0))
                return false;
        left = supply->info.available - size;
        if (!spared && left < supply_emergency(supply))
                return false;
        if (covered || request->want.limit <= LOW_LIMIT || !broker->supplies->next)
                return true;
        keep = (supply->held + supply->info.available) / 100 * broker->options.low_keep_percent;
        return left >= keep;
}

/* Small allocations share regions here too. */
static uint64_t choice_size(const struct supply *supply, const struct request *request) {
        uint64_t size = round_up(request->want.size, supply->info.grain);
        uint64_t generous = round_up(REGION_MIN, supply->info.grain);

        if (request->kind == REQUEST_ALLOC && size < generous && now_ms(supply->broker) >= supply->scant_until_ms &&
            may_choose(supply, request, generous) &&
            owner_check(request->owner, supply_quota(supply), generous, NULL) == 0)
                return generous;
        return size;
}

int supply_choose(struct supply *supply, struct request *request, struct failure *failure) {
        struct supply_job *job;
        uint64_t size;
        int r;

        if (!supply_chooses(supply) || !supply_suits(supply, request) || now_ms(supply->broker) < supply->dry_until_ms)
                return -ENOSPC;
        supply->source->ops->describe(supply->source, &supply->info);
        size = choice_size(supply, request);
        if (!may_choose(supply, request, size))
                return -ENOSPC;
        r = request->anonymous ? 0 : device_check(request->device, QUOTA_low_bytes, request->want.size, failure);
        if (r < 0)
                return request->want.limit <= LOW_LIMIT ? r : -ENOSPC;
        r = carve_new(supply, request, 0, size, -1, &job, failure);
        if (r < 0)
                return r;
        job->job.limit = request->want.limit;
        carve_submit(supply, job);
        return 0;
}

static void restore_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;
        struct broker *broker = supply->broker;
        uint64_t before = supply->held + supply->late_bytes, lost = supply->lost, after, missing;

        PROBE_RESTORE(supply->info.name, job->region->addr, job->region->size, source_job->status);
        supply_drop(supply, job->region->addr, job->region->size);
        arrivals_put(supply, source_job);
        /* What did not come back, and what could not be put back, count once. A source that chooses puts nothing back. */
        if (supply_chooses(supply)) {
                supply->lost += source_job->status < 0 ? job->region->size : 0;
                release_note(broker, source_job->status < 0 ? 0 : job->region->size);
                supply->dry_until_ms = 0;
                supply->source->ops->describe(supply->source, &supply->info);
        } else {
                after = supply->held + supply->late_bytes;
                missing = after < before ? before - after : 0;
                supply->lost = lost + missing - await(supply, source_job, missing);
        }
        broker->counters[COUNTER_restores]++;
        supply->touched_ms = now_ms(broker);
        source_job_deinit(source_job);
        job_ended(supply, job);
        region_discard(job->region);
        requests_serve(broker);
}

void supply_restore(struct region *region) {
        struct source_job *job = &region->restore.job;

        region->restore.region = region;
        job->kind = SOURCE_RESTORE;
        job->addr = region->addr;
        job->size = region->size;
        job->node = region->node;
        job->backing = region->backing;
        region->backing = NULL;
        job_submit(region->supply, &region->restore, restore_done);
}

static void zero_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;

        job_ended(supply, job);
        free(job);
        requests_serve(supply->broker);
}

int supply_zero(struct supply *supply, struct request *request) {
        struct supply_job *job = job_new(SOURCE_ZERO);

        if (!job)
                return -ENOMEM;
        job->request = request;
        job->job.offset = request->block.addr - request->region->addr;
        job->job.size = request->block.size;
        job->job.backing = request->region->backing;
        job_submit(supply, job, zero_done);
        return 0;
}

/* The region that is copied from stays until then, whatever happens to what lies in it. */
static void copy_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;
        struct region *from = job->region, *to = job->userdata; /* of which the request may have lost sight */

        if (--from->checks == 0 && from->restore_wanted)
                supply_restore(from);
        job_ended(supply, job);
        if (--to->checks == 0 && to->restore_wanted)
                supply_restore(to);
        free(job);
        requests_serve(supply->broker);
}

int supply_copy(struct supply *supply, struct request *request, const struct alloc *moved) {
        struct supply *worker = region_is_anonymous(moved->region) ? moved->region->supply : supply;
        struct supply_job *job = job_new(SOURCE_COPY);
        struct region *from = moved->region;

        if (!job)
                return -ENOMEM;
        job->request = request;
        job->region = from;
        job->job.offset = request->block.addr - request->region->addr;
        job->job.size = alloc_size(moved);
        job->job.backing = request->region->backing;
        job->job.to_ops = supply->source->ops;
        job->job.from_ops = from->supply->source->ops;
        job->job.from = from->backing;
        job->job.from_offset = alloc_addr(moved) - from->addr;
        job->userdata = request->region;
        from->checks++;
        request->region->checks++;
        /* What was swapped out may have to come from a disk: nobody else is to wait for that. */
        job_submit(worker, job, copy_done);
        return 0;
}

static void verify_done(struct source_job *source_job) {
        struct supply_job *job = (struct supply_job *)source_job;
        struct supply *supply = source_job->userdata;
        struct region *region = job->region;

        job_ended(supply, job);
        job->verified(job);
        if (--region->checks == 0 && region->restore_wanted)
                supply_restore(region);
        free(job);
}

int supply_verify(struct region *region, void (*done)(struct supply_job *job), void *userdata) {
        struct supply_job *job = job_new(SOURCE_VERIFY);

        if (!job)
                return -ENOMEM;
        job->region = region;
        job->verified = done;
        job->userdata = userdata;
        job->job.addr = region->addr;
        job->job.size = region->size;
        job->job.node = region->node;
        job->job.backing = region->backing;
        region->checks++;
        job_submit(region->supply, job, verify_done);
        return 0;
}

/* ---- the supply itself ---- */

static void supply_join(struct supply *supply) {
        struct broker *broker = supply->broker;

        if (supply->info.flags & SOURCE_ANONYMOUS)
                broker->anonymous = supply;
        else
                LL_APPEND(broker->supplies, supply);
        if (broker->anonymous)
                broker->anonymous->next = broker->supplies;
        guarantees_recount(broker);
}

static void supply_leave(struct supply *supply) {
        struct broker *broker = supply->broker;

        if (supply == broker->anonymous)
                broker->anonymous = NULL;
        else
                LL_DELETE(broker->supplies, supply);
        if (broker->anonymous)
                broker->anonymous->next = broker->supplies;
        guarantees_recount(broker);
}

int broker_add_source(struct broker *broker, struct source *source) {
        struct supply *supply = calloc(1, sizeof(*supply));
        int r = 0;

        if (!supply) {
                source_let_go(source);
                return -ENOMEM;
        }
        supply->broker = broker;
        supply->source = source;
        source->ops->describe(source, &supply->info);
        supply_join(supply);
        /* A source that chooses has a stock with nothing in it, so that the windows of its node are looked at. */
        if (supply_chooses(supply))
                r = stock_of(supply, -1) ? 0 : -ENOMEM;
        if (r == 0 && !broker->options.survives)
                r = supply_begin(supply);
        if (r < 0) {
                supply_leave(supply);
                source_let_go(source);
                supply->source = NULL;
                supply_free(supply);
        }
        return r;
}

int supply_begin(struct supply *supply) {
        supply->source->ops->describe(supply->source, &supply->info);
        /* What is kept and not known of stays where it is when some that was known has been forgotten. */
        if (supply->info.kept && !supply->broker->book.withheld)
                return reclaim_submit(supply, false);
        if (supply_chooses(supply) || supply->held >= supply->info.reserve)
                return 0;
        return grow_submit(supply, NULL, supply->info.reserve - supply->held, -1);
}

void supply_usage(const struct supply *supply, uint64_t limit, uint64_t *ret_free, uint64_t *ret_largest) {
        uint64_t size, largest;
        size_t i;

        *ret_free = *ret_largest = 0;
        for (i = 0; i < supply->n_stocks; i++) {
                arena_usage_within(supply->stocks[i].arena, 0, limit, &size, &largest);
                *ret_free += size;
                *ret_largest = larger(*ret_largest, largest);
        }
}

void supply_wait(struct supply *supply) {
        supply->source->ops->wait(supply->source);
        supply->source->ops->dispatch(supply->source);
}

void supply_free(struct supply *supply) {
        size_t i;

        if (supply->source && supply->broker->leaving)
                source_let_go(supply->source);
        else if (supply->source)
                supply->source->ops->close(supply->source);
        for (i = 0; i < supply->n_stocks; i++)
                arena_free(supply->stocks[i].arena);
        free(supply->stocks);
        /* Those that are left hold what could not be taken from a device. */
        for (i = 0; i < supply->n_regions; i++)
                free(supply->regions[i]);
        free(supply->regions);
        free(supply);
}
