/* lease.list, and what leases of pools and of bounce pools have in common. */
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"

void method_return_lease(struct rpc_call *call, const struct lease_return_params *params, enum lease_kind kind) {
        const struct ok_result result = { .ok = true };
        struct method_other other = { "" };
        struct failure failure = { 0 };
        struct lease_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (caller.admin && lease_get(&caller, params->lease, &view, NULL) == 0)
                method_note_other(&caller, view.owner, &other);
        if (lease_return(&caller, params->lease, kind, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_other(call, &other, "lease", params->lease);
        rpc_call_reply(call, &result);
}

static int add_lease(const struct lease_view *view, void *userdata) {
        struct method_listing *listing = userdata;
        struct lease_info *info = method_list_add(&listing->list);

        if (!info)
                return 1;
        info->lease = view->handle;
        if (view->pool)
                schema_put(info, pool, view->pool);
        if (view->bounce)
                schema_put(info, bounce, view->bounce);
        info->device = view->device;
        info->device_name = view->device_name;
        info->owner = view->owner;
        METHOD_PLACE(info, view, listing->machine);
        info->unit = view->unit;
        info->count = view->count;
        info->addressing = method_addressing(view->simulated);
        info->age_ms = view->age_ms;
        return 0;
}

void method_lease_list(struct rpc_call *call, const void *given) {
        const struct lease_list_params *params = given;
        uint64_t pool = schema_has(params, pool) ? params->pool : 0;
        uint64_t bounce = schema_has(params, bounce) ? params->bounce : 0;
        struct lease_list_result result = { 0 };
        struct failure failure = { 0 };
        struct method_listing listing;
        struct bounce_view bounce_view;
        struct pool_view pool_view;
        int r = 0;

        if (!method_listing_init(&listing, call, NULL, sizeof(struct lease_info)))
                return;
        if (schema_has(params, limit))
                listing.list.limit = params->limit;
        if (pool)
                r = pool_get(&listing.caller, pool, &pool_view, &failure);
        if (r == 0 && bounce)
                r = bounce_get(&listing.caller, bounce, &bounce_view, &failure);
        if (r == 0)
                r = lease_visit(&listing.caller, pool, bounce, schema_has(params, owner) ? params->owner : NULL,
                                schema_has(params, after) ? params->after : 0, add_lease, &listing, &failure);
        METHOD_LISTING_ANSWER(&listing, call, r, &failure, &result, leases);
}
