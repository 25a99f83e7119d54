/* Mappings: what a device may reach at this moment, other than its own coherent memory. A mapping is a run of a bounce
 * pool's slots, or a span of an allocation, which then cannot be freed. Wrong uses are refused as the kernel's dma-debug
 * reports them. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"

static const char *direction_name(enum dma_direction direction) {
        static const char *const names[] = { "to_device", "from_device", "bidirectional" };

        return (unsigned)direction < sizeof(names) / sizeof(*names) ? names[direction] : "?";
}

static void mapping_enter(struct mapping *mapping) {
        struct owner *owner = mapping->session->owner;

        DL_APPEND(mapping->session->mappings, mapping);
        DL_APPEND2(mapping->device->mappings, mapping, device_prev, device_next);
        mapping->device->n_mappings++;
        if (!mapping->holder)
                mapping->alloc->n_mappings++;
        device_charge(mapping->device, QUOTA_mappings, 1);
        owner->broker->counts.mappings++;
}

int mapping_new(const struct mapping *like, struct mapping **ret, struct failure *failure) {
        struct session *session = like->session;
        struct broker *broker = session->owner->broker;
        struct mapping *mapping;
        int r;

        r = device_check(like->device, QUOTA_mappings, 1, failure);
        if (r < 0)
                return r;
        mapping = malloc(sizeof(*mapping));
        if (!mapping)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        *mapping = *like;
        if (handle_new(&broker->handles, HANDLE_MAPPING, mapping, &mapping->handle) < 0) {
                free(mapping);
                return failure_set(failure, REASON_no_memory, "The daemon has no handles left");
        }
        mapping->born_ms = now_ms(broker);
        if (mapping->key)
                mapping->key->handle = mapping->handle;
        mapping_enter(mapping);
        book_note(broker, ROW_MAPPING, mapping->handle);
        *ret = mapping;
        return 0;
}

/* ---- the ledger ---- */

void mapping_save(struct row_writer *row, const struct mapping *mapping) {
        row_number(row, mapping->session->id);
        row_number(row, mapping->device->handle);
        row_number(row, mapping->holder ? mapping->holder->handle : 0);
        row_number(row, mapping->alloc->handle);
        row_number(row, mapping->addr);
        row_number(row, mapping->dma_addr);
        row_number(row, mapping->size);
        row_number(row, mapping->slots);
        row_number(row, mapping->direction);
        row_number(row, mapping->born_ms);
        row_key(row, mapping->key);
}

static int mapping_read(struct load *load, struct mapping *mapping) {
        uint64_t holder;

        mapping->session = load_session(load);
        mapping->device = load_object(load, HANDLE_DEVICE);
        holder = row_read_number(&load->row);
        mapping->holder = handle_find(&load->broker->handles, HANDLE_BOUNCE, holder);
        mapping->alloc = load_object(load, HANDLE_ALLOC);
        mapping->addr = row_read_number(&load->row);
        mapping->dma_addr = row_read_number(&load->row);
        mapping->size = row_read_number(&load->row);
        mapping->slots = row_read_number(&load->row);
        mapping->direction = load_direction(load);
        mapping->born_ms = row_read_number(&load->row);
        if (!mapping->session || !mapping->device || !mapping->alloc || (holder && !mapping->holder))
                return -ENOENT;
        if (load->row.failed || alloc_is_anonymous(mapping->alloc) ||
            (mapping->holder && mapping->alloc->holder != mapping->holder))
                return -EBADMSG;
        return handle_restore(&load->broker->handles, HANDLE_MAPPING, mapping, load->id);
}

/* A translator maps whole pages. */
static uint64_t page_offset(uint64_t addr) {
        return addr & (PAGE - 1);
}

static void remap(const struct mapping *mapping) {
        const uint64_t offset = page_offset(mapping->addr);

        device_remap(mapping->device, mapping->alloc->region, mapping->addr - offset, round_up(offset + mapping->size, PAGE),
                     mapping->direction, mapping->dma_addr - offset);
}

