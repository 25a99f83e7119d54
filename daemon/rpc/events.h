/* Events: what the core tells, numbered, remembered for a while, and passed on to the connections that want to know.
 *
 * Each is told what concerns itself: a session what that session is asked to do, an owner what is its own, an administrator
 * everything but other sessions' recalls. Nobody is waited for: an event is not told to a connection that does not read
 * what it was told before, and the next one says how many it has missed. */
#ifndef DMAB_RPC_EVENTS_H
#define DMAB_RPC_EVENTS_H

#include "daemon/rpc/connection.h"

/* From now on the broker's events are taken down. -ENOMEM. */
int events_new(struct server *server, struct events **ret);
/* After the broker has ended: until then it may have something to tell. NULL is fine. */
struct events *events_free(struct events *events);

/* Of a guest, which the core does not know as such. */
void events_tell_guest(struct server *server, const char *owner, const char *name, enum protocol_guest_change change);

/* The grant table of a memory domain of Xen's is nearly full, with so many pages granted, or is not any more. */
void events_tell_filling(struct server *server, uint32_t domain, uint64_t granted, bool is_over);

/* topics: bits by enum protocol_topic, the new whole of them. */
void events_subscribe(struct connection *connection, unsigned topics);

/* The core's word on the wire. */
enum protocol_pressure events_level(enum pressure_level level);

/* The number of the last event, 0 before the first. */
uint64_t events_last(const struct events *events);
/* Those after `since` that this connection may be told of and that its topics are about, as struct event_info; what they
 * point to lives until the next event. Returns the number of all those that are forgotten. */
typedef void (*event_visit_fn)(const struct event_info *event, void *userdata);
uint64_t events_visit(const struct connection *connection, uint64_t since, event_visit_fn visit, void *userdata);

#endif
