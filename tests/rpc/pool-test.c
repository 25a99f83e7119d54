/* Pools by RPC alone: blocks of one size, what they are cut to, who gets them, and every way to ask wrongly. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define MIB (UINT64_C(1) << 20)

static const char config[] = "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 0\n"
                             "[device slow]\nboundary = 64K\n[device short]\nmax_segment = 8K\n";

static int set_up(void **state) {
        return ask_set_up(state, config);
}

/* more: further parameters, such as ",'reserve':4". */
static uint64_t make_pool(struct ask_fixture *fixture, uint64_t size, const char *more) {
        return ask_number(fixture->client, "pool", "pool.create",
                          "{'name':'ring','device':%" PRIu64 ",'size':%" PRIu64 "%s}", fixture->device, size, more);
}

static json_t *take(struct ask_fixture *fixture, uint64_t pool, uint64_t count) {
        return ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':%" PRIu64 "}", pool, count);
}

/* Where the block with this index starts; result stays the caller's. */
static uint64_t block_addr(const json_t *result, size_t index) {
        return ask_peek_hex(json_array_get(json_object_get(result, "blocks"), index), "dma_addr");
}

static uint64_t take_one(struct ask_fixture *fixture, uint64_t pool) {
        json_t *result = take(fixture, pool, 1);
        uint64_t addr = block_addr(result, 0);

        json_decref(result);
        return addr;
}

static void give_back(struct ask_fixture *fixture, uint64_t pool, uint64_t addr) {
        json_decref(ask(fixture->client, "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}", pool, addr));
}

static uint64_t stat(struct ask_fixture *fixture, uint64_t pool, const char *member) {
        return ask_number(fixture->client, member, "pool.stats", "{'pool':%" PRIu64 "}", pool);
}

/* ---- how a pool is laid out ---- */

static void test_a_pool_tells_how_it_was_laid_out(void **state) {
        struct ask_fixture *fixture = *state;
        json_t *pool = ask(fixture->client, "pool.create", "{'name':'ring','device':%" PRIu64 ",'size':100}",
                           fixture->device);

        assert_int_equal(ask_peek_number(pool, "block_size"), 128);
        assert_int_equal(ask_peek_number(pool, "align"), 64);
        assert_true(ask_peek_number(pool, "blocks_per_slab") >= 16);
        assert_true(ask_peek_number(pool, "slab_size") >= ask_peek_number(pool, "blocks_per_slab") * 128);
        assert_int_equal(ask_peek_number(pool, "reserve"), 0);
        json_decref(pool);
}

static void test_an_alignment_is_kept_as_it_was_given(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 20, ",'align':8"), addr;
        json_t *blocks;

        assert_int_equal(stat(fixture, pool, "block_size"), 24);
        pool = make_pool(fixture, 100, ",'align':4096");
        assert_int_equal(stat(fixture, pool, "block_size"), 4096);
        blocks = take(fixture, pool, 50);
        for (size_t i = 0; i < 50; i++) {
                addr = block_addr(blocks, i);
                assert_int_equal(addr % 4096, 0);
        }
        json_decref(blocks);
}

static void test_no_block_crosses_the_boundary(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 1500, ",'boundary':4096"), size = stat(fixture, pool, "block_size");
        json_t *blocks = take(fixture, pool, 200);

        for (size_t i = 0; i < 200; i++)
                assert_int_equal(block_addr(blocks, i) / 4096, (block_addr(blocks, i) + size - 1) / 4096);
        json_decref(blocks);
        assert_int_equal(stat(fixture, pool, "boundary"), 4096);
        ask_clean(fixture->client);
}

static void test_no_block_crosses_the_devices_boundary(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool, size;
        json_t *blocks;

        fixture->device = ask_device(fixture->client, "slow");
        pool = make_pool(fixture, 40000, "");
        size = stat(fixture, pool, "block_size");
        blocks = take(fixture, pool, 20);
        for (size_t i = 0; i < 20; i++)
                assert_int_equal(block_addr(blocks, i) / 65536, (block_addr(blocks, i) + size - 1) / 65536);
        json_decref(blocks);
}

