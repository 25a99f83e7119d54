/* The core on the simulated source, with a clock that only the test moves: what tests of its parts have in common. */
#ifndef DMAB_TEST_CORE_FIXTURE_H
#define DMAB_TEST_CORE_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/broker.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define MASK32 UINT64_C(0xffffffff)

struct answer {
        bool given;
        struct failure failure;
        uint64_t handle;
        unsigned order; /* in which it was given */
};

/* How often something happened, and what it told the last time. */
struct events {
        unsigned recalls, leaks;
        struct event last;
};

struct fixture {
        uint64_t now;
        struct broker *broker;
        struct source *source, *anonymous;
        struct caller caller; /* of user:1000 */
        struct events events;
};

/* layout and reserve: options of the simulated source; reserve NULL: all that the layout has. options NULL: defaults. Their
 * translators NULL: identity. */
void fixture_start_growing(struct fixture *fixture, const char *layout, const char *reserve, struct broker_options *options);
/* The same with any options of the source. */
void fixture_start_options(struct fixture *fixture, const struct source_option *source_options, size_t n_options,
                           struct broker_options *options);
/* The same with so much ordinary memory for what is swapped out, instead of 8 MiB. */
void fixture_start_anonymous(struct fixture *fixture, const char *layout, const char *limit, struct broker_options *options);
void fixture_start(struct fixture *fixture, const char *layout, struct broker_options *options);
/* Checks the books, then ends the broker. */
void fixture_stop(struct fixture *fixture);

void fixture_settle(struct fixture *fixture);
/* Moves the clock, lets the broker act, and settles. */
void fixture_pass(struct fixture *fixture, uint64_t ms);
void fixture_check(struct fixture *fixture);
/* Of user:1000 when owner is NULL. */
struct caller fixture_session(struct fixture *fixture, const char *owner);

/* What the source has now. */
struct source_view fixture_source(struct fixture *fixture);

uint64_t fixture_open(const struct caller *caller, const struct device_options *options);
uint64_t fixture_usage(const struct caller *caller, enum quota_kind kind);
void fixture_limit(const struct caller *caller, enum quota_kind kind, uint64_t limit);
struct alloc_view fixture_alloc(struct fixture *fixture, const struct caller *caller, const struct alloc_request *request);

/* What lies at `offset` of an allocation is a function of the offset. */
void fixture_fill(const struct caller *caller, const struct alloc_view *view);
bool fixture_is_filled(const struct caller *caller, const struct alloc_view *view);

/* A broker_done_fn that fills a struct answer. */
void answer(void *userdata, const struct failure *failure, uint64_t handle);
/* The answer was given, with success. */
uint64_t answer_handle(const struct answer *answer);
void require_failure(const struct failure *failure, enum reason reason);
void require_refused(const struct answer *answer, enum reason reason);
/* A value of a failure that must be there. */
uint64_t failure_number(const struct failure *failure, const char *name);

#endif