int mapping_load(struct load *load) {
        struct mapping *mapping = calloc(1, sizeof(*mapping));
        int r;

        if (!mapping)
                return -ENOMEM;
        r = mapping_read(load, mapping);
        if (r == 0) {
                mapping->handle = load->id;
                if (mapping->holder)
                        r = bounce_load_mapping(mapping);
                else
                        remap(mapping);
                if (r < 0)
                        handle_release(&load->broker->handles, load->id, 0);
        }
        if (r < 0) {
                free(mapping);
                return r;
        }
        mapping->key = load_key(load, mapping->session->owner, HANDLE_MAPPING);
        mapping_enter(mapping);
        return 0;
}

/* ---- ending ---- */

static int translation_end(const struct device *device, uint64_t addr, uint64_t dma_addr, uint64_t size) {
        return device_unmap(device, dma_addr - page_offset(addr), round_up(page_offset(addr) + size, PAGE));
}

void mapping_end(struct mapping *mapping, bool died) {
        struct owner *owner = mapping->session->owner;
        struct device *device = mapping->device;
        bool reached;

        if (mapping->holder) {
                bounce_unmapped(mapping, died);
        } else {
                reached = translation_end(device, mapping->addr, mapping->dma_addr, mapping->size) < 0;
                mapping->alloc->n_mappings--;
                if (died || reached)
                        alloc_expose(mapping->alloc, device, reached);
        }
        DL_DELETE(mapping->session->mappings, mapping);
        DL_DELETE2(device->mappings, mapping, device_prev, device_next);
        device->n_mappings--;
        device_discharge(device, QUOTA_mappings, 1);
        owner->broker->counts.mappings--;
        key_forget(owner, mapping->key);
        handle_release(&owner->broker->handles, mapping->handle, owner->id);
        book_note(owner->broker, ROW_MAPPING, mapping->handle);
        free(mapping);
        device_forget(device);
}

/* ---- when a device or a session ends ---- */

static void tell_leak(const struct owner *owner, const struct session *session, const struct device *device,
                      uint64_t count, uint64_t bytes) {
        struct event event = {
                .topic = EVENT_LEAK,
                .session = session,
                .owner = owner->name,
                .device = device ? device->handle : 0,
                .name = device ? device->name : NULL,
                .count = count,
                .bytes = bytes,
        };

        if (count)
                event_tell(owner->broker, &event);
}

/* What other devices have mapped of this one's allocations. Those that outlive a session stay mapped. */
static void foreign_end(struct device *owning) {
        struct mapping *mapping, *next;
        struct device *device, *next_device;

        DL_FOREACH_SAFE(owning->owner->devices, device, next_device) {
                device->n_requests++; /* keeps it while its mappings go */
                for (mapping = device->mappings; mapping; mapping = next) {
                        next = mapping->device_next;
                        if (mapping->holder || mapping->alloc->device != owning ||
                            (!owning->closed && mapping->alloc->flags & ALLOC_OWNER_LIFETIME))
                                continue;
                        tell_leak(device->owner, mapping->session, device, 1, mapping->size);
                        mapping_end(mapping, true); /* its device goes on */
                }
                device->n_requests--;
        }
        /* Those that nothing but a mapping has kept. */
        DL_FOREACH_SAFE(owning->owner->devices, device, next_device)
                if (device != owning)
                        device_forget(device);
}

static bool has_mapped_allocs(const struct device *device) {
        const struct alloc *alloc;

        DL_FOREACH(device->allocs, alloc)
                if (alloc->n_mappings)
                        return true;
        return false;
}

static void end_mappings(struct device *device, bool also_bounced, bool died) {
        struct mapping *mapping, *next;
        uint64_t count = 0, bytes = 0;

        for (mapping = device->mappings; mapping; mapping = next) {
                next = mapping->device_next;
                if (mapping->holder && !also_bounced)
                        continue;
                count++;
                bytes += mapping->size;
                mapping_end(mapping, died);
        }
        tell_leak(device->owner, NULL, device, count, bytes);
        if (device->owner->usage.of[QUOTA_mappings] && has_mapped_allocs(device))
                foreign_end(device);
}