static void test_blocks_never_overlap(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 192, "");
        json_t *blocks = take(fixture, pool, 1000);
        uint64_t addrs[1000];

        for (size_t i = 0; i < 1000; i++) {
                addrs[i] = block_addr(blocks, i);
                for (size_t j = 0; j < i; j++)
                        assert_true(addrs[i] + 192 <= addrs[j] || addrs[j] + 192 <= addrs[i]);
        }
        json_decref(blocks);
}

/* ---- taking and giving back ---- */

static void test_blocks_are_counted_as_they_come_and_go(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, "");
        json_t *blocks = take(fixture, pool, 3);

        assert_int_equal(json_array_size(json_object_get(blocks, "blocks")), 3);
        assert_int_equal(ask_peek_number(blocks, "block_size"), 256);
        assert_string_equal(json_string_value(json_object_get(blocks, "addressing")), "simulated");
        assert_int_equal(stat(fixture, pool, "used"), 3);
        for (size_t i = 0; i < 3; i++)
                give_back(fixture, pool, block_addr(blocks, i));
        json_decref(blocks);
        assert_int_equal(stat(fixture, pool, "used"), 0);
        assert_int_equal(stat(fixture, pool, "high_water"), 3);
        assert_int_equal(stat(fixture, pool, "allocs"), 3);
        assert_int_equal(stat(fixture, pool, "frees"), 3);
        assert_int_equal(stat(fixture, pool, "blocks"), stat(fixture, pool, "free"));
        ask_clean(fixture->client);
}

static void test_blocks_lie_in_the_region_that_they_name(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ""), region, offset, addr;
        json_t *blocks = take(fixture, pool, 1), *block = json_array_get(json_object_get(blocks, "blocks"), 0), *extent;

        region = ask_peek_number(block, "region");
        offset = ask_peek_number(block, "offset");
        addr = ask_peek_hex(block, "machine_addr");
        json_decref(blocks);
        blocks = ask(fixture->client, "region.get", "{'region':%" PRIu64 "}", region);
        extent = json_array_get(json_object_get(blocks, "extents"), 0);
        assert_int_equal(ask_peek_hex(extent, "machine_addr") + offset, addr);
        json_decref(blocks);
}

static void test_a_pool_does_not_grow_beyond_its_limit(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ",'max_blocks':10"), addr;

        ask_refused(fixture->client, "limit", "pool.alloc", "{'pool':%" PRIu64 ",'count':11}", pool);
        assert_int_equal(stat(fixture, pool, "used"), 0);
        json_decref(take(fixture, pool, 9));
        addr = take_one(fixture, pool);
        ask_refused(fixture->client, "limit", "pool.alloc", "{'pool':%" PRIu64 "}", pool);
        give_back(fixture, pool, addr);
        take_one(fixture, pool);
}

