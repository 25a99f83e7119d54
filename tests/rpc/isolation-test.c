/* Users without privileges among themselves, on a daemon of root's: what one has, another can neither use nor find out
 * about. Refusals are compared whole with what is said of things that never were, because any difference would tell. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define CONFIG "[daemon]\naccess = everyone\n[memory]\nregion_idle = 0\n"

enum { ALICE = 12345, BOB = 12346, NOBODY_HERE = 54321, SIZE = 65536 };

/* A user with a device and an allocation that is mapped. */
struct user {
        struct test_client *client;
        uint64_t device, alloc, region, offset, dma_addr, machine_addr;
        int fd;
        unsigned char *memory;
};

static struct test_daemon *daemon_of_test;
static struct user alice, bob;

static void user_take(struct user *user, json_t *result) {
        user->alloc = ask_take_number(json_incref(result), "alloc");
        user->region = ask_take_number(json_incref(result), "region");
        user->offset = ask_take_number(json_incref(result), "offset");
        user->dma_addr = ask_take_hex(json_incref(result), "dma_addr");
        user->machine_addr = ask_take_hex(json_incref(result), "machine_addr");
        json_decref(result);
        user->fd = test_client_take_fd(user->client);
        assert_true(user->fd >= 0);
        assert_int_equal(test_client_take_fd(user->client), -1);
        user->memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, user->fd, (off_t)user->offset);
        assert_ptr_not_equal(user->memory, MAP_FAILED);
}

static void user_alloc(struct user *user) {
        user_take(user, ask(user->client, "coherent.alloc",
                            "{'device':%" PRIu64 ",'size':%d,'align':4096,'fd':true,'wait_ms':10000}", user->device, SIZE));
}

static void user_come(struct user *user, uid_t uid) {
        user->client = ask_connect_as(daemon_of_test, uid);
        user->device = ask_device(user->client, "card");
}

static void user_leave(struct user *user) {
        if (user->memory)
                munmap(user->memory, SIZE);
        if (user->fd > 0)
                close(user->fd);
        test_client_close(user->client);
        memset(user, 0, sizeof(*user));
}

static int begin_with(const char *config) {
        daemon_of_test = ask_daemon(config);
        user_come(&alice, ALICE);
        user_come(&bob, BOB);
        return 0;
}

static int begin(void **state) {
        begin_with(CONFIG);
        user_alloc(&alice);
        user_alloc(&bob);
        return 0;
}

/* One place for one allocation, so that whoever comes next gets the memory of whoever was there before. */
static int begin_small(void **state) {
        begin_with(CONFIG "emergency_permille = 0\n[source sim]\nlayout = 64K@0x100000000\n");
        user_alloc(&alice);
        return 0;
}

static int end(void **state) {
        struct test_client *root;
        json_t *check;
        bool clean;

        user_leave(&alice);
        user_leave(&bob);
        root = ask_connect(daemon_of_test, NULL);
        check = ask(root, "debug.check", "{}");
        clean = json_is_true(json_object_get(check, "clean"));
        json_decref(check);
        test_client_close(root);
        return test_daemon_end(daemon_of_test) < 0 || !clean ? -1 : 0;
}

/* ---- refusals ---- */

/* What was said, without the handle that it was said of. The caller frees. */
static char *refusal(struct test_client *client, const char *method, const char *before, uint64_t handle,
                     const char *after) {
        json_t *error = ask_error(client, ask_send(client, method, "{%s%" PRIu64 "%s}", before, handle, after));
        char number[32], *text, *at;

        text = json_dumps(error, JSON_SORT_KEYS);
        json_decref(error);
        assert_non_null(text);
        assert_int_equal(test_client_take_fd(client), -1);
        snprintf(number, sizeof(number), "%" PRIu64, handle);
        while ((at = strstr(text, number)))
                memmove(at, at + strlen(number), strlen(at + strlen(number)) + 1);
        return text;
}

/* Nothing has ever had this handle; it is as long as others', so that it can be taken out of a sentence like them. */
static uint64_t never_given(uint64_t handle) {
        return handle + 7654321;
}

static void expect_as_unknown(const char *method, const char *before, uint64_t handle, const char *after) {
        char *real = refusal(bob.client, method, before, handle, after);
        char *none = refusal(bob.client, method, before, never_given(handle), after);

        assert_string_equal(real, none);
        assert_non_null(strstr(real, "\"unknown_handle\""));
        free(real);
        free(none);
}