void mappings_end(struct device *device) {
        end_mappings(device, true, false);
}

void mappings_leave(struct device *device, bool died) {
        end_mappings(device, false, died);
}

void mappings_end_alloc(const struct alloc *alloc) {
        struct mapping *mapping, *next;
        struct device *device;

        if (!alloc->n_mappings)
                return;
        DL_FOREACH(alloc->device->owner->devices, device)
                for (mapping = device->mappings; mapping; mapping = next) {
                        next = mapping->device_next;
                        if (mapping->alloc != alloc)
                                continue;
                        tell_leak(device->owner, mapping->session, device, 1, mapping->size);
                        mapping_end(mapping, true); /* its device goes on */
                }
}

void mappings_end_session(struct session *session, bool died) {
        uint64_t count = 0, bytes = 0;

        while (session->mappings) {
                count++;
                bytes += session->mappings->size;
                mapping_end(session->mappings, died);
        }
        tell_leak(session->owner, NULL, NULL, count, bytes);
}

/* ---- mapping an allocation ---- */

static int refuse_address(const struct alloc *alloc, const struct mapping_request *ask, struct failure *failure) {
        failure_set(failure, REASON_bad_address, "Allocation %llu has %llu bytes: it has no %llu bytes at offset %llu",
                    (unsigned long long)alloc->handle, (unsigned long long)alloc_size(alloc), (unsigned long long)ask->size,
                    (unsigned long long)ask->offset);
        failure_add_number(failure, "offset", ask->offset);
        failure_add_number(failure, "asked", ask->size);
        failure_add_number(failure, "size", alloc_size(alloc));
        return -reason_errno(REASON_bad_address);
}

static int refuse_device(const struct alloc *alloc, const struct device *device, struct failure *failure) {
        failure_set(failure, REASON_wrong_device,
                    "Allocation %llu is of device %s and was not made shareable: device %s cannot have it",
                    (unsigned long long)alloc->handle, alloc->device->name, device->name);
        failure_add_number(failure, "alloc", alloc->handle);
        failure_add_number(failure, "device", alloc->device->handle);
        return -reason_errno(REASON_wrong_device);
}

static int refuse_held(const struct alloc *alloc, struct failure *failure) {
        failure_set(failure, REASON_unsupported, "Allocation %llu is memory of %s %llu, which its device reaches anyway",
                    (unsigned long long)alloc->handle, alloc->holder->kind == HOLDER_POOL ? "pool" : "bounce pool",
                    (unsigned long long)alloc->holder->handle);
        failure_add_number(failure, "alloc", alloc->handle);
        return -reason_errno(REASON_unsupported);
}

/* *ret has what of the mapping is known from the request alone. */
static int request_check(const struct caller *caller, const struct mapping_request *ask, struct mapping *ret,
                         struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct alloc *alloc = handle_find(&owner->broker->handles, HANDLE_ALLOC, ask->alloc);
        struct device *device = device_of(caller, ask->device, failure);

        if (!device)
                return failure ? -failure->error : -ENOENT;
        if (!alloc || alloc->device->owner != owner)
                return handle_not_found(caller, HANDLE_ALLOC, ask->alloc, failure);
        if (alloc->flags & ALLOC_HELD)
                return refuse_held(alloc, failure);
        if (alloc->flags & ALLOC_MOVING)
                return failure_set(failure, REASON_busy, "Allocation %llu is being moved",
                                   (unsigned long long)alloc->handle);
        if (alloc_is_anonymous(alloc))
                return failure_set(failure, REASON_busy, "Allocation %llu was swapped out: swap it in first",
                                   (unsigned long long)alloc->handle);
        if (alloc->device != device && !(alloc->flags & ALLOC_SHAREABLE))
                return refuse_device(alloc, device, failure);
        if (ask->offset >= alloc_size(alloc) || ask->size > alloc_size(alloc) - ask->offset)
                return refuse_address(alloc, ask, failure);
        if ((unsigned)ask->direction > DMA_BIDIRECTIONAL) {
                failure_set(failure, REASON_bad_param, "There is no such direction");
                failure_add_text(failure, "param", "direction");
                return -EINVAL;
        }
        *ret = (struct mapping){
                .session = caller->session,
                .device = device,
                .alloc = alloc,
                .addr = alloc_addr(alloc) + ask->offset,
                .size = ask->size ? ask->size : alloc_size(alloc) - ask->offset,
                .direction = ask->direction,
        };
        if (!device->max_segment || ret->size <= device->max_segment)
                return 0;
        failure_set(failure, REASON_limit, "Device %s takes segments of at most %llu bytes, and %llu were asked for",
                    device->name, (unsigned long long)device->max_segment, (unsigned long long)ret->size);
        failure_add_number(failure, "asked", ret->size);
        failure_add_number(failure, "limit", device->max_segment);
        return -reason_errno(REASON_limit);
}

