/* guest.list, guest.get, guest.attach, guest.detach, guest.evict, window.list, window.bind */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guests.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/pending.h"

static struct guests *guests_of(const struct rpc_call *call) {
        return method_connection(call)->server->guests;
}

/* ---- looking ---- */

static enum protocol_guest_state state_of(enum guest_state state) {
        switch (state) {
        case GUEST_OFF:
                return PROTOCOL_GUEST_OFF;
        case GUEST_RUNNING:
                return PROTOCOL_GUEST_RUNNING;
        case GUEST_PAUSED:
                return PROTOCOL_GUEST_PAUSED;
        default:
                return PROTOCOL_GUEST_UNKNOWN;
        }
}

static enum protocol_window_state window_state_of(enum window_state state) {
        switch (state) {
        case WINDOW_RESERVING:
                return PROTOCOL_WINDOW_RESERVING;
        case WINDOW_PLUGGING:
                return PROTOCOL_WINDOW_PLUGGING;
        case WINDOW_LEAVING:
                return PROTOCOL_WINDOW_LEAVING;
        default:
                return PROTOCOL_WINDOW_PLUGGED;
        }
}

static enum protocol_guest_via via_of(enum guest_via via) {
        switch (via) {
        case GUEST_BY_LIBVIRT:
                return PROTOCOL_VIA_LIBVIRT;
        case GUEST_BY_QMP:
                return PROTOCOL_VIA_QMP;
        case GUEST_BY_XEN:
                return PROTOCOL_VIA_XEN;
        default:
                return PROTOCOL_VIA_NONE;
        }
}

static void fill(struct guest_info *info, const struct guest_view *view, const struct server *server) {
        *info = (struct guest_info){
                .guest = view->name, .uuid = view->uuid, .owner = view->owner,
                .state = state_of(view->state),
                .via = via_of(view->via),
                .channel = view->channel, .connected = server_has_channel(server, view->owner),
                .windows = view->n_windows, .window_bytes = view->window_bytes,
        };
        if (*view->why)
                schema_put(info, why, view->why);
}

struct listing {
        struct method_list list;
        const struct server *server;
        const char *after; /* the name of one that has not come yet, or NULL */
};

static int add_guest(const struct guest_view *view, void *userdata) {
        struct listing *listing = userdata;
        struct guest_info *info;

        if (listing->after) {
                if (strcmp(view->name, listing->after) == 0)
                        listing->after = NULL;
                return 0;
        }
        info = method_list_add(&listing->list);
        if (!info)
                return 1;
        fill(info, view, listing->server);
        return 0;
}

void method_guest_list(struct rpc_call *call, const void *given) {
        const struct guest_list_params *params = given;
        struct guest_list_result result = { 0 };
        struct listing listing = {
                .list = { .size = sizeof(struct guest_info),
                          .limit = schema_has(params, limit) ? params->limit : PROTOCOL_LIST_DEFAULT },
                .server = method_connection(call)->server,
        };
        struct failure failure = { 0 };
        struct guest_view last;

        if (schema_has(params, after)) {
                if (guests_get(guests_of(call), params->after, &last, &failure) < 0) {
                        error_answer(call, &failure);
                        return;
                }
                listing.after = last.name;
        }
        guests_visit(guests_of(call), add_guest, &listing);
        if (method_list_failed(&listing.list, call))
                return;
        result.items.items = listing.list.items;
        result.items.count = listing.list.count;
        result.more = listing.list.more;
        rpc_call_reply(call, &result);
        free(listing.list.items);
}

