/* debug.check */
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "daemon/rpc/method.h"

enum { PROBLEMS_MAX = 1000 };

struct problem {
        char what[48], text[256];
        uint64_t handle;
};

/* One check under way. The core cannot be told to stop, so it outlives its call when the peer goes. */
struct check {
        struct check *prev, *next; /* in server->checks */
        struct server *server;
        struct rpc_call *call; /* NULL: nobody waits any more */
        struct broker_counts counts;
        uint64_t pages; /* of all regions, in the grains of their sources */
        struct method_list problems; /* struct problem */
        bool deferred, finished;
};

static void check_free(struct check *check) {
        DL_DELETE(check->server->checks, check);
        free(check->problems.items);
        free(check);
}

static void on_problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        struct check *check = userdata;
        struct problem *problem = method_list_add(&check->problems);

        if (!problem)
                return;
        snprintf(problem->what, sizeof(problem->what), "%s", what);
        snprintf(problem->text, sizeof(problem->text), "%s", text);
        problem->handle = handle;
}

static int add_pages(const struct source_view *view, void *userdata) {
        struct check *check = userdata;

        check->pages += view->in_regions / view->info.grain;
        return 0;
}

static void answer(struct check *check) {
        const struct problem *problems = check->problems.items;
        size_t n = check->problems.count;
        struct check_problem *rows = calloc(n + 1, sizeof(*rows));
        struct debug_check_result result = { .clean = !n && !check->problems.no_memory };

        if (!rows) {
                rpc_call_fail_format(check->call, REASON_no_memory, "The daemon has no memory for this list");
                return;
        }
        for (size_t i = 0; i < n; i++) {
                rows[i].what = problems[i].what;
                rows[i].text = problems[i].text;
                if (problems[i].handle)
                        schema_put(&rows[i], handle, problems[i].handle);
        }
        result.checked = (struct check_counts){
                .owners = check->counts.owners, .devices = check->counts.devices, .regions = check->counts.regions,
                .extents = check->counts.regions, .allocs = check->counts.allocs,
                .pools = check->counts.pools, .bounces = check->counts.bounces, .leases = check->counts.leases,
                .mappings = check->counts.mappings, .pages = check->pages,
        };
        result.problems.items = rows;
        result.problems.count = n;
        rpc_call_reply(check->call, &result);
        free(rows);
}

static void on_done(void *userdata, uint64_t checked) {
        struct check *check = userdata;

        if (check->call)
                answer(check);
        check->finished = true;
        if (check->deferred)
                check_free(check);
}

static void on_cancel(struct rpc_call *call, void *userdata) {
        struct check *check = userdata;

        check->call = NULL;
}

void method_debug_check(struct rpc_call *call, const void *params) {
        struct server *server = method_connection(call)->server;
        struct check *check = calloc(1, sizeof(*check));

        if (!check) {
                rpc_call_fail_format(call, REASON_no_memory, "The daemon itself is out of memory");
                return;
        }
        check->server = server;
        check->call = call;
        check->problems.size = sizeof(struct problem);
        check->problems.limit = PROBLEMS_MAX;
        broker_counts(server->broker, &check->counts);
        broker_visit_sources(server->broker, add_pages, check);
        DL_APPEND(server->checks, check);
        broker_check(server->broker, on_problem, on_done, check);
        if (check->finished) {
                check_free(check);
                return;
        }
        check->deferred = true;
        rpc_call_defer(call, on_cancel, check);
}

void method_refuse_checks(struct server *server) {
        struct check *check;

        DL_FOREACH(server->checks, check) {
                if (check->call)
                        rpc_call_fail_format(check->call, REASON_gone, "The daemon is ending");
                check->call = NULL;
        }
}