/* Whether the device can make use of the address that it would have to use. */
static int dma_check(const struct mapping *mapping, uint64_t iova, struct failure *failure) {
        const struct device *device = mapping->device;
        uint64_t first = mapping->dma_addr, last = first + mapping->size - 1;

        if (iova && iova != first) {
                failure_set(failure, REASON_unsupported, "Device %s sees this memory at 0x%llx and nowhere else: its "
                            "translation is `%s`", device->name, (unsigned long long)first, device->translator->name);
                failure_add_hex(failure, "asked", iova);
                failure_add_hex(failure, "dma_addr", first);
                return -reason_errno(REASON_unsupported);
        }
        if (last > device->mask) {
                failure_set(failure, REASON_mask, "The memory ends at 0x%llx, and device %s reaches no further than 0x%llx",
                            (unsigned long long)last, device->name, (unsigned long long)device->mask);
                failure_add_hex(failure, "dma_addr", first);
                failure_add_hex(failure, "mask", device->mask);
                return -reason_errno(REASON_mask);
        }
        if (device->boundary && (first & ~(device->boundary - 1)) != (last & ~(device->boundary - 1))) {
                failure_set(failure, REASON_boundary, "%llu bytes at 0x%llx cross a boundary of %llu of device %s",
                            (unsigned long long)mapping->size, (unsigned long long)first,
                            (unsigned long long)device->boundary, device->name);
                failure_add_hex(failure, "dma_addr", first);
                failure_add_number(failure, "asked", mapping->size);
                failure_add_number(failure, "boundary", device->boundary);
                return -reason_errno(REASON_boundary);
        }
        return 0;
}

static int map(struct mapping *like, uint64_t iova, struct mapping **ret, struct failure *failure) {
        const struct device *device = like->device;
        const struct arena_request reach = { .align = PAGE, .boundary = device->boundary, .limit = device->mask };
        uint64_t offset = page_offset(like->addr);
        int r;

        r = device_map(device, like->alloc->region, like->addr - offset, round_up(offset + like->size, PAGE),
                       like->direction, &reach, &like->dma_addr, failure);
        if (r < 0)
                return r;
        like->dma_addr += offset;
        r = dma_check(like, iova, failure);
        if (r == 0)
                r = mapping_new(like, ret, failure);
        if (r < 0)
                translation_end(device, like->addr, like->dma_addr, like->size);
        return r;
}

int mapping_map(const struct caller *caller, const struct mapping_request *ask, uint64_t *ret_handle,
                struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct mapping like, *mapping;
        int r;

        r = request_check(caller, ask, &like, failure);
        if (r == 0)
                r = key_begin(owner, ask->request_key, HANDLE_MAPPING, ask->request_digest, &like.key, failure);
        if (r < 0)
                return r;
        if (r == 1) {
                *ret_handle = like.key->handle;
                return 0;
        }
        r = map(&like, ask->iova, &mapping, failure);
        if (r < 0) {
                key_forget(owner, like.key);
                return r;
        }
        *ret_handle = mapping->handle;
        return 0;
}