/* Idle slabs go back by themselves after a while, which is long here. */
static void test_unused_slabs_go_back_down_to_the_reserve(void **state) {
        struct ask_fixture fixture = { .daemon = ask_daemon("[memory]\nregion_idle = 1h\n") };
        uint64_t pool, before;
        json_t *blocks;

        fixture.client = ask_connect(fixture.daemon, NULL);
        fixture.device = ask_device(fixture.client, "card");
        pool = make_pool(&fixture, 4096, ",'reserve':8");
        before = stat(&fixture, pool, "bytes");
        blocks = take(&fixture, pool, 500);
        assert_true(stat(&fixture, pool, "bytes") > before);
        for (size_t i = 0; i < 500; i++)
                give_back(&fixture, pool, block_addr(blocks, i));
        json_decref(blocks);
        assert_true(ask_number(fixture.client, "bytes", "pool.trim", "{'pool':%" PRIu64 "}", pool) > 0);
        assert_int_equal(stat(&fixture, pool, "bytes"), before);
        assert_true(stat(&fixture, pool, "free") >= 8);
        assert_int_equal(ask_number(fixture.client, "bytes", "pool.trim", "{'pool':%" PRIu64 "}", pool), 0);
        ask_clean(fixture.client);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

static void test_pools_are_listed_in_pages(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pools[5], after = 0;
        json_t *page, *row;

        for (size_t i = 0; i < 5; i++)
                pools[i] = make_pool(fixture, 64, "");
        for (size_t i = 0; i < 5; i++) {
                page = ask(fixture->client, "pool.list", "{'limit':1,'after':%" PRIu64 "}", after);
                assert_int_equal(json_array_size(json_object_get(page, "pools")), 1);
                assert_int_equal(json_is_true(json_object_get(page, "more")), i < 4);
                row = json_array_get(json_object_get(page, "pools"), 0);
                after = ask_peek_number(row, "pool");
                assert_int_equal(after, pools[i]);
                assert_string_equal(json_string_value(json_object_get(row, "name")), "ring");
                assert_string_equal(json_string_value(json_object_get(row, "device_name")), "card");
                json_decref(page);
        }
        page = ask(fixture->client, "pool.list", "{'device':%" PRIu64 "}", ask_device(fixture->client, "other"));
        assert_int_equal(json_array_size(json_object_get(page, "pools")), 0);
        json_decref(page);
        page = ask(fixture->client, "broker.status", "{}");
        assert_int_equal(ask_peek_number(json_object_get(page, "counts"), "pools"), 5);
        json_decref(page);
}

/* ---- whose is this address? ---- */

static void test_an_address_is_found_in_its_block_pool_and_lease(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 1000, ",'boundary':4096"), addr = take_one(fixture, pool), lease, first;
        json_t *found = ask(fixture->client, "coherent.lookup", "{'dma_addr':'0x%" PRIx64 "'}", addr + 999), *result;

        assert_int_equal(ask_peek_number(found, "pool"), pool);
        assert_null(json_object_get(found, "lease"));
        assert_int_equal(ask_take_hex(found, "block"), addr);
        result = ask(fixture->client, "pool.lease", "{'pool':%" PRIu64 ",'count':2}", pool);
        lease = ask_peek_number(result, "lease");
        first = ask_take_hex(result, "dma_addr");
        found = ask(fixture->client, "coherent.lookup", "{'machine_addr':'0x%" PRIx64 "'}", first + 1);
        assert_int_equal(ask_peek_number(found, "lease"), lease);
        assert_int_equal(ask_take_hex(found, "block"), first);
}

static void test_a_slab_is_its_pools_to_free(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 1024, ",'reserve':1");
        json_t *list = ask(fixture->client, "coherent.list", "{'device':%" PRIu64 "}", fixture->device), *row;

        assert_int_equal(json_array_size(json_object_get(list, "allocs")), 1);
        row = json_array_get(json_object_get(list, "allocs"), 0);
        assert_int_equal(ask_peek_number(row, "pool"), pool);
        ask_refused(fixture->client, "busy", "coherent.free", "{'alloc':%" PRIu64 "}", ask_peek_number(row, "alloc"));
        json_decref(list);
        ask_clean(fixture->client);
}

/* ---- asking wrongly ---- */

static void refuse_create(struct ask_fixture *fixture, const char *reason, const char *more) {
        char *before = ask_books(fixture->client), *after;

        ask_refused(fixture->client, reason, "pool.create", "{'name':'ring','device':%" PRIu64 ",%s}", fixture->device,
                    more);
        after = ask_books(fixture->client);
        assert_string_equal(before, after);
        free(before);
        free(after);
}

static void test_a_pool_of_an_impossible_shape_is_refused(void **state) {
        struct ask_fixture *fixture = *state;

        ask_invalid(fixture->client, -32602, "pool.create", "{'name':'ring','device':%" PRIu64 ",'size':0}", fixture->device);
        ask_invalid(fixture->client, -32602, "pool.create", "{'device':%" PRIu64 ",'size':64}", fixture->device);
        refuse_create(fixture, "limit", "'size':4194305");
        refuse_create(fixture, "limit", "'size':9007199254740991");
        refuse_create(fixture, "bad_param", "'size':64,'align':48");
        refuse_create(fixture, "boundary", "'size':64,'boundary':48");
        refuse_create(fixture, "boundary", "'size':8192,'boundary':4096");
        refuse_create(fixture, "unsupported", "'size':64,'caching':'wc'");
        refuse_create(fixture, "unsupported", "'size':64,'caching':'uc'");
        json_decref(ask(fixture->client, "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64,'caching':'cached'}",
                        fixture->device));
}

