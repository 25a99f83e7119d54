/* The broker as a whole: its beginning, its clock, its end, and what it tells of itself. */
#include "daemon/core/broker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

void broker_options_default(struct broker_options *ret) {
        int kind;

        *ret = (struct broker_options){
                .region_idle_ms = 5000,
                .low_keep_percent = 50,
                .emergency_permille = 15,
                .emergency_max = UINT64_C(64) << 20,
                .regions_max = UINT64_MAX,
                .quarantine_ms = 1000,
        };
        for (kind = 0; kind < QUOTA_KINDS; kind++)
                ret->quota.of[kind] = QUOTA_UNLIMITED;
}

int broker_new(const struct broker_options *options, struct broker **ret) {
        struct broker *broker = calloc(1, sizeof(*broker));

        if (!broker)
                return -ENOMEM;
        broker->options = *options;
        broker->book.held_tail = &broker->book.held;
        broker->quota_changes = 1;
        handle_table_init(&broker->handles);
        *ret = broker;
        return 0;
}

void broker_reconfigure(struct broker *broker, const struct broker_options *options) {
        struct broker_options next = *options;
        struct owner *owner;

        next.now_ms = broker->options.now_ms;
        next.userdata = broker->options.userdata;
        next.translators = broker->options.translators;
        broker->options = next;
        for (owner = broker->owners; owner; owner = owner->hh.next)
                if (!owner->quota_set)
                        owner->quota = next.quota;
        broker->quota_changes++;
        requests_serve(broker);
}

bool broker_settled(const struct broker *broker) {
        const struct supply *supply;

        LL_FOREACH(every_supply(broker), supply)
                if (supply->pending)
                        return false;
        return true;
}

static void owner_end(struct owner *owner) {
        struct device *device, *next_device;
        struct region *region, *next;

        owner->quota_set = true; /* keeps it until the end */
        while (owner->sessions)
                session_close(owner->sessions);
        owner_unbar(owner);
        DL_FOREACH_SAFE(owner->devices, device, next_device) {
                device->n_requests++; /* keeps it while its allocations go */
                while (device->allocs)
                        alloc_free(device->allocs);
                while (device->resting)
                        alloc_free(resting_alloc(device->resting));
                device->n_requests--;
                device_forget(device);
        }
        DL_FOREACH_SAFE(owner->regions, region, next)
                if (!region->n_allocs)
                        region_restore(region);
}

static void broker_wait(struct broker *broker) {
        struct supply *supply;

        while (!broker_settled(broker)) {
                /* A ledger that cannot be written holds nothing up any more. */
                broker_commit(broker);
                book_release(broker);
                LL_FOREACH(every_supply(broker), supply)
                        if (supply->pending)
                                supply_wait(supply);
        }
}

static void broker_delete(struct broker *broker) {
        struct template *template, *next;

        HASH_ITER(hh, broker->templates, template, next) {
                HASH_DEL(broker->templates, template);
                template_free(template);
        }
        row_deinit(&broker->book.row);
        free(broker->book.notes);
        handle_table_deinit(&broker->handles);
        free(broker->trays); /* the one that is left, with nothing in it */
        free(broker);
}

/* What the sources are doing is done to its end, and what follows from it is written down; nothing else is begun. Then the
 * books are closed as always, but for the ledger, and with sources that do nothing more. */
struct broker *broker_leave(struct broker *broker) {
        struct supply *supply;

        if (!broker)
                return NULL;
        LL_FOREACH(every_supply(broker), supply)
                while (supply->submitted)
                        supply_wait(supply);
        broker->leaving = true; /* jobs that wait for the commit are the next daemon's */
        broker_commit(broker);
        broker->book.ledger = NULL;
        return broker_free(broker);
}

struct broker *broker_free(struct broker *broker) {
        struct supply *supply, *next_supply;
        struct owner *owner, *next_owner;

