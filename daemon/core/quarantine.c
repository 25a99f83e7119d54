/* Quarantine: memory that nobody has any more, but that a device may still write. It rests until its time is over, its device
 * was closed, or an administrator says that the devices are quiet. So does what may be somebody's (bar.c).
 *
 * Whatever rests has a struct resting of its own from the start, so that no memory is needed when a client vanishes. They hang
 * together as a pairing heap, the one whose time is over first at the top: each may rest as long as its device needs, and what
 * is read from the ledger comes in any order. The allocations of a device have a heap of their own, so that they are found
 * with it, and it stands in the heap of all for the first of them. Their kinds know the rest, by struct resting_ops. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

static const struct resting_ops *const kinds[] = {
        [RESTING_ALLOC] = &alloc_resting_ops,
        [RESTING_BLOCKS] = &blocks_resting_ops,
        [RESTING_SLOTS] = &slots_resting_ops,
        [RESTING_REGION] = &bar_resting_ops,
};

static const struct resting_ops *ops_of(const struct resting *resting) {
        return kinds[resting->kind];
}

static struct device *device_of_place(struct resting *stands) {
        return (struct device *)((char *)stands - offsetof(struct device, stands));
}

/* ---- the heap ---- */

/* prev is the sibling before, or of the first child the parent. Both are roots. */
static struct resting *meld(struct resting *a, struct resting *b) {
        struct resting *top = a;

        if (!a || !b)
                return a ? a : b;
        if (b->until_ms < a->until_ms) {
                top = b;
                b = a;
        }
        b->prev = top;
        b->next = top->child;
        if (b->next)
                b->next->prev = b;
        top->child = b;
        return top;
}

/* Siblings, of which the first is given, become one heap: in pairs from the left, and these from the right. */
static struct resting *meld_siblings(struct resting *first) {
        struct resting *pairs = NULL, *one, *other, *heap = NULL;

        while ((one = first)) {
                other = one->next;
                first = other ? other->next : NULL;
                one->next = one->prev = NULL;
                if (other)
                        other->next = other->prev = NULL;
                one = meld(one, other);
                one->next = pairs;
                pairs = one;
        }
        while ((one = pairs)) {
                pairs = one->next;
                one->next = NULL;
                heap = meld(heap, one);
        }
        return heap;
}

static void heap_remove(struct resting **heap, struct resting *resting) {
        struct resting *below = meld_siblings(resting->child);

        if (*heap == resting) {
                *heap = below;
        } else {
                if (resting->prev->child == resting)
                        resting->prev->child = resting->next;
                else
                        resting->prev->next = resting->next;
                if (resting->next)
                        resting->next->prev = resting->prev;
                *heap = meld(*heap, below);
        }
        resting->child = resting->next = resting->prev = NULL;
}

/* There may be too many levels for a recursion. */
struct resting *resting_next(struct resting *resting) {
        if (resting->child)
                return resting->child;
        while (resting && !resting->next) {
                while (resting->prev && resting->prev->child != resting)
                        resting = resting->prev;
                resting = resting->prev;
        }
        return resting ? resting->next : NULL;
}

/* What this is of the heap of all: for a device, the first of its allocations. */
static struct resting *resting_of(struct resting *place) {
        return place && place->kind == RESTING_DEVICE ? device_of_place(place)->resting : place;
}

/* Everything, in no order. after NULL: the first. */
static struct resting *next_of_all(const struct broker *broker, struct resting *after) {
        struct resting *next = after ? resting_next(after) : broker->quarantine;

        if (!next && after && after->kind == RESTING_ALLOC)
                next = resting_next(&resting_alloc(after)->device->stands);
        return resting_of(next);
}

/* ---- coming and going ---- */

uint64_t quarantine_ms(const struct device *device) {
        const struct broker *broker = device->owner->broker;
        const struct template *template;

        HASH_FIND_STR(broker->templates, device->budget->name, template);
        return template && template->options.quarantine_ms ? template->options.quarantine_ms : broker->options.quarantine_ms;
}

uint64_t quarantine_longest(const struct broker *broker) {
        uint64_t longest = broker->options.quarantine_ms;
        const struct template *template;

        for (template = broker->templates; template; template = template->hh.next)
                longest = larger(longest, template->options.quarantine_ms);
        return longest;
}

void quarantine_enter(struct broker *broker, struct resting *resting, enum resting_kind kind, uint64_t until_ms,
                      uint64_t bytes) {
        *resting = (struct resting){ .until_ms = until_ms, .kind = kind, .id = ++broker->last_resting_id };
        broker->quarantine = meld(broker->quarantine, resting);
        broker->resting_bytes += bytes;
}

