/* The metrics over HTTP, for whoever can reach the address: GET /metrics and nothing else.
 *
 * libmicrohttpd works on the loop's thread, without threads of its own, and only ever for a moment at a time: it has few
 * connections, each is answered once and closed, and between two looks at them there are some milliseconds in which the
 * loop serves others. However many ask, the page is made at most once for every look. */
#ifndef DMAB_METRICS_HTTP_H
#define DMAB_METRICS_HTTP_H

#include <stddef.h>
#include <uv.h>

#include "daemon/core/failure.h"
#include "daemon/rpc/server.h"

struct metrics;

/* listen_at: as in the configuration, not off. server is borrowed until metrics_close(). -errno with a sentence. */
int metrics_new(uv_loop_t *loop, const struct server *server, const char *listen_at, size_t owners_max,
                struct metrics **ret, struct failure *failure);
void metrics_set_owners_max(struct metrics *metrics, size_t owners_max);
/* Hangs up; frees itself when its handles are closed. NULL is fine. */
void metrics_close(struct metrics *metrics);

#endif
