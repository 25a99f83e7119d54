/* debug.check: every invariant of the books, then every region against its source. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

struct check {
        problem_fn problem;
        void (*done)(void *userdata, uint64_t checked);
        void *userdata;
        uint64_t checked;
        uint64_t verifying; /* regions whose verification is under way, and one for the start */
};

void check_complain(struct check *check, const char *what, uint64_t handle, const char *format, ...) {
        char text[256];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        check->problem(check->userdata, what, text, handle);
}

void check_equal(struct check *check, const char *what, uint64_t handle, const char *name, uint64_t said,
                        uint64_t counted) {
        check->checked++;
        if (said != counted)
                check_complain(check, what, handle, "%s is said to be %llu, but %llu were counted", name,
                         (unsigned long long)said, (unsigned long long)counted);
}

void check_arena(struct check *check, const char *what, const struct arena *arena) {
        char text[200];

        check->checked++;
        if (arena_check(arena, text, sizeof(text)) < 0)
                check_complain(check, what, 0, "%s", text);
}

static void check_alloc(struct check *check, const struct alloc *alloc, struct quota *counted) {
        const uint64_t handle = alloc->flags & ALLOC_RESTING ? 0 : alloc->handle;
        const uint64_t addr = alloc_addr(alloc), size = alloc_size(alloc);
        const struct region *region = alloc->region;
        struct arena_block block;
        bool is_free;

        check->checked++;
        if (arena_lookup(region_arena(region), addr, &block, &is_free) < 0 || is_free || block.number != alloc->block)
                check_complain(check, "alloc", handle, "The allocator does not know of 0x%llx",
                         (unsigned long long)addr);
        if (addr < region->addr || addr + size > region->addr + region->size)
                check_complain(check, "alloc", handle, "0x%llx lies outside its region", (unsigned long long)addr);
        if (region_is_anonymous(region) != alloc_is_anonymous(alloc))
                check_complain(check, "alloc", handle, "It is said to be %sswapped out, but lies where it is not",
                               alloc_is_anonymous(alloc) ? "" : "not ");
        if (region->owner != alloc->device->owner)
                check_complain(check, "alloc", handle, "Its region belongs to %s, its device to %s", region->owner->name,
                               alloc->device->owner->name);
        if (region->device && !device_lends(region->device, alloc->device))
                check_complain(check, "alloc", handle, "Its region is reserved for another device");
        counted->of[QUOTA_bytes] += alloc_is_anonymous(alloc) ? 0 : size;
        if (!region->device)
                counted->of[QUOTA_low_bytes] += low_part(addr, size);
        counted->of[QUOTA_allocs]++;
}

static void check_device(struct check *check, const struct device *device, struct quota *counted) {
        const struct region *region;
        const struct alloc *alloc;
        struct resting *resting;

        counted->of[QUOTA_devices] += !device->closed;
        if (device->reserve)
                check_arena(check, "device", device->reserve);
        DL_FOREACH(device->allocs, alloc)
                check_alloc(check, alloc, counted);
        for (resting = device->resting; resting; resting = resting_next(resting))
                check_alloc(check, resting_alloc(resting), counted);
        if (device->resting && device->stands.until_ms != device->resting->until_ms)
                check_complain(check, "device", device->handle, "It does not stand for what rests of it");
        DL_FOREACH(device->owner->regions, region)
                if (region->device == device)
                        counted->of[QUOTA_low_bytes] += low_part(region->addr, region->size);
        check_pools(check, device, counted);
        check_bounces(check, device, counted);
        check_mappings(check, device, counted);
}

static void check_charges(struct check *check, const char *what, const struct quota *said, const struct quota *counted) {
        static const enum quota_kind kinds[] = { QUOTA_bytes, QUOTA_low_bytes, QUOTA_allocs,  QUOTA_devices,
                                                 QUOTA_pools, QUOTA_leases,    QUOTA_mappings };
        size_t i;

        for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
                check_equal(check, what, 0, quota_name(kinds[i]), said->of[kinds[i]], counted->of[kinds[i]]);
}

struct window_check {
        struct check *check;
        const struct window *window;
        struct broker *broker;
};

static int check_block(const struct arena_block *block, bool is_free, void *userdata) {
        const struct window_check *of = userdata;
        const struct region *region = region_at(of->broker, block->addr);

        of->check->checked++;
        if (!region || region->window != of->window || block->addr - region->addr > region->size - block->size)
                check_complain(of->check, "owner", 0, "0x%llx is in the owner's window, but in no region of it",
                               (unsigned long long)block->addr);
        return 0;
}

static void check_window(struct check *check, const struct owner *owner, const struct window *window) {
        struct window_check of = { .check = check, .window = window, .broker = owner->broker };

        check_arena(check, "owner", window->arena);
        arena_visit(window->arena, check_block, &of);
}

