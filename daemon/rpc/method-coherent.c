/* coherent.alloc, coherent.free, coherent.move, coherent.swap_out, coherent.swap_in, coherent.list, coherent.lookup */
#include <unistd.h>

#include "daemon/rpc/error.h"
#include "daemon/rpc/pending.h"

/* ---- alloc ---- */

/* fd: consumed, or -1. */
static void reply_allocation(struct pending *pending, const struct alloc_view *view, int fd) {
        struct coherent_alloc_result result = { .alloc = view->handle };

        if (view->anonymous) {
                /* Asked for again with its key. */
                if (fd >= 0)
                        close(fd);
                rpc_call_fail_format(pending->call, REASON_busy, "Allocation %llu was swapped out meanwhile: swap it in first",
                                     (unsigned long long)view->handle);
                return;
        }
        METHOD_PLACE(&result, view, method_tells_machine(pending->call));
        result.size = view->size;
        result.addressing = method_addressing(view->simulated);
        pending_reply(pending, &result, fd);
}

static void answer_allocation(struct pending *pending, uint64_t handle) {
        struct failure failure = { 0 };
        struct alloc_view view;
        int fd = -1, r;

        r = coherent_get(&pending->caller, handle, &view, &failure);
        if (r == 0) {
                r = pending_dup_fd(pending, view.region, &fd, &failure);
                if (r < 0 && !pending->again)
                        coherent_free(&pending->caller, handle, NULL);
        }
        if (r < 0)
                error_answer(pending->call, &failure);
        else
                reply_allocation(pending, &view, fd);
}

