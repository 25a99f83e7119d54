/* One attempt to satisfy a request: where memory is looked for, and in which order. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/objects.h"

/* Zeroing more than this at once would hold up everybody else. */
#define ZERO_AT_ONCE (UINT64_C(256) << 10)
#define ATTEMPTS_MAX 64

/* In the order in which they are tried: memory that few devices can reach is given away last. The last row is for what
 * straddles. */
static const struct tier {
        uint64_t floor, top;
} tiers[] = {
        { LOW_LIMIT + 1, UINT64_MAX },
        { UINT64_C(1) << 24, LOW_LIMIT },
        { 0, (UINT64_C(1) << 24) - 1 },
        { 0, UINT64_MAX },
};
enum { TIERS = sizeof(tiers) / sizeof(tiers[0]) };

static bool tier_want(const struct request *request, int tier, struct arena_request *ret) {
        *ret = request->want;
        ret->floor = larger(ret->floor, tiers[tier].floor);
        ret->limit = smaller(ret->limit, tiers[tier].top);
        return ret->floor <= ret->limit && ret->limit - ret->floor >= ret->size - 1;
}

/* The device's node first, then the others. */
static int place(const struct supply *supply, const struct request *request, size_t i) {
        size_t j;

        for (j = 0; j < supply->n_stocks; j++)
                if (supply->stocks[j].node == request->device->node)
                        break;
        if (j == supply->n_stocks || i > j)
                return supply->stocks[i].node;
        return i == 0 ? supply->stocks[j].node : supply->stocks[i - 1].node;
}

static struct arena *window_arena(const struct request *request, const struct supply *supply, int node) {
        struct window *window;

        LL_FOREACH(request->owner->windows, window)
                if (window->supply == supply && window->node == node)
                        return window->arena;
        return NULL;
}

void request_release(struct request *request) {
        struct region *region = request->region;

        /* A region that is on its way back has forgotten its blocks. */
        if (region && region->state == REGION_LIVE) {
                region_put_block(region, request->block.number);
                region_unuse(region, request->block.size);
        }
        request->region = NULL;
}

static int block_fail(struct request *request, int error) {
        request_release(request);
        return failure_set_errno(&request->failure, error == -ENOMEM ? REASON_no_memory : REASON_source_unavailable, -error,
                                 "The memory could not be %s: %s", request->moved ? "copied" : "zeroed", strerror(-error));
}

static int block_copy(struct request *request, struct region *region) {
        const struct alloc *moved = request_moved(request);
        int r;

        if (!moved) {
                request_release(request);
                return failure_set(&request->failure, REASON_gone, "Allocation %llu ended before it could be moved",
                                   (unsigned long long)request->moved);
        }
        r = supply_copy(region->supply, request, moved);
        return r < 0 ? block_fail(request, r) : ATTEMPT_WORKING;
}

/* The block has been cut from region's arena. */
static int block_taken(struct request *request, struct region *region) {
        struct alloc *alloc;
        int r;

        request->region = region;
        region_use(region, request->block.size);
        if (request->moved)
                return block_copy(request, region);
        if (request->zero && request->block.size > ZERO_AT_ONCE) {
                r = supply_zero(region->supply, request);
                return r < 0 ? block_fail(request, r) : ATTEMPT_WORKING;
        }
        if (request->zero) {
                r = region->supply->source->ops->backing_zero(region->backing, request->block.addr - region->addr,
                                                              request->block.size);
                if (r < 0)
                        return block_fail(request, r);
                region->supply->broker->counters[COUNTER_zeroed_bytes] += request->block.size;
        }
        r = alloc_new(request, &alloc);
        if (r < 0) {
                request_release(request);
                /* That an IOMMU has no room is the answer: elsewhere it would have none either. */
                return r == -ENOSPC ? -EIO : r;
        }
        request->handle = alloc->handle;
        return 0;
}

static int arena_try(struct request *request, struct arena *arena, const struct arena_request *want) {
        struct region *region;
        int r;

        if (!arena)
                return -ENOSPC;
        r = arena_alloc(arena, want, &request->block);
        if (r == -ENOMEM)
                return failure_set(&request->failure, REASON_no_memory, "The daemon itself is out of memory");
        if (r < 0)
                return -ENOSPC;
        region = region_at(request->owner->broker, request->block.addr);
        /* If the books are wrong, nobody gets what may be another's. */
        if (!region || region->owner != request->owner)
                return failure_set(&request->failure, REASON_source_unavailable, "The daemon's books are damaged: 0x%llx is in "
                                   "no region of %s", (unsigned long long)request->block.addr, request->owner->name);
        return block_taken(request, region);
}

