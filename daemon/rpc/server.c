#include "daemon/rpc/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/guest/guests.h"
#include "daemon/log.h"
#include "daemon/probes.h"
#include "daemon/rpc/connection.h"
#include "daemon/rpc/events.h"
#include "daemon/rpc/json-memory.h"
#include "daemon/rpc/listener.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/principal.h"
#include "daemon/rpc/session.h"

enum { SETTLE_AGAIN_MS = 100 };

static void on_answer(void *userdata, const struct schema_method *method, uint64_t nanoseconds, int code) {
        struct server *server = userdata;

        server->counters.calls++;
        server->counters.errors += code != 0;
        latency_add(&server->latencies[method->id], nanoseconds);
        PROBE_REQUEST_DONE(method->name, nanoseconds, code);
}

#ifdef HAVE_PROBES
static void on_call(void *userdata, const struct rpc_call *call) {
        const struct connection *connection = method_connection(call);

        PROBE_REQUEST_START(rpc_call_method(call)->name, connection->identity.owner, connection->identity.pid);
}
#else
#define on_call NULL
#endif

/* Just before the loop waits for events: what was answered since then by anything but a read. */
static void on_prepare(uv_prepare_t *handle) {
        struct server *server = handle->data;

        while (server_settle(server) && server->dirty)
                connection_flush(server->dirty);
}

/* It wakes the loop, which tries by itself. */
static void on_settle_timer(uv_timer_t *timer) {
}

/* Nothing was written to them meanwhile, of which they are not to blame. */
static void forgive_stalled(struct server *server) {
        struct connection *connection;

        DL_FOREACH2(server->stalled, connection, stalled_next)
                connection->progress_ms = uv_now(server->loop);
}

bool server_settle(struct server *server) {
        int r = broker_commit(server->broker);

        if (r < 0 && !server->unsettled)
                log_error("the ledger cannot be written, so nothing is answered until it can: %s", strerror(-r));
        if (r == 0 && server->unsettled) {
                log_info("the ledger is written again");
                forgive_stalled(server);
        }
        server->unsettled = r < 0;
        if (r < 0 && !server->stopping)
                uv_timer_start(&server->settle_timer, on_settle_timer, SETTLE_AGAIN_MS, 0);
        return r == 0;
}

/* ---- turns ---- */

/* Once in each round of the loop. */
static void on_turn(uv_idle_t *idle) {
        struct server *server = idle->data;
        struct connection *last = server->turns ? server->turns->wait_prev : NULL, *connection;

        while ((connection = server->turns)) {
                connection_take_turn(connection);
                if (connection == last)
                        break;
        }
        if (!server->turns)
                uv_idle_stop(idle);
}

void server_take_turns(struct server *server) {
        if (!server->stopping)
                uv_idle_start(&server->turner, on_turn);
}

static void on_hold_timer(uv_timer_t *timer) {
        struct server *server = timer->data;

        while (server->held)
                connection_let_go(server->held);
}

void server_hold_back(struct server *server) {
        if (!server->stopping && !uv_is_active((uv_handle_t *)&server->hold_timer))
                uv_timer_start(&server->hold_timer, on_hold_timer, PRINCIPAL_HOLD_MS, 0);
}

/* ---- peers that do not read ---- */

static void on_stall_timer(uv_timer_t *timer) {
        struct server *server = timer->data;
        struct connection *connection, *next;
        uint64_t now = uv_now(server->loop);

        DL_FOREACH_SAFE2(server->stalled, connection, next, stalled_next)
                if (!server->unsettled && now - connection->progress_ms >= server->settings.stall_ms)
                        connection_cut_off(connection, "it did not read its answers in time");
        server_watch_stalled(server);
}

void server_watch_stalled(struct server *server) {
        uint64_t period = server->settings.stall_ms / 4;

        if (!server->stalled || uv_is_active((uv_handle_t *)&server->stall_timer))
                return;
        uv_timer_start(&server->stall_timer, on_stall_timer, period < 25 ? 25 : period > 1000 ? 1000 : period, 0);
}

