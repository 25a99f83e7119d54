/* mapping.map, mapping.unmap, mapping.list */
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"

static const enum protocol_direction words[] = {
        [DMA_TO_DEVICE] = PROTOCOL_TO_DEVICE,
        [DMA_FROM_DEVICE] = PROTOCOL_FROM_DEVICE,
        [DMA_BIDIRECTIONAL] = PROTOCOL_BIDIRECTIONAL,
};

enum dma_direction method_direction(enum protocol_direction direction) {
        return direction == PROTOCOL_TO_DEVICE     ? DMA_TO_DEVICE
               : direction == PROTOCOL_FROM_DEVICE ? DMA_FROM_DEVICE
                                                   : DMA_BIDIRECTIONAL;
}

void method_note_mapping(const struct caller *caller, uint64_t mapping, struct method_other *ret) {
        struct mapping_view view;

        *ret = (struct method_other){ "" };
        if (caller->admin && mapping_get(caller, mapping, &view, NULL) == 0)
                method_note_other(caller, view.owner, ret);
}

void method_mapping_map(struct rpc_call *call, const void *given) {
        const struct mapping_map_params *params = given;
        struct mapping_request request = {
                .device = params->device,
                .alloc = params->alloc,
                .offset = schema_has(params, offset) ? params->offset : 0,
                .size = schema_has(params, size) ? params->size : 0,
                .iova = schema_has(params, iova) ? params->iova : 0,
                .direction = method_direction(params->direction),
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
                .request_digest = method_digest(rpc_call_method(call), params),
        };
        struct mapping_map_result result = { 0 };
        struct failure failure = { 0 };
        struct mapping_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (mapping_map(&caller, &request, &result.mapping, &failure) < 0 ||
            mapping_get(&caller, result.mapping, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        result.iova = view.dma_addr;
        if (method_tells_machine(call))
                schema_put(&result, machine_addr, view.machine_addr);
        result.region = view.region;
        result.offset = view.offset;
        result.size = view.size;
        result.addressing = method_addressing(view.simulated);
        rpc_call_reply(call, &result);
}

void method_mapping_unmap(struct rpc_call *call, const void *given) {
        const struct mapping_unmap_params *params = given;
        const struct ok_result result = { .ok = true };
        struct failure failure = { 0 };
        struct method_other other;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        method_note_mapping(&caller, params->mapping, &other);
        if (mapping_unmap(&caller, params->mapping, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_other(call, &other, "mapping", params->mapping);
        rpc_call_reply(call, &result);
}

static int add_mapping(const struct mapping_view *view, void *userdata) {
        struct method_listing *listing = userdata;
        struct mapping_info *info = method_list_add(&listing->list);

        if (!info)
                return 1;
        info->mapping = view->handle;
        info->device = view->device;
        info->device_name = view->device_name;
        info->owner = view->owner;
        if (view->bounce)
                schema_put(info, bounce, view->bounce);
        if (view->alloc)
                schema_put(info, alloc, view->alloc);
        METHOD_PLACE(info, view, listing->machine);
        info->size = view->size;
        if (view->bounce)
                schema_put(info, slots, view->slots);
        info->direction = words[view->direction];
        info->addressing = method_addressing(view->simulated);
        info->age_ms = view->age_ms;
        return 0;
}

void method_mapping_list(struct rpc_call *call, const void *given) {
        struct mapping_list_result result = { 0 };
        struct failure failure = { 0 };
        struct method_listing listing;
        int r;

        if (!method_listing_init(&listing, call, given, sizeof(struct mapping_info)))
                return;
        r = mapping_visit(&listing.caller, listing.device, listing.owner, listing.after, add_mapping, &listing, &failure);
        METHOD_LISTING_ANSWER(&listing, call, r, &failure, &result, mappings);
}
