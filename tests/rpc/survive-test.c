/* What is true after the daemon's death: everything that was answered, and nothing twice. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/hugepages.h"
#include "tests/rpc/ask.h"

#define MIB (UINT64_C(1) << 20)

struct fixture {
        struct test_daemon *daemon;
        struct test_client *client;
        char session[40];
        uint64_t device;
};

static void hello(struct fixture *fixture, const char *session) {
        json_t *result = session ? ask(fixture->client, "broker.hello", "{'session':'%s'}", session)
                                 : ask(fixture->client, "broker.hello", "{}");

        snprintf(fixture->session, sizeof(fixture->session), "%s", json_string_value(json_object_get(result, "session")));
        json_decref(result);
}

static void start_with(struct fixture *fixture, const struct test_daemon_options *options) {
        assert_int_equal(test_daemon_start(options, &fixture->daemon), 0);
        fixture->client = ask_connect(fixture->daemon, NULL);
        hello(fixture, NULL);
        fixture->device = ask_device(fixture->client, "card");
}

static const struct test_daemon_options real_options = {
        .source = "hugetlb", .config = "[daemon]\naccess = everyone\nkeep = 60s\n[source hugetlb]\nreserve = 32M\n",
        .survives = true,
};
static int no_pages;

static void require_pages(void) {
        if (!no_pages)
                return;
        print_message("skipped: there are no huge pages: %s\n", strerror(-no_pages));
        skip();
}

static int set_up(void **state) {
        const struct test_daemon_options options = {
                .config = "[daemon]\naccess = everyone\nkeep = 60s\n", .survives = true, .open_directory = true,
        };
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        *state = fixture;
        start_with(fixture, &options);
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        int r;

        test_client_close(fixture->client);
        r = test_daemon_end(fixture->daemon);
        free(fixture);
        return r;
}

static void come_back(struct fixture *fixture) {
        char session[40];

        strcpy(session, fixture->session);
        test_client_close(fixture->client);
        assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
        fixture->client = ask_connect(fixture->daemon, NULL);
        hello(fixture, session);
        assert_string_equal(fixture->session, session);
}

static void die_and_come_back(struct fixture *fixture) {
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        come_back(fixture);
}

/* An answer as a text, but for what changes with time. The caller's. */
static char *told(struct fixture *fixture, const char *method, const char *params) {
        json_t *result = ask(fixture->client, method, "%s", params), *item, *list;
        const char *key;
        size_t i;
        char *text;

        json_object_foreach(result, key, list)
                json_array_foreach(list, i, item)
                        json_object_del(item, "age_ms");
        text = json_dumps(result, JSON_SORT_KEYS);
        json_decref(result);
        return text;
}

static bool tells(struct fixture *fixture, const char *method, const char *what) {
        char *text = told(fixture, method, "{}");
        bool does = strstr(text, what);

        free(text);
        return does;
}

static const char *const lists[] = { "device.list", "coherent.list", "region.list", "lease.list", "mapping.list", "quota.get" };
enum { LISTS = sizeof(lists) / sizeof(*lists) };

static void remember(struct fixture *fixture, char *texts[LISTS]) {
        for (size_t i = 0; i < LISTS; i++)
                texts[i] = told(fixture, lists[i], "{}");
}

static void require_the_same(struct fixture *fixture, char *texts[LISTS]) {
        for (size_t i = 0; i < LISTS; i++) {
                char *text = told(fixture, lists[i], "{}");

                assert_string_equal(text, texts[i]);
                free(text);
                free(texts[i]);
        }
}

static uint64_t pool(struct fixture *fixture) {
        return ask_number(fixture->client, "pool", "pool.create", "{'name':'descriptors','device':%" PRIu64 ",'size':128}",
                          fixture->device);
}

