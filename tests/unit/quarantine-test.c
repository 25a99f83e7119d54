/* What rests because a device may still write it: which, how long, and who ends it. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/iommu/none.h"
#include "tests/unit/core-fixture.h"

enum { VIEWS_MAX = 64 };

struct views {
        struct quarantine_view at[VIEWS_MAX];
        size_t n;
};

static int add_view(const struct quarantine_view *view, void *userdata) {
        struct views *views = userdata;

        assert_true(views->n < VIEWS_MAX);
        views->at[views->n++] = *view;
        return 0;
}

static struct caller admin_of(struct fixture *f) {
        struct caller admin = fixture_session(f, "user:0");

        admin.admin = true;
        return admin;
}

static struct views list(const struct caller *caller, const char *owner) {
        struct views views = {};

        assert_int_equal(quarantine_visit(caller, owner, 0, add_view, &views, NULL), 0);
        return views;
}

static void start(struct fixture *f) {
        fixture_start(f, "64M@0x140000000", NULL);
}

static struct alloc_view take(struct fixture *f, const struct caller *caller, const char *device, uint64_t size) {
        uint64_t handle = fixture_open(caller, &(struct device_options){ .name = device });

        return fixture_alloc(f, caller, &(struct alloc_request){ .device = handle, .size = size });
}

static void say(struct fixture *f, const char *device, uint64_t ms) {
        const struct device_options options = { .name = device, .quarantine_ms = ms, .node = -1 };

        assert_int_equal(broker_define_device(f->broker, &options, true, NULL), 0);
}

static struct lease_view lease_blocks(struct fixture *f, const struct caller *caller, uint64_t pool, uint64_t count) {
        struct answer to = {};
        struct lease_view view;

        pool_lease(caller, &(struct pool_request){ .pool = pool, .count = count }, answer, &to);
        fixture_settle(f);
        assert_int_equal(lease_get(caller, answer_handle(&to), &view, NULL), 0);
        return view;
}

static uint64_t make_pool(struct fixture *f, const struct caller *caller, const char *device) {
        uint64_t handle = fixture_open(caller, &(struct device_options){ .name = device });
        struct answer to = {};

        pool_create(caller, &(struct pool_options){ .name = "ring", .device = handle, .size = 64 }, answer, &to);
        fixture_settle(f);
        return answer_handle(&to);
}

static uint64_t make_bounce(struct fixture *f, const struct caller *caller, const char *device) {
        uint64_t handle = fixture_open(caller, &(struct device_options){ .name = device });
        struct answer to = {};

        bounce_create(caller, &(struct bounce_options){ .device = handle, .size = MIB }, answer, &to);
        fixture_settle(f);
        return answer_handle(&to);
}

static struct mapping_view map(struct fixture *f, const struct caller *caller, uint64_t bounce, uint64_t size) {
        struct answer to = {};
        struct mapping_view view;

        bounce_map(caller, &(struct bounce_request){ .bounce = bounce, .size = size }, answer, &to);
        fixture_settle(f);
        assert_int_equal(mapping_get(caller, answer_handle(&to), &view, NULL), 0);
        return view;
}

static void test_everything_that_rests_is_told(void **state) {
        struct caller vanishing;
        struct alloc_view alloc;
        struct lease_view lease;
        struct mapping_view mapping;
        struct views views;
        struct fixture f;
        uint64_t pool, bounce;

        start(&f);
        vanishing = fixture_session(&f, NULL);
        pool = make_pool(&f, &f.caller, "nic");
        bounce = make_bounce(&f, &f.caller, "disk");
        assert_int_equal(list(&f.caller, NULL).n, 0);
        assert_int_equal(broker_quarantined(f.broker), 0);

        lease = lease_blocks(&f, &vanishing, pool, 3);
        mapping = map(&f, &vanishing, bounce, 5000);
        alloc = take(&f, &vanishing, "gpu", 8192);
        session_abandon(vanishing.session);
        fixture_pass(&f, 300);
        views = list(&f.caller, NULL);
        assert_int_equal(views.n, 3);
        assert_int_equal(broker_quarantined(f.broker), 3 * 64 + 3 * 2048 + 8192);
        for (size_t i = 0; i < views.n; i++) {
                assert_string_equal(views.at[i].owner, "user:1000");
                assert_int_equal(views.at[i].reason, QUARANTINE_VANISHED);
                assert_int_equal(views.at[i].age_ms, 300);
                assert_int_equal(views.at[i].left_ms, 700);
                assert_true(views.at[i].simulated);
                assert_true(!i || views.at[i].id > views.at[i - 1].id);
        }
        /* In the order in which a session's things end. */
        assert_int_equal(views.at[0].what, QUARANTINE_SLOTS);
        assert_string_equal(views.at[0].device_name, "disk");
        assert_int_equal(views.at[0].bounce, bounce);
        assert_int_equal(views.at[0].machine_addr, mapping.machine_addr);
        assert_int_equal(views.at[0].bytes, 3 * 2048);
        assert_int_equal(views.at[0].count, 3);
        assert_int_equal(views.at[1].what, QUARANTINE_BLOCKS);
        assert_string_equal(views.at[1].device_name, "nic");
        assert_int_equal(views.at[1].pool, pool);
        assert_int_equal(views.at[1].machine_addr, lease.machine_addr);
        assert_int_equal(views.at[1].bytes, 3 * 64);
        assert_int_equal(views.at[1].count, 3);
        assert_int_equal(views.at[2].what, QUARANTINE_ALLOC);
        assert_string_equal(views.at[2].device_name, "gpu");
        assert_int_equal(views.at[2].machine_addr, alloc.machine_addr);
        assert_int_equal(views.at[2].region, alloc.region);
        assert_int_equal(views.at[2].bytes, 8192);
        assert_int_equal(views.at[2].count, 1);
        fixture_check(&f);
        fixture_pass(&f, 700);
        assert_int_equal(list(&f.caller, NULL).n, 0);
        assert_int_equal(broker_quarantined(f.broker), 0);
        fixture_stop(&f);
}

