/* region.list, region.get */
#include <stdlib.h>
#include <string.h>

#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/session.h"

/* A region is one machine-contiguous run. extent must live until the answer is encoded. */
static void describe(const struct region_view *view, bool machine, struct region_extent *extent, struct region_info *ret) {
        *extent = (struct region_extent){ .offset = 0, .size = view->size };
        if (machine && !view->anonymous)
                schema_put(extent, machine_addr, view->machine_addr);
        *ret = (struct region_info){
                .region = view->handle,
                .owner = view->owner,
                .source = view->source,
                .size = view->size,
                .used = view->used,
                .allocs = view->allocs,
                .addressing = method_addressing_of(view->anonymous, view->simulated),
        };
        if (view->device)
                schema_put(ret, device, view->device);
        if (view->node >= 0)
                schema_put(ret, node, (uint64_t)view->node);
        ret->extents.items = extent;
        ret->extents.count = !view->anonymous;
}

struct listed {
        struct region_info info;
        struct region_extent extent;
};

struct listing {
        struct method_list list; /* struct listed */
        uint64_t device;
        bool machine;
};

static int add_region(const struct region_view *view, void *userdata) {
        struct listing *listing = userdata;
        struct listed *listed;

        if (listing->device && view->device != listing->device)
                return 0;
        listed = method_list_add(&listing->list);
        if (!listed)
                return 1;
        describe(view, listing->machine, &listed->extent, &listed->info);
        return 0;
}

/* The wire wants the infos in a row, each pointing to its extent. */
static void answer_list(struct rpc_call *call, const struct method_list *list) {
        const struct listed *listed = list->items;
        struct region_list_result result = { .more = list->more };
        struct region_info *infos = calloc(list->count + 1, sizeof(*infos));

        if (!infos) {
                rpc_call_fail_format(call, REASON_no_memory, "The daemon has no memory for this list; ask for less");
                return;
        }
        for (size_t i = 0; i < list->count; i++) {
                infos[i] = listed[i].info;
                infos[i].extents.items = &listed[i].extent;
        }
        result.regions.items = infos;
        result.regions.count = list->count;
        rpc_call_reply(call, &result);
        free(infos);
}

void method_region_list(struct rpc_call *call, const void *given) {
        const struct region_list_params *params = given;
        struct listing listing = {
                .list = { .size = sizeof(struct listed),
                          .limit = schema_has(params, limit) ? params->limit : PROTOCOL_LIST_DEFAULT },
                .device = schema_has(params, device) ? params->device : 0,
                .machine = method_tells_machine(call),
        };
        struct failure failure = { 0 };
        struct device_view device;
        struct caller caller;
        int r = 0;

        if (!method_caller(call, &caller))
                return;
        if (listing.device)
                r = device_get(&caller, listing.device, &device, &failure);
        if (r == 0)
                r = region_visit(&caller, schema_has(params, owner) ? params->owner : NULL,
                                 schema_has(params, after) ? params->after : 0, add_region, &listing, &failure);
        if (r < 0)
                error_answer(call, &failure);
        else if (method_list_failed(&listing.list, call))
                return;
        else
                answer_list(call, &listing.list);
        free(listing.list.items);
}

void method_region_get(struct rpc_call *call, const void *given) {
        const struct region_get_params *params = given;
        struct region_extent extent;
        struct region_info result;
        struct failure failure = { 0 };
        struct region_view view;
        struct caller caller;
        bool own;
        int fd = -1;

        if (!method_caller(call, &caller))
                return;
        if (region_get(&caller, params->region, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        describe(&view, method_tells_machine(call), &extent, &result);
        own = strcmp(view.owner, session_owner(caller.session)) == 0;
        if (!own || rpc_call_is_notification(call) || !rpc_call_peer(call)->takes_fds) {
                rpc_call_reply(call, &result);
                return;
        }
        if (method_dup_region(&caller, params->region, &fd, &failure) < 0)
                error_answer(call, &failure);
        else
                rpc_call_reply_consume_fds(call, &result, &fd, 1);
}
