/* The agent: a thread of the library with a connection of its own to the same session. It hears when the daemon wants leases
 * or windows back, and makes calls that take long on behalf of threads that wait for something else as well. It is started by
 * the first who needs it; programs that have neither have no such thread.
 *
 * A lost connection is made again for as long as the session lives; what was asked is asked again, with its key, and what was
 * told meanwhile is told now. */
#ifndef DMAB_CLIENT_AGENT_H
#define DMAB_CLIENT_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/link.h"
#include "client/params.h"

struct agent;
struct dmab;

/* Whoever may be asked to give leases back. The caller's memory. */
struct watch {
        const char *kind; /* "pool" or "bounce": the member of the event that has its number */
        uint64_t number; /* the agent's */
        /* Called by the agent, which may make calls to the daemon but holds up everybody else meanwhile. */
        void (*recalled)(struct watch *watch, uint64_t bytes);
        bool on; /* the agent's */
        TAILQ_ENTRY(watch) entry;
};

/* A call that the agent makes. The caller's memory, until it is done or agent_cancel() has returned. */
struct agent_call {
        const char *method;
        struct params params; /* with a request_key */
        /* Called by the agent once. status 0: *reply is borrowed, but the callee may take descriptors from it; else the
         * agent's last error has the sentence. */
        void (*done)(struct agent_call *call, int status, struct link_reply *reply);
        /* The agent's: */
        uint64_t id;
        bool sent;
        bool repeated; /* it was sent before, over a connection that was lost */
        bool refused;  /* with the reason gone, over this connection: perhaps by a daemon that ends */
        TAILQ_ENTRY(agent_call) entry;
};

/* Start the agent of a session unless it runs. -errno with a sentence. */
int agent_start(struct dmab *dmab);

/* End it: no callback runs any more, and none will. The child of a fork has no agent: only forget it. NULL is fine. */
void agent_stop(struct agent *agent);
void agent_abandon(struct agent *agent);

/* Not with a lock held that `recalled` or `done` takes: both wait for a callback that is running, unless it is the caller. The
 * agent must have been started for all of these. */
void agent_watch(struct agent *agent, struct watch *watch, uint64_t number);
void agent_unwatch(struct agent *agent, struct watch *watch);

/* Any lock may be held. */
void agent_ask(struct agent *agent, struct agent_call *call);

/* Give up a call. The daemon is told by hanging up, since it may be waiting on our behalf; true then. */
bool agent_cancel(struct agent *agent, struct agent_call *call);

#endif