/* ---- unmapping and synchronising ---- */

static int mapping_find(const struct caller *caller, uint64_t handle, struct mapping **ret, struct failure *failure) {
        struct mapping *mapping = handle_find(&caller->session->owner->broker->handles, HANDLE_MAPPING, handle);

        if (!mapping || (mapping->session->owner != caller->session->owner && !caller->admin))
                return handle_not_found(caller, HANDLE_MAPPING, handle, failure);
        *ret = mapping;
        return 0;
}

int mapping_unmap(const struct caller *caller, uint64_t handle, struct failure *failure) {
        struct mapping *mapping = NULL;
        int r;

        r = mapping_find(caller, handle, &mapping, failure);
        if (r < 0)
                return r;
        if (mapping->holder)
                return failure_set(failure, REASON_unknown_handle, "Mapping %llu is of a bounce pool: unmap it with bounce.unmap",
                                   (unsigned long long)handle);
        mapping_end(mapping, false);
        return 0;
}

static int direction_check(const struct mapping *mapping, const enum dma_direction *direction, struct failure *failure) {
        if (!direction || *direction == mapping->direction)
                return 0;
        failure_set(failure, REASON_wrong_direction, "Mapping %llu was mapped %s, not %s",
                    (unsigned long long)mapping->handle, direction_name(mapping->direction), direction_name(*direction));
        failure_add_text(failure, "asked", direction_name(*direction));
        failure_add_text(failure, "direction", direction_name(mapping->direction));
        return -reason_errno(REASON_wrong_direction);
}

int bounce_unmap(const struct caller *caller, uint64_t handle, uint64_t size, const enum dma_direction *direction,
                 struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct mapping *mapping = NULL;
        int r;

        r = mapping_find(caller, handle, &mapping, failure);
        if (r < 0)
                return r;
        if (!mapping->holder)
                return failure_set(failure, REASON_unknown_handle, "Mapping %llu is of an allocation: unmap it with "
                                   "mapping.unmap", (unsigned long long)handle);
        if (size && size != mapping->size) {
                failure_set(failure, REASON_wrong_size, "Mapping %llu has %llu bytes, not %llu", (unsigned long long)handle,
                            (unsigned long long)mapping->size, (unsigned long long)size);
                failure_add_number(failure, "asked", size);
                failure_add_number(failure, "size", mapping->size);
                return -reason_errno(REASON_wrong_size);
        }
        r = direction_check(mapping, direction, failure);
        if (r < 0)
                return r;
        mapping_end(mapping, false);
        /* A part that nothing uses any more may be what others wait for. */
        if (broker->n_requests && broker->idle_parts)
                requests_serve(broker);
        else
                waiters_serve(broker);
        return 0;
}

/* A direction that is not the mapping's is wrong, but a bidirectional mapping passes every one. */
static int sync_check(const struct mapping *mapping, const enum dma_direction *direction, enum dma_sync sync,
                      struct failure *failure) {
        if (mapping->direction == DMA_BIDIRECTIONAL)
                return 0;
        if ((sync == DMA_SYNC_FOR_CPU && mapping->direction == DMA_TO_DEVICE) ||
            (sync == DMA_SYNC_FOR_DEVICE && mapping->direction == DMA_FROM_DEVICE)) {
                failure_set(failure, REASON_wrong_direction, "Mapping %llu was mapped %s: there is nothing to synchronise "
                            "for the %s", (unsigned long long)mapping->handle, direction_name(mapping->direction),
                            sync == DMA_SYNC_FOR_CPU ? "CPU" : "device");
                failure_add_text(failure, "direction", direction_name(mapping->direction));
                return -reason_errno(REASON_wrong_direction);
        }
        return direction_check(mapping, direction, failure);
}

