/* bounce.create, bounce.map, bounce.unmap, bounce.sync, bounce.lease, bounce.return, bounce.destroy, bounce.stats,
 * bounce.list */
#include "daemon/rpc/error.h"
#include "daemon/rpc/pending.h"

/* ---- create ---- */

static void answer_created(struct pending *pending, uint64_t handle) {
        struct bounce_create_result result = { .bounce = handle };
        struct failure failure = { 0 };
        struct bounce_view view;

        if (bounce_get(&pending->caller, handle, &view, &failure) < 0) {
                error_answer(pending->call, &failure);
                return;
        }
        METHOD_PLACE(&result, &view, method_tells_machine(pending->call));
        result.size = view.size;
        if (view.max_size)
                schema_put(&result, max_size, view.max_size);
        result.slot_size = view.slot_size;
        result.slots = view.slots;
        result.areas = view.areas;
        result.addressing = method_addressing(view.simulated);
        rpc_call_reply(pending->call, &result);
}

/* -errno with a sentence. */
static int options_of_params(struct rpc_call *call, const struct bounce_create_params *params, const struct caller *caller,
                             struct bounce_options *ret, struct failure *failure) {
        *ret = (struct bounce_options){
                .device = params->device,
                .size = params->size,
                .slot_size = schema_has(params, slot_size) ? params->slot_size : 0,
                .areas = schema_has(params, areas) ? params->areas : 0,
                .max_size = schema_has(params, max_size) ? params->max_size : 0,
                .high = schema_has(params, priority) && params->priority == PROTOCOL_HIGH,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        if (ret->request_key)
                ret->request_digest = method_digest(rpc_call_method(call), params);
        return method_wait_ms(caller, params->device, schema_has(params, wait_ms), params->wait_ms, &ret->wait_ms, failure);
}

void method_bounce_create(struct rpc_call *call, const void *given) {
        struct pending *pending = pending_new(call, sizeof(*pending), answer_created);
        struct failure failure = { 0 };
        struct bounce_options options;

        if (!pending)
                return;
        if (options_of_params(call, given, &pending->caller, &options, &failure) < 0)
                pending_refuse(pending, &failure);
        else
                pending_wait(pending, bounce_create(&pending->caller, &options, pending_done, pending));
}

/* ---- map ---- */

static void answer_mapped(struct pending *pending, uint64_t handle) {
        struct bounce_map_result result = { .mapping = handle };
        struct failure failure = { 0 };
        struct mapping_view view;

        if (mapping_get(&pending->caller, handle, &view, &failure) < 0) {
                error_answer(pending->call, &failure);
                return;
        }
        METHOD_PLACE(&result, &view, method_tells_machine(pending->call));
        result.size = view.size;
        result.slots = view.slots;
        result.addressing = method_addressing(view.simulated);
        rpc_call_reply(pending->call, &result);
}

/* What bounce.map and bounce.lease have in common. */
#define REQUEST_OF_PARAMS(call, params, size_)                                                       \
        {                                                                                            \
                .bounce = (params)->bounce, .size = (size_),                                         \
                .high = schema_has(params, priority) && (params)->priority == PROTOCOL_HIGH,         \
                .request_key = schema_has(params, request_key) ? (params)->request_key : NULL,       \
                .request_digest = method_digest(rpc_call_method(call), params),                      \
        }

/* -errno with a sentence. */
static int find_wait(const struct caller *caller, uint64_t bounce, bool given, uint64_t wait_ms, uint64_t *ret,
                     struct failure *failure) {
        struct bounce_view view;
        int r;

        r = bounce_get(caller, bounce, &view, failure);
        if (r == 0)
                r = method_wait_ms(caller, view.device, given, wait_ms, ret, failure);
        return r;
}

void method_bounce_map(struct rpc_call *call, const void *given) {
        const struct bounce_map_params *params = given;
        struct bounce_request request = REQUEST_OF_PARAMS(call, params, params->size);
        struct pending *pending = pending_new(call, sizeof(*pending), answer_mapped);
        struct failure failure = { 0 };

        if (!pending)
                return;
        request.direction = method_direction(params->direction);
        request.align_offset = schema_has(params, align_offset) ? params->align_offset : 0;
        if (find_wait(&pending->caller, params->bounce, schema_has(params, wait_ms), params->wait_ms, &request.wait_ms,
                      &failure) < 0)
                pending_refuse(pending, &failure);
        else
                pending_wait(pending, bounce_map(&pending->caller, &request, pending_done, pending));
}

/* ---- unmap and sync ---- */

/* -errno with a sentence: part of a mapping cannot go. */
static int check_whole(const struct bounce_unmap_params *params, struct failure *failure) {
        if (!schema_has(params, offset) || !params->offset)
                return 0;
        failure_set(failure, REASON_bad_address, "A mapping is unmapped as a whole, from its offset 0");
        failure_add_number(failure, "offset", params->offset);
        return -reason_errno(REASON_bad_address);
}

void method_bounce_unmap(struct rpc_call *call, const void *given) {
        const struct bounce_unmap_params *params = given;
        const enum dma_direction direction = method_direction(params->direction);
        const struct ok_result result = { .ok = true };
        struct failure failure = { 0 };
        struct method_other other;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        method_note_mapping(&caller, params->mapping, &other);
        if (check_whole(params, &failure) < 0 ||
            bounce_unmap(&caller, params->mapping, schema_has(params, size) ? params->size : 0,
                         schema_has(params, direction) ? &direction : NULL, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_other(call, &other, "mapping", params->mapping);
        rpc_call_reply(call, &result);
}

void method_bounce_sync(struct rpc_call *call, const void *given) {
        const struct bounce_sync_params *params = given;
        const enum dma_direction direction = method_direction(params->direction);
        const struct ok_result result = { .ok = true };
        enum dma_sync sync = DMA_SYNC_ANY;
        struct failure failure = { 0 };
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (schema_has(params, sync_for))
                sync = params->sync_for == PROTOCOL_FOR_CPU ? DMA_SYNC_FOR_CPU : DMA_SYNC_FOR_DEVICE;
        if (bounce_sync(&caller, params->mapping, schema_has(params, offset) ? params->offset : 0,
                        schema_has(params, size) ? params->size : 0, schema_has(params, direction) ? &direction : NULL,
                        sync, &failure) < 0)
                error_answer(call, &failure);
        else
                rpc_call_reply(call, &result);
}

/* ---- leases ---- */

static void answer_lease(struct pending *pending, uint64_t handle) {
        struct bounce_lease_result result = { .lease = handle };
        struct lease_view view;
        int fd;

        if (!pending_lease(pending, handle, LEASE_OF_BOUNCE, &view, &fd))
                return;
        METHOD_PLACE(&result, &view, method_tells_machine(pending->call));
        result.slots = view.count;
        result.slot_size = view.unit;
        result.addressing = method_addressing(view.simulated);
        pending_reply(pending, &result, fd);
}

void method_bounce_lease(struct rpc_call *call, const void *given) {
        const struct bounce_lease_params *params = given;
        struct bounce_request request = REQUEST_OF_PARAMS(call, params, schema_has(params, slots) ? params->slots : 0);
        struct pending *pending = pending_new(call, sizeof(*pending), answer_lease);
        struct failure failure = { 0 };

        if (!pending)
                return;
        if (find_wait(&pending->caller, params->bounce, schema_has(params, wait_ms), params->wait_ms, &request.wait_ms,
                      &failure) < 0) {
                pending_refuse(pending, &failure);
                return;
        }
        pending->wants_fd = schema_has(params, fd) && params->fd;
        pending->again = request_is_answered(&pending->caller, request.request_key);
        pending_wait(pending, bounce_lease(&pending->caller, &request, pending_done, pending));
}

void method_bounce_return(struct rpc_call *call, const void *given) {
        method_return_lease(call, given, LEASE_OF_BOUNCE);
}

/* ---- destroy ---- */

struct busy {
        struct method_list list; /* struct bounce_busy_run */
        bool machine;
};

static int add_busy(const struct mapping_view *view, void *userdata) {
        struct busy *busy = userdata;
        struct bounce_busy_run *row = method_list_add(&busy->list);

        if (!row)
                return 1;
        if (view->lease)
                schema_put(row, lease, view->lease);
        else
                schema_put(row, mapping, view->handle);
        METHOD_PLACE(row, view, busy->machine);
        row->size = view->size;
        row->slots = view->slots;
        return 0;
}

void method_bounce_destroy(struct rpc_call *call, const void *given) {
        const struct bounce_destroy_params *params = given;
        struct busy busy = {
                .list = { .size = sizeof(struct bounce_busy_run), .limit = PROTOCOL_LIST_DEFAULT },
                .machine = method_tells_machine(call),
        };
        bool force = schema_has(params, force) && params->force;
        struct bounce_destroy_result result = { 0 };
        struct method_other other = { "" };
        struct failure failure = { 0 };
        struct bounce_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (caller.admin && bounce_get(&caller, params->bounce, &view, NULL) == 0)
                method_note_other(&caller, view.owner, &other);
        if (bounce_destroy(&caller, params->bounce, force, add_busy, &busy, &failure) < 0)
                method_refuse_busy(call, &failure, "busy", &bounce_busy_run_struct, &busy.list);
        else {
                method_log_other(call, &other, "bounce pool", params->bounce);
                result.busy.items = busy.list.items;
                result.busy.count = busy.list.count;
                result.more = busy.list.more;
                rpc_call_reply(call, &result);
        }
        free(busy.list.items);
}

/* ---- list and stats ---- */

static void describe(const struct bounce_view *view, bool machine, struct bounce_info *ret) {
        *ret = (struct bounce_info){
                .bounce = view->handle,
                .device = view->device,
                .device_name = view->device_name,
                .owner = view->owner,
                .size = view->size,
                .slot_size = view->slot_size,
                .areas = view->areas,
                .slots = view->slots,
                .free = view->free,
                .used = view->used,
                .leased = view->leased,
                .quarantined = view->quarantined,
                .largest_free = view->largest_free,
                .high_water = view->high_water,
                .parts = view->parts,
                .leases = view->leases,
                .waiters = view->waiters,
                .maps = view->maps,
                .unmaps = view->unmaps,
                .syncs = view->syncs,
                .fulls = view->fulls,
                .waits = view->waits,
                .timeouts = view->timeouts,
                .grows = view->grows,
                .recalls = view->recalls,
                .addressing = method_addressing(view->simulated),
                .age_ms = view->age_ms,
        };
        METHOD_PLACE(ret, view, machine);
        if (view->max_size)
                schema_put(ret, max_size, view->max_size);
}

static int add_bounce(const struct bounce_view *view, void *userdata) {
        struct method_listing *listing = userdata;
        struct bounce_info *info = method_list_add(&listing->list);

        if (!info)
                return 1;
        describe(view, listing->machine, info);
        return 0;
}

void method_bounce_list(struct rpc_call *call, const void *given) {
        struct bounce_list_result result = { 0 };
        struct failure failure = { 0 };
        struct method_listing listing;
        int r;

        if (!method_listing_init(&listing, call, given, sizeof(struct bounce_info)))
                return;
        r = bounce_visit(&listing.caller, listing.device, listing.owner, listing.after, add_bounce, &listing, &failure);
        METHOD_LISTING_ANSWER(&listing, call, r, &failure, &result, bounces);
}

void method_bounce_stats(struct rpc_call *call, const void *given) {
        const struct bounce_stats_params *params = given;
        struct failure failure = { 0 };
        struct bounce_info result;
        struct bounce_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (bounce_get(&caller, params->bounce, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        describe(&view, method_tells_machine(call), &result);
        rpc_call_reply(call, &result);
}
