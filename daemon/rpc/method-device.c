/* device.list, device.get, device.open, device.set_mask, device.supported, device.close, device.reserve, device.unreserve */
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rpc/error.h"
#include "daemon/rpc/pending.h"

/* The members that struct device_info and struct device_open_result have in common. */
#define DESCRIBE(ret, view)                                                             \
        do {                                                                            \
                (ret)->device = (view)->handle;                                         \
                (ret)->name = (view)->name;                                             \
                (ret)->via = (view)->via;                                               \
                (ret)->translation = method_translation((view)->translation);            \
                (ret)->mask = (view)->mask;                                             \
                (ret)->coherent_mask = (view)->coherent_mask;                           \
                if ((view)->parent)                                                     \
                        schema_put(ret, parent, (view)->parent);                        \
                if ((view)->boundary)                                                   \
                        schema_put(ret, boundary, (view)->boundary);                    \
                if ((view)->max_segment)                                                \
                        schema_put(ret, max_segment, (view)->max_segment);              \
                if ((view)->min_align_mask)                                             \
                        schema_put(ret, min_align_mask, (view)->min_align_mask);        \
                if ((view)->node >= 0)                                                  \
                        schema_put(ret, node, (uint64_t)(view)->node);                  \
                if ((view)->timeout_ms)                                                 \
                        schema_put(ret, wait_ms, (view)->timeout_ms);                   \
        } while (0)

/* ---- list ---- */

static void describe(const struct device_view *view, struct device_info *info) {
        DESCRIBE(info, view);
        info->owner = view->owner;
        info->allocs = view->allocs;
        info->bytes = view->bytes;
        info->reserved_bytes = view->reserved_bytes;
        info->session_bound = view->session_bound;
}

static int add_device(const struct device_view *view, void *userdata) {
        struct method_list *list = userdata;
        struct device_info *info = method_list_add(list);

        if (!info)
                return 1;
        describe(view, info);
        return 0;
}

void method_device_list(struct rpc_call *call, const void *given) {
        const struct device_list_params *params = given;
        struct method_list list = { .size = sizeof(struct device_info), .limit = SIZE_MAX };
        const char *owner = schema_has(params, owner) ? params->owner : NULL;
        struct device_list_result result = { 0 };
        struct failure failure = { 0 };
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (device_visit(&caller, owner, add_device, &list, &failure) < 0)
                error_answer(call, &failure);
        else if (method_list_failed(&list, call))
                return;
        else {
                method_list_page(&list, offsetof(struct device_info, device), schema_has(params, after) ? params->after : 0,
                                 schema_has(params, limit) ? params->limit : PROTOCOL_LIST_DEFAULT);
                result.devices.items = list.items;
                result.devices.count = list.count;
                result.more = list.more;
                rpc_call_reply(call, &result);
        }
        free(list.items);
}

/* ---- get ---- */