static void alice_still_has_it(void) {
        json_t *found = ask(alice.client, "coherent.lookup", "{'dma_addr':'0x%" PRIx64 "'}", alice.dma_addr);

        assert_int_equal(ask_take_number(found, "alloc"), alice.alloc);
        json_decref(ask(alice.client, "device.supported", "{'device':%" PRIu64 ",'mask':'0xffffffffffff'}", alice.device));
}

static void test_a_user_maps_its_memory_to_read_and_write(void **state) {
        for (int i = 0; i < SIZE; i++)
                assert_int_equal(alice.memory[i], 0);
        memset(alice.memory, 0xa1, SIZE);
        memset(bob.memory, 0xb0, SIZE);
        for (int i = 0; i < SIZE; i++)
                assert_int_equal(alice.memory[i], 0xa1);
}

static void test_a_stranger_cannot_get_a_region_to_map_it(void **state) {
        expect_as_unknown("region.get", "'region':", alice.region, "");
}

static void test_a_stranger_cannot_free(void **state) {
        expect_as_unknown("coherent.free", "'alloc':", alice.alloc, "");
        alice_still_has_it();
}

static void test_a_stranger_is_not_told_that_something_was_freed(void **state) {
        json_decref(ask(alice.client, "coherent.free", "{'alloc':%" PRIu64 "}", alice.alloc));
        ask_refused(alice.client, "double_free", "coherent.free", "{'alloc':%" PRIu64 "}", alice.alloc);
        expect_as_unknown("coherent.free", "'alloc':", alice.alloc, "");
}

static void test_a_stranger_cannot_close_a_device(void **state) {
        expect_as_unknown("device.close", "'device':", alice.device, "");
        expect_as_unknown("device.close", "'device':", alice.device, ",'force':true");
        alice_still_has_it();
}

static void test_a_stranger_cannot_use_a_device(void **state) {
        expect_as_unknown("coherent.alloc", "'device':", alice.device, ",'size':4096,'fd':true");
        expect_as_unknown("coherent.alloc", "'device':", alice.device, ",'size':4096,'fd':true,'wait_ms':1000");
        expect_as_unknown("device.reserve", "'device':", alice.device, ",'size':4096");
        expect_as_unknown("device.set_mask", "'device':", alice.device, ",'mask':'0xffffffff'");
        expect_as_unknown("device.supported", "'device':", alice.device, ",'mask':'0xffffffff'");
        expect_as_unknown("device.unreserve", "'device':", alice.device, ",'region':1");
        alice_still_has_it();
}

static void test_a_stranger_cannot_unreserve_a_region(void **state) {
        char before[64];

        snprintf(before, sizeof(before), "'device':%" PRIu64 ",'region':", bob.device);
        expect_as_unknown("device.unreserve", before, alice.region, "");
}

static void test_a_stranger_cannot_list_by_device(void **state) {
        expect_as_unknown("coherent.list", "'device':", alice.device, "");
        expect_as_unknown("region.list", "'device':", alice.device, "");
        expect_as_unknown("coherent.lookup", "'dma_addr':'0x1000','device':", alice.device, "");
}

/* An owner who is here is refused like one who never was. */
static void expect_as_absent(const char *method) {
        char *here = refusal(bob.client, method, "'owner':'user:", ALICE, "'");
        char *absent = refusal(bob.client, method, "'owner':'user:", NOBODY_HERE, "'");

        assert_string_equal(here, absent);
        assert_non_null(strstr(here, "\"not_permitted\""));
        free(here);
        free(absent);
}

static void test_a_stranger_cannot_list_by_owner(void **state) {
        expect_as_absent("coherent.list");
        expect_as_absent("region.list");
        expect_as_absent("device.list");
}

static void test_a_stranger_cannot_see_a_quota(void **state) {
        expect_as_absent("quota.get");
}

static void expect_only_own(const char *method, const char *list, const char *after) {
        json_t *result = ask(bob.client, method, "{%s}", after), *items = json_object_get(result, list), *item;
        size_t i;

        assert_int_equal(json_array_size(items), 1);
        json_array_foreach(items, i, item)
                assert_string_equal(json_string_value(json_object_get(item, "owner")), "user:12346");
        json_decref(result);
}