/* ---- beginning ---- */

int server_new(uv_loop_t *loop, struct broker *broker, const struct server_settings *settings,
               const struct server_facts *facts, struct server **ret) {
        struct server *server = calloc(1, sizeof(*server));
        int r = -ENOMEM;

        if (!server)
                return r;
        json_memory_init();
        server->loop = loop;
        server->broker = broker;
        server->settings = *settings;
        server->facts = *facts;
        server->started_ms = uv_now(loop);
        server->buffer = malloc(SERVER_BUFFER_SIZE);
        if (server->buffer)
                r = rpc_service_new(&protocol_table, method_handlers, &settings->limits, &server->service);
        if (r == 0)
                r = events_new(server, &server->events);
        if (r == 0)
                r = session_restore_all(server);
        if (r < 0) {
                session_forget_all(server);
                /* The core goes on, with whatever its sources are still busy with. */
                broker_listen(broker, NULL, NULL);
                server_free(server);
                return r;
        }
        rpc_service_observe(server->service, on_call, on_answer, server);
        rpc_service_set_admit(server->service, principal_admits);
        uv_prepare_init(loop, &server->flusher);
        uv_timer_init(loop, &server->stall_timer);
        uv_timer_init(loop, &server->grace_timer);
        uv_timer_init(loop, &server->stop_timer);
        uv_timer_init(loop, &server->settle_timer);
        uv_timer_init(loop, &server->hold_timer);
        uv_idle_init(loop, &server->turner);
        server->n_handles = 7;
        server->flusher.data = server->stall_timer.data = server->grace_timer.data = server->stop_timer.data = server;
        server->settle_timer.data = server->hold_timer.data = server->turner.data = server;
        uv_prepare_start(&server->flusher, on_prepare);
        *ret = server;
        return 0;
}

int server_listen(struct server *server, int fd) {
        session_wait_for_all(server);
        return listener_new(server, fd, &server->listener);
}

void server_set_settings(struct server *server, const struct server_settings *settings) {
        struct connection *connection;

        server->settings = *settings;
        rpc_service_set_limits(server->service, &settings->limits);
        DL_FOREACH(server->connections, connection)
                frame_reader_set_limit(&connection->reader, settings->limits.message_bytes);
}

/* ---- guests ---- */

void server_set_guests(struct server *server, struct guests *guests) {
        server->guests = guests;
}

static bool is_channel_of(const struct connection *connection, const char *owner) {
        return !connection->closing && connection->identity.guest && strcmp(connection->identity.owner, owner) == 0;
}

bool server_has_channel(const struct server *server, const char *owner) {
        const struct connection *connection;

        DL_FOREACH(server->connections, connection)
                if (is_channel_of(connection, owner))
                        return true;
        return false;
}

/* Who had come before is hung up on if it is another one. */
static void on_known(void *userdata, const char *owner, pid_t pid) {
        struct server *server = userdata;
        struct connection *connection, *next;

        DL_FOREACH_SAFE(server->connections, connection, next)
                if (is_channel_of(connection, owner) && (!pid || connection->identity.pid != pid))
                        connection_cut_off(connection, pid ? "it is not the guest's QEMU" : "its guest has ended");
}

/* What it was connected by before is closed. */
static void on_channel(void *userdata, const char *owner, int fd, pid_t pid, uid_t uid) {
        struct server *server = userdata;
        struct identity identity = { .pid = pid, .uid = uid, .guest = true };
        struct connection *connection, *next;
        struct principal *principal;
        int r = -ENOMEM;

        DL_FOREACH_SAFE(server->connections, connection, next)
                if (is_channel_of(connection, owner))
                        connection_close(connection);
        snprintf(identity.owner, sizeof(identity.owner), "%s", owner);
        principal = server->stopping ? NULL : principal_get(server, owner);
        if (principal && !principal_limit(server, principal))
                r = -EDQUOT;
        if (principal && r != -EDQUOT)
                r = connection_new(server, fd, &identity, principal);
        else
                close(fd);
        if (r < 0 && !server->stopping)
                log_warning("the channel of %s cannot be served: %s", owner, strerror(-r));
        principal_unref(server, principal);
}

