/* The broker on the loop: which sources serve it, their completions, and its clock. */
#ifndef DMAB_DAEMON_MEMORY_H
#define DMAB_DAEMON_MEMORY_H

#include <uv.h>

#include "daemon/config.h"
#include "daemon/core/broker.h"
#include "daemon/rpc/server.h"

struct keep;
struct ledger;

struct memory;

/* What outlives the daemon: keep NULL: nothing does. Both must outlive the memory. */
struct memory_past {
        struct keep *keep;
        struct ledger *ledger;
};

/* Opens the sources that --source (names; NULL: none given) or the configuration asks for; if neither does, hugetlb
 * where that works and the simulation where not. Which, and why, is logged and kept for broker.status. settled() is
 * called once, from the loop, when the memory that the sources shall hold from the start has arrived. *ret is set also on
 * failure, if there was memory for it: its handles must be closed before it is freed. */
int memory_new(uv_loop_t *loop, const struct config *config, const char *names, const struct memory_past *past,
               void (*settled)(void *userdata), void *userdata, struct memory **ret, struct failure *failure);
struct broker *memory_broker(const struct memory *memory);
const struct server_facts *memory_facts(const struct memory *memory);
/* What a new configuration changes. */
void memory_reconfigure(struct memory *memory, const struct config *old, const struct config *new);
/* Starts closing the handles; the broker is untouched, but not served any more. */
void memory_close_handles(struct memory *memory);
/* After the loop has run the close callbacks. Gives all memory back, which may take its time; leave: nothing of it, the next
 * daemon has it. NULL is fine. */
struct memory *memory_free(struct memory *memory, bool leave);

#endif
