/* The core with a source that chooses addresses itself: a small one that chooses what the test says. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/core/broker.h"
#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define MASK32 UINT64_C(0xffffffff)

/* ---- the source ---- */

struct source_backing {
        uint64_t addr, size;
};

struct chooser {
        struct source base;
        struct source_job *first, **last;
        uint64_t room;       /* bytes that it may still give */
        uint64_t room_in_one_piece;
        uint64_t next;       /* where the next buffer lies */
        unsigned carves, lives;
        int carve_status;    /* of the next carves; 0: give */
        int restore_status;
        uint64_t limit_seen; /* of the last carve */
};

static void chooser_carve(struct chooser *chooser, struct source_job *job) {
        struct source_backing *backing;

        chooser->carves++;
        chooser->limit_seen = job->limit;
        job->status = chooser->carve_status;
        if (job->status == 0 && (job->size > chooser->room || job->size > chooser->room_in_one_piece))
                job->status = -ENOMEM;
        if (job->status < 0) {
                failure_set_errno(job->failure, REASON_no_contiguous, -job->status, "the chooser has no such piece");
                return;
        }
        backing = calloc(1, sizeof(*backing));
        assert_non_null(backing);
        *backing = (struct source_backing){ .addr = chooser->next, .size = job->size };
        chooser->next += job->size;
        chooser->room -= job->size;
        chooser->lives++;
        job->addr = backing->addr;
        job->backing = backing;
}

static void chooser_work(struct chooser *chooser, struct source_job *job) {
        switch (job->kind) {
        case SOURCE_CARVE:
                chooser_carve(chooser, job);
                return;
        case SOURCE_RESTORE:
                if (chooser->restore_status == 0)
                        chooser->room += job->backing->size;
                chooser->lives--;
                job->status = chooser->restore_status;
                free(job->backing);
                return;
        case SOURCE_VERIFY:
        case SOURCE_ZERO:
        case SOURCE_COPY:
                job->status = 0;
                return;
        case SOURCE_GROW:
        case SOURCE_SHRINK:
        case SOURCE_RECLAIM:
        case SOURCE_JOB_KINDS:
                break;
        }
        fail_msg("a source that chooses was given a job of kind %d", (int)job->kind);
}

static void chooser_close(struct source *source) {
        assert_int_equal(((struct chooser *)source)->lives, 0);
}

static void chooser_describe(struct source *source, struct source_info *ret) {
        *ret = (struct source_info){ .name = "chooser", .about = "what the test says", .flags = SOURCE_CHOOSES,
                                     .grain = 4096, .limit = 64 * MIB, .available = ((struct chooser *)source)->room };
}

static void chooser_submit(struct source *source, struct source_job *job) {
        struct chooser *chooser = (struct chooser *)source;

        job->next = NULL;
        *chooser->last = job;
        chooser->last = &job->next;
}

static int chooser_event_fd(struct source *source) {
        return -1;
}

static void chooser_dispatch(struct source *source) {
        struct chooser *chooser = (struct chooser *)source;
        struct source_job *job;

        while ((job = chooser->first)) {
                chooser->first = job->next;
                if (!chooser->first)
                        chooser->last = &chooser->first;
                chooser_work(chooser, job);
                job->done(job);
        }
}

static void chooser_wait(struct source *source) {
}

static int chooser_backing_fd(struct source_backing *backing) {
        return -1;
}

static int chooser_backing_zero(struct source_backing *backing, uint64_t offset, uint64_t size) {
        return 0;
}

static const struct source_ops chooser_ops = {
        .struct_size = sizeof(struct source_ops),
        .version = SOURCE_OPS_VERSION,
        .name = "chooser",
        .close = chooser_close,
        .describe = chooser_describe,
        .submit = chooser_submit,
        .event_fd = chooser_event_fd,
        .dispatch = chooser_dispatch,
        .wait = chooser_wait,
        .backing_fd = chooser_backing_fd,
        .backing_zero = chooser_backing_zero,
};

/* ---- the broker ---- */

struct answer {
        bool given;
        struct failure failure;
        uint64_t handle;
};

