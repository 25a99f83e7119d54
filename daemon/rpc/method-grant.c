/* grant.list, grant.map, grant.unmap, grant.share */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guests.h"
#include "daemon/guest/xen.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"

_Static_assert((int)PROTOCOL_REFS_MAX == (int)GRANT_PAGES_MAX, "the protocol and the books disagree on what a grant may have");

/* Runs of references in one answer, which is not to be without end. */
enum { RUNS_MAX = 20000 };

static struct guests *guests_of(const struct rpc_call *call) {
        return method_connection(call)->server->guests;
}

/* true: the call is answered. */
static bool refuse_elsewhere(struct rpc_call *call) {
        const char *why = xen_unavailable();

        if (why)
                rpc_call_fail_format(call, REASON_unsupported, "There are no grants: %s", why);
        return why;
}

/* ---- looking ---- */

struct looking {
        struct method_list list;
        const char *owner; /* only this one's, or NULL */
        const char *guest; /* only this one's, or NULL: its name */
        const struct guests *guests;
};

/* The refs come with those that are answered. */
static int add_window(const struct guest_window_view *view, void *userdata) {
        struct looking *looking = userdata;
        struct grant_info *info;

        if (!view->is_xen || (view->state != WINDOW_PLUGGED && view->state != WINDOW_LEAVING) ||
            (looking->guest && strcmp(looking->guest, view->guest) != 0))
                return 0;
        info = method_list_add(&looking->list);
        if (!info)
                return 1;
        *info = (struct grant_info){
                .grant = view->window, .owner = view->owner, .guest = view->guest, .domain = view->domain,
                .kind = PROTOCOL_GRANT_WINDOW, .direction = PROTOCOL_BIDIRECTIONAL, .pages = view->size / 4096,
                .state = view->state == WINDOW_LEAVING ? PROTOCOL_GRANT_REVOKING : PROTOCOL_GRANT_GRANTED,
                .age_ms = view->age_ms,
        };
        schema_put(info, region, view->window);
        return 0;
}

static int add_runs(struct grant_info *info, const struct xen_grant_run *runs, size_t n) {
        struct window_grant *refs = calloc(n + 1, sizeof(*refs));

        if (!refs)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                refs[i] = (struct window_grant){ .domain = runs[i].domid, .first = runs[i].first, .count = runs[i].count };
        info->refs.items = refs;
        info->refs.count = n;
        return 0;
}

/* What the core knows beside windows; its runs come with those that are answered. */
static int add_grant(const struct grant_view *view, void *userdata) {
        static const enum protocol_direction words[] = {
                [DMA_TO_DEVICE] = PROTOCOL_TO_DEVICE, [DMA_FROM_DEVICE] = PROTOCOL_FROM_DEVICE,
                [DMA_BIDIRECTIONAL] = PROTOCOL_BIDIRECTIONAL,
        };
        const bool is_map = view->kind == GRANT_MAP;
        struct looking *looking = userdata;
        struct guest_view guest;
        struct grant_info *info;

        /* Of a guest that is not in the configuration any more that is all that is known. */
        if (guests_get_owner(looking->guests, view->guest, &guest) < 0)
                guest.name = view->guest;
        if (looking->guest && strcmp(looking->guest, guest.name) != 0)
                return 0;
        info = method_list_add(&looking->list);
        if (!info)
                return 1;
        *info = (struct grant_info){
                .grant = view->handle, .owner = view->owner, .guest = guest.name, .domain = view->domain,
                .kind = is_map ? PROTOCOL_GRANT_MAP : PROTOCOL_GRANT_SHARE, .direction = words[view->direction],
                .pages = view->pages,
                .state = view->gone ? PROTOCOL_GRANT_GONE : is_map ? PROTOCOL_GRANT_MAPPED : PROTOCOL_GRANT_SHARED,
                .age_ms = view->age_ms,
        };
        return 0;
}

/* The domain whose table it is: of what is shared, this host's. */
static int set_refs(struct window_grant **ret, uint32_t domain, const struct grant_run *runs, size_t n) {
        struct window_grant *refs = calloc(n + 1, sizeof(*refs));

        if (!refs)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                refs[i] = (struct window_grant){ .domain = domain, .first = runs[i].first, .count = runs[i].count };
        *ret = refs;
        return 0;
}

