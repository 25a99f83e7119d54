/* stats.get, stats.reset */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/session.h"

enum { GROUPS = PROTOCOL_STATS_OWNERS + 1, NAME_SIZE = 96 };

/* Names that are made up for the answer live in an arena of their own, for they must not move while the list grows. */
struct name {
        struct name *next;
        char text[NAME_SIZE];
};

struct group {
        struct method_list counters;  /* struct stats_counter */
        struct method_list latencies; /* struct stats_latency */
        struct name *names;
};

static void group_init(struct group *group) {
        *group = (struct group){
                .counters = { .size = sizeof(struct stats_counter), .limit = SIZE_MAX },
                .latencies = { .size = sizeof(struct stats_latency), .limit = SIZE_MAX },
        };
}

static void group_deinit(struct group *group) {
        struct name *name;

        free(group->counters.items);
        free(group->latencies.items);
        while ((name = group->names)) {
                group->names = name->next;
                free(name);
        }
}

static void add_counter(struct group *group, const char *name, uint64_t value) {
        struct stats_counter *counter = method_list_add(&group->counters);

        if (counter)
                *counter = (struct stats_counter){ .name = name,
                                                   .value = value < SCHEMA_INTEGER_MAX ? value : SCHEMA_INTEGER_MAX };
}

static void add_named(struct group *group, const char *of, const char *what, uint64_t value) {
        struct name *name = malloc(sizeof(*name));

        if (!name) {
                group->counters.no_memory = true;
                return;
        }
        snprintf(name->text, sizeof(name->text), "%s.%s", of, what);
        name->next = group->names;
        group->names = name;
        add_counter(group, name->text, value);
}

/* ---- rpc ---- */

static void add_latencies(const struct server *server, struct group *group) {
        for (size_t i = 0; i < METHOD_COUNT; i++) {
                const struct latency *latency = &server->latencies[i];
                struct stats_latency *row;

                if (!latency->count)
                        continue;
                row = method_list_add(&group->latencies);
                if (!row)
                        return;
                *row = (struct stats_latency){
                        .method = protocol_table.methods[i].name,
                        .count = latency->count,
                        .mean_us = (double)latency->sum / (double)latency->count / 1000,
                        .p50_us = (double)latency_quantile(latency, 500) / 1000,
                        .p99_us = (double)latency_quantile(latency, 990) / 1000,
                        .max_us = (double)latency->max / 1000,
                };
        }
}

static void fill_rpc(const struct server *server, struct group *group) {
#define ADD(name) add_counter(group, #name, server->counters.name);
        SERVER_COUNTER_LIST(ADD)
#undef ADD
        add_counter(group, "connections", server->n_connections);
        add_counter(group, "sessions", session_count(server));
        add_latencies(server, group);
}

/* ---- memory ---- */

static int add_core_counter(const char *name, uint64_t value, void *userdata) {
        add_counter(userdata, name, value);
        return 0;
}

static int add_source(const struct source_view *view, void *userdata) {
        struct group *group = userdata;

        add_named(group, view->info.name, "total", view->total);
        add_named(group, view->info.name, "free", view->free);
        add_named(group, view->info.name, "in_regions", view->in_regions);
        add_named(group, view->info.name, "used", view->used);
        add_named(group, view->info.name, "largest_free", view->largest_free);
        add_named(group, view->info.name, "low_free", view->low_free);
        add_named(group, view->info.name, "awaited", view->awaited);
        add_named(group, view->info.name, "lost", view->lost);
        return 0;
}

/* ---- owners ---- */

/* What a second's calls were is history in the next: the group rpc counts calls. */
static int add_owner(const struct owner_view *view, void *userdata) {
        for (int kind = 0; kind < QUOTA_KINDS; kind++)
                if (kind != QUOTA_calls_per_second)
                        add_named(userdata, view->name, quota_name(kind), view->usage.of[kind]);
        return 0;
}

/* What other users hold is not everybody's business. */
static bool fill_owners(struct rpc_call *call, struct group *group) {
        struct failure failure = { 0 };
        struct owner_view view;
        struct caller caller;

        if (!method_caller(call, &caller))
                return false;
        if (caller.admin) {
                broker_visit_owners(method_connection(call)->server->broker, add_owner, group);
                return true;
        }
        if (quota_get(&caller, NULL, &view, &failure) < 0) {
                error_answer(call, &failure);
                return false;
        }
        add_owner(&view, group);
        return true;
}

/* ---- the methods ---- */

static bool fill(struct rpc_call *call, enum protocol_stats_group which, struct group *group) {
        struct server *server = method_connection(call)->server;

        if (which == PROTOCOL_STATS_OWNERS)
                return fill_owners(call, group);
        if (which == PROTOCOL_STATS_RPC)
                fill_rpc(server, group);
        else {
                broker_visit_counters(server->broker, add_core_counter, group);
                add_counter(group, "quarantined_bytes", broker_quarantined(server->broker));
                broker_visit_sources(server->broker, add_source, group);
        }
        return true;
}

/* False: the call has been answered. */
static bool collect(struct rpc_call *call, const struct stats_get_params *params, struct group *groups,
                    struct stats_group *rows, size_t *ret_n) {
        size_t n = 0;

        for (int which = 0; which < GROUPS; which++) {
                if (schema_has(params, group) && (int)params->group != which)
                        continue;
                if (!fill(call, which, &groups[n]))
                        return false;
                if (groups[n].counters.no_memory || groups[n].latencies.no_memory) {
                        rpc_call_fail_format(call, REASON_no_memory, "The daemon has no memory for this list");
                        return false;
                }
                rows[n].name = which;
                rows[n].counters.items = groups[n].counters.items;
                rows[n].counters.count = groups[n].counters.count;
                rows[n].latencies.items = groups[n].latencies.items;
                rows[n].latencies.count = groups[n].latencies.count;
                n++;
        }
        *ret_n = n;
        return true;
}

void method_stats_get(struct rpc_call *call, const void *given) {
        struct stats_get_result result = { 0 };
        struct stats_group rows[GROUPS] = { 0 };
        struct group groups[GROUPS];
        size_t n;

        for (size_t i = 0; i < GROUPS; i++)
                group_init(&groups[i]);
        if (collect(call, given, groups, rows, &n)) {
                result.groups.items = rows;
                result.groups.count = n;
                rpc_call_reply(call, &result);
        }
        for (size_t i = 0; i < GROUPS; i++)
                group_deinit(&groups[i]);
}

void method_stats_reset(struct rpc_call *call, const void *given) {
        const struct stats_reset_params *params = given;
        struct server *server = method_connection(call)->server;
        const struct ok_result result = { .ok = true };
        bool all = !schema_has(params, group);

        if (all || params->group == PROTOCOL_STATS_RPC) {
                memset(server->latencies, 0, sizeof(server->latencies));
                memset(&server->counters, 0, sizeof(server->counters));
        }
        if (all || params->group == PROTOCOL_STATS_MEMORY)
                broker_reset_counters(server->broker);
        rpc_call_reply(call, &result);
}
