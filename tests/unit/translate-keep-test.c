/* Devices behind an IOMMU, over the daemon's death: what it has mapped is mapped still, and what has become of a device meanwhile
 * keeps nobody from starting, and gives its memory to nobody. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"
#include "tests/unit/keep-fixture.h"
#include "tests/unit/ledger-fixture.h"

#include "daemon/core/broker.h"

#define MIB (UINT64_C(1) << 20)

/* The IOMMU that the test has: it outlives brokers. */
static struct translation {
        uint64_t next; /* dma address */
        unsigned n_restored;
        int attach_error, restore_error;
        bool blocked, restored;
} own;

static int own_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                      struct translator_facts *ret_facts, struct failure *failure) {
        if (strcmp(name, "own") != 0)
                return -ENODEV;
        if (own.attach_error)
                return failure_set_errno(failure, REASON_busy, -own.attach_error, "Somebody else has it");
        *ret = &own;
        *ret_facts = (struct translator_facts){ .node = -1, .mask = UINT64_MAX };
        strcpy(ret_facts->name, name);
        return 0;
}

static void own_detach(struct translation *translation) {
}

static int own_map(struct translation *translation, const struct translator_run *run, uint64_t *ret_dma,
                   struct failure *failure) {
        *ret_dma = own.next += 4 * MIB;
        return 0;
}

static int own_unmap(struct translation *translation, uint64_t dma_addr, uint64_t size) {
        return 0;
}

static bool own_serves(const struct translation *translation, uint64_t mask) {
        return true;
}

static int own_restore(struct translation *translation, const struct translator_run *run, uint64_t dma_addr,
                       struct failure *failure) {
        assert_false(own.restored);
        if (own.restore_error)
                return failure_set_errno(failure, REASON_mapping_limit, -own.restore_error, "It takes no more");
        own.n_restored++;
        return 0;
}

static void own_restored(void) {
        own.restored = true;
}

static void own_committed(void) {
}

static int own_device_fd(struct translation *translation) {
        return -1;
}

static const struct translator_ops own_ops = {
        .struct_size = sizeof(struct translator_ops), .version = TRANSLATOR_OPS_VERSION, .name = "iommu",
        .attach = own_attach, .detach = own_detach, .map = own_map, .unmap = own_unmap,
        .flags = TRANSLATOR_PROTECTS | TRANSLATOR_TRANSLATES, .serves = own_serves, .restore = own_restore,
        .restored = own_restored, .committed = own_committed, .device_fd = own_device_fd,
};

/* The identity, in whose way an IOMMU may come. */
static int plain_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                        struct translator_facts *ret_facts, struct failure *failure) {
        int r = translator_identity_ops.attach(name, owner, permitted, ret, ret_facts, failure);

        ret_facts->blocked = own.blocked;
        return r;
}

struct scene {
        struct memory_ledger *ledger;
        struct broker *broker;
        struct life life;
        struct caller caller;
        uint64_t alloc; /* of the device behind the IOMMU, mapped for another one that has machine addresses */
        struct alloc_view view;
};

static uint64_t now(void *userdata) {
        return 1000;
}

static void settle(struct scene *s) {
        while (!broker_settled(s->broker)) {
                assert_int_equal(broker_commit(s->broker), 0);
                s->life.ops->wait(s->life.source);
                s->life.ops->dispatch(s->life.source);
        }
        assert_int_equal(broker_commit(s->broker), 0);
}

static struct broker_loaded start(struct scene *s) {
        static const struct source_option layout = { "layout", "8M@0x100000000" };
        static const struct translator_ops *translators[] = { &own_ops, NULL, NULL };
        static struct translator_ops plain;
        struct broker_options options;
        struct broker_loaded loaded;
        struct failure failure = {};

        plain = translator_identity_ops;
        plain.attach = plain_attach;
        translators[1] = &plain;
        broker_options_default(&options);
        options.now_ms = now;
        options.translators = translators;
        options.survives = true;
        own.restored = false;
        own.n_restored = 0;
        assert_int_equal(broker_new(&options, &s->broker), 0);
        s->life = life_begin(&source_sim_ops, &layout, 1);
        assert_int_equal(broker_add_source(s->broker, s->life.source), 0);
        if (broker_load(s->broker, &s->ledger->base, &failure) < 0)
                fail_msg("%s", failure.sentence);
        assert_true(own.restored);
        broker_loaded(s->broker, &loaded);
        settle(s);
        return loaded;
}

static void die(struct scene *s) {
        struct memory_ledger *next = memory_ledger_reopen(s->ledger);

        s->ledger->frozen = true;
        broker_leave(s->broker);
        keep_free(s->life.keep);
        memory_ledger_free(s->ledger);
        s->ledger = next;
}

static int first_session(struct session *session, void *userdata) {
        ((struct caller *)userdata)->session = session;
        return 1;
}

static void note_handle(void *userdata, const struct failure *failure, uint64_t handle) {
        *(uint64_t *)userdata = failure ? 0 : handle;
}

static uint64_t allocate(struct scene *s, const struct alloc_request *request) {
        uint64_t handle = 0;

        coherent_alloc(&s->caller, request, note_handle, &handle);
        settle(s);
        return handle;
}

