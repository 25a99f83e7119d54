/* Two users without privileges: each gets memory and can map it, and can do nothing with the other's. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

enum { SIZE = 65536 };

struct side {
        struct test_client *client;
        uint64_t device, alloc, region, offset, dma_addr, machine_addr;
        unsigned char *memory;
        char session[64];
};

static struct test_daemon *running;
static struct side owner, stranger;

static void side_open(struct side *side, uid_t uid) {
        json_t *result;
        int fd;

        side->client = ask_connect_as(running, uid);
        result = ask(side->client, "broker.hello", "{}");
        strncpy(side->session, json_string_value(json_object_get(result, "session")), sizeof(side->session) - 1);
        assert_string_equal(json_string_value(json_object_get(result, "role")), "local");
        json_decref(result);
        side->device = ask_device(side->client, "card");
        result = ask(side->client, "coherent.alloc", "{'device':%" PRIu64 ",'size':%d,'fd':true}", side->device, SIZE);
        side->alloc = ask_take_number(json_incref(result), "alloc");
        side->region = ask_take_number(json_incref(result), "region");
        side->offset = ask_take_number(json_incref(result), "offset");
        side->dma_addr = ask_take_hex(json_incref(result), "dma_addr");
        side->machine_addr = ask_take_hex(json_incref(result), "machine_addr");
        json_decref(result);
        fd = test_client_take_fd(side->client);
        assert_true(fd >= 0);
        side->memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)side->offset);
        assert_true(side->memory != MAP_FAILED);
        close(fd);
}

static int set_up(void **state) {
        running = ask_daemon("[daemon]\naccess = everyone\n[memory]\nregion_idle = 0\n");
        if (geteuid() == 0) {
                side_open(&owner, 12345);
                side_open(&stranger, 12346);
        }
        return 0;
}

static int tear_down(void **state) {
        test_client_close(owner.client);
        test_client_close(stranger.client);
        return test_daemon_end(running);
}

static void need_root(void) {
        if (geteuid() != 0)
                skip();
}

static void test_an_unprivileged_client_can_map_its_memory(void **state) {
        need_root();
        for (size_t i = 0; i < SIZE; i++)
                assert_int_equal(owner.memory[i], 0);
        memset(owner.memory, 0x5a, SIZE);
        assert_int_equal(owner.memory[SIZE - 1], 0x5a);
        assert_int_equal(stranger.memory[0], 0);
}

static void test_two_owners_never_share_a_region(void **state) {
        need_root();
        assert_int_not_equal(owner.region, stranger.region);
        assert_true(owner.machine_addr + SIZE <= stranger.machine_addr ||
                    stranger.machine_addr + SIZE <= owner.machine_addr);
}

static void test_a_stranger_cannot_free(void **state) {
        need_root();
        ask_refused(stranger.client, "unknown_handle", "coherent.free", "{'alloc':%" PRIu64 "}", owner.alloc);
        json_decref(ask(owner.client, "coherent.lookup", "{'dma_addr':'0x%" PRIx64 "'}", owner.dma_addr));
}

static void test_a_stranger_cannot_get_the_region_to_map_it(void **state) {
        need_root();
        ask_refused(stranger.client, "unknown_handle", "region.get", "{'region':%" PRIu64 "}", owner.region);
        assert_int_equal(test_client_take_fd(stranger.client), -1);
}

static void test_a_stranger_cannot_allocate_for_the_device(void **state) {
        need_root();
        ask_refused(stranger.client, "unknown_handle", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'fd':true}",
                    owner.device);
        assert_int_equal(test_client_take_fd(stranger.client), -1);
}

static void test_a_stranger_cannot_change_or_close_the_device(void **state) {
        need_root();
        ask_refused(stranger.client, "unknown_handle", "device.set_mask", "{'device':%" PRIu64 ",'mask':'0xffffffff'}",
                    owner.device);
        ask_refused(stranger.client, "unknown_handle", "device.supported", "{'device':%" PRIu64 ",'mask':'0xffffffff'}",
                    owner.device);
        ask_refused(stranger.client, "unknown_handle", "device.close", "{'device':%" PRIu64 ",'force':true}",
                    owner.device);
        ask_refused(stranger.client, "unknown_handle", "device.reserve", "{'device':%" PRIu64 ",'size':4096}",
                    owner.device);
        ask_refused(stranger.client, "unknown_handle", "device.unreserve", "{'device':%" PRIu64 ",'region':%" PRIu64 "}",
                    stranger.device, owner.region);
}

/* Every handle that is listed must be among those of the one who asks. */
static void check_list(const char *method, const char *list, const char *member, uint64_t own) {
        json_t *result = ask(stranger.client, method, "{}"), *item;
        size_t i;

        assert_int_equal(json_array_size(json_object_get(result, list)), 1);
        json_array_foreach(json_object_get(result, list), i, item)
                assert_int_equal(json_integer_value(json_object_get(item, member)), own);
        json_decref(result);
}

static void test_a_stranger_lists_only_its_own(void **state) {
        need_root();
        check_list("coherent.list", "allocs", "alloc", stranger.alloc);
        check_list("device.list", "devices", "device", stranger.device);
        check_list("region.list", "regions", "region", stranger.region);
}

