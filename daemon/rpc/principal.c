#include "daemon/rpc/principal.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "daemon/rpc/connection.h"
#include "daemon/rpc/rate.h"

/* So many errors in PRINCIPAL_HOLD_MS are told to whoever asks for them, and no more while others ask for something. */
enum { ERRORS_MAX = 32 };

struct principal {
        UT_hash_handle hh; /* in server->principals by owner */
        uint64_t references;
        size_t n_fds;
        struct rate rate;
        uint64_t rate_as_of; /* quota_changes() when its limit was asked for */
        uint64_t errors, errors_since_ms; /* in the PRINCIPAL_HOLD_MS that began then */
        char owner[];
};

static struct principal *principal_find(const struct server *server, const char *owner) {
        struct principal *principal;

        HASH_FIND_STR(server->principals, owner, principal);
        return principal;
}

static void principal_free(struct server *server, struct principal *principal) {
        HASH_DEL(server->principals, principal);
        free(principal);
}

/* Those that nobody needs any more. Who has used up its calls gets no others by connecting again. */
static void forget_rested(struct server *server) {
        struct principal *principal, *next;
        uint64_t now = uv_now(server->loop);

        HASH_ITER(hh, server->principals, principal, next)
                if (!principal->references && !rate_in_use(&principal->rate, now)) {
                        server->n_resting--;
                        principal_free(server, principal);
                }
}

static void refresh_rate(struct server *server, struct principal *principal) {
        uint64_t changes = quota_changes(server->broker);

        if (principal->rate_as_of == changes)
                return;
        principal->rate_as_of = changes;
        rate_set_limit(&principal->rate, quota_limit(server->broker, principal->owner, QUOTA_calls_per_second),
                       uv_now(server->loop));
}

static struct principal *principal_new(struct server *server, const char *owner) {
        struct principal *principal = calloc(1, sizeof(*principal) + strlen(owner) + 1);

        if (!principal)
                return NULL;
        strcpy(principal->owner, owner);
        rate_init(&principal->rate, RATE_UNLIMITED, uv_now(server->loop));
        HASH_ADD_STR(server->principals, owner, principal);
        if (principal->hh.tbl)
                return principal;
        free(principal);
        return NULL;
}

struct principal *principal_get(struct server *server, const char *owner) {
        struct principal *principal = principal_find(server, owner);

        if (!principal) {
                if (server->n_resting)
                        forget_rested(server);
                principal = principal_new(server, owner);
                if (!principal)
                        return NULL;
        } else if (!principal->references)
                server->n_resting--;
        principal->references++;
        return principal;
}

void principal_ref(struct principal *principal) {
        principal->references++;
}

void principal_unref(struct server *server, struct principal *principal) {
        if (!principal || --principal->references)
                return;
        if (rate_in_use(&principal->rate, uv_now(server->loop)))
                server->n_resting++;
        else
                principal_free(server, principal);
}

uint64_t principal_connections(const struct principal *principal) {
        return principal->references;
}

void principal_add_fds(struct principal *principal, size_t n) {
        principal->n_fds += n;
}

void principal_remove_fds(struct principal *principal, size_t n) {
        principal->n_fds -= n;
}

size_t principal_fds(const struct principal *principal) {
        return principal->n_fds;
}

uint64_t principal_limit(const struct server *server, const struct principal *principal) {
        return quota_limit(server->broker, principal->owner, QUOTA_connections);
}

/* ---- calls ---- */

static void refuse(struct server *server, struct principal *principal, struct rpc_error *ret) {
        static char message[160]; /* until it is sent, which is at once */
        struct rate *rate = &principal->rate;
        uint64_t retry_ms = rate_retry_ms(rate);

        server->counters.throttled++;
        snprintf(message, sizeof(message), "%s may call %llu times in a second, and has done so: this call was not executed",
                 principal->owner, (unsigned long long)rate->limit);
        *ret = (struct rpc_error){
                .error = EDQUOT, .reason = REASON_quota, .message = message, .n_values = 3,
                .values = { { .name = "quota", .kind = RPC_VALUE_TEXT, .text = quota_name(QUOTA_calls_per_second) },
                            { .name = "limit", .number = rate->limit },
                            { .name = "in_use", .number = rate_in_use(rate, uv_now(server->loop)) } },
        };
        if (retry_ms != UINT64_MAX)
                ret->values[ret->n_values++] = (struct rpc_error_value){ .name = "retry_ms", .number = retry_ms };
}

bool principal_admits(struct rpc_peer *peer, const struct schema_method *method, struct rpc_error *ret_error) {
        const struct connection *connection = peer->userdata;
        struct server *server = connection->server;
        struct principal *principal = connection->principal;

        refresh_rate(server, principal);
        if (rate_take(&principal->rate, uv_now(server->loop)))
                return true;
        /* Who has locked itself out can let itself in again. */
        if (method && method->id == METHOD_quota_set && peer->role == SCHEMA_ROLE_ADMIN)
                return true;
        refuse(server, principal, ret_error);
        return false;
}

void principal_add_errors(struct server *server, struct principal *principal, uint64_t n) {
        uint64_t now = uv_now(server->loop);

        if (!n)
                return;
        if (now - principal->errors_since_ms >= PRINCIPAL_HOLD_MS) {
                principal->errors_since_ms = now;
                principal->errors = 0;
        }
        principal->errors += n;
}

bool principal_is_held_back(struct server *server, struct principal *principal) {
        return principal->errors >= ERRORS_MAX && uv_now(server->loop) - principal->errors_since_ms < PRINCIPAL_HOLD_MS;
}

uint64_t principal_calls(struct server *server, const char *owner) {
        struct principal *principal = principal_find(server, owner);

        if (!principal)
                return 0;
        refresh_rate(server, principal);
        return rate_in_use(&principal->rate, uv_now(server->loop));
}

void principal_free_all(struct server *server) {
        struct principal *principal, *next;

        HASH_ITER(hh, server->principals, principal, next)
                principal_free(server, principal);
}
