/* Coherent allocations. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"
#include "daemon/probes.h"

/* What is larger than this cannot be told to a client as a JSON number. */
#define SIZE_LIMIT (UINT64_C(1) << HANDLE_BITS)
/* Each usable piece of a reserved region is entered by itself. */
#define PIECES_MAX 65536
#define LARGE_PAGE (UINT64_C(2) << 20)

static struct arena_block block_of(const struct alloc *alloc) {
        return arena_block(region_arena(alloc->region), alloc->block);
}

uint64_t alloc_addr(const struct alloc *alloc) {
        return block_of(alloc).addr;
}

uint64_t alloc_size(const struct alloc *alloc) {
        return block_of(alloc).size;
}

uint64_t alloc_dma_addr(const struct alloc *alloc) {
        return block_of(alloc).note;
}

uint64_t alloc_dma_at(const struct alloc *alloc, uint64_t addr) {
        const struct arena_block block = block_of(alloc);

        return block.note + (addr - block.addr);
}

uint64_t alloc_addr_at(const struct alloc *alloc, uint64_t dma_addr) {
        const struct arena_block block = block_of(alloc);

        return block.addr + (dma_addr - block.note);
}

/* What a device has of it. */
static uint64_t device_part(const struct alloc *alloc, uint64_t size) {
        return alloc_is_anonymous(alloc) ? 0 : size;
}

static void alloc_enter(struct alloc *alloc) {
        struct device *device = alloc->device;
        struct broker *broker = device->owner->broker;
        const struct arena_block block = block_of(alloc);
        const uint64_t bytes = device_part(alloc, block.size);

        device->n_allocs++;
        device->bytes += bytes;
        device_charge(device, QUOTA_bytes, bytes);
        /* A reserved region has been charged as a whole. */
        if (!alloc->region->device)
                device_charge(device, QUOTA_low_bytes, low_part(block.addr, block.size));
        device_charge(device, QUOTA_allocs, 1);
        broker->counts.allocs++;
        broker->bytes += bytes;
        broker->counters[COUNTER_high_water_bytes] = larger(broker->counters[COUNTER_high_water_bytes], broker->bytes);
}

int alloc_new(struct request *request, struct alloc **ret) {
        struct broker *broker = request->owner->broker;
        struct device *device = request->device;
        struct alloc *alloc = tray_take(broker);
        const struct arena_block *block = &request->block;
        uint64_t dma_addr = 0;
        int r = 0;

        if (!alloc)
                return failure_set(&request->failure, REASON_no_memory, "The daemon itself is out of memory");
        if (handle_new(&broker->handles, HANDLE_ALLOC, alloc, &alloc->handle) < 0) {
                tray_put(broker, alloc);
                return failure_set(&request->failure, REASON_no_memory, "The daemon has no handles left");
        }
        alloc->device = device;
        alloc->region = request->region;
        alloc->block = block->number;
        if (!request->anonymous)
                r = device_map(device, request->region, block->addr, block->size, DMA_BIDIRECTIONAL, &request->reach, &dma_addr,
                               &request->failure);
        if (r < 0) {
                handle_release(&broker->handles, alloc->handle, 0);
                tray_put(broker, alloc);
                return r;
        }
        arena_note(region_arena(alloc->region), alloc->block, dma_addr);
        alloc->born_ms = now_ms(broker);
        alloc->flags = request->flags | (request->anonymous ? ALLOC_ANONYMOUS : 0);
        alloc->maker = request->maker;
        if (request->holder) {
                alloc->flags |= ALLOC_HELD;
                alloc->holder = request->holder;
        } else if ((alloc->key = request->key)) {
                alloc->key->handle = alloc->handle;
                request->key = NULL;
        }
        alloc_enter(alloc);
        DL_APPEND(device->allocs, alloc);
        broker->counters[COUNTER_allocs]++;
        book_note(broker, ROW_ALLOC, alloc->handle);
        if (!request->swap)
                PROBE_ALLOC(request->owner->name, device->name, alloc->handle, block->size, dma_addr);
        *ret = alloc;
        return 0;
}

