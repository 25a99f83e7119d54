/* What a source that is for guests alone is asked, and what becomes of memory that its holders still have in use: the core over a
 * simulated source that says so. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/sources.h"
#include "daemon/iommu/none.h"
#include "tests/unit/core-fixture.h"

static struct {
        struct fixture f;
        struct source_ops ops;
        struct translator_ops granting; /* of what is called windows */
        bool is_for_all;       /* ... and everybody can map it */
        bool is_in_use;        /* what ends now is, for those that hold it */
        struct source_run run; /* that is awaited */
        uint64_t gone;         /* of it, since its domain is no more */
        unsigned reclaims, grows;
        uint64_t reserve, idle_ms; /* that it says it has */
        uint64_t limit, size; /* of the last GROW */
        bool keeps_low;       /* it looks no higher than 4 GiB, whatever the limit */
        void (*done)(struct source_job *job);
} bed;

static void describe(struct source *source, struct source_info *ret) {
        source_sim_ops.describe(source, ret);
        ret->flags |= SOURCE_AIMS | SOURCE_RETURNS | (bed.is_for_all ? 0 : SOURCE_GUESTS);
        ret->reserve = bed.reserve;
        ret->idle_ms = bed.idle_ms;
}

static void on_restored(struct source_job *job) {
        if (bed.is_in_use) {
                bed.run = job->arrived[0];
                source_job_deinit(job);
                job->status = -EBUSY;
                job->awaited = bed.run.size - bed.gone;
        }
        bed.done(job);
}

static void on_reclaimed(struct source_job *job) {
        bed.reclaims++;
        /* What a damaged ledger withholds is not to be taken by the way. */
        assert_true(job->later);
        job->status = bed.is_in_use ? -EBUSY : 0;
        job->awaited = bed.is_in_use ? bed.run.size : 0;
        if (!bed.is_in_use && bed.run.size)
                assert_int_equal(source_job_arrive(job, bed.run.addr, bed.run.size, bed.run.node), 0);
        bed.run.size = 0;
        bed.done(job);
}

static void submit(struct source *source, struct source_job *job) {
        if (job->kind == SOURCE_RESTORE || job->kind == SOURCE_RECLAIM) {
                bed.done = job->done;
                job->done = job->kind == SOURCE_RESTORE ? on_restored : on_reclaimed;
        }
        bed.grows += job->kind == SOURCE_GROW;
        if (job->kind == SOURCE_GROW)
                bed.limit = job->limit, bed.size = job->size, job->kept_low = bed.keeps_low;
        source_sim_ops.submit(source, job);
}

static int no_file(struct source_backing *backing) {
        return -1;
}

static int take_granted(const char *name, const char *owner, bool permitted, struct translation **ret,
                        struct translator_facts *ret_facts, struct failure *failure) {
        if (strcmp(name, "windows") != 0)
                return -ENODEV;
        return translator_identity_ops.attach(name, owner, permitted, ret, ret_facts, failure);
}

static int begin(void **state) {
        static const struct translator_ops *const translators[] = { &bed.granting, &translator_identity_ops, NULL };
        struct broker_options options;

        memset(&bed, 0, sizeof(bed));
        bed.granting = translator_identity_ops;
        bed.granting.attach = take_granted;
        bed.granting.flags |= TRANSLATOR_GRANTS;
        broker_options_default(&options);
        options.translators = translators;
        fixture_start_growing(&bed.f, "16M@0x10000000,64M@0x100000000", "0", &options);
        bed.ops = source_sim_ops;
        bed.ops.describe = describe;
        bed.ops.submit = submit;
        bed.ops.backing_fd = no_file;
        bed.f.source->ops = &bed.ops;
        fixture_source(&bed.f);
        return 0;
}

static int end(void **state) {
        fixture_stop(&bed.f);
        return 0;
}

static uint64_t reserve(uint64_t device, uint64_t mask) {
        const struct reserve_request request = { .device = device, .size = 2 * MIB, .mask = mask };
        struct answer answered = { 0 };

        device_reserve(&bed.f.caller, &request, answer, &answered);
        fixture_settle(&bed.f);
        return answer_handle(&answered);
}

static uint64_t windows(void) {
        return fixture_open(&bed.f.caller, &(struct device_options){ .name = "windows", .commons = true });
}

/* Which found memory when it came. */
static uint64_t open_host_device(const struct device_options *options) {
        uint64_t device;

        bed.is_for_all = true;
        fixture_source(&bed.f);
        device = fixture_open(&bed.f.caller, options);
        bed.is_for_all = false;
        fixture_source(&bed.f);
        return device;
}

