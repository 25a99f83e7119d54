/* quarantine.list, quarantine.release */
#include "daemon/log.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"

static const enum protocol_resting whats[] = {
        [QUARANTINE_ALLOC] = PROTOCOL_RESTING_ALLOC,
        [QUARANTINE_BLOCKS] = PROTOCOL_RESTING_BLOCKS,
        [QUARANTINE_SLOTS] = PROTOCOL_RESTING_SLOTS,
        [QUARANTINE_REGION] = PROTOCOL_RESTING_REGION,
};

static int add_item(const struct quarantine_view *view, void *userdata) {
        struct method_listing *listing = userdata;
        struct quarantine_info *info = method_list_add(&listing->list);

        if (!info)
                return 1;
        info->item = view->id;
        info->what = whats[view->what];
        info->reason = view->reason == QUARANTINE_DAMAGED ? PROTOCOL_RESTS_DAMAGED : PROTOCOL_RESTS_VANISHED;
        info->owner = view->owner;
        if (view->device_name)
                schema_put(info, device_name, view->device_name);
        if (view->pool)
                schema_put(info, pool, view->pool);
        if (view->bounce)
                schema_put(info, bounce, view->bounce);
        info->region = view->region;
        if (listing->machine)
                schema_put(info, machine_addr, view->machine_addr);
        info->size = view->bytes;
        info->count = view->count;
        info->addressing = method_addressing(view->simulated);
        info->age_ms = view->age_ms;
        if (view->left_ms != QUARANTINE_ENDLESS)
                schema_put(info, left_ms, view->left_ms);
        return 0;
}

void method_quarantine_list(struct rpc_call *call, const void *given) {
        const struct quarantine_list_params *params = given;
        struct quarantine_list_result result = { 0 };
        struct failure failure = { 0 };
        struct method_listing listing;
        int r;

        if (!method_listing_init(&listing, call, NULL, sizeof(struct quarantine_info)))
                return;
        if (schema_has(params, limit))
                listing.list.limit = params->limit;
        r = quarantine_visit(&listing.caller, schema_has(params, owner) ? params->owner : NULL,
                             schema_has(params, after) ? params->after : 0, add_item, &listing, &failure);
        METHOD_LISTING_ANSWER(&listing, call, r, &failure, &result, items);
}

void method_quarantine_release(struct rpc_call *call, const void *given) {
        const struct quarantine_release_params *params = given;
        const struct connection *connection = method_connection(call);
        struct quarantine_release_result result = { 0 };
        struct failure failure = { 0 };
        struct caller caller;
        int r;

        if (!method_caller(call, &caller))
                return;
        r = quarantine_release(&caller, schema_has(params, owner) ? params->owner : NULL,
                               schema_has(params, machine_addr) ? &params->machine_addr : NULL, &result.released, &failure);
        if (r < 0) {
                error_answer(call, &failure);
                return;
        }
        result.resting = broker_quarantined(connection->server->broker);
        log_info("administrator %s (pid %ld) says that devices are quiet: %llu bytes can be used again, %llu rest still",
                 connection->identity.owner, (long)connection->identity.pid, (unsigned long long)result.released,
                 (unsigned long long)result.resting);
        rpc_call_reply(call, &result);
}