static void begin(struct scene *s) {
        uint64_t device, plain, mapping;

        *s = (struct scene){ .ledger = memory_ledger_new() };
        own = (struct translation){};
        start(s);
        assert_int_equal(session_open(s->broker, "user:1000", &s->caller.session, NULL), 0);
        s->caller.admin = true;
        assert_int_equal(device_open(&s->caller, &(struct device_options){ .name = "own", .node = -1 }, &device, NULL), 0);
        assert_int_equal(device_open(&s->caller, &(struct device_options){ .name = "plain", .node = -1 }, &plain, NULL), 0);
        s->alloc = allocate(s, &(struct alloc_request){ .device = device, .size = MIB, .shareable = true });
        assert_int_equal(coherent_get(&s->caller, s->alloc, &s->view, NULL), 0);
        assert_int_equal(mapping_map(&s->caller, &(struct mapping_request){ .device = plain, .alloc = s->alloc }, &mapping,
                                     NULL), 0);
        settle(s);
        die(s);
}

static void again(struct scene *s) {
        broker_visit_sessions(s->broker, first_session, &s->caller);
        assert_non_null(s->caller.session);
}

static void end(struct scene *s) {
        broker_free(s->broker);
        keep_end(s->life.keep);
        memory_ledger_free(s->ledger);
}

/* Nobody else gets what the device has had. */
static void expect_untouched(struct scene *s) {
        struct alloc_view view;
        uint64_t plain, handle;
        unsigned n = 0;

        assert_int_equal(device_open(&s->caller, &(struct device_options){ .name = "other", .node = -1 }, &plain, NULL), 0);
        while ((handle = allocate(s, &(struct alloc_request){ .device = plain, .size = MIB / 4, .high = true }))) {
                assert_int_equal(coherent_get(&s->caller, handle, &view, NULL), 0);
                assert_true(view.machine_addr >= s->view.machine_addr + MIB ||
                            view.machine_addr + view.size <= s->view.machine_addr);
                n++;
        }
        assert_int_equal(n, 28);
}

static void test_what_was_mapped_is_restored_where_it_was(void **state) {
        struct alloc_view view;
        struct scene s;

        begin(&s);
        assert_int_equal(start(&s).lost_devices, 0);
        assert_int_equal(own.n_restored, 1);
        again(&s);
        assert_int_equal(coherent_get(&s.caller, s.alloc, &view, NULL), 0);
        assert_int_equal(view.dma_addr, s.view.dma_addr);
        assert_int_equal(view.machine_addr, s.view.machine_addr);
        end(&s);
}

static void test_a_device_that_was_taken_away_leaves_its_memory_to_nobody(void **state) {
        static const struct {
                int attach, restore;
        } cases[] = { { -ENODEV, 0 }, { -EBUSY, 0 }, { 0, -ENOSPC } };
        struct alloc_view view;
        struct scene s;

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                begin(&s);
                own.attach_error = cases[i].attach;
                own.restore_error = cases[i].restore;
                assert_int_equal(start(&s).lost_devices, 1);
                again(&s);
                assert_int_equal(coherent_get(&s.caller, s.alloc, &view, NULL), 0);
                assert_int_equal(view.machine_addr, s.view.machine_addr);
                expect_untouched(&s);
                /* The next one has it again. */
                die(&s);
                own.attach_error = own.restore_error = 0;
                assert_int_equal(start(&s).lost_devices, 0);
                end(&s);
        }
}

static void test_what_such_a_device_had_is_not_used_again_when_it_is_freed(void **state) {
        uint64_t device;
        struct scene s;

        begin(&s);
        own.attach_error = -ENODEV;
        start(&s);
        again(&s);
        session_close(s.caller.session);
        settle(&s);
        assert_int_equal(session_open(s.broker, "user:1000", &s.caller.session, NULL), 0);
        expect_untouched(&s);
        assert_true(device_open(&s.caller, &(struct device_options){ .name = "own", .node = -1 }, &device, NULL) == 0);
        die(&s);
        start(&s);
        end(&s);
}

/* As when a source that needs no keep has all that it had, and another one nothing: nor is that one asked, or needed. */
static void test_memory_that_nobody_has_kept_is_lost_and_stops_no_start(void **state) {
        struct alloc_view view;
        struct scene s;

        begin(&s);
        s.ledger->void_source = "sim";
        assert_int_equal(start(&s).lost_bytes, MIB);
        again(&s);
        assert_int_equal(coherent_get(&s.caller, s.alloc, &view, NULL), -ENOENT);
        end(&s);
}

static void test_an_iommu_that_comes_in_the_way_of_machine_addresses_stops_no_start(void **state) {
        struct failure failure = {};
        uint64_t device;
        struct scene s;

        begin(&s);
        own.blocked = true;
        start(&s);
        again(&s);
        assert_true(device_open(&s.caller, &(struct device_options){ .name = "new", .node = -1 }, &device, &failure) < 0);
        assert_int_equal(failure.reason, REASON_unsupported);
        end(&s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_was_mapped_is_restored_where_it_was),
                cmocka_unit_test(test_a_device_that_was_taken_away_leaves_its_memory_to_nobody),
                cmocka_unit_test(test_what_such_a_device_had_is_not_used_again_when_it_is_freed),
                cmocka_unit_test(test_memory_that_nobody_has_kept_is_lost_and_stops_no_start),
                cmocka_unit_test(test_an_iommu_that_comes_in_the_way_of_machine_addresses_stops_no_start),
        };

        return cmocka_run_group_tests(tests, lives_begin, lives_end);
}