/* Nobody can find it any more. */
static void alloc_disown(struct alloc *alloc) {
        struct owner *owner = alloc->device->owner;

        DL_DELETE(alloc->device->allocs, alloc);
        if (!alloc->handle)
                return; /* another has taken its place */
        PROBE_FREE(owner->name, alloc->device->name, alloc->handle, alloc_size(alloc), alloc_dma_addr(alloc));
        if (!(alloc->flags & ALLOC_HELD))
                key_forget(owner, alloc->key);
        handle_release(&owner->broker->handles, alloc->handle, owner->id);
        book_note(owner->broker, ROW_ALLOC, alloc->handle);
}

static void alloc_abandon(struct alloc *alloc) {
        struct broker *broker = alloc->device->owner->broker;

        alloc->region->supply->lost += alloc_size(alloc);
        alloc->flags = ALLOC_RESTING;
        alloc->born_ms = now_ms(broker);
        alloc->resting.until_ms = UINT64_MAX;
        resting_save(broker, alloc);
}

void alloc_free(struct alloc *alloc) {
        struct device *device = alloc->device;
        struct owner *owner = device->owner;
        struct broker *broker = owner->broker;
        const struct arena_block block = block_of(alloc);
        const uint64_t bytes = device_part(alloc, block.size);
        const bool reached = bytes && device_unmap(device, block.note, block.size) < 0;

        device->n_allocs--;
        device->bytes -= bytes;
        device_discharge(device, QUOTA_bytes, bytes);
        if (!alloc->region->device)
                device_discharge(device, QUOTA_low_bytes, low_part(block.addr, block.size));
        device_discharge(device, QUOTA_allocs, 1);
        broker->counts.allocs--;
        broker->counters[COUNTER_frees]++;
        broker->bytes -= bytes;
        if (alloc->flags & ALLOC_RESTING)
                quarantine_leave_alloc(alloc);
        else
                alloc_disown(alloc);
        if (reached) {
                /* It stays taken as long as this daemon runs; and the next one has it at rest. */
                alloc_abandon(alloc);
        } else {
                if (alloc->flags & ALLOC_RESTING)
                        book_drop(broker, ROW_RESTING, block.addr);
                region_put_block(alloc->region, alloc->block);
                region_unuse(alloc->region, block.size);
        }
        tray_put(broker, alloc);
        device_forget(device);
}

bool alloc_leaves(const struct alloc *alloc, const struct session *session) {
        const struct device *device = alloc->device;

        if (alloc->flags & (ALLOC_OWNER_LIFETIME | ALLOC_HELD))
                return false;
        return device->session ? device->session == session : alloc->maker == session->id;
}

/* How long a device may go on writing to memory that has been unmapped. */
static uint64_t writes_on_ms(const struct device *device) {
        if (device_is_lost(device))
                return UINT64_MAX;
        return device->closed || translator_protects(device->translator) ? 0 : quarantine_ms(device);
}

static uint64_t exposed_ms(const struct alloc *alloc) {
        return alloc->exposed_ms == EXPOSED_FOREVER ? UINT64_MAX : alloc->exposed_ms;
}

static void rest_until(struct alloc *alloc, uint64_t until_ms) {
        struct broker *broker = alloc->device->owner->broker;
        const uint64_t now = now_ms(broker);
        const bool exposed = exposed_ms(alloc) > now;

        if (until_ms <= now) {
                alloc_free(alloc);
                return;
        }
        alloc_disown(alloc);
        alloc->flags = ALLOC_RESTING | (exposed ? ALLOC_EXPOSED : 0);
        alloc->born_ms = now;
        quarantine_enter_alloc(alloc, until_ms);
        resting_save(broker, alloc);
}

void alloc_rest(struct alloc *alloc) {
        const uint64_t ms = alloc_is_anonymous(alloc) ? 0 : writes_on_ms(alloc->device);
        const uint64_t now = now_ms(alloc->device->owner->broker);

        rest_until(alloc, larger(later(now, ms), exposed_ms(alloc)));
}