static void test_a_list_goes_on_after_an_id(void **state) {
        struct views views = {}, all;
        struct caller vanishing;
        struct fixture f;

        start(&f);
        vanishing = fixture_session(&f, NULL);
        for (int i = 0; i < 5; i++)
                take(&f, &vanishing, "gpu", 4096);
        session_abandon(vanishing.session);
        all = list(&f.caller, NULL);
        assert_int_equal(all.n, 5);
        assert_int_equal(quarantine_visit(&f.caller, NULL, all.at[2].id, add_view, &views, NULL), 0);
        assert_int_equal(views.n, 2);
        assert_int_equal(views.at[0].id, all.at[3].id);
        fixture_stop(&f);
}

static void test_an_owner_sees_only_what_was_its_own(void **state) {
        struct caller mine, others, admin;
        struct failure failure = {};
        struct fixture f;

        start(&f);
        admin = admin_of(&f);
        mine = fixture_session(&f, "user:1000");
        others = fixture_session(&f, "user:2000");
        take(&f, &mine, "nic", 4096);
        take(&f, &others, "nic", 8192);
        session_abandon(mine.session);
        session_abandon(others.session);
        assert_int_equal(list(&f.caller, NULL).n, 1);
        assert_int_equal(list(&f.caller, "user:1000").n, 1);
        assert_int_equal(quarantine_visit(&f.caller, "user:2000", 0, add_view, &(struct views){}, &failure), -EPERM);
        require_failure(&failure, REASON_not_permitted);
        assert_int_equal(list(&admin, NULL).n, 2);
        assert_int_equal(list(&admin, "user:2000").n, 1);
        assert_int_equal(list(&admin, "user:3000").n, 0);
        fixture_stop(&f);
}

