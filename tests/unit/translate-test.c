/* Devices behind an IOMMU: dma addresses are their own, and what is mapped is what they have. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/iommu/iova.h"
#include "daemon/iommu/none.h"
#include "tests/unit/core-fixture.h"

enum { MAPS_MAX = 4096 };
#define MASK28 UINT64_C(0xfffffff)

/* An IOMMU that the test has: what is mapped in it. */
static struct translation {
        struct iova *iova;
        struct {
                uint64_t dma, addr, size;
        } maps[MAPS_MAX];
        size_t n;
        unsigned n_attached;
        bool stuck; /* it says that it cannot unmap */
        size_t most; /* mappings that it takes */
} own;

static int own_attach(const char *name, const char *owner, bool permitted, struct translation **ret,
                      struct translator_facts *ret_facts, struct failure *failure) {
        if (strncmp(name, "own", 3) != 0)
                return -ENODEV;
        if (!permitted)
                return failure_set(failure, REASON_not_permitted, "Not permitted");
        own.n_attached++;
        *ret = &own;
        *ret_facts = (struct translator_facts){ .node = -1, .mask = UINT64_MAX };
        return 0;
}

static void own_detach(struct translation *translation) {
        own.n_attached--;
}

static int own_map(struct translation *translation, const struct translator_run *run, uint64_t *ret_dma,
                   struct failure *failure) {
        int r;

        assert_int_equal(run->addr % 4096 + run->size % 4096, 0);
        if (own.n == own.most)
                return failure_set(failure, REASON_mapping_limit, "It takes no more");
        r = iova_take(own.iova, run, ret_dma);
        if (r < 0)
                return failure_set(failure, REASON_iova_exhausted, "There is no address");
        own.maps[own.n].dma = *ret_dma;
        own.maps[own.n].addr = run->addr;
        own.maps[own.n++].size = run->size;
        return 0;
}

static int own_unmap(struct translation *translation, uint64_t dma_addr, uint64_t size) {
        size_t i = 0;

        while (i < own.n && own.maps[i].dma != dma_addr)
                i++;
        assert_true(i < own.n);
        assert_int_equal(own.maps[i].size, size);
        own.maps[i] = own.maps[--own.n];
        iova_retire(own.iova, dma_addr);
        return own.stuck ? -EIO : 0;
}

static bool own_serves(const struct translation *translation, uint64_t mask) {
        return iova_reaches(own.iova, mask);
}

static void own_committed(void) {
        iova_settle(own.iova);
}

static int own_device_fd(struct translation *translation) {
        return -1;
}

static const struct translator_ops own_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "iommu",
        .attach = own_attach,
        .detach = own_detach,
        .map = own_map,
        .unmap = own_unmap,
        .flags = TRANSLATOR_PROTECTS | TRANSLATOR_TRANSLATES,
        .serves = own_serves,
        .committed = own_committed,
        .device_fd = own_device_fd,
};

/* The machine address that the device reaches at this dma address, or 0. */
static uint64_t reached(uint64_t dma) {
        size_t i;

        for (i = 0; i < own.n; i++)
                if (dma >= own.maps[i].dma && dma - own.maps[i].dma < own.maps[i].size)
                        return own.maps[i].addr + (dma - own.maps[i].dma);
        return 0;
}

struct scene {
        struct fixture f;
        uint64_t device;
};

/* All memory is out of reach of the device's mask. */
static void begin(struct scene *s, const struct device_options *device) {
        static const struct translator_ops *const translators[] = { &own_ops, &translator_identity_ops, NULL };
        struct broker_options options;
        struct device_options named = *device;

        own = (struct translation){ .most = MAPS_MAX };
        assert_int_equal(iova_new(&own.iova), 0);
        assert_int_equal(iova_add(own.iova, 0, 0xfedfffff), 0);
        assert_int_equal(iova_add(own.iova, 0xfef00000, 0x7fffffffff), 0);
        broker_options_default(&options);
        options.translators = translators;
        fixture_start(&s->f, "64M@0x200000000", &options);
        s->f.caller.admin = true;
        named.name = "own";
        s->device = fixture_open(&s->f.caller, &named);
}

