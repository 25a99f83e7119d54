/* Pools through the core's face, on the simulated source, with a clock that only the test moves. */
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
#define BLOCKS_MAX 4096

struct answer {
        bool given;
        struct failure failure;
        uint64_t handle;
        struct pool_block blocks[BLOCKS_MAX];
        size_t n;
        unsigned order; /* in which it was given */
        void (*then)(struct answer *answer); /* called with the answer */
        struct fixture *fixture;
        uint64_t pool;
};

struct fixture {
        uint64_t now;
        struct broker *broker;
        struct source *source;
        struct caller caller;
        uint64_t device;
        struct ticket *ticket; /* of the last request */
        unsigned recalls, leaks;
        const struct session *recalled;
};

static unsigned answers_given;

static uint64_t fixture_now(void *userdata) {
        return ((struct fixture *)userdata)->now;
}

static void answer(void *userdata, const struct failure *failure, uint64_t handle) {
        struct answer *to = userdata;

        assert_false(to->given);
        to->given = true;
        to->order = ++answers_given;
        to->failure = failure ? *failure : (struct failure){};
        to->handle = handle;
        if (to->then && to->fixture->caller.session)
                to->then(to);
}

static void answer_blocks(void *userdata, const struct failure *failure, const struct pool_block *blocks, size_t n) {
        struct answer *to = userdata;

        assert_in_range(n, failure ? 0 : 1, failure ? 0 : BLOCKS_MAX);
        if (n)
                memcpy(to->blocks, blocks, n * sizeof(*blocks));
        to->n = n;
        answer(to, failure, 0);
}

static void settle(struct fixture *f) {
        while (!broker_settled(f->broker)) {
                f->source->ops->wait(f->source);
                f->source->ops->dispatch(f->source);
        }
}

static void listen(void *userdata, const struct event *event) {
        struct fixture *f = userdata;

        f->recalls += event->topic == EVENT_RECALL;
        f->leaks += event->topic == EVENT_LEAK;
        if (event->topic == EVENT_RECALL)
                f->recalled = event->session;
}

static struct caller login(struct fixture *f, const char *owner) {
        struct caller caller = {};

        assert_int_equal(session_open(f->broker, owner, &caller.session, NULL), 0);
        return caller;
}

static uint64_t open_device(const struct caller *caller, const struct device_options *options) {
        struct failure failure = {};
        uint64_t device = 0;

        if (device_open(caller, options, &device, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return device;
}

static void start(struct fixture *f, const char *layout, struct broker_options *options) {
        static const struct translator_ops *const translators[] = { &translator_identity_ops, NULL };
        struct source_option source_options[] = { { "layout", layout } };
        struct broker_options defaults;
        struct failure failure = {};

        if (!options) {
                broker_options_default(&defaults);
                options = &defaults;
        }
        *f = (struct fixture){ .now = 1000 };
        options->now_ms = fixture_now;
        options->userdata = f;
        options->translators = translators;
        assert_int_equal(broker_new(options, &f->broker), 0);
        broker_listen(f->broker, listen, f);
        if (source_sim_ops.open(source_options, 1, NULL, &f->source, &failure) < 0)
                fail_msg("%s", failure.sentence);
        assert_int_equal(broker_add_source(f->broker, f->source), 0);
        settle(f);
        f->caller = login(f, "user:1000");
        f->device = open_device(&f->caller, &(struct device_options){ .name = "nic", .node = -1 });
}

static void problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        print_error("%s %llu: %s\n", what, (unsigned long long)handle, text);
        ++*(unsigned *)userdata;
}

static void checked(void *userdata, uint64_t n) {
        assert_true(n > 0);
}

static void check(struct fixture *f) {
        unsigned problems = 0;

        broker_check(f->broker, problem, checked, &problems);
        settle(f);
        assert_int_equal(problems, 0);
}

static void stop(struct fixture *f) {
        check(f);
        broker_free(f->broker);
}

static void move_clock(struct fixture *f, uint64_t ms) {
        f->now += ms;
        broker_tick(f->broker);
        settle(f);
}

static uint64_t usage(const struct caller *caller, enum quota_kind kind) {
        struct owner_view view;

        assert_int_equal(quota_get(caller, NULL, &view, NULL), 0);
        return view.usage.of[kind];
}

static void set_quota(struct fixture *f, const char *owner, enum quota_kind kind, uint64_t limit) {
        struct caller admin = login(f, "user:0");
        struct quota limits = {};

        limits.of[kind] = limit;
        admin.admin = true;
        assert_int_equal(quota_set(&admin, owner, 1u << kind, &limits, NULL), 0);
        session_close(admin.session);
}

/* ---- pools ---- */

static void create(struct fixture *f, const struct caller *caller, struct pool_options options, struct answer *to) {
        *to = (struct answer){};
        if (!options.name)
                options.name = "rx";
        if (!options.device)
                options.device = f->device;
        f->ticket = pool_create(caller, &options, answer, to);
}

static uint64_t make(struct fixture *f, struct pool_options options) {
        static struct answer to;

        create(f, &f->caller, options, &to);
        settle(f);
        assert_true(to.given);
        if (to.failure.error)
                fail_msg("%s", to.failure.sentence);
        return to.handle;
}

static struct pool_view view_of(struct fixture *f, uint64_t pool) {
        struct pool_view view;

        assert_int_equal(pool_get(&f->caller, pool, &view, NULL), 0);
        return view;
}

static void ask(struct fixture *f, const struct caller *caller, struct pool_request request, struct answer *to) {
        to->given = false;
        to->n = 0;
        to->fixture = f;
        to->pool = request.pool;
        f->ticket = pool_alloc(caller, &request, answer_blocks, to);
}

static void ask_lease(struct fixture *f, const struct caller *caller, struct pool_request request, struct answer *to) {
        to->given = false;
        to->fixture = f;
        to->pool = request.pool;
        f->ticket = pool_lease(caller, &request, answer, to);
}

static struct answer *take_as(struct fixture *f, const struct caller *caller, struct pool_request request) {
        static struct answer to;

        to = (struct answer){};
        ask(f, caller, request, &to);
        settle(f);
        assert_true(to.given);
        if (to.failure.error)
                fail_msg("%s", to.failure.sentence);
        return &to;
}

static uint64_t take(struct fixture *f, uint64_t pool) {
        return take_as(f, &f->caller, (struct pool_request){ .pool = pool, .count = 1 })->blocks[0].dma_addr;
}

static struct lease_view lease_as(struct fixture *f, const struct caller *caller, uint64_t pool, uint64_t count) {
        static struct answer to;
        struct lease_view view;

        to = (struct answer){};
        ask_lease(f, caller, (struct pool_request){ .pool = pool, .count = count }, &to);
        settle(f);
        assert_true(to.given);
        if (to.failure.error)
                fail_msg("%s", to.failure.sentence);
        assert_int_equal(lease_get(caller, to.handle, &view, NULL), 0);
        return view;
}

static void give_back(struct fixture *f, uint64_t pool, uint64_t dma_addr) {
        struct failure failure = {};

        if (pool_free_blocks(&f->caller, pool, &dma_addr, 1, &failure) < 0)
                fail_msg("%s", failure.sentence);
        settle(f);
}

static void assert_reason(const struct failure *failure, enum reason reason) {
        if (failure->reason != reason)
                print_error("%s\n", failure->sentence);
        assert_string_equal(reason_name(failure->error ? failure->reason : REASON_NONE), reason_name(reason));
}

static void refuse(struct fixture *f, struct pool_request request, enum reason reason) {
        static struct answer to;
        struct pool_view before = {}, after = {};

        pool_get(&f->caller, request.pool, &before, NULL);
        to = (struct answer){};
        ask(f, &f->caller, request, &to);
        settle(f);
        assert_true(to.given);
        assert_reason(&to.failure, reason);
        pool_get(&f->caller, request.pool, &after, NULL);
        assert_int_equal(after.used, before.used);
        assert_int_equal(after.waiters, before.waiters);
}

static void refuse_free(struct fixture *f, uint64_t pool, uint64_t dma_addr, enum reason reason) {
        struct failure failure = {};
        struct pool_view before = view_of(f, pool);

        assert_int_equal(pool_free_blocks(&f->caller, pool, &dma_addr, 1, &failure), -reason_errno(reason));
        assert_reason(&failure, reason);
        assert_int_equal(view_of(f, pool).free, before.free);
}

/* Takes all memory in an owner's name. */
static void take_all_memory(struct fixture *f, const struct caller *caller, uint64_t device) {
        static const uint64_t sizes[] = { MIB, 64 * KIB, 4 * KIB };
        struct answer *to = malloc(sizeof(*to));
        size_t i = 0;

        while (i < 3) {
                *to = (struct answer){};
                coherent_alloc(caller, &(struct alloc_request){ .device = device, .size = sizes[i] }, answer, to);
                settle(f);
                assert_true(to->given);
                i += to->failure.error != 0;
        }
        free(to);
}

/* ---- tests: what a pool is ---- */

static void test_blocks_are_of_the_size_and_alignment_that_the_pool_tells(void **state) {
        struct pool_view view;
        struct fixture f;
        uint64_t pool, a;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 100 });
        view = view_of(&f, pool);
        assert_int_equal(view.block_size, 128);
        assert_int_equal(view.align, 64);
        assert_int_equal(take(&f, pool) % 64, 0);
        pool = make(&f, (struct pool_options){ .size = 100, .align = 8 });
        assert_int_equal(view_of(&f, pool).block_size, 104);
        pool = make(&f, (struct pool_options){ .size = 3, .align = 1 });
        assert_int_equal(view_of(&f, pool).block_size, 8);
        pool = make(&f, (struct pool_options){ .size = 10, .align = 16 * KIB });
        assert_int_equal(view_of(&f, pool).block_size, 16 * KIB);
        a = take(&f, pool);
        assert_int_equal(a % (16 * KIB), 0);
        assert_int_equal(take(&f, pool) % (16 * KIB), 0);
        stop(&f);
}