static void test_others_get_none_and_nothing_is_taken_for_them(void **state) {
        const uint64_t device = open_host_device(&(struct device_options){ .name = "card" });
        struct answer answered = { 0 };

        coherent_alloc(&bed.f.caller, &(struct alloc_request){ .device = device, .size = 4096 }, answer, &answered);
        fixture_settle(&bed.f);
        require_refused(&answered, REASON_no_memory);
        assert_non_null(strstr(answered.failure.sentence, "what only guests can map"));
        assert_int_equal(fixture_source(&bed.f).total, 0);
}

static void test_windows_that_are_not_granted_get_none_either(void **state) {
        const uint64_t device = open_host_device(&(struct device_options){ .name = "others", .commons = true });
        const struct reserve_request request = { .device = device, .size = 2 * MIB };
        struct answer answered = { 0 };

        device_reserve(&bed.f.caller, &request, answer, &answered);
        fixture_settle(&bed.f);
        require_refused(&answered, REASON_no_memory);
        assert_int_equal(fixture_source(&bed.f).total, 0);
}

static void test_it_counts_for_nobody_elses_promises(void **state) {
        const struct caller admin = { .session = bed.f.caller.session, .admin = true };
        struct failure failure = { 0 };
        struct answer answered = { 0 };
        struct promises promises;
        uint64_t device;

        assert_int_equal(guarantee_set(&admin, NULL, &(struct guarantee){ .bytes = MIB }, &failure), -ENOMEM);
        device = open_host_device(&(struct device_options){ .name = "card" });
        pool_create(&bed.f.caller, &(struct pool_options){ .name = "p", .device = device, .size = 4096, .reserve = 16 },
                    answer, &answered);
        fixture_settle(&bed.f);
        require_refused(&answered, REASON_no_memory);
        assert_non_null(strstr(answered.failure.sentence, "more memory than there is"));
        /* It does for those of a guest's that is granted its windows. */
        device = windows();
        assert_int_equal(guarantee_set(&admin, NULL, &(struct guarantee){ .bytes = 8 * MIB }, &failure), 0);
        reserve(device, 0);
        broker_promises(bed.f.broker, true, &promises);
        assert_int_equal(promises.guaranteed.bytes, 8 * MIB);
        assert_int_equal(promises.unmet.bytes, 6 * MIB);
        broker_promises(bed.f.broker, false, &promises);
        assert_int_equal(promises.guaranteed.bytes + promises.unmet.bytes + promises.possible.bytes, 0);
        fixture_check(&bed.f);
}

static void test_no_mask_is_served_by_it(void **state) {
        struct failure failure = { 0 };
        uint64_t device;

        assert_true(device_open(&bed.f.caller, &(struct device_options){ .name = "card", .mask = UINT64_MAX, .node = -1 },
                                &device, &failure) < 0);
        require_failure(&failure, REASON_mask);
        assert_non_null(strstr(failure.sentence, "but for what only guests can map"));
}

static void test_a_region_without_a_file_is_written_but_not_passed(void **state) {
        const uint64_t region = reserve(windows(), 0);
        struct failure failure = { 0 };
        int fd;

        assert_int_equal(region_fd(&bed.f.caller, region, &fd, &failure), -EOPNOTSUPP);
        assert_non_null(strstr(failure.sentence, "no file"));
        assert_int_equal(region_write(&bed.f.caller, region, 2 * MIB - 4, "here", 4, &failure), 0);
        assert_int_equal(region_write(&bed.f.caller, region, 2 * MIB - 3, "here", 4, &failure), -EINVAL);
        assert_int_equal(region_write(&bed.f.caller, region + 1000, 0, "here", 4, &failure), -ENOENT);
}

static void test_a_source_that_aims_is_told_the_mask(void **state) {
        reserve(windows(), MASK32);
        assert_int_equal(bed.limit, MASK32);
}

/* What is scarce is not taken in advance, */
static void test_below_a_narrow_mask_no_more_is_taken_than_is_needed(void **state) {
        const uint64_t device = windows();

        for (unsigned i = 0; i < 3; i++)
                reserve(device, 0);
        assert_true(bed.size > 2 * MIB);
        reserve(device, MASK32);
        assert_int_equal(bed.limit, MASK32);
        assert_int_equal(bed.size, 2 * MIB);
}

/* nor used by those that can have other memory, which has not been asked for yet. */
static void test_memory_that_had_to_be_low_does_not_say_where_the_rest_is(void **state) {
        const uint64_t device = windows(), region = reserve(device, MASK32);
        struct failure failure = { 0 };
        struct source_view view;

        assert_int_equal(device_unreserve(&bed.f.caller, device, region, &failure), 0);
        fixture_settle(&bed.f);
        bed.keeps_low = true;
        reserve(device, 0);
        view = fixture_source(&bed.f);
        assert_true(view.low_total > 0);
        assert_int_equal(view.low_free, view.low_total);
}