int bounce_sync(const struct caller *caller, uint64_t handle, uint64_t offset, uint64_t size,
                const enum dma_direction *direction, enum dma_sync sync, struct failure *failure) {
        struct mapping *mapping = NULL;
        int r;

        r = mapping_find(caller, handle, &mapping, failure);
        if (r < 0)
                return r;
        if (offset >= mapping->size || size > mapping->size - offset) {
                failure_set(failure, REASON_bad_address, "Mapping %llu has %llu bytes: it has no %llu bytes at offset %llu",
                            (unsigned long long)handle, (unsigned long long)mapping->size, (unsigned long long)size,
                            (unsigned long long)offset);
                failure_add_number(failure, "offset", offset);
                failure_add_number(failure, "asked", size);
                failure_add_number(failure, "size", mapping->size);
                return -reason_errno(REASON_bad_address);
        }
        r = sync_check(mapping, direction, sync, failure);
        if (r == 0 && mapping->holder)
                bounce_synced(mapping->holder);
        return r;
}

/* ---- the outside's view ---- */

void mapping_look(const struct mapping *mapping, struct mapping_view *ret) {
        const struct alloc *alloc = mapping->alloc;

        *ret = (struct mapping_view){
                .handle = mapping->handle,
                .device = mapping->device->handle,
                .owner = mapping->session->owner->name,
                .device_name = mapping->device->name,
                .bounce = mapping->holder ? mapping->holder->handle : 0,
                .alloc = mapping->holder ? 0 : alloc->handle,
                .dma_addr = mapping->dma_addr,
                .machine_addr = mapping->addr,
                .region = alloc->region->handle,
                .offset = mapping->addr - alloc->region->addr,
                .size = mapping->size,
                .slots = mapping->slots,
                .direction = mapping->direction,
                .age_ms = now_ms(mapping->session->owner->broker) - mapping->born_ms,
                .simulated = alloc->region->supply->info.flags & SOURCE_SIMULATED,
        };
}

int mapping_get(const struct caller *caller, uint64_t handle, struct mapping_view *ret, struct failure *failure) {
        struct mapping *mapping = NULL;
        int r;

        r = mapping_find(caller, handle, &mapping, failure);
        if (r == 0)
                mapping_look(mapping, ret);
        return r;
}

int mapping_visit(const struct caller *caller, uint64_t device, const char *name, uint64_t after, mapping_visit_fn visit,
                  void *userdata, struct failure *failure) {
        struct selection selection;
        struct mapping_view view;
        struct mapping *mapping;
        int r;

        r = selection_begin(&selection, caller, name, device, after, failure);
        if (r < 0)
                return r;
        while ((mapping = selection_next(&selection, HANDLE_MAPPING))) {
                if (!selection_has(&selection, mapping->session->owner, mapping->device))
                        continue;
                mapping_look(mapping, &view);
                if (visit(&view, userdata))
                        break;
        }
        return 0;
}

/* ---- the books ---- */

void check_mappings(struct check *check, const struct device *device, struct quota *counted) {
        uint64_t n = 0, of_allocs = 0, said = 0;
        const struct mapping *mapping;
        const struct device *other;
        const struct alloc *alloc;

        for (mapping = device->mappings; mapping; mapping = mapping->device_next) {
                n++;
                if (mapping->session->owner != device->owner)
                        check_complain(check, "mapping", mapping->handle, "Its session belongs to another owner");
                if (mapping->addr < alloc_addr(mapping->alloc) ||
                    mapping->addr - alloc_addr(mapping->alloc) + mapping->size > alloc_size(mapping->alloc))
                        check_complain(check, "mapping", mapping->handle, "It reaches beyond its allocation");
        }
        check_equal(check, "device", device->handle, "mappings", device->n_mappings, n);
        counted->of[QUOTA_mappings] += n;
        DL_FOREACH(device->allocs, alloc)
                said += alloc->n_mappings;
        DL_FOREACH(device->owner->devices, other)
                for (mapping = other->mappings; mapping; mapping = mapping->device_next)
                        of_allocs += !mapping->holder && mapping->alloc->device == device;
        check_equal(check, "device", device->handle, "mappings of its allocations", said, of_allocs);
}
