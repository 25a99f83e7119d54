/* grants: pages that guests of Xen's may map, and pages of theirs that dom0 may. */
#include <stdio.h>

#include "client/ctl/actions.h"
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct show_column columns[] = {
        { "GRANT", "grant", SHOW_NUMBER },
        { "KIND", "kind" },
        { "GUEST", "guest" },
        { "DOMAIN", "domain", SHOW_NUMBER },
        { "OWNER", "owner", SHOW_NAME },
        { "DIRECTION", "direction" },
        { "PAGES", "pages", SHOW_NUMBER },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "STATE", "state" },
        { "AGE", "age_ms", SHOW_MS },
        { "REFS", "runs", SHOW_TEXT },
};

/* Their references, each run as DOMAIN:FIRST+COUNT; of many only the first. */
static void add_runs(json_t *row) {
        enum { RUNS_MAX = 8 };
        json_t *refs = json_object_get(row, "refs"), *run;
        char text[64 * RUNS_MAX] = "";
        size_t i, used = 0;

        json_array_foreach(refs, i, run) {
                if (i == RUNS_MAX - 1 && json_array_size(refs) > RUNS_MAX) {
                        snprintf(text + used, sizeof(text) - used, ",...%zu-more", json_array_size(refs) - i);
                        break;
                }
                used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%llu:%llu+%llu", i ? "," : "",
                                         (unsigned long long)show_uint(run, "domain"),
                                         (unsigned long long)show_uint(run, "first"),
                                         (unsigned long long)show_uint(run, "count"));
        }
        if (*text)
                json_object_set_new(row, "runs", json_string(text));
}

static const struct list grants = {
        .method = "grant.list",
        .items = "grants",
        .handle = "grant",
        .columns = columns,
        .n_columns = N(columns),
        .add = add_runs,
};

static enum ctl_status list_grants(struct ctl *ctl) {
        json_t *params = json_object();

        ctl_param_text(ctl, "--guest", params, "guest");
        ctl_param_text(ctl, "--owner", params, "owner");
        return lists_show(ctl, &grants, params);
}

static const struct ctl_option options[] = {
        { "--guest", "GUEST", "only what concerns this guest, by its name or UUID" },
        { "--owner", "OWNER", "only this owner's, such as user:1000" },
        { NULL },
};

const struct ctl_verb verb_grants = {
        .name = "grants",
        .operands = "",
        .summary = "list pages that are granted to guests of Xen's, or by them",
        .doc = "KIND is window: memory of the daemon's that the guest may map; DOMAIN the number that Xen has given the guest; "
               "PAGES are of 4096 bytes; IN-USE how many of them are mapped at this moment, by the grant table; STATE granted, "
               "or revoking while it is waited for the guest to unmap them. REFS are the references, each run as "
               "DOMAIN:FIRST+COUNT by the domain that grants. Everybody's for an administrator; in a guest, its own. On a host "
               "without Xen there are no grants, which is an error.",
        .options = options,
        .run = list_grants,
};
