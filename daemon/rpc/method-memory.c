/* memory.release */
#include <stdlib.h>

#include "daemon/log.h"
#include "daemon/rpc/method.h"
#include "daemon/rpc/pending.h"

enum { WAIT_MS_DEFAULT = 1000 };

static int add_held(const struct source_view *view, void *userdata) {
        *(uint64_t *)userdata += view->total;
        return 0;
}

static void answer(struct pending *pending, uint64_t bytes) {
        const struct connection *connection = method_connection(pending->call);
        struct memory_release_result result = { .released = bytes };

        broker_visit_sources(connection->server->broker, add_held, &result.held);
        log_info("administrator %s (pid %ld): memory.release gave %llu bytes back to the system, %llu are left",
                 connection->identity.owner, (long)connection->identity.pid, (unsigned long long)bytes,
                 (unsigned long long)result.held);
        rpc_call_reply(pending->call, &result);
}

void method_memory_release(struct rpc_call *call, const void *given) {
        const struct memory_release_params *params = given;
        struct pending *pending = pending_new(call, sizeof(*pending), answer);
        uint64_t wait_ms;

        if (!pending)
                return;
        wait_ms = schema_has(params, wait_ms) ? params->wait_ms : WAIT_MS_DEFAULT;
        pending_wait(pending, memory_release(&pending->caller, schema_has(params, bytes) ? params->bytes : 0, wait_ms,
                                             pending_done, pending));
}