static void test_a_pool_takes_no_memory_before_it_is_needed(void **state) {
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        assert_int_equal(view_of(&f, pool).slabs, 0);
        assert_int_equal(usage(&f.caller, QUOTA_bytes), 0);
        take(&f, pool);
        assert_int_equal(view_of(&f, pool).slabs, 1);
        assert_int_equal(view_of(&f, pool).blocks, view_of(&f, pool).blocks_per_slab);
        stop(&f);
}

static void test_a_block_tells_where_it_is(void **state) {
        struct pool_block block;
        struct region_view region;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        block = take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1 })->blocks[0];
        assert_int_equal(region_get(&f.caller, block.region, &region, NULL), 0);
        assert_int_equal(region.machine_addr + block.offset, block.machine_addr);
        assert_int_equal(block.dma_addr, block.machine_addr);
        assert_int_equal(block.lease, 0);
        stop(&f);
}

static void test_blocks_never_cross_the_boundary(void **state) {
        static const struct {
                uint64_t size, align, boundary;
        } cases[] = { { 1536, 0, 4096 }, { 24, 8, 256 }, { 3000, 8, 4096 }, { 5000, 8, 8192 }, { 700, 4, 1024 } };
        struct answer *to;
        struct fixture f;
        uint64_t pool;
        size_t i, j;

        start(&f, "16M@0x140000000", NULL);
        for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                pool = make(&f, (struct pool_options){
                        .size = cases[i].size, .align = cases[i].align, .boundary = cases[i].boundary });
                to = take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 300 });
                for (j = 0; j < 300; j++)
                        assert_true((to->blocks[j].dma_addr ^ (to->blocks[j].dma_addr + cases[i].size - 1)) <
                                    cases[i].boundary);
                check(&f);
        }
        stop(&f);
}

static void test_a_lease_never_spans_what_is_left_before_a_boundary(void **state) {
        struct lease_view lease;
        struct fixture f;
        uint64_t pool, last;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 1536, .boundary = 4096 });
        lease = lease_as(&f, &f.caller, pool, 100);
        assert_int_equal(lease.count, 2);
        last = lease.dma_addr + lease.count * lease.unit - 1;
        assert_int_equal(lease.dma_addr / 4096, last / 4096);
        pool = make(&f, (struct pool_options){ .size = 1024, .boundary = 4096 });
        assert_int_equal(lease_as(&f, &f.caller, pool, 16).count, 16);
        stop(&f);
}

static void test_no_slab_is_larger_than_the_device_takes(void **state) {
        struct pool_view view;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x140000000", NULL);
        device = open_device(&f.caller, &(struct device_options){ .name = "disk", .max_segment = 10000, .node = -1 });
        view = view_of(&f, make(&f, (struct pool_options){ .device = device, .size = 2048 }));
        assert_true(view.slab_size <= 12288);
        device = open_device(&f.caller, &(struct device_options){ .name = "disk", .boundary = 8192, .node = -1 });
        view = view_of(&f, make(&f, (struct pool_options){ .device = device, .size = 3000, .reserve = 10 }));
        assert_int_equal(view.slab_size, 8192);
        assert_int_equal(view.boundary, 8192);
        view = view_of(&f, make(&f, (struct pool_options){ .size = 3 * MIB + 1 }));
        assert_int_equal(view.blocks_per_slab, 1);
        view = view_of(&f, make(&f, (struct pool_options){ .size = 64, .max_blocks = 10 }));
        assert_int_equal(view.slab_size, 4096);
        assert_int_equal(view.blocks_per_slab, 10);
        stop(&f);
}

static void bad_pool(struct fixture *f, struct pool_options options, enum reason reason) {
        static struct answer to;

        create(f, &f->caller, options, &to);
        settle(f);
        assert_true(to.given);
        assert_reason(&to.failure, reason);
        assert_int_equal(usage(&f->caller, QUOTA_pools), 0);
        assert_int_equal(usage(&f->caller, QUOTA_bytes), 0);
}

static void test_each_impossible_pool_has_its_own_reason(void **state) {
        struct fixture f;
        uint64_t small;
        char name[100];

        start(&f, "16M@0x140000000", NULL);
        small = open_device(&f.caller, &(struct device_options){ .name = "disk", .max_segment = 1000, .node = -1 });
        memset(name, 'x', sizeof(name) - 1);
        name[99] = 0;
        bad_pool(&f, (struct pool_options){ .device = 99, .size = 64 }, REASON_unknown_handle);
        bad_pool(&f, (struct pool_options){ .name = "" , .size = 64 }, REASON_bad_param);
        bad_pool(&f, (struct pool_options){ .name = "a\nb", .size = 64 }, REASON_bad_param);
        bad_pool(&f, (struct pool_options){ .name = name, .size = 64 }, REASON_bad_param);
        bad_pool(&f, (struct pool_options){ .size = 0 }, REASON_bad_param);
        bad_pool(&f, (struct pool_options){ .size = 64, .align = 3 }, REASON_bad_param);
        bad_pool(&f, (struct pool_options){ .size = 64, .boundary = 100 }, REASON_boundary);
        bad_pool(&f, (struct pool_options){ .size = 64, .boundary = 32 }, REASON_boundary);
        bad_pool(&f, (struct pool_options){ .size = 4 * MIB + 1 }, REASON_limit);
        bad_pool(&f, (struct pool_options){ .size = UINT64_MAX }, REASON_limit);
        bad_pool(&f, (struct pool_options){ .size = 64, .align = UINT64_C(1) << 63 }, REASON_limit);
        bad_pool(&f, (struct pool_options){ .device = small, .size = 1001 }, REASON_limit);
        bad_pool(&f, (struct pool_options){ .size = 64, .caching = POOL_WRITE_COMBINED }, REASON_unsupported);
        bad_pool(&f, (struct pool_options){ .size = 64, .caching = POOL_UNCACHED }, REASON_unsupported);
        bad_pool(&f, (struct pool_options){ .size = 64, .reserve = 11, .max_blocks = 10 }, REASON_bad_param);
        bad_pool(&f, (struct pool_options){ .size = 64, .reserve = UINT64_MAX }, REASON_no_memory);
        bad_pool(&f, (struct pool_options){ .size = 4096, .reserve = 4096 }, REASON_no_memory);
        set_quota(&f, "user:1000", QUOTA_pools, 0);
        bad_pool(&f, (struct pool_options){ .size = 64 }, REASON_quota);
        set_quota(&f, "user:1000", QUOTA_pools, 10);
        set_quota(&f, "user:1000", QUOTA_bytes, 128 * KIB);
        bad_pool(&f, (struct pool_options){ .size = 4096, .reserve = 33 }, REASON_quota);
        stop(&f);
}

static void test_a_pool_of_another_owner_is_unknown(void **state) {
        struct caller other, admin;
        struct pool_block_view block;
        struct failure failure;
        struct pool_view view;
        struct fixture f;
        uint64_t pool, a, bytes;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        a = take(&f, pool);
        other = login(&f, "user:1001");
        assert_int_equal(pool_get(&other, pool, &view, &failure), -ENOENT);
        assert_reason(&failure, REASON_unknown_handle);
        assert_int_equal(pool_free_blocks(&other, pool, &a, 1, &failure), -ENOENT);
        assert_int_equal(pool_trim(&other, pool, &bytes, &failure), -ENOENT);
        assert_int_equal(pool_destroy(&other, pool, true, NULL, NULL, &failure), -ENOENT);
        assert_int_equal(pool_block_at(&other, a, false, &block, &failure), -EFAULT);
        admin = other;
        admin.admin = true;
        assert_int_equal(pool_get(&admin, pool, &view, NULL), 0);
        assert_string_equal(view.owner, "user:1000");
        assert_int_equal(pool_block_at(&admin, a, false, &block, NULL), 0);
        assert_int_equal(pool_free_blocks(&admin, pool, &a, 1, NULL), 0);
        stop(&f);
}

static int note_pool(const struct pool_view *view, void *userdata) {
        uint64_t *seen = userdata;

        seen[++seen[0]] = view->handle;
        return 0;
}

static void test_pools_are_listed_by_device_and_owner_in_a_stable_order(void **state) {
        struct caller other, admin;
        struct fixture f;
        uint64_t pools[3], second, seen[10] = {};
        static struct answer to;

        start(&f, "16M@0x140000000", NULL);
        second = open_device(&f.caller, &(struct device_options){ .name = "disk", .node = -1 });
        pools[0] = make(&f, (struct pool_options){ .size = 64 });
        pools[1] = make(&f, (struct pool_options){ .size = 64, .device = second });
        other = login(&f, "user:1001");
        create(&f, &other, (struct pool_options){ .size = 64, .device = open_device(&other, &(struct device_options){
                                                                  .name = "nic", .node = -1 }) }, &to);
        settle(&f);
        pools[2] = to.handle;
        assert_int_equal(pool_visit(&f.caller, 0, NULL, 0, note_pool, seen, NULL), 0);
        assert_int_equal(seen[0], 2);
        assert_int_equal(seen[1], pools[0]);
        assert_int_equal(seen[2], pools[1]);
        seen[0] = 0;
        assert_int_equal(pool_visit(&f.caller, 0, NULL, pools[0], note_pool, seen, NULL), 0);
        assert_int_equal(seen[0], 1);
        seen[0] = 0;
        assert_int_equal(pool_visit(&f.caller, second, NULL, 0, note_pool, seen, NULL), 0);
        assert_int_equal(seen[0], 1);
        assert_int_equal(seen[1], pools[1]);
        assert_int_equal(pool_visit(&f.caller, 0, "user:1001", 0, note_pool, seen, NULL), -EPERM);
        admin = f.caller;
        admin.admin = true;
        seen[0] = 0;
        assert_int_equal(pool_visit(&admin, 0, NULL, 0, note_pool, seen, NULL), 0);
        assert_int_equal(seen[0], 3);
        seen[0] = 0;
        assert_int_equal(pool_visit(&admin, 0, "user:1001", 0, note_pool, seen, NULL), 0);
        assert_int_equal(seen[0], 1);
        assert_int_equal(seen[1], pools[2]);
        stop(&f);
}

