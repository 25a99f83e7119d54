/* dmab_call(): any method of the protocol, with JSON for its parameters and its result. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/error.h"
#include "client/session.h"
#include "proto/methods.h"

/* What may be done twice. Methods that are not here are not made again, unless they take something: those have a key.
 *
 * pool.free must not be: it names blocks by their addresses, and another thread may have been given the same ones between
 * the first time and the second. What is given back by a number is safe, since no number is used twice. Swapping needs no key:
 * what is out, or in, already is answered with where it is. */
static enum link_repeat repeat_of(const struct schema_method *method) {
        static const enum link_repeat repeats[METHOD_COUNT] = {
                [METHOD_broker_hello] = LINK_AGAIN,       [METHOD_broker_ping] = LINK_AGAIN,
                [METHOD_broker_status] = LINK_AGAIN,      [METHOD_rpc_discover] = LINK_AGAIN,
                [METHOD_device_list] = LINK_AGAIN,        [METHOD_device_get] = LINK_AGAIN,
                [METHOD_device_set_mask] = LINK_AGAIN,
                [METHOD_device_supported] = LINK_AGAIN,   [METHOD_device_close] = LINK_RELEASE,
                [METHOD_device_unreserve] = LINK_RELEASE, [METHOD_coherent_free] = LINK_RELEASE,
                [METHOD_coherent_swap_out] = LINK_KEYED,  [METHOD_coherent_swap_in] = LINK_KEYED,
                [METHOD_coherent_list] = LINK_AGAIN,      [METHOD_coherent_lookup] = LINK_AGAIN,
                [METHOD_pool_return] = LINK_RELEASE,      [METHOD_pool_destroy] = LINK_RELEASE,
                [METHOD_pool_trim] = LINK_AGAIN,          [METHOD_pool_list] = LINK_AGAIN,
                [METHOD_pool_stats] = LINK_AGAIN,         [METHOD_bounce_unmap] = LINK_RELEASE,
                [METHOD_bounce_sync] = LINK_AGAIN,        [METHOD_bounce_return] = LINK_RELEASE,
                [METHOD_bounce_destroy] = LINK_RELEASE,   [METHOD_bounce_stats] = LINK_AGAIN,
                [METHOD_bounce_list] = LINK_AGAIN,        [METHOD_mapping_unmap] = LINK_RELEASE,
                [METHOD_mapping_list] = LINK_AGAIN,       [METHOD_lease_list] = LINK_AGAIN,
                [METHOD_region_list] = LINK_AGAIN,        [METHOD_region_get] = LINK_AGAIN,
                [METHOD_quarantine_list] = LINK_AGAIN,
                [METHOD_grant_list] = LINK_AGAIN,         [METHOD_grant_unmap] = LINK_RELEASE,
                [METHOD_quota_get] = LINK_AGAIN,          [METHOD_quota_set] = LINK_AGAIN,
                [METHOD_stats_get] = LINK_AGAIN,          [METHOD_stats_reset] = LINK_AGAIN,
                [METHOD_events_subscribe] = LINK_AGAIN,   [METHOD_events_unsubscribe] = LINK_AGAIN,
                [METHOD_debug_check] = LINK_AGAIN,
        };

        return !method ? LINK_ONCE : method->takes ? LINK_KEYED : repeats[method->id];
}