/* Whether regions of the owner are on their way back: then its quota is not used up for good. */
static bool quota_returns(const struct owner *owner) {
        struct region *region, *next;
        uint64_t live = 0;

        DL_FOREACH_SAFE(owner->regions, region, next) {
                if (!region->device && !region->n_allocs)
                        region_restore(region);
                else
                        live++;
        }
        return owner->usage.of[QUOTA_regions] > live;
}

/* -ENOSPC: go on looking. */
static int tier_try(struct request *request, struct supply *supply, int tier) {
        struct arena_request want;
        size_t i;
        int r, node;

        if (!supply_suits(supply, request) || !tier_want(request, tier, &want))
                return -ENOSPC;
        if (want.floor <= LOW_LIMIT) {
                r = device_check(request->device, QUOTA_low_bytes, want.size, &request->failure);
                if (r < 0)
                        return request->want.limit <= LOW_LIMIT ? r : -ENOSPC;
        }
        for (i = 0; i < supply->n_stocks; i++) {
                node = place(supply, request, i);
                r = -ENOSPC;
                if (request->kind == REQUEST_ALLOC)
                        r = arena_try(request, window_arena(request, supply, node), &want);
                if (r == -ENOSPC)
                        r = supply_carve(supply, request, &want, node, &request->failure);
                else
                        return r;
                if (r == 0)
                        return ATTEMPT_WORKING;
                if (r == -reason_errno(REASON_quota) && quota_returns(request->owner))
                        return ATTEMPT_BLOCKED;
                if (r != -ENOSPC)
                        return r;
        }
        return -ENOSPC;
}

/* Fetch memory above 4 GiB before memory below it is used, where the system still has some. */
static bool fetch_high(struct request *request) {
        struct arena_request want;
        struct supply *supply;

        if (!tier_want(request, 0, &want))
                return false;
        LL_FOREACH(request->owner->broker->supplies, supply)
                if (!supply->grows_low && supply_grow(supply, request, want.size, request->device->node) == 0)
                        return true;
        return false;
}

/* -ENOSPC: no source chooses, or none has anything for this request. */
static int choose_any(struct request *request) {
        struct supply *supply;
        int r;

        LL_FOREACH(request->owner->broker->supplies, supply) {
                r = supply_choose(supply, request, &request->failure);
                if (r == 0)
                        return ATTEMPT_WORKING;
                if (r == -reason_errno(REASON_quota) && quota_returns(request->owner))
                        return ATTEMPT_BLOCKED;
                if (r != -ENOSPC)
                        return r;
        }
        return -ENOSPC;
}

/* -ENOSPC: there is no more. */
static int fetch_any(struct request *request) {
        struct supply *supply;
        int r;

        LL_FOREACH(request->owner->broker->supplies, supply) {
                r = supply_grow(supply, request, request->want.size, request->device->node);
                if (r == 0)
                        return ATTEMPT_WORKING;
                if (r == -reason_errno(REASON_quota) && quota_returns(request->owner))
                        return ATTEMPT_BLOCKED;
                if (r != -ENOSPC)
                        return r;
        }
        return -ENOSPC;
}

/* A source that chooses is told the mask, while growing brings memory anywhere: narrow masks had better not fetch what they
 * cannot use, and wide ones take what only few can do without last of all. */
static int bring_any(struct request *request) {
        const bool narrow = request->want.limit <= LOW_LIMIT;
        int r;

        r = narrow ? choose_any(request) : fetch_any(request);
        if (r == -ENOSPC)
                r = narrow ? fetch_any(request) : choose_any(request);
        return r;
}

/* Ordinary memory: nobody else competes for it, and it is not waited for. */
static int attempt_anonymous(struct request *request) {
        struct supply *supply = request->owner->broker->anonymous;
        int r = -ENOSPC;

        if (supply)
                r = arena_try(request, window_arena(request, supply, -1), &request->want);
        if (supply && r == -ENOSPC) {
                r = supply_choose(supply, request, &request->failure);
                if (r == 0)
                        return ATTEMPT_WORKING;
        }
        if (r == -reason_errno(REASON_quota) && quota_returns(request->owner))
                return ATTEMPT_BLOCKED;
        if (r != -ENOSPC)
                return r;
        if (supply && supply->returning)
                return ATTEMPT_BLOCKED;
        failure_set(&request->failure, REASON_no_memory, supply ? "There is no room in ordinary memory for %llu bytes more: %llu "
                    "of at most %llu are used" : "Nothing can be swapped out here", (unsigned long long)request->want.size,
                    supply ? (unsigned long long)supply->held : 0, supply ? (unsigned long long)supply->info.limit : 0);
        failure_add_number(&request->failure, "asked", request->want.size);
        return -request->failure.error;
}