static void test_an_administrators_word_ends_it(void **state) {
        struct caller vanishing, admin;
        struct failure failure = {};
        struct alloc_view alloc;
        struct views views;
        struct fixture f;
        uint64_t pool, bytes = 0, addr;

        start(&f);
        admin = admin_of(&f);
        pool = make_pool(&f, &f.caller, "nic");
        vanishing = fixture_session(&f, NULL);
        lease_blocks(&f, &vanishing, pool, 3);
        lease_blocks(&f, &vanishing, pool, 2);
        map(&f, &vanishing, make_bounce(&f, &f.caller, "disk"), 2048);
        alloc = take(&f, &vanishing, "gpu", 8192);
        session_abandon(vanishing.session);
        vanishing = fixture_session(&f, "user:2000");
        take(&f, &vanishing, "gpu", 4096);
        session_abandon(vanishing.session);

        assert_int_equal(quarantine_release(&f.caller, NULL, NULL, &bytes, &failure), -EPERM);
        require_failure(&failure, REASON_not_permitted);
        /* Any address inside. */
        addr = alloc.machine_addr + 5000;
        assert_int_equal(quarantine_release(&admin, NULL, &addr, &bytes, NULL), 0);
        assert_int_equal(bytes, 8192);
        assert_int_equal(quarantine_release(&admin, NULL, &addr, &bytes, &failure), -EFAULT);
        require_failure(&failure, REASON_bad_address);
        assert_int_equal(list(&admin, NULL).n, 4);
        views = list(&admin, "user:1000");
        assert_int_equal(views.n, 3);
        for (size_t i = 0; i < views.n; i++) {
                addr = views.at[i].machine_addr;
                if (views.at[i].what == QUARANTINE_BLOCKS && views.at[i].count == 3)
                        addr += 2 * 64;
                else if (views.at[i].what != QUARANTINE_SLOTS)
                        continue;
                assert_int_equal(quarantine_release(&admin, "user:2000", &addr, &bytes, NULL), -EFAULT);
                assert_int_equal(quarantine_release(&admin, NULL, &addr, &bytes, NULL), 0);
                assert_int_equal(bytes, views.at[i].bytes);
        }
        fixture_check(&f);
        assert_int_equal(quarantine_release(&admin, "user:1000", NULL, &bytes, NULL), 0);
        assert_int_equal(bytes, 2 * 64);
        assert_int_equal(list(&admin, NULL).n, 1);
        assert_int_equal(quarantine_release(&admin, NULL, NULL, &bytes, NULL), 0);
        assert_int_equal(bytes, 4096);
        assert_int_equal(quarantine_release(&admin, NULL, NULL, &bytes, NULL), 0);
        assert_int_equal(bytes, 0);
        fixture_check(&f);
        fixture_stop(&f);
}

static void test_whoever_waits_gets_what_is_released(void **state) {
        struct caller vanishing, other, admin;
        struct answer to = {};
        struct fixture f;
        uint64_t device, bytes;

        start(&f);
        admin = admin_of(&f);
        vanishing = fixture_session(&f, NULL);
        take(&f, &vanishing, "gpu", 48 * MIB);
        session_abandon(vanishing.session);
        other = fixture_session(&f, "user:2000");
        device = fixture_open(&other, &(struct device_options){ .name = "nic" });
        coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = 32 * MIB, .wait_ms = 5000 }, answer, &to);
        fixture_settle(&f);
        assert_false(to.given);
        assert_int_equal(quarantine_release(&admin, NULL, NULL, &bytes, NULL), 0);
        fixture_settle(&f);
        answer_handle(&to);
        fixture_stop(&f);
}

static void test_of_one_region_all_may_end_but_what_is_a_pools(void **state) {
        struct caller vanishing, admin;
        struct failure failure = {};
        struct alloc_view alloc;
        struct views views;
        struct fixture f;

        start(&f);
        admin = admin_of(&f);
        vanishing = fixture_session(&f, NULL);
        lease_blocks(&f, &vanishing, make_pool(&f, &f.caller, "nic"), 3);
        alloc = take(&f, &vanishing, "gpu", 8192);
        session_abandon(vanishing.session);
        vanishing = fixture_session(&f, "user:2000");
        take(&f, &vanishing, "gpu", 4096);
        session_abandon(vanishing.session);
        assert_int_equal(quarantine_release_region(&f.caller, alloc.region, &failure), -EPERM);
        require_failure(&failure, REASON_not_permitted);
        assert_int_equal(quarantine_release_region(&admin, 4711, &failure), -ENOENT);
        views = list(&admin, NULL);
        assert_int_equal(views.at[0].what, QUARANTINE_BLOCKS);
        assert_int_equal(quarantine_release_region(&admin, views.at[0].region, &failure), 0);
        assert_int_equal(list(&admin, NULL).n, 3);
        assert_int_equal(quarantine_release_region(&admin, alloc.region, &failure), 0);
        assert_int_equal(broker_quarantined(f.broker), 3 * 64 + 4096);
        fixture_stop(&f);
}

