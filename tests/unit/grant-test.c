/* Grants in the core's books: who has them, for how long, and that a ledger knows of them. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/core/broker.h"
#include "daemon/iommu/none.h"
#include "tests/unit/ledger-fixture.h"

#define GUEST "xen:6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"
#define OTHER "xen:6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d12"

enum { DOMAIN = 7, PAGES = 12 };

static const struct grant_run runs[] = { { 8, 10 }, { 300, 2 } };

static struct {
        uint64_t now;
        struct memory_ledger *ledger;
        struct broker *broker;
        struct caller caller, admin;
        uint64_t ended; /* the last one */
        unsigned n_ended, n_recalled, n_leaked;
        struct event last;
} s;

static uint64_t now(void *userdata) {
        return s.now;
}

static void on_event(void *userdata, const struct event *event) {
        s.n_recalled += event->topic == EVENT_RECALL;
        s.n_leaked += event->topic == EVENT_LEAK;
        s.last = *event;
}

static void on_ended(void *userdata, uint64_t grant) {
        s.ended = grant;
        s.n_ended++;
}

static int find_session(struct session *session, void *userdata) {
        s.caller.session = session;
        return 1;
}

static void begin_broker(void) {
        static const struct translator_ops *const translators[] = { &translator_identity_ops, NULL };
        struct broker_options options;
        struct failure failure = { 0 };

        broker_options_default(&options);
        options.now_ms = now;
        options.translators = translators;
        options.survives = true;
        assert_int_equal(broker_new(&options, &s.broker), 0);
        if (broker_load(s.broker, &s.ledger->base, &failure) < 0)
                fail_msg("%s", failure.sentence);
        broker_listen(s.broker, on_event, NULL);
        broker_watch_grants(s.broker, on_ended, NULL);
}

static int begin(void **state) {
        memset(&s, 0, sizeof(s));
        s.now = 1000;
        s.ledger = memory_ledger_new();
        begin_broker();
        assert_int_equal(session_open(s.broker, "user:1000", &s.caller.session, NULL), 0);
        assert_int_equal(session_open(s.broker, "user:0", &s.admin.session, NULL), 0);
        s.admin.admin = true;
        return 0;
}

static void check_problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        fail_msg("%s %llu: %s", what, (unsigned long long)handle, text);
}

static void check_done(void *userdata, uint64_t checked) {
        *(bool *)userdata = true;
}

static void check_books(void) {
        bool is_done = false;

        broker_check(s.broker, check_problem, check_done, &is_done);
        assert_true(is_done);
}

static int end(void **state) {
        check_books();
        broker_free(s.broker);
        memory_ledger_free(s.ledger);
        return 0;
}

/* The daemon dies, and another one begins. */
static void die(void) {
        struct memory_ledger *next;

        assert_int_equal(broker_commit(s.broker), 0);
        next = memory_ledger_reopen(s.ledger);
        s.ledger->frozen = true;
        broker_watch_grants(s.broker, NULL, NULL);
        broker_leave(s.broker);
        memory_ledger_free(s.ledger);
        s.ledger = next;
        begin_broker();
        broker_visit_sessions(s.broker, find_session, NULL);
}

static struct grant_request request(const char *key) {
        return (struct grant_request){
                .kind = GRANT_MAP, .guest = GUEST, .domain = DOMAIN, .direction = DMA_TO_DEVICE, .pages = PAGES, .runs = runs,
                .n_runs = 2, .request_key = key, .request_digest = 5,
        };
}