static bool reclaim(struct supply *supply, const struct request *request) {
        struct region *region, *next;
        bool any = false;

        DL_FOREACH_SAFE2(supply->idle, region, next, idle_next) {
                if (region->addr > request->want.limit || region->addr + region->size <= request->want.floor)
                        continue;
                region_restore(region);
                any = true;
        }
        return any;
}

/* ---- why not ---- */

struct prospect {
        uint64_t reachable; /* bytes within the limit, in use or not */
        uint64_t free, largest;
        bool growing, returning;
        bool promised; /* what is free, others were guaranteed */
        bool kept; /* a source has the memory, but only for high priority */
        bool apart; /* a source has memory for guests only */
};

static void prospect_add(struct prospect *prospect, const struct supply *supply, const struct request *request) {
        uint64_t free_bytes, largest, limit = request->want.limit;
        struct region *region;
        size_t i;

        supply_usage(supply, limit, &free_bytes, &largest);
        if (supply_chooses(supply))
                free_bytes = largest = supply->info.available;
        /* What is between stock and regions may come back. */
        prospect->reachable += free_bytes + (supply->held - supply->free - supply->in_regions);
        /* It was just asked, and had nothing in one piece. */
        if (supply_chooses(supply) && now_ms(supply->broker) < supply->dry_until_ms)
                free_bytes = largest = 0;
        prospect->free += free_bytes;
        prospect->largest = larger(prospect->largest, largest);
        prospect->growing |= supply->info.available > 0;
        /* A source that chooses has less available while it carves, and the region is not there yet. */
        prospect->returning |= supply->returning > 0 || (supply_chooses(supply) && supply->pending > 0);
        prospect->kept |= !request->high && largest >= request->want.size &&
                          supply->free + supply->info.available - request->want.size < supply_emergency(supply);
        for (i = 0; i < supply->n_regions; i++) {
                region = supply->regions[i];
                if (region->addr > limit)
                        break;
                prospect->reachable += smaller(region->size, limit - region->addr + 1);
        }
}

static void prospect_own(struct prospect *prospect, const struct request *request) {
        uint64_t free_bytes, largest;
        struct window *window;

        LL_FOREACH(request->owner->windows, window) {
                if (window->supply == request->owner->broker->anonymous)
                        continue;
                arena_usage_within(window->arena, 0, request->want.limit, &free_bytes, &largest);
                prospect->free += free_bytes;
                prospect->largest = larger(prospect->largest, largest);
        }
}

static void explain(struct request *request, enum reason reason, const struct prospect *prospect, const char *why) {
        const struct arena_request *want = &request->want;
        char below[48] = "";

        if (want->limit != UINT64_MAX)
                snprintf(below, sizeof(below), " at or below 0x%llx", (unsigned long long)want->limit);
        failure_set(&request->failure, reason, "%s: asked for %llu bytes%s, %llu are free, at most %llu in one piece", why,
                    (unsigned long long)want->size, below, (unsigned long long)prospect->free,
                    (unsigned long long)prospect->largest);
        failure_add_number(&request->failure, "asked", want->size);
        failure_add_hex(&request->failure, "mask", want->limit);
        failure_add_number(&request->failure, "free", prospect->free);
        failure_add_number(&request->failure, "largest_free", prospect->largest);
        failure_add_number(&request->failure, "reachable", prospect->reachable);
        if (prospect->promised)
                failure_add_number(&request->failure, "guaranteed", guarantees_of_others(request->owner));
}

