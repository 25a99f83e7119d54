/* Pages of a guest of Xen's, exchanged for others in one piece. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/result.h"
#include "client/session.h"
#include "proto/methods.h"

enum { MESSAGE_REST = 256 }; /* of a message, beside the parameters */

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

static json_t *hex(uint64_t value) {
        char text[24];

        snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
        return json_string(text);
}

static int add_list(json_t *params, const char *name, const uint64_t *values, size_t n) {
        json_t *list = json_array();
        int r = json_object_set_new(params, name, list);

        for (size_t i = 0; i < n && !r; i++)
                r = json_array_append_new(list, hex(values[i]));
        return r ? no_memory() : 0;
}

static int make_params(const uint64_t *frames, size_t n, unsigned order, const struct dmab_exchange_options *options,
                       char **ret) {
        json_t *params = json_object();
        int r = params ? 0 : no_memory();

        if (!r && options->guest && json_object_set_new(params, "guest", json_string(options->guest)))
                r = error_set(EINVAL, "the name of a guest must be UTF-8");
        if (!r)
                r = add_list(params, "frames", frames, n);
        if (!r && (json_object_set_new(params, "order", json_integer(order)) ||
                   (options->mask && json_object_set_new(params, "mask", hex(options->mask))) ||
                   (options->given_up && json_object_set_new(params, "given_up", json_true()))))
                r = no_memory();
        if (!r && options->pfns)
                r = add_list(params, "pfns", options->pfns, n >> order);
        if (!r) {
                *ret = json_dumps(params, JSON_COMPACT);
                r = *ret ? 0 : no_memory();
        }
        json_decref(params);
        return r;
}

static int take(json_t *result, size_t n_pieces, uint64_t *ret_frames, size_t *ret_n) {
        json_t *frames = json_object_get(result, "frames"), *frame;
        uint64_t value;
        size_t i;

        if (!json_is_array(frames) || json_array_size(frames) > n_pieces)
                return error_set(EPROTO, "the daemon's answer has no usable \"frames\"");
        json_array_foreach(frames, i, frame) {
                json_t *named = json_pack("{s:O}", "frames", frame);
                int r = named ? result_hex(named, "frames", &value) : no_memory();

                json_decref(named);
                if (r)
                        return r;
                ret_frames[i] = value;
        }
        *ret_n = json_array_size(frames);
        return 0;
}

/* More than the daemon takes is told apart here, and not sent: messages have an end. */
static int check(const uint64_t *frames, size_t n, unsigned order) {
        if (n > PROTOCOL_EXCHANGE_MAX || order > PROTOCOL_EXCHANGE_ORDER_MAX)
                return error_set(E2BIG, "at most %d frames are exchanged at a time, for pieces of an order of at most %d",
                                 PROTOCOL_EXCHANGE_MAX, PROTOCOL_EXCHANGE_ORDER_MAX);
        if (!frames || !n || n & (((size_t)1 << order) - 1))
                return error_set(EINVAL, "%zu frames are not as many as some pieces of %zu have", n, (size_t)1 << order);
        return 0;
}

int dmab_exchange_frames(dmab_t *dmab, const uint64_t *frames, size_t n, unsigned order,
                         const struct dmab_exchange_options *options, uint64_t *ret_frames, size_t *ret_n) {
        struct dmab_exchange_options known = DMAB_EXCHANGE_OPTIONS_INIT;
        struct link_reply reply = { 0 };
        char *params = NULL;
        int r = session_check(dmab);

        if (!r)
                r = check(frames, n, order);
        if (!r && options)
                r = session_copy_struct(&known, sizeof(known), options, "struct dmab_exchange_options");
        if (!r)
                r = make_params(frames, n, order, &known, &params);
        if (!r && strlen(params) + MESSAGE_REST > link_limits(dmab->link).message_bytes)
                r = error_set(E2BIG, "%zu frames make too long a message for this daemon: exchange fewer at a time", n);
        if (r) {
                free(params);
                return r;
        }
        /* The frames that were given up would be the guest's no more the second time. */
        r = link_call(dmab->link, &(struct link_request){ .method = "guest.exchange", .params = params, .repeat = LINK_ONCE },
                      &reply);
        free(params);
        if (!r)
                r = take(reply.result, n >> order, ret_frames, ret_n);
        link_reply_release(&reply);
        return r;
}