static void test_what_is_in_use_is_awaited_and_not_lost(void **state) {
        const uint64_t device = windows(), region = reserve(device, 0);
        uint64_t total = fixture_source(&bed.f).total;
        struct failure failure = { 0 };

        bed.is_in_use = true;
        assert_int_equal(device_unreserve(&bed.f.caller, device, region, &failure), 0);
        fixture_settle(&bed.f);
        assert_int_equal(fixture_source(&bed.f).total, total - 2 * MIB);
        assert_int_equal(fixture_source(&bed.f).lost, 0);
        assert_int_equal(fixture_source(&bed.f).awaited, 2 * MIB);
        fixture_check(&bed.f);
        for (unsigned i = 1; i <= 3; i++) {
                bed.run.size = 2 * MIB;
                fixture_pass(&bed.f, 1000);
                assert_int_equal(bed.reclaims, i);
        }
        assert_int_equal(fixture_source(&bed.f).lost, 0);
        bed.run.size = 2 * MIB;
        bed.is_in_use = false;
        fixture_pass(&bed.f, 1000);
        assert_int_equal(bed.reclaims, 4);
        assert_int_equal(fixture_source(&bed.f).total, total);
        assert_int_equal(fixture_source(&bed.f).free, total);
        /* And then it is asked no more. */
        fixture_pass(&bed.f, 5000);
        assert_int_equal(bed.reclaims, 4);
}

/* Though it is of the same region as what is awaited, or was awaited itself. */
static void test_what_is_gone_is_lost(void **state) {
        const uint64_t device = windows(), region = reserve(device, 0);
        struct failure failure = { 0 };

        bed.is_in_use = true;
        bed.gone = 4096;
        assert_int_equal(device_unreserve(&bed.f.caller, device, region, &failure), 0);
        fixture_settle(&bed.f);
        assert_int_equal(fixture_source(&bed.f).lost, 4096);
        assert_int_equal(fixture_source(&bed.f).awaited, 2 * MIB - 4096);
        bed.run.size = MIB;
        fixture_pass(&bed.f, 1000);
        assert_int_equal(fixture_source(&bed.f).lost, MIB);
        assert_int_equal(fixture_source(&bed.f).awaited, MIB);
        bed.is_in_use = false;
        fixture_pass(&bed.f, 1000);
        assert_int_equal(fixture_source(&bed.f).lost, 2 * MIB);
        assert_int_equal(fixture_source(&bed.f).awaited, 0);
}

/* What a guest never lets go of stops nobody else's from going back, */
static void test_what_is_awaited_keeps_no_stock_from_going_back(void **state) {
        const uint64_t device = windows(), region = reserve(device, 0);
        struct failure failure = { 0 };

        bed.is_in_use = true;
        bed.idle_ms = 3000;
        assert_int_equal(device_unreserve(&bed.f.caller, device, region, &failure), 0);
        fixture_settle(&bed.f);
        assert_true(fixture_source(&bed.f).free > 0);
        for (unsigned i = 0; i < 5; i++)
                fixture_pass(&bed.f, 1000);
        assert_int_equal(fixture_source(&bed.f).free, 0);
}

/* and is not made up for again and again. */
static void test_a_reserve_that_cannot_be_had_is_not_asked_for_each_second(void **state) {
        const uint64_t device = windows(), region = reserve(device, 0);
        struct failure failure = { 0 };
        unsigned grows;

        bed.is_in_use = true;
        bed.reserve = UINT64_C(1) << 40;
        assert_int_equal(device_unreserve(&bed.f.caller, device, region, &failure), 0);
        fixture_settle(&bed.f);
        grows = bed.grows;
        for (unsigned i = 0; i < 5; i++)
                fixture_pass(&bed.f, 1000);
        assert_int_equal(bed.grows, grows);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        const struct CMUnitTest tests[] = {
                TEST(test_others_get_none_and_nothing_is_taken_for_them),
                TEST(test_windows_that_are_not_granted_get_none_either),
                TEST(test_it_counts_for_nobody_elses_promises),
                TEST(test_no_mask_is_served_by_it),
                TEST(test_a_region_without_a_file_is_written_but_not_passed),
                TEST(test_a_source_that_aims_is_told_the_mask),
                TEST(test_below_a_narrow_mask_no_more_is_taken_than_is_needed),
                TEST(test_memory_that_had_to_be_low_does_not_say_where_the_rest_is),
                TEST(test_what_is_in_use_is_awaited_and_not_lost),
                TEST(test_what_is_gone_is_lost),
                TEST(test_what_is_awaited_keeps_no_stock_from_going_back),
                TEST(test_a_reserve_that_cannot_be_had_is_not_asked_for_each_second),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