void alloc_return(struct alloc *alloc) {
        rest_until(alloc, exposed_ms(alloc));
}

void allocs_close(struct device *device) {
        quarantine_end_device(device);
        while (device->allocs)
                alloc_return(device->allocs);
}

void alloc_expose(struct alloc *alloc, const struct device *device, bool reached) {
        struct broker *broker = device->owner->broker;
        const uint64_t ms = reached ? UINT64_MAX : writes_on_ms(device);

        if (!ms)
                return;
        alloc->exposed_ms = smaller(larger(exposed_ms(alloc), later(now_ms(broker), ms)), EXPOSED_FOREVER);
        book_note(broker, ROW_ALLOC, alloc->handle);
}

static struct owner *resting_owner(const struct resting *resting) {
        return resting_alloc(resting)->device->owner;
}

static void resting_look(const struct resting *resting, struct quarantine_view *ret) {
        const struct alloc *alloc = resting_alloc(resting);

        ret->what = QUARANTINE_ALLOC;
        ret->owner = alloc->device->owner->name;
        ret->device_name = alloc->device->name;
        ret->region = alloc->region->handle;
        ret->machine_addr = alloc_addr(alloc);
        ret->count = 1;
        ret->bytes = alloc_size(alloc);
        ret->since_ms = alloc->born_ms;
        ret->simulated = alloc->region->supply->info.flags & SOURCE_SIMULATED;
}

static bool resting_holds(const struct resting *resting, uint64_t machine_addr) {
        const struct alloc *alloc = resting_alloc(resting);

        return machine_addr >= alloc_addr(alloc) && machine_addr - alloc_addr(alloc) < alloc_size(alloc);
}

static const struct region *resting_region(const struct resting *resting) {
        return resting_alloc(resting)->region;
}

static void resting_end(struct resting *resting) {
        alloc_free(resting_alloc(resting));
}

const struct resting_ops alloc_resting_ops = {
        .owner = resting_owner, .look = resting_look, .holds = resting_holds, .region = resting_region, .end = resting_end,
};

/* ---- the ledger ---- */

/* What a row tells: the rest is about what is under way. */
#define FLAGS_TOLD (ALLOC_OWNER_LIFETIME | ALLOC_SHAREABLE | ALLOC_HELD | ALLOC_ANONYMOUS)

static void place_save(struct row_writer *row, const struct alloc *alloc) {
        const struct arena_block block = block_of(alloc);

        row_number(row, alloc->region->handle);
        row_number(row, block.addr);
        row_number(row, block.size);
        row_number(row, block.note);
        row_number(row, alloc->born_ms);
}

/* It lies where a row says, if that is possible. */
static int place_load(struct load *load, struct alloc *alloc) {
        const struct region *region = alloc->region = load_object(load, HANDLE_REGION);
        const uint64_t addr = row_read_number(&load->row), size = row_read_number(&load->row);
        const uint64_t dma_addr = row_read_number(&load->row);
        struct arena_block block;
        int r;

        alloc->born_ms = row_read_number(&load->row);
        if (!region)
                return -ENOENT;
        if (load->row.failed || addr < region->addr || !size || size > region->size || addr - region->addr > region->size - size)
                return -EBADMSG;
        r = arena_alloc_at(region_arena(region), addr, size, &block);
        if (r < 0)
                return r == -ENOMEM ? r : -EBADMSG;
        alloc->block = block.number;
        arena_note(region_arena(region), block.number, dma_addr);
        return 0;
}

static void place_undo(struct alloc *alloc) {
        arena_release(region_arena(alloc->region), alloc->block, NULL);
}

static void remap(const struct alloc *alloc) {
        const struct arena_block block = block_of(alloc);

        device_remap(alloc->device, alloc->region, block.addr, block.size, DMA_BIDIRECTIONAL, block.note);
}