/* -errno with a sentence. */
static int request_of_params(struct rpc_call *call, const struct coherent_alloc_params *params,
                             const struct caller *caller, struct alloc_request *ret, struct failure *failure) {
        *ret = (struct alloc_request){
                .device = params->device,
                .size = params->size,
                .align = schema_has(params, align) ? params->align : 0,
                .boundary = schema_has(params, boundary) ? params->boundary : 0,
                .mask = schema_has(params, mask) ? params->mask : 0,
                .high = schema_has(params, priority) && params->priority == PROTOCOL_HIGH,
                .zero = schema_has(params, zero) && params->zero,
                .shareable = schema_has(params, shareable) && params->shareable,
                .owner_lifetime = schema_has(params, lifetime) && params->lifetime == PROTOCOL_LIFETIME_OWNER,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        if (ret->request_key)
                ret->request_digest = method_digest(rpc_call_method(call), params);
        return method_wait_ms(caller, params->device, schema_has(params, wait_ms), params->wait_ms, &ret->wait_ms, failure);
}

void method_coherent_alloc(struct rpc_call *call, const void *given) {
        const struct coherent_alloc_params *params = given;
        struct failure failure = { 0 };
        struct alloc_request request;
        struct pending *pending;

        if (method_refuse_empty_mask(call, "mask", schema_has(params, mask), params->mask))
                return;
        pending = pending_new(call, sizeof(*pending), answer_allocation);
        if (!pending)
                return;
        if (request_of_params(call, params, &pending->caller, &request, &failure) < 0) {
                pending_refuse(pending, &failure);
                return;
        }
        pending->wants_fd = schema_has(params, fd) && params->fd;
        pending->again = request_is_answered(&pending->caller, request.request_key);
        pending_wait(pending, coherent_alloc(&pending->caller, &request, pending_done, pending));
}

/* ---- free ---- */

void method_coherent_free(struct rpc_call *call, const void *given) {
        const struct coherent_free_params *params = given;
        const struct ok_result result = { .ok = true };
        struct failure failure = { 0 };
        struct method_other other = { 0 };
        struct alloc_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (caller.admin && coherent_get(&caller, params->alloc, &view, NULL) == 0)
                method_note_other(&caller, view.owner, &other);
        if (coherent_free(&caller, params->alloc, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_other(call, &other, "allocation", params->alloc);
        rpc_call_reply(call, &result);
}

/* ---- move ---- */

/* What was moved is not given up for want of a descriptor. */
static void answer_move(struct pending *pending, uint64_t handle) {
        struct failure failure = { 0 };
        struct alloc_view view;
        int fd = -1;

        if (coherent_get(&pending->caller, handle, &view, &failure) < 0) {
                error_answer(pending->call, &failure);
                return;
        }
        if (pending_dup_fd(pending, view.region, &fd, &failure) < 0)
                fd = -1;
        reply_allocation(pending, &view, fd);
}

void method_coherent_move(struct rpc_call *call, const void *given) {
        const struct coherent_move_params *params = given;
        struct failure failure = { 0 };
        struct move_request request = {
                .alloc = params->alloc,
                .device = params->device,
                .align = schema_has(params, align) ? params->align : 0,
                .high = schema_has(params, priority) && params->priority == PROTOCOL_HIGH,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        struct pending *pending = pending_new(call, sizeof(*pending), answer_move);

        if (!pending)
                return;
        if (request.request_key)
                request.request_digest = method_digest(rpc_call_method(call), params);
        if (method_wait_ms(&pending->caller, params->device, schema_has(params, wait_ms), params->wait_ms, &request.wait_ms,
                           &failure) < 0) {
                pending_refuse(pending, &failure);
                return;
        }
        pending->wants_fd = schema_has(params, fd) && params->fd;
        pending_wait(pending, coherent_move(&pending->caller, &request, pending_done, pending));
}

/* ---- swapping ---- */

static void answer_swap_out(struct pending *pending, uint64_t handle) {
        struct coherent_swap_out_result result = { .alloc = handle, .addressing = PROTOCOL_NO_ADDRESS };
        struct failure failure = { 0 };
        struct alloc_view view;
        int fd = -1;

        if (coherent_get(&pending->caller, handle, &view, &failure) < 0) {
                error_answer(pending->call, &failure);
                return;
        }
        if (pending_dup_fd(pending, view.region, &fd, &failure) < 0)
                fd = -1;
        result.region = view.region;
        result.offset = view.offset;
        result.size = view.size;
        pending_reply(pending, &result, fd);
}

void method_coherent_swap_out(struct rpc_call *call, const void *given) {
        const struct coherent_swap_out_params *params = given;
        struct pending *pending = pending_new(call, sizeof(*pending), answer_swap_out);

        if (!pending)
                return;
        pending->wants_fd = schema_has(params, fd) && params->fd;
        pending_wait(pending, coherent_swap_out(&pending->caller, params->alloc, pending_done, pending));
}

/* The device's time to wait holds here too. */
static int swap_in_wait(const struct caller *caller, const struct coherent_swap_in_params *params, uint64_t *ret,
                        struct failure *failure) {
        struct alloc_view view;
        int r = coherent_get(caller, params->alloc, &view, failure);

        return r < 0 ? r : method_wait_ms(caller, view.device, schema_has(params, wait_ms), params->wait_ms, ret, failure);
}

void method_coherent_swap_in(struct rpc_call *call, const void *given) {
        const struct coherent_swap_in_params *params = given;
        struct swap_in_request request = {
                .alloc = params->alloc,
                .align = schema_has(params, align) ? params->align : 0,
                .boundary = schema_has(params, boundary) ? params->boundary : 0,
                .mask = schema_has(params, mask) ? params->mask : 0,
                .high = schema_has(params, priority) && params->priority == PROTOCOL_HIGH,
        };
        struct failure failure = { 0 };
        struct pending *pending;

        if (method_refuse_empty_mask(call, "mask", schema_has(params, mask), params->mask))
                return;
        pending = pending_new(call, sizeof(*pending), answer_move);
        if (!pending)
                return;
        pending->wants_fd = schema_has(params, fd) && params->fd;
        if (swap_in_wait(&pending->caller, params, &request.wait_ms, &failure) < 0)
                pending_refuse(pending, &failure);
        else
                pending_wait(pending, coherent_swap_in(&pending->caller, &request, pending_done, pending));
}

/* ---- list and lookup ---- */

/* The members that struct alloc_info and struct coherent_lookup_result have in common. */
#define DESCRIBE(ret, view, machine)                                                                      \
        do {                                                                                              \
                (ret)->alloc = (view)->handle;                                                            \
                (ret)->device = (view)->device;                                                           \
                (ret)->owner = (view)->owner;                                                             \
                (ret)->region = (view)->region;                                                           \
                (ret)->offset = (view)->offset;                                                           \
                if (!(view)->anonymous)                                                                   \
                        schema_put(ret, dma_addr, (view)->dma_addr);                                      \
                if (machine && !(view)->anonymous)                                                        \
                        schema_put(ret, machine_addr, (view)->machine_addr);                              \
                (ret)->size = (view)->size;                                                               \
                (ret)->addressing = method_addressing_of((view)->anonymous, (view)->simulated);           \
                (ret)->lifetime = (view)->owner_lifetime ? PROTOCOL_LIFETIME_OWNER : PROTOCOL_LIFETIME_SESSION; \
                (ret)->shareable = (view)->shareable;                                                     \
                (ret)->age_ms = (view)->age_ms;                                                           \
                if ((view)->pool)                                                                         \
                        schema_put(ret, pool, (view)->pool);                                              \
                if ((view)->bounce)                                                                       \
                        schema_put(ret, bounce, (view)->bounce);                                          \
        } while (0)

static int add_alloc(const struct alloc_view *view, void *userdata) {
        struct method_listing *listing = userdata;
        struct alloc_info *info = method_list_add(&listing->list);

        if (!info)
                return 1;
        DESCRIBE(info, view, listing->machine);
        return 0;
}

void method_coherent_list(struct rpc_call *call, const void *given) {
        struct coherent_list_result result = { 0 };
        struct failure failure = { 0 };
        struct method_listing listing;
        int r;

        if (!method_listing_init(&listing, call, given, sizeof(struct alloc_info)))
                return;
        r = coherent_visit(&listing.caller, listing.device, listing.owner, listing.after, add_alloc, &listing, &failure);
        METHOD_LISTING_ANSWER(&listing, call, r, &failure, &result, allocs);
}

static const enum protocol_block_state block_states[] = {
        [POOL_BLOCK_FREE] = PROTOCOL_FREE,
        [POOL_BLOCK_USED] = PROTOCOL_USED,
        [POOL_BLOCK_LEASED] = PROTOCOL_LEASED,
        [POOL_BLOCK_QUARANTINED] = PROTOCOL_QUARANTINED,
};

struct lease_search {
        uint64_t machine_addr, lease;
};

static int look_at_lease(const struct lease_view *view, void *userdata) {
        struct lease_search *search = userdata;

        if (search->machine_addr - view->machine_addr >= view->count * view->unit)
                return 0;
        search->lease = view->handle;
        return 1;
}

/* What there is to say of memory that a pool or a bounce pool has cut up. */
static void describe_piece(const struct caller *caller, const struct alloc_view *view, uint64_t at,
                           struct coherent_lookup_result *ret) {
        struct lease_search search = { .machine_addr = view->machine_addr + at };
        struct pool_block_view block;

        if (view->pool && pool_block_at(caller, search.machine_addr, true, &block, NULL) == 0) {
                schema_put(ret, block, block.dma_addr);
                schema_put(ret, state, block_states[block.state]);
                search.lease = block.lease;
        } else if (view->bounce) {
                lease_visit(caller, 0, view->bounce, NULL, 0, look_at_lease, &search, NULL);
        }
        if (search.lease)
                schema_put(ret, lease, search.lease);
}

void method_coherent_lookup(struct rpc_call *call, const void *given) {
        const struct coherent_lookup_params *params = given;
        bool machine = schema_has(params, machine_addr);
        uint64_t addr = machine ? params->machine_addr : params->dma_addr;
        struct coherent_lookup_result result = { 0 };
        struct failure failure = { 0 };
        struct device_view device;
        struct alloc_view view;
        struct caller caller;
        int r = 0;

        if (machine == schema_has(params, dma_addr)) {
                rpc_call_fail_format(call, REASON_bad_param, "Give either dma_addr or machine_addr");
                return;
        }
        if (!method_caller(call, &caller))
                return;
        if (schema_has(params, device))
                r = device_get(&caller, params->device, &device, &failure);
        if (r == 0)
                r = coherent_lookup(&caller, addr, machine, &view, &failure);
        if (r == 0 && schema_has(params, device) && view.device != params->device) {
                r = failure_set(&failure, REASON_bad_address, "Device %llu was given nothing at 0x%llx",
                                (unsigned long long)params->device, (unsigned long long)addr);
                failure_add_hex(&failure, "asked", addr);
        }
        if (r < 0) {
                error_answer(call, &failure);
                return;
        }
        DESCRIBE(&result, &view, method_tells_machine(call));
        result.at = addr - (machine ? view.machine_addr : view.dma_addr);
        describe_piece(&caller, &view, result.at, &result);
        rpc_call_reply(call, &result);
}