static void test_a_reserve_beyond_the_limit_is_refused(void **state) {
        struct ask_fixture *fixture = *state;

        refuse_create(fixture, "bad_param", "'size':64,'reserve':11,'max_blocks':10");
}

static void test_a_reserve_that_does_not_fit_takes_nothing(void **state) {
        struct ask_fixture *fixture = *state;
        char *before = ask_books(fixture->client), *after;

        ask_invalid(fixture->client, 12, "pool.create",
                    "{'name':'ring','device':%" PRIu64 ",'size':1048576,'reserve':1000}", fixture->device);
        after = ask_books(fixture->client);
        assert_string_equal(before, after);
        free(before);
        free(after);
        ask_clean(fixture->client);
}

static void test_a_block_larger_than_the_devices_segments_is_refused(void **state) {
        struct ask_fixture *fixture = *state;

        fixture->device = ask_device(fixture->client, "short");
        refuse_create(fixture, "limit", "'size':8193");
        take_one(fixture, make_pool(fixture, 8192, ""));
}

static void test_an_unknown_device_or_pool_is_told(void **state) {
        struct ask_fixture *fixture = *state;
        static const char *const methods[] = { "pool.alloc", "pool.trim", "pool.destroy", "pool.stats" };

        ask_refused(fixture->client, "unknown_handle", "pool.create", "{'name':'r','device':4711,'size':64}");
        for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
                ask_refused(fixture->client, "unknown_handle", methods[i], "{'pool':4711}");
        ask_refused(fixture->client, "unknown_handle", "pool.lease", "{'pool':4711,'count':1}");
        ask_refused(fixture->client, "unknown_handle", "pool.free", "{'pool':4711,'dma_addrs':['0x1000']}");
        ask_refused(fixture->client, "unknown_handle", "pool.return", "{'lease':4711}");
        ask_refused(fixture->client, "unknown_handle", "lease.list", "{'pool':4711}");
}

static void test_too_many_blocks_at_once_are_refused(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 64, "");

        ask_invalid(fixture->client, -32602, "pool.alloc", "{'pool':%" PRIu64 ",'count':0}", pool);
        ask_invalid(fixture->client, -32602, "pool.alloc", "{'pool':%" PRIu64 ",'count':10001}", pool);
        ask_invalid(fixture->client, -32602, "pool.lease", "{'pool':%" PRIu64 ",'count':0}", pool);
        json_decref(take(fixture, pool, 10000));
        ask_clean(fixture->client);
}

static void refuse_free(struct ask_fixture *fixture, const char *reason, uint64_t pool, uint64_t good, uint64_t bad) {
        ask_refused(fixture->client, reason, "pool.free",
                    "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "','0x%" PRIx64 "']}", pool, good, bad);
}

static void test_a_bad_address_among_good_ones_frees_nothing(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ""), other = make_pool(fixture, 256, ""), a = take_one(fixture, pool);
        uint64_t b = take_one(fixture, pool), foreign = take_one(fixture, other);
        uint64_t alloc = ask_alloc(fixture->client, fixture->device, 4096), coherent;

        json_t *list = ask(fixture->client, "coherent.list", "{'after':%" PRIu64 ",'limit':1}", alloc - 1);

        coherent = ask_peek_hex(json_array_get(json_object_get(list, "allocs"), 0), "dma_addr");
        json_decref(list);
        refuse_free(fixture, "bad_address", pool, a, b + 1);
        refuse_free(fixture, "bad_address", pool, a, foreign);
        refuse_free(fixture, "bad_address", pool, a, coherent);
        refuse_free(fixture, "bad_address", pool, a, 0);
        refuse_free(fixture, "bad_address", pool, a, UINT64_MAX);
        refuse_free(fixture, "double_free", pool, a, a);
        assert_int_equal(stat(fixture, pool, "used"), 2);
        give_back(fixture, pool, a);
        refuse_free(fixture, "double_free", pool, b, a);
        assert_int_equal(stat(fixture, pool, "used"), 1);
        give_back(fixture, pool, b);
        json_decref(ask(fixture->client, "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':[]}", pool));
        ask_clean(fixture->client);
}