struct fixture {
        uint64_t now;
        struct broker *broker;
        struct source *stocked; /* or NULL */
        struct chooser chooser;
        struct caller caller;
};

static uint64_t fixture_now(void *userdata) {
        return ((struct fixture *)userdata)->now;
}

static void answer(void *userdata, const struct failure *failure, uint64_t handle) {
        struct answer *to = userdata;

        assert_false(to->given);
        to->given = true;
        to->failure = failure ? *failure : (struct failure){};
        to->handle = handle;
}

static void settle(struct fixture *fixture) {
        while (!broker_settled(fixture->broker)) {
                chooser_dispatch(&fixture->chooser.base);
                if (fixture->stocked) {
                        fixture->stocked->ops->wait(fixture->stocked);
                        fixture->stocked->ops->dispatch(fixture->stocked);
                }
        }
}

/* layout: of a simulated source beside it that keeps stock, or NULL. */
static void start(struct fixture *fixture, const char *layout) {
        static const struct translator_ops *const translators[] = { &translator_identity_ops, NULL };
        struct source_option option = { "layout", layout };
        struct broker_options options;
        struct failure failure = {};

        *fixture = (struct fixture){ .now = 1000 };
        broker_options_default(&options);
        options.now_ms = fixture_now;
        options.userdata = fixture;
        options.translators = translators;
        assert_int_equal(broker_new(&options, &fixture->broker), 0);
        fixture->chooser = (struct chooser){ .base.ops = &chooser_ops, .room = 64 * MIB,
                                             .room_in_one_piece = 64 * MIB, .next = 256 * MIB };
        fixture->chooser.last = &fixture->chooser.first;
        assert_int_equal(broker_add_source(fixture->broker, &fixture->chooser.base), 0);
        if (layout) {
                if (source_sim_ops.open(&option, 1, NULL, &fixture->stocked, &failure) < 0)
                        fail_msg("%s", failure.sentence);
                assert_int_equal(broker_add_source(fixture->broker, fixture->stocked), 0);
        }
        settle(fixture);
        assert_int_equal(session_open(fixture->broker, "user:1000", &fixture->caller.session, NULL), 0);
}

static void problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        print_error("%s %llu: %s\n", what, (unsigned long long)handle, text);
        ++*(unsigned *)userdata;
}

static void checked(void *userdata, uint64_t n) {
}

static void check(struct fixture *fixture) {
        unsigned problems = 0;

        broker_check(fixture->broker, problem, checked, &problems);
        settle(fixture);
        assert_int_equal(problems, 0);
}

static void stop(struct fixture *fixture) {
        check(fixture);
        broker_free(fixture->broker);
}

