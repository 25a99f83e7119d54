/* A peer whose messages are written down, and a small table of methods to call: those of the JSON-RPC specification's
 * examples, and some that answer late, not at all, or with descriptors. */
#ifndef DMAB_TESTS_UNIT_PROTO_PEER_H
#define DMAB_TESTS_UNIT_PROTO_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>
#include <jansson.h>

#include "proto/dispatch.h"

enum toy {
        TOY_subtract, /* minuend, subtrahend -> the difference */
        TOY_update,   /* takes nothing; counted */
        TOY_get_data, /* -> ["hello", 5] */
        TOY_late,     /* waits for toy_answer_late() */
        TOY_forget,   /* its handler neither answers nor defers */
        TOY_pass,     /* fd? -> with fd, one descriptor */
        TOY_everything, /* every type, -> the same */
        TOY_admin,
        TOY_drop, /* drops the peer, then answers */
        TOY_long, /* bytes -> a string of so many */
        TOY_COUNT
};

extern const struct schema_table toy_table;

struct inner_thing {
        uint64_t present;
        uint64_t count;
};

enum colour { RED, GREEN };

struct everything {
        uint64_t present;
        bool flag SCHEMA_SLOT;
        uint64_t small;
        uint64_t large;
        int64_t below;
        double real;
        uint64_t address;
        const char *word;
        enum colour colour SCHEMA_SLOT;
        struct inner_thing inner;
        struct schema_raw raw;
        SCHEMA_LIST(uint64_t) numbers;
        SCHEMA_LIST(char *const) words;
        SCHEMA_LIST(struct inner_thing) things;
        SCHEMA_LIST(enum colour) colours;
        uint64_t maybe;
};
extern const struct schema_struct everything_struct;

struct listener {
        struct rpc_service *service;
        struct rpc_peer peer;
        char heard[1 << 18]; /* all that was sent, NUL-terminated */
        size_t n_heard, n_sends, n_fds;
        size_t n_updates, n_cancelled, n_observed;
        struct rpc_call *late[512];
        size_t n_late;
        bool drops_when_sent_to;
        bool counts; /* requests, of which so many are admitted */
        size_t n_counted, n_admitted_most;
};

/* toys: serve toy_table; otherwise protocol_table, whose every method answers {}. limits NULL: the default. */
void listener_init(struct listener *listener, bool toys, const struct rpc_limits *limits);
void listener_deinit(struct listener *listener);

/* Say a text, and get all that was answered since; NULL: nothing. */
const char *ask(struct listener *listener, const char *text);
/* What was heard is this JSON text, white space and order of members aside. */
void assert_json(const char *heard, const char *expected);
/* The answer is an error with this code, and reason (NULL: none); returns its data, borrowed until the next call. */
json_t *assert_error(const char *heard, int code, const char *reason);
/* A request of the method with these params as JSON. */
const char *call(struct listener *listener, const char *method, const char *params);

void toy_answer_late(struct listener *listener, size_t index);

#endif
