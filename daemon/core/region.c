/* Regions: who has them, when they are in use, and when they go back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

/* The note of a block that is nobody's, in a region that is withdrawn. */
#define KEPT_BACK UINT64_MAX

size_t region_index(const struct supply *supply, uint64_t addr) {
        size_t low = 0, high = supply->n_regions, middle;

        while (low < high) {
                middle = low + (high - low) / 2;
                if (supply->regions[middle]->addr < addr)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static int regions_reserve(struct supply *supply) {
        struct region **regions;
        size_t capacity;

        if (supply->n_regions + supply->pending < supply->regions_capacity)
                return 0;
        capacity = 2 * (supply->n_regions + supply->pending) + 16;
        regions = realloc(supply->regions, capacity * sizeof(struct region *));
        if (!regions)
                return -ENOMEM;
        supply->regions = regions;
        supply->regions_capacity = capacity;
        return 0;
}

static struct window *window_of(struct owner *owner, struct supply *supply, int node) {
        struct window *window;

        LL_FOREACH(owner->windows, window)
                if (window->supply == supply && window->node == node)
                        return window;
        window = calloc(1, sizeof(*window));
        if (!window)
                return NULL;
        *window = (struct window){ .supply = supply, .node = node };
        if (arena_new(PAGE, &window->arena) < 0) {
                free(window);
                return NULL;
        }
        LL_PREPEND(owner->windows, window);
        return window;
}

enum quota_kind supply_quota(const struct supply *supply) {
        return supply->info.flags & SOURCE_ANONYMOUS ? QUOTA_anonymous_bytes : QUOTA_held_bytes;
}

bool region_is_anonymous(const struct region *region) {
        return region->supply->info.flags & SOURCE_ANONYMOUS;
}

uint64_t supply_granted_pages(const struct supply *supply, uint64_t size) {
        return supply->info.flags & SOURCE_GUESTS ? (size + PAGE - 1) / PAGE : 0;
}

void region_hold(struct region *region) {
        region->owner->usage.of[QUOTA_grants] += supply_granted_pages(region->supply, region->size);
        if (region_is_anonymous(region))
                region->owner->usage.of[QUOTA_anonymous_bytes] += region->size;
        else
                owner_hold(region->owner, region->addr, region->size);
}

void region_unhold(struct region *region) {
        region->owner->usage.of[QUOTA_grants] -= supply_granted_pages(region->supply, region->size);
        if (region_is_anonymous(region))
                region->owner->usage.of[QUOTA_anonymous_bytes] -= region->size;
        else
                owner_unhold(region->owner, region->addr, region->size);
}

static void charge(struct region *region) {
        region_hold(region);
        region->owner->usage.of[QUOTA_regions]++;
}

static void discharge(struct region *region) {
        region_unhold(region);
        region->owner->usage.of[QUOTA_regions]--;
}

int region_new(struct supply *supply, struct owner *owner, uint64_t addr, uint64_t size, int node, struct region **ret,
               struct failure *failure) {
        struct region *region;
        int r;

        r = owner_check(owner, supply_quota(supply), size, failure);
        if (r == 0)
                r = owner_check(owner, QUOTA_regions, 1, failure);
        if (r == 0)
                r = owner_check(owner, QUOTA_grants, supply_granted_pages(supply, size), failure);
        if (r < 0)
                return r;
        if (supply->broker->counts.regions + supply->pending >= supply->broker->options.regions_max) {
                failure_set(failure, REASON_limit, "The daemon has file descriptors for %llu regions, and so many there are",
                            (unsigned long long)supply->broker->options.regions_max);
                failure_add_number(failure, "limit", supply->broker->options.regions_max);
                return -reason_errno(REASON_limit);
        }
        if (regions_reserve(supply) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        region = calloc(1, sizeof(*region));
        if (!region)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        region->supply = supply;
        region->owner = owner;
        region->state = REGION_CARVING;
        region->addr = addr;
        region->size = size;
        region->node = node;
        charge(region);
        *ret = region;
        return 0;
}

void region_discard(struct region *region) {
        struct owner *owner = region->owner;

        discharge(region);
        free(region);
        owner_forget(owner);
}

struct arena *region_arena(const struct region *region) {
        return region->device ? region->device->reserve : region->window->arena;
}

static void idle_begin(struct region *region) {
        region->idle_since_ms = now_ms(region->supply->broker);
        DL_APPEND2(region->supply->idle, region, idle_prev, idle_next);
}

void region_use(struct region *region, uint64_t size) {
        if (!region->n_allocs++ && !region->device)
                DL_DELETE2(region->supply->idle, region, idle_prev, idle_next);
        region->used += size;
        region->supply->used += size;
        if (region->device && region->device->is_commons)
                region->device->n_lent++;
}

void region_unuse(struct region *region, uint64_t size) {
        struct device *device = region->device;

        region->used -= size;
        region->supply->used -= size;
        region->n_allocs--;
        if (device && device->is_commons && !--device->n_lent)
                device_forget(device);
        if (device || region->n_allocs)
                return;
        idle_begin(region);
        /* Ordinary memory is quickly had again, and others may need it. */
        if (region_is_anonymous(region))
                region_restore(region);
}

static void pieces_remove(struct region *region) {
        uint64_t step = region->stride ? region->stride : region->size;
        uint64_t usable = region->stride ? region->usable : region->size, at;

        for (at = 0; usable && at < region->size; at += step)
                arena_remove(region->device->reserve, region->addr + at, smaller(usable, region->size - at));
}

void region_put_block(struct region *region, uint32_t number) {
        if (region->withdrawn)
                arena_note(region_arena(region), number, KEPT_BACK);
        else
                arena_release(region_arena(region), number, NULL);
}

static int keep_back(struct arena *arena, const struct arena_block *block, bool is_free) {
        struct arena_block taken;
        int r = is_free ? arena_alloc_at(arena, block->addr, block->size, &taken) : 0;

        if (is_free && r == 0)
                arena_note(arena, taken.number, KEPT_BACK);
        return r;
}

static int let_go(struct arena *arena, const struct arena_block *block, bool is_free) {
        if (!is_free && block->note == KEPT_BACK)
                arena_release(arena, block->number, NULL);
        return 0;
}

/* Every block of an exclusive region, until visit fails; it may take or release the block. */
static int blocks_visit(const struct region *region,
                        int (*visit)(struct arena *arena, const struct arena_block *block, bool is_free)) {
        struct arena *arena = region_arena(region);
        uint64_t step = region->stride ? region->stride : region->size;
        uint64_t usable = region->stride ? region->usable : region->size, at, done, size;
        struct arena_block block;
        bool is_free;
        int r = 0;

        for (at = 0; usable && at < region->size && r == 0; at += step) {
                size = smaller(usable, region->size - at);
                for (done = 0; done < size && r == 0; done = block.addr + block.size - (region->addr + at)) {
                        r = arena_lookup(arena, region->addr + at + done, &block, &is_free);
                        if (r == 0)
                                r = visit(arena, &block, is_free);
                }
        }
        return r;
}

int region_withdraw(struct region *region) {
        int r;

        if (region->withdrawn)
                return 0;
        region->withdrawn = true;
        r = blocks_visit(region, keep_back);
        if (r < 0)
                region_reinstate(region);
        return r;
}

void region_reinstate(struct region *region) {
        if (region->withdrawn)
                blocks_visit(region, let_go);
        region->withdrawn = false;
}

/* The usable pieces of an exclusive region become spans of their own, so that nothing crosses what is not usable. */
static int reserve_add(struct region *region) {
        struct device *device = region->device;
        uint64_t step = region->stride ? region->stride : region->size;
        uint64_t usable = region->stride ? region->usable : region->size, at;
        int r = 0;

        if (!device->reserve) {
                r = arena_new(PAGE, &device->reserve);
                if (r < 0)
                        return r;
        }
        for (at = 0; usable && at < region->size; at += step) {
                r = arena_add(device->reserve, region->addr + at, smaller(usable, region->size - at), 0);
                if (r < 0)
                        break;
        }
        if (r < 0) {
                while (at) {
                        at -= step;
                        arena_remove(device->reserve, region->addr + at, smaller(usable, region->size - at));
                }
                return r;
        }
        device->reserved_bytes += region->size;
        device_charge(device, QUOTA_low_bytes, low_part(region->addr, region->size));
        return 0;
}

static void reserve_remove(struct region *region) {
        pieces_remove(region);
        region->device->reserved_bytes -= region->size;
        device_discharge(region->device, QUOTA_low_bytes, low_part(region->addr, region->size));
        if (!region->device->reserved_bytes)
                region->device->reserve = arena_free(region->device->reserve);
}

int region_join(struct region *region) {
        if (region->device)
                return reserve_add(region);
        region->window = window_of(region->owner, region->supply, region->node);
        return region->window ? arena_add(region->window->arena, region->addr, region->size, 0) : -ENOMEM;
}

void region_enter(struct region *region) {
        struct supply *supply = region->supply;
        size_t index = region_index(supply, region->addr);

        memmove(&supply->regions[index + 1], &supply->regions[index],
                (supply->n_regions - index) * sizeof(struct region *));
        supply->regions[index] = region;
        supply->n_regions++;
        supply->in_regions += region->size;
        supply->broker->counts.regions++;
        region->state = REGION_LIVE;
        DL_APPEND(region->owner->regions, region);
        if (!region->device)
                idle_begin(region);
        book_note(supply->broker, ROW_REGION, region->handle);
}

/* request: what it was carved for; NULL, cancelled or ended: nobody waits for it any more. */
int region_go_live(struct region *region, struct request *request) {
        struct broker *broker = region->supply->broker;
        int r;

        if (request && (request->cancelled || request->ended))
                request = NULL;
        r = handle_new(&broker->handles, HANDLE_REGION, region, &region->handle);
        if (r < 0)
                return r;
        if (request && request->kind == REQUEST_RESERVE) {
                region->device = request->device;
                region->stride = request->stride;
                region->usable = request->usable;
        }
        r = region_join(region);
        if (r < 0) {
                region->device = NULL;
                handle_release(&broker->handles, region->handle, 0);
                return r;
        }
        if (region->device) {
                region->key = request->key;
                request->key = NULL;
                if (region->key)
                        region->key->handle = region->handle;
                request->region = region;
        }
        region_enter(region);
        return 0;
}

/* ---- the ledger ---- */

void region_save(struct row_writer *row, const struct region *region) {
        row_number(row, region->owner->id);
        row_text(row, region->supply->info.name);
        row_number(row, region->id);
        row_number(row, (uint64_t)(region->node + 1));
        row_number(row, region->addr);
        row_number(row, region->size);
        row_number(row, region->device ? region->device->handle : 0);
        row_number(row, region->stride);
        row_number(row, region->usable);
        row_key(row, region->key);
}

/* ret_is_void: nothing of it can be there. */
static struct supply *load_supply(struct load *load, bool *ret_is_void) {
        const struct ledger *ledger = load->broker->book.ledger;
        const char *name = row_read_text(&load->row);
        struct supply *supply;

        *ret_is_void = name && ledger->ops->is_void(ledger, name);
        if (*ret_is_void)
                return NULL;
        LL_FOREACH(every_supply(load->broker), supply)
                if (name && strcmp(supply->info.name, name) == 0)
                        return supply;
        if (name)
                failure_set(load->failure, REASON_source_unavailable, "the ledger knows of memory of the source %s, which is "
                            "not configured now: configure it as before, or end everything with --discard-state", name);
        return NULL;
}

/* A device that was closed while something was on its way to it has left its reserve: an ordinary region from here on, in
 * which its memory may still rest. */
static void region_read(struct load *load, struct region *ret) {
        ret->id = row_read_number(&load->row);
        ret->node = (int)row_read_number(&load->row) - 1;
        ret->addr = row_read_number(&load->row);
        ret->size = row_read_number(&load->row);
        ret->device = load_object(load, HANDLE_DEVICE);
        ret->stride = row_read_number(&load->row);
        ret->usable = row_read_number(&load->row);
        if (!ret->device)
                ret->stride = ret->usable = 0;
        load->row.failed |= !ret->size || ret->addr + ret->size < ret->addr || (ret->addr | ret->size) % PAGE ||
                            (ret->stride | ret->usable) % PAGE || ret->usable > ret->stride ||
                            ret->size / PAGE > UINT32_MAX;
}

/* -ENOENT: the memory is gone. */
static int region_adopt(struct load *load, struct region *region) {
        const struct source_ops *ops = region->supply->source->ops;
        struct failure why = {};
        int r;

        if (supply_claims(region->supply, region->addr, region->size))
                return -EBADMSG;
        r = ops->adopt ? ops->adopt(region->supply->source, region->id, region->addr, region->size, region->node,
                                    &region->backing, &why)
                       : -ENOENT;
        if (r == -ENOENT || r == -EINVAL)
                load->broker->book.lost_bytes += region->size;
        else if (r < 0 && r != -EUCLEAN)
                *load->failure = why;
        region->suspect = r == -EUCLEAN;
        return r == -EUCLEAN ? 0 : r == -EINVAL ? -ENOENT : r;
}

int region_load(struct load *load) {
        struct owner *owner = load_owner(load);
        struct region *region = calloc(1, sizeof(*region));
        int r = region ? -ENOENT : -ENOMEM;
        bool is_void;

        if (!region)
                return r;
        region->owner = owner;
        region->supply = load_supply(load, &is_void);
        if (!region->supply && !is_void)
                r = load->failure->error ? -load->failure->error : -EBADMSG;
        if (!owner || (!region->supply && !is_void))
                goto fail;
        region_read(load, region);
        if (is_void) {
                load->broker->book.lost_bytes += region->size;
                goto fail;
        }
        r = load->row.failed ? -EBADMSG : regions_reserve(region->supply);
        if (r == 0)
                r = region_adopt(load, region);
        if (r < 0)
                goto fail;
        r = handle_restore(&load->broker->handles, HANDLE_REGION, region, load->id);
        region->handle = load->id;
        if (r == 0) {
                r = region_join(region);
                if (r < 0)
                        handle_release(&load->broker->handles, load->id, 0);
        }
        /* It is a source's already, and in no books: the start fails, and the memory stays where it is. */
        if (r < 0) {
                failure_set_errno(load->failure, REASON_source_unavailable, -r, "the ledger tells of region %llu, "
                                  "which cannot "
                                  "be: %s", (unsigned long long)load->id, strerror(-r));
                r = -EIO;
                goto fail;
        }
        charge(region);
        region->supply->held += region->size;
        region->supply->held_low += low_part(region->addr, region->size);
        region->key = load_key(load, owner, HANDLE_REGION);
        load->broker->last_region_id = larger(load->broker->last_region_id, region->id);
        region_enter(region);
        return 0;

fail:
        free(region);
        return r;
}

void region_restore(struct region *region) {
        struct supply *supply = region->supply;
        size_t index = region_index(supply, region->addr);

        if (region->device) {
                region_reinstate(region);
                reserve_remove(region);
        }
        if (region->device && region->device->is_commons)
                region->device->n_lent -= region->n_allocs;
        if (!region->device) {
                arena_remove(region->window->arena, region->addr, region->size);
                DL_DELETE2(supply->idle, region, idle_prev, idle_next);
        }
        supply->n_regions--;
        memmove(&supply->regions[index], &supply->regions[index + 1],
                (supply->n_regions - index) * sizeof(struct region *));
        supply->in_regions -= region->size;
        supply->used -= region->used;
        region->used = region->n_allocs = 0;
        supply->broker->counts.regions--;
        handle_release(&supply->broker->handles, region->handle, region->owner->id);
        book_note(supply->broker, ROW_REGION, region->handle);
        DL_DELETE(region->owner->regions, region);
        key_forget(region->owner, region->key);
        region->key = NULL;
        region->device = NULL;
        region->window = NULL;
        region->state = REGION_RESTORING;
        if (region->checks)
                region->restore_wanted = true;
        else
                supply_restore(region);
}

struct region *region_at(struct broker *broker, uint64_t addr) {
        struct supply *supply;
        struct region *region;
        size_t index;

        LL_FOREACH(every_supply(broker), supply) {
                index = region_index(supply, addr);
                if (index < supply->n_regions && supply->regions[index]->addr == addr)
                        return supply->regions[index];
                region = index ? supply->regions[index - 1] : NULL;
                if (region && addr - region->addr < region->size)
                        return region;
        }
        return NULL;
}

/* ---- the outside's view ---- */

static void region_view(const struct region *region, struct region_view *ret) {
        *ret = (struct region_view){
                .handle = region->handle,
                .device = region->device ? region->device->handle : 0,
                .owner = region->owner->name,
                .source = region->supply->info.name,
                .node = region->node,
                .size = region->size,
                .used = region->used,
                .allocs = region->n_allocs,
                .resting = region->n_resting,
                .barred = region->bar,
                .machine_addr = region_is_anonymous(region) ? 0 : region->addr,
                .anonymous = region_is_anonymous(region),
                .simulated = region->supply->info.flags & SOURCE_SIMULATED,
        };
}

int region_find(const struct caller *caller, uint64_t handle, struct region **ret, struct failure *failure) {
        struct region *region = handle_find(&caller->session->owner->broker->handles, HANDLE_REGION, handle);

        if (!region || (region->owner != caller->session->owner && !caller->admin))
                return handle_not_found(caller, HANDLE_REGION, handle, failure);
        *ret = region;
        return 0;
}

int region_get(const struct caller *caller, uint64_t handle, struct region_view *ret, struct failure *failure) {
        struct region *region = NULL;
        int r;

        r = region_find(caller, handle, &region, failure);
        if (r == 0)
                region_view(region, ret);
        return r;
}

int region_fd(const struct caller *caller, uint64_t handle, int *ret_fd, struct failure *failure) {
        struct region *region = NULL;
        int r;

        r = region_find(caller, handle, &region, failure);
        if (r < 0)
                return r;
        if (region->owner != caller->session->owner)
                return failure_set(failure, REASON_not_permitted, "The memory of a region goes to its owner only");
        *ret_fd = region->supply->source->ops->backing_fd(region->backing);
        if (*ret_fd < 0)
                return failure_set(failure, REASON_unsupported, "The memory of the source %s has no file that could be "
                                   "passed",
                                   region->supply->info.name);
        return 0;
}

int region_write(const struct caller *caller, uint64_t handle, uint64_t offset, const void *buffer, uint64_t size,
                 struct failure *failure) {
        struct region *region = NULL;
        int r;

        r = region_find(caller, handle, &region, failure);
        if (r < 0)
                return r;
        r = region->supply->source->ops->backing_write(region->backing, offset, buffer, size);
        return r < 0 ? failure_set_errno(failure, REASON_source_unavailable, -r, "The region cannot be written to: %s",
                                         strerror(-r))
                     : 0;
}

int region_visit(const struct caller *caller, const char *name, uint64_t after, region_visit_fn visit, void *userdata,
                 struct failure *failure) {
        struct selection selection;
        struct region_view view;
        struct region *region;
        int r;

        r = selection_begin(&selection, caller, name, 0, after, failure);
        if (r < 0)
                return r;
        while ((region = selection_next(&selection, HANDLE_REGION))) {
                if (!selection_has(&selection, region->owner, region->device))
                        continue;
                region_view(region, &view);
                if (visit(&view, userdata))
                        break;
        }
        return 0;
}
