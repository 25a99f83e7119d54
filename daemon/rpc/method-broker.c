/* broker.hello, broker.ping, broker.bye, broker.status */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guests.h"
#include "daemon/log.h"
#include "daemon/rpc/error.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/session.h"

#define SERVER_NAME "dmabrokerd"

static void fill_limits(const struct server *server, struct hello_limits *ret) {
        const struct rpc_limits *limits = &server->settings.limits;

        *ret = (struct hello_limits){
                .message_bytes = limits->message_bytes,
                .nesting = limits->nesting,
                .calls_in_flight = limits->calls_in_flight,
                .batch_elements = limits->batch_elements,
                .batch_reply_bytes = limits->batch_reply_bytes,
                .fds_per_reply = limits->fds_per_reply,
                .queue_bytes = server->settings.queue_bytes,
                .grace_ms = server->settings.grace_ms,
                .wait_ms = PROTOCOL_WAIT_MS_MAX,
                .list_elements = PROTOCOL_LIST_MAX,
        };
}

void method_broker_hello(struct rpc_call *call, const void *given) {
        static const char *const capabilities[] = { "events", "fds", "leases", "request_keys", "sessions" };
        struct connection *connection = method_connection(call);
        const struct broker_hello_params *params = given;
        struct broker_hello_result result = { 0 };
        struct failure failure = { 0 };
        int r;

        if (schema_has(params, protocol) && params->protocol != PROTOCOL_VERSION) {
                rpc_call_fail_format(call, REASON_unsupported, "This daemon speaks version %d of the protocol only",
                                     PROTOCOL_VERSION);
                return;
        }
        r = schema_has(params, session) ? session_resume(connection, params->session, &failure)
                                        : session_open_for(connection, &failure);
        if (r < 0) {
                error_answer(call, &failure);
                return;
        }
        log_debug("%s (pid %ld) is %s", connection->identity.owner, (long)connection->identity.pid,
                  schema_has(params, client) ? params->client : "a client without a name");
        result.server = SERVER_NAME;
        result.version = PACKAGE_VERSION;
        result.protocol = PROTOCOL_VERSION;
        result.session = session_token(connection);
        result.owner = connection->identity.owner;
        result.role = connection->identity.admin ? PROTOCOL_ADMIN : connection->identity.guest ? PROTOCOL_GUEST : PROTOCOL_LOCAL;
        result.capabilities.items = capabilities;
        result.capabilities.count = sizeof(capabilities) / sizeof(*capabilities);
        fill_limits(connection->server, &result.limits);
        if (connection->identity.guest)
                result.limits.fds_per_reply = 0;
        rpc_call_reply(call, &result);
}

void method_broker_ping(struct rpc_call *call, const void *params) {
        rpc_call_reply(call, NULL);
}

void method_broker_bye(struct rpc_call *call, const void *params) {
        struct connection *connection = method_connection(call);

        if (connection->session)
                session_end(connection->session);
        /* Whoever ends its own session knows that it is over. */
        connection->session_ended = false;
        rpc_call_reply(call, NULL);
}

/* ---- status ---- */

struct status {
        const struct server *server;
        uint64_t runs;
        struct method_list sources, backends; /* struct status_source */
        struct method_list *free_runs; /* struct memory_run, one list per source */
};

static const char *note_of(const struct server *server, const char *name) {
        for (size_t i = 0; i < server->facts.n_sources; i++)
                if (strcmp(server->facts.sources[i].name, name) == 0)
                        return server->facts.sources[i].why;
        return "";
}

static int add_source(const struct source_view *view, void *userdata) {
        struct status *status = userdata;
        struct status_source *source = method_list_add(&status->sources);

        if (!source)
                return 1;
        *source = (struct status_source){
                .name = view->info.name,
                .addressing = view->info.flags & SOURCE_SIMULATED ? PROTOCOL_SIMULATED : PROTOCOL_MACHINE,
                .state = PROTOCOL_SOURCE_READY,
                .why = note_of(status->server, view->info.name),
                .total = view->total,
                .free = view->free,
                .in_regions = view->in_regions,
                .used = view->used,
                .largest_free = view->largest_free,
                .low_total = view->low_total,
                .low_free = view->low_free,
                .grain = view->info.grain,
                .pinned = view->info.flags & SOURCE_PINS,
                .pending = view->pending,
                .emergency = view->emergency,
        };
        if (view->info.limit <= SCHEMA_INTEGER_MAX)
                schema_put(source, limit, view->info.limit);
        if (view->info.available <= SCHEMA_INTEGER_MAX)
                schema_put(source, available, view->info.available);
        if (view->awaited)
                schema_put(source, awaited, view->awaited);
        return 0;
}

/* Those that were tried and do not serve. */
static void add_unavailable(struct status *status) {
        const struct server_facts *facts = &status->server->facts;

        for (size_t i = 0; i < facts->n_sources; i++) {
                struct status_source *source = facts->sources[i].ready ? NULL : method_list_add(&status->sources);

                if (!source)
                        continue;
                source->name = facts->sources[i].name;
                source->addressing = facts->sources[i].simulated ? PROTOCOL_SIMULATED : PROTOCOL_MACHINE;
                source->state = PROTOCOL_SOURCE_UNAVAILABLE;
                source->why = facts->sources[i].why;
        }
}