/* Says why it cannot be served now; -errno when that will never change. */
static int request_explain(struct request *request) {
        const struct device *lender = request_reserve(request);
        struct broker *broker = request->owner->broker;
        struct prospect prospect = {};
        struct supply *supply;

        if (lender) {
                if (lender->reserve)
                        arena_usage_within(lender->reserve, 0, request->want.limit, &prospect.free, &prospect.largest);
                prospect.reachable = lender->reserved_bytes;
                explain(request, prospect.free < request->want.size ? REASON_no_memory : REASON_no_contiguous, &prospect,
                        lender->is_commons ? "The windows of this guest have no such piece"
                                           : "The device's reserved regions have no such piece");
                return request->want.size > prospect.reachable ? -request->failure.error : 0;
        }
        LL_FOREACH(broker->supplies, supply) {
                if (supply_suits(supply, request))
                        prospect_add(&prospect, supply, request);
                else
                        prospect.apart |= supply->info.flags & SOURCE_GUESTS && !supply_grants(supply, request);
        }
        if (!prospect.returning && prospect.reachable < request->want.size) {
                if (!prospect.reachable && request->want.limit != UINT64_MAX)
                        explain(request, REASON_mask, &prospect,
                                "No source has memory that this mask reaches");
                else
                        explain(request, REASON_no_memory, &prospect,
                                prospect.apart ? "There is not enough memory, even if all of it were free, but for what only "
                                                 "guests can map"
                                               : "There is not enough memory, even if all of it were free");
                return -request->failure.error;
        }
        prospect.promised = !guarantee_allows(request->owner, true, request->want.limit <= LOW_LIMIT ? request->want.size : 0,
                                              request->want.limit <= LOW_LIMIT ? 0 : request->want.size);
        prospect_own(&prospect, request);
        /* Memory above 4 GiB may become free, so it is worth waiting: but if not, this is why. */
        if (prospect.largest >= request->want.size &&
            device_check(request->device, QUOTA_low_bytes, request->want.size, &request->failure) < 0)
                return 0;
        explain(request,
                prospect.promised || prospect.kept || prospect.free < request->want.size ? REASON_no_memory
                                                                                         : REASON_no_contiguous, &prospect,
                prospect.promised ? "What is free is guaranteed to other owners"
                : prospect.kept ? "What is free is kept for requests of high priority"
                : prospect.largest >= request->want.size
                        ? "What is free is kept for narrower masks, or does not suit alignment or boundary"
                        : "There is no free machine-contiguous piece of this size");
        return 0;
}

/* ---- the attempt ---- */

/* -ENOSPC: there is nothing more to be had. */
static int attempt_all(struct request *request) {
        struct broker *broker = request->owner->broker;
        struct supply *supply;
        bool reclaimed = false;
        int tier, r;

        for (tier = 0; tier < TIERS; tier++) {
                LL_FOREACH(broker->supplies, supply) {
                        r = tier_try(request, supply, tier);
                        if (r != -ENOSPC)
                                return r;
                }
                if (tier == 0 && fetch_high(request))
                        return ATTEMPT_WORKING;
        }
        r = bring_any(request);
        if (r != -ENOSPC)
                return r;
        LL_FOREACH(broker->supplies, supply)
                reclaimed |= reclaim(supply, request);
        return reclaimed ? ATTEMPT_BLOCKED : -ENOSPC;
}

static int attempt_reserve(struct request *request) {
        return arena_try(request, request_reserve(request)->reserve, &request->want);
}

/* What pools give back is in the owner's windows at once, or its region becomes one that can be reclaimed. */
static int attempt_until(struct request *request, int (*attempt)(struct request *request)) {
        struct broker *broker = request->owner->broker;
        int r;

        do {
                r = attempt(request);
                /* Whoever may not wait is told why, also when memory is on its way. */
                if (r == ATTEMPT_BLOCKED && !request->failure.error)
                        request_explain(request);
                if (r != -ENOSPC)
                        return r;
                r = request_explain(request);
                if (r < 0)
                        return r;
        } while (pools_reclaim(broker, request) || bounces_reclaim(broker, request));
        leases_recall(broker, request);
        return ATTEMPT_BLOCKED;
}

int request_attempt(struct request *request) {
        int r;

        if (request->attempts >= ATTEMPTS_MAX && !request->wait_ms)
                return failure_set(&request->failure, REASON_source_unavailable,
                                   "The memory sources are too busy; the request was tried %d times", ATTEMPTS_MAX);
        if (request->anonymous)
                return attempt_anonymous(request);
        if (request->kind == REQUEST_RESERVE)
                return attempt_until(request, attempt_all);
        r = device_check(request->device, QUOTA_bytes, request->want.size, &request->failure);
        if (r == 0 && !request->swap)
                r = device_check(request->device, QUOTA_allocs, 1, &request->failure);
        if (r < 0)
                return r;
        return attempt_until(request, request_reserve(request) ? attempt_reserve : attempt_all);
}

bool request_possible(struct request *request) {
        const struct device *lender = request_reserve(request);
        struct arena_block block;
        struct supply *supply;
        struct window *window;
        uint64_t free_bytes, largest;

        if (lender) {
                if (lender->reserve && arena_find(lender->reserve, &request->want, &block) == 0)
                        return true;
                request_explain(request);
                return false;
        }
        if (request->kind == REQUEST_ALLOC)
                LL_FOREACH(request->owner->windows, window)
                        if (window->supply != request->owner->broker->anonymous &&
                            arena_find(window->arena, &request->want, &block) == 0)
                                return true;
        LL_FOREACH(request->owner->broker->supplies, supply) {
                if (!supply_suits(supply, request))
                        continue;
                supply_usage(supply, request->want.limit, &free_bytes, &largest);
                if (largest >= request->want.size || supply->info.available >= request->want.size)
                        return true;
        }
        request_explain(request);
        return false;
}