static void on_ended(void *userdata, const char *owner) {
        session_end_owner(userdata, owner);
}

static void on_lost(void *userdata) {
        session_end_users(userdata);
}

static void on_changed(void *userdata, const struct guest_view *view, enum guest_change change) {
        static const enum protocol_guest_change words[] = {
                [GUEST_STARTED] = PROTOCOL_GUEST_STARTED,   [GUEST_STOPPED] = PROTOCOL_GUEST_STOPPED,
                [GUEST_REBOOTED] = PROTOCOL_GUEST_REBOOTED, [GUEST_ATTACHED] = PROTOCOL_GUEST_ATTACHED,
                [GUEST_DETACHED] = PROTOCOL_GUEST_DETACHED, [GUEST_CONNECTED] = PROTOCOL_GUEST_CONNECTED,
                [GUEST_LEAVING] = PROTOCOL_GUEST_LEAVING,
        };

        events_tell_guest(userdata, view->owner, view->name, words[change]);
}

static void on_filling(void *userdata, const struct guest_table_view *view, bool is_over) {
        events_tell_filling(userdata, view->domain, view->granted + view->revoking, is_over);
}

const struct guests_listener server_guests_listener = {
        .channel = on_channel,
        .known = on_known,
        .ended = on_ended,
        .lost = on_lost,
        .changed = on_changed,
        .filling = on_filling,
};

/* ---- end ---- */

static void on_handle_closed(uv_handle_t *handle) {
        struct server *server = handle->data;

        if (--server->n_handles == 0)
                server->stopped(server->stopped_userdata);
}

static void on_stop_timer(uv_timer_t *timer) {
        struct server *server = timer->data;
        struct connection *connection, *next;

        DL_FOREACH_SAFE(server->connections, connection, next)
                connection_close(connection);
}

void server_connection_gone(struct server *server) {
        if (!server->stopping || server->n_connections || server->listener)
                return;
        if (server->leaving)
                session_forget_all(server);
        else
                session_end_all(server);
        uv_close((uv_handle_t *)&server->flusher, on_handle_closed);
        uv_close((uv_handle_t *)&server->stall_timer, on_handle_closed);
        uv_close((uv_handle_t *)&server->grace_timer, on_handle_closed);
        uv_close((uv_handle_t *)&server->stop_timer, on_handle_closed);
        uv_close((uv_handle_t *)&server->settle_timer, on_handle_closed);
        uv_close((uv_handle_t *)&server->hold_timer, on_handle_closed);
        uv_close((uv_handle_t *)&server->turner, on_handle_closed);
}

void server_stop(struct server *server, bool leave, void (*stopped)(void *userdata), void *userdata) {
        struct connection *connection, *next;

        server->stopping = true;
        server->leaving = leave;
        server->stopped = stopped;
        server->stopped_userdata = userdata;
        if (!leave)
                session_refuse_all(server);
        method_refuse_checks(server);
        DL_FOREACH_SAFE(server->connections, connection, next)
                connection_finish(connection);
        uv_timer_start(&server->stop_timer, on_stop_timer, server->settings.shutdown_ms, 0);
        if (server->listener)
                listener_close(server->listener);
        else
                server_connection_gone(server);
}

struct server *server_free(struct server *server) {
        if (!server)
                return NULL;
        events_free(server->events);
        rpc_service_free(server->service);
        principal_free_all(server);
        free(server->spare);
        free(server->buffer);
        free(server);
        return NULL;
}
