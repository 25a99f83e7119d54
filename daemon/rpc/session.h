/* Sessions: what holds devices and allocations, beyond the end of a connection by the grace time. A session has an owner
 * and a secret token; any connection of that owner may resume it, and several may share it. Calls that wait belong to the
 * session whose memory they ask for. */
#ifndef DMAB_RPC_SESSION_H
#define DMAB_RPC_SESSION_H

#include "daemon/core/broker.h"
#include "daemon/rpc/connection.h"

/* A call that waits for the core. Embedded in what a handler keeps. */
struct waiting {
        struct waiting *prev, *next;
        struct rpc_session *session;
        struct rpc_call *call;
        struct ticket *ticket;
        void (*forget)(struct waiting *waiting); /* frees it; its call is answered, or gone */
};

void waiting_begin(struct waiting *waiting, struct connection *connection, struct rpc_call *call, struct ticket *ticket,
                   void (*forget)(struct waiting *waiting));
/* Before its call is answered by whoever began it. */
void waiting_end(struct waiting *waiting);

/* A new one for this connection, which leaves the one that it had. */
int session_open_for(struct connection *connection, struct failure *failure);
/* unknown_handle when there is none with that token, or it belongs to somebody else. */
int session_resume(struct connection *connection, const char *token, struct failure *failure);
/* The connection's, opened now if it never had one. gone: it had one that has been ended by somebody else. */
int session_need(struct connection *connection, struct session **ret, struct failure *failure);
const char *session_token(const struct connection *connection);
/* session_id() of the core's session that the connection has; 0 if it has none. */
uint32_t session_number(const struct connection *connection);
/* The connection leaves; the last one starts the grace time. */
void session_detach(struct connection *connection);
/* It ends now: what waits is refused, what it holds is freed. */
void session_end(struct rpc_session *session);
void session_end_all(struct server *server);
void session_end_owner(struct server *server, const char *owner);
/* Those of which session_is_user() is true. */
void session_end_users(struct server *server);
/* Refuse what waits, in every session: the daemon ends. */
void session_refuse_all(struct server *server);
/* The sessions that the broker has read from its ledger. 0 or -ENOMEM: not all of them, and none is ended for that. */
int session_restore_all(struct server *server);
/* Connections are accepted from now on: each waits for its client as if that had just gone. */
void session_wait_for_all(struct server *server);
/* The same without a word, and without an end to what they hold: the next daemon has them. */
void session_forget_all(struct server *server);
size_t session_count(const struct server *server);

/* The grace time changed, or the daemon begins to watch over it. */
void session_on_grace_timer(uv_timer_t *timer);

#endif