void alloc_save(struct row_writer *row, const struct alloc *alloc) {
        const bool held = alloc->flags & ALLOC_HELD;

        row_number(row, alloc->device->handle);
        place_save(row, alloc);
        row_number(row, alloc->flags & FLAGS_TOLD);
        row_number(row, alloc->maker);
        row_number(row, held ? alloc->holder->kind : 0);
        row_number(row, held ? alloc->holder->handle : 0);
        row_number(row, exposed_ms(alloc));
        row_key(row, held ? NULL : alloc->key);
}

static int holder_load(struct load *load, struct alloc *alloc) {
        uint64_t kind = row_read_number(&load->row);

        if (!(alloc->flags & ALLOC_HELD)) {
                row_read_number(&load->row);
                return 0;
        }
        alloc->holder = load_object(load, kind == HOLDER_POOL ? HANDLE_POOL : HANDLE_BOUNCE);
        return alloc->holder ? 0 : -ENOENT;
}

int alloc_load(struct load *load) {
        struct alloc *alloc = tray_take(load->broker);
        int r;

        if (!alloc)
                return -ENOMEM;
        alloc->device = load_object(load, HANDLE_DEVICE);
        if (!alloc->device) {
                tray_put(load->broker, alloc);
                return -ENOENT;
        }
        r = place_load(load, alloc);
        if (r < 0) {
                tray_put(load->broker, alloc);
                return r;
        }
        alloc->flags = row_read_number(&load->row) & FLAGS_TOLD;
        alloc->maker = (uint32_t)row_read_number(&load->row);
        r = holder_load(load, alloc);
        alloc->exposed_ms = smaller(row_read_number(&load->row), EXPOSED_FOREVER);
        /* What lies in ordinary memory must not pass for a device's, whatever a row says. */
        if (r == 0 && region_is_anonymous(alloc->region) != alloc_is_anonymous(alloc))
                r = -EBADMSG;
        if (alloc_is_anonymous(alloc))
                alloc->exposed_ms = 0;
        if (r == 0)
                r = handle_restore(&load->broker->handles, HANDLE_ALLOC, alloc, load->id);
        if (r < 0) {
                place_undo(alloc);
                tray_put(load->broker, alloc);
                return r;
        }
        if (!alloc_is_anonymous(alloc))
                remap(alloc);
        alloc->handle = load->id;
        if (!(alloc->flags & ALLOC_HELD))
                alloc->key = load_key(load, alloc->device->owner, HANDLE_ALLOC);
        region_use(alloc->region, alloc_size(alloc));
        alloc_enter(alloc);
        DL_APPEND(alloc->device->allocs, alloc);
        if (!(alloc->flags & ALLOC_HELD))
                return 0;
        r = alloc->holder->kind == HOLDER_POOL ? pool_load_slab((struct pool *)alloc->holder, alloc)
                                               : bounce_load_part((struct bounce *)alloc->holder, alloc);
        if (r < 0)
                alloc_free(alloc);
        return r;
}

void resting_save(struct broker *broker, const struct alloc *alloc) {
        struct row_writer *row = book_begin(broker);

        if (!row)
                return;
        row_number(row, alloc->device->owner->id);
        row_number(row, alloc->device->handle);
        place_save(row, alloc);
        row_number(row, alloc->resting.until_ms);
        row_number(row, (alloc->flags & ALLOC_EXPOSED) != 0);
        device_save_hidden(row, alloc->device);
        book_end(broker, ROW_RESTING, alloc_addr(alloc));
}

/* Its own device, or what stands for one that is no more. */
static int resting_device(struct load *load, struct alloc *alloc, struct owner *owner, struct device *device) {
        int r = 0;

        if (device && device->owner != owner)
                return -EBADMSG;
        alloc->device = device;
        if (!device)
                r = device_load_hidden(load, owner, &alloc->device);
        return r == 0 && alloc->region->device && !device_lends(alloc->region->device, alloc->device) ? -EBADMSG : r;
}

