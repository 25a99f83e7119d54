/* How many connections each local user has, and how many descriptors wait in them. */
#ifndef DMAB_RPC_PRINCIPAL_H
#define DMAB_RPC_PRINCIPAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/rpc/server.h"

/* The user's entry with a reference, or NULL without memory. */
struct principal *principal_get(struct server *server, uid_t uid);
void principal_ref(struct principal *principal);
void principal_unref(struct server *server, struct principal *principal); /* NULL is fine */
uint64_t principal_connections(const struct principal *principal); /* references, that of principal_get() included */
uint64_t principal_limit(const struct server *server, const struct principal *principal);

/* Descriptors that wait to be sent to the user. */
void principal_add_fds(struct principal *principal, size_t n);
void principal_remove_fds(struct principal *principal, size_t n);
size_t principal_fds(const struct principal *principal);

/* An administrator's word counts more than the configuration's, until the daemon ends. owner: user:UID. -ENOMEM. */
int principal_set_limit(struct server *server, const char *owner, uint64_t limit);
/* Forget every entry. */
void principal_free_all(struct server *server);

#endif