/* ---- tests: blocks ---- */

static void test_all_blocks_of_a_request_are_given_or_none(void **state) {
        struct pool_view view;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096, .max_blocks = 20 });
        assert_int_equal(take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 18 })->n, 18);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 3 }, REASON_limit);
        view = view_of(&f, pool);
        assert_int_equal(view.used, 18);
        assert_int_equal(view.blocks, 20);
        assert_int_equal(take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 2 })->n, 2);
        stop(&f);
}

static void test_each_impossible_request_has_its_own_reason(void **state) {
        struct fixture f;
        uint64_t pool;

        start(&f, "4M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096, .max_blocks = 2000 });
        refuse(&f, (struct pool_request){ .pool = pool }, REASON_bad_param);
        refuse(&f, (struct pool_request){ .pool = pool + 99, .count = 1 }, REASON_unknown_handle);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 2001 }, REASON_limit);
        refuse(&f, (struct pool_request){ .pool = pool, .count = UINT64_MAX }, REASON_limit);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 2000 }, REASON_no_memory);
        set_quota(&f, "user:1000", QUOTA_bytes, 64 * KIB);
        move_clock(&f, 20000);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 17 }, REASON_quota);
        set_quota(&f, "user:1000", QUOTA_waiters, 0);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 18 }, REASON_quota);
        check(&f);
        stop(&f);
}

static void test_what_is_no_block_of_the_pool_is_not_taken_back(void **state) {
        struct failure failure = {};
        struct fixture f;
        uint64_t pool, other, a, b, pair[2];

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        other = make(&f, (struct pool_options){ .name = "tx", .size = 64 });
        a = take(&f, pool);
        b = take(&f, other);
        refuse_free(&f, pool, 0, REASON_bad_address);
        refuse_free(&f, pool, a + 8, REASON_bad_address);
        refuse_free(&f, pool, UINT64_MAX, REASON_bad_address);
        refuse_free(&f, pool, a + 64, REASON_double_free);
        pair[0] = a;
        pair[1] = b;
        assert_int_equal(pool_free_blocks(&f.caller, pool, pair, 2, &failure), -EFAULT);
        assert_non_null(strstr(failure.sentence, "tx"));
        assert_int_equal(view_of(&f, pool).used, 1);
        pair[1] = a;
        assert_int_equal(pool_free_blocks(&f.caller, pool, pair, 2, &failure), -EINVAL);
        assert_reason(&failure, REASON_double_free);
        assert_int_equal(view_of(&f, pool).used, 1);
        give_back(&f, pool, a);
        refuse_free(&f, pool, a, REASON_double_free);
        stop(&f);
}

static void test_a_block_of_a_lease_is_not_freed_alone(void **state) {
        struct lease_view lease;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        lease = lease_as(&f, &f.caller, pool, 10);
        assert_int_equal(lease.count, 10);
        refuse_free(&f, pool, lease.dma_addr + 64, REASON_busy);
        assert_int_equal(lease_return(&f.caller, lease.handle, LEASE_OF_POOL, NULL), 0);
        refuse_free(&f, pool, lease.dma_addr + 64, REASON_double_free);
        stop(&f);
}

static void test_whose_is_this_address_is_answered_for_blocks(void **state) {
        struct pool_block_view block;
        struct lease_view lease;
        struct alloc_view alloc;
        struct fixture f;
        uint64_t pool, a;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 1536, .boundary = 4096 });
        a = take(&f, pool);
        lease = lease_as(&f, &f.caller, pool, 2);
        assert_int_equal(pool_block_at(&f.caller, a + 1535, false, &block, NULL), 0);
        assert_int_equal(block.pool, pool);
        assert_int_equal(block.dma_addr, a);
        assert_int_equal(block.state, POOL_BLOCK_USED);
        assert_int_equal(pool_block_at(&f.caller, lease.machine_addr + 1600, true, &block, NULL), 0);
        assert_int_equal(block.dma_addr, lease.dma_addr + 1536);
        assert_int_equal(block.lease, lease.handle);
        assert_int_equal(block.state, POOL_BLOCK_LEASED);
        assert_int_equal(pool_block_at(&f.caller, lease.dma_addr + 4096, false, &block, NULL), 0);
        assert_int_equal(block.state, POOL_BLOCK_FREE);
        assert_int_equal(pool_block_at(&f.caller, lease.dma_addr + 4000, false, &block, NULL), -EFAULT);
        assert_int_equal(coherent_lookup(&f.caller, a + 100, false, &alloc, NULL), 0);
        assert_int_equal(alloc.pool, pool);
        assert_int_equal(coherent_free(&f.caller, alloc.handle, NULL), -EBUSY);
        stop(&f);
}

static void test_a_lease_takes_the_longest_run_when_there_is_none_of_its_length(void **state) {
        struct pool_block blocks[64];
        struct fixture f;
        uint64_t pool;
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096, .max_blocks = 16 });
        memcpy(blocks, take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 16 })->blocks, sizeof(blocks));
        for (i = 0; i < 16; i++)
                if (i % 5)
                        give_back(&f, pool, blocks[i].dma_addr);
        assert_int_equal(lease_as(&f, &f.caller, pool, 3).count, 3);
        assert_int_equal(lease_as(&f, &f.caller, pool, 100).count, 4);
        assert_int_equal(lease_as(&f, &f.caller, pool, 1).count, 1);
        stop(&f);
}

/* ---- tests: destroying ---- */

static int count_busy(const struct pool_block *block, void *userdata) {
        uint64_t *counts = userdata;

        counts[block->lease != 0]++;
        return 0;
}

static void test_a_busy_pool_is_not_destroyed_and_tells_what_is_out(void **state) {
        uint64_t counts[2] = {};
        struct failure failure;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 3 });
        lease_as(&f, &f.caller, pool, 5);
        assert_int_equal(pool_destroy(&f.caller, pool, false, count_busy, counts, &failure), -EBUSY);
        assert_reason(&failure, REASON_busy);
        assert_int_equal(counts[0], 3);
        assert_int_equal(counts[1], 5);
        assert_int_equal(view_of(&f, pool).leases, 1);
        assert_int_equal(f.leaks, 0);
        assert_int_equal(pool_destroy(&f.caller, pool, true, count_busy, counts, NULL), 0);
        assert_int_equal(counts[1], 10);
        assert_int_equal(f.leaks, 1);
        assert_int_equal(usage(&f.caller, QUOTA_leases), 0);
        assert_int_equal(usage(&f.caller, QUOTA_pools), 0);
        assert_int_equal(usage(&f.caller, QUOTA_bytes), 0);
        assert_int_equal(pool_destroy(&f.caller, pool, true, count_busy, counts, &failure), -ENOENT);
        stop(&f);
}

static int ignore_alloc(const struct leak_view *leak, void *userdata) {
        return 0;
}

static void close_device(struct fixture *f) {
        assert_int_equal(device_close(&f->caller, f->device, true, ignore_alloc, NULL, NULL), 0);
}

static void test_a_device_that_is_closed_takes_its_pools_along(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct failure failure;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 4 });
        take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 4 });
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, to);
        assert_false(to->given);
        assert_int_equal(device_close(&f.caller, f.device, false, ignore_alloc, NULL, &failure), -EBUSY);
        assert_false(to->given);
        close_device(&f);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_gone);
        assert_int_equal(usage(&f.caller, QUOTA_pools), 0);
        assert_int_equal(usage(&f.caller, QUOTA_waiters), 0);
        free(to);
        stop(&f);
}

static void test_a_pool_that_is_destroyed_answers_those_who_wait(void **state) {
        struct answer *to = calloc(3, sizeof(*to));
        struct fixture f;
        uint64_t pool;
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 4 });
        take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 4 });
        for (i = 0; i < 3; i++)
                ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[i]);
        assert_int_equal(view_of(&f, pool).waiters, 3);
        assert_int_equal(pool_destroy(&f.caller, pool, true, NULL, NULL, NULL), 0);
        for (i = 0; i < 3; i++) {
                assert_true(to[i].given);
                assert_reason(&to[i].failure, REASON_gone);
        }
        free(to);
        stop(&f);
}

static void test_a_pool_is_destroyed_while_it_fetches_memory(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1 }, to);
        assert_false(to->given);
        assert_int_equal(pool_destroy(&f.caller, pool, false, NULL, NULL, NULL), 0);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_gone);
        settle(&f);
        check(&f);
        free(to);
        stop(&f);
}

/* ---- tests: the reserve ---- */

static void test_the_reserve_can_be_had_when_others_have_taken_all_memory(void **state) {
        struct caller other;
        struct fixture f;
        uint64_t pool, device, i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096, .reserve = 100 });
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "hog", .node = -1 });
        take_all_memory(&f, &other, device);
        take_all_memory(&f, &f.caller, f.device);
        move_clock(&f, 20000);
        assert_in_range(view_of(&f, pool).blocks, 100, 112);
        for (i = 0; i < 100; i++)
                take(&f, pool);
        while (view_of(&f, pool).free)
                take(&f, pool);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_no_memory);
        stop(&f);
}

static void test_a_pool_whose_reserve_cannot_be_had_is_not_made(void **state) {
        struct caller other;
        struct fixture f;
        struct answer *to = calloc(1, sizeof(*to));
        uint64_t bytes;

        start(&f, "16M@0x140000000", NULL);
        other = login(&f, "user:1001");
        take_all_memory(&f, &other, open_device(&other, &(struct device_options){ .name = "hog", .node = -1 }));
        bytes = usage(&f.caller, QUOTA_bytes);
        create(&f, &f.caller, (struct pool_options){ .size = 4096, .reserve = 1000 }, to);
        settle(&f);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_no_memory);
        create(&f, &f.caller, (struct pool_options){ .size = 4096, .reserve = 1000, .wait_ms = 100 }, to);
        settle(&f);
        assert_false(to->given);
        move_clock(&f, 100);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_timeout);
        assert_int_equal(usage(&f.caller, QUOTA_bytes), bytes);
        assert_int_equal(usage(&f.caller, QUOTA_pools), 0);
        free(to);
        stop(&f);
}

