/* quota.get, quota.set */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/guest/guests.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/principal.h"
#include "daemon/rpc/session.h"

/* The core's kinds and the wire's members, one by one: neither side's order matters. */
static void fill_values(const struct quota *quota, unsigned kinds, struct quota_values *ret) {
        *ret = (struct quota_values){ 0 };
#define FILL(kind, text)                                                                      \
        if (kinds & 1u << QUOTA_##kind && quota->of[QUOTA_##kind] != QUOTA_UNLIMITED)         \
                schema_put(ret, kind, quota->of[QUOTA_##kind]);
        QUOTA_LIST(FILL)
#undef FILL
}

static struct guarantee_values guarantee_values(const struct guarantee *guarantee) {
        struct guarantee_values values = { 0 };

        schema_put(&values, bytes, guarantee->bytes);
        schema_put(&values, low_bytes, guarantee->low_bytes);
        return values;
}

static void answer(struct rpc_call *call, const struct owner_view *view) {
        unsigned kinds = view->device ? QUOTA_OF_DEVICES : ~0u;
        struct quota_result result = { .owner = view->name };

        if (view->device) {
                schema_put(&result, device, view->device);
                schema_put(&result, device_name, view->device_name);
        }
        if (view->guaranteed.bytes || view->guaranteed.low_bytes) {
                schema_put(&result, guaranteed, guarantee_values(&view->guaranteed));
                schema_put(&result, unmet, guarantee_values(&view->unmet));
        }
        fill_values(&view->limits, kinds, &result.limits);
        fill_values(&view->usage, kinds, &result.usage);
        result.usage.calls_per_second = principal_calls(method_connection(call)->server, view->name);
        rpc_call_reply(call, &result);
}

static int refuse_other_owner(const struct owner_view *view, const char *owner, struct failure *failure) {
        failure_set(failure, REASON_bad_param, "Device %llu is not %s's: leave owner out, or name the device's",
                    (unsigned long long)view->device, owner);
        failure_add_text(failure, "param", "owner");
        return -EINVAL;
}

/* owner NULL: the device's, or the caller's own. device 0: none. */
static int look(const struct caller *caller, const char *owner, uint64_t device, struct owner_view *ret,
                struct failure *failure) {
        int r;

        if (!device)
                return quota_get(caller, owner, ret, failure);
        r = quota_get_device(caller, device, ret, failure);
        return r == 0 && owner && strcmp(owner, ret->name) != 0 ? refuse_other_owner(ret, owner, failure) : r;
}

void method_quota_get(struct rpc_call *call, const void *given) {
        const struct quota_get_params *params = given;
        struct failure failure = { 0 };
        struct owner_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return;
        if (look(&caller, schema_has(params, owner) ? params->owner : NULL, schema_has(params, device) ? params->device : 0,
                 &view, &failure) < 0)
                error_answer(call, &failure);
        else
                answer(call, &view);
}

static unsigned read_limits(const struct quota_set_params *params, struct quota *ret) {
        static const enum quota_kind kinds[] = {
                [PROTOCOL_QUOTA_BYTES] = QUOTA_bytes,         [PROTOCOL_QUOTA_HELD_BYTES] = QUOTA_held_bytes,
                [PROTOCOL_QUOTA_LOW_BYTES] = QUOTA_low_bytes, [PROTOCOL_QUOTA_ALLOCS] = QUOTA_allocs,
                [PROTOCOL_QUOTA_DEVICES] = QUOTA_devices,     [PROTOCOL_QUOTA_REGIONS] = QUOTA_regions,
                [PROTOCOL_QUOTA_POOLS] = QUOTA_pools,         [PROTOCOL_QUOTA_LEASES] = QUOTA_leases,
                [PROTOCOL_QUOTA_MAPPINGS] = QUOTA_mappings,
                [PROTOCOL_QUOTA_WAITERS] = QUOTA_waiters,     [PROTOCOL_QUOTA_CONNECTIONS] = QUOTA_connections,
                [PROTOCOL_QUOTA_CALLS_PER_SECOND] = QUOTA_calls_per_second,
                [PROTOCOL_QUOTA_ANONYMOUS_BYTES] = QUOTA_anonymous_bytes, [PROTOCOL_QUOTA_GRANTS] = QUOTA_grants,
        };
        unsigned mask = 0;

        if (schema_has(params, limits)) {
#define READ(kind, text)                                             \
        if (schema_has(&params->limits, kind)) {                     \
                ret->of[QUOTA_##kind] = params->limits.kind;         \
                mask |= 1u << QUOTA_##kind;                          \
        }
                QUOTA_LIST(READ)
#undef READ
        }
        for (size_t i = 0; schema_has(params, unlimited) && i < params->unlimited.count; i++) {
                ret->of[kinds[params->unlimited.items[i]]] = QUOTA_UNLIMITED;
                mask |= 1u << kinds[params->unlimited.items[i]];
        }
        return mask;
}

static bool is_owner(const struct rpc_call *call, const char *text) {
        struct guest_view view;
        unsigned long uid;
        char canonical[32];

        if (strncmp(text, "kvm:", 4) == 0 || strncmp(text, "xen:", 4) == 0)
                return guests_get(method_connection(call)->server->guests, text + 4, &view, NULL) == 0 &&
                       strcmp(view.owner, text) == 0;
        if (sscanf(text, "user:%lu", &uid) != 1)
                return false;
        snprintf(canonical, sizeof(canonical), "user:%lu", uid);
        return strcmp(text, canonical) == 0 && uid < UINT32_MAX;
}

static void set(struct rpc_call *call, const struct quota_set_params *params) {
        const char *owner = schema_has(params, owner) ? params->owner : NULL;
        uint64_t device = schema_has(params, device) ? params->device : 0;
        struct quota limits = { 0 };
        struct failure failure = { 0 };
        struct guarantee guarantee;
        struct owner_view view;
        struct caller caller;
        unsigned mask;
        int r;

        if (!method_caller(call, &caller))
                return;
        if (device && schema_has(params, guaranteed)) {
                rpc_call_fail_format(call, REASON_bad_param, "Memory is guaranteed to an owner, not to a device");
                return;
        }
        mask = read_limits(params, &limits);
        r = device ? look(&caller, owner, device, &view, &failure) : 0;
        if (r == 0 && schema_has(params, guaranteed)) {
                guarantee = (struct guarantee){ params->guaranteed.bytes, params->guaranteed.low_bytes };
                r = guarantee_set(&caller, owner, &guarantee, &failure);
        }
        if (r == 0)
                r = device ? quota_set_device(&caller, device, mask, &limits, &failure)
                           : quota_set(&caller, owner, mask, &limits, &failure);
        if (r == 0)
                r = look(&caller, owner, device, &view, &failure);
        if (r < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_admin(call, view.name, device ? "the limits of device" : "the limits", device);
        answer(call, &view);
}

void method_quota_set(struct rpc_call *call, const void *given) {
        const struct quota_set_params *params = given;

        if (schema_has(params, owner) ? !is_owner(call, params->owner) : !schema_has(params, device))
                rpc_call_fail_format(call, REASON_bad_param, "owner must be user:UID, with the user's number, or kvm:UUID or "
                                     "xen:UUID of a guest of the configuration");
        else
                set(call, params);
}

void method_guest_set_quota(struct rpc_call *call, const void *given) {
        const struct guest_set_quota_params *params = given;
        struct quota_set_params all = { .present = 0 };
        struct failure failure = { 0 };
        struct guest_view view;

        if (guests_get(method_connection(call)->server->guests, params->guest, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        schema_put(&all, owner, view.owner);
        if (schema_has(params, limits))
                schema_put(&all, limits, params->limits);
        if (schema_has(params, guaranteed))
                schema_put(&all, guaranteed, params->guaranteed);
        if (schema_has(params, unlimited)) {
                schema_put(&all, unlimited.items, params->unlimited.items);
                all.unlimited.count = params->unlimited.count;
        }
        set(call, &all);
}
