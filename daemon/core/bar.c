/* Bars: parts of a region that seem free but may be somebody's, because a damaged ledger has forgotten whose. Nothing is cut
 * from them until an administrator says that the devices are quiet, or until nobody is left who could have anything there,
 * and the quarantine of whoever it was is over. A bar survives restarts: the ledger is whole again then. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"

struct bar {
        struct resting resting;
        struct region *region;
        uint64_t since_ms, bytes;
        struct arena_block *pieces;
        size_t n, capacity;
        bool failed; /* there was no memory for a piece */
};

static int piece_add(struct bar *bar, const struct arena_block *piece) {
        struct arena_block *pieces;

        if (bar->n == bar->capacity) {
                bar->capacity = 2 * bar->n + 8;
                pieces = realloc(bar->pieces, bar->capacity * sizeof(*pieces));
                if (!pieces)
                        return -ENOMEM;
                bar->pieces = pieces;
        }
        bar->pieces[bar->n++] = *piece;
        return 0;
}

static int piece_note(const struct arena_block *block, bool is_free, void *userdata) {
        struct bar *bar = userdata;

        if (!is_free || block->addr - bar->region->addr >= bar->region->size)
                return 0;
        bar->failed = piece_add(bar, block) < 0;
        return bar->failed;
}

/* Takes those from `from` on. */
static int pieces_take(struct bar *bar, size_t from) {
        struct broker *broker = bar->region->supply->broker;
        struct arena_block *piece;
        size_t i;
        int r;

        for (i = from; i < bar->n; i++) {
                piece = &bar->pieces[i];
                r = arena_alloc_at(region_arena(bar->region), piece->addr, piece->size, piece);
                if (r < 0) {
                        bar->n = i;
                        return r == -ENOMEM ? r : -EBADMSG;
                }
                bar->bytes += piece->size;
                broker->resting_bytes += piece->size;
                broker->book.barred_bytes += piece->size;
        }
        return 0;
}

static struct bar *bar_new(struct region *region, uint64_t since_ms, uint64_t until_ms) {
        struct bar *bar = calloc(1, sizeof(*bar));

        if (!bar)
                return NULL;
        bar->region = region;
        bar->since_ms = since_ms;
        region->bar = bar;
        region_use(region, 0); /* keeps it */
        quarantine_enter(region->supply->broker, &bar->resting, RESTING_REGION, until_ms, 0);
        return bar;
}

static void rest_until(struct bar *bar, uint64_t until_ms) {
        struct broker *broker = bar->region->supply->broker;

        quarantine_leave(broker, &bar->resting, 0);
        quarantine_enter(broker, &bar->resting, RESTING_REGION, until_ms, 0);
}

int region_bar(struct region *region) {
        struct bar *bar = region->bar;
        size_t from;

        if (!bar)
                bar = bar_new(region, now_ms(region->supply->broker), UINT64_MAX);
        if (!bar)
                return -ENOMEM;
        rest_until(bar, UINT64_MAX);
        from = bar->n;
        arena_visit(region_arena(region), piece_note, bar);
        return bar->failed ? -ENOMEM : pieces_take(bar, from);
}

/* It may take the region's device along. */
static void region_unbar(struct region *region) {
        struct broker *broker = region->supply->broker;
        struct bar *bar = region->bar;
        struct device *device = region->device;
        size_t i;

        for (i = 0; i < bar->n; i++)
                region_put_block(region, bar->pieces[i].number);
        broker->book.barred_bytes -= bar->bytes;
        quarantine_leave(broker, &bar->resting, bar->bytes);
        book_drop(broker, ROW_BAR, region->handle);
        region->bar = NULL;
        region_unuse(region, 0);
        free(bar->pieces);
        free(bar);
        if (device)
                device_forget(device);
}

void region_unbar_later(struct region *region) {
        const struct broker *broker = region->supply->broker;

        if (!region->bar || region->bar->resting.until_ms != UINT64_MAX)
                return;
        rest_until(region->bar, later(now_ms(broker), quarantine_longest(broker)));
        bar_save(region);
}

