#include "daemon/rpc/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "daemon/rpc/session.h"

/* So many are remembered for whoever asks what it has missed. */
enum { EVENTS_MAX = 256 };

/* What the core's words are on the wire, one by one: neither side's order matters. */
static const enum protocol_topic topics[] = {
        [EVENT_RECALL] = PROTOCOL_RECALL,
        [EVENT_PRESSURE] = PROTOCOL_PRESSURE,
        [EVENT_LEAK] = PROTOCOL_LEAK,
};

static const enum protocol_pressure levels[] = {
        [PRESSURE_REQUESTS] = PROTOCOL_PRESSURE_REQUESTS,
        [PRESSURE_HOST] = PROTOCOL_PRESSURE_HOST,
};

enum protocol_pressure events_level(enum pressure_level level) {
        return levels[level];
}

struct remembered {
        struct event_info info;
        uint32_t session; /* that is asked to do something */
        char owner[64], name[136];
};

struct events {
        uint64_t last;
        struct connection *subscribers;
        struct remembered ring[EVENTS_MAX]; /* by number */
};

static struct remembered *slot_of(struct events *events, uint64_t number) {
        return &events->ring[number % EVENTS_MAX];
}

/* The strings are copied: the core's live for this call only. */
static void take_down(struct remembered *remembered, const struct event *event, uint64_t number) {
        struct event_info *info = &remembered->info;

        memset(remembered, 0, sizeof(*remembered));
        remembered->session = event->session ? session_id(event->session) : 0;
        info->topic = topics[event->topic];
        info->event = number;
        if (event->owner) {
                snprintf(remembered->owner, sizeof(remembered->owner), "%s", event->owner);
                schema_put(info, owner, remembered->owner);
        }
        if (event->device)
                schema_put(info, device, event->device);
        if (event->pool)
                schema_put(info, pool, event->pool);
        if (event->bounce)
                schema_put(info, bounce, event->bounce);
        if (event->grant)
                schema_put(info, grant, event->grant);
        if (event->name) {
                snprintf(remembered->name, sizeof(remembered->name), "%s", event->name);
                schema_put(info, name, remembered->name);
        }
        if (event->bytes)
                schema_put(info, bytes, event->bytes);
        if (event->count)
                schema_put(info, count, event->count);
        if (event->topic == EVENT_PRESSURE) {
                schema_put(info, over, event->over);
                schema_put(info, level, levels[event->level]);
        }
}

static bool is_for(const struct remembered *remembered, const struct connection *connection) {
        if (!(connection->topics & 1u << remembered->info.topic))
                return false;
        if (remembered->info.topic == PROTOCOL_RECALL)
                return remembered->session == session_number(connection);
        return !*remembered->owner || connection->identity.admin ||
               strcmp(remembered->owner, connection->identity.owner) == 0;
}

/* The queue is not for what nobody asked for: where no more requests are read, no more events are told. */
static void tell(struct connection *connection, const struct remembered *remembered) {
        struct event_info info = remembered->info;

        if (connection->events_missed)
                schema_put(&info, missed, connection->events_missed);
        if (connection->queued < connection->server->settings.queue_pause_bytes &&
            rpc_peer_notify(&connection->peer, PROTOCOL_EVENT, &event_info_struct, &info) == 0)
                connection->events_missed = 0;
        else
                connection->events_missed++;
}

/* Called from within the core. What is told is queued, and leaves with the next flush. */
static void on_event(void *userdata, const struct event *event) {
        struct events *events = userdata;
        struct remembered *remembered = slot_of(events, ++events->last);
        struct connection *connection;

        take_down(remembered, event, events->last);
        DL_FOREACH2(events->subscribers, connection, events_next)
                if (is_for(remembered, connection))
                        tell(connection, remembered);
}

static struct remembered *begin_event(struct events *events, enum protocol_topic topic) {
        struct remembered *remembered = slot_of(events, ++events->last);

        memset(remembered, 0, sizeof(*remembered));
        remembered->info.topic = topic;
        remembered->info.event = events->last;
        return remembered;
}

static void tell_all(const struct events *events, const struct remembered *remembered) {
        struct connection *connection;

        DL_FOREACH2(events->subscribers, connection, events_next)
                if (is_for(remembered, connection))
                        tell(connection, remembered);
}

void events_tell_guest(struct server *server, const char *owner, const char *name, enum protocol_guest_change change) {
        struct remembered *remembered = begin_event(server->events, PROTOCOL_GUESTS);

        snprintf(remembered->owner, sizeof(remembered->owner), "%s", owner);
        schema_put(&remembered->info, owner, remembered->owner);
        snprintf(remembered->name, sizeof(remembered->name), "%s", name);
        schema_put(&remembered->info, name, remembered->name);
        schema_put(&remembered->info, change, change);
        tell_all(server->events, remembered);
}

void events_tell_filling(struct server *server, uint32_t domain, uint64_t granted, bool is_over) {
        struct remembered *remembered = begin_event(server->events, PROTOCOL_PRESSURE);

        snprintf(remembered->name, sizeof(remembered->name), "domain %u", (unsigned)domain);
        schema_put(&remembered->info, name, remembered->name);
        schema_put(&remembered->info, level, PROTOCOL_PRESSURE_GRANTS);
        schema_put(&remembered->info, over, is_over);
        schema_put(&remembered->info, count, granted);
        tell_all(server->events, remembered);
}

int events_new(struct server *server, struct events **ret) {
        struct events *events = calloc(1, sizeof(*events));

        if (!events)
                return -ENOMEM;
        broker_listen(server->broker, on_event, events);
        *ret = events;
        return 0;
}

struct events *events_free(struct events *events) {
        free(events);
        return NULL;
}

void events_subscribe(struct connection *connection, unsigned wanted) {
        struct events *events = connection->server->events;

        if (wanted && !connection->topics)
                DL_APPEND2(events->subscribers, connection, events_prev, events_next);
        else if (!wanted && connection->topics)
                DL_DELETE2(events->subscribers, connection, events_prev, events_next);
        connection->topics = wanted;
        if (!wanted)
                connection->events_missed = 0;
}

uint64_t events_last(const struct events *events) {
        return events->last;
}

uint64_t events_visit(const struct connection *connection, uint64_t since, event_visit_fn visit, void *userdata) {
        struct events *events = connection->server->events;
        uint64_t first = events->last < EVENTS_MAX ? 1 : events->last - EVENTS_MAX + 1, start;

        /* The caller counts on: that was another daemon. */
        if (since > events->last)
                since = 0;
        start = since + 1 > first ? since + 1 : first;
        for (uint64_t number = start; number <= events->last; number++)
                if (is_for(slot_of(events, number), connection))
                        visit(&slot_of(events, number)->info, userdata);
        return start - since - 1;
}