static uint64_t make(const char *key) {
        const struct grant_request ask = request(key);
        struct failure failure = { 0 };
        uint64_t grant = 0;

        if (grant_new(&s.caller, &ask, &grant, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return grant;
}

static uint64_t charged(void) {
        struct owner_view view;

        assert_int_equal(quota_get(&s.caller, NULL, &view, NULL), 0);
        return view.usage.of[QUOTA_grants];
}

static int count(const struct grant_view *view, void *userdata) {
        ++*(unsigned *)userdata;
        return 0;
}

static unsigned n_grants(const char *owner) {
        unsigned n = 0;

        broker_visit_grants(s.broker, owner, count, &n);
        return n;
}

static void test_a_grant_is_charged_until_it_ends(void **state) {
        struct grant_view view;
        const uint64_t grant = make(NULL);

        assert_int_equal(charged(), PAGES);
        s.now += 50;
        assert_int_equal(grant_get(&s.caller, grant, &view, NULL), 0);
        assert_string_equal(view.owner, "user:1000");
        assert_string_equal(view.guest, GUEST);
        assert_int_equal(view.domain, DOMAIN);
        assert_int_equal(view.age_ms, 50);
        assert_int_equal(view.n_runs, 2);
        assert_memory_equal(view.runs, runs, sizeof(runs));
        assert_int_equal(n_grants("user:1000"), 1);
        assert_int_equal(n_grants("user:0"), 0);
        check_books();
        assert_int_equal(grant_end(&s.caller, grant, NULL), 0);
        assert_int_equal(s.ended, grant);
        assert_int_equal(charged(), 0);
        assert_int_equal(n_grants(NULL), 0);
}

static void test_only_its_owner_and_administrators_end_one(void **state) {
        struct caller other = { 0 };
        struct failure failure = { 0 };
        uint64_t grant = make(NULL);

        assert_int_equal(session_open(s.broker, "user:1001", &other.session, NULL), 0);
        assert_int_equal(grant_end(&other, grant, &failure), -ENOENT);
        assert_int_equal(failure.reason, REASON_unknown_handle);
        assert_int_equal(grant_end(&s.admin, grant, NULL), 0);
        assert_int_equal(grant_end(&s.caller, grant, &failure), -reason_errno(REASON_double_free));
        assert_int_equal(failure.reason, REASON_double_free);
}

static void test_more_pages_than_the_quota_are_refused(void **state) {
        const struct grant_request ask = request(NULL);
        struct quota limits = { .of[QUOTA_grants] = 2 * PAGES - 1 };
        struct failure failure = { 0 };
        uint64_t grant;

        assert_int_equal(quota_set(&s.admin, "user:1000", 1u << QUOTA_grants, &limits, NULL), 0);
        make(NULL);
        assert_true(grant_may(&s.caller, PAGES, &failure) < 0);
        assert_int_equal(failure.reason, REASON_quota);
        assert_true(grant_new(&s.caller, &ask, &grant, &failure) < 0);
        assert_int_equal(failure.reason, REASON_quota);
        assert_int_equal(charged(), PAGES);
}

static void test_what_the_next_daemon_would_not_read_is_not_made(void **state) {
        struct grant_request ask = request(NULL);
        struct failure failure = { 0 };
        uint64_t grant;

        ask.pages = GRANT_PAGES_MAX + 1;
        assert_true(grant_new(&s.caller, &ask, &grant, &failure) < 0);
        assert_int_equal(failure.reason, REASON_bad_param);
        ask.pages = 0;
        assert_true(grant_new(&s.caller, &ask, &grant, &failure) < 0);
        assert_int_equal(charged(), 0);
}

static void test_the_same_key_makes_the_same_grant(void **state) {
        const struct grant_request ask = request("key");
        struct grant_request another = request("key");
        struct failure failure = { 0 };
        uint64_t grant, again = 0;

        assert_int_equal(grant_was_made(&s.caller, "key", 5, &again, NULL), 0);
        grant = make("key");
        assert_int_equal(grant_was_made(&s.caller, "key", 5, &again, NULL), 1);
        assert_int_equal(again, grant);
        assert_int_equal(grant_was_made(&s.caller, NULL, 5, &again, NULL), 0);
        assert_int_equal(grant_new(&s.caller, &ask, &again, NULL), 1);
        assert_int_equal(charged(), PAGES);
        another.request_digest = 6;
        assert_true(grant_new(&s.caller, &another, &again, &failure) < 0);
        assert_int_equal(failure.reason, REASON_bad_param);
        assert_true(grant_was_made(&s.caller, "key", 6, &again, NULL) < 0);
        die();
        assert_int_equal(grant_new(&s.caller, &ask, &again, NULL), 1);
        assert_int_equal(again, grant);
}

static void test_a_session_ends_with_its_grants(void **state) {
        make(NULL);
        make(NULL);
        session_close(s.caller.session);
        assert_int_equal(s.n_ended, 2);
        assert_int_equal(s.n_leaked, 1);
        assert_int_equal(s.last.count, 2);
        assert_int_equal(n_grants(NULL), 0);
        assert_int_equal(session_open(s.broker, "user:1000", &s.caller.session, NULL), 0);
        assert_int_equal(charged(), 0);
}

static void test_the_next_daemon_knows_of_them(void **state) {
        struct grant_view view;
        const uint64_t grant = make("key");

        grant_end(&s.caller, make(NULL), NULL);
        s.now += 10;
        die();
        assert_int_equal(n_grants(NULL), 1);
        assert_int_equal(charged(), PAGES);
        assert_int_equal(grant_get(&s.caller, grant, &view, NULL), 0);
        assert_int_equal(view.kind, GRANT_MAP);
        assert_int_equal(view.direction, DMA_TO_DEVICE);
        assert_int_equal(view.domain, DOMAIN);
        assert_int_equal(view.age_ms, 10);
        assert_string_equal(view.guest, GUEST);
        assert_memory_equal(view.runs, runs, sizeof(runs));
        assert_false(view.gone);
}

static void test_who_has_something_of_a_guest_that_has_ended_is_told_once(void **state) {
        struct grant_view view;
        const uint64_t grant = make(NULL);

        grants_orphan(s.broker, OTHER, 0);
        grants_orphan(s.broker, GUEST, DOMAIN);
        assert_int_equal(s.n_recalled, 0);
        grants_orphan(s.broker, GUEST, DOMAIN + 1);
        grants_orphan(s.broker, GUEST, 0);
        assert_int_equal(s.n_recalled, 1);
        assert_int_equal(s.last.grant, grant);
        assert_ptr_equal(s.last.session, s.caller.session);
        die();
        assert_int_equal(grant_get(&s.caller, grant, &view, NULL), 0);
        assert_true(view.gone);
        assert_int_equal(charged(), PAGES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_a_grant_is_charged_until_it_ends),
                TEST(test_only_its_owner_and_administrators_end_one),
                TEST(test_more_pages_than_the_quota_are_refused),
                TEST(test_what_the_next_daemon_would_not_read_is_not_made),
                TEST(test_the_same_key_makes_the_same_grant),
                TEST(test_a_session_ends_with_its_grants),
                TEST(test_the_next_daemon_knows_of_them),
                TEST(test_who_has_something_of_a_guest_that_has_ended_is_told_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
