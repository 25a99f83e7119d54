/* stats: counters and latencies. */
#include <stdio.h>

#include "client/ctl/show.h"
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

static enum ctl_status run_stats(struct ctl *ctl) {
        json_t *params = ctl->n_operands ? json_pack("{s:s}", "group", ctl->operands[0]) : json_object(), *result,
               *group;
        bool reset = ctl_has(ctl, "--reset");
        enum ctl_status status = ctl_call(ctl, reset ? "stats.reset" : "stats.get", params, &result);
        size_t i;

        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        else
                json_array_foreach(json_object_get(result, "groups"), i, group)
                        show_group(group);
        json_decref(result);
        return CTL_OK;
}

const struct ctl_verb verb_stats = {
        .name = "stats",
        .operands = "[GROUP]",
        .summary = "show counters, high-water marks and how long calls took",
        .doc = "GROUP is rpc, memory or owners; all of them unless given. Times are in microseconds.",
        .options = options,
        .max_operands = 1,
        .run = run_stats,
};
