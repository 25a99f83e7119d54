#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"

static unsigned answers_given;

static uint64_t fixture_now(void *userdata) {
        return ((struct fixture *)userdata)->now;
}

static void listen(void *userdata, const struct event *event) {
        struct events *events = userdata;

        events->recalls += event->topic == EVENT_RECALL;
        events->leaks += event->topic == EVENT_LEAK;
        events->last = *event;
}

void fixture_settle(struct fixture *fixture) {
        struct source *const sources[] = { fixture->source, fixture->anonymous };
        size_t i;

        while (!broker_settled(fixture->broker))
                for (i = 0; i < sizeof(sources) / sizeof(*sources); i++) {
                        sources[i]->ops->wait(sources[i]);
                        sources[i]->ops->dispatch(sources[i]);
                }
}

static void start(struct fixture *fixture, const struct source_option *source_options, size_t n_options,
                  const char *anonymous_limit, struct broker_options *options) {
        static const struct translator_ops *const translators[] = { &translator_identity_ops, NULL };
        const struct source_option limit = { "limit", anonymous_limit };
        struct broker_options defaults;
        struct failure failure = {};

        if (!options) {
                broker_options_default(&defaults);
                options = &defaults;
        }
        *fixture = (struct fixture){ .now = 1000 };
        options->now_ms = fixture_now;
        options->userdata = fixture;
        if (!options->translators)
                options->translators = translators;
        assert_int_equal(broker_new(options, &fixture->broker), 0);
        if (source_sim_ops.open(source_options, n_options, NULL, &fixture->source, &failure) < 0)
                fail_msg("%s", failure.sentence);
        assert_int_equal(broker_add_source(fixture->broker, fixture->source), 0);
        assert_int_equal(source_anonymous_ops.open(&limit, 1, NULL, &fixture->anonymous, &failure), 0);
        assert_int_equal(broker_add_source(fixture->broker, fixture->anonymous), 0);
        broker_listen(fixture->broker, listen, &fixture->events);
        fixture_settle(fixture);
        fixture->caller = fixture_session(fixture, NULL);
}

void fixture_start_options(struct fixture *fixture, const struct source_option *source_options, size_t n_options,
                           struct broker_options *options) {
        start(fixture, source_options, n_options, "8M", options);
}

void fixture_start_anonymous(struct fixture *fixture, const char *layout, const char *limit, struct broker_options *options) {
        start(fixture, &(struct source_option){ "layout", layout }, 1, limit, options);
}

void fixture_start_growing(struct fixture *fixture, const char *layout, const char *reserve,
                           struct broker_options *options) {
        struct source_option source_options[] = { { "layout", layout }, { "reserve", reserve } };

        fixture_start_options(fixture, source_options, reserve ? 2 : 1, options);
}

void fixture_start(struct fixture *fixture, const char *layout, struct broker_options *options) {
        fixture_start_growing(fixture, layout, NULL, options);
}

static void problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        print_error("%s %llu: %s\n", what, (unsigned long long)handle, text);
        ++*(unsigned *)userdata;
}

static void checked(void *userdata, uint64_t n) {
        assert_true(n > 0);
}

void fixture_check(struct fixture *fixture) {
        unsigned problems = 0;

        broker_check(fixture->broker, problem, checked, &problems);
        fixture_settle(fixture);
        assert_int_equal(problems, 0);
}

void fixture_stop(struct fixture *fixture) {
        fixture_check(fixture);
        broker_free(fixture->broker);
}

void fixture_pass(struct fixture *fixture, uint64_t ms) {
        fixture->now += ms;
        broker_tick(fixture->broker);
        fixture_settle(fixture);
}

struct caller fixture_session(struct fixture *fixture, const char *owner) {
        struct caller caller = {};

        assert_int_equal(session_open(fixture->broker, owner ? owner : "user:1000", &caller.session, NULL), 0);
        return caller;
}