static void test_each_device_has_its_time(void **state) {
        struct caller vanishing, admin;
        struct views views;
        struct fixture f;
        uint64_t bytes;

        start(&f);
        admin = admin_of(&f);
        say(&f, "slow", 10000);
        say(&f, "fast", 10);
        say(&f, "strange", QUARANTINE_ENDLESS);
        vanishing = fixture_session(&f, NULL);
        take(&f, &vanishing, "slow", 4096);
        take(&f, &vanishing, "nic", 4096);
        take(&f, &vanishing, "strange", 8192);
        take(&f, &vanishing, "fast", 4096);
        session_abandon(vanishing.session);
        assert_int_equal(broker_deadline(f.broker), f.now + 10);
        fixture_pass(&f, 10);
        assert_int_equal(list(&f.caller, NULL).n, 3);
        assert_int_equal(broker_deadline(f.broker), f.now + 990);
        fixture_pass(&f, 990);
        assert_int_equal(list(&f.caller, NULL).n, 2);
        fixture_pass(&f, 9000);
        views = list(&f.caller, NULL);
        assert_int_equal(views.n, 1);
        assert_string_equal(views.at[0].device_name, "strange");
        assert_int_equal(views.at[0].left_ms, QUARANTINE_ENDLESS);
        fixture_pass(&f, UINT64_C(1) << 40);
        assert_int_equal(list(&f.caller, NULL).n, 1);
        assert_int_equal(quarantine_release(&admin, NULL, NULL, &bytes, NULL), 0);
        assert_int_equal(bytes, 8192);
        fixture_stop(&f);
}

/* What rests already keeps the time that it was given. */
static void test_another_time_is_for_what_comes_to_rest_later(void **state) {
        struct broker_options options;
        struct caller vanishing;
        struct fixture f;

        start(&f);
        vanishing = fixture_session(&f, NULL);
        take(&f, &vanishing, "nic", 4096);
        session_abandon(vanishing.session);
        broker_options_default(&options);
        options.quarantine_ms = 0;
        broker_reconfigure(f.broker, &options);
        vanishing = fixture_session(&f, NULL);
        take(&f, &vanishing, "nic", 4096);
        session_abandon(vanishing.session);
        assert_int_equal(list(&f.caller, NULL).n, 1);
        fixture_pass(&f, 999);
        assert_int_equal(list(&f.caller, NULL).n, 1);
        fixture_pass(&f, 1);
        assert_int_equal(list(&f.caller, NULL).n, 0);
        fixture_stop(&f);
}

/* Many that come and go in any order: each is there exactly as long as it should. */
static void test_whatever_the_order_each_rests_for_its_own_time(void **state) {
        static const uint64_t times[] = { 3, 17, 40, 1000, 250, 90 };
        enum { DEVICES = sizeof(times) / sizeof(*times), SESSIONS = 300 };
        struct { uint64_t addr, until; } items[SESSIONS];
        struct caller admin;
        uint64_t random = 12345, bytes;
        struct fixture f;
        char name[16];

        start(&f);
        admin = admin_of(&f);
        for (size_t i = 0; i < DEVICES; i++) {
                snprintf(name, sizeof(name), "device%zu", i);
                say(&f, name, times[i]);
        }
        for (size_t i = 0; i < SESSIONS; i++) {
                struct caller vanishing = fixture_session(&f, NULL);
                size_t device, there = 0, freed;
                struct views views = {};

                random = random * UINT64_C(6364136223846793005) + 1;
                device = (random >> 33) % DEVICES;
                snprintf(name, sizeof(name), "device%zu", device);
                items[i].addr = take(&f, &vanishing, name, 4096).machine_addr;
                items[i].until = f.now + times[device];
                session_abandon(vanishing.session);
                freed = (random >> 40) % (i + 1);
                if (i % 3 == 0 && items[freed].until > f.now) {
                        assert_int_equal(quarantine_release(&admin, NULL, &items[freed].addr, &bytes, NULL), 0);
                        items[freed].until = 0;
                }
                fixture_check(&f);
                fixture_pass(&f, (random >> 50) % 13);
                for (size_t j = 0; j <= i; j++)
                        there += items[j].until > f.now;
                quarantine_visit(&admin, NULL, 0, add_view, &views, NULL);
                assert_int_equal(views.n, there);
        }
        fixture_stop(&f);
}

