/* What all connections share: the broker, the dispatch, the limits, the books about peers.
 *
 * A listener accepts; identity says who it is; a connection reads, dispatches and writes; a session holds what its
 * owner took, beyond the connection's end; the handlers in method-<noun>.c turn decoded parameters into calls of the
 * core and its answers into results. Everything runs on the loop's thread, and nothing blocks. */
#ifndef DMAB_RPC_SERVER_H
#define DMAB_RPC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "daemon/core/broker.h"
#include "daemon/rpc/identity.h"
#include "daemon/rpc/latency.h"
#include "proto/dispatch.h"
#include "proto/methods.h"

struct check;
struct connection;
struct events;
struct guests;
struct listener;
struct principal;
struct rpc_session;
struct chunk;

/* What a configuration says of the server; may change while it runs. */
struct server_settings {
        struct rpc_limits limits;
        size_t queue_bytes;       /* answers not read at which a connection is cut off */
        size_t queue_pause_bytes; /* ... at which no more is read from it */
        uint64_t stall_ms, grace_ms, shutdown_ms;
        size_t connections;
        struct identity_rules rules;
};

#define SERVER_COUNTER_LIST(COUNTER) \
        COUNTER(accepted)            \
        COUNTER(bytes_received)      \
        COUNTER(bytes_sent)          \
        COUNTER(calls)               \
        COUNTER(cut_off)             \
        COUNTER(errors)              \
        COUNTER(fds_sent)            \
        COUNTER(refused)             \
        COUNTER(held_back)           \
        COUNTER(throttled)

struct server_counters {
#define SERVER_COUNTER_MEMBER(name) uint64_t name;
        SERVER_COUNTER_LIST(SERVER_COUNTER_MEMBER)
#undef SERVER_COUNTER_MEMBER
};

/* What broker.status tells of the sources beyond what the core knows. Owned by whoever opened them. */
struct server_source_note {
        const char *name;
        bool ready, simulated;
        char why[320];
};

struct server_facts {
        const struct server_source_note *sources;
        size_t n_sources;
        const char *const *notes;
        size_t n_notes;
};

struct server {
        uv_loop_t *loop;
        struct broker *broker;
        struct rpc_service *service;
        struct server_settings settings;
        struct server_facts facts;
        uint64_t started_ms;

        uv_prepare_t flusher; /* writes what was answered outside of a read */
        uv_timer_t stall_timer, grace_timer, stop_timer, settle_timer, hold_timer;
        uv_idle_t turner; /* while somebody waits for its next turn */
        unsigned n_handles; /* of these, not closed yet */
        struct listener *listener;
        bool stopping;
        bool leaving;   /* ... and another daemon goes on with what there is */
        bool unsettled; /* the ledger could not be written: nothing is told until it is */
        void (*stopped)(void *userdata);
        void *stopped_userdata;

        struct connection *connections, *dirty, *stalled, *turns;
        struct connection *held;    /* have their turn again when hold_timer runs out */
        const struct connection *reader; /* from which requests came last; only to be compared */
        uint64_t others_ms;              /* when that was another one than before */
        size_t n_connections;
        struct principal *principals; /* by owner */
        size_t n_resting;             /* of them, without a connection */
        struct rpc_session *sessions; /* by token */
        struct rpc_session *lingering; /* without a connection, the first to end first */
        struct check *checks;
        struct events *events;
        struct guests *guests; /* borrowed */
        struct chunk *spare;
        char *buffer; /* for one read */

        struct latency latencies[METHOD_COUNT];
        struct server_counters counters;
};

enum { SERVER_BUFFER_SIZE = 16384 };

/* facts: borrowed until server_free(). -errno. */
int server_new(uv_loop_t *loop, struct broker *broker, const struct server_settings *settings,
               const struct server_facts *facts, struct server **ret);
void server_set_settings(struct server *server, const struct server_settings *settings);
/* Borrowed until server_free(). */
void server_set_guests(struct server *server, struct guests *guests);
/* Whether the guest of this owner is connected. */
bool server_has_channel(const struct server *server, const char *owner);
/* What becomes of guests, for guests_begin(); userdata is the server. */
extern const struct guests_listener server_guests_listener;
/* Consumes the listening socket; connections are accepted from now on. */
int server_listen(struct server *server, int fd);
/* Accept no more, refuse what waits, give the last answers some time to be read, close every handle. stopped() is called when
 * the last one is closed, never from within this call. leave: another daemon goes on with the sessions, so that whoever waits
 * is not told anything, and asks that one. */
void server_stop(struct server *server, bool leave, void (*stopped)(void *userdata), void *userdata);
/* After stopped() was called, or when nothing was started, and after the broker has ended. NULL is fine. */
struct server *server_free(struct server *server);

/* ---- for the files of this directory ---- */

/* Whether all that has happened is written down: nothing is told before. If not, it is tried again soon. */
bool server_settle(struct server *server);
/* Some connection does not take its answers: look after it when its time is over. */
void server_watch_stalled(struct server *server);
/* Some connection has requests left for its next turn. */
void server_take_turns(struct server *server);
/* Some connection is not heard for PRINCIPAL_HOLD_MS. */
void server_hold_back(struct server *server);
/* A connection is gone: perhaps that was what server_stop() waits for. */
void server_connection_gone(struct server *server);

#endif
