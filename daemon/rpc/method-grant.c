/* grant.list */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guests.h"
#include "daemon/guest/xen.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"

/* Runs of references in one answer, which is not to be without end. */
enum { RUNS_MAX = 20000 };

static const struct guests *guests_of(const struct rpc_call *call) {
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

static int add_refs(const struct guests *guests, struct grant_info *info) {
        struct guest_grants_view view;

        if (!guests_look_grants(guests, info->grant, &view))
                return 0;
        schema_put(info, in_use, view.mapped / 4096);
        return add_runs(info, view.runs, view.n);
}

/* Of as many as one answer takes; what comes after them is for the next one. */
static int add_all_refs(const struct guests *guests, struct method_list *list) {
        struct grant_info *items = list->items;
        size_t n_runs = 0;
        int r = 0;

        for (size_t i = 0; i < list->count && r == 0; i++) {
                r = add_refs(guests, &items[i]);
                n_runs += items[i].refs.count;
                if (n_runs > RUNS_MAX && i + 1 < list->count) {
                        list->count = i + 1;
                        list->more = true;
                }
        }
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

        if (refuse_elsewhere(call) || choose(call, params, &looking, &guest) < 0)
                return;
        guests_visit_windows(looking.guests, looking.owner, true, add_window, &looking);
        if (method_list_failed(&looking.list, call))
                return;
        method_list_page(&looking.list, offsetof(struct grant_info, grant), schema_has(params, after) ? params->after : 0,
                         schema_has(params, limit) ? params->limit : PROTOCOL_LIST_DEFAULT);
        if (add_all_refs(looking.guests, &looking.list) < 0) {
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
