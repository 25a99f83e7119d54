/* events.subscribe, events.unsubscribe */
#include "daemon/rpc/events.h"
#include "daemon/rpc/method.h"

static unsigned bits_of(const enum protocol_topic *topics, size_t n) {
        unsigned bits = 0;

        for (size_t i = 0; i < n; i++)
                bits |= 1u << topics[i];
        return bits;
}

static size_t list_of(unsigned bits, enum protocol_topic ret[PROTOCOL_TOPICS]) {
        size_t n = 0;

        for (int topic = 0; topic < PROTOCOL_TOPICS; topic++)
                if (bits & 1u << topic)
                        ret[n++] = topic;
        return n;
}

static void add_event(const struct event_info *event, void *userdata) {
        struct event_info *row = method_list_add(userdata);

        if (row)
                *row = *event;
}

void method_events_subscribe(struct rpc_call *call, const void *given) {
        const struct events_subscribe_params *params = given;
        struct connection *connection = method_connection(call);
        struct method_list pending = { .size = sizeof(struct event_info), .limit = SIZE_MAX };
        struct events_subscribe_result result = { 0 };
        enum protocol_topic topics[PROTOCOL_TOPICS];
        unsigned before = connection->topics;
        enum pressure_level level;
        struct caller caller;
        uint64_t missed = 0;

        /* What a session is asked to do can only be told to a connection that has one. */
        if (!method_caller(call, &caller))
                return;
        events_subscribe(connection, before | bits_of(params->topics.items, params->topics.count));
        if (schema_has(params, since))
                missed = events_visit(connection, params->since, add_event, &pending);
        if (method_list_failed(&pending, call)) {
                events_subscribe(connection, before);
                return;
        }
        result.topics.items = topics;
        result.topics.count = list_of(connection->topics, topics);
        result.event = events_last(connection->server->events);
        result.pressure = broker_pressure(connection->server->broker, &level);
        if (result.pressure)
                schema_put(&result, level, events_level(level));
        result.pending.items = pending.items;
        result.pending.count = pending.count;
        if (missed)
                schema_put(&result, missed, missed);
        rpc_call_reply(call, &result);
        free(pending.items);
}

void method_events_unsubscribe(struct rpc_call *call, const void *given) {
        const struct events_unsubscribe_params *params = given;
        struct connection *connection = method_connection(call);
        struct events_unsubscribe_result result = { 0 };
        enum protocol_topic topics[PROTOCOL_TOPICS];
        unsigned unwanted = ~0u;

        if (schema_has(params, topics))
                unwanted = bits_of(params->topics.items, params->topics.count);
        events_subscribe(connection, connection->topics & ~unwanted);
        result.topics.items = topics;
        result.topics.count = list_of(connection->topics, topics);
        rpc_call_reply(call, &result);
}