static int add_run(const char *name, uint64_t addr, uint64_t size, void *userdata) {
        struct status *status = userdata;
        const struct status_source *sources = status->sources.items;

        for (size_t i = 0; i < status->sources.count; i++)
                if (strcmp(sources[i].name, name) == 0) {
                        struct memory_run *run = method_list_add(&status->free_runs[i]);

                        if (run)
                                *run = (struct memory_run){ .machine_addr = addr, .size = size };
                        return 0;
                }
        return 0;
}

static int run_order(const void *one, const void *other) {
        const struct memory_run *a = one, *b = other;

        return a->machine_addr < b->machine_addr ? -1 : a->machine_addr > b->machine_addr;
}

static bool add_runs(struct status *status) {
        struct status_source *sources = status->sources.items;

        status->free_runs = calloc(status->sources.count + 1, sizeof(*status->free_runs));
        if (!status->free_runs)
                return false;
        for (size_t i = 0; i < status->sources.count; i++) {
                status->free_runs[i].size = sizeof(struct memory_run);
                status->free_runs[i].limit = status->runs;
        }
        broker_visit_stock(status->server->broker, add_run, status);
        for (size_t i = 0; i < status->sources.count; i++) {
                if (status->free_runs[i].count)
                        qsort(status->free_runs[i].items, status->free_runs[i].count, sizeof(struct memory_run), run_order);
                sources[i].free_runs.items = status->free_runs[i].items;
                sources[i].free_runs.count = status->free_runs[i].count;
                schema_mark(&sources[i], free_runs);
        }
        return true;
}

static void status_free(struct status *status) {
        for (size_t i = 0; status->free_runs && i < status->sources.count; i++)
                free(status->free_runs[i].items);
        free(status->free_runs);
        free(status->sources.items);
        free(status->backends.items);
}

static int add_backend(const char *name, uint64_t devices, void *userdata) {
        struct status *status = userdata;
        struct status_backend *backend = method_list_add(&status->backends);

        if (!backend)
                return 1;
        *backend = (struct status_backend){ .name = name, .translation = method_translation(name), .devices = devices };
        return 0;
}

static void answer_status(struct rpc_call *call, const struct status *status) {
        const struct server *server = status->server;
        const struct status_source *sources = status->sources.items;
        struct broker_status_result result = { .server = SERVER_NAME, .version = PACKAGE_VERSION };
        struct broker_counts counts;
        struct source_view anonymous;
        struct promises promises, granted;

        broker_counts(server->broker, &counts);
        broker_promises(server->broker, false, &promises);
        broker_promises(server->broker, true, &granted);
        result.uptime_ms = uv_now(server->loop) - server->started_ms;
        result.uptime = result.uptime_ms / 1000;
        result.addressing = PROTOCOL_MACHINE;
        for (size_t i = 0; i < status->sources.count; i++)
                if (sources[i].state == PROTOCOL_SOURCE_READY && sources[i].addressing == PROTOCOL_SIMULATED)
                        result.addressing = PROTOCOL_SIMULATED;
        result.sources.items = sources;
        result.sources.count = status->sources.count;
        result.backends.items = status->backends.items;
        result.backends.count = status->backends.count;
        result.counts = (struct status_counts){
                .connections = server->n_connections, .sessions = counts.sessions, .owners = counts.owners,
                .devices = counts.devices, .regions = counts.regions, .allocs = counts.allocs, .pools = counts.pools,
                .bounces = counts.bounces, .leases = counts.leases, .mappings = counts.mappings, .waiters = counts.waiters,
                .guests = server->guests ? guests_count(server->guests) : 0,
        };
        result.guarantees = (struct status_guarantees){
                .bytes = promises.guaranteed.bytes + granted.guaranteed.bytes,
                .low_bytes = promises.guaranteed.low_bytes + granted.guaranteed.low_bytes,
                .unmet = promises.unmet.bytes + granted.unmet.bytes,
                .unmet_low = promises.unmet.low_bytes + granted.unmet.low_bytes,
        };
        result.quarantined = broker_quarantined(server->broker);
        if (broker_anonymous(server->broker, &anonymous))
                result.anonymous = (struct status_anonymous){
                        .total = anonymous.total, .used = anonymous.used,
                        .limit = anonymous.info.limit < SCHEMA_INTEGER_MAX ? anonymous.info.limit : SCHEMA_INTEGER_MAX,
                };
        result.notes.items = server->facts.notes;
        result.notes.count = server->facts.n_notes;
        rpc_call_reply(call, &result);
}

void method_broker_status(struct rpc_call *call, const void *given) {
        const struct broker_status_params *params = given;
        struct status status = {
                .server = method_connection(call)->server,
                .sources = { .size = sizeof(struct status_source), .limit = SIZE_MAX },
                .backends = { .size = sizeof(struct status_backend), .limit = SIZE_MAX },
        };

        broker_visit_sources(status.server->broker, add_source, &status);
        add_unavailable(&status);
        broker_visit_translators(status.server->broker, add_backend, &status);
        if (method_list_failed(&status.sources, call) || method_list_failed(&status.backends, call)) {
                status_free(&status);
                return;
        }
        if (schema_has(params, runs) && method_tells_machine(call)) {
                status.runs = params->runs;
                if (!add_runs(&status)) {
                        rpc_call_fail_format(call, REASON_no_memory, "The daemon has no memory for this list");
                        status_free(&status);
                        return;
                }
        }
        answer_status(call, &status);
        status_free(&status);
}