static void test_lists_have_only_what_is_ones_own(void **state) {
        static const char *const filters[] = { "", "'owner':'user:12346'", "'limit':1000" };

        for (size_t i = 0; i < sizeof(filters) / sizeof(*filters); i++) {
                expect_only_own("coherent.list", "allocs", filters[i]);
                expect_only_own("region.list", "regions", filters[i]);
                expect_only_own("device.list", "devices", filters[i]);
        }
}

static char *lookup_refusal(const char *member, uint64_t addr) {
        json_t *error = ask_error(bob.client, ask_send(bob.client, "coherent.lookup", "{'%s':'0x%" PRIx64 "'}", member, addr));
        char number[32], *text, *at;

        text = json_dumps(error, JSON_SORT_KEYS);
        json_decref(error);
        snprintf(number, sizeof(number), "0x%" PRIx64, addr);
        while ((at = strstr(text, number)))
                memmove(at, at + strlen(number), strlen(at + strlen(number)) + 1);
        return text;
}

static void test_a_stranger_cannot_look_addresses_up(void **state) {
        static const char *const members[] = { "dma_addr", "machine_addr" };

        for (int i = 0; i < 2; i++) {
                char *none = lookup_refusal(members[i], UINT64_C(0x7f0000000000));

                for (uint64_t at = 0; at < SIZE; at += 4096) {
                        char *real = lookup_refusal(members[i], alice.machine_addr + at);

                        assert_string_equal(real, none);
                        free(real);
                }
                assert_non_null(strstr(none, "\"bad_address\""));
                free(none);
        }
}

/* Somebody with nothing tries all handles that there may be. */
static void test_handles_cannot_be_guessed(void **state) {
        static const struct {
                const char *method, *before;
        } tries[] = {
                { "region.get", "'region':" },
                { "coherent.free", "'alloc':" },
                { "device.close", "'force':true,'device':" },
        };
        enum { AROUND = 1000 };
        struct test_client *mallory = ask_connect_as(daemon_of_test, 12347);
        const uint64_t starts[] = { 1, alice.device > AROUND ? alice.device - AROUND : 1,
                                    alice.region > AROUND ? alice.region - AROUND : 1,
                                    alice.alloc > AROUND ? alice.alloc - AROUND : 1 };

        for (size_t t = 0; t < sizeof(tries) / sizeof(*tries); t++) {
                char *none = refusal(mallory, tries[t].method, tries[t].before, never_given(alice.device), "");

                for (size_t s = 0; s < sizeof(starts) / sizeof(*starts); s++)
                        for (uint64_t handle = starts[s]; handle < starts[s] + 2 * AROUND; handle++) {
                                json_t *error, *data;
                                char *text;

                                /* The number may be short, so it is taken out where it belongs. */
                                error = ask_error(mallory, ask_send(mallory, tries[t].method, "{%s%" PRIu64 "}",
                                                                    tries[t].before, handle));
                                data = json_object_get(error, "data");
                                assert_int_equal(json_integer_value(json_object_get(data, "handle")), handle);
                                assert_string_equal(json_string_value(json_object_get(data, "reason")), "unknown_handle");
                                if (handle == alice.device || handle == alice.region || handle == alice.alloc) {
                                        text = refusal(mallory, tries[t].method, tries[t].before, handle, "");
                                        assert_string_equal(text, none);
                                        free(text);
                                }
                                json_decref(error);
                        }
                free(none);
        }
        assert_int_equal(test_client_take_fd(mallory), -1);
        test_client_close(mallory);
        alice_still_has_it();
}

/* ---- sessions and keys ---- */

static void test_a_session_cannot_be_resumed_by_somebody_else(void **state) {
        json_t *hello = ask(alice.client, "broker.hello", "{}"), *real, *none;
        struct test_client *root;
        const char *token;
        char wrong[64];

        token = json_string_value(json_object_get(hello, "session"));
        snprintf(wrong, sizeof(wrong), "%s", token);
        wrong[0] = wrong[0] == '0' ? '1' : '0';
        real = ask_error(bob.client, ask_send(bob.client, "broker.hello", "{'session':'%s'}", token));
        none = ask_error(bob.client, ask_send(bob.client, "broker.hello", "{'session':'%s'}", wrong));
        assert_true(json_equal(real, none));
        json_decref(none);
        ask_take_reason(real, "unknown_handle");
        /* Nor by an administrator, who has other ways. */
        root = ask_connect(daemon_of_test, NULL);
        ask_refused(root, "unknown_handle", "broker.hello", "{'session':'%s'}", token);
        test_client_close(root);
        json_decref(hello);
}