void owner_unbar_later(struct owner *owner) {
        struct region *region;

        DL_FOREACH(owner->regions, region)
                region_unbar_later(region);
}

/* of: of this device only, or NULL. */
static struct region *barred_region(const struct owner *owner, const struct device *of) {
        struct region *region;

        DL_FOREACH(owner->regions, region)
                if (region->bar && (!of || region->device == of))
                        return region;
        return NULL;
}

void device_unbar(struct device *device) {
        struct region *region;

        device->n_requests++; /* keeps it */
        while ((region = barred_region(device->owner, device)))
                region_unbar(region);
        device->n_requests--;
}

void owner_unbar(struct owner *owner) {
        struct region *region;

        while ((region = barred_region(owner, NULL)))
                region_unbar(region);
}

bool device_is_barred(const struct device *device) {
        return device->reserve && barred_region(device->owner, device);
}

/* ---- the ledger ---- */

void bar_save(const struct region *region) {
        struct broker *broker = region->supply->broker;
        const struct bar *bar = region->bar;
        struct row_writer *row = bar ? book_begin(broker) : NULL;
        size_t i;

        if (!row)
                return;
        row_number(row, bar->since_ms);
        row_number(row, bar->resting.until_ms);
        row_number(row, bar->n);
        for (i = 0; i < bar->n; i++) {
                row_number(row, bar->pieces[i].addr - region->addr);
                row_number(row, bar->pieces[i].size);
        }
        book_end(broker, ROW_BAR, region->handle);
}

int bar_load(struct load *load) {
        struct region *region = handle_find(&load->broker->handles, HANDLE_REGION, load->id);
        uint64_t since_ms = row_read_number(&load->row), until_ms = row_read_number(&load->row);
        uint64_t n = row_read_number(&load->row);
        struct arena_block piece = {};
        struct bar *bar;

        if (!region)
                return -ENOENT;
        bar = region->bar ? region->bar : bar_new(region, since_ms, until_ms);
        if (!bar)
                return -ENOMEM;
        for (; n && !load->row.failed; n--) {
                piece.addr = region->addr + row_read_number(&load->row);
                piece.size = row_read_number(&load->row);
                if (!piece.size || piece_add(bar, &piece) < 0)
                        return piece.size ? -ENOMEM : -EBADMSG;
        }
        return pieces_take(bar, 0);
}

/* ---- the quarantine ---- */

static const struct bar *bar_of(const struct resting *resting) {
        return (const struct bar *)resting; /* its first member */
}

static struct owner *bar_owner(const struct resting *resting) {
        return bar_of(resting)->region->owner;
}

static void bar_look(const struct resting *resting, struct quarantine_view *ret) {
        const struct bar *bar = bar_of(resting);
        const struct region *region = bar->region;

        ret->what = QUARANTINE_REGION;
        ret->reason = QUARANTINE_DAMAGED;
        ret->owner = region->owner->name;
        ret->device_name = region->device ? region->device->name : NULL;
        ret->region = region->handle;
        ret->machine_addr = bar->n ? bar->pieces[0].addr : region->addr;
        ret->count = bar->n;
        ret->bytes = bar->bytes;
        ret->since_ms = bar->since_ms;
        ret->simulated = region->supply->info.flags & SOURCE_SIMULATED;
}

static bool bar_holds(const struct resting *resting, uint64_t machine_addr) {
        const struct bar *bar = bar_of(resting);
        size_t i;

        for (i = 0; i < bar->n; i++)
                if (machine_addr >= bar->pieces[i].addr && machine_addr - bar->pieces[i].addr < bar->pieces[i].size)
                        return true;
        return false;
}

static const struct region *region_of(const struct resting *resting) {
        return bar_of(resting)->region;
}

static void bar_end(struct resting *resting) {
        region_unbar(bar_of(resting)->region);
}

const struct resting_ops bar_resting_ops = {
        .owner = bar_owner, .look = bar_look, .holds = bar_holds, .region = region_of, .end = bar_end,
};