static int attach_safe(const char *name, const char *owner, bool permitted, struct translation **ret,
                       struct translator_facts *ret_facts, struct failure *failure) {
        if (strncmp(name, "safe", 4) != 0)
                return -ENODEV;
        return translator_identity_ops.attach(name, owner, permitted, ret, ret_facts, failure);
}

/* Devices whose names begin with `safe` are behind an IOMMU. */
static void start_protected(struct fixture *f) {
        static const struct translator_ops *translators[] = { NULL, &translator_identity_ops, NULL };
        static struct translator_ops protects;
        struct broker_options options;

        protects = translator_identity_ops;
        protects.name = "iommu";
        protects.attach = attach_safe;
        protects.flags = TRANSLATOR_PROTECTS;
        translators[0] = &protects;
        broker_options_default(&options);
        options.translators = translators;
        fixture_start(f, "64M@0x140000000", &options);
}

static void test_what_a_translation_protects_need_not_rest_once_it_is_unmapped(void **state) {
        struct caller vanishing, other;
        struct views views;
        struct fixture f;
        uint64_t pool;

        start_protected(&f);
        vanishing = fixture_session(&f, NULL);
        take(&f, &vanishing, "safe", 8192);
        take(&f, &vanishing, "nic", 4096);
        session_abandon(vanishing.session);
        views = list(&f.caller, NULL);
        assert_int_equal(views.n, 1);
        assert_string_equal(views.at[0].device_name, "nic");

        /* The slab of a pool stays mapped as long as the pool lives. */
        other = fixture_session(&f, NULL);
        pool = make_pool(&f, &other, "safe");
        vanishing = fixture_session(&f, NULL);
        lease_blocks(&f, &vanishing, pool, 2);
        session_abandon(vanishing.session);
        assert_int_equal(list(&f.caller, NULL).n, 2);
        assert_int_equal(pool_destroy(&other, pool, true, NULL, NULL, NULL), 0);
        assert_int_equal(list(&f.caller, NULL).n, 1);
        fixture_check(&f);
        fixture_stop(&f);
}

/* Map an allocation for another device of another session, which vanishes; or its mapping is ended from under it. */
static struct mapping_view map_for(struct fixture *f, const struct caller *caller, const char *device, uint64_t alloc) {
        struct mapping_request request = { .alloc = alloc, .direction = DMA_BIDIRECTIONAL };
        struct mapping_view view;
        uint64_t handle;

        request.device = fixture_open(caller, &(struct device_options){ .name = device });
        assert_int_equal(mapping_map(caller, &request, &handle, NULL), 0);
        assert_int_equal(mapping_get(caller, handle, &view, NULL), 0);
        return view;
}

static struct alloc_view take_shareable(struct fixture *f, const struct caller *caller, const char *device) {
        uint64_t handle = fixture_open(caller, &(struct device_options){ .name = device });

        return fixture_alloc(f, caller, &(struct alloc_request){ .device = handle, .size = 8192, .shareable = true });
}