int resting_load(struct load *load) {
        struct owner *owner = load_owner(load);
        struct device *device = load_object(load, HANDLE_DEVICE);
        struct alloc *alloc = tray_take(load->broker);
        int r = !alloc ? -ENOMEM : !owner ? -ENOENT : place_load(load, alloc);
        uint64_t until_ms = row_read_number(&load->row);
        bool exposed = row_read_number(&load->row);

        if (r == 0) {
                r = region_is_anonymous(alloc->region) ? -EBADMSG : resting_device(load, alloc, owner, device);
                if (r == 0)
                        remap(alloc);
                if (r < 0)
                        place_undo(alloc);
        }
        if (r < 0) {
                if (alloc)
                        tray_put(load->broker, alloc);
                return r;
        }
        alloc->flags = ALLOC_RESTING | (exposed ? ALLOC_EXPOSED : 0);
        region_use(alloc->region, alloc_size(alloc));
        alloc_enter(alloc);
        quarantine_enter_alloc(alloc, until_ms);
        resting_save(load->broker, alloc);
        return 0;
}

/* ---- allocating ---- */

int power_check(uint64_t value, const char *name, enum reason reason, struct failure *failure) {
        if (!value || power_of_two(value))
                return 0;
        failure_set(failure, reason, "%s must be a power of two, and %llu is none", name, (unsigned long long)value);
        failure_add_text(failure, "param", name);
        failure_add_number(failure, "asked", value);
        return -reason_errno(reason);
}

static int check_size(uint64_t size, struct failure *failure) {
        if (!size) {
                failure_set(failure, REASON_bad_param, "An allocation needs a size above zero");
                failure_add_text(failure, "param", "size");
                return -EINVAL;
        }
        if (size > SIZE_LIMIT) {
                failure_set(failure, REASON_limit, "No allocation can be larger than 2^53 bytes");
                failure_add_number(failure, "limit", SIZE_LIMIT);
                return -reason_errno(REASON_limit);
        }
        return 0;
}

static int check_segment(const struct device *device, uint64_t size, struct failure *failure) {
        if (!device->max_segment || size <= device->max_segment)
                return 0;
        failure_set(failure, REASON_limit, "Device %s takes segments of at most %llu bytes, and %llu were asked for",
                    device->name, (unsigned long long)device->max_segment, (unsigned long long)size);
        failure_add_number(failure, "asked", size);
        failure_add_number(failure, "limit", device->max_segment);
        return -reason_errno(REASON_limit);
}

int mask_check(uint64_t mask, struct failure *failure) {
        if ((mask & (mask + 1)) == 0 && mask >= PAGE - 1)
                return 0;
        failure_set(failure, REASON_mask, "A mask is 2^n-1 and reaches at least one page (0xfff); 0x%llx does not",
                    (unsigned long long)mask);
        failure_add_hex(failure, "asked", mask);
        return -reason_errno(REASON_mask);
}

int want_make(const struct device *device, const struct alloc_request *ask, struct arena_request *ret,
              struct failure *failure) {
        uint64_t boundary;
        int r;

        r = check_size(ask->size, failure);
        if (r == 0)
                r = check_segment(device, ask->size, failure);
        if (r == 0)
                r = power_check(ask->align, "align", REASON_bad_param, failure);
        if (r == 0)
                r = power_check(ask->boundary, "boundary", REASON_boundary, failure);
        if (r == 0 && ask->mask)
                r = mask_check(ask->mask, failure);
        if (r < 0)
                return r;
        *ret = (struct arena_request){
                .size = round_up(ask->size, PAGE),
                .align = larger(larger(ask->align, PAGE), device->min_align_mask + 1),
                .limit = smaller(ask->mask ? ask->mask : UINT64_MAX, device->coherent_mask),
        };
        boundary = smaller(ask->boundary - 1, device->boundary - 1) + 1; /* 0 is none: the largest after the subtraction */
        ret->boundary = boundary;
        if (!boundary || ret->size <= boundary)
                return 0;
        failure_set(failure, REASON_boundary, "%llu bytes (in whole pages) cannot lie between two boundaries of %llu",
                    (unsigned long long)ret->size, (unsigned long long)boundary);
        failure_add_number(failure, "asked", ret->size);
        failure_add_number(failure, "boundary", boundary);
        return -reason_errno(REASON_boundary);
}

