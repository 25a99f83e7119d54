/* A session's calls: numbers them, gives every thread the reply that is its own, and keeps the session alive over lost
 * connections.
 *
 * No thread of its own. Of the threads that wait for replies, one is the reader: it takes what comes from the socket,
 * hands replies to those they belong to, and passes the role on when its own has come. */
#ifndef DMAB_CLIENT_LINK_H
#define DMAB_CLIENT_LINK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/channel.h"
#include "client/hello.h"

struct address;
struct link;

/* What becomes of a call when the connection is lost before the answer to it came. */
enum link_repeat {
        LINK_ONCE,    /* it fails: whether it was carried out is not known */
        LINK_AGAIN,   /* it is made again: it changes nothing, or nothing more the second time */
        LINK_KEYED,   /* it is made again as it is, and its request_key gets it the answer that was lost */
        LINK_RELEASE, /* it is made again: that what it gives back, by a number that is never used again, is not there any
                       * more is success then, and its result an empty object; also when its owner calls too often, which
                       * must not lose it */
};

struct link_request {
        const char *method;  /* needs no escaping in JSON */
        const char *params;  /* a JSON object without LF; NULL: none */
        enum link_repeat repeat;
        unsigned timeout_ms; /* give up waiting for the reply; the connection is then lost. 0: never */
};

struct link_reply {
        json_t *result;           /* the caller's */
        int fds[CHANNEL_FDS_MAX]; /* the caller's; close-on-exec */
        size_t n_fds;
        bool lost; /* also on failure: it was sent before, and the answer to that has not come */
};

/* Called by whoever makes a call: with the locks that are held for calls. */
struct link_events {
        /* A call finds that the session is over; perhaps again. */
        void (*over)(void *userdata);
        /* The daemon cannot give memory to this guest because it does not know where the guest sees a window. 0: it has been
         * told, the call is made again; -errno with a sentence. It may make calls itself. */
        int (*unbound)(void *userdata);
        /* Of windows that the daemon believes to know of: whether the guest sees them there. Positive: they could not be looked
         * at. -errno with a sentence: nothing may be taken before it has been told. It may make calls itself. */
        int (*distrusted)(void *userdata);
};

/* Connect to the daemon at address, which is borrowed, as is events, and open a session. Errors as dmab_connect(), with a
 * sentence. timeout_ms: as link_set_timeout(). */
int link_open(const struct address *address, unsigned timeout_ms, const struct link_events *events, void *userdata,
              struct link **ret);

/* End the session (unless it is gone already) and free the link. No call may be under way. */
void link_close(struct link *link);

/* Free the link in the child of a fork, leaving the session to the parent. */
void link_abandon(struct link *link);

/* Call and wait, over lost connections as long as link_set_timeout() says. On success *ret is the caller's to release
 * (link_reply_release()). On failure the thread's last error is set. -ECONNRESET, with the reason gone: it was sent, but no
 * answer came, and whether it was carried out is not known. -ESTALE but not link_is_over(): only what it is about has ended. */
int link_call(struct link *link, const struct link_request *request, struct link_reply *ret);

/* Is it not known whether a call that returned r was carried out? What was to be given back is then taken for gone: it may be
 * somebody else's already. If it is not, it goes back with the session. */
bool link_is_unknown(int r);

/* Can descriptors come with answers? Not in a guest, where they must not be asked for: memory lies in windows there. */
bool link_takes_fds(const struct link *link);

/* A window is not where the daemon believes: `distrusted` is called before anything else is taken, by whatever thread. So it is
 * before anything is taken at all: it may be the word of a program that lied, or of another boot. */
void link_distrust_windows(struct link *link);

/* One more connection to the link's session, in one attempt: *ret is the caller's, who hears of events by it, and must read it
 * as long as it lives. -ESTALE: the daemon no longer knows the session. With a sentence. */
int link_join(struct link *link, struct channel **ret);
/* For such a connection: send a request, and judge a reply. -errno as channel_send(); with a sentence, and message and
 * descriptors consumed. */
int link_send(struct channel *channel, uint64_t id, const char *method, const char *params);
int link_judge(json_t *message, const int *fds, size_t n_fds, struct link_reply *ret);

/* Drop the result and close the descriptors. */
void link_reply_release(struct link_reply *reply);

/* The session is over by the caller's own wish: every later call answers -ESTALE. */
void link_end(struct link *link);
/* Is it over, by that or because the daemon no longer knows it? */
bool link_is_over(struct link *link);

/* How long a lost connection is tried again, from when it was found to be lost. Calls wait so long; later ones try once. */
void link_set_timeout(struct link *link, unsigned timeout_ms);

/* The end is near: calls that are under way try no more, and later ones once. */
void link_hurry(struct link *link);

/* A key that no other taking call of this owner has: "0123456789abcdef-1". */
enum { LINK_KEY_SIZE = 40 };
void link_make_key(struct link *link, char key[LINK_KEY_SIZE]);

/* What broker.hello said last. */
struct link_limits link_limits(struct link *link);

/* What it said first. Lives as long as the link. */
const char *link_session(const struct link *link);
const char *link_owner(const struct link *link);
const char *link_role(const struct link *link);
const char *link_server_version(const struct link *link);

#endif
