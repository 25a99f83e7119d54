/* coherent.alloc, coherent.free, coherent.list, coherent.lookup */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/session.h"

/* ---- alloc ----
 *
 * The core answers at once when there is memory. If not, the call waits with the session that it came from: it is
 * answered when the core has an answer, or goes with its connection or its session. */

struct allocation {
        struct waiting waiting;
        struct rpc_call *call;
        struct caller caller;
        bool fd, again, deferred, answered; /* again: it is another request's, asked for again with its key */
};

static void allocation_forget(struct waiting *waiting) {
        free((struct allocation *)((char *)waiting - offsetof(struct allocation, waiting)));
}

/* -errno with a sentence: then nothing was opened. */
static int dup_region(const struct allocation *allocation, uint64_t region, int *ret_fd, struct failure *failure) {
        int r, fd;

        r = region_fd(&allocation->caller, region, &fd, failure);
        if (r < 0)
                return r;
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return failure_set_errno(failure, REASON_limit, errno, "The daemon has no file descriptor left: %s",
                                         strerror(errno));
        *ret_fd = fd;
        return 0;
}

static void answer_allocation(struct allocation *allocation, uint64_t handle) {
        struct rpc_call *call = allocation->call;
        struct coherent_alloc_result result = { .alloc = handle };
        struct failure failure = { 0 };
        struct alloc_view view;
        size_t n_fds = 0;
        int fd, r;

        r = coherent_get(&allocation->caller, handle, &view, &failure);
        if (r == 0 && allocation->fd && rpc_call_peer(call)->takes_fds && !rpc_call_is_notification(call)) {
                r = dup_region(allocation, view.region, &fd, &failure);
                if (r == 0)
                        n_fds = 1;
                else if (!allocation->again)
                        coherent_free(&allocation->caller, handle, NULL);
        }
        if (r < 0) {
                error_answer(call, &failure);
                return;
        }
        result.region = view.region;
        result.offset = view.offset;
        result.size = view.size;
        result.dma_addr = view.dma_addr;
        if (method_tells_machine(call))
                schema_put(&result, machine_addr, view.machine_addr);
        result.addressing = view.simulated ? PROTOCOL_SIMULATED : PROTOCOL_MACHINE;
        if (n_fds)
                rpc_call_reply_consume_fds(call, &result, &fd, n_fds);
        else
                rpc_call_reply(call, &result);
}

static void on_allocated(void *userdata, const struct failure *failure, uint64_t handle) {
        struct allocation *allocation = userdata;

        if (allocation->deferred)
                waiting_end(&allocation->waiting);
        if (failure)
                error_answer(allocation->call, failure);
        else
                answer_allocation(allocation, handle);
        allocation->answered = true;
        if (allocation->deferred)
                free(allocation);
}

/* -errno with a sentence. */
static int request_of_params(struct rpc_call *call, const struct coherent_alloc_params *params,
                             const struct caller *caller, struct alloc_request *ret, struct failure *failure) {
        struct device_view device;
        int r;

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
        if (schema_has(params, wait_ms)) {
                ret->wait_ms = params->wait_ms;
                return 0;
        }
        r = device_get(caller, params->device, &device, failure);
        if (r == 0)
                ret->wait_ms = device.timeout_ms;
        return r;
}

void method_coherent_alloc(struct rpc_call *call, const void *given) {
        const struct coherent_alloc_params *params = given;
        struct allocation *allocation;
        struct failure failure = { 0 };
        struct alloc_request request;
        struct ticket *ticket;
        struct caller caller;

        if (method_refuse_empty_mask(call, "mask", schema_has(params, mask), params->mask) ||
            !method_caller(call, &caller))
                return;
        if (request_of_params(call, params, &caller, &request, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        allocation = calloc(1, sizeof(*allocation));
        if (!allocation) {
                rpc_call_fail_format(call, REASON_no_memory, "The daemon itself is out of memory");
                return;
        }
        allocation->call = call;
        allocation->caller = caller;
        allocation->fd = schema_has(params, fd) && params->fd;
        allocation->again = request_is_answered(&caller, request.request_key);
        ticket = coherent_alloc(&caller, &request, on_allocated, allocation);
        if (allocation->answered) {
                free(allocation);
                return;
        }
        allocation->deferred = true;
        waiting_begin(&allocation->waiting, method_connection(call), call, ticket, allocation_forget);
}

/* ---- free ---- */

void method_coherent_free(struct rpc_call *call, const void *given) {
        const struct coherent_free_params *params = given;
        const struct ok_result result = { .ok = true };
        struct failure failure = { 0 };
        struct alloc_view view;
        struct caller caller;
        char owner[64] = "";

        if (!method_caller(call, &caller))
                return;
        if (caller.admin && coherent_get(&caller, params->alloc, &view, NULL) == 0 &&
            strcmp(view.owner, session_owner(caller.session)) != 0)
                strncpy(owner, view.owner, sizeof(owner) - 1);
        if (coherent_free(&caller, params->alloc, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        if (*owner)
                method_log_admin(call, owner, "allocation", params->alloc);
        rpc_call_reply(call, &result);
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
                (ret)->size = (view)->size;                                                               \
                (ret)->dma_addr = (view)->dma_addr;                                                       \
                if (machine)                                                                              \
                        schema_put(ret, machine_addr, (view)->machine_addr);                              \
                (ret)->addressing = (view)->simulated ? PROTOCOL_SIMULATED : PROTOCOL_MACHINE;            \
                (ret)->lifetime = (view)->owner_lifetime ? PROTOCOL_LIFETIME_OWNER : PROTOCOL_LIFETIME_SESSION; \
                (ret)->shareable = (view)->shareable;                                                     \
                (ret)->age_ms = (view)->age_ms;                                                           \
        } while (0)

struct listing {
        struct method_list list;
        bool machine;
};

static int add_alloc(const struct alloc_view *view, void *userdata) {
        struct listing *listing = userdata;
        struct alloc_info *info = method_list_add(&listing->list);

        if (!info)
                return 1;
        DESCRIBE(info, view, listing->machine);
        return 0;
}

void method_coherent_list(struct rpc_call *call, const void *given) {
        const struct coherent_list_params *params = given;
        struct listing listing = {
                .list = { .size = sizeof(struct alloc_info),
                          .limit = schema_has(params, limit) ? params->limit : PROTOCOL_LIST_DEFAULT },
                .machine = method_tells_machine(call),
        };
        struct coherent_list_result result = { 0 };
        struct failure failure = { 0 };
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (coherent_visit(&caller, schema_has(params, device) ? params->device : 0,
                           schema_has(params, owner) ? params->owner : NULL,
                           schema_has(params, after) ? params->after : 0, add_alloc, &listing, &failure) < 0)
                error_answer(call, &failure);
        else if (method_list_failed(&listing.list, call))
                return;
        else {
                result.allocs.items = listing.list.items;
                result.allocs.count = listing.list.count;
                result.more = listing.list.more;
                rpc_call_reply(call, &result);
        }
        free(listing.list.items);
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
        rpc_call_reply(call, &result);
}
