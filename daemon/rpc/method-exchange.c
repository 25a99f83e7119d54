/* guest.exchange */
#include <stdint.h>
#include <string.h>

#include "daemon/guest/guests.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/pending.h"

_Static_assert((int)PROTOCOL_EXCHANGE_MAX == (int)EXCHANGE_FRAMES_MAX &&
                       (int)PROTOCOL_EXCHANGE_ORDER_MAX == (int)EXCHANGE_ORDER_MAX,
               "the protocol and the guests' side differ in what can be exchanged");

struct exchanging {
        struct pending pending;
        uint64_t order;
};

static struct guests *guests_of(const struct rpc_call *call) {
        return method_connection(call)->server->guests;
}

static void on_exchanged(void *userdata, const struct failure *failure, const struct exchange_result *exchanged) {
        struct exchanging *exchanging = userdata;
        struct rpc_call *call = exchanging->pending.call;
        struct guest_exchange_result result = { 0 };

        pending_begin_answer(&exchanging->pending);
        if (failure)
                error_answer(call, failure);
        else {
                result.frames.items = exchanged->extents;
                result.frames.count = exchanged->n_extents;
                result.exchanged = exchanged->n_extents << exchanging->order;
                if (exchanged->why)
                        schema_put(&result, why, exchanged->why->sentence);
                rpc_call_reply(call, &result);
        }
        pending_end_answer(&exchanging->pending);
}

/* Its owner is "xen:UUID", whatever it says. Another one there is not, for a guest. */
static const char *name_of_caller(const struct rpc_call *call, const char *named, struct failure *failure) {
        const char *owner = method_connection(call)->identity.owner, *uuid = strchr(owner, ':') + 1;
        struct guest_view view;

        if (!named || (guests_get(guests_of(call), named, &view, NULL) == 0 && strcmp(view.owner, owner) == 0))
                return uuid;
        failure_set(failure, REASON_unknown_guest, "There is no guest %s", named);
        return NULL;
}

static const char *name_of_other(const char *named, bool is_admin, struct failure *failure) {
        if (!is_admin)
                failure_set(failure, REASON_not_permitted, "Frames are exchanged by the guest that has them, or by an "
                            "administrator");
        else if (!named)
                failure_set(failure, REASON_bad_param, "guest is missing: whose frames are to be exchanged");
        return is_admin ? named : NULL;
}

void method_guest_exchange(struct rpc_call *call, const void *given) {
        const struct guest_exchange_params *params = given;
        const struct identity *identity = &method_connection(call)->identity;
        const char *named = schema_has(params, guest) ? params->guest : NULL;
        struct exchange_request request = {
                .by_itself = identity->guest, .given_up = params->given_up,
                .frames = params->frames.items, .n_frames = params->frames.count,
                .pfns = schema_has(params, pfns) ? params->pfns.items : NULL, .n_pfns = params->pfns.count,
                .order = (unsigned)params->order,
                .mask = schema_has(params, mask) ? params->mask : UINT64_MAX,
        };
        struct failure failure = { 0 };
        struct exchanging *exchanging;
        struct guest_view view;

        request.guest = identity->guest ? name_of_caller(call, named, &failure)
                                        : name_of_other(named, identity->admin, &failure);
        if (!request.guest) {
                error_answer(call, &failure);
                return;
        }
        exchanging = (struct exchanging *)pending_new(call, sizeof(*exchanging), NULL);
        if (!exchanging)
                return;
        exchanging->order = params->order;
        if (!identity->guest && guests_get(guests_of(call), named, &view, NULL) == 0)
                method_log_admin(call, view.owner, "frames", 0);
        pending_wait(&exchanging->pending, guests_exchange(guests_of(call), &request, on_exchanged, exchanging));
}