static void check_owner(struct check *check, const struct owner *owner) {
        struct quota counted = {}, of_budget, usage;
        uint64_t held = 0, held_low = 0, anonymous = 0, grants = 0;
        const struct region *region;
        const struct window *window;
        const struct device *device;
        const struct budget *budget;
        int kind;

        DL_FOREACH(owner->budgets, budget) {
                of_budget = (struct quota){};
                DL_FOREACH(owner->devices, device)
                        if (device->budget == budget)
                                check_device(check, device, &of_budget);
                /* That there are so many devices is not a charge of theirs. */
                usage = budget->usage;
                usage.of[QUOTA_devices] = of_budget.of[QUOTA_devices];
                check_charges(check, "device", &usage, &of_budget);
                for (kind = 0; kind < QUOTA_KINDS; kind++)
                        counted.of[kind] += of_budget.of[kind];
        }
        LL_FOREACH(owner->windows, window)
                check_window(check, owner, window);
        DL_FOREACH(owner->regions, region) {
                check->checked++;
                if (region_is_anonymous(region))
                        anonymous += region->size;
                else
                        held += region->size;
                held_low += low_part(region->addr, region->size);
                grants += supply_granted_pages(region->supply, region->size);
        }
        if (broker_settled(owner->broker)) {
                check_equal(check, "owner", 0, "held_bytes", owner->usage.of[QUOTA_held_bytes], held);
                check_equal(check, "owner", 0, "anonymous_bytes", owner->usage.of[QUOTA_anonymous_bytes], anonymous);
                check_equal(check, "owner", 0, "grants", owner->usage.of[QUOTA_grants],
                            grants + grants_count_pages(owner));
                check_equal(check, "owner", 0, "low held_bytes", owner->held_low, held_low);
        }
        check_charges(check, "owner", &owner->usage, &counted);
}

/* Nothing lies where something else does: neither two regions, nor a region and stock. */
static void check_places(struct check *check, const struct supply *supply) {
        const struct region *region, *before = NULL;
        struct arena_block block;
        bool is_free;
        size_t i, j;

        for (i = 0; i < supply->n_regions; i++) {
                region = supply->regions[i];
                check->checked++;
                if (before && before->addr + before->size > region->addr)
                        check_complain(check, "region", region->handle, "It overlaps region %llu",
                                 (unsigned long long)before->handle);
                for (j = 0; j < supply->n_stocks; j++)
                        if (arena_lookup(supply->stocks[j].arena, region->addr, &block, &is_free) == 0)
                                check_complain(check, "region", region->handle, "Its memory is also in stock");
                before = region;
        }
}

static void check_supply(struct check *check, const struct supply *supply) {
        uint64_t in_regions = 0, used = 0, free_bytes = 0;
        struct arena_usage usage;
        size_t i;

        for (i = 0; i < supply->n_stocks; i++) {
                check_arena(check, "source", supply->stocks[i].arena);
                arena_usage(supply->stocks[i].arena, &usage);
                free_bytes += usage.free_bytes;
        }
        for (i = 0; i < supply->n_regions; i++) {
                in_regions += supply->regions[i]->size;
                used += supply->regions[i]->used;
        }
        check_equal(check, "source", 0, "free", supply->free, free_bytes);
        check_equal(check, "source", 0, "in_regions", supply->in_regions, in_regions);
        check_equal(check, "source", 0, "used", supply->used, used);
        if (!supply->pending)
                check_equal(check, "source", 0, "total", supply->held, free_bytes + in_regions);
        check_places(check, supply);
}

static void check_put(struct check *check) {
        if (--check->verifying)
                return;
        check->done(check->userdata, check->checked);
        free(check);
}

static void verified(struct supply_job *job) {
        struct check *check = job->userdata;

        check->checked += job->job.size / job->region->supply->info.grain;
        if (job->job.status < 0)
                check_complain(check, "memory", job->region->handle, "%s",
                         job->job.failure->error ? job->job.failure->sentence : strerror(-job->job.status));
        check_put(check);
}

void broker_check(struct broker *broker, problem_fn problem, void (*done)(void *userdata, uint64_t checked),
                  void *userdata) {
        struct check *check = calloc(1, sizeof(*check));
        struct guarantee unmet, granted;
        struct supply *supply;
        struct owner *owner;
        size_t i;

        if (!check) {
                problem(userdata, "daemon", "The daemon itself is out of memory", 0);
                done(userdata, 0);
                return;
        }
        *check = (struct check){ .problem = problem, .done = done, .userdata = userdata, .verifying = 1 };
        check_book(check, broker);
        for (owner = broker->owners; owner; owner = owner->hh.next)
                check_owner(check, owner);
        unmet = guarantees_count(broker, false);
        granted = guarantees_count(broker, true);
        check_equal(check, "daemon", 0, "unmet", broker->unmet[false].bytes, unmet.bytes);
        check_equal(check, "daemon", 0, "unmet low", broker->unmet[false].low_bytes, unmet.low_bytes);
        check_equal(check, "daemon", 0, "unmet of guests", broker->unmet[true].bytes, granted.bytes);
        check_equal(check, "daemon", 0, "unmet low of guests", broker->unmet[true].low_bytes, granted.low_bytes);
        check_quarantine(check, broker);
        LL_FOREACH(every_supply(broker), supply) {
                check_supply(check, supply);
                for (i = 0; i < supply->n_regions; i++) {
                        check->verifying++;
                        if (supply_verify(supply->regions[i], verified, check) < 0) {
                                check_complain(check, "memory", supply->regions[i]->handle, "It could not be verified");
                                check->verifying--;
                        }
                }
        }
        check_put(check);
}