static void end(struct scene *s) {
        fixture_stop(&s->f);
        assert_int_equal(own.n, 0);
        assert_int_equal(own.n_attached, 0);
        iova_free(own.iova);
}

static void test_memory_may_lie_anywhere_and_addresses_keep_what_was_asked_for(void **state) {
        struct alloc_view view;
        struct scene s;

        begin(&s, &(struct device_options){ .mask = MASK28, .boundary = 16 * MIB });
        for (int i = 0; i < 20; i++) {
                view = fixture_alloc(&s.f, &s.f.caller,
                                     &(struct alloc_request){ .device = s.device, .size = MIB, .align = 65536 });
                assert_true(view.machine_addr >= UINT64_C(0x200000000));
                assert_true(view.dma_addr + view.size - 1 <= MASK28);
                assert_int_equal(view.dma_addr % 65536, 0);
                assert_int_equal(view.dma_addr / (16 * MIB), (view.dma_addr + view.size - 1) / (16 * MIB));
                assert_int_equal(reached(view.dma_addr), view.machine_addr);
        }
        end(&s);
}

static int ignore_leak(const struct leak_view *leak, void *userdata) {
        return 0;
}

static void test_what_is_freed_is_out_of_reach_and_its_address_rests_until_the_commit(void **state) {
        struct alloc_view view, next;
        struct scene s;

        begin(&s, &(struct device_options){});
        view = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4096 });
        assert_int_equal(coherent_free(&s.f.caller, view.handle, NULL), 0);
        assert_int_equal(reached(view.dma_addr), 0);
        next = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4096 });
        assert_int_not_equal(next.dma_addr, view.dma_addr);
        assert_int_equal(coherent_free(&s.f.caller, next.handle, NULL), 0);
        assert_int_equal(broker_commit(s.f.broker), 0);
        next = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4096 });
        assert_int_equal(next.dma_addr, view.dma_addr);
        end(&s);
}

static void test_a_vanished_clients_memory_need_not_rest(void **state) {
        struct alloc_view view;
        struct caller other;
        struct scene s;

        begin(&s, &(struct device_options){});
        other = fixture_session(&s.f, NULL);
        view = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4096 });
        session_abandon(s.f.caller.session);
        s.f.caller = other;
        assert_int_equal(reached(view.dma_addr), 0);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_bytes), 0);
        end(&s);
}

static void test_what_cannot_be_unmapped_is_never_used_again(void **state) {
        struct alloc_view stuck, view;
        struct scene s;

        begin(&s, &(struct device_options){});
        stuck = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = MIB });
        own.stuck = true;
        assert_int_equal(coherent_free(&s.f.caller, stuck.handle, NULL), 0);
        own.stuck = false;
        for (int i = 0; i < 63; i++) {
                view = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = MIB, .high = true });
                assert_true(view.machine_addr >= stuck.machine_addr + MIB || view.machine_addr + MIB <= stuck.machine_addr);
        }
        assert_int_equal(device_close(&s.f.caller, s.device, true, ignore_leak, NULL, NULL), 0);
        fixture_pass(&s.f, 60000);
        assert_int_equal(fixture_source(&s.f).lost, MIB);
        assert_int_equal(own.n, 0);
        broker_free(s.f.broker);
        iova_free(own.iova);
}

static void test_the_iommus_limits_are_answers(void **state) {
        struct answer to = {};
        struct scene s;

        begin(&s, &(struct device_options){ .mask = 0x1fffff });
        coherent_alloc(&s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4 * MIB }, answer, &to);
        fixture_settle(&s.f);
        require_refused(&to, REASON_iova_exhausted);
        own.most = own.n + 1;
        fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4096 });
        to = (struct answer){};
        coherent_alloc(&s.f.caller, &(struct alloc_request){ .device = s.device, .size = 4096 }, answer, &to);
        fixture_settle(&s.f);
        require_refused(&to, REASON_mapping_limit);
        assert_int_equal(fixture_usage(&s.f.caller, QUOTA_allocs), 1);
        end(&s);
}