static void test_what_a_vanished_client_had_mapped_rests_when_its_owner_frees_it(void **state) {
        struct caller vanishing;
        struct alloc_view alloc;
        struct views views;
        struct fixture f;

        start_protected(&f);
        for (int i = 0; i < 2; i++) {
                alloc = take_shareable(&f, &f.caller, "safe");
                vanishing = fixture_session(&f, NULL);
                map_for(&f, &vanishing, "nic", alloc.handle);
                session_abandon(vanishing.session);
                /* It is in use, and rests only if it is freed too early. */
                assert_int_equal(list(&f.caller, NULL).n, 0);
                fixture_pass(&f, i ? 1000 : 400);
                assert_int_equal(coherent_free(&f.caller, alloc.handle, NULL), 0);
                views = list(&f.caller, NULL);
                assert_int_equal(views.n, i ? 0 : 1);
                assert_true(i || views.at[0].left_ms == 600);
                fixture_check(&f);
                fixture_pass(&f, 600);
                assert_int_equal(list(&f.caller, NULL).n, 0);
        }
        alloc = take_shareable(&f, &f.caller, "nic");
        vanishing = fixture_session(&f, NULL);
        map_for(&f, &vanishing, "safe2", alloc.handle);
        session_abandon(vanishing.session);
        assert_int_equal(coherent_free(&f.caller, alloc.handle, NULL), 0);
        assert_int_equal(list(&f.caller, NULL).n, 0);
        fixture_stop(&f);
}

static int ignore(const struct leak_view *leak, void *userdata) {
        return 0;
}

static void test_what_a_device_has_mapped_rests_when_it_is_taken_from_under_it(void **state) {
        struct caller leaving, other;
        struct alloc_view alloc;
        struct views views;
        struct fixture f;

        start_protected(&f);
        other = fixture_session(&f, NULL);
        leaving = fixture_session(&f, NULL);
        alloc = take_shareable(&f, &leaving, "gpu");
        map_for(&f, &other, "nic", alloc.handle);
        assert_int_equal(device_close(&leaving, alloc.device, true, ignore, NULL, NULL), 0);
        views = list(&f.caller, NULL);
        assert_int_equal(views.n, 1);
        assert_int_equal(views.at[0].machine_addr, alloc.machine_addr);
        fixture_check(&f);
        fixture_pass(&f, 1000);

        alloc = take_shareable(&f, &leaving, "gpu");
        map_for(&f, &other, "nic", alloc.handle);
        session_close(leaving.session);
        assert_int_equal(list(&f.caller, NULL).n, 1);
        fixture_check(&f);
        fixture_stop(&f);
}

/* A table that was made before there were flags. */
static void test_an_older_translator_protects_nothing(void **state) {
        struct translator_ops ops = translator_identity_ops;

        ops.flags = TRANSLATOR_PROTECTS;
        assert_true(translator_protects(&ops));
        ops.struct_size = offsetof(struct translator_ops, flags);
        assert_false(translator_protects(&ops));
}

static void test_what_was_given_back_in_order_does_not_rest(void **state) {
        struct caller leaving;
        struct fixture f;

        start(&f);
        leaving = fixture_session(&f, NULL);
        lease_blocks(&f, &leaving, make_pool(&f, &f.caller, "nic"), 3);
        take(&f, &leaving, "gpu", 8192);
        session_close(leaving.session);
        assert_int_equal(list(&f.caller, NULL).n, 0);
        fixture_stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_everything_that_rests_is_told),
                cmocka_unit_test(test_a_list_goes_on_after_an_id),
                cmocka_unit_test(test_an_owner_sees_only_what_was_its_own),
                cmocka_unit_test(test_an_administrators_word_ends_it),
                cmocka_unit_test(test_of_one_region_all_may_end_but_what_is_a_pools),
                cmocka_unit_test(test_whoever_waits_gets_what_is_released),
                cmocka_unit_test(test_each_device_has_its_time),
                cmocka_unit_test(test_another_time_is_for_what_comes_to_rest_later),
                cmocka_unit_test(test_whatever_the_order_each_rests_for_its_own_time),
                cmocka_unit_test(test_what_a_translation_protects_need_not_rest_once_it_is_unmapped),
                cmocka_unit_test(test_what_a_vanished_client_had_mapped_rests_when_its_owner_frees_it),
                cmocka_unit_test(test_what_a_device_has_mapped_rests_when_it_is_taken_from_under_it),
                cmocka_unit_test(test_an_older_translator_protects_nothing),
                cmocka_unit_test(test_what_was_given_back_in_order_does_not_rest),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