/* The name goes into JSON as it is. */
static int check_method(const char *method) {
        size_t length =
                method ? strspn(method, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") : 0;

        if (!length || length > 64 || method[length])
                return error_set(ENOSYS, "no method has a name like this one: it must be letters, digits, \".\" and "
                                         "\"_\", at most 64");
        return 0;
}

static int nesting_of(const json_t *value, unsigned limit) {
        const char *key;
        json_t *member;
        size_t i;
        int deepest = 0, n;

        if (!json_is_object(value) && !json_is_array(value))
                return 0;
        if (!limit)
                return 1;
        if (json_is_array(value)) {
                json_array_foreach(value, i, member) {
                        n = nesting_of(member, limit - 1);
                        deepest = n > deepest ? n : deepest;
                }
        } else {
                json_object_foreach((json_t *)value, key, member) {
                        n = nesting_of(member, limit - 1);
                        deepest = n > deepest ? n : deepest;
                }
        }
        return deepest + 1;
}

/* Messages beyond the daemon's limits are answered without an id: they must not be sent. */
static int check_limits(struct dmab *dmab, json_t *params, const char *text) {
        const struct link_limits limits = link_limits(dmab->link);

        if (strlen(text) + 256 > limits.message_bytes)
                return error_set(E2BIG,
                                 "the parameters have %zu bytes, too many for the %llu of a message "
                                 "to this daemon",
                                 strlen(text), (unsigned long long)limits.message_bytes);
        if ((uint64_t)nesting_of(params, limits.nesting) + 1 > limits.nesting)
                return error_set(E2BIG, "the parameters are nested too deeply; this daemon takes %llu levels",
                                 (unsigned long long)limits.nesting);
        return 0;
}

static int put_string(json_t *object, const char *name, const char *value) {
        return json_object_set_new(object, name, json_string(value)) ? error_set(ENOMEM, "there is not enough memory")
                                                                     : 0;
}

static int make_params(struct dmab *dmab, const struct schema_method *method, const char *given, char **ret) {
        json_error_t error;
        json_t *params = json_loads(given ? given : "{}", JSON_REJECT_DUPLICATES, &error);
        char key[LINK_KEY_SIZE], *text = NULL;
        int r = 0;

        if (!params)
                return error_set(EINVAL, "the parameters are not JSON: %s at line %d, column %d", error.text,
                                 error.line, error.column);
        if (!json_is_object(params))
                r = error_set(EINVAL, "the parameters must be a JSON object, such as {\"device\": 1}");
        if (!r && method && method->takes && !json_object_get(params, "request_key")) {
                link_make_key(dmab->link, key);
                r = put_string(params, "request_key", key);
        }
        /* Another session would take the place of this one, of which the connection would then know nothing. */
        if (!r && method && method->id == METHOD_broker_hello)
                r = put_string(params, "session", link_session(dmab->link));
        if (!r) {
                text = json_dumps(params, JSON_COMPACT);
                r = text ? check_limits(dmab, params, text) : error_set(ENOMEM, "there is not enough memory");
        }
        json_decref(params);
        if (r) {
                free(text);
                return r;
        }
        *ret = text;
        return 0;
}

/* The answer to the first of two releases was lost with what it would have told: there is nothing to be told now. */
static void fill_result(const struct schema_method *method, json_t *result) {
        for (size_t i = 0; i < method->results->n_fields; i++) {
                const struct schema_field *field = &method->results->fields[i];

                json_object_set_new(result, field->name,
                                    field->array ? json_array() : json_boolean(!strcmp(field->name, "ok")));
        }
}

static int take_result(const struct link_reply *reply, char **ret_json) {
        char *text = json_dumps(reply->result, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

        if (!text)
                return error_set(ENOMEM, "there is not enough memory");
        *ret_json = text;
        return 0;
}

int dmab_call_fds(dmab_t *dmab, const char *method, const char *params_json, char **ret_result_json, int *ret_fds,
                  size_t max_fds, size_t *ret_n_fds) {
        const struct schema_method *known;
        struct link_reply reply = { 0 };
        struct link_request request = { .method = method };
        char *params = NULL;
        int r = session_check(dmab);

        if (!r)
                r = check_method(method);
        if (r)
                return r;
        known = schema_method_find(&protocol_table, method);
        request.repeat = repeat_of(known);
        if (params_json || (known && (known->takes || known->id == METHOD_broker_hello))) {
                r = make_params(dmab, known, params_json, &params);
                if (r)
                        return r;
        }
        request.params = params;
        r = link_call(dmab->link, &request, &reply);
        free(params);
        if (!r && request.repeat == LINK_RELEASE && json_is_object(reply.result) && !json_object_size(reply.result))
                fill_result(known, reply.result);
        if (!r && known && known->id == METHOD_broker_bye)
                link_end(dmab->link);
        if (!r && reply.n_fds > max_fds)
                r = error_set(E2BIG, "%zu file descriptors came with the answer to %s, and there is room for %zu",
                              reply.n_fds, method, max_fds);
        if (!r && ret_result_json)
                r = take_result(&reply, ret_result_json);
        if (!r && reply.n_fds)
                memcpy(ret_fds, reply.fds, reply.n_fds * sizeof(int));
        if (!r) {
                *ret_n_fds = reply.n_fds;
                reply.n_fds = 0;
        }
        link_reply_release(&reply);
        return r;
}

int dmab_call(dmab_t *dmab, const char *method, const char *params_json, char **ret_result_json) {
        int fds[CHANNEL_FDS_MAX];
        size_t n_fds = 0;
        int r = dmab_call_fds(dmab, method, params_json, ret_result_json, fds, CHANNEL_FDS_MAX, &n_fds);

        for (size_t i = 0; i < n_fds; i++)
                close(fds[i]);
        return r;
}
