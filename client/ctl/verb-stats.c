/* stats: counters and latencies. */
#include <stdio.h>
#include <string.h>

#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct ctl_option options[] = {
        { "--reset", NULL, "start them anew instead of printing them; for administrators" },
        { NULL },
};

static void show_group(json_t *group) {
        static const struct show_column counters[] = { { "COUNTER", "name" }, { "VALUE", "value", SHOW_NUMBER } };
        static const struct show_column latencies[] = {
                { "METHOD", "method" },
                { "COUNT", "count", SHOW_NUMBER },
                { "MEAN-US", "mean_us", SHOW_NUMBER },
                { "P50-US", "p50_us", SHOW_NUMBER },
                { "P99-US", "p99_us", SHOW_NUMBER },
                { "MAX-US", "max_us", SHOW_NUMBER },
        };
        char buffer[SHOW_SIZE];

        show_pair("group", show_member(group, "name", buffer));
        putchar('\n');
        if (json_array_size(json_object_get(group, "counters"))) {
                show_table(json_object_get(group, "counters"), counters, N(counters));
                putchar('\n');
        }
        if (json_array_size(json_object_get(group, "latencies"))) {
                show_table(json_object_get(group, "latencies"), latencies, N(latencies));
                putchar('\n');
        }
}

/* ---- pools and bounce pools: groups that the daemon tells as lists of their own ---- */

static const struct pool_group {
        const char *name;
        const struct list *list;
} pool_groups[] = {
        { "pools", &list_pool_stats },
        { "bounces", &list_bounce_stats },
};

static const struct pool_group *find_pool_group(const char *name) {
        for (size_t i = 0; i < N(pool_groups); i++)
                if (!strcmp(pool_groups[i].name, name))
                        return &pool_groups[i];
        return NULL;
}

static void show_pool_group(const struct pool_group *group, json_t *rows) {
        json_t *row;
        size_t i;

        if (!json_array_size(rows) && show_terminal())
                return;
        json_array_foreach(rows, i, row)
                group->list->add(row);
        show_pair("group", group->name);
        putchar('\n');
        show_table(rows, group->list->columns, group->list->n_columns);
        putchar('\n');
}

/* Add a list to the result, under the group's name. */
static enum ctl_status get_pool_group(struct ctl *ctl, const struct pool_group *group, json_t *result) {
        json_t *listed;
        enum ctl_status status =
                ctl_list(ctl, group->list->method, NULL, group->list->items, group->list->handle, &listed);

        if (status != CTL_OK)
                return status;
        json_object_set(result, group->name, json_object_get(listed, group->list->items));
        json_decref(listed);
        return CTL_OK;
}

/* ---- the verb ---- */

static enum ctl_status get(struct ctl *ctl, const char *wanted, json_t **ret) {
        const struct pool_group *only = wanted ? find_pool_group(wanted) : NULL;
        json_t *result = NULL;
        enum ctl_status status;

        if (only) {
                result = json_pack("{s:[]}", "groups");
                status = CTL_OK;
        } else {
                status = ctl_call(ctl, "stats.get", wanted ? json_pack("{s:s}", "group", wanted) : NULL, &result);
        }
        for (size_t i = 0; i < N(pool_groups) && status == CTL_OK; i++)
                if (only ? only == &pool_groups[i] : !wanted)
                        status = get_pool_group(ctl, &pool_groups[i], result);
        if (status == CTL_OK)
                *ret = result;
        else
                json_decref(result);
        return status;
}

static void show(json_t *result) {
        json_t *group;
        size_t i;

        json_array_foreach(json_object_get(result, "groups"), i, group)
                show_group(group);
        for (i = 0; i < N(pool_groups); i++)
                if (json_object_get(result, pool_groups[i].name))
                        show_pool_group(&pool_groups[i], json_object_get(result, pool_groups[i].name));
}

static enum ctl_status reset(struct ctl *ctl, const char *wanted, json_t **ret) {
        if (wanted && find_pool_group(wanted))
                return ctl_misuse(ctl, "what %s have counted since they were made cannot be reset", wanted);
        return ctl_call(ctl, "stats.reset", wanted ? json_pack("{s:s}", "group", wanted) : NULL, ret);
}

static enum ctl_status run_stats(struct ctl *ctl) {
        const char *wanted = ctl->n_operands ? ctl->operands[0] : NULL;
        enum ctl_status status;
        json_t *result;

        status = ctl_has(ctl, "--reset") ? reset(ctl, wanted, &result) : get(ctl, wanted, &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        else
                show(result);
        json_decref(result);
        return CTL_OK;
}

const struct ctl_verb verb_stats = {
        .name = "stats",
        .operands = "[GROUP]",
        .summary = "show counters, high-water marks and how long calls took",
        .doc = "GROUP is rpc, memory, owners, pools or bounces; all of them unless given. Times are in microseconds. The first "
               "columns of pools are those of the kernel's own pools: name, blocks in use, blocks, their size, slabs. What a "
               "pool has counted, it has counted since it was made.",
        .words = "rpc memory owners pools bounces",
        .options = options,
        .max_operands = 1,
        .run = run_stats,
};
