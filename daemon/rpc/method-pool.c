/* pool.create, pool.alloc, pool.free, pool.lease, pool.return, pool.destroy, pool.trim, pool.list, pool.stats */
#include "daemon/rpc/error.h"
#include "daemon/rpc/pending.h"

/* ---- create ---- */

static void answer_created(struct pending *pending, uint64_t handle) {
        struct pool_create_result result = { .pool = handle };
        struct failure failure = { 0 };
        struct pool_view view;

        if (pool_get(&pending->caller, handle, &view, &failure) < 0) {
                error_answer(pending->call, &failure);
                return;
        }
        result.block_size = view.block_size;
        result.blocks_per_slab = view.blocks_per_slab;
        result.align = view.align;
        if (view.boundary)
                schema_put(&result, boundary, view.boundary);
        result.slab_size = view.slab_size;
        result.reserve = view.reserve;
        rpc_call_reply(pending->call, &result);
}

static const enum pool_caching cachings[] = {
        [PROTOCOL_CACHED] = POOL_CACHED,
        [PROTOCOL_WRITE_COMBINED] = POOL_WRITE_COMBINED,
        [PROTOCOL_UNCACHED] = POOL_UNCACHED,
};

/* -errno with a sentence. */
static int options_of_params(struct rpc_call *call, const struct pool_create_params *params, const struct caller *caller,
                             struct pool_options *ret, struct failure *failure) {
        *ret = (struct pool_options){
                .name = params->name,
                .device = params->device,
                .size = params->size,
                .align = schema_has(params, align) ? params->align : 0,
                .boundary = schema_has(params, boundary) ? params->boundary : 0,
                .reserve = schema_has(params, reserve) ? params->reserve : 0,
                .max_blocks = schema_has(params, max_blocks) ? params->max_blocks : 0,
                .caching = schema_has(params, caching) ? cachings[params->caching] : POOL_CACHED,
                .high = schema_has(params, priority) && params->priority == PROTOCOL_HIGH,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        if (ret->request_key)
                ret->request_digest = method_digest(rpc_call_method(call), params);
        return method_wait_ms(caller, params->device, schema_has(params, wait_ms), params->wait_ms, &ret->wait_ms, failure);
}

void method_pool_create(struct rpc_call *call, const void *given) {
        struct pending *pending = pending_new(call, sizeof(*pending), answer_created);
        struct failure failure = { 0 };
        struct pool_options options;

        if (!pending)
                return;
        if (options_of_params(call, given, &pending->caller, &options, &failure) < 0)
                pending_refuse(pending, &failure);
        else
                pending_wait(pending, pool_create(&pending->caller, &options, pending_done, pending));
}

/* ---- alloc and free ---- */

/* There is room for the answer before anything is taken. */
struct pool_allocation {
        struct pending pending;
        uint64_t block_size;
        bool simulated;
        size_t count;
        struct pool_block_info infos[];
};

static void on_blocks(void *userdata, const struct failure *failure, const struct pool_block *blocks, size_t n) {
        struct pool_allocation *allocation = userdata;
        struct rpc_call *call = allocation->pending.call;
        struct pool_alloc_result result = {
                .blocks = { .items = allocation->infos, .count = n < allocation->count ? n : allocation->count },
                .block_size = allocation->block_size,
                .addressing = method_addressing(allocation->simulated),
        };

        pending_begin_answer(&allocation->pending);
        if (failure)
                error_answer(call, failure);
        else {
                for (size_t i = 0; i < result.blocks.count; i++)
                        METHOD_PLACE(&allocation->infos[i], &blocks[i], method_tells_machine(call));
                rpc_call_reply(call, &result);
        }
        pending_end_answer(&allocation->pending);
}

/* What pool.alloc and pool.lease have in common. */
#define REQUEST_OF_PARAMS(call, params, blocks)                                                      \
        {                                                                                            \
                .pool = (params)->pool, .count = (blocks),                                           \
                .high = schema_has(params, priority) && (params)->priority == PROTOCOL_HIGH,         \
                .request_key = schema_has(params, request_key) ? (params)->request_key : NULL,       \
                .request_digest = method_digest(rpc_call_method(call), params),                      \
        }

/* Also looks at the pool. -errno with a sentence. */
static int find_wait(const struct caller *caller, uint64_t pool, bool given, uint64_t wait_ms, struct pool_view *ret_view,
                     uint64_t *ret_wait_ms, struct failure *failure) {
        int r;

        r = pool_get(caller, pool, ret_view, failure);
        if (r == 0)
                r = method_wait_ms(caller, ret_view->device, given, wait_ms, ret_wait_ms, failure);
        return r;
}

void method_pool_alloc(struct rpc_call *call, const void *given) {
        const struct pool_alloc_params *params = given;
        struct pool_request request = REQUEST_OF_PARAMS(call, params, schema_has(params, count) ? params->count : 1);
        struct pool_allocation *allocation;
        struct failure failure = { 0 };
        struct pending *pending;
        struct pool_view view;

        pending = pending_new(call, sizeof(*allocation) + request.count * sizeof(*allocation->infos), NULL);
        if (!pending)
                return;
        if (find_wait(&pending->caller, params->pool, schema_has(params, wait_ms), params->wait_ms, &view, &request.wait_ms,
                      &failure) < 0) {
                pending_refuse(pending, &failure);
                return;
        }
        allocation = (struct pool_allocation *)pending;
        allocation->block_size = view.block_size;
        allocation->simulated = view.simulated;
        allocation->count = request.count;
        pending_wait(pending, pool_alloc(&pending->caller, &request, on_blocks, allocation));
}

/* Whose pool it is, if the caller may know of it. */
static void note_owner(const struct caller *caller, uint64_t pool, struct method_other *ret) {
        struct pool_view view;

        *ret = (struct method_other){ "" };
        if (caller->admin && pool_get(caller, pool, &view, NULL) == 0)
                method_note_other(caller, view.owner, ret);
}

void method_pool_free(struct rpc_call *call, const void *given) {
        const struct pool_free_params *params = given;
        const struct ok_result result = { .ok = true };
        struct failure failure = { 0 };
        struct method_other other;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        note_owner(&caller, params->pool, &other);
        if (pool_free_blocks(&caller, params->pool, params->dma_addrs.items, params->dma_addrs.count, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_other(call, &other, "pool", params->pool);
        rpc_call_reply(call, &result);
}

/* ---- leases ---- */

static void answer_lease(struct pending *pending, uint64_t handle) {
        struct pool_lease_result result = { .lease = handle };
        struct lease_view view;
        int fd;

        if (!pending_lease(pending, handle, LEASE_OF_POOL, &view, &fd))
                return;
        METHOD_PLACE(&result, &view, method_tells_machine(pending->call));
        result.count = view.count;
        result.block_size = view.unit;
        result.addressing = method_addressing(view.simulated);
        pending_reply(pending, &result, fd);
}

void method_pool_lease(struct rpc_call *call, const void *given) {
        const struct pool_lease_params *params = given;
        struct pool_request request = REQUEST_OF_PARAMS(call, params, params->count);
        struct failure failure = { 0 };
        struct pending *pending;
        struct pool_view view;

        pending = pending_new(call, sizeof(*pending), answer_lease);
        if (!pending)
                return;
        if (find_wait(&pending->caller, params->pool, schema_has(params, wait_ms), params->wait_ms, &view, &request.wait_ms,
                      &failure) < 0) {
                pending_refuse(pending, &failure);
                return;
        }
        pending->wants_fd = schema_has(params, fd) && params->fd;
        pending->again = request_is_answered(&pending->caller, request.request_key);
        pending_wait(pending, pool_lease(&pending->caller, &request, pending_done, pending));
}

void method_pool_return(struct rpc_call *call, const void *given) {
        method_return_lease(call, given, LEASE_OF_POOL);
}

/* ---- destroy and trim ---- */

struct busy {
        struct method_list list; /* struct pool_busy_block */
        bool machine;
};

static int add_busy(const struct pool_block *block, void *userdata) {
        struct busy *busy = userdata;
        struct pool_busy_block *row = method_list_add(&busy->list);

        if (!row)
                return 1;
        METHOD_PLACE(row, block, busy->machine);
        if (block->lease)
                schema_put(row, lease, block->lease);
        return 0;
}

void method_pool_destroy(struct rpc_call *call, const void *given) {
        const struct pool_destroy_params *params = given;
        struct busy busy = {
                .list = { .size = sizeof(struct pool_busy_block), .limit = PROTOCOL_LIST_DEFAULT },
                .machine = method_tells_machine(call),
        };
        bool force = schema_has(params, force) && params->force;
        struct pool_destroy_result result = { 0 };
        struct failure failure = { 0 };
        struct method_other other;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        note_owner(&caller, params->pool, &other);
        if (pool_destroy(&caller, params->pool, force, add_busy, &busy, &failure) < 0)
                method_refuse_busy(call, &failure, "busy", &pool_busy_block_struct, &busy.list);
        else {
                method_log_other(call, &other, "pool", params->pool);
                result.busy.items = busy.list.items;
                result.busy.count = busy.list.count;
                result.more = busy.list.more;
                rpc_call_reply(call, &result);
        }
        free(busy.list.items);
}

void method_pool_trim(struct rpc_call *call, const void *given) {
        const struct pool_params *params = given;
        struct pool_trim_result result = { 0 };
        struct failure failure = { 0 };
        struct method_other other;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        note_owner(&caller, params->pool, &other);
        if (pool_trim(&caller, params->pool, &result.bytes, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_other(call, &other, "pool", params->pool);
        rpc_call_reply(call, &result);
}

/* ---- list and stats ---- */

static void describe(const struct pool_view *view, struct pool_info *ret) {
        *ret = (struct pool_info){
                .pool = view->handle,
                .name = view->name,
                .device = view->device,
                .device_name = view->device_name,
                .owner = view->owner,
                .block_size = view->block_size,
                .align = view->align,
                .blocks_per_slab = view->blocks_per_slab,
                .slab_size = view->slab_size,
                .reserve = view->reserve,
                .slabs = view->slabs,
                .bytes = view->bytes,
                .blocks = view->blocks,
                .free = view->free,
                .used = view->used,
                .leased = view->leased,
                .quarantined = view->quarantined,
                .high_water = view->high_water,
                .leases = view->leases,
                .waiters = view->waiters,
                .allocs = view->allocs,
                .frees = view->frees,
                .failures = view->failures,
                .waits = view->waits,
                .timeouts = view->timeouts,
                .recalls = view->recalls,
                .addressing = method_addressing(view->simulated),
                .age_ms = view->age_ms,
        };
        if (view->boundary)
                schema_put(ret, boundary, view->boundary);
        if (view->max_blocks)
                schema_put(ret, max_blocks, view->max_blocks);
}

static int add_pool(const struct pool_view *view, void *userdata) {
        struct method_listing *listing = userdata;
        struct pool_info *info = method_list_add(&listing->list);

        if (!info)
                return 1;
        describe(view, info);
        return 0;
}

void method_pool_list(struct rpc_call *call, const void *given) {
        struct pool_list_result result = { 0 };
        struct failure failure = { 0 };
        struct method_listing listing;
        int r;

        if (!method_listing_init(&listing, call, given, sizeof(struct pool_info)))
                return;
        r = pool_visit(&listing.caller, listing.device, listing.owner, listing.after, add_pool, &listing, &failure);
        METHOD_LISTING_ANSWER(&listing, call, r, &failure, &result, pools);
}

void method_pool_stats(struct rpc_call *call, const void *given) {
        const struct pool_params *params = given;
        struct failure failure = { 0 };
        struct pool_info result;
        struct pool_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (pool_get(&caller, params->pool, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        describe(&view, &result);
        rpc_call_reply(call, &result);
}