void quarantine_leave(struct broker *broker, struct resting *resting, uint64_t bytes) {
        heap_remove(&broker->quarantine, resting);
        broker->resting_bytes -= bytes;
}

/* Its heap has changed, and was this one before. */
static void device_stands(struct device *device, const struct resting *before) {
        struct broker *broker = device->owner->broker;

        if (device->resting == before)
                return;
        if (before)
                heap_remove(&broker->quarantine, &device->stands);
        if (!device->resting)
                return;
        device->stands = (struct resting){ .until_ms = device->resting->until_ms, .kind = RESTING_DEVICE };
        broker->quarantine = meld(broker->quarantine, &device->stands);
}

void quarantine_enter_alloc(struct alloc *alloc, uint64_t until_ms) {
        struct device *device = alloc->device;
        struct broker *broker = device->owner->broker;
        struct resting *before = device->resting;

        alloc->resting = (struct resting){ .until_ms = until_ms, .kind = RESTING_ALLOC, .id = ++broker->last_resting_id };
        device->resting = meld(before, &alloc->resting);
        device_stands(device, before);
        alloc->region->n_resting++;
        broker->resting_bytes += alloc_size(alloc);
}

void quarantine_leave_alloc(struct alloc *alloc) {
        struct device *device = alloc->device;
        struct resting *before = device->resting;

        heap_remove(&device->resting, &alloc->resting);
        device_stands(device, before);
        alloc->region->n_resting--;
        device->owner->broker->resting_bytes -= alloc_size(alloc);
}

void quarantine_end_device(struct device *device) {
        struct resting *resting, *others = NULL;

        while ((resting = device->resting)) {
                if (!(resting_alloc(resting)->flags & ALLOC_EXPOSED)) {
                        alloc_free(resting_alloc(resting));
                        continue;
                }
                heap_remove(&device->resting, resting);
                device_stands(device, resting);
                resting->next = others;
                others = resting;
        }
        while ((resting = others)) {
                others = resting->next;
                resting->next = NULL;
                device->resting = meld(device->resting, resting);
        }
        device_stands(device, NULL);
}

void quarantine_tick(struct broker *broker, uint64_t now) {
        struct resting *first;

        while ((first = resting_of(broker->quarantine)) && first->until_ms <= now)
                ops_of(first)->end(first);
}

uint64_t quarantine_deadline(const struct broker *broker) {
        return broker->quarantine ? broker->quarantine->until_ms : UINT64_MAX;
}

uint64_t broker_quarantined(const struct broker *broker) {
        return broker->resting_bytes;
}

/* ---- the outside's view ---- */

static void look(const struct resting *resting, uint64_t now, struct quarantine_view *ret) {
        *ret = (struct quarantine_view){ .id = resting->id, .reason = QUARANTINE_VANISHED };
        ops_of(resting)->look(resting, ret);
        ret->age_ms = now - smaller(now, ret->since_ms);
        ret->left_ms = resting->until_ms == UINT64_MAX ? QUARANTINE_ENDLESS
                                                       : larger(resting->until_ms, now) - now;
}

struct pick {
        struct resting **items;
        size_t n, capacity;
};

static int pick_add(struct pick *pick, struct resting *resting) {
        struct resting **items;

        if (pick->n == pick->capacity) {
                pick->capacity = 2 * pick->n + 64;
                items = realloc(pick->items, pick->capacity * sizeof(*items));
                if (!items)
                        return -ENOMEM;
                pick->items = items;
        }
        pick->items[pick->n++] = resting;
        return 0;
}

static int pick_order(const void *one, const void *other) {
        const struct resting *a = *(struct resting *const *)one, *b = *(struct resting *const *)other;

        return a->id < b->id ? -1 : a->id > b->id;
}

static bool lies_in(const struct resting *resting, const struct region *region) {
        const struct resting_ops *ops = ops_of(resting);

        return ops->region && ops->region(resting) == region;
}

/* Those of the selection's owner that came after the one it names, in the order in which they came. of: in this region alone,
 * or NULL. */