static void test_a_pool_in_the_making_is_cancelled_or_ends_with_its_session(void **state) {
        struct caller other, second;
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        other = login(&f, "user:1001");
        take_all_memory(&f, &other, open_device(&other, &(struct device_options){ .name = "hog", .node = -1 }));
        create(&f, &f.caller, (struct pool_options){ .size = 4096, .reserve = 100, .wait_ms = 100 }, to);
        settle(&f);
        assert_false(to->given);
        ticket_cancel(f.ticket);
        assert_int_equal(usage(&f.caller, QUOTA_pools), 0);
        assert_false(to->given);
        second = login(&f, "user:1000");
        create(&f, &second, (struct pool_options){ .size = 4096, .reserve = 100, .wait_ms = 100 }, to);
        settle(&f);
        session_close(second.session);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_gone);
        assert_int_equal(usage(&f.caller, QUOTA_pools), 0);
        assert_int_equal(usage(&f.caller, QUOTA_waiters), 0);
        free(to);
        stop(&f);
}

/* ---- tests: waiting ---- */

static void test_a_hundred_waiters_are_served_in_the_order_in_which_they_came(void **state) {
        struct answer *to = calloc(100, sizeof(*to));
        struct fixture f;
        uint64_t pool, a;
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 1 });
        a = take(&f, pool);
        for (i = 0; i < 100; i++) {
                ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[i]);
                assert_non_null(f.ticket);
        }
        for (i = 0; i < 100; i++) {
                assert_false(to[i].given);
                give_back(&f, pool, a);
                assert_true(to[i].given);
                assert_int_equal(to[i].blocks[0].dma_addr, a);
        }
        assert_int_equal(view_of(&f, pool).waits, 100);
        assert_int_equal(view_of(&f, pool).timeouts, 0);
        free(to);
        stop(&f);
}

static void test_a_large_request_is_not_overtaken_by_small_ones(void **state) {
        struct answer *to = calloc(3, sizeof(*to));
        struct pool_block blocks[8];
        struct fixture f;
        uint64_t pool;
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 8 });
        memcpy(blocks, take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 8 })->blocks, sizeof(blocks));
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 6, .wait_ms = 1000 }, &to[0]);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[1]);
        ask_lease(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[2]);
        for (i = 0; i < 5; i++)
                give_back(&f, pool, blocks[i].dma_addr);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_would_block);
        for (i = 0; i < 3; i++)
                assert_false(to[i].given);
        give_back(&f, pool, blocks[5].dma_addr);
        assert_true(to[0].given);
        assert_int_equal(to[0].n, 6);
        assert_false(to[1].given);
        give_back(&f, pool, blocks[6].dma_addr);
        give_back(&f, pool, blocks[7].dma_addr);
        assert_true(to[1].given && to[2].given);
        assert_true(to[1].order < to[2].order);
        free(to);
        stop(&f);
}

static void test_high_priority_passes_those_that_wait(void **state) {
        struct answer *to = calloc(3, sizeof(*to));
        struct pool_block blocks[2];
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 2 });
        memcpy(blocks, take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 2 })->blocks, sizeof(blocks));
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 2, .wait_ms = 1000 }, &to[0]);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000, .high = true }, &to[1]);
        give_back(&f, pool, blocks[0].dma_addr);
        assert_true(to[1].given);
        give_back(&f, pool, blocks[1].dma_addr);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .high = true }, &to[2]);
        assert_true(to[2].given);
        assert_int_equal(to[2].failure.error, 0);
        assert_false(to[0].given);
        give_back(&f, pool, blocks[0].dma_addr);
        give_back(&f, pool, blocks[1].dma_addr);
        assert_true(to[0].given);
        free(to);
        stop(&f);
}

static void test_who_may_wait_is_not_refused_because_another_could_not(void **state) {
        struct answer *to = calloc(2, sizeof(*to));
        struct caller other;
        struct fixture f;
        uint64_t pool, device;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096 });
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "hog", .node = -1 });
        coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = 16 * MIB, .high = true }, answer, &to[0]);
        settle(&f);
        assert_int_equal(to[0].failure.error, 0);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000, .high = true }, &to[0]);
        settle(&f);
        assert_false(to[0].given);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .high = true }, &to[1]);
        settle(&f);
        assert_true(to[1].given);
        assert_reason(&to[1].failure, REASON_no_memory);
        assert_false(to[0].given);
        assert_int_equal(device_close(&other, device, true, ignore_alloc, NULL, NULL), 0);
        settle(&f);
        assert_true(to[0].given);
        assert_int_equal(to[0].failure.error, 0);
        free(to);
        stop(&f);
}

static void test_a_waiter_on_another_s_memory_keeps_its_own_deadline(void **state) {
        struct answer *to = calloc(2, sizeof(*to));
        struct caller other;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096 });
        other = login(&f, "user:1001");
        take_all_memory(&f, &other, open_device(&other, &(struct device_options){ .name = "hog", .node = -1 }));
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 50 }, &to[0]);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 80 }, &to[1]);
        settle(&f);
        move_clock(&f, 50);
        assert_true(to[0].given);
        assert_false(to[1].given);
        move_clock(&f, 29);
        assert_false(to[1].given);
        move_clock(&f, 1);
        assert_true(to[1].given);
        assert_reason(&to[1].failure, REASON_timeout);
        assert_int_equal(usage(&f.caller, QUOTA_waiters), 0);
        free(to);
        stop(&f);
}

static void test_a_deadline_ends_the_wait(void **state) {
        struct answer *to = calloc(2, sizeof(*to));
        struct fixture f;
        uint64_t pool, a;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 1 });
        a = take(&f, pool);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 50 }, &to[0]);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 100 }, &to[1]);
        assert_int_equal(broker_deadline(f.broker), f.now + 50);
        move_clock(&f, 50);
        assert_true(to[0].given);
        assert_reason(&to[0].failure, REASON_timeout);
        assert_false(to[1].given);
        give_back(&f, pool, a);
        assert_true(to[1].given);
        assert_int_equal(to[1].failure.error, 0);
        assert_int_equal(view_of(&f, pool).timeouts, 1);
        free(to);
        stop(&f);
}

static void test_a_cancelled_waiter_loses_nothing(void **state) {
        struct answer *to = calloc(3, sizeof(*to));
        struct pool_block blocks[4];
        struct fixture f;
        struct ticket *head;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 4 });
        memcpy(blocks, take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 4 })->blocks, sizeof(blocks));
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 4, .wait_ms = 1000 }, &to[0]);
        head = f.ticket;
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[1]);
        ask_lease(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[2]);
        give_back(&f, pool, blocks[0].dma_addr);
        ticket_cancel(f.ticket);
        assert_false(to[1].given);
        ticket_cancel(head);
        assert_true(to[1].given);
        assert_false(to[0].given || to[2].given);
        assert_int_equal(view_of(&f, pool).waiters, 0);
        assert_int_equal(view_of(&f, pool).used, 4);
        assert_int_equal(usage(&f.caller, QUOTA_waiters), 0);
        free(to);
        stop(&f);
}

static void test_a_waiter_whose_session_ends_loses_nothing(void **state) {
        struct answer *to = calloc(2, sizeof(*to));
        struct caller second;
        struct fixture f;
        uint64_t pool, a;
        int died;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 1 });
        for (died = 0; died < 2; died++) {
                a = take(&f, pool);
                second = login(&f, "user:1000");
                ask(&f, &second, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[0]);
                ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, &to[1]);
                if (died)
                        session_abandon(second.session);
                else
                        session_close(second.session);
                assert_true(to[0].given);
                assert_reason(&to[0].failure, REASON_gone);
                assert_false(to[1].given);
                give_back(&f, pool, a);
                assert_true(to[1].given);
                assert_int_equal(to[1].failure.error, 0);
                give_back(&f, pool, a);
        }
        free(to);
        stop(&f);
}

static void test_memory_that_becomes_free_serves_those_who_wait_for_blocks(void **state) {
        struct answer *to = calloc(2, sizeof(*to));
        struct caller other;
        struct fixture f;
        uint64_t pool, device;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096 });
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "hog", .node = -1 });
        take_all_memory(&f, &other, device);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_no_memory);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 40, .wait_ms = 1000 }, &to[0]);
        settle(&f);
        assert_false(to[0].given);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_would_block);
        assert_int_equal(device_close(&other, device, true, ignore_alloc, NULL, NULL), 0);
        settle(&f);
        assert_true(to[0].given);
        assert_int_equal(to[0].failure.error, 0);
        assert_int_equal(to[0].n, 40);
        free(to);
        stop(&f);
}

static void test_freed_blocks_serve_while_memory_is_waited_for(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct caller other;
        struct fixture f;
        uint64_t pool, device, a;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 * KIB });
        a = take(&f, pool);
        take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 15 });
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "hog", .node = -1 });
        take_all_memory(&f, &other, device);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, to);
        settle(&f);
        assert_false(to->given);
        give_back(&f, pool, a);
        assert_true(to->given);
        assert_int_equal(to->blocks[0].dma_addr, a);
        assert_int_equal(usage(&f.caller, QUOTA_waiters), 0);
        free(to);
        stop(&f);
}

static void test_who_waits_is_served_from_freed_blocks_when_the_quota_allows_no_more_memory(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool, a;

        start(&f, "16M@0x140000000", NULL);
        set_quota(&f, "user:1000", QUOTA_bytes, 64 * KIB);
        pool = make(&f, (struct pool_options){ .size = 4096 });
        a = take(&f, pool);
        take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 15 });
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_quota);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, to);
        assert_false(to->given);
        give_back(&f, pool, a);
        assert_true(to->given);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, to);
        assert_false(to->given);
        set_quota(&f, "user:1000", QUOTA_bytes, MIB);
        move_clock(&f, 100);
        assert_true(to->given);
        assert_int_equal(to->failure.error, 0);
        free(to);
        stop(&f);
}

/* ---- tests: leases ---- */

