/* How many connections each user or guest has, how many descriptors wait in them, and how often it calls. */
#ifndef DMAB_RPC_PRINCIPAL_H
#define DMAB_RPC_PRINCIPAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rpc/server.h"

enum { PRINCIPAL_HOLD_MS = 100 };

/* The owner's entry with a reference, or NULL without memory. */
struct principal *principal_get(struct server *server, const char *owner);
void principal_ref(struct principal *principal);
void principal_unref(struct server *server, struct principal *principal); /* NULL is fine */
uint64_t principal_connections(const struct principal *principal); /* references, that of principal_get() included */
uint64_t principal_limit(const struct server *server, const struct principal *principal); /* of connections */

/* Descriptors that wait to be sent to the user. */
void principal_add_fds(struct principal *principal, size_t n);
void principal_remove_fds(struct principal *principal, size_t n);
size_t principal_fds(const struct principal *principal);

/* An rpc_admit_fn: whether the peer's user may call once more in this second. */
bool principal_admits(struct rpc_peer *peer, const struct schema_method *method, struct rpc_error *ret_error);
/* The user was answered with an error. */
void principal_add_errors(struct server *server, struct principal *principal, uint64_t n);
/* Whether that was so often that it is not heard for a while; PRINCIPAL_HOLD_MS at most. */
bool principal_is_held_back(struct server *server, struct principal *principal);
/* Of the last second, as far as there is a limit. */
uint64_t principal_calls(struct server *server, const char *owner);
/* Forget every entry. */
void principal_free_all(struct server *server);

#endif