static int add_grant_refs(const struct caller *caller, struct guests_use *use, struct grant_info *info) {
        struct window_grant *refs;
        struct grant_view view;
        uint64_t in_use;

        if (grant_get(caller, info->grant, &view, NULL) < 0)
                return 0;
        if (set_refs(&refs, view.kind == GRANT_MAP ? view.domain : 0, view.runs, view.n_runs) < 0)
                return -ENOMEM;
        info->refs.items = refs;
        info->refs.count = view.n_runs;
        if (guests_look_use(use, &view, &in_use))
                schema_put(info, in_use, in_use);
        return 0;
}

static int add_refs(const struct caller *caller, const struct guests *guests, struct guests_use *use, struct grant_info *info) {
        struct guest_grants_view view;

        if (info->kind != PROTOCOL_GRANT_WINDOW)
                return add_grant_refs(caller, use, info);
        if (!guests_look_grants(guests, info->grant, &view))
                return 0;
        schema_put(info, in_use, view.mapped / 4096);
        return add_runs(info, view.runs, view.n);
}

/* Of as many as one answer takes; what comes after them is for the next one. */
static int add_all_refs(const struct caller *caller, const struct guests *guests, struct method_list *list) {
        struct grant_info *items = list->items;
        struct guests_use *use = guests_use_new();
        size_t n_runs = 0;
        int r = use ? 0 : -ENOMEM;

        for (size_t i = 0; i < list->count && r == 0; i++) {
                r = add_refs(caller, guests, use, &items[i]);
                n_runs += items[i].refs.count;
                if (n_runs > RUNS_MAX && i + 1 < list->count) {
                        list->count = i + 1;
                        list->more = true;
                }
        }
        guests_use_free(use);
        return r;
}

static void free_grants(struct method_list *list) {
        struct grant_info *items = list->items;

        for (size_t i = 0; i < list->count; i++)
                free((struct window_grant *)items[i].refs.items);
        free(items);
}

/* Whose: 0, or the call is answered. */
static int choose(struct rpc_call *call, const struct grant_list_params *params, struct looking *looking,
                  struct guest_view *guest) {
        const struct connection *connection = method_connection(call);
        const char *own = connection->identity.owner;
        struct failure failure = { 0 };
        int r = 0;

        looking->owner = schema_has(params, owner) ? params->owner : connection->identity.admin ? NULL : own;
        if (!connection->identity.admin && strcmp(looking->owner, own) != 0)
                r = failure_set(&failure, REASON_not_permitted, "Only an administrator may see what %s has", looking->owner);
        /* Who may not know of it is told the same as of one that is not there. */
        if (r == 0 && schema_has(params, guest) &&
            (guests_get(looking->guests, params->guest, guest, &failure) < 0 ||
             (!connection->identity.admin && strcmp(guest->owner, own) != 0))) {
                failure = (struct failure){ 0 };
                r = failure_set(&failure, REASON_unknown_guest, "There is no guest %s", params->guest);
        }
        if (r < 0)
                error_answer(call, &failure);
        else if (schema_has(params, guest))
                looking->guest = guest->name;
        return r;
}

void method_grant_list(struct rpc_call *call, const void *given) {
        const struct grant_list_params *params = given;
        struct looking looking = { .list = { .size = sizeof(struct grant_info), .limit = SIZE_MAX }, .guests = guests_of(call) };
        struct grant_list_result result = { 0 };
        struct failure failure = { 0 };
        struct guest_view guest;
        struct caller caller;

        if (refuse_elsewhere(call) || !method_caller(call, &caller) || choose(call, params, &looking, &guest) < 0)
                return;
        guests_visit_windows(looking.guests, looking.owner, true, add_window, &looking);
        broker_visit_grants(method_connection(call)->server->broker, looking.owner, add_grant, &looking);
        if (method_list_failed(&looking.list, call))
                return;
        method_list_page(&looking.list, offsetof(struct grant_info, grant), schema_has(params, after) ? params->after : 0,
                         schema_has(params, limit) ? params->limit : PROTOCOL_LIST_DEFAULT);
        if (add_all_refs(&caller, looking.guests, &looking.list) < 0) {
                free_grants(&looking.list);
                failure_set(&failure, REASON_no_memory, "The daemon itself is out of memory");
                error_answer(call, &failure);
                return;
        }
        result.grants.items = looking.list.items;
        result.grants.count = looking.list.count;
        result.more = looking.list.more;
        rpc_call_reply(call, &result);
        free_grants(&looking.list);
}

/* ---- making and ending ---- */

/* By its name or its UUID, it is the same request. */
static const char *name_of(const struct rpc_call *call, const char *guest) {
        struct guest_view view;

        return guests_get(guests_of(call), guest, &view, NULL) == 0 ? view.name : guest;
}