static void test_leases_are_recalled_when_a_pool_has_no_more(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct lease_view lease;
        struct caller second;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 4 });
        second = login(&f, "user:1000");
        lease = lease_as(&f, &second, pool, 4);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 }, to);
        assert_int_equal(f.recalls, 1);
        assert_ptr_equal(f.recalled, second.session);
        move_clock(&f, 100);
        assert_int_equal(f.recalls, 2);
        assert_int_equal(view_of(&f, pool).recalls, 2);
        assert_int_equal(lease_return(&second, lease.handle, LEASE_OF_POOL, NULL), 0);
        assert_true(to->given);
        assert_int_equal(to->failure.error, 0);
        free(to);
        stop(&f);
}

static void test_leases_are_recalled_when_the_quota_allows_no_more_memory(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        set_quota(&f, "user:1000", QUOTA_bytes, 64 * KIB);
        pool = make(&f, (struct pool_options){ .size = 4096 });
        lease_as(&f, &f.caller, pool, 16);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_quota);
        assert_int_equal(f.recalls, 1);
        free(to);
        stop(&f);
}

static void test_a_full_reserve_asks_nobody_else_for_leases(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct caller other;
        struct fixture f;
        uint64_t device;

        start(&f, "16M@0x140000000", NULL);
        lease_as(&f, &f.caller, make(&f, (struct pool_options){ .size = 64 }), 4);
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "gpu", .node = -1 });
        device_reserve(&other, &(struct reserve_request){ .device = device, .size = 2 * MIB }, answer, to);
        settle(&f);
        assert_reason(&to->failure, REASON_NONE);
        take_all_memory(&f, &other, device);
        assert_int_equal(f.recalls, 0);
        free(to);
        stop(&f);
}

static void test_the_quota_of_leases_is_enforced(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        set_quota(&f, "user:1000", QUOTA_leases, 1);
        pool = make(&f, (struct pool_options){ .size = 64 });
        lease_as(&f, &f.caller, pool, 4);
        ask_lease(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 4 }, to);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_quota);
        assert_int_equal(view_of(&f, pool).leased, 4);
        free(to);
        stop(&f);
}

static void test_what_a_session_had_goes_back_when_it_ends(void **state) {
        struct pool_view view;
        struct caller second;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        second = login(&f, "user:1000");
        lease_as(&f, &second, pool, 4);
        take_as(&f, &second, (struct pool_request){ .pool = pool, .count = 7 });
        take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 2 });
        assert_int_equal(view_of(&f, pool).used, 9);
        session_close(second.session);
        view = view_of(&f, pool);
        assert_int_equal(view.used, 2);
        assert_int_equal(view.leased, 0);
        assert_int_equal(view.quarantined, 0);
        assert_int_equal(f.leaks, 1);
        assert_int_equal(view.high_water, 13);
        stop(&f);
}

static void test_a_pool_of_which_another_session_has_blocks_goes_with_that_one(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct broker_counts counts;
        struct caller first, second;
        struct lease_view lease;
        struct failure failure;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        take(&f, pool);
        first = f.caller;
        second = login(&f, "user:1000");
        ask_lease(&f, &second, (struct pool_request){ .pool = pool, .count = 3 }, to);
        session_close(first.session);
        f.caller = second;
        /* Nobody else can be given its memory while the lease is out. */
        assert_int_equal(lease_get(&second, to->handle, &lease, &failure), 0);
        assert_int_equal(view_of(&f, pool).leased, 3);
        assert_int_equal(view_of(&f, pool).used, 0);
        check(&f);
        assert_int_equal(lease_return(&second, to->handle, LEASE_OF_POOL, &failure), 0);
        f.caller = login(&f, "user:1000");
        session_close(second.session);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.pools + counts.leases + counts.devices + counts.allocs, 0);
        free(to);
        stop(&f);
}

static void test_memory_on_its_way_to_a_pool_comes_though_the_session_of_its_device_ends(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct caller first, second;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = MIB });
        second = login(&f, "user:1000");
        lease_as(&f, &second, pool, 1);
        ask(&f, &second, (struct pool_request){ .pool = pool, .count = view_of(&f, pool).blocks_per_slab }, to);
        assert_false(to->given);
        first = f.caller;
        f.caller = second;
        session_close(first.session);
        settle(&f);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_NONE);
        free(to);
        stop(&f);
}

/* A device that an allocation keeps beyond its session has no other end. */
static void test_a_pool_of_a_device_without_a_session_ends_with_the_session_that_made_it(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct broker_counts counts;
        struct caller second, third;
        struct fixture f;
        uint64_t pool, kept;

        start(&f, "16M@0x140000000", NULL);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = 4096, .owner_lifetime = true }, answer,
                       to);
        settle(&f);
        assert_reason(&to->failure, REASON_NONE);
        second = login(&f, "user:1000");
        third = login(&f, "user:1000");
        session_close(f.caller.session);
        f.caller = third;
        kept = make(&f, (struct pool_options){ .size = 64 });
        f.caller = second;
        pool = make(&f, (struct pool_options){ .size = 64 });
        take(&f, pool);
        bounce_create(&second, &(struct bounce_options){ .device = f.device, .size = 4096 }, answer, memset(to, 0, sizeof(*to)));
        settle(&f);
        assert_reason(&to->failure, REASON_NONE);
        session_close(second.session);
        f.caller = third;
        assert_int_equal(pool_get(&third, pool, &(struct pool_view){}, NULL), -ENOENT);
        assert_int_equal(view_of(&f, kept).blocks, 0);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.pools, 1);
        assert_int_equal(counts.bounces, 0);
        assert_int_equal(counts.allocs, 1);
        free(to);
        stop(&f);
}

static void test_what_a_vanished_client_had_rests_before_it_is_reused(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct pool_block_view block;
        struct pool_view view;
        struct caller second;
        struct lease_view lease;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = 10 });
        second = login(&f, "user:1000");
        lease = lease_as(&f, &second, pool, 4);
        take_as(&f, &second, (struct pool_request){ .pool = pool, .count = 6 });
        session_abandon(second.session);
        view = view_of(&f, pool);
        assert_int_equal(view.quarantined, 10);
        assert_int_equal(view.used + view.leased + view.leases, 0);
        assert_int_equal(pool_block_at(&f.caller, lease.dma_addr, false, &block, NULL), 0);
        assert_int_equal(block.state, POOL_BLOCK_QUARANTINED);
        refuse_free(&f, pool, lease.dma_addr, REASON_quarantined);
        check(&f);
        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 10, .wait_ms = 5000 }, to);
        assert_int_equal(broker_deadline(f.broker), f.now + 1000);
        move_clock(&f, 999);
        assert_false(to->given);
        move_clock(&f, 1);
        assert_true(to->given);
        assert_int_equal(to->n, 10);
        free(to);
        stop(&f);
}

/* Whether anything that was handed out lies there. */
static bool is_handed_out(struct fixture *f, uint64_t dma_addr) {
        struct caller admin = login(f, "user:0");
        struct alloc_view alloc;
        int r;

        admin.admin = true;
        r = coherent_lookup(&admin, dma_addr, false, &alloc, NULL);
        session_close(admin.session);
        return r == 0;
}

static void test_what_a_vanished_client_had_rests_though_its_device_is_gone(void **state) {
        struct broker_counts counts;
        struct lease_view lease;
        struct caller other;
        struct fixture f;
        uint64_t device, block;

        start(&f, "16M@0x140000000", NULL);
        lease = lease_as(&f, &f.caller, make(&f, (struct pool_options){ .size = 64 }), 4);
        block = take(&f, make(&f, (struct pool_options){ .size = MIB }));
        session_abandon(f.caller.session);
        settle(&f);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.devices + counts.pools, 0);
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "gpu", .node = -1 });
        take_all_memory(&f, &other, device);
        assert_false(is_handed_out(&f, lease.dma_addr) || is_handed_out(&f, block));
        check(&f);
        assert_int_equal(broker_deadline(f.broker), f.now + 1000);
        move_clock(&f, 999);
        take_all_memory(&f, &other, device);
        assert_false(is_handed_out(&f, lease.dma_addr) || is_handed_out(&f, block));
        move_clock(&f, 1);
        take_all_memory(&f, &other, device);
        assert_true(is_handed_out(&f, lease.dma_addr) && is_handed_out(&f, block));
        f.caller = login(&f, "user:1000");
        stop(&f);
}

static void test_what_a_vanished_client_had_rests_though_its_pool_is_destroyed(void **state) {
        struct caller second, other;
        struct lease_view lease;
        struct fixture f;
        uint64_t pool, device;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        second = login(&f, "user:1000");
        lease = lease_as(&f, &second, pool, 4);
        session_abandon(second.session);
        assert_int_equal(pool_destroy(&f.caller, pool, true, NULL, NULL, NULL), 0);
        settle(&f);
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "gpu", .node = -1 });
        take_all_memory(&f, &f.caller, f.device);
        take_all_memory(&f, &other, device);
        assert_false(is_handed_out(&f, lease.dma_addr));
        /* A device that is closed is quiet. */
        assert_int_equal(device_close(&f.caller, f.device, true, ignore_alloc, NULL, NULL), 0);
        settle(&f);
        take_all_memory(&f, &other, device);
        assert_true(is_handed_out(&f, lease.dma_addr));
        stop(&f);
}

static void test_a_device_of_which_only_something_rests_can_be_closed(void **state) {
        struct caller second;
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        second = login(&f, "user:1000");
        lease_as(&f, &second, pool, 4);
        session_abandon(second.session);
        assert_int_equal(pool_destroy(&f.caller, pool, false, NULL, NULL, NULL), 0);
        assert_true(usage(&f.caller, QUOTA_bytes) > 0);
        assert_int_equal(device_close(&f.caller, f.device, false, ignore_alloc, NULL, NULL), 0);
        assert_int_equal(usage(&f.caller, QUOTA_bytes), 0);
        move_clock(&f, 5000);
        stop(&f);
}

