/* exchange: pages of a guest of Xen's for others in one piece. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/show.h"
#include "client/ctl/verbs.h"
#include "proto/methods.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

enum { PAGE = 4096 };

static const struct ctl_option options[] = {
        { "--guest", "GUEST", "for administrators: whose they are, by its name or UUID; those of this guest unless given" },
        { "--mask", "BITS|0xMASK", "the machine addresses that the pieces may have: 32, or 0xffffffff" },
        { "--pfn", "0xPFN", "the guest's own number of the first page of the first piece, on which the others follow; as the "
                            "frames had it unless given" },
        { "--given-up", NULL, "for administrators: the guest, which is paused, does not count on these frames" },
        { NULL },
};

/* 0x1f400, or 0x1f400+512 for as many that follow. */
static enum ctl_status add_frames(const struct ctl *ctl, const char *operand, json_t *frames) {
        const char *plus = strchr(operand, '+');
        uint64_t first, count = 1;
        char text[24], *end;

        snprintf(text, sizeof(text), "%.*s", plus ? (int)(plus - operand) : (int)sizeof(text) - 1, operand);
        if (ctl_parse_address(ctl, "FRAME", text, &first) != CTL_OK)
                return CTL_USAGE;
        if (plus) {
                count = strtoull(plus + 1, &end, 10);
                if (plus[1] < '1' || plus[1] > '9' || *end || count > PROTOCOL_EXCHANGE_MAX)
                        return ctl_misuse(ctl, "FRAME must be a frame or some that follow one another, such as 0x1f400+512, not "
                                               "\"%s\"", operand);
        }
        if (json_array_size(frames) + count > PROTOCOL_EXCHANGE_MAX)
                return ctl_misuse(ctl, "at most %d frames are exchanged at a time", PROTOCOL_EXCHANGE_MAX);
        for (uint64_t i = 0; i < count; i++) {
                snprintf(text, sizeof(text), "0x%" PRIx64, first + i);
                json_array_append_new(frames, json_string(text));
        }
        return CTL_OK;
}

static enum ctl_status add_order(const struct ctl *ctl, json_t *params, unsigned *ret) {
        uint64_t size;
        unsigned order = 0;

        if (ctl_parse_size(ctl, "SIZE", ctl->operands[0], &size) != CTL_OK)
                return CTL_USAGE;
        while (order < PROTOCOL_EXCHANGE_ORDER_MAX && (uint64_t)PAGE << order < size)
                order++;
        if ((uint64_t)PAGE << order != size)
                return ctl_misuse(ctl, "SIZE must be 4K, 8K, 16K or so on, and at most 256M, not \"%s\"", ctl->operands[0]);
        json_object_set_new(params, "order", json_integer(order));
        *ret = order;
        return CTL_OK;
}

static enum ctl_status add_pfns(const struct ctl *ctl, json_t *params, size_t n_pieces, unsigned order) {
        const char *given = ctl_value(ctl, "--pfn");
        json_t *pfns;
        uint64_t pfn;
        char text[24];

        if (!given)
                return CTL_OK;
        if (ctl_parse_address(ctl, "--pfn", given, &pfn) != CTL_OK)
                return CTL_USAGE;
        pfns = json_array();
        for (size_t i = 0; i < n_pieces; i++, pfn += UINT64_C(1) << order) {
                snprintf(text, sizeof(text), "0x%" PRIx64, pfn);
                json_array_append_new(pfns, json_string(text));
        }
        json_object_set_new(params, "pfns", pfns);
        return CTL_OK;
}

static enum ctl_status exchange_params(struct ctl *ctl, json_t *params, size_t *ret_n, unsigned *ret_order) {
        json_t *frames = json_array();
        enum ctl_status status = add_order(ctl, params, ret_order);

        json_object_set_new(params, "frames", frames);
        for (size_t i = 1; i < ctl->n_operands && status == CTL_OK; i++)
                status = add_frames(ctl, ctl->operands[i], frames);
        *ret_n = json_array_size(frames);
        if (status == CTL_OK && *ret_n & (((size_t)1 << *ret_order) - 1))
                status = ctl_misuse(ctl, "%zu frames are not as many as some pieces of %s have, which are %zu each", *ret_n,
                                    ctl->operands[0], (size_t)1 << *ret_order);
        if (status == CTL_OK)
                status = add_pfns(ctl, params, *ret_n >> *ret_order, *ret_order);
        if (status != CTL_OK)
                return status;
        ctl_param_text(ctl, "--guest", params, "guest");
        ctl_param_flag(ctl, "--given-up", params, "given_up");
        return ctl_param_mask(ctl, "--mask", params, "mask");
}

static enum ctl_status show_pieces(json_t *result, unsigned order) {
        static const struct show_column columns[] = { { "FRAME", "frame" }, { "PAGES", "pages", SHOW_NUMBER } };
        json_t *rows = json_array(), *frame;
        int r;
        size_t i;

        json_array_foreach(json_object_get(result, "frames"), i, frame)
                json_array_append_new(rows, json_pack("{s:O,s:I}", "frame", frame, "pages", (json_int_t)1 << order));
        r = show_table(rows, columns, N(columns));
        json_decref(rows);
        return r ? CTL_FAILURE : CTL_OK;
}

static enum ctl_status run_exchange(struct ctl *ctl) {
        json_t *params = json_object(), *result;
        const char *why;
        unsigned order = 0;
        size_t n;
        enum ctl_status status = exchange_params(ctl, params, &n, &order);

        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        status = ctl_call(ctl, "guest.exchange", params, &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        else
                status = show_pieces(result, order);
        why = json_string_value(json_object_get(result, "why"));
        if (why) {
                fprintf(stderr, "dmabrokerctl: %lld of %zu frames are exchanged: %s\n",
                        (long long)json_integer_value(json_object_get(result, "exchanged")), n, why);
                status = CTL_FAILURE;
        }
        json_decref(result);
        return status;
}

const struct ctl_verb verb_exchange = {
        .name = "exchange",
        .operands = "SIZE FRAME…",
        .summary = "exchange pages of a guest of Xen's for others in one piece",
        .doc = "For a paravirtualised guest that has given pages up: its kernel has them mapped nowhere, and puts in their place "
               "what it gets, pieces of SIZE that are contiguous in the machine. SIZE is a power of two from 4K on, at most 2M "
               "for a guest that asks itself, 256M for an administrator. FRAME is the machine's number of a page, such as "
               "0x1f400, or of the first of some that follow one another, 0x1f400+512. Prints the first frame of each piece. A "
               "page that is mapped is not exchanged, and all that a kernel of Linux's has is. An administrator does it for a "
               "guest that is paused, and says with --given-up that it has given up the frames: one whose kernel counts on them "
               "does not live when it goes on. Where Xen comes to an end in the midst of it, the pieces that the guest has are "
               "printed, and this fails.",
        .options = options,
        .min_operands = 2,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_exchange,
};