static void test_the_sentence_names_the_pool_that_an_address_is_of(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ""), other, addr;
        json_t *error;

        other = ask_number(fixture->client, "pool", "pool.create", "{'name':'other ring','device':%" PRIu64 ",'size':64}",
                           fixture->device);
        addr = take_one(fixture, other);
        error = ask_error(fixture->client, ask_send(fixture->client, "pool.free",
                                                    "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}", pool, addr));
        assert_non_null(strstr(json_string_value(json_object_get(error, "message")), "other ring"));
        json_decref(error);
}

static void test_an_address_that_is_no_hex_string_is_refused_by_its_place(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, "");
        json_t *error;

        error = ask_error(fixture->client, ask_send(fixture->client, "pool.free",
                                                    "{'pool':%" PRIu64 ",'dma_addrs':['0x1000',4096]}", pool));
        assert_string_equal(json_string_value(json_object_get(json_object_get(error, "data"), "param")), "dma_addrs[1]");
        json_decref(error);
}

/* ---- the end ---- */

static void test_a_busy_pool_tells_its_blocks_and_stays(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ""), addr = take_one(fixture, pool), lease, leased = 0;
        json_t *error, *busy, *block;
        size_t i;

        lease = ask_number(fixture->client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':3}", pool);
        error = ask_error(fixture->client, ask_send(fixture->client, "pool.destroy", "{'pool':%" PRIu64 "}", pool));
        busy = json_object_get(json_object_get(error, "data"), "busy");
        assert_int_equal(json_array_size(busy), 4);
        json_array_foreach(busy, i, block) {
                if (json_object_get(block, "lease"))
                        leased += ask_peek_number(block, "lease") == lease;
                else
                        assert_int_equal(ask_peek_hex(block, "dma_addr"), addr);
        }
        assert_int_equal(leased, 3);
        ask_take_reason(error, "busy");
        give_back(fixture, pool, addr);
        json_decref(ask(fixture->client, "pool.return", "{'lease':%" PRIu64 "}", lease));
        json_decref(ask(fixture->client, "pool.destroy", "{'pool':%" PRIu64 "}", pool));
        ask_clean(fixture->client);
}

static void test_a_long_report_of_busy_blocks_is_cut(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 64, "");
        json_t *error, *data;

        json_decref(take(fixture, pool, 1001));
        error = ask_error(fixture->client, ask_send(fixture->client, "pool.destroy", "{'pool':%" PRIu64 "}", pool));
        data = json_object_get(error, "data");
        assert_int_equal(json_array_size(json_object_get(data, "busy")), 1000);
        assert_true(json_is_true(json_object_get(data, "more")));
        json_decref(error);
}

static void test_force_takes_back_what_is_handed_out(void **state) {
        struct ask_fixture *fixture = *state;
        char *before = ask_books(fixture->client);
        uint64_t pool = make_pool(fixture, 256, ""), addr = take_one(fixture, pool), lease;
        json_t *result;

        lease = ask_number(fixture->client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':3}", pool);
        result = ask(fixture->client, "pool.destroy", "{'pool':%" PRIu64 ",'force':true}", pool);
        assert_int_equal(json_array_size(json_object_get(result, "busy")), 4);
        assert_false(json_is_true(json_object_get(result, "more")));
        json_decref(result);
        ask_refused(fixture->client, "unknown_handle", "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}",
                    pool, addr);
        ask_refused(fixture->client, "double_free", "pool.return", "{'lease':%" PRIu64 "}", lease);
        ask_until_books(fixture->client, before);
        free(before);
        ask_clean(fixture->client);
}

static void test_a_device_with_a_pool_is_not_closed(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ",'reserve':1");
        json_t *error, *leaked, *leak;

        error = ask_error(fixture->client,
                          ask_send(fixture->client, "device.close", "{'device':%" PRIu64 "}", fixture->device));
        leaked = json_object_get(json_object_get(error, "data"), "leaked");
        assert_int_equal(json_array_size(leaked), 1);
        leak = json_array_get(leaked, 0);
        assert_int_equal(ask_peek_number(leak, "pool"), pool);
        assert_string_equal(json_string_value(json_object_get(leak, "name")), "ring");
        assert_true(ask_peek_number(leak, "size") > 0);
        ask_take_reason(error, "busy");
        leaked = ask(fixture->client, "device.close", "{'device':%" PRIu64 ",'force':true}", fixture->device);
        leak = json_array_get(json_object_get(leaked, "leaked"), 0);
        assert_string_equal(json_string_value(json_object_get(leak, "name")), "ring");
        json_decref(leaked);
        ask_refused(fixture->client, "unknown_handle", "pool.stats", "{'pool':%" PRIu64 "}", pool);
        ask_clean(fixture->client);
}

