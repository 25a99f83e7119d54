/* The first words on a connection: who one is, which session one wants, and what the daemon says to that. */
#ifndef DMAB_CLIENT_HELLO_H
#define DMAB_CLIENT_HELLO_H

#include <jansson.h>
#include <stdint.h>

#include "client/channel.h"

struct link_limits {
        uint64_t message_bytes, nesting, calls_in_flight, wait_ms;
};

/* What the daemon says. The strings are of `result`, which is the caller's to json_decref(). */
struct hello {
        json_t *result;
        const char *session, *owner, *role, *version;
        struct link_limits limits;
};

/* session: the token of the one to resume; NULL: open one. path: of the socket, for sentences. Waits for the answer until
 * deadline_ms (clock.h). -ESTALE, reason gone: the daemon does not know that session; else as dmab_connect(). With a
 * sentence. */
int hello_say(struct channel *channel, const char *path, const char *session, uint64_t deadline_ms, struct hello *ret);

#endif