        if (!broker)
                return NULL;
        releases_end(broker);
        for (owner = broker->owners; owner; owner = owner->hh.next)
                owner_end(owner);
        broker_wait(broker);
        /* What was under way when its owner ended has become an unused region meanwhile. */
        for (owner = broker->owners; owner; owner = owner->hh.next)
                owner_end(owner);
        broker_wait(broker);
        LL_FOREACH_SAFE(every_supply(broker), supply, next_supply)
                supply_free(supply);
        /* What an administrator has said of owners stays. */
        broker_commit(broker);
        broker->book.ledger = NULL;
        HASH_ITER(hh, broker->owners, owner, next_owner)
                owner_free(owner);
        broker_delete(broker);
        return NULL;
}

uint64_t broker_deadline(const struct broker *broker) {
        uint64_t deadline = smaller(requests_deadline(broker), smaller(pools_deadline(broker), bounces_deadline(broker)));
        const struct supply *supply;

        deadline = smaller(deadline, smaller(waiters_deadline(broker), quarantine_deadline(broker)));
        deadline = smaller(deadline, releases_deadline(broker));
        LL_FOREACH(every_supply(broker), supply)
                deadline = smaller(deadline, supply_deadline(supply));
        return deadline;
}

void broker_tick(struct broker *broker) {
        uint64_t now = now_ms(broker);
        struct supply *supply;

        quarantine_tick(broker, now);
        pools_tick(broker, now);
        bounces_tick(broker, now);
        waiters_tick(broker, now);
        requests_tick(broker, now);
        LL_FOREACH(every_supply(broker), supply)
                supply_tick(supply, now);
}

/* ---- what there is ---- */

static void supply_look(const struct supply *supply, struct source_view *ret) {
        struct source_view view = { .info = supply->info };
        uint64_t free_bytes;

        supply_usage(supply, UINT64_MAX, &free_bytes, &view.largest_free);
        view.total = supply->held;
        view.free = supply->free;
        view.in_regions = supply->in_regions;
        view.used = supply->used;
        view.low_total = supply->held_low;
        view.low_free = supply->free_low;
        view.emergency = supply_emergency(supply);
        view.pending = supply->pending;
        view.lost = supply->lost;
        view.awaited = supply->awaited;
        *ret = view;
}

int broker_visit_sources(struct broker *broker, source_visit_fn visit, void *userdata) {
        struct source_view view;
        struct supply *supply;
        int r;

        LL_FOREACH(broker->supplies, supply) {
                supply->source->ops->describe(supply->source, &supply->info);
                supply_look(supply, &view);
                r = visit(&view, userdata);
                if (r)
                        return r;
        }
        return 0;
}

bool broker_anonymous(struct broker *broker, struct source_view *ret) {
        struct supply *supply = broker->anonymous;

        if (!supply)
                return false;
        supply->source->ops->describe(supply->source, &supply->info);
        supply_look(supply, ret);
        return true;
}

struct stock_visit {
        const char *source;
        run_visit_fn visit;
        void *userdata;
};

static int stock_visit(const struct arena_block *block, bool is_free, void *userdata) {
        struct stock_visit *state = userdata;

        return state->visit(state->source, block->addr, block->size, state->userdata);
}

int broker_visit_stock(struct broker *broker, run_visit_fn visit, void *userdata) {
        struct stock_visit state = { .visit = visit, .userdata = userdata };
        struct supply *supply;
        size_t i;
        int r;

        LL_FOREACH(broker->supplies, supply) {
                state.source = supply->info.name;
                for (i = 0; i < supply->n_stocks; i++) {
                        r = arena_visit(supply->stocks[i].arena, stock_visit, &state);
                        if (r)
                                return r;
                }
        }
        return 0;
}

void broker_counts(const struct broker *broker, struct broker_counts *ret) {
        *ret = broker->counts;
}

int broker_visit_counters(const struct broker *broker, counter_visit_fn visit, void *userdata) {
        static const char *const names[] = {
#define COUNTER_NAME(name) #name,
                COUNTER_LIST(COUNTER_NAME)
#undef COUNTER_NAME
        };
        int i, r;

        for (i = 0; i < COUNTERS; i++) {
                r = visit(names[i], broker->counters[i], userdata);
                if (r)
                        return r;
        }
        return 0;
}

void broker_reset_counters(struct broker *broker) {
        memset(broker->counters, 0, sizeof(broker->counters));
        broker->counters[COUNTER_high_water_bytes] = broker->bytes;
}