static uint64_t free_bytes(struct fixture *fixture) {
        json_t *result = ask(fixture->client, "broker.status", "{}");
        json_t *source = json_array_get(json_object_get(result, "sources"), 0);
        uint64_t bytes = ask_peek_number(source, "free");

        json_decref(result);
        return bytes;
}

/* ---- killed ---- */

static void test_everything_that_was_answered_is_there_after_a_kill(void **state) {
        struct fixture *fixture = *state;
        uint64_t alloc, handle, bounce;
        char *texts[LISTS];

        alloc = ask_number(fixture->client, "alloc", "coherent.alloc",
                           "{'device':%" PRIu64 ",'size':65536,'shareable':true,'lifetime':'owner'}", fixture->device);
        ask_alloc(fixture->client, fixture->device, 3 * MIB);
        json_decref(ask(fixture->client, "mapping.map", "{'device':%" PRIu64 ",'alloc':%" PRIu64 ",'direction':'to_device'}",
                        fixture->device, alloc));
        handle = pool(fixture);
        json_decref(ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':5}", handle));
        json_decref(ask(fixture->client, "pool.lease", "{'pool':%" PRIu64 ",'count':20}", handle));
        bounce = ask_number(fixture->client, "bounce", "bounce.create",
                            "{'device':%" PRIu64 ",'size':131072,'max_size':1048576}", fixture->device);
        json_decref(ask(fixture->client, "bounce.map", "{'bounce':%" PRIu64 ",'size':100000,'direction':'from_device'}", bounce));
        /* The second part of the pool. */
        json_decref(ask(fixture->client, "bounce.map", "{'bounce':%" PRIu64 ",'size':90000,'direction':'bidirectional'}",
                        bounce));
        json_decref(ask(fixture->client, "bounce.lease", "{'bounce':%" PRIu64 ",'slots':3}", bounce));
        json_decref(ask(fixture->client, "device.reserve", "{'device':%" PRIu64 ",'size':1048576}",
                        ask_device(fixture->client, "other")));
        json_decref(ask(fixture->client, "device.set_mask", "{'device':%" PRIu64 ",'mask':'0xffffffff'}", fixture->device));
        remember(fixture, texts);
        die_and_come_back(fixture);
        require_the_same(fixture, texts);
        ask_clean(fixture->client);
}

static void test_what_came_back_can_be_given_back(void **state) {
        struct fixture *fixture = *state;
        uint64_t before = free_bytes(fixture), alloc, handle, lease, bounce, mapping, dma;
        json_t *blocks;

        alloc = ask_alloc(fixture->client, fixture->device, 65536);
        handle = pool(fixture);
        blocks = ask(fixture->client, "pool.alloc", "{'pool':%" PRIu64 ",'count':1}", handle);
        dma = ask_peek_hex(json_array_get(json_object_get(blocks, "blocks"), 0), "dma_addr");
        json_decref(blocks);
        lease = ask_number(fixture->client, "lease", "pool.lease", "{'pool':%" PRIu64 ",'count':20}", handle);
        bounce = ask_number(fixture->client, "bounce", "bounce.create", "{'device':%" PRIu64 ",'size':131072}", fixture->device);
        mapping = ask_number(fixture->client, "mapping", "bounce.map",
                             "{'bounce':%" PRIu64 ",'size':10000,'direction':'to_device'}", bounce);
        die_and_come_back(fixture);
        json_decref(ask(fixture->client, "bounce.unmap", "{'mapping':%" PRIu64 "}", mapping));
        json_decref(ask(fixture->client, "bounce.destroy", "{'bounce':%" PRIu64 "}", bounce));
        json_decref(ask(fixture->client, "pool.return", "{'lease':%" PRIu64 "}", lease));
        json_decref(ask(fixture->client, "pool.free", "{'pool':%" PRIu64 ",'dma_addrs':['0x%" PRIx64 "']}", handle, dma));
        json_decref(ask(fixture->client, "pool.destroy", "{'pool':%" PRIu64 "}", handle));
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        json_decref(ask(fixture->client, "device.close", "{'device':%" PRIu64 "}", fixture->device));
        ask_until(free_bytes(fixture) == before);
        ask_clean(fixture->client);
}

static void test_a_key_tells_the_same_answer_after_a_kill(void **state) {
        struct fixture *fixture = *state;
        uint64_t handle = pool(fixture);
        char request[4][200], *texts[4];
        static const char *const methods[] = { "coherent.alloc", "pool.alloc", "pool.lease", "device.open" };
        json_t *result;

        snprintf(request[0], sizeof(request[0]), "{'device':%" PRIu64 ",'size':8192,'request_key':'a'}", fixture->device);
        snprintf(request[1], sizeof(request[1]), "{'pool':%" PRIu64 ",'count':3,'request_key':'b'}", handle);
        snprintf(request[2], sizeof(request[2]), "{'pool':%" PRIu64 ",'count':30,'request_key':'c'}", handle);
        snprintf(request[3], sizeof(request[3]), "{'name':'other','request_key':'d'}");
        for (int round = 0; round < 3; round++) {
                for (int i = 0; i < 4; i++) {
                        result = ask(fixture->client, methods[i], "%s", request[i]);
                        if (!round)
                                texts[i] = json_dumps(result, JSON_SORT_KEYS);
                        else {
                                char *text = json_dumps(result, JSON_SORT_KEYS);

                                assert_string_equal(text, texts[i]);
                                free(text);
                        }
                        json_decref(result);
                }
                die_and_come_back(fixture);
        }
        for (int i = 0; i < 4; i++)
                free(texts[i]);
        ask_clean(fixture->client);
}

static void test_handles_are_not_used_again_after_a_kill(void **state) {
        struct fixture *fixture = *state;
        uint64_t seen[40], n = 0, alloc;

        for (int round = 0; round < 4; round++) {
                for (int i = 0; i < 10; i++) {
                        alloc = ask_alloc(fixture->client, fixture->device, 4096);
                        for (uint64_t j = 0; j < n; j++)
                                assert_int_not_equal(alloc, seen[j]);
                        seen[n++] = alloc;
                        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
                }
                die_and_come_back(fixture);
        }
}

static void test_the_bytes_are_the_same_and_the_old_mapping_shows_them(void **state) {
        struct fixture *fixture = *state;
        uint64_t region, offset;
        unsigned char *memory;
        json_t *result;
        int fd;

        result = ask(fixture->client, "coherent.alloc", "{'device':%" PRIu64 ",'size':1048576,'fd':true}", fixture->device);
        region = ask_peek_number(result, "region");
        offset = ask_peek_number(result, "offset");
        json_decref(result);
        fd = test_client_take_fd(fixture->client);
        memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
        assert_ptr_not_equal(memory, MAP_FAILED);
        close(fd);
        memory[0] = 1;
        memory[MIB - 1] = 2;
        die_and_come_back(fixture);
        memory[5000] = 3;
        json_decref(ask(fixture->client, "region.get", "{'region':%" PRIu64 "}", region));
        fd = test_client_take_fd(fixture->client);
        assert_true(fd >= 0);
        assert_int_equal(munmap(memory, MIB), 0);
        memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
        assert_int_equal(memory[0], 1);
        assert_int_equal(memory[5000], 3);
        assert_int_equal(memory[MIB - 1], 2);
        munmap(memory, MIB);
        close(fd);
}

static void test_a_session_that_nobody_resumes_ends_after_its_grace_time(void **state) {
        const struct test_daemon_options options = {
                .config = "[daemon]\naccess = everyone\ngrace = 0\nkeep = 60s\n", .survives = true,
        };
        struct fixture fixture;

        start_with(&fixture, &options);
        ask_alloc(fixture.client, fixture.device, 65536);
        assert_int_equal(test_daemon_kill(fixture.daemon), 0);
        /* However short the grace time is, a restart does not count against it. */
        come_back(&fixture);
        assert_true(tells(&fixture, "coherent.list", "65536"));
        test_client_close(fixture.client);
        fixture.client = ask_connect(fixture.daemon, NULL);
        ask_until(!tells(&fixture, "coherent.list", "65536"));
        ask_refused(fixture.client, "unknown_handle", "broker.hello", "{'session':'%s'}", fixture.session);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

/* It has nothing to ask for, and no thread that would: what it holds is in use all the same. */
static void test_a_session_stays_as_long_as_its_program_lives_without_a_word(void **state) {
        const struct test_daemon_options options = {
                .config = "[daemon]\naccess = everyone\ngrace = 0\nkeep = 60s\n[memory]\nquarantine = 0\n",
                .survives = true,
        };
        struct fixture fixture;
        int status, ends[2];
        pid_t program;
        char byte;

        start_with(&fixture, &options);
        assert_int_equal(pipe(ends), 0);
        program = fork();
        if (!program) {
                struct test_client *own = ask_connect(fixture.daemon, NULL);

                ask_alloc(own, ask_device(own, "silent"), 65536);
                _exit(write(ends[1], "", 1) != 1 || pause());
        }
        assert_int_equal(read(ends[0], &byte, 1), 1);
        assert_int_equal(test_daemon_kill(fixture.daemon), 0);
        come_back(&fixture);
        json_decref(ask(fixture.client, "device.close", "{'device':%" PRIu64 "}", fixture.device));
        assert_true(tells(&fixture, "coherent.list", "65536"));
        kill(program, SIGKILL);
        assert_int_equal(waitpid(program, &status, 0), program);
        ask_until(!tells(&fixture, "coherent.list", "65536"));
        ask_clean(fixture.client);
        close(ends[0]);
        close(ends[1]);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

/* One of them has come back, and gone; the other has not said a word since. */
static void test_a_session_of_two_programs_stays_until_both_have_ended(void **state) {
        const struct test_daemon_options options = {
                .config = "[daemon]\naccess = everyone\ngrace = 0\nkeep = 60s\n[memory]\nquarantine = 0\n",
                .survives = true,
        };
        struct fixture fixture;
        int status, ends[2];
        pid_t program;
        char byte;

        start_with(&fixture, &options);
        ask_alloc(fixture.client, fixture.device, 65536);
        assert_int_equal(pipe(ends), 0);
        program = fork();
        if (!program) {
                struct test_client *own = ask_connect(fixture.daemon, NULL);

                json_decref(ask(own, "broker.hello", "{'session':'%s'}", fixture.session));
                _exit(write(ends[1], "", 1) != 1 || pause());
        }
        assert_int_equal(read(ends[0], &byte, 1), 1);
        die_and_come_back(&fixture);
        test_client_close(fixture.client);
        fixture.client = ask_connect(fixture.daemon, NULL);
        hello(&fixture, NULL);
        assert_true(tells(&fixture, "coherent.list", "65536"));
        kill(program, SIGKILL);
        assert_int_equal(waitpid(program, &status, 0), program);
        ask_until(!tells(&fixture, "coherent.list", "65536"));
        ask_clean(fixture.client);
        close(ends[0]);
        close(ends[1]);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

static void test_quotas_that_were_set_stay_set(void **state) {
        struct fixture *fixture = *state;
        json_t *result;

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:4711','limits':{'bytes':123456,'pools':7}}"));
        die_and_come_back(fixture);
        result = ask(fixture->client, "quota.get", "{'owner':'user:4711'}");
        assert_int_equal(ask_peek_number(json_object_get(result, "limits"), "bytes"), 123456);
        assert_int_equal(ask_peek_number(json_object_get(result, "limits"), "pools"), 7);
        json_decref(result);
}

static void test_quotas_that_were_set_stay_set_when_the_daemon_ends_with_nothing_in_use(void **state) {
        struct fixture *fixture = *state;
        static const int signals[] = { SIGTERM, SIGINT };
        json_t *result;
        int status;

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:4711','limits':{'bytes':123456}}"));
        for (int i = 0; i < 2; i++) {
                json_decref(ask(fixture->client, "broker.bye", "{}"));
                test_client_close(fixture->client);
                test_daemon_signal(fixture->daemon, signals[i]);
                assert_int_equal(test_daemon_wait(fixture->daemon, &status), 0);
                assert_int_equal(status, 0);
                assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
                fixture->client = ask_connect(fixture->daemon, NULL);
                result = ask(fixture->client, "quota.get", "{'owner':'user:4711'}");
                assert_int_equal(ask_peek_number(json_object_get(result, "limits"), "bytes"), 123456);
                json_decref(result);
        }
}

static void test_guarantees_and_limits_of_devices_stay_set(void **state) {
        struct fixture *fixture = *state;
        json_t *result;

        json_decref(ask(fixture->client, "quota.set", "{'owner':'user:4711','guaranteed':{'bytes':8388608}}"));
        json_decref(ask(fixture->client, "quota.set", "{'device':%" PRIu64 ",'limits':{'allocs':3}}", fixture->device));
        die_and_come_back(fixture);
        result = ask(fixture->client, "quota.get", "{'owner':'user:4711'}");
        assert_int_equal(ask_peek_number(json_object_get(result, "guaranteed"), "bytes"), 8388608);
        json_decref(result);
        for (int i = 0; i < 3; i++)
                ask_alloc(fixture->client, fixture->device, 4096);
        ask_refused(fixture->client, "quota", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", fixture->device);
        ask_clean(fixture->client);
}

static void test_others_cannot_resume_a_session_after_a_kill(void **state) {
        struct fixture *fixture = *state;
        struct test_client *stranger;

        die_and_come_back(fixture);
        stranger = ask_connect_as(fixture->daemon, 4711);
        ask_refused(stranger, "unknown_handle", "broker.hello", "{'session':'%s'}", fixture->session);
        test_client_close(stranger);
}

/* ---- ended ---- */

static void test_what_is_in_use_stays_when_the_daemon_is_ended(void **state) {
        struct fixture *fixture = *state;
        char *texts[LISTS];

        ask_alloc(fixture->client, fixture->device, 65536);
        remember(fixture, texts);
        assert_int_equal(test_daemon_stop(fixture->daemon), 0);
        come_back(fixture);
        require_the_same(fixture, texts);
        ask_clean(fixture->client);
}

static void test_an_interrupt_ends_everything(void **state) {
        struct fixture *fixture = *state;
        int status;

        ask_alloc(fixture->client, fixture->device, 65536);
        test_daemon_signal(fixture->daemon, SIGINT);
        assert_int_equal(test_daemon_wait(fixture->daemon, &status), 0);
        assert_int_equal(status, 0);
        test_client_close(fixture->client);
        assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
        fixture->client = ask_connect(fixture->daemon, NULL);
        ask_refused(fixture->client, "unknown_handle", "broker.hello", "{'session':'%s'}", fixture->session);
        ask_clean(fixture->client);
}

static void test_whoever_waits_for_memory_asks_the_next_daemon(void **state) {
        struct fixture *fixture = *state;
        const char *line;
        uint64_t alloc;

        alloc = ask_alloc(fixture->client, fixture->device, 100 * MIB);
        ask_send(fixture->client, "coherent.alloc", "{'device':%" PRIu64 ",'size':104857600,'wait_ms':60000,'request_key':'w'}",
                 fixture->device);
        ask_send(fixture->client, "broker.ping", "{}");
        json_decref(ask_read(fixture->client));
        assert_int_equal(test_daemon_stop(fixture->daemon), 0);
        /* It was told nothing. */
        assert_true(test_client_read_line(fixture->client, &line) < 0);
        come_back(fixture);
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        json_decref(ask(fixture->client, "coherent.alloc",
                        "{'device':%" PRIu64 ",'size':104857600,'wait_ms':60000,'request_key':'w'}", fixture->device));
}

/* ---- damage ---- */

/* The file in force; the caller's. */
static char *ledger_path(struct fixture *fixture) {
        char pattern[200], *path;
        glob_t found;

        snprintf(pattern, sizeof(pattern), "%s/ledger.*", test_daemon_state(fixture->daemon));
        assert_int_equal(glob(pattern, 0, NULL, &found), 0);
        assert_int_equal(found.gl_pathc, 1);
        path = strdup(found.gl_pathv[0]);
        globfree(&found);
        return path;
}

static void test_a_lost_ledger_does_not_make_memory_free(void **state) {
        struct fixture fixture;
        uint64_t had[4], addr;
        char *path, *log;
        json_t *answer;

        require_pages();
        start_with(&fixture, &real_options);
        for (int i = 0; i < 4; i++)
                had[i] = ask_take_hex(ask(fixture.client, "coherent.alloc", "{'device':%" PRIu64 ",'size':2097152}",
                                          fixture.device), "dma_addr");
        assert_int_equal(test_daemon_kill(fixture.daemon), 0);
        path = ledger_path(&fixture);
        assert_int_equal(unlink(path), 0);
        free(path);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_start_again(fixture.daemon), 0);
        log = test_daemon_log(fixture.daemon);
        assert_non_null(strstr(log, "the ledger is not there"));
        free(log);
        /* The next daemon must not take for granted what this one has written since. */
        assert_int_equal(test_daemon_kill(fixture.daemon), 0);
        assert_int_equal(test_daemon_start_again(fixture.daemon), 0);
        assert_int_equal(test_daemon_stop(fixture.daemon), 0);
        assert_int_equal(test_daemon_start_again(fixture.daemon), 0);
        fixture.client = ask_connect(fixture.daemon, NULL);
        fixture.device = ask_device(fixture.client, "card");
        /* Everything that there is, and nothing of it is what somebody had. */
        for (bool more = true; more; json_decref(answer)) {
                ask_send(fixture.client, "coherent.alloc", "{'device':%" PRIu64 ",'size':2097152}", fixture.device);
                answer = ask_read(fixture.client);
                more = json_object_get(answer, "result");
                addr = more ? ask_peek_hex(json_object_get(answer, "result"), "dma_addr") : 0;
                for (int i = 0; i < 4; i++)
                        assert_false(more && addr < had[i] + 2 * MIB && addr + 2 * MIB > had[i]);
        }
        ask_clean(fixture.client);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

static void require_barred(struct fixture *fixture) {
        json_t *result = ask(fixture->client, "quarantine.list", "{}"), *items = json_object_get(result, "items");
        json_t *item = json_array_get(items, 0);

        assert_int_equal(json_array_size(items), 1);
        assert_string_equal(json_string_value(json_object_get(item, "what")), "region");
        assert_string_equal(json_string_value(json_object_get(item, "reason")), "damaged");
        assert_true(ask_peek_number(item, "size") >= 4096);
        assert_null(json_object_get(item, "left_ms"));
        assert_null(json_object_get(item, "device_name"));
        json_decref(result);
        ask_clean(fixture->client);
}

static void test_with_a_damaged_ledger_what_is_known_stays_and_the_rest_is_handed_to_nobody(void **state) {
        struct fixture *fixture = *state;
        uint64_t alloc, other;
        struct stat status;
        char *path, *log;
        json_t *result;
        int fd;

        alloc = ask_alloc(fixture->client, fixture->device, 4096);
        other = ask_alloc(fixture->client, fixture->device, 4096);
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        path = ledger_path(fixture);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(fstat(fd, &status), 0);
        /* The last frame, which has `other`: the file is filled up with zeros behind it. */
        for (off_t at = status.st_size - 1; at > 0; at--) {
                char byte = 0;

                assert_int_equal(pread(fd, &byte, 1, at), 1);
                if (byte) {
                        byte ^= 0x20;
                        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
                        break;
                }
        }
        close(fd);
        free(path);
        come_back(fixture);
        log = test_daemon_log(fixture->daemon);
        assert_non_null(strstr(log, "damaged"));
        free(log);
        ask_clean(fixture->client);
        ask_refused(fixture->client, "unknown_handle", "coherent.free", "{'alloc':%" PRIu64 "}", other);
        /* Its place, which a device may still write to, is not handed out: it is not among the next ones. */
        for (int i = 0; i < 40; i++)
                ask_alloc(fixture->client, fixture->device, 4096);
        ask_clean(fixture->client);
        json_decref(ask(fixture->client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        /* The next ledger is whole, and knows of it: it is an administrator who says that it is nobody's. */
        require_barred(fixture);
        die_and_come_back(fixture);
        require_barred(fixture);
        assert_true(ask_number(fixture->client, "released", "quarantine.release", "{}") > 0);
        ask_clean(fixture->client);
        die_and_come_back(fixture);
        result = ask(fixture->client, "quarantine.list", "{}");
        assert_int_equal(json_array_size(json_object_get(result, "items")), 0);
        json_decref(result);
}

/* ---- a full disk ---- */

static void test_on_a_full_disk_administrators_can_still_come_to_look_and_to_free(void **state) {
        char directory[] = "/tmp/dmab-full-XXXXXX";
        const char *arguments[] = { "--state-dir", directory, NULL };
        struct fixture own, *fixture = &own;
        struct test_client *late;
        uint64_t alloc = 0, last = 0;
        json_t *answer, *result, *error;
        char *log;
        int id;

        assert_non_null(mkdtemp(directory));
        /* Of the test's own, so that a kill of it leaves nothing mounted. */
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", directory, "tmpfs", 0, "size=1m,mode=700") < 0) {
                rmdir(directory);
                print_message("skipped: a small file system needs root\n");
                skip();
        }
        start_with(fixture, &(struct test_daemon_options){
                .config = "[daemon]\naccess = everyone\n[quota user:0]\nallocs = 100000\n", .arguments = arguments,
                .survives = true, .open_directory = true,
        });
        do {
                last = alloc;
                id = ask_send(fixture->client, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", fixture->device);
                answer = ask_read(fixture->client);
                result = json_object_get(answer, "result");
                alloc = result ? ask_peek_number(result, "alloc") : last;
                error = json_incref(json_object_get(answer, "error"));
                json_decref(answer);
        } while (!error);
        assert_true(id > 1000);
        ask_take_reason(error, "source_unavailable");
        late = ask_connect_as(fixture->daemon, 4711);
        ask_refused(late, "source_unavailable", "broker.hello", "{}");
        test_client_close(late);
        late = ask_connect(fixture->daemon, NULL);
        json_decref(ask(late, "broker.hello", "{}"));
        json_decref(ask(late, "broker.status", "{}"));
        ask_refused(late, "source_unavailable", "device.open", "{'name':'late'}");
        json_decref(ask(late, "coherent.free", "{'alloc':%" PRIu64 "}", last));
        test_client_close(late);
        log = test_daemon_log(fixture->daemon);
        assert_non_null(strstr(log, "the file system of the state directory refuses: No space left on device"));
        free(log);
        die_and_come_back(fixture);
        ask_refused(fixture->client, "unknown_handle", "coherent.free", "{'alloc':%" PRIu64 "}", last);
        ask_clean(fixture->client);
        test_client_close(fixture->client);
        assert_int_equal(test_daemon_end(fixture->daemon), 0);
        assert_int_equal(umount(directory), 0);
        assert_int_equal(rmdir(directory), 0);
}

static void test_another_source_is_refused_while_memory_of_the_first_is_in_use(void **state) {
        struct fixture *fixture = *state;
        char *log;

        ask_alloc(fixture->client, fixture->device, 4096);
        assert_int_equal(test_daemon_kill(fixture->daemon), 0);
        if (no_pages) {
                assert_int_equal(test_daemon_start_again(fixture->daemon), 0);
                skip();
        }
        test_daemon_set_source(fixture->daemon, "hugetlb");
        assert_int_not_equal(test_daemon_start_again(fixture->daemon), 0);
        log = test_daemon_log(fixture->daemon);
        assert_non_null(strstr(log, "source sim"));
        free(log);
        /* Nothing is lost by that. */
        test_daemon_set_source(fixture->daemon, "sim");
        come_back(fixture);
        assert_true(tells(fixture, "coherent.list", "4096"));
}

/* ---- real memory ---- */

static void test_real_memory_stays_where_it_is(void **state) {
        struct fixture fixture;
        unsigned char *memory;
        uint64_t offset;
        char *texts[LISTS];
        json_t *result;
        int fd;

        require_pages();
        start_with(&fixture, &real_options);
        result = ask(fixture.client, "coherent.alloc", "{'device':%" PRIu64 ",'size':2097152,'fd':true}", fixture.device);
        offset = ask_peek_number(result, "offset");
        json_decref(result);
        fd = test_client_take_fd(fixture.client);
        memory = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
        assert_ptr_not_equal(memory, MAP_FAILED);
        close(fd);
        for (uint64_t at = 0; at < 2 * MIB; at += 4096)
                memory[at] = (unsigned char)(at >> 12);
        remember(&fixture, texts);
        for (int round = 0; round < 4; round++) {
                if (round % 2)
                        assert_int_equal(test_daemon_stop(fixture.daemon), 0);
                else
                        assert_int_equal(test_daemon_kill(fixture.daemon), 0);
                come_back(&fixture);
                ask_clean(fixture.client);
                for (uint64_t at = 0; at < 2 * MIB; at += 4096)
                        assert_int_equal(memory[at], (unsigned char)(at >> 12));
        }
        require_the_same(&fixture, texts);
        munmap(memory, 2 * MIB);
        test_client_close(fixture.client);
        assert_int_equal(test_daemon_end(fixture.daemon), 0);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
                TEST(everything_that_was_answered_is_there_after_a_kill),
                TEST(what_came_back_can_be_given_back),
                TEST(a_key_tells_the_same_answer_after_a_kill),
                TEST(handles_are_not_used_again_after_a_kill),
                TEST(the_bytes_are_the_same_and_the_old_mapping_shows_them),
                cmocka_unit_test(test_a_session_that_nobody_resumes_ends_after_its_grace_time),
                cmocka_unit_test(test_a_session_stays_as_long_as_its_program_lives_without_a_word),
                cmocka_unit_test(test_a_session_of_two_programs_stays_until_both_have_ended),
                TEST(quotas_that_were_set_stay_set),
                TEST(guarantees_and_limits_of_devices_stay_set),
                TEST(quotas_that_were_set_stay_set_when_the_daemon_ends_with_nothing_in_use),
                TEST(others_cannot_resume_a_session_after_a_kill),
                TEST(what_is_in_use_stays_when_the_daemon_is_ended),
                TEST(an_interrupt_ends_everything),
                TEST(whoever_waits_for_memory_asks_the_next_daemon),
                cmocka_unit_test(test_a_lost_ledger_does_not_make_memory_free),
                TEST(with_a_damaged_ledger_what_is_known_stays_and_the_rest_is_handed_to_nobody),
                cmocka_unit_test(test_on_a_full_disk_administrators_can_still_come_to_look_and_to_free),
                TEST(another_source_is_refused_while_memory_of_the_first_is_in_use),
                cmocka_unit_test(test_real_memory_stays_where_it_is),
        };

        no_pages = test_hugepages_reserve(40);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