static void test_a_request_key_is_its_owners(void **state) {
        static const char request[] = "{'device':%" PRIu64 ",'size':4096,'fd':true,'request_key':'key'}";
        json_t *mine = ask(alice.client, "coherent.alloc", request, alice.device);
        json_t *again = ask(alice.client, "coherent.alloc", request, alice.device);
        json_t *other = ask(bob.client, "coherent.alloc", request, bob.device);
        json_t *found;

        assert_int_equal(ask_take_number(again, "alloc"), ask_take_number(json_incref(mine), "alloc"));
        assert_int_not_equal(ask_take_number(json_incref(other), "alloc"), ask_take_number(mine, "alloc"));
        found = ask(bob.client, "region.get", "{'region':%" PRIu64 "}", ask_take_number(other, "region"));
        assert_string_equal(json_string_value(json_object_get(found, "owner")), "user:12346");
        json_decref(found);
        /* A device of the same name under the same key, likewise. */
        assert_int_not_equal(ask_number(alice.client, "device", "device.open", "{'name':'x','request_key':'dev'}"),
                             ask_number(bob.client, "device", "device.open", "{'name':'x','request_key':'dev'}"));
}

/* ---- descriptors ---- */

static void test_a_descriptor_shows_the_owners_region_and_no_more(void **state) {
        json_t *region = ask(alice.client, "region.get", "{'region':%" PRIu64 "}", alice.region), *extent;
        uint64_t size = ask_take_number(json_incref(region), "size"), covered = 0;
        struct stat status;
        char byte;
        size_t i;

        assert_string_equal(json_string_value(json_object_get(region, "owner")), "user:12345");
        json_array_foreach(json_object_get(region, "extents"), i, extent)
                covered += (uint64_t)json_integer_value(json_object_get(extent, "size"));
        assert_int_equal(covered, size);
        assert_int_equal(fstat(alice.fd, &status), 0);
        assert_int_equal(status.st_size, size);
        assert_true(alice.offset + SIZE <= size);
        assert_int_equal(pread(alice.fd, &byte, 1, (off_t)size), 0);
        json_decref(region);
}