/* The device has outlived its session for the sake of a pool, of which a block rests now, and of an allocation. */
static void start_resting(struct fixture *f, void (*meanwhile)(struct fixture *f, const struct caller *other)) {
        struct answer *to = calloc(1, sizeof(*to));
        struct caller first, second, third;
        uint64_t kept;

        start(f, "16M@0x140000000", NULL);
        first = f->caller;
        second = login(f, "user:1000");
        third = login(f, "user:1000");
        coherent_alloc(&first, &(struct alloc_request){ .device = f->device, .size = 4096, .owner_lifetime = true }, answer, to);
        settle(f);
        kept = to->handle;
        session_close(first.session);
        f->caller = second;
        take(f, make(f, (struct pool_options){ .size = 64 }));
        coherent_alloc(&second, &(struct alloc_request){ .device = f->device, .size = 4096 }, answer, memset(to, 0, sizeof(*to)));
        settle(f);
        assert_int_equal(coherent_free(&second, kept, NULL), 0);
        if (meanwhile)
                meanwhile(f, &third);
        session_abandon(second.session);
        f->caller = third;
        free(to);
}

static void test_a_device_without_a_session_of_which_only_something_rests_is_closed(void **state) {
        struct broker_counts counts;
        struct fixture f;

        start_resting(&f, NULL);
        settle(&f);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.devices, 0);
        /* The pool's slab, and what its user had beside. */
        assert_int_equal(counts.allocs, 2);
        check(&f);
        move_clock(&f, 1000);
        broker_counts(f.broker, &counts);
        assert_int_equal(counts.allocs, 0);
        stop(&f);
}

/* Nobody stops its device, which may still write there. */
static void test_an_allocation_of_a_client_that_vanished_rests_before_anybody_gets_it(void **state) {
        struct answer first = {}, second = {};
        struct caller other;
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        other = login(&f, "user:2000");
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = 12 * MIB }, answer, &first);
        settle(&f);
        assert_true(first.handle > 0);
        session_abandon(f.caller.session);
        f.caller = other;
        f.device = open_device(&f.caller, &(struct device_options){ .name = "nic", .node = -1 });
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = 8 * MIB, .wait_ms = 5000 }, answer,
                       &second);
        move_clock(&f, 999);
        assert_false(second.given);
        check(&f);
        move_clock(&f, 1);
        settle(&f);
        assert_true(second.handle > 0);
        stop(&f);
}

static struct answer asked_meanwhile;

static void ask_meanwhile(struct fixture *f, const struct caller *other) {
        asked_meanwhile = (struct answer){};
        coherent_alloc(other, &(struct alloc_request){ .device = f->device, .size = MIB }, answer, &asked_meanwhile);
}

static void test_a_device_without_a_session_stays_open_for_what_is_on_its_way_to_it(void **state) {
        struct device_view view;
        struct fixture f;

        start_resting(&f, ask_meanwhile);
        assert_false(asked_meanwhile.given);
        settle(&f);
        assert_true(asked_meanwhile.handle);
        assert_int_equal(device_get(&f.caller, f.device, &view, NULL), 0);
        stop(&f);
}

/* ---- tests: memory goes back ---- */

static void test_idle_slabs_go_back_after_a_while_down_to_the_reserve(void **state) {
        struct pool_block blocks[64];
        struct fixture f;
        uint64_t pool;
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096, .reserve = 20 });
        memcpy(blocks, take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 64 })->blocks, sizeof(blocks));
        assert_int_equal(view_of(&f, pool).slabs, 4);
        for (i = 0; i < 64; i++)
                give_back(&f, pool, blocks[i].dma_addr);
        assert_int_equal(view_of(&f, pool).slabs, 4);
        move_clock(&f, 4999);
        assert_int_equal(view_of(&f, pool).slabs, 4);
        move_clock(&f, 1);
        assert_int_equal(view_of(&f, pool).slabs, 2);
        assert_true(broker_deadline(f.broker) > f.now);
        stop(&f);
}

static void test_trimming_gives_idle_slabs_back_at_once(void **state) {
        struct pool_block blocks[64];
        struct fixture f;
        uint64_t pool, bytes;
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 4096, .reserve = 1, .max_blocks = 40 });
        memcpy(blocks, take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 40 })->blocks, sizeof(blocks));
        for (i = 0; i < 39; i++)
                give_back(&f, pool, blocks[i].dma_addr);
        assert_int_equal(pool_trim(&f.caller, pool, &bytes, NULL), 0);
        assert_int_equal(bytes, 128 * KIB);
        assert_in_range(view_of(&f, pool).blocks, 1, 16);
        take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 39 });
        assert_int_equal(view_of(&f, pool).blocks, 40);
        stop(&f);
}

static void test_idle_slabs_are_given_to_others_under_pressure(void **state) {
        struct pool_block *blocks = malloc(1000 * sizeof(*blocks));
        struct answer *to = calloc(1, sizeof(*to));
        struct caller other;
        struct fixture f;
        uint64_t pool, device;
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 8192, .reserve = 8 });
        memcpy(blocks, take_as(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1000 })->blocks,
               1000 * sizeof(*blocks));
        for (i = 0; i < 1000; i++)
                give_back(&f, pool, blocks[i].dma_addr);
        other = login(&f, "user:1001");
        device = open_device(&other, &(struct device_options){ .name = "hog", .node = -1 });
        for (i = 0; i < 12; i++) {
                *to = (struct answer){};
                coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = MIB }, answer, to);
                settle(&f);
                assert_true(to->given);
                if (to->failure.error)
                        fail_msg("%s", to->failure.sentence);
        }
        assert_true(view_of(&f, pool).blocks < 1000);
        take_all_memory(&f, &other, device);
        assert_int_equal(view_of(&f, pool).blocks, 16);
        check(&f);
        free(blocks);
        free(to);
        stop(&f);
}

static void test_pools_that_both_need_memory_do_not_take_it_from_each_other_for_ever(void **state) {
        struct answer *to = calloc(2, sizeof(*to));
        struct fixture f;
        uint64_t pools[2];
        int i;

        start(&f, "4M@0x140000000", NULL);
        for (i = 0; i < 2; i++)
                pools[i] = make(&f, (struct pool_options){ .size = 4096 });
        for (i = 0; i < 2; i++)
                ask(&f, &f.caller, (struct pool_request){ .pool = pools[i], .count = 900, .wait_ms = 100 }, &to[i]);
        settle(&f);
        move_clock(&f, 100);
        assert_true(to[0].given && to[1].given);
        assert_true(!to[0].failure.error || !to[1].failure.error || to[0].failure.reason == REASON_timeout);
        check(&f);
        free(to);
        stop(&f);
}

static void test_memory_that_a_pool_does_not_need_any_more_goes_to_who_waits_for_it(void **state) {
        struct answer *to = calloc(2, sizeof(*to));
        struct caller other;
        struct fixture f;
        uint64_t pool, device, addrs[2];
        int i;

        for (i = 0; i < 2; i++) {
                start(&f, "16M@0x140000000", NULL);
                pool = make(&f, (struct pool_options){ .size = 2 * MIB, .max_blocks = 2 });
                addrs[0] = take(&f, pool);
                addrs[1] = take(&f, pool);
                other = login(&f, "user:1001");
                device = open_device(&other, &(struct device_options){ .name = "hog", .node = -1 });
                take_all_memory(&f, &other, device);
                if (i == 1) {
                        to[1] = (struct answer){};
                        ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 2, .wait_ms = 1000 }, &to[1]);
                }
                to[0] = (struct answer){};
                coherent_alloc(&other, &(struct alloc_request){ .device = device, .size = 2 * MIB, .wait_ms = 1000 }, answer,
                               &to[0]);
                settle(&f);
                assert_false(to[0].given);
                give_back(&f, pool, addrs[0]);
                if (i == 1) {
                        assert_false(to[0].given);
                        ticket_cancel(f.ticket);
                        settle(&f);
                }
                assert_true(to[0].given);
                assert_int_equal(to[0].failure.error, 0);
                check(&f);
                stop(&f);
        }
        free(to);
}

static void test_a_device_with_a_reserve_gets_its_pools_idle_slabs_back(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool, addrs[4];
        size_t i;

        start(&f, "16M@0x140000000", NULL);
        device_reserve(&f.caller, &(struct reserve_request){ .device = f.device, .size = 2 * MIB }, answer, to);
        settle(&f);
        assert_int_equal(to->failure.error, 0);
        pool = make(&f, (struct pool_options){ .size = 512 * KIB, .max_blocks = 4 });
        for (i = 0; i < 4; i++)
                addrs[i] = take(&f, pool);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_limit);
        for (i = 0; i < 4; i++)
                give_back(&f, pool, addrs[i]);
        *to = (struct answer){};
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = MIB }, answer, to);
        settle(&f);
        assert_true(to->given);
        assert_int_equal(to->failure.error, 0);
        assert_int_equal(view_of(&f, pool).slabs, 0);
        free(to);
        stop(&f);
}

static void test_a_full_reserve_says_so_also_to_who_may_not_wait_behind_others(void **state) {
        struct answer *to = calloc(3, sizeof(*to));
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 * KIB });
        device_reserve(&f.caller, &(struct reserve_request){ .device = f.device, .size = 2 * MIB }, answer, &to[0]);
        settle(&f);
        assert_reason(&to[0].failure, REASON_NONE);
        to[0] = (struct answer){};
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = 2 * MIB }, answer, &to[0]);
        assert_reason(&to[0].failure, REASON_NONE);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = MIB, .wait_ms = 1000 }, answer, &to[1]);
        settle(&f);
        assert_false(to[1].given);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = MIB }, answer, &to[2]);
        assert_reason(&to[2].failure, REASON_no_memory);
        refuse(&f, (struct pool_request){ .pool = pool, .count = 1 }, REASON_no_memory);
        stop(&f);
        free(to);
}

/* ---- tests: the same again ---- */