static uint64_t open_device(struct fixture *fixture, uint64_t mask) {
        struct device_options options = { .name = "card", .mask = mask, .node = -1 };
        struct failure failure = {};
        uint64_t device = 0;

        if (device_open(&fixture->caller, &options, &device, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return device;
}

static struct answer ask(struct fixture *fixture, const struct alloc_request *request) {
        struct answer to = {};

        coherent_alloc(&fixture->caller, request, answer, &to);
        settle(fixture);
        assert_true(to.given);
        return to;
}

static struct alloc_view take(struct fixture *fixture, uint64_t device, uint64_t size) {
        struct answer to = ask(fixture, &(struct alloc_request){ .device = device, .size = size });
        struct alloc_view view;

        if (to.failure.error)
                fail_msg("%s", to.failure.sentence);
        assert_int_equal(coherent_get(&fixture->caller, to.handle, &view, NULL), 0);
        return view;
}

static int look(const struct source_view *view, void *userdata) {
        if (strcmp(view->info.name, "chooser") == 0)
                *(struct source_view *)userdata = *view;
        return 0;
}

static struct source_view books(struct fixture *fixture) {
        struct source_view view = {};

        broker_visit_sources(fixture->broker, look, &view);
        return view;
}

/* ---- tests ---- */

static void test_a_region_lies_where_the_source_chose(void **state) {
        struct fixture f;
        struct alloc_view view;

        start(&f, NULL);
        view = take(&f, open_device(&f, MASK32), 128 * KIB);
        assert_int_equal(view.machine_addr, 256 * MIB);
        assert_int_equal(view.offset, 0);
        assert_int_equal(f.chooser.limit_seen, MASK32);
        assert_int_equal(books(&f).total, 128 * KIB);
        assert_int_equal(books(&f).in_regions, 128 * KIB);
        assert_int_equal(books(&f).low_total, 128 * KIB);
        stop(&f);
}

static void test_small_allocations_share_a_region_while_there_is_plenty(void **state) {
        struct fixture f;
        uint64_t device;
        unsigned i;

        start(&f, NULL);
        device = open_device(&f, MASK32);
        for (i = 0; i < 16; i++)
                take(&f, device, 4 * KIB);
        assert_int_equal(f.chooser.carves, 1);
        /* 64 KiB cannot be had: what is needed can. */
        f.chooser.room_in_one_piece = 8 * KIB;
        take(&f, device, 4 * KIB);
        assert_int_equal(f.chooser.carves, 3);
        assert_int_equal(books(&f).in_regions, 68 * KIB);
        stop(&f);
}

static void test_an_idle_region_is_used_again_and_goes_back_in_the_end(void **state) {
        struct fixture f;
        struct alloc_view view;
        uint64_t device;

        start(&f, NULL);
        device = open_device(&f, MASK32);
        view = take(&f, device, MIB);
        assert_int_equal(coherent_free(&f.caller, view.handle, NULL), 0);
        view = take(&f, device, MIB);
        assert_int_equal(f.chooser.carves, 1);
        assert_int_equal(coherent_free(&f.caller, view.handle, NULL), 0);
        f.now += 60 * 1000;
        broker_tick(f.broker);
        settle(&f);
        assert_int_equal(f.chooser.lives, 0);
        assert_int_equal(books(&f).total, 0);
        assert_int_equal(books(&f).low_total, 0);
        assert_int_equal(books(&f).lost, 0);
        stop(&f);
}

static void test_a_wide_mask_takes_stock_first_and_a_narrow_one_what_is_chosen(void **state) {
        struct fixture f;
        struct alloc_view view;

        start(&f, "64M@0x100000000");
        view = take(&f, open_device(&f, 0), MIB);
        assert_true(view.machine_addr >= 4 * GIB);
        assert_int_equal(f.chooser.carves, 0);
        view = take(&f, open_device(&f, MASK32), MIB);
        assert_int_equal(view.machine_addr, 256 * MIB);
        stop(&f);
}

static void test_wide_masks_leave_narrow_ones_their_share(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t wide, narrow;
        unsigned taken = 0;

        start(&f, "16M@0x100000000");
        wide = open_device(&f, 0);
        do {
                to = ask(&f, &(struct alloc_request){ .device = wide, .size = MIB });
                taken += !to.failure.error;
        } while (!to.failure.error && taken < 200);
        assert_int_equal(to.failure.error, ENOMEM);
        assert_in_range(taken, 32 + 8, 32 + 16);
        narrow = open_device(&f, MASK32);
        for (taken = 0; taken < 30; taken++)
                take(&f, narrow, MIB);
        stop(&f);
}

static void refuse(struct fixture *f, uint64_t next, const struct alloc_request *request, enum reason reason) {
        struct answer to;

        f->chooser.next = next;
        to = ask(f, request);
        assert_int_equal(to.failure.reason, reason);
        assert_non_null(strstr(to.failure.sentence, "chooser"));
        check(f);
}

static void test_a_place_that_does_not_serve_is_given_back_and_refused(void **state) {
        struct fixture f;
        struct alloc_view view;
        uint64_t device;

        start(&f, NULL);
        device = open_device(&f, MASK32);
        view = take(&f, device, MIB);
        refuse(&f, 4 * GIB - MIB, &(struct alloc_request){ .device = device, .size = 2 * MIB }, REASON_mask);
        refuse(&f, GIB + 4096, &(struct alloc_request){ .device = device, .size = MIB, .align = 65536 },
               REASON_no_contiguous);
        refuse(&f, GIB - 4096, &(struct alloc_request){ .device = device, .size = 128 * KIB, .boundary = 128 * KIB },
               REASON_no_contiguous);
        refuse(&f, GIB + 1, &(struct alloc_request){ .device = device, .size = 4096 }, REASON_source_unavailable);
        refuse(&f, view.machine_addr + MIB - 4096, &(struct alloc_request){ .device = device, .size = 8192 },
               REASON_source_unavailable);
        refuse(&f, UINT64_MAX - 4095, &(struct alloc_request){ .device = device, .size = 8192 },
               REASON_source_unavailable);
        assert_int_equal(f.chooser.lives, 1);
        assert_int_equal(books(&f).total, MIB);
        assert_int_equal(f.chooser.room, 63 * MIB);
        stop(&f);
}

static void test_a_place_that_is_in_stock_elsewhere_is_refused(void **state) {
        struct fixture f;

        start(&f, "64M@0x100000000");
        refuse(&f, 4 * GIB + 8 * MIB,
               &(struct alloc_request){ .device = open_device(&f, 0), .size = MIB, .mask = MASK32 },
               REASON_source_unavailable);
        stop(&f);
}

static void test_what_the_source_says_of_its_failure_is_the_answer(void **state) {
        struct fixture f;
        struct answer to;
        uint64_t device;

        start(&f, NULL);
        device = open_device(&f, MASK32);
        f.chooser.carve_status = -ENOMEM;
        to = ask(&f, &(struct alloc_request){ .device = device, .size = MIB });
        assert_int_equal(to.failure.reason, REASON_no_contiguous);
        assert_string_equal(to.failure.sentence, "the chooser has no such piece");
        assert_int_equal(books(&f).total, 0);
        /* For a moment it is not asked again. */
        to = ask(&f, &(struct alloc_request){ .device = device, .size = MIB });
        assert_int_equal(to.failure.error, ENOMEM);
        assert_int_equal(f.chooser.carves, 1);
        f.chooser.carve_status = 0;
        f.now += 5000;
        take(&f, device, MIB);
        stop(&f);
}

static void test_the_last_of_it_is_kept_for_high_priority(void **state) {
        struct alloc_request request = { .size = 64 * MIB };
        struct fixture f;
        struct answer to;

        start(&f, NULL);
        request.device = open_device(&f, MASK32);
        to = ask(&f, &request);
        assert_int_equal(to.failure.reason, REASON_no_memory);
        assert_non_null(strstr(to.failure.sentence, "high priority"));
        assert_int_equal(f.chooser.carves, 0);
        request.high = true;
        to = ask(&f, &request);
        assert_int_equal(to.failure.error, 0);
        stop(&f);
}

static void test_idle_regions_are_given_up_for_a_request_that_finds_nothing(void **state) {
        struct fixture f;
        struct alloc_view views[3];
        struct answer to;
        unsigned i;

        start(&f, NULL);
        for (i = 0; i < 3; i++)
                views[i] = take(&f, open_device(&f, MASK32), 20 * MIB);
        for (i = 0; i < 3; i++)
                assert_int_equal(coherent_free(&f.caller, views[i].handle, NULL), 0);
        to = ask(&f, &(struct alloc_request){ .device = open_device(&f, MASK32), .size = 40 * MIB });
        assert_int_equal(to.failure.error, 0);
        assert_int_equal(books(&f).total, 40 * MIB);
        stop(&f);
}

static void test_a_request_that_may_wait_is_served_when_memory_comes_back(void **state) {
        struct fixture f;
        struct alloc_view view;
        struct answer to = {};
        uint64_t device;

        start(&f, NULL);
        device = open_device(&f, MASK32);
        view = take(&f, device, 40 * MIB);
        assert_non_null(coherent_alloc(
                &f.caller, &(struct alloc_request){ .device = device, .size = 50 * MIB, .wait_ms = 1000 }, answer, &to));
        settle(&f);
        assert_false(to.given);
        assert_int_equal(coherent_free(&f.caller, view.handle, NULL), 0);
        settle(&f);
        assert_true(to.given);
        assert_int_equal(to.failure.error, 0);
        stop(&f);
}

static void test_a_request_that_nobody_wants_any_more_leaves_a_region_behind(void **state) {
        struct fixture f;
        struct answer to = {};
        struct ticket *ticket;

        start(&f, NULL);
        ticket = coherent_alloc(&f.caller, &(struct alloc_request){ .device = open_device(&f, MASK32), .size = MIB }, answer,
                                &to);
        assert_non_null(ticket);
        ticket_cancel(ticket);
        settle(&f);
        assert_false(to.given);
        assert_int_equal(books(&f).in_regions, MIB);
        stop(&f);
}

static void test_low_memory_of_an_owner_is_bounded_by_the_quota(void **state) {
        struct quota limits = {};
        struct fixture f;
        struct answer to;

        start(&f, NULL);
        f.caller.admin = true;
        limits.of[QUOTA_low_bytes] = MIB;
        assert_int_equal(quota_set(&f.caller, "user:1000", 1U << QUOTA_low_bytes, &limits, NULL), 0);
        f.caller.admin = false;
        to = ask(&f, &(struct alloc_request){ .device = open_device(&f, MASK32), .size = 2 * MIB });
        assert_int_equal(to.failure.reason, REASON_quota);
        /* Memory anywhere would do for this one, but there is no other. */
        to = ask(&f, &(struct alloc_request){ .device = open_device(&f, 0), .size = 2 * MIB });
        assert_int_equal(to.failure.reason, REASON_quota);
        assert_int_equal(f.chooser.carves, 0);
        take(&f, open_device(&f, 0), MIB);
        stop(&f);
}

static void test_memory_that_does_not_come_back_is_told_as_lost(void **state) {
        struct fixture f;
        struct alloc_view view;

        start(&f, NULL);
        view = take(&f, open_device(&f, MASK32), MIB);
        f.chooser.restore_status = -EBUSY;
        assert_int_equal(coherent_free(&f.caller, view.handle, NULL), 0);
        f.now += 60 * 1000;
        broker_tick(f.broker);
        settle(&f);
        assert_int_equal(books(&f).lost, MIB);
        assert_int_equal(books(&f).total, 0);
        stop(&f);
}

static void test_a_device_may_reserve_a_region_of_its_own(void **state) {
        struct fixture f;
        struct answer to = {};
        struct region_view region;
        uint64_t device;

        start(&f, NULL);
        device = open_device(&f, MASK32);
        device_reserve(&f.caller, &(struct reserve_request){ .device = device, .size = 4 * MIB }, answer, &to);
        settle(&f);
        assert_true(to.given);
        assert_int_equal(to.failure.error, 0);
        assert_int_equal(region_get(&f.caller, to.handle, &region, NULL), 0);
        assert_int_equal(region.machine_addr, 256 * MIB);
        assert_in_range(take(&f, device, MIB).machine_addr, 256 * MIB, 260 * MIB - 1);
        assert_int_equal(f.chooser.carves, 1);
        stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_region_lies_where_the_source_chose),
                cmocka_unit_test(test_small_allocations_share_a_region_while_there_is_plenty),
                cmocka_unit_test(test_an_idle_region_is_used_again_and_goes_back_in_the_end),
                cmocka_unit_test(test_a_wide_mask_takes_stock_first_and_a_narrow_one_what_is_chosen),
                cmocka_unit_test(test_wide_masks_leave_narrow_ones_their_share),
                cmocka_unit_test(test_a_place_that_does_not_serve_is_given_back_and_refused),
                cmocka_unit_test(test_a_place_that_is_in_stock_elsewhere_is_refused),
                cmocka_unit_test(test_what_the_source_says_of_its_failure_is_the_answer),
                cmocka_unit_test(test_the_last_of_it_is_kept_for_high_priority),
                cmocka_unit_test(test_idle_regions_are_given_up_for_a_request_that_finds_nothing),
                cmocka_unit_test(test_a_request_that_may_wait_is_served_when_memory_comes_back),
                cmocka_unit_test(test_a_request_that_nobody_wants_any_more_leaves_a_region_behind),
                cmocka_unit_test(test_low_memory_of_an_owner_is_bounded_by_the_quota),
                cmocka_unit_test(test_memory_that_does_not_come_back_is_told_as_lost),
                cmocka_unit_test(test_a_device_may_reserve_a_region_of_its_own),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