struct device *device_of(const struct caller *caller, uint64_t handle, struct failure *failure) {
        struct device *device = handle_find(&caller->session->owner->broker->handles, HANDLE_DEVICE, handle);

        /* Also an administrator allocates on devices of its own only: the memory is charged to the device's owner. */
        if (!device || device->owner != caller->session->owner || device_is_hidden(device, caller)) {
                handle_not_found(caller, HANDLE_DEVICE, handle, failure);
                return NULL;
        }
        return device;
}

struct request *request_admit(struct device *device, enum request_kind kind, const char *key_text, uint64_t digest, int r,
                              struct failure *failure, broker_done_fn done, void *userdata) {
        enum handle_kind handle_kind = kind == REQUEST_ALLOC ? HANDLE_ALLOC : HANDLE_REGION;
        struct request *request = NULL;
        struct request_key *key = NULL;

        if (r == 0)
                r = key_begin(device->owner, key_text, handle_kind, digest, &key, failure);
        if (r == 1) {
                done(userdata, NULL, key->handle);
                return NULL;
        }
        if (r == 0)
                r = device_check(device, QUOTA_waiters, 1, failure);
        if (r == 0) {
                request = calloc(1, sizeof(*request));
                if (!request)
                        r = failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        if (r < 0) {
                if (key)
                        key_forget(device->owner, key);
                done(userdata, failure, 0);
                return NULL;
        }
        request->ticket.cancel = request_cancel;
        request->kind = kind;
        request->owner = device->owner;
        request->device = device;
        request->key = key;
        request->done = done;
        request->userdata = userdata;
        return request;
}

void request_want(struct request *request, const struct arena_request *reach) {
        request->want = request->reach = *reach;
        /* Where it lies is of no concern, but that an IOMMU can use large pages for it. */
        if (translator_follows(request->device->translator))
                request->want.limit = UINT64_MAX;
        else if (translator_translates(request->device->translator))
                request->want = (struct arena_request){
                        .size = reach->size, .align = reach->size < LARGE_PAGE ? PAGE : LARGE_PAGE, .limit = UINT64_MAX,
                };
}

struct ticket *coherent_alloc(const struct caller *caller, const struct alloc_request *ask, broker_done_fn done,
                              void *userdata) {
        struct failure failure = {};
        struct arena_request want;
        struct request *request;
        struct device *device;
        int r;

        device = device_of(caller, ask->device, &failure);
        r = device ? want_make(device, ask, &want, &failure) : -ENOENT;
        request = request_admit(device, REQUEST_ALLOC, ask->request_key, ask->request_digest, r, &failure, done, userdata);
        if (!request)
                return NULL;
        request->maker = caller->session->id;
        request_want(request, &want);
        request->high = ask->high;
        request->zero = ask->zero;
        request->flags = (ask->owner_lifetime ? ALLOC_OWNER_LIFETIME : 0) | (ask->shareable ? ALLOC_SHAREABLE : 0);
        request->wait_ms = ask->wait_ms;
        return request_submit(request);
}

struct ticket *alloc_for_holder(struct holder *holder, const struct arena_request *want, uint64_t wait_ms, bool high,
                                broker_done_fn done, void *userdata) {
        struct request *request = calloc(1, sizeof(*request));
        struct failure failure = {};

        if (!request) {
                failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
                done(userdata, &failure, 0);
                return NULL;
        }
        request->ticket.cancel = request_cancel;
        request->kind = REQUEST_ALLOC;
        request->owner = holder->device->owner;
        request->device = holder->device;
        request->done = done;
        request->userdata = userdata;
        request_want(request, want);
        request->holder = holder;
        request->high = high;
        request->wait_ms = wait_ms;
        return request_submit(request);
}

static int reserve_want(const struct device *device, const struct reserve_request *ask, struct arena_request *ret,
                        struct failure *failure) {
        int r;

        const bool one_piece = device->is_commons && !ask->stride && ask->usable <= ask->size && ask->usable % PAGE == 0;

        r = check_size(ask->size, failure);
        if (r == 0 && ask->mask)
                r = mask_check(ask->mask, failure);
        if (r == 0)
                r = power_check(ask->stride, "stride", REASON_bad_param, failure);
        if (r < 0)
                return r;
        if (one_piece)
                ; /* what is behind it is for other purposes than allocations */
        else if (!!ask->stride != !!ask->usable || ask->usable % PAGE || ask->usable > ask->stride) {
                failure_set(failure, REASON_bad_param,
                            "stride and usable go together: usable is in whole pages and no larger than stride");
                failure_add_text(failure, "param", "usable");
                return -EINVAL;
        }
        if (ask->stride && ask->size / ask->stride > PIECES_MAX) {
                failure_set(failure, REASON_limit, "A reserved region has at most %d usable pieces", PIECES_MAX);
                failure_add_number(failure, "asked", ask->size / ask->stride);
                failure_add_number(failure, "limit", PIECES_MAX);
                return -reason_errno(REASON_limit);
        }
        *ret = (struct arena_request){
                .size = round_up(ask->size, larger(ask->stride, PAGE)),
                .align = larger(larger(ask->stride, PAGE), device->min_align_mask + 1),
                .limit = smaller(ask->mask ? ask->mask : UINT64_MAX, device->coherent_mask),
        };
        return 0;
}

struct ticket *device_reserve(const struct caller *caller, const struct reserve_request *ask, broker_done_fn done,
                              void *userdata) {
        struct failure failure = {};
        struct arena_request want;
        struct request *request;
        struct device *device;
        int r;

        device = device_of(caller, ask->device, &failure);
        if (device && device->owner->commons && !device->is_commons) {
                failure_set(&failure, REASON_unsupported, "Device %s is a guest's, which has memory in its windows only: there "
                            "is nothing to reserve", device->name);
                request_refuse(done, userdata, &failure);
                return NULL;
        }
        if (device && translator_translates(device->translator) && !device->is_commons) {
                failure_set(&failure, REASON_unsupported, "Device %s is behind an IOMMU, through which any memory serves it: "
                            "there is nothing to reserve", device->name);
                request_refuse(done, userdata, &failure);
                return NULL;
        }
        r = device ? reserve_want(device, ask, &want, &failure) : -ENOENT;
        request = request_admit(device, REQUEST_RESERVE, ask->request_key, ask->request_digest, r, &failure, done, userdata);
        if (!request)
                return NULL;
        request->maker = caller->session->id;
        request->want = want;
        request->usable = ask->usable;
        request->stride = ask->stride ? ask->stride : ask->usable ? want.size : 0;
        return request_submit(request);
}

/* ---- freeing ---- */

int alloc_find(const struct caller *caller, uint64_t handle, struct alloc **ret, struct failure *failure) {
        struct alloc *alloc = handle_find(&caller->session->owner->broker->handles, HANDLE_ALLOC, handle);

        if (!alloc || (alloc->device->owner != caller->session->owner && !caller->admin))
                return handle_not_found(caller, HANDLE_ALLOC, handle, failure);
        *ret = alloc;
        return 0;
}

int alloc_check_idle(const struct alloc *alloc, struct failure *failure) {
        if (!(alloc->flags & (ALLOC_HELD | ALLOC_MOVING)) && !alloc->n_mappings)
                return 0;
        if (alloc->flags & ALLOC_HELD) {
                failure_set(failure, REASON_busy, "Allocation %llu is memory of %s %llu, which alone can free it",
                            (unsigned long long)alloc->handle, alloc->holder->kind == HOLDER_POOL ? "pool" : "bounce pool",
                            (unsigned long long)alloc->holder->handle);
                failure_add_number(failure, alloc->holder->kind == HOLDER_POOL ? "pool" : "bounce", alloc->holder->handle);
        } else if (alloc->flags & ALLOC_MOVING) {
                failure_set(failure, REASON_busy, "Allocation %llu is being moved",
                            (unsigned long long)alloc->handle);
        } else {
                failure_set(failure, REASON_busy, "Allocation %llu is mapped %u times: unmap it first",
                            (unsigned long long)alloc->handle, alloc->n_mappings);
                failure_add_number(failure, "mappings", alloc->n_mappings);
        }
        return -reason_errno(REASON_busy);
}

int coherent_free(const struct caller *caller, uint64_t handle, struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct alloc *alloc = NULL;
        int r;

        r = alloc_find(caller, handle, &alloc, failure);
        if (r == 0)
                r = alloc_check_idle(alloc, failure);
        if (r < 0)
                return r;
        alloc_return(alloc);
        requests_serve(broker);
        return 0;
}

/* ---- looking ---- */

void alloc_look(const struct alloc *alloc, struct alloc_view *ret) {
        const struct arena_block block = block_of(alloc);

        *ret = (struct alloc_view){
                .handle = alloc->handle,
                .device = alloc->device->handle,
                .region = alloc->region->handle,
                .owner = alloc->device->owner->name,
                .device_name = alloc->device->name,
                .offset = block.addr - alloc->region->addr,
                .size = block.size,
                .dma_addr = block.note,
                .machine_addr = alloc_is_anonymous(alloc) ? 0 : block.addr,
                .simulated = alloc->region->supply->info.flags & SOURCE_SIMULATED,
                .anonymous = alloc_is_anonymous(alloc),
                .owner_lifetime = alloc->flags & ALLOC_OWNER_LIFETIME,
                .shareable = alloc->flags & ALLOC_SHAREABLE,
                .pool = alloc->flags & ALLOC_HELD && alloc->holder->kind == HOLDER_POOL ? alloc->holder->handle : 0,
                .bounce = alloc->flags & ALLOC_HELD && alloc->holder->kind == HOLDER_BOUNCE ? alloc->holder->handle : 0,
                .age_ms = now_ms(alloc->device->owner->broker) - alloc->born_ms,
        };
}

int coherent_get(const struct caller *caller, uint64_t handle, struct alloc_view *ret, struct failure *failure) {
        struct alloc *alloc = NULL;
        int r;

        r = alloc_find(caller, handle, &alloc, failure);
        if (r == 0)
                alloc_look(alloc, ret);
        return r;
}

struct alloc *alloc_at(struct broker *broker, const struct owner *owner, uint64_t addr, bool machine) {
        struct alloc *alloc;
        uint64_t handle = 0, start;

        if (machine && !region_at(broker, addr))
                return NULL;
        while ((alloc = handle_next(&broker->handles, HANDLE_ALLOC, handle, &handle))) {
                if (alloc_is_anonymous(alloc) || (owner && alloc->device->owner != owner))
                        continue;
                start = machine ? alloc_addr(alloc) : alloc_dma_addr(alloc);
                if (addr >= start && addr - start < alloc_size(alloc))
                        return alloc;
        }
        return NULL;
}

int bad_address(uint64_t addr, struct failure *failure) {
        failure_set(failure, REASON_bad_address, "Nothing has been handed out at 0x%llx", (unsigned long long)addr);
        failure_add_hex(failure, "asked", addr);
        return -reason_errno(REASON_bad_address);
}

int coherent_lookup(const struct caller *caller, uint64_t addr, bool machine, struct alloc_view *ret,
                    struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct alloc *alloc = alloc_at(owner->broker, owner, addr, machine);

        if (!alloc && caller->admin)
                alloc = alloc_at(owner->broker, NULL, addr, machine);
        if (!alloc)
                return bad_address(addr, failure);
        alloc_look(alloc, ret);
        return 0;
}

int coherent_visit(const struct caller *caller, uint64_t device, const char *name, uint64_t after, alloc_visit_fn visit,
                   void *userdata, struct failure *failure) {
        struct selection selection;
        struct alloc_view view;
        struct alloc *alloc;
        int r;

        r = selection_begin(&selection, caller, name, device, after, failure);
        if (r < 0)
                return r;
        while ((alloc = selection_next(&selection, HANDLE_ALLOC))) {
                if (!selection_has(&selection, alloc->device->owner, alloc->device))
                        continue;
                alloc_look(alloc, &view);
                if (visit(&view, userdata))
                        break;
        }
        return 0;
}