static void test_a_stranger_cannot_list_by_naming_the_owner(void **state) {
        need_root();
        ask_refused(stranger.client, "not_permitted", "coherent.list", "{'owner':'user:12345'}");
        ask_refused(stranger.client, "not_permitted", "device.list", "{'owner':'user:12345'}");
        ask_refused(stranger.client, "not_permitted", "region.list", "{'owner':'user:12345'}");
        ask_refused(stranger.client, "not_permitted", "quota.get", "{'owner':'user:12345'}");
        ask_refused(stranger.client, "unknown_handle", "coherent.list", "{'device':%" PRIu64 "}", owner.device);
        ask_refused(stranger.client, "unknown_handle", "region.list", "{'device':%" PRIu64 "}", owner.device);
}

static void test_a_stranger_cannot_look_an_address_up(void **state) {
        need_root();
        ask_refused(stranger.client, "bad_address", "coherent.lookup", "{'dma_addr':'0x%" PRIx64 "'}", owner.dma_addr);
        ask_refused(stranger.client, "bad_address", "coherent.lookup", "{'machine_addr':'0x%" PRIx64 "'}",
                    owner.machine_addr);
}

static void test_handles_cannot_be_found_by_guessing(void **state) {
        uint64_t first = owner.device < stranger.device ? owner.device : stranger.device;
        uint64_t found = 0;

        need_root();
        for (uint64_t handle = first - 20; handle < first + 40; handle++) {
                json_t *answer;

                ask_send(stranger.client, "region.get", "{'region':%" PRIu64 "}", handle);
                answer = ask_read(stranger.client);
                if (json_object_get(answer, "result")) {
                        assert_int_equal(handle, stranger.region);
                        found++;
                }
                json_decref(answer);
        }
        assert_int_equal(found, 1);
        close(test_client_take_fd(stranger.client));
        assert_int_equal(test_client_take_fd(stranger.client), -1);
}

static void test_another_users_session_cannot_be_resumed(void **state) {
        need_root();
        ask_refused(stranger.client, "unknown_handle", "broker.hello", "{'session':'%s'}", owner.session);
}

static void test_a_local_user_is_no_administrator(void **state) {
        need_root();
        ask_refused(stranger.client, "not_permitted", "quota.set", "{'owner':'user:12346','limits':{'bytes':1}}");
        ask_refused(stranger.client, "not_permitted", "stats.reset", "{}");
        ask_refused(stranger.client, "not_permitted", "debug.check", "{}");
        ask_refused(stranger.client, "not_permitted", "memory.release", "{}");
        ask_refused(stranger.client, "not_permitted", "quarantine.release", "{}");
        ask_refused(stranger.client, "not_permitted", "quarantine.list", "{'owner':'user:0'}");
}

static void test_statistics_tell_a_user_nothing_of_others(void **state) {
        json_t *result;
        char *text;

        need_root();
        result = ask(stranger.client, "stats.get", "{}");
        text = json_dumps(result, 0);
        assert_non_null(strstr(text, "user:12346."));
        assert_null(strstr(text, "user:12345"));
        free(text);
        json_decref(result);
}

static void test_an_administrator_sees_a_region_but_not_its_memory(void **state) {
        struct test_client *admin;
        json_t *result;

        need_root();
        admin = ask_connect(running, NULL);
        result = ask(admin, "region.get", "{'region':%" PRIu64 "}", owner.region);
        assert_string_equal(json_string_value(json_object_get(result, "owner")), "user:12345");
        assert_int_equal(test_client_take_fd(admin), -1);
        json_decref(result);
        test_client_close(admin);
}

static void test_memory_is_clean_when_it_changes_its_owner(void **state) {
        json_t *result;
        uint64_t offset;
        unsigned char *memory;
        int fd;

        need_root();
        memset(owner.memory, 0x77, SIZE);
        json_decref(ask(owner.client, "coherent.free", "{'alloc':%" PRIu64 "}", owner.alloc));
        /* All that there is, so that it includes what the other one had. */
        result = ask(stranger.client, "coherent.alloc",
                     "{'device':%" PRIu64 ",'size':%" PRIu64 ",'fd':true,'priority':'high','wait_ms':10000}",
                     stranger.device, UINT64_C(127) << 20);
        assert_true(ask_take_hex(json_incref(result), "machine_addr") >= UINT64_C(1) << 32);
        offset = ask_take_number(result, "offset");
        fd = test_client_take_fd(stranger.client);
        memory = mmap(NULL, 127 << 20, PROT_READ, MAP_SHARED, fd, (off_t)offset);
        assert_true(memory != MAP_FAILED);
        for (size_t i = 0; i < 127 << 20; i += 512)
                assert_int_equal(memory[i], 0);
        munmap(memory, 127 << 20);
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_an_unprivileged_client_can_map_its_memory),
                cmocka_unit_test(test_two_owners_never_share_a_region),
                cmocka_unit_test(test_a_stranger_cannot_free),
                cmocka_unit_test(test_a_stranger_cannot_get_the_region_to_map_it),
                cmocka_unit_test(test_a_stranger_cannot_allocate_for_the_device),
                cmocka_unit_test(test_a_stranger_cannot_change_or_close_the_device),
                cmocka_unit_test(test_a_stranger_lists_only_its_own),
                cmocka_unit_test(test_a_stranger_cannot_list_by_naming_the_owner),
                cmocka_unit_test(test_a_stranger_cannot_look_an_address_up),
                cmocka_unit_test(test_handles_cannot_be_found_by_guessing),
                cmocka_unit_test(test_another_users_session_cannot_be_resumed),
                cmocka_unit_test(test_a_local_user_is_no_administrator),
                cmocka_unit_test(test_statistics_tell_a_user_nothing_of_others),
                cmocka_unit_test(test_an_administrator_sees_a_region_but_not_its_memory),
                cmocka_unit_test(test_memory_is_clean_when_it_changes_its_owner),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
