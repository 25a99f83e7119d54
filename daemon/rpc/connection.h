/* One peer on a socket: bytes in, answers out.
 *
 * The happy path: the socket is readable, one read is taken, each line in it is dispatched, and the answers leave in one
 * write. What can go wrong: a peer that does not read its answers is not read from any more; when it goes on not reading,
 * or its answers grow beyond the limit, it is cut off. A peer that sends requests without pause takes turns with the others,
 * and one that gets nothing but errors for them is held back for a while. A peer that has closed its sending side gets the
 * answers to what it asked, and is then closed. Closing is asynchronous: the struct lives until its handle's close callback. */
#ifndef DMAB_RPC_CONNECTION_H
#define DMAB_RPC_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "daemon/rpc/server.h"
#include "proto/frame.h"

/* What the requests that are left wait for; with a list of the server's for each. */
enum connection_wait {
        WAIT_NONE,
        WAIT_TURN, /* others have theirs */
        WAIT_HELD, /* its user gets errors without end, and others ask for something */
};

struct connection {
        struct server *server;
        struct connection *prev, *next; /* in server->connections */
        struct connection *dirty_prev, *dirty_next, *stalled_prev, *stalled_next, *session_prev, *session_next;
        struct connection *events_prev, *events_next, *wait_prev, *wait_next;
        bool is_dirty, is_stalled;
        enum connection_wait wait;

        int fd;
        uv_poll_t poll;
        int polled; /* events asked for */
        struct rpc_peer peer;
        struct frame_reader reader;
        struct identity identity;
        struct principal *principal;
        struct rpc_session *session; /* or NULL: none yet, or it has ended */
        bool session_ended;          /* by somebody else; must be told before a new one is opened */

        unsigned topics;        /* of events that it wants to be told, bits by enum protocol_topic */
        uint64_t events_missed; /* since the last one that it was told */

        struct chunk *head, *tail; /* answers not written yet */
        size_t queued;             /* bytes of these, and a charge for each descriptor */
        size_t queued_fds;
        uint64_t progress_ms;      /* when the peer last read something */
        char *rest;                /* bytes read, but not dispatched: too many answers are queued, or see `wait` */
        size_t rest_used, rest_size;
        bool awaits_reset; /* a guest's: what comes before is another program's, or half of it */
        bool skip_line; /* its end belongs to a message that came with descriptors */
        const char *cut; /* why an answer had to be thrown away; it is cut off at the next flush */
        bool eof, last_words, closing;
};

/* Consumes fd, also on failure. */
int connection_new(struct server *server, int fd, const struct identity *identity, struct principal *principal);
/* Everything waiting is cancelled, nothing is sent any more. Safe from anywhere, also twice. */
void connection_close(struct connection *connection);
/* The same, told to the administrator. */
void connection_cut_off(struct connection *connection, const char *why);
/* Read no more; close when the answers are written. */
void connection_finish(struct connection *connection);
/* Go on with the requests that were left when its last turn was over. */
void connection_take_turn(struct connection *connection);
/* Wait for its turn again. */
void connection_let_go(struct connection *connection);
/* Write what is queued as far as the peer takes it. */
void connection_flush(struct connection *connection);

#endif