static int pick_from(const struct selection *selection, const struct region *of, const struct broker *broker,
                     struct pick *ret) {
        struct resting *resting;
        int r = 0;

        *ret = (struct pick){};
        for (resting = next_of_all(broker, NULL); resting && r == 0; resting = next_of_all(broker, resting))
                if (resting->id > selection->after && (!of || lies_in(resting, of)) &&
                    (selection->all || ops_of(resting)->owner(resting) == selection->owner))
                        r = pick_add(ret, resting);
        if (r < 0)
                free(ret->items);
        else if (ret->n)
                qsort(ret->items, ret->n, sizeof(*ret->items), pick_order);
        return r;
}

int quarantine_visit(const struct caller *caller, const char *owner, uint64_t after, quarantine_visit_fn visit,
                     void *userdata, struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct selection selection;
        struct quarantine_view view;
        struct pick pick;
        size_t i;
        int r;

        r = selection_begin(&selection, caller, owner, 0, after, failure);
        if (r < 0)
                return r;
        if (pick_from(&selection, NULL, broker, &pick) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        for (i = 0; i < pick.n; i++) {
                look(pick.items[i], now_ms(broker), &view);
                if (visit(&view, userdata))
                        break;
        }
        free(pick.items);
        return 0;
}

/* ---- an administrator's word ---- */

static int release_all(struct broker *broker, const struct selection *selection, const struct region *of,
                       struct failure *failure) {
        struct pick pick;
        size_t i;

        if (pick_from(selection, of, broker, &pick) < 0)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        /* What ends takes nothing else along that rests. */
        for (i = 0; i < pick.n; i++)
                ops_of(pick.items[i])->end(pick.items[i]);
        free(pick.items);
        return 0;
}

static int release_at(struct broker *broker, const struct selection *selection, uint64_t addr, struct failure *failure) {
        struct resting *resting;

        for (resting = next_of_all(broker, NULL); resting; resting = next_of_all(broker, resting)) {
                if ((!selection->all && ops_of(resting)->owner(resting) != selection->owner) ||
                    !ops_of(resting)->holds(resting, addr))
                        continue;
                ops_of(resting)->end(resting);
                return 0;
        }
        failure_set(failure, REASON_bad_address, "Nothing rests at 0x%llx", (unsigned long long)addr);
        failure_add_hex(failure, "asked", addr);
        return -reason_errno(REASON_bad_address);
}

int quarantine_release(const struct caller *caller, const char *owner, const uint64_t *machine_addr, uint64_t *ret_bytes,
                       struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        uint64_t before = broker->resting_bytes;
        struct selection selection;
        int r;

        if (!caller->admin)
                return failure_set(failure, REASON_not_permitted, "Only an administrator may say that devices are quiet");
        r = selection_begin(&selection, caller, owner, 0, 0, failure);
        if (r == 0)
                r = machine_addr ? release_at(broker, &selection, *machine_addr, failure)
                                 : release_all(broker, &selection, NULL, failure);
        if (r < 0)
                return r;
        /* Everything is nobody's: what was kept and is not known goes back when the next daemon starts. */
        if (selection.all && !machine_addr)
                broker->book.withheld = false;
        *ret_bytes = before - broker->resting_bytes;
        requests_serve(broker);
        return 0;
}

int quarantine_release_region(const struct caller *caller, uint64_t handle, struct failure *failure) {
        const struct selection everything = { .all = true };
        struct broker *broker = caller->session->owner->broker;
        struct region *region = NULL;
        int r;

        if (!caller->admin)
                return failure_set(failure, REASON_not_permitted, "Only an administrator may say that devices are quiet");
        r = region_find(caller, handle, &region, failure);
        if (r == 0)
                r = release_all(broker, &everything, region, failure);
        if (r == 0)
                requests_serve(broker);
        return r;
}

/* ---- the books ---- */

void check_quarantine(struct check *check, const struct broker *broker) {
        struct quarantine_view view;
        const struct supply *supply;
        struct resting *resting;
        uint64_t bytes = 0, allocs = 0, in_regions = 0;
        size_t i;

        for (resting = next_of_all(broker, NULL); resting; resting = next_of_all(broker, resting)) {
                look(resting, now_ms(broker), &view);
                bytes += view.bytes;
                allocs += resting->kind == RESTING_ALLOC;
                if (resting->child && resting->child->until_ms < resting->until_ms)
                        check_complain(check, "quarantine", 0, "What rests for less comes after what rests for more");
        }
        check_equal(check, "quarantine", 0, "bytes", broker->resting_bytes, bytes);
        LL_FOREACH(every_supply(broker), supply)
                for (i = 0; i < supply->n_regions; i++)
                        in_regions += supply->regions[i]->n_resting;
        check_equal(check, "quarantine", 0, "allocs", in_regions, allocs);
}