static void test_a_descriptor_cannot_be_made_to_show_more_or_less(void **state) {
        struct stat status;
        int seals = fcntl(alice.fd, F_GET_SEALS);

        assert_int_equal(fstat(alice.fd, &status), 0);
        assert_int_equal(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        assert_int_equal(ftruncate(alice.fd, status.st_size + 4096), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(alice.fd, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(fallocate(alice.fd, 0, status.st_size, 4096), -1);
        /* Sealing it against writing would be a trap for the daemon. */
        assert_int_equal(fcntl(alice.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
        assert_int_equal(errno, EPERM);
}

static void test_owners_never_share_a_region(void **state) {
        enum { ROUNDS = 100 };
        uint64_t hers[ROUNDS], his[ROUNDS];

        for (int i = 0; i < ROUNDS; i++) {
                hers[i] = ask_number(alice.client, "region", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}",
                                     alice.device);
                his[i] = ask_number(bob.client, "region", "coherent.alloc",
                                    "{'device':%" PRIu64 ",'size':4096,'shareable':true}", bob.device);
        }
        for (int i = 0; i < ROUNDS; i++)
                for (int j = 0; j < ROUNDS; j++)
                        assert_int_not_equal(hers[i], his[j]);
}

/* Each to its own, byte for byte, in memory that was handed out by turns. */
static void test_what_one_writes_no_other_reads(void **state) {
        memset(alice.memory, 0xa1, SIZE);
        for (int i = 0; i < SIZE; i++)
                assert_int_equal(bob.memory[i], 0);
        memset(bob.memory, 0xb0, SIZE);
        for (int i = 0; i < SIZE; i++)
                assert_int_equal(alice.memory[i], 0xa1);
}

static void expect_clean_and_apart(void) {
        char bytes[SIZE];

        for (int i = 0; i < SIZE; i++)
                assert_int_equal(bob.memory[i], 0);
        memset(alice.memory, 0xa2, SIZE);
        memset(bytes, 0xa3, SIZE);
        assert_int_equal(pwrite(alice.fd, bytes, SIZE, 0), SIZE);
        for (int i = 0; i < SIZE; i++)
                assert_int_equal(bob.memory[i], 0);
        memset(bob.memory, 0xb0, SIZE);
        for (int i = 0; i < SIZE; i++)
                assert_int_equal(alice.memory[i], 0xa3);
}

static void test_freed_memory_is_another_ones_alone_although_the_first_still_maps_it(void **state) {
        memset(alice.memory, 0xa1, SIZE);
        json_decref(ask(alice.client, "coherent.free", "{'alloc':%" PRIu64 "}", alice.alloc));
        memset(alice.memory, 0xa2, SIZE);
        user_alloc(&bob);
        assert_int_equal(bob.machine_addr, alice.machine_addr);
        expect_clean_and_apart();
}

static void test_memory_of_an_ended_session_is_another_ones_alone(void **state) {
        memset(alice.memory, 0xa1, SIZE);
        json_decref(ask(alice.client, "broker.bye", "{}"));
        memset(alice.memory, 0xa2, SIZE);
        user_alloc(&bob);
        assert_int_equal(bob.machine_addr, alice.machine_addr);
        expect_clean_and_apart();
}

static void test_memory_of_a_client_that_waits_for_it_comes_clean(void **state) {
        int id = ask_send(bob.client, "coherent.alloc",
                          "{'device':%" PRIu64 ",'size':%d,'align':4096,'fd':true,'wait_ms':60000}", bob.device, SIZE);

        memset(alice.memory, 0xa1, SIZE);
        json_decref(ask(alice.client, "coherent.free", "{'alloc':%" PRIu64 "}", alice.alloc));
        user_take(&bob, ask_result(bob.client, id));
        assert_int_equal(bob.machine_addr, alice.machine_addr);
        expect_clean_and_apart();
}

/* ---- administrators ---- */

static void test_an_administrator_sees_everything_and_gets_no_descriptor(void **state) {
        struct test_client *root = ask_connect(daemon_of_test, NULL);
        json_t *result;

        result = ask(root, "coherent.list", "{}");
        assert_int_equal(json_array_size(json_object_get(result, "allocs")), 2);
        json_decref(result);
        result = ask(root, "coherent.list", "{'owner':'user:12345'}");
        assert_int_equal(json_array_size(json_object_get(result, "allocs")), 1);
        json_decref(result);
        result = ask(root, "region.get", "{'region':%" PRIu64 "}", alice.region);
        assert_string_equal(json_string_value(json_object_get(result, "owner")), "user:12345");
        assert_null(json_object_get(result, "fds"));
        json_decref(result);
        assert_int_equal(test_client_take_fd(root), -1);
        assert_int_equal(ask_number(root, "alloc", "coherent.lookup", "{'machine_addr':'0x%" PRIx64 "'}",
                                    alice.machine_addr), alice.alloc);
        test_client_close(root);
}

/* Else its memory would lie in the device owner's region, with a descriptor of the whole of it. */
static void test_an_administrator_cannot_allocate_on_somebodys_device(void **state) {
        struct test_client *root = ask_connect(daemon_of_test, NULL);
        json_t *answer;

        ask_send(root, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'fd':true}", alice.device);
        answer = ask_read(root);
        assert_non_null(json_object_get(answer, "error"));
        json_decref(answer);
        assert_int_equal(test_client_take_fd(root), -1);
        test_client_close(root);
}

static void test_an_administrator_frees_and_the_owner_is_told(void **state) {
        struct test_client *root = ask_connect(daemon_of_test, NULL);

        json_decref(ask(root, "coherent.free", "{'alloc':%" PRIu64 "}", alice.alloc));
        ask_refused(alice.client, "double_free", "coherent.free", "{'alloc':%" PRIu64 "}", alice.alloc);
        json_decref(ask(root, "device.close", "{'device':%" PRIu64 "}", alice.device));
        ask_refused(alice.client, "unknown_handle", "device.close", "{'device':%" PRIu64 "}", alice.device);
        test_client_close(root);
}

/* ---- who may come in ---- */

static int begin_with_groups(void **state) {
        daemon_of_test = ask_daemon("[daemon]\ngroup = daemon\nadmin_group = bin\n");
        return 0;
}

static void expect_role(const struct test_identity *as, const char *role) {
        struct test_client *client = ask_connect(daemon_of_test, as);
        json_t *hello = ask(client, "broker.hello", "{}");

        assert_string_equal(json_string_value(json_object_get(hello, "role")), role);
        json_decref(hello);
        test_client_close(client);
}

static void expect_to_be_sent_away(const struct test_identity *as) {
        struct test_client *client = ask_connect(daemon_of_test, as);
        json_t *answer = ask_read(client);

        assert_true(json_is_null(json_object_get(answer, "id")));
        assert_non_null(strstr(json_string_value(json_object_get(json_object_get(answer, "error"), "message")),
                               "add the user to the group"));
        ask_take_reason(json_incref(json_object_get(answer, "error")), "not_permitted");
        json_decref(answer);
        assert_int_equal(test_client_wait_closed(client), 0);
        test_client_close(client);
}

/* Neither a guest's nor an administrator's, and whether there is such a guest is not told. */
static void test_a_user_exchanges_no_frames(void **state) {
        ask_refused(alice.client, "not_permitted", "guest.exchange", "{'frames':['0x1f400'],'order':0}");
        ask_refused(alice.client, "not_permitted", "guest.exchange",
                    "{'guest':'one','frames':['0x1f400'],'order':0,'given_up':true}");
}

static void test_only_members_of_the_groups_may_come_in(void **state) {
        struct group *local = getgrnam("daemon"), *admin;
        gid_t local_gid, admin_gid;

        if (!local) {
                print_message("skipped: this system has no group daemon\n");
                skip();
        }
        local_gid = local->gr_gid;
        admin = getgrnam("bin");
        if (!admin) {
                print_message("skipped: this system has no group bin\n");
                skip();
        }
        admin_gid = admin->gr_gid;
        expect_to_be_sent_away(&(struct test_identity){ .uid = ALICE, .gid = ALICE });
        expect_role(&(struct test_identity){ .uid = ALICE, .gid = local_gid }, "local");
        expect_role(&(struct test_identity){ .uid = ALICE, .gid = ALICE, .groups = &local_gid, .n_groups = 1 }, "local");
        expect_role(&(struct test_identity){ .uid = ALICE, .gid = ALICE, .groups = &admin_gid, .n_groups = 1 }, "admin");
        expect_role(NULL, "admin");
        expect_to_be_sent_away(&(struct test_identity){ .uid = BOB, .gid = BOB });
}

#define AS_USERS(name) cmocka_unit_test_setup_teardown(name, begin, end)
#define IN_TURN(name) cmocka_unit_test_setup_teardown(name, begin_small, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                AS_USERS(test_a_user_maps_its_memory_to_read_and_write),
                AS_USERS(test_a_stranger_cannot_get_a_region_to_map_it),
                AS_USERS(test_a_stranger_cannot_free),
                AS_USERS(test_a_stranger_is_not_told_that_something_was_freed),
                AS_USERS(test_a_stranger_cannot_close_a_device),
                AS_USERS(test_a_stranger_cannot_use_a_device),
                AS_USERS(test_a_stranger_cannot_unreserve_a_region),
                AS_USERS(test_a_stranger_cannot_list_by_device),
                AS_USERS(test_a_stranger_cannot_list_by_owner),
                AS_USERS(test_a_stranger_cannot_see_a_quota),
                AS_USERS(test_lists_have_only_what_is_ones_own),
                AS_USERS(test_a_stranger_cannot_look_addresses_up),
                AS_USERS(test_handles_cannot_be_guessed),
                AS_USERS(test_a_session_cannot_be_resumed_by_somebody_else),
                AS_USERS(test_a_request_key_is_its_owners),
                AS_USERS(test_a_descriptor_shows_the_owners_region_and_no_more),
                AS_USERS(test_a_descriptor_cannot_be_made_to_show_more_or_less),
                AS_USERS(test_owners_never_share_a_region),
                AS_USERS(test_what_one_writes_no_other_reads),
                IN_TURN(test_freed_memory_is_another_ones_alone_although_the_first_still_maps_it),
                IN_TURN(test_memory_of_an_ended_session_is_another_ones_alone),
                IN_TURN(test_memory_of_a_client_that_waits_for_it_comes_clean),
                AS_USERS(test_a_user_exchanges_no_frames),
                AS_USERS(test_an_administrator_sees_everything_and_gets_no_descriptor),
                AS_USERS(test_an_administrator_cannot_allocate_on_somebodys_device),
                AS_USERS(test_an_administrator_frees_and_the_owner_is_told),
                cmocka_unit_test_setup_teardown(test_only_members_of_the_groups_may_come_in, begin_with_groups, end),
        };

        if (geteuid() != 0) {
                printf("skipped: only root can become other users\n");
                return 77;
        }
        return cmocka_run_group_tests_name("isolation", tests, NULL, NULL);
}