/* ---- asking again ---- */

static void test_the_same_key_gives_the_same_pool_and_blocks(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ",'request_key':'p'"), addr;
        json_t *result;

        assert_int_equal(make_pool(fixture, 256, ",'request_key':'p'"), pool);
        ask_refused(fixture->client, "bad_param", "pool.create",
                    "{'name':'ring','device':%" PRIu64 ",'size':512,'request_key':'p'}", fixture->device);
        result = ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':2,'request_key':'b'}", pool);
        addr = block_addr(result, 1);
        json_decref(result);
        result = ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':2,'request_key':'b'}", pool);
        assert_int_equal(json_array_size(json_object_get(result, "blocks")), 2);
        assert_int_equal(block_addr(result, 1), addr);
        json_decref(result);
        assert_int_equal(stat(fixture, pool, "used"), 2);
        ask_refused(fixture->client, "bad_param", "pool.alloc", "{'pool':%" PRIu64 ",'count':3,'request_key':'b'}", pool);
}

static void test_a_key_is_forgotten_with_what_it_gave(void **state) {
        struct ask_fixture *fixture = *state;
        uint64_t pool = make_pool(fixture, 256, ""), addr;
        json_t *result = ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'request_key':'b'}", pool);

        addr = block_addr(result, 0);
        json_decref(result);
        give_back(fixture, pool, addr);
        json_decref(ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':2,'request_key':'b'}", pool));
        assert_int_equal(stat(fixture, pool, "used"), 2);
        ask_clean(fixture->client);
}

/* ---- limits ---- */

static void test_the_quota_counts_pools(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        uint64_t device = ask_device(client, "card");

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:12345','limits':{'pools':2}}"));
        for (int i = 0; i < 2; i++)
                json_decref(ask(client, "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64}", device));
        ask_refused(client, "quota", "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64}", device);
        ask_refused(client, "quota", "bounce.create", "{'device':%" PRIu64 ",'size':4096}", device);
        test_client_close(client);
}

static void test_the_quota_counts_a_pools_bytes(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        uint64_t pool, device = ask_device(client, "card");

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:12345','limits':{'bytes':1048576}}"));
        pool = ask_number(client, "pool", "pool.create", "{'name':'r','device':%" PRIu64 ",'size':65536}", device);
        ask_refused(client, "quota", "pool.alloc", "{'pool':%" PRIu64 ",'count':17}", pool);
        json_decref(ask(client, "pool.alloc", "{'pool':%" PRIu64 ",'count':8}", pool));
        test_client_close(client);
}

/* ---- strangers ---- */