/* Those that follow on each other together; malloc()ed. */
static struct grant_run *runs_of(const struct grant_map_params *params, size_t *ret_n) {
        struct grant_run *runs = calloc(params->refs.count, sizeof(*runs));
        size_t n = 0;

        for (size_t i = 0; runs && i < params->refs.count; i++) {
                const uint32_t ref = (uint32_t)params->refs.items[i];

                if (n && (uint64_t)runs[n - 1].first + runs[n - 1].count == ref)
                        runs[n - 1].count++;
                else
                        runs[n++] = (struct grant_run){ .first = ref, .count = 1 };
        }
        *ret_n = n;
        return runs;
}

static void answer_map(struct rpc_call *call, const struct caller *caller,
                       const struct guest_grant_request *request) {
        struct grant_map_result result = { 0 };
        struct failure failure = { 0 };
        struct grant_view view;

        if (guests_map_grant(guests_of(call), caller, request, &result.grant, &failure) < 0 ||
            grant_get(caller, result.grant, &view, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        result.domain = view.domain;
        result.pages = view.pages;
        rpc_call_reply(call, &result);
}

void method_grant_map(struct rpc_call *call, const void *given) {
        const struct grant_map_params *params = given;
        struct grant_map_params digested = *params;
        struct guest_grant_request request = {
                .guest = params->guest, .direction = method_direction(params->direction), .pages = params->refs.count,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        struct grant_run *runs;
        struct caller caller;

        if (refuse_elsewhere(call) || !method_caller(call, &caller))
                return;
        if (!params->refs.count) {
                rpc_call_fail_format(call, REASON_bad_param, "refs is empty: there is nothing to map");
                return;
        }
        digested.guest = name_of(call, params->guest);
        request.request_digest = method_digest(rpc_call_method(call), &digested);
        runs = runs_of(params, &request.n_runs);
        request.runs = runs;
        if (runs)
                answer_map(call, &caller, &request);
        else
                rpc_call_fail_format(call, REASON_no_memory, "The daemon itself is out of memory");
        free(runs);
}

void method_grant_unmap(struct rpc_call *call, const void *given) {
        const struct grant_unmap_params *params = given;
        struct method_other other = { "" };
        struct failure failure = { 0 };
        struct grant_view view;
        struct caller caller;

        if (refuse_elsewhere(call) || !method_caller(call, &caller))
                return;
        if (grant_get(&caller, params->grant, &view, NULL) == 0)
                method_note_other(&caller, view.owner, &other);
        if (grant_end(&caller, params->grant, &failure) < 0) {
                error_answer(call, &failure);
                return;
        }
        method_log_other(call, &other, "grant", params->grant);
        rpc_call_reply(call, &(struct ok_result){ .ok = true });
}

/* With its descriptor, where that can travel. */
static void answer_share(struct rpc_call *call, const struct grant_view *view) {
        struct grant_share_result result = { .grant = view->handle, .domain = view->domain, .size = view->pages * 4096 };
        struct failure failure = { 0 };
        struct window_grant *refs;
        int fd;

        if (set_refs(&refs, 0, view->runs, view->n_runs) < 0) {
                rpc_call_fail_format(call, REASON_no_memory, "The daemon itself is out of memory");
                return;
        }
        result.refs.items = refs;
        result.refs.count = view->n_runs;
        if (rpc_call_is_notification(call) || !rpc_call_peer(call)->takes_fds)
                rpc_call_reply(call, &result);
        else if (guests_dup_share(guests_of(call), view->handle, &fd, &failure) < 0)
                error_answer(call, &failure);
        else
                rpc_call_reply_consume_fds(call, &result, &fd, 1);
        free(refs);
}

void method_grant_share(struct rpc_call *call, const void *given) {
        const struct grant_share_params *params = given;
        struct grant_share_params digested = *params;
        struct guest_grant_request request = {
                .guest = params->guest, .direction = method_direction(params->direction), .pages = (params->size + 4095) / 4096,
                .request_key = schema_has(params, request_key) ? params->request_key : NULL,
        };
        struct failure failure = { 0 };
        struct grant_view view;
        struct caller caller;
        uint64_t grant;

        if (refuse_elsewhere(call) || !method_caller(call, &caller))
                return;
        digested.guest = name_of(call, params->guest);
        request.request_digest = method_digest(rpc_call_method(call), &digested);
        if (guests_share(guests_of(call), &caller, &request, &grant, &failure) < 0 ||
            grant_get(&caller, grant, &view, &failure) < 0)
                error_answer(call, &failure);
        else
                answer_share(call, &view);
}