static void test_the_same_key_gives_the_same_blocks_until_one_is_freed(void **state) {
        struct pool_request request = { .count = 3, .request_key = "k", .request_digest = 7 };
        struct pool_block blocks[3];
        struct failure failure;
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        request.pool = make(&f, (struct pool_options){ .size = 64 });
        memcpy(blocks, take_as(&f, &f.caller, request)->blocks, sizeof(blocks));
        assert_true(request_is_answered(&f.caller, "k"));
        assert_memory_equal(take_as(&f, &f.caller, request)->blocks, blocks, sizeof(blocks));
        assert_int_equal(view_of(&f, request.pool).used, 3);
        request.request_digest = 8;
        refuse(&f, request, REASON_bad_param);
        request.request_digest = 7;
        give_back(&f, request.pool, blocks[1].dma_addr);
        assert_false(request_is_answered(&f.caller, "k"));
        take_as(&f, &f.caller, request);
        assert_int_equal(view_of(&f, request.pool).used, 5);
        assert_int_equal(pool_free_blocks(&f.caller, request.pool, &blocks[0].dma_addr, 1, &failure), 0);
        stop(&f);
}

static void test_answers_that_can_be_given_again_are_bounded(void **state) {
        struct pool_request request = { .count = 1, .request_key = "a" };
        struct pool_block first;
        struct failure failure;
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        request.pool = make(&f, (struct pool_options){ .size = 64 });
        set_quota(&f, "user:1000", QUOTA_leases, 2);
        first = take_as(&f, &f.caller, request)->blocks[0];
        request.request_key = "b";
        take_as(&f, &f.caller, request);
        request.request_key = "c";
        refuse(&f, request, REASON_quota);
        request.request_key = NULL;
        take_as(&f, &f.caller, request);
        assert_int_equal(view_of(&f, request.pool).used, 3);
        assert_int_equal(pool_free_blocks(&f.caller, request.pool, &first.dma_addr, 1, &failure), 0);
        request.request_key = "c";
        take_as(&f, &f.caller, request);
        stop(&f);
}

static void test_the_same_key_gives_the_same_pool_and_the_same_lease(void **state) {
        struct pool_options options = { .size = 64, .request_key = "p", .reserve = 3 };
        struct pool_request request = { .count = 3, .request_key = "l" };
        struct answer *to = calloc(3, sizeof(*to));
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        create(&f, &f.caller, options, &to[0]);
        create(&f, &f.caller, options, &to[1]);
        assert_true(to[1].given);
        assert_reason(&to[1].failure, REASON_busy);
        settle(&f);
        create(&f, &f.caller, options, &to[1]);
        assert_true(to[1].given);
        assert_int_equal(to[0].handle, to[1].handle);
        request.pool = to[0].handle;
        ask_lease(&f, &f.caller, request, &to[0]);
        ask_lease(&f, &f.caller, request, &to[1]);
        assert_int_equal(to[0].handle, to[1].handle);
        assert_int_equal(lease_return(&f.caller, to[0].handle, LEASE_OF_POOL, NULL), 0);
        ask_lease(&f, &f.caller, request, &to[1]);
        assert_int_not_equal(to[0].handle, to[1].handle);
        assert_int_equal(pool_destroy(&f.caller, request.pool, true, NULL, NULL, NULL), 0);
        create(&f, &f.caller, options, &to[0]);
        settle(&f);
        assert_int_not_equal(to[0].handle, request.pool);
        free(to);
        stop(&f);
}

static void test_a_key_gives_its_lease_again_when_no_other_could_be_had(void **state) {
        struct pool_request request = { .count = 3, .request_key = "l" };
        struct answer *to = calloc(2, sizeof(*to));
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        set_quota(&f, "user:1000", QUOTA_leases, 1);
        request.pool = make(&f, (struct pool_options){ .size = 64 });
        ask_lease(&f, &f.caller, request, &to[0]);
        settle(&f);
        assert_reason(&to[0].failure, REASON_NONE);
        ask_lease(&f, &f.caller, request, &to[1]);
        assert_reason(&to[1].failure, REASON_NONE);
        assert_int_equal(to[0].handle, to[1].handle);
        free(to);
        stop(&f);
}

/* ---- tests: answers that call the core again ---- */

static void then_destroy(struct answer *answer) {
        pool_destroy(&answer->fixture->caller, answer->pool, true, NULL, NULL, NULL);
}

static void then_close_device(struct answer *answer) {
        device_close(&answer->fixture->caller, answer->fixture->device, true, ignore_alloc, NULL, NULL);
}

/* Nobody may use it from now on, also those who are answered while it ends. */
static struct session *take_session(struct fixture *f) {
        struct session *session = f->caller.session;

        f->caller.session = NULL;
        return session;
}

static void then_end_session(struct answer *answer) {
        session_close(take_session(answer->fixture));
}

static void then_abandon_session(struct answer *answer) {
        session_abandon(take_session(answer->fixture));
}

static void then_free(struct answer *answer) {
        if (answer->n)
                give_back(answer->fixture, answer->pool, answer->blocks[0].dma_addr);
}

static void then_ask_again(struct answer *answer) {
        answer->then = NULL;
        ask(answer->fixture, &answer->fixture->caller,
            (struct pool_request){ .pool = answer->pool, .count = 1, .wait_ms = 1000 }, answer);
}

static void test_an_answer_may_end_what_it_was_asked_of(void **state) {
        static void (*const thens[])(struct answer *answer) = {
                then_destroy, then_close_device, then_end_session, then_abandon_session, then_free, then_ask_again,
        };
        struct answer *to = calloc(8, sizeof(*to));
        struct fixture f;
        uint64_t pool, a;
        size_t i, j, which;

        for (i = 0; i < 2 * sizeof(thens) / sizeof(*thens); i++) {
                which = i / 2;
                start(&f, "16M@0x140000000", NULL);
                pool = make(&f, (struct pool_options){ .size = 64, .max_blocks = i % 2 ? 1 : 0 });
                memset(to, 0, 8 * sizeof(*to));
                a = i % 2 ? take(&f, pool) : 0;
                to[0].then = to[1].then = thens[which];
                for (j = 0; j < 8; j++)
                        if (f.caller.session && j == 5)
                                ask_lease(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 },
                                          &to[j]);
                        else if (f.caller.session)
                                ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1, .wait_ms = 1000 },
                                    &to[j]);
                if (a)
                        pool_free_blocks(&f.caller, pool, &a, 1, NULL);
                settle(&f);
                check(&f);
                session_close(take_session(&f));
                stop(&f);
        }
        free(to);
}

/* ---- tests: the daemon's own memory ---- */

static _Thread_local bool counting; /* what the source's thread allocates is there */
static unsigned allocations_left, allocations_failed;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool allocation_fails(void) {
        if (!counting || allocations_left--)
                return false;
        allocations_left = 0;
        allocations_failed++;
        counting = false;
        return true;
}

void *__wrap_malloc(size_t size) {
        return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size) {
        return allocation_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size) {
        return allocation_fails() ? NULL : __real_realloc(old, size);
}

/* Whether the request was answered well; if not, nothing may be left of it. */
static bool fares_well(struct fixture *f, struct answer *to, uint64_t pool) {
        counting = false;
        settle(f);
        assert_true(to->given);
        check(f);
        if (to->failure.error) {
                assert_reason(&to->failure, REASON_no_memory);
                assert_int_equal(usage(&f->caller, QUOTA_leases), 0);
                assert_int_equal(usage(&f->caller, QUOTA_waiters), 0);
                assert_int_equal(usage(&f->caller, QUOTA_pools), pool ? 1 : 0);
                if (pool)
                        assert_int_equal(view_of(f, pool).used + view_of(f, pool).leased, 0);
        }
        return !to->failure.error;
}

static void test_a_daemon_without_memory_refuses_and_loses_nothing(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool;
        unsigned kind, n;
        bool well;

        for (kind = 0; kind < 4; kind++) {
                for (n = 0, well = false; !well || allocations_failed; n++) {
                        start(&f, "16M@0x140000000", NULL);
                        pool = kind ? make(&f, (struct pool_options){ .size = 64 }) : 0;
                        if (kind == 3)
                                give_back(&f, pool, take(&f, pool));
                        *to = (struct answer){};
                        allocations_left = n;
                        allocations_failed = 0;
                        counting = true;
                        if (kind == 0)
                                create(&f, &f.caller, (struct pool_options){ .size = 64, .reserve = 10, .request_key = "k" },
                                       to);
                        else if (kind == 1)
                                ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 70, .wait_ms = 10 }, to);
                        else if (kind == 2)
                                ask_lease(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 70 }, to);
                        else
                                ask(&f, &f.caller,
                                    (struct pool_request){ .pool = pool, .count = 70, .request_key = "k" }, to);
                        well = fares_well(&f, to, pool);
                        assert_true(n < 1000);
                        stop(&f);
                }
                assert_true(n > 3);
        }
        free(to);
}

static void test_an_answer_that_cannot_be_told_again_takes_nothing_back(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct pool_request request = { .count = 3, .request_key = "k" };
        struct fixture f;

        start(&f, "16M@0x140000000", NULL);
        request.pool = make(&f, (struct pool_options){ .size = 64 });
        take_as(&f, &f.caller, request);
        allocations_left = 0;
        counting = true;
        ask(&f, &f.caller, request, to);
        counting = false;
        assert_true(to->given);
        assert_reason(&to->failure, REASON_no_memory);
        assert_int_equal(view_of(&f, request.pool).used, 3);
        assert_int_equal(take_as(&f, &f.caller, request)->n, 3);
        assert_int_equal(view_of(&f, request.pool).used, 3);
        free(to);
        stop(&f);
}

static void test_a_second_free_is_told_apart_though_blocks_come_and_go(void **state) {
        struct failure failure;
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool;
        int i;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        take(&f, pool);
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = 4096 }, answer, to);
        settle(&f);
        assert_int_equal(coherent_free(&f.caller, to->handle, NULL), 0);
        for (i = 0; i < 100; i++)
                take(&f, pool);
        assert_int_equal(coherent_free(&f.caller, to->handle, &failure), -EINVAL);
        assert_reason(&failure, REASON_double_free);
        free(to);
        stop(&f);
}