void method_guest_get(struct rpc_call *call, const void *given) {
        const struct guest_params *params = given;
        struct failure failure = { 0 };
        struct guest_info info;
        struct guest_view view;

        if (guests_get(guests_of(call), params->guest, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        fill(&info, &view, method_connection(call)->server);
        rpc_call_reply(call, &info);
}

/* The lists end with the answer, the cookies and names with the windows. */
static int add_window(const struct guest_window_view *view, void *userdata) {
        struct window_info *info = method_list_add(userdata);

        if (!info)
                return 1;
        *info = (struct window_info){
                .window = view->window, .region = view->window, .guest = view->guest, .size = view->size, .cookie = view->cookie,
                .state = window_state_of(view->state),
        };
        if (view->is_bound)
                schema_put(info, guest_addr, view->guest_addr);
        return 0;
}

static int add_grants(const struct guests *guests, struct window_info *info) {
        struct guest_grants_view view;
        struct window_grant *grants;

        if (!guests_look_grants(guests, info->window, &view))
                return 0;
        grants = calloc(view.n + 1, sizeof(*grants));
        if (!grants)
                return -ENOMEM;
        for (size_t i = 0; i < view.n; i++)
                grants[i] = (struct window_grant){ .domain = view.runs[i].domid, .first = view.runs[i].first,
                                                   .count = view.runs[i].count };
        info->grants.items = grants;
        info->grants.count = view.n;
        schema_mark(info, grants);
        schema_put(info, mapped, view.mapped);
        return 0;
}

/* Of those that are answered, when they are known. */
static int add_all_grants(const struct rpc_call *call, struct method_list *list) {
        struct window_info *items = list->items;
        int r = 0;

        for (size_t i = 0; r == 0 && i < list->count; i++)
                r = add_grants(guests_of(call), &items[i]);
        return r;
}

static void free_windows(struct method_list *list) {
        struct window_info *items = list->items;

        for (size_t i = 0; i < list->count; i++)
                free((struct window_grant *)items[i].grants.items);
        free(items);
}

void method_window_list(struct rpc_call *call, const void *given) {
        const struct window_list_params *params = given;
        const struct connection *connection = method_connection(call);
        const char *owner = connection->identity.admin ? NULL : connection->identity.owner;
        struct method_list list = { .size = sizeof(struct window_info), .limit = SIZE_MAX };
        struct window_list_result result = { 0 };
        struct failure failure = { 0 };
        struct guest_view view;

        if (schema_has(params, guest)) {
                if (guests_get(guests_of(call), params->guest, &view, &failure) < 0 ||
                    (owner && strcmp(owner, view.owner) != 0)) {
                        failure_set(&failure, REASON_unknown_guest, "There is no guest %s", params->guest);
                        error_answer(call, &failure);
                        return;
                }
                owner = view.owner;
        }
        guests_visit_windows(guests_of(call), owner, connection->identity.admin, add_window, &list);
        if (method_list_failed(&list, call))
                return;
        method_list_page(&list, offsetof(struct window_info, window), schema_has(params, after) ? params->after : 0,
                         schema_has(params, limit) ? params->limit : PROTOCOL_LIST_DEFAULT);
        if (add_all_grants(call, &list) < 0) {
                free_windows(&list);
                failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
                error_answer(call, &failure);
                return;
        }
        result.items.items = list.items;
        result.items.count = list.count;
        result.more = list.more;
        rpc_call_reply(call, &result);
        free_windows(&list);
}

/* ---- the administrator ---- */

struct attaching {
        struct pending pending;
        uint64_t size;
        char guest[GUEST_NAME_MAX + 1];
};

/* What the source has given may be more than was asked for. */
static int find_size(const struct guest_window_view *view, void *userdata) {
        struct guest_attach_result *result = userdata;

        if (view->window == result->window)
                result->size = view->size;
        return view->window == result->window;
}

static void answer_attached(struct pending *pending, uint64_t handle) {
        struct attaching *attaching = (struct attaching *)pending;
        struct guest_attach_result result = { .size = attaching->size };
        struct guest_view view;

        schema_put(&result, window, handle);
        guests_visit_windows(guests_of(pending->call), NULL, true, find_size, &result);
        result.channel = guests_get(guests_of(pending->call), attaching->guest, &view, NULL) == 0 ? view.channel : "";
        rpc_call_reply(pending->call, &result);
}

static void advise(struct rpc_call *call, const struct guest_attach_params *params) {
        struct guest_attach_result result = { .size = params->size };
        struct failure failure = { 0 };
        struct guest_view view;
        char *advice;

        if (guests_get(guests_of(call), params->guest, &view, &failure) < 0 ||
            guests_advise(guests_of(call), params->guest, params->size, &advice, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        result.channel = view.channel;
        schema_put(&result, advice, advice);
        rpc_call_reply(call, &result);
        free(advice);
}

void method_guest_attach(struct rpc_call *call, const void *given) {
        const struct guest_attach_params *params = given;
        struct attach_request request = {
                .size = params->size,
                .mask = schema_has(params, mask) ? params->mask : 0,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        struct guest_attach_params digested = *params;
        struct failure failure = { 0 };
        struct attaching *attaching;
        struct guest_view view;

        if (params->dry_run) {
                advise(call, params);
                return;
        }
        if (guests_get(guests_of(call), params->guest, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        attaching = (struct attaching *)pending_new(call, sizeof(*attaching), answer_attached);
        if (!attaching)
                return;
        /* By its name or its UUID, it is the same request. */
        request.guest = digested.guest = view.name;
        request.request_digest = method_digest(rpc_call_method(call), &digested);
        attaching->size = params->size;
        strcpy(attaching->guest, view.name);
        method_log_admin(call, view.owner, "a window", 0);
        pending_wait(&attaching->pending, guests_attach(guests_of(call), &request, pending_done, attaching));
}

static void answer_detached(struct pending *pending, uint64_t handle) {
        rpc_call_reply(pending->call, &(struct ok_result){ .ok = true });
}

void method_guest_detach(struct rpc_call *call, const void *given) {
        const struct guest_detach_params *params = given;
        struct pending *pending = pending_new(call, sizeof(*pending), answer_detached);

        if (pending)
                pending_wait(pending, guests_detach(guests_of(call), params->window, params->force, pending_done, pending));
}

void method_guest_evict(struct rpc_call *call, const void *given) {
        const struct guest_params *params = given;
        struct failure failure = { 0 };

        if (guests_evict(guests_of(call), params->guest, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_admin(call, params->guest, "everything", 0);
        rpc_call_reply(call, &(struct ok_result){ .ok = true });
}

/* ---- the guest ---- */

void method_window_bind(struct rpc_call *call, const void *given) {
        const struct window_bind_params *params = given;
        struct failure failure = { 0 };

        if (guests_bind(guests_of(call), method_connection(call)->identity.owner, params->window, params->guest_addr,
                        &failure) < 0)
                error_answer(call, &failure);
        else
                rpc_call_reply(call, &(struct ok_result){ .ok = true });
}