static void test_a_strangers_pool_is_answered_like_none(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        struct test_client *stranger = ask_connect_as(fixture->daemon, 12346);
        uint64_t device = ask_device(client, "card"), pool, addr, lease;
        json_t *result;

        pool = ask_number(client, "pool", "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64}", device);
        result = ask(client, "pool.alloc", "{'pool':%" PRIu64 "}", pool);
        addr = block_addr(result, 0);
        json_decref(result);
        lease = ask_number(client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':4}", pool);
        ask_refused(stranger, "unknown_handle", "pool.alloc", "{'pool':%" PRIu64 "}", pool);
        ask_refused(stranger, "unknown_handle", "pool.lease", "{'pool':%" PRIu64 ",'count':1}", pool);
        ask_refused(stranger, "unknown_handle", "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}", pool,
                    addr);
        ask_refused(stranger, "unknown_handle", "pool.return", "{'lease':%" PRIu64 "}", lease);
        ask_refused(stranger, "unknown_handle", "pool.trim", "{'pool':%" PRIu64 "}", pool);
        ask_refused(stranger, "unknown_handle", "pool.destroy", "{'pool':%" PRIu64 ",'force':true}", pool);
        ask_refused(stranger, "unknown_handle", "pool.stats", "{'pool':%" PRIu64 "}", pool);
        ask_refused(stranger, "unknown_handle", "lease.list", "{'pool':%" PRIu64 "}", pool);
        ask_refused(stranger, "unknown_handle", "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64}", device);
        ask_refused(stranger, "bad_address", "coherent.lookup", "{'dma_addr':'0x%" PRIx64 "'}", addr);
        ask_refused(stranger, "not_permitted", "pool.list", "{'owner':'user:12345'}");
        result = ask(stranger, "pool.list", "{}");
        assert_int_equal(json_array_size(json_object_get(result, "pools")), 0);
        json_decref(result);
        assert_int_equal(ask_number(client, "used", "pool.stats", "{'pool':%" PRIu64 "}", pool), 1);
        test_client_close(client);
        test_client_close(stranger);
}

static void test_an_administrator_may_end_anybodys_pool(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *client = ask_connect_as(fixture->daemon, 12345);
        uint64_t pool = ask_number(client, "pool", "pool.create", "{'name':'r','device':%" PRIu64 ",'size':64}",
                                   ask_device(client, "card"));
        char *log;

        json_decref(ask(client, "pool.alloc", "{'pool':%" PRIu64 "}", pool));
        json_decref(ask(fixture->client, "pool.destroy", "{'pool':%" PRIu64 ",'force':true}", pool));
        ask_refused(client, "unknown_handle", "pool.stats", "{'pool':%" PRIu64 "}", pool);
        log = test_daemon_log(fixture->daemon);
        assert_non_null(strstr(log, "pool.destroy on pool"));
        free(log);
        test_client_close(client);
        ask_clean(fixture->client);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_a_pool_tells_how_it_was_laid_out),
                T(test_an_alignment_is_kept_as_it_was_given),
                T(test_no_block_crosses_the_boundary),
                T(test_no_block_crosses_the_devices_boundary),
                T(test_blocks_never_overlap),
                T(test_blocks_are_counted_as_they_come_and_go),
                T(test_blocks_lie_in_the_region_that_they_name),
                T(test_a_pool_does_not_grow_beyond_its_limit),
                cmocka_unit_test(test_unused_slabs_go_back_down_to_the_reserve),
                T(test_pools_are_listed_in_pages),
                T(test_an_address_is_found_in_its_block_pool_and_lease),
                T(test_a_slab_is_its_pools_to_free),
                T(test_a_pool_of_an_impossible_shape_is_refused),
                T(test_a_reserve_beyond_the_limit_is_refused),
                T(test_a_reserve_that_does_not_fit_takes_nothing),
                T(test_a_block_larger_than_the_devices_segments_is_refused),
                T(test_an_unknown_device_or_pool_is_told),
                T(test_too_many_blocks_at_once_are_refused),
                T(test_a_bad_address_among_good_ones_frees_nothing),
                T(test_the_sentence_names_the_pool_that_an_address_is_of),
                T(test_an_address_that_is_no_hex_string_is_refused_by_its_place),
                T(test_a_busy_pool_tells_its_blocks_and_stays),
                T(test_a_long_report_of_busy_blocks_is_cut),
                T(test_force_takes_back_what_is_handed_out),
                T(test_a_device_with_a_pool_is_not_closed),
                T(test_the_same_key_gives_the_same_pool_and_blocks),
                T(test_a_key_is_forgotten_with_what_it_gave),
                T(test_the_quota_counts_pools),
                T(test_the_quota_counts_a_pools_bytes),
                T(test_a_strangers_pool_is_answered_like_none),
                T(test_an_administrator_may_end_anybodys_pool),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