static int take_source(const struct source_view *view, void *userdata) {
        *(struct source_view *)userdata = *view;
        return 1;
}

struct source_view fixture_source(struct fixture *fixture) {
        struct source_view view = {};

        broker_visit_sources(fixture->broker, take_source, &view);
        return view;
}

uint64_t fixture_open(const struct caller *caller, const struct device_options *options) {
        struct device_options named = *options;
        struct failure failure = {};
        uint64_t device = 0;

        named.node = -1;
        if (!named.name)
                named.name = "nic";
        if (device_open(caller, &named, &device, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return device;
}

uint64_t fixture_usage(const struct caller *caller, enum quota_kind kind) {
        struct owner_view view;

        assert_int_equal(quota_get(caller, NULL, &view, NULL), 0);
        return view.usage.of[kind];
}

void fixture_limit(const struct caller *caller, enum quota_kind kind, uint64_t limit) {
        struct caller admin = { .session = caller->session, .admin = true };
        struct quota quota = {};

        quota.of[kind] = limit;
        assert_int_equal(quota_set(&admin, NULL, 1u << kind, &quota, NULL), 0);
}

struct alloc_view fixture_alloc(struct fixture *fixture, const struct caller *caller, const struct alloc_request *request) {
        struct answer to = {};
        struct alloc_view view;

        coherent_alloc(caller, request, answer, &to);
        fixture_settle(fixture);
        assert_int_equal(coherent_get(caller, answer_handle(&to), &view, NULL), 0);
        return view;
}

void answer(void *userdata, const struct failure *failure, uint64_t handle) {
        struct answer *to = userdata;

        assert_false(to->given);
        to->given = true;
        to->order = ++answers_given;
        to->failure = failure ? *failure : (struct failure){};
        to->handle = handle;
}

uint64_t answer_handle(const struct answer *answer) {
        assert_true(answer->given);
        if (answer->failure.error)
                fail_msg("%s", answer->failure.sentence);
        return answer->handle;
}

void require_failure(const struct failure *failure, enum reason reason) {
        if (failure->reason != reason)
                fail_msg("%s instead of %s: %s", reason_name(failure->reason), reason_name(reason), failure->sentence);
        assert_true(failure->error > 0);
        assert_true(strlen(failure->sentence) > 10);
}

void require_refused(const struct answer *answer, enum reason reason) {
        assert_true(answer->given);
        if (!answer->failure.error)
                fail_msg("handle %llu instead of %s", (unsigned long long)answer->handle, reason_name(reason));
        require_failure(&answer->failure, reason);
}

uint64_t failure_number(const struct failure *failure, const char *name) {
        size_t i;

        for (i = 0; i < failure->n_values; i++)
                if (strcmp(failure->values[i].name, name) == 0)
                        return failure->values[i].number;
        fail_msg("there is no `%s` in: %s", name, failure->sentence);
        return 0;
}

void fixture_fill(const struct caller *caller, const struct alloc_view *view) {
        uint64_t *words = malloc(view->size);
        int fd;

        assert_non_null(words);
        for (uint64_t i = 0; i < view->size / sizeof(*words); i++)
                words[i] = i * 0x9e3779b97f4a7c15u + view->size;
        assert_int_equal(region_fd(caller, view->region, &fd, NULL), 0);
        assert_int_equal(pwrite(fd, words, view->size, (off_t)view->offset), view->size);
        free(words);
}

bool fixture_is_filled(const struct caller *caller, const struct alloc_view *view) {
        uint64_t *words = malloc(view->size), i;
        int fd;

        assert_non_null(words);
        assert_int_equal(region_fd(caller, view->region, &fd, NULL), 0);
        assert_int_equal(pread(fd, words, view->size, (off_t)view->offset), view->size);
        for (i = 0; i < view->size / sizeof(*words); i++)
                if (words[i] != i * 0x9e3779b97f4a7c15u + view->size)
                        break;
        free(words);
        return i == view->size / sizeof(*words);
}