static void test_a_request_that_can_never_be_served_leaves_pools_their_slabs(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        struct fixture f;
        uint64_t pool;

        start(&f, "16M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        give_back(&f, pool, take(&f, pool));
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = 32 * MIB }, answer, to);
        settle(&f);
        assert_reason(&to->failure, REASON_no_memory);
        assert_int_equal(view_of(&f, pool).slabs, 1);
        free(to);
        stop(&f);
}

/* ---- tests: many ---- */

static void test_a_pool_of_a_hundred_thousand_blocks_is_served_at_once(void **state) {
        struct answer *to = calloc(1, sizeof(*to));
        uint64_t *addrs = malloc(100000 * sizeof(*addrs)), n = 0;
        struct fixture f;
        uint64_t pool;
        size_t i;

        start(&f, "512M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 2048 });
        while (n < 100000) {
                to->given = false;
                ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1000 }, to);
                settle(&f);
                assert_true(to->given && to->n == 1000);
                for (i = 0; i < 1000; i++)
                        addrs[n++] = to->blocks[i].dma_addr;
        }
        for (i = 0; i < 300000; i++) {
                uint64_t *addr = &addrs[i * UINT64_C(7919) % n];

                assert_int_equal(pool_free_blocks(&f.caller, pool, addr, 1, NULL), 0);
                ask(&f, &f.caller, (struct pool_request){ .pool = pool, .count = 1 }, to);
                *addr = to->blocks[0].dma_addr;
        }
        assert_int_equal(pool_free_blocks(&f.caller, pool, addrs, n, NULL), 0);
        assert_int_equal(view_of(&f, pool).used, 0);
        free(addrs);
        free(to);
        stop(&f);
}

/* Each with a key, so that each is a taker of its own. */
static void take_many_with_keys(struct fixture *f, const struct caller *caller, uint64_t pool, size_t n) {
        char key[32];
        size_t i;

        for (i = 0; i < n; i++) {
                snprintf(key, sizeof(key), "%zu", i);
                take_as(f, caller, (struct pool_request){ .pool = pool, .count = 1, .request_key = key });
        }
}

static void test_a_session_with_many_answered_keys_ends_at_once(void **state) {
        struct caller second;
        struct fixture f;
        uint64_t pool;

        start(&f, "64M@0x140000000", NULL);
        pool = make(&f, (struct pool_options){ .size = 64 });
        second = login(&f, "user:1000");
        take_many_with_keys(&f, &second, pool, 200000);
        session_close(second.session);
        assert_int_equal(view_of(&f, pool).free, view_of(&f, pool).blocks);
        second = login(&f, "user:1000");
        take_many_with_keys(&f, &second, pool, 200000);
        session_abandon(second.session);
        assert_int_equal(view_of(&f, pool).quarantined, 200000);
        move_clock(&f, 1000);
        assert_int_equal(view_of(&f, pool).free, view_of(&f, pool).blocks);
        stop(&f);
}

/* A pool for each lease, so that each is asked for by itself. */
static void test_many_leases_are_recalled_at_once(void **state) {
        enum { POOLS = 20000 };
        struct answer *to = calloc(1, sizeof(*to));
        struct pool_options options = { .name = "rx", .size = 64, .max_blocks = 1 };
        struct fixture f;
        size_t i;

        start(&f, "256M@0x140000000", NULL);
        options.device = f.device;
        for (i = 0; i < POOLS; i++)
                lease_as(&f, &f.caller, make(&f, options), 1);
        *to = (struct answer){};
        coherent_alloc(&f.caller, &(struct alloc_request){ .device = f.device, .size = 240 * MIB }, answer, to);
        settle(&f);
        assert_true(to->given);
        assert_reason(&to->failure, REASON_no_memory);
        assert_int_equal(f.recalls, POOLS);
        free(to);
        stop(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_blocks_are_of_the_size_and_alignment_that_the_pool_tells),
                cmocka_unit_test(test_a_pool_takes_no_memory_before_it_is_needed),
                cmocka_unit_test(test_a_block_tells_where_it_is),
                cmocka_unit_test(test_blocks_never_cross_the_boundary),
                cmocka_unit_test(test_a_lease_never_spans_what_is_left_before_a_boundary),
                cmocka_unit_test(test_no_slab_is_larger_than_the_device_takes),
                cmocka_unit_test(test_each_impossible_pool_has_its_own_reason),
                cmocka_unit_test(test_a_pool_of_another_owner_is_unknown),
                cmocka_unit_test(test_pools_are_listed_by_device_and_owner_in_a_stable_order),
                cmocka_unit_test(test_all_blocks_of_a_request_are_given_or_none),
                cmocka_unit_test(test_each_impossible_request_has_its_own_reason),
                cmocka_unit_test(test_what_is_no_block_of_the_pool_is_not_taken_back),
                cmocka_unit_test(test_a_block_of_a_lease_is_not_freed_alone),
                cmocka_unit_test(test_whose_is_this_address_is_answered_for_blocks),
                cmocka_unit_test(test_a_lease_takes_the_longest_run_when_there_is_none_of_its_length),
                cmocka_unit_test(test_a_busy_pool_is_not_destroyed_and_tells_what_is_out),
                cmocka_unit_test(test_a_device_that_is_closed_takes_its_pools_along),
                cmocka_unit_test(test_a_pool_that_is_destroyed_answers_those_who_wait),
                cmocka_unit_test(test_a_pool_is_destroyed_while_it_fetches_memory),
                cmocka_unit_test(test_the_reserve_can_be_had_when_others_have_taken_all_memory),
                cmocka_unit_test(test_a_pool_whose_reserve_cannot_be_had_is_not_made),
                cmocka_unit_test(test_a_pool_in_the_making_is_cancelled_or_ends_with_its_session),
                cmocka_unit_test(test_a_hundred_waiters_are_served_in_the_order_in_which_they_came),
                cmocka_unit_test(test_a_large_request_is_not_overtaken_by_small_ones),
                cmocka_unit_test(test_high_priority_passes_those_that_wait),
                cmocka_unit_test(test_who_may_wait_is_not_refused_because_another_could_not),
                cmocka_unit_test(test_a_waiter_on_another_s_memory_keeps_its_own_deadline),
                cmocka_unit_test(test_a_deadline_ends_the_wait),
                cmocka_unit_test(test_a_cancelled_waiter_loses_nothing),
                cmocka_unit_test(test_a_waiter_whose_session_ends_loses_nothing),
                cmocka_unit_test(test_memory_that_becomes_free_serves_those_who_wait_for_blocks),
                cmocka_unit_test(test_freed_blocks_serve_while_memory_is_waited_for),
                cmocka_unit_test(test_who_waits_is_served_from_freed_blocks_when_the_quota_allows_no_more_memory),
                cmocka_unit_test(test_leases_are_recalled_when_a_pool_has_no_more),
                cmocka_unit_test(test_leases_are_recalled_when_the_quota_allows_no_more_memory),
                cmocka_unit_test(test_a_full_reserve_asks_nobody_else_for_leases),
                cmocka_unit_test(test_the_quota_of_leases_is_enforced),
                cmocka_unit_test(test_what_a_session_had_goes_back_when_it_ends),
                cmocka_unit_test(test_a_pool_of_which_another_session_has_blocks_goes_with_that_one),
                cmocka_unit_test(test_memory_on_its_way_to_a_pool_comes_though_the_session_of_its_device_ends),
                cmocka_unit_test(test_a_pool_of_a_device_without_a_session_ends_with_the_session_that_made_it),
                cmocka_unit_test(test_what_a_vanished_client_had_rests_before_it_is_reused),
                cmocka_unit_test(test_what_a_vanished_client_had_rests_though_its_device_is_gone),
                cmocka_unit_test(test_what_a_vanished_client_had_rests_though_its_pool_is_destroyed),
                cmocka_unit_test(test_a_device_of_which_only_something_rests_can_be_closed),
                cmocka_unit_test(test_a_device_without_a_session_of_which_only_something_rests_is_closed),
                cmocka_unit_test(test_an_allocation_of_a_client_that_vanished_rests_before_anybody_gets_it),
                cmocka_unit_test(test_a_device_without_a_session_stays_open_for_what_is_on_its_way_to_it),
                cmocka_unit_test(test_idle_slabs_go_back_after_a_while_down_to_the_reserve),
                cmocka_unit_test(test_trimming_gives_idle_slabs_back_at_once),
                cmocka_unit_test(test_idle_slabs_are_given_to_others_under_pressure),
                cmocka_unit_test(test_pools_that_both_need_memory_do_not_take_it_from_each_other_for_ever),
                cmocka_unit_test(test_memory_that_a_pool_does_not_need_any_more_goes_to_who_waits_for_it),
                cmocka_unit_test(test_a_device_with_a_reserve_gets_its_pools_idle_slabs_back),
                cmocka_unit_test(test_a_full_reserve_says_so_also_to_who_may_not_wait_behind_others),
                cmocka_unit_test(test_the_same_key_gives_the_same_blocks_until_one_is_freed),
                cmocka_unit_test(test_answers_that_can_be_given_again_are_bounded),
                cmocka_unit_test(test_the_same_key_gives_the_same_pool_and_the_same_lease),
                cmocka_unit_test(test_a_key_gives_its_lease_again_when_no_other_could_be_had),
                cmocka_unit_test(test_an_answer_may_end_what_it_was_asked_of),
                cmocka_unit_test(test_a_daemon_without_memory_refuses_and_loses_nothing),
                cmocka_unit_test(test_an_answer_that_cannot_be_told_again_takes_nothing_back),
                cmocka_unit_test(test_a_second_free_is_told_apart_though_blocks_come_and_go),
                cmocka_unit_test(test_a_request_that_can_never_be_served_leaves_pools_their_slabs),
                cmocka_unit_test(test_a_pool_of_a_hundred_thousand_blocks_is_served_at_once),
                cmocka_unit_test(test_a_session_with_many_answered_keys_ends_at_once),
                cmocka_unit_test(test_many_leases_are_recalled_at_once),
        };

        return cmocka_run_group_tests_name("pool-test", tests, NULL, NULL);
}