void method_device_get(struct rpc_call *call, const void *given) {
        const struct device_get_params *params = given;
        struct device_info result = { 0 };
        struct failure failure = { 0 };
        struct device_view view;
        struct caller caller;
        int fd = -1;

        if (!method_caller(call, &caller))
                return;
        if (device_get(&caller, params->device, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        describe(&view, &result);
        if (rpc_call_is_notification(call) || !rpc_call_peer(call)->takes_fds ||
            device_fd(&caller, params->device, &fd, NULL) < 0 || fd < 0) {
                rpc_call_reply(call, &result);
                return;
        }
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                rpc_call_fail_format(call, REASON_no_memory, "The daemon has no descriptors left");
        else
                rpc_call_reply_consume_fds(call, &result, &fd, 1);
}

/* ---- open ---- */

static void options_of_params(const struct device_open_params *params, struct device_options *ret) {
        *ret = (struct device_options){
                .name = params->name,
                .parent = schema_has(params, parent) ? params->parent : NULL,
                .mask = schema_has(params, mask) ? params->mask : 0,
                .coherent_mask = schema_has(params, coherent_mask) ? params->coherent_mask : 0,
                .boundary = schema_has(params, boundary) ? params->boundary : 0,
                .max_segment = schema_has(params, max_segment) ? params->max_segment : 0,
                .min_align_mask = schema_has(params, min_align_mask) ? params->min_align_mask : 0,
                .node = schema_has(params, node) ? (int)params->node : -1,
                .timeout_ms = schema_has(params, wait_ms) ? params->wait_ms : 0,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
}

void method_device_open(struct rpc_call *call, const void *given) {
        const struct device_open_params *params = given;
        struct device_open_result result = { 0 };
        struct device_options options;
        struct failure failure = { 0 };
        struct device_view view;
        struct caller caller;
        uint64_t handle;

        if (method_refuse_empty_mask(call, "mask", schema_has(params, mask), params->mask) ||
            method_refuse_empty_mask(call, "coherent_mask", schema_has(params, coherent_mask), params->coherent_mask) ||
            !method_caller(call, &caller))
                return;
        options_of_params(params, &options);
        if (options.request_key)
                options.request_digest = method_digest(rpc_call_method(call), params);
        if (device_open(&caller, &options, &handle, &failure) < 0 || device_get(&caller, handle, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        DESCRIBE(&result, &view);
        rpc_call_reply(call, &result);
}

/* ---- masks ---- */

void method_device_set_mask(struct rpc_call *call, const void *given) {
        const struct device_set_mask_params *params = given;
        bool coherent = schema_has(params, coherent) && params->coherent;
        struct device_set_mask_result result = { .ok = true };
        struct failure failure = { 0 };
        struct method_other other;
        struct device_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (device_get(&caller, params->device, &view, &failure) < 0 ||
            device_set_mask(&caller, params->device, params->mask, coherent, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_note_other(&caller, view.owner, &other);
        method_log_other(call, &other, "device", params->device);
        device_get(&caller, params->device, &view, NULL);
        result.mask = view.mask;
        result.coherent_mask = view.coherent_mask;
        rpc_call_reply(call, &result);
}

void method_device_supported(struct rpc_call *call, const void *given) {
        const struct device_supported_params *params = given;
        bool coherent = schema_has(params, coherent) && params->coherent;
        struct device_supported_result result = { 0 };
        struct failure failure = { 0 };
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (device_supported(&caller, params->device, params->mask, coherent, &result.supported, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        if (!result.supported)
                schema_put(&result, why, "No memory that this device can reach lies within the mask");
        rpc_call_reply(call, &result);
}

/* ---- close ---- */

/* Names are copied: the core's are gone with what they name. */
static int add_leak(const struct leak_view *view, void *userdata) {
        struct device_leak *leak = method_list_add(userdata);
        char *name;

        if (!leak)
                return 1;
        leak->size = view->size;
        if (view->alloc)
                schema_put(leak, alloc, view->alloc);
        if (view->pool)
                schema_put(leak, pool, view->pool);
        if (view->bounce)
                schema_put(leak, bounce, view->bounce);
        if (view->mapping)
                schema_put(leak, mapping, view->mapping);
        if (view->dma_addr)
                schema_put(leak, dma_addr, view->dma_addr);
        name = view->name ? strdup(view->name) : NULL;
        if (name)
                schema_put(leak, name, name);
        return 0;
}

static void forget_leaks(struct method_list *leaks) {
        struct device_leak *leak = leaks->items;

        for (size_t i = 0; i < leaks->count; i++)
                if (schema_has(&leak[i], name))
                        free((char *)leak[i].name);
        free(leaks->items);
}

void method_device_close(struct rpc_call *call, const void *given) {
        const struct device_close_params *params = given;
        struct method_list leaks = { .size = sizeof(struct device_leak), .limit = PROTOCOL_LIST_MAX };
        struct device_close_result result = { 0 };
        bool force = schema_has(params, force) && params->force;
        struct failure failure = { 0 };
        struct method_other other;
        struct device_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (device_get(&caller, params->device, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_note_other(&caller, view.owner, &other);
        if (device_close(&caller, params->device, force, add_leak, &leaks, &failure) < 0)
                method_refuse_busy(call, &failure, "leaked", &device_leak_struct, &leaks);
        else {
                method_log_other(call, &other, "device", params->device);
                result.leaked.items = leaks.items;
                result.leaked.count = leaks.count;
                rpc_call_reply(call, &result);
        }
        forget_leaks(&leaks);
}

/* ---- reserve ---- */

struct reservation {
        struct pending pending;
        uint64_t stride, usable;
};

static void answer_reservation(struct pending *pending, uint64_t handle) {
        const struct reservation *reservation = (struct reservation *)pending;
        struct device_reserve_result result = { .region = handle };
        struct failure failure = { 0 };
        struct region_view view;

        if (region_get(&pending->caller, handle, &view, &failure) < 0) {
                error_answer(pending->call, &failure);
                return;
        }
        result.size = view.size;
        result.usable_bytes = reservation->stride ? view.size / reservation->stride * reservation->usable : view.size;
        result.dma_addr = view.machine_addr; /* the translation is the identity */
        if (method_tells_machine(pending->call))
                schema_put(&result, machine_addr, view.machine_addr);
        result.addressing = method_addressing(view.simulated);
        rpc_call_reply(pending->call, &result);
}

static void request_of_params(struct rpc_call *call, const struct device_reserve_params *params,
                              struct reserve_request *ret) {
        *ret = (struct reserve_request){
                .device = params->device,
                .size = params->size,
                .mask = schema_has(params, mask) ? params->mask : 0,
                .stride = schema_has(params, stride) ? params->stride : 0,
                .usable = schema_has(params, usable) ? params->usable : 0,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        if (ret->request_key)
                ret->request_digest = method_digest(rpc_call_method(call), params);
}

void method_device_reserve(struct rpc_call *call, const void *given) {
        const struct device_reserve_params *params = given;
        struct reservation *reservation;
        struct reserve_request request;
        struct pending *pending;

        if (method_refuse_empty_mask(call, "mask", schema_has(params, mask), params->mask))
                return;
        pending = pending_new(call, sizeof(*reservation), answer_reservation);
        if (!pending)
                return;
        request_of_params(call, params, &request);
        reservation = (struct reservation *)pending;
        reservation->stride = request.stride;
        reservation->usable = request.usable;
        pending_wait(pending, device_reserve(&pending->caller, &request, pending_done, pending));
}

void method_device_unreserve(struct rpc_call *call, const void *given) {
        const struct device_unreserve_params *params = given;
        const struct ok_result result = { .ok = true };
        struct failure failure = { 0 };
        struct method_other other;
        struct device_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (device_get(&caller, params->device, &view, &failure) < 0 ||
            device_unreserve(&caller, params->device, params->region, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_note_other(&caller, view.owner, &other);
        method_log_other(call, &other, "region", params->region);
        rpc_call_reply(call, &result);
}