static void test_pools_swaps_and_moves_have_addresses_of_the_devices(void **state) {
        struct answer pool = {}, to = {};
        struct alloc_view view, moved;
        struct pool_view pools;
        uint64_t other;
        struct scene s;

        begin(&s, &(struct device_options){ .mask = MASK28 });
        pool_create(&s.f.caller, &(struct pool_options){ .name = "ring", .device = s.device, .size = 2048, .reserve = 4 }, answer,
                    &pool);
        fixture_settle(&s.f);
        assert_int_equal(pool_get(&s.f.caller, answer_handle(&pool), &pools, NULL), 0);
        assert_true(own.n > 0 && own.maps[0].dma + own.maps[0].size - 1 <= MASK28);

        view = fixture_alloc(&s.f, &s.f.caller, &(struct alloc_request){ .device = s.device, .size = MIB });
        fixture_fill(&s.f.caller, &view);
        coherent_swap_out(&s.f.caller, view.handle, answer, &to);
        fixture_settle(&s.f);
        answer_handle(&to);
        assert_int_equal(reached(view.dma_addr), 0);
        to = (struct answer){};
        coherent_swap_in(&s.f.caller, &(struct swap_in_request){ .alloc = view.handle, .mask = 0xffffff }, answer, &to);
        fixture_settle(&s.f);
        assert_int_equal(coherent_get(&s.f.caller, answer_handle(&to), &view, NULL), 0);
        assert_true(view.dma_addr + view.size - 1 <= 0xffffff);
        assert_int_equal(reached(view.dma_addr), view.machine_addr);
        assert_true(fixture_is_filled(&s.f.caller, &view));

        other = fixture_open(&s.f.caller, &(struct device_options){ .name = "own-other", .mask = 0x7fffff });
        to = (struct answer){};
        coherent_move(&s.f.caller, &(struct move_request){ .alloc = view.handle, .device = other }, answer, &to);
        fixture_settle(&s.f);
        assert_int_equal(coherent_get(&s.f.caller, answer_handle(&to), &moved, NULL), 0);
        assert_true(moved.dma_addr + moved.size - 1 <= 0x7fffff);
        assert_int_equal(reached(moved.dma_addr), moved.machine_addr);
        assert_int_equal(reached(view.dma_addr), 0);
        end(&s);
}

static void test_a_device_as_a_whole_is_for_those_who_may(void **state) {
        struct failure failure = {};
        uint64_t device;
        struct caller other;
        struct scene s;

        begin(&s, &(struct device_options){});
        other = fixture_session(&s.f, "user:10");
        assert_true(device_open(&other, &(struct device_options){ .name = "own", .node = -1 }, &device, &failure) < 0);
        require_failure(&failure, REASON_not_permitted);
        assert_int_equal(broker_define_device(s.f.broker, &(struct device_options){ .name = "own", .node = -1 }, true,
                                              "user:1000, user:100\tuser:1"), 0);
        assert_true(device_open(&other, &(struct device_options){ .name = "own", .node = -1 }, &device, &failure) < 0);
        assert_int_equal(broker_define_device(s.f.broker, &(struct device_options){ .name = "own", .node = -1 }, true,
                                              "user:1000 user:10"), 0);
        assert_int_equal(device_open(&other, &(struct device_options){ .name = "own", .node = -1 }, &device, NULL), 0);
        end(&s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_memory_may_lie_anywhere_and_addresses_keep_what_was_asked_for),
                cmocka_unit_test(test_what_is_freed_is_out_of_reach_and_its_address_rests_until_the_commit),
                cmocka_unit_test(test_a_vanished_clients_memory_need_not_rest),
                cmocka_unit_test(test_what_cannot_be_unmapped_is_never_used_again),
                cmocka_unit_test(test_the_iommus_limits_are_answers),
                cmocka_unit_test(test_pools_swaps_and_moves_have_addresses_of_the_devices),
                cmocka_unit_test(test_a_device_as_a_whole_is_for_those_who_may),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
