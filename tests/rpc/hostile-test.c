/* Peers that mean harm. Whatever they do: the daemon lives, its memory and its descriptors stay bounded, and another
 * client is served all the while. That other client is a thread of its own which asks, allocates and frees without pause;
 * a test waits for its next rounds wherever its own peers have done their worst. When everybody has left, the daemon's
 * books must be where they were. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

#define CONFIG "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\n"
#define PING "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.ping\"}\n"

enum { MIB = 1 << 20, HOSTILE_UID = 12345 };

/* ---- the client that must not be disturbed ---- */

struct neighbour {
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t turned;
        struct test_client *client;
        uint64_t device;
        unsigned long rounds; /* these three under the lock */
        bool stop, ended;
        bool running; /* the thread is there to be joined */
        char failure[256];
};

/* Runs in the thread, where a failure cannot end the test: it is kept for whoever waits. */
static bool neighbour_ask(struct neighbour *neighbour, const char *request, const char *expected, uint64_t *ret_number) {
        const char *line = "", *found;
        int error = test_client_ask(neighbour->client, request, &line);

        found = error < 0 ? NULL : strstr(line, expected);
        if (!found)
                snprintf(neighbour->failure, sizeof(neighbour->failure), "%.80s: %.120s", request,
                         error < 0 ? strerror(-error) : line);
        else if (ret_number)
                *ret_number = strtoull(found + strlen(expected), NULL, 10);
        return found;
}

static bool neighbour_round(struct neighbour *neighbour) {
        char request[160];
        uint64_t alloc;

        snprintf(request, sizeof(request), "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"coherent.alloc\","
                 "\"params\":{\"device\":%" PRIu64 ",\"size\":4096}}", neighbour->device);
        if (!neighbour_ask(neighbour, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"broker.ping\"}", "\"result\":{}", NULL) ||
            !neighbour_ask(neighbour, request, "\"alloc\":", &alloc))
                return false;
        snprintf(request, sizeof(request), "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"coherent.free\","
                 "\"params\":{\"alloc\":%" PRIu64 "}}", alloc);
        return neighbour_ask(neighbour, request, "\"ok\":true", NULL);
}

static void *neighbour_run(void *userdata) {
        struct neighbour *neighbour = userdata;
        bool good = true;

        while (good) {
                good = neighbour_round(neighbour);
                pthread_mutex_lock(&neighbour->lock);
                neighbour->rounds++;
                good = good && !neighbour->stop;
                neighbour->ended = !good;
                pthread_cond_broadcast(&neighbour->turned);
                pthread_mutex_unlock(&neighbour->lock);
        }
        return NULL;
}

/* Two turns: the first may have begun before this call. */
static void neighbour_is_served(struct neighbour *neighbour) {
        struct timespec end;
        unsigned long wanted;
        int error = 0;

        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_sec += test_timeout_ms() / 1000 + 1;
        pthread_mutex_lock(&neighbour->lock);
        wanted = neighbour->rounds + 2;
        while (neighbour->rounds < wanted && !neighbour->ended && error == 0)
                error = pthread_cond_timedwait(&neighbour->turned, &neighbour->lock, &end);
        pthread_mutex_unlock(&neighbour->lock);
        if (error || *neighbour->failure)
                fail_msg("the other client is not served: %s", error ? strerror(error) : neighbour->failure);
}

/* One allocation stays, so that its region does and rounds need neither memory nor descriptors of anybody. */
static void neighbour_start(struct neighbour *neighbour, struct test_daemon *daemon) {
        neighbour->client = ask_connect(daemon, NULL);
        neighbour->device = ask_device(neighbour->client, "neighbour");
        ask_alloc(neighbour->client, neighbour->device, 4096);
        pthread_mutex_init(&neighbour->lock, NULL);
        pthread_cond_init(&neighbour->turned, NULL);
        assert_int_equal(pthread_create(&neighbour->thread, NULL, neighbour_run, neighbour), 0);
        neighbour->running = true;
}

static void neighbour_stop(struct neighbour *neighbour) {
        pthread_mutex_lock(&neighbour->lock);
        neighbour->stop = true;
        pthread_mutex_unlock(&neighbour->lock);
        pthread_join(neighbour->thread, NULL);
        neighbour->running = false;
        if (*neighbour->failure)
                fail_msg("the other client was not served: %s", neighbour->failure);
        json_decref(ask(neighbour->client, "broker.bye", "{}"));
        test_client_close(neighbour->client);
}

/* ---- a daemon, somebody who looks at it, and the neighbour ---- */

static struct scene {
        struct test_daemon *daemon;
        struct test_client *observer;
        struct neighbour neighbour;
        json_t *counts;
        size_t files;
} scene;

static long long now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static json_t *counts_now(void) {
        json_t *status = ask(scene.observer, "broker.status", "{}"), *counts;

        counts = json_incref(json_object_get(status, "counts"));
        json_decref(status);
        return counts;
}

static size_t daemon_files(void) {
        char path[64];
        size_t n = 0;
        DIR *directory;

        snprintf(path, sizeof(path), "/proc/%d/fd", test_daemon_pid(scene.daemon));
        directory = opendir(path);
        assert_non_null(directory);
        while (readdir(directory))
                n++;
        closedir(directory);
        return n;
}

/* VmRSS, in bytes. */
static size_t daemon_memory(void) {
        char path[64], line[256];
        size_t kib = 0;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/status", test_daemon_pid(scene.daemon));
        file = fopen(path, "re");
        assert_non_null(file);
        while (fgets(line, sizeof(line), file))
                if (sscanf(line, "VmRSS: %zu", &kib) == 1)
                        break;
        fclose(file);
        assert_true(kib > 0);
        return kib * 1024;
}

/* clang has the one, gcc the other. */
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if __has_feature(address_sanitizer) || defined(__SANITIZE_ADDRESS__)
enum { MEMORY_TELLS = 0 };
#else
enum { MEMORY_TELLS = 1 };
#endif

static void assert_memory_below(size_t limit) {
        /* AddressSanitizer keeps what was freed: what is resident then says nothing of what is in use. */
        if (MEMORY_TELLS)
                assert_true(daemon_memory() < limit);
}

/* A disconnect has no answer, so what follows from it is asked for until it is there. */
static void wait_count(const char *name, json_int_t value) {
        long long end = now_ms() + test_timeout_ms();
        json_int_t now;

        do {
                json_t *counts = counts_now();

                now = json_integer_value(json_object_get(counts, name));
                json_decref(counts);
        } while (now != value && now_ms() < end);
        if (now != value)
                fail_msg("%s: still %lld, not %lld", name, (long long)now, (long long)value);
}

static json_int_t count_at_start(const char *name) {
        return json_integer_value(json_object_get(scene.counts, name));
}

static void scene_begin(const char *config) {
        memset(&scene, 0, sizeof(scene));
        scene.daemon = ask_daemon(config);
        scene.observer = ask_connect(scene.daemon, NULL);
        json_decref(ask(scene.observer, "broker.hello", "{}"));
        scene.counts = counts_now();
        scene.files = daemon_files();
        neighbour_start(&scene.neighbour, scene.daemon);
        neighbour_is_served(&scene.neighbour);
}

static void expect_books_as_at_start(void) {
        long long end = now_ms() + test_timeout_ms();
        json_t *counts = counts_now();

        while ((!json_equal(counts, scene.counts) || daemon_files() != scene.files) && now_ms() < end) {
                json_decref(counts);
                counts = counts_now();
        }
        if (!json_equal(counts, scene.counts))
                fail_msg("the counts are %s, and were %s", json_dumps(counts, 0), json_dumps(scene.counts, 0));
        assert_int_equal(daemon_files(), scene.files);
        json_decref(counts);
}

/* The test's own peers have left. */
static void scene_end(void) {
        json_t *check;

        neighbour_is_served(&scene.neighbour);
        neighbour_stop(&scene.neighbour);
        expect_books_as_at_start();
        check = ask(scene.observer, "debug.check", "{}");
        if (!json_is_true(json_object_get(check, "clean")))
                fail_msg("debug.check: %s", json_dumps(check, 0));
        json_decref(check);
        json_decref(scene.counts);
        test_client_close(scene.observer);
        scene.observer = NULL;
        assert_int_equal(test_daemon_end(scene.daemon), 0);
        scene.daemon = NULL;
}

/* After every test. One that failed has left its scene, and a thread that must not meet the next one. */
static int scene_abandon(void **state) {
        if (!scene.daemon)
                return 0;
        if (test_daemon_pid(scene.daemon))
                test_daemon_kill(scene.daemon);
        if (scene.neighbour.running) {
                pthread_join(scene.neighbour.thread, NULL);
                test_client_close(scene.neighbour.client);
        }
        test_client_close(scene.observer);
        test_daemon_end(scene.daemon);
        memset(&scene, 0, sizeof(scene));
        return 0;
}

/* Hostile peers are another owner where that is possible. */
static struct test_client *hostile(void) {
        static const struct test_identity other = { .uid = HOSTILE_UID, .gid = HOSTILE_UID };

        return ask_connect(scene.daemon, geteuid() == 0 ? &other : NULL);
}

static void send_text(struct test_client *client, const char *text) {
        assert_int_equal(test_client_send_text(client, text), 0);
}

static void ping(struct test_client *client) {
        json_decref(ask(client, "broker.ping", "{}"));
}

/* Consumes reply. */
static void expect_error(json_t *reply, int code, const char *reason) {
        json_t *error = json_object_get(reply, "error"), *data = json_object_get(error, "data");
        const char *got = json_string_value(json_object_get(data, "reason"));

        if (json_integer_value(json_object_get(error, "code")) != code || !got || strcmp(got, reason) != 0)
                fail_msg("wanted an error %d with the reason %s, got %s", code, reason, json_dumps(reply, 0));
        json_decref(reply);
}

/* ---- crowds ---- */

static void test_a_thousand_connections_at_a_time_are_each_answered(void **state) {
        enum { PEERS = 1000 };
        static struct test_client *peers[PEERS];
        struct rlimit files;
        int ids[PEERS];

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
        files.rlim_cur = files.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
        if (files.rlim_max < PEERS + 200) {
                print_message("skipped: this process may open %ju files only\n", (uintmax_t)files.rlim_max);
                skip();
        }
        scene_begin(CONFIG);
        for (int i = 0; i < PEERS; i++) {
                peers[i] = ask_connect(scene.daemon, NULL);
                ids[i] = ask_send(peers[i], "device.open", "{'name':'device-%d'}", i);
        }
        neighbour_is_served(&scene.neighbour);
        for (int i = 0; i < PEERS; i++) {
                uint64_t device = ask_take_number(ask_result(peers[i], ids[i]), "device");

                ids[i] = ask_send(peers[i], "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", device);
        }
        for (int i = 0; i < PEERS; i++)
                json_decref(ask_result(peers[i], ids[i]));
        wait_count("connections", count_at_start("connections") + PEERS + 1);
        wait_count("allocs", PEERS + 1 + count_at_start("allocs"));
        neighbour_is_served(&scene.neighbour);
        for (int i = 0; i < PEERS; i++)
                test_client_close(peers[i]);
        scene_end();
}

static void test_half_messages_of_many_peers_hold_up_nobody(void **state) {
        enum { PEERS = 200 };
        static const char half[] = "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"broker.pi", rest[] = "ng\"}\n";
        struct test_client *peers[PEERS];

        scene_begin(CONFIG);
        for (int i = 0; i < PEERS; i++) {
                peers[i] = ask_connect(scene.daemon, NULL);
                send_text(peers[i], half);
        }
        neighbour_is_served(&scene.neighbour);
        for (int i = 0; i < PEERS; i += 2) {
                json_t *reply;

                send_text(peers[i], rest);
                reply = ask_read(peers[i]);
                assert_int_equal(json_integer_value(json_object_get(reply, "id")), 5);
                json_decref(reply);
        }
        for (int i = 0; i < PEERS; i++)
                test_client_close(peers[i]);
        scene_end();
}

static void test_half_messages_take_no_more_memory_than_their_limit(void **state) {
        enum { PEERS = 16, HALF = MIB - 4096 };
        struct test_client *peers[PEERS];
        size_t before;
        char *half = malloc(HALF);

        assert_non_null(half);
        memset(half, '[', HALF);
        scene_begin(CONFIG);
        before = daemon_memory();
        for (int i = 0; i < PEERS; i++) {
                peers[i] = hostile();
                assert_int_equal(test_client_send(peers[i], half, HALF), 0);
        }
        neighbour_is_served(&scene.neighbour);
        assert_memory_below(before + 2 * PEERS * (size_t)MIB + 16 * MIB);
        for (int i = 0; i < PEERS; i++)
                test_client_close(peers[i]);
        free(half);
        scene_end();
}

static void test_a_message_that_comes_byte_by_byte_is_answered(void **state) {
        struct test_client *peer;

        scene_begin(CONFIG);
        peer = hostile();
        for (const char *at = PING; *at; at++) {
                assert_int_equal(test_client_send(peer, at, 1), 0);
                neighbour_is_served(&scene.neighbour);
        }
        json_decref(ask_read(peer));
        test_client_close(peer);
        scene_end();
}

/* ---- too much ---- */

static void test_a_message_over_the_limit_is_skipped_to_its_end(void **state) {
        struct test_client *peer;
        char *bytes = malloc(2 * MIB);

        assert_non_null(bytes);
        memset(bytes, 'x', 2 * MIB);
        scene_begin(CONFIG);
        peer = hostile();
        assert_int_equal(test_client_send(peer, bytes, 2 * MIB), 0);
        neighbour_is_served(&scene.neighbour);
        /* Still the same message: none of it is taken for another one. */
        send_text(peer, PING);
        expect_error(ask_read(peer), -32600, "limit");
        ping(peer);
        test_client_close(peer);
        free(bytes);
        scene_end();
}

static void test_ten_thousand_notifications_are_not_answered(void **state) {
        enum { NOTIFICATIONS = 10000 };
        static const char *const texts[] = {
                "{\"jsonrpc\":\"2.0\",\"method\":\"broker.ping\"}\n",
                "{\"jsonrpc\":\"2.0\",\"method\":\"no.such\"}\n",
                "{\"jsonrpc\":\"2.0\",\"method\":\"coherent.free\",\"params\":{\"alloc\":1}}\n",
                "[{\"jsonrpc\":\"2.0\",\"method\":\"broker.status\"},{\"jsonrpc\":\"2.0\",\"method\":\"broker.ping\"}]\n",
        };
        struct test_client *peer;

        scene_begin(CONFIG);
        peer = hostile();
        for (int i = 0; i < NOTIFICATIONS; i++)
                send_text(peer, texts[i % 4]);
        neighbour_is_served(&scene.neighbour);
        /* Its answer is the first line that comes. */
        ping(peer);
        test_client_close(peer);
        scene_end();
}

/* A batch of n times element; the caller frees. */
static char *batch_of(size_t n, const char *element) {
        size_t length = strlen(element);
        char *text = malloc(n * (length + 1) + 3), *at = text;

        assert_non_null(text);
        *at++ = '[';
        for (size_t i = 0; i < n; i++) {
                memcpy(at, element, length);
                at += length;
                *at++ = i + 1 < n ? ',' : ']';
        }
        memcpy(at, "\n", 2);
        return text;
}

static void test_a_batch_over_the_limit_is_refused_and_the_largest_is_served(void **state) {
        enum { LIMIT = 1024 };
        static const char element[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.ping\"}";
        char *good = batch_of(LIMIT, element), *bad = batch_of(LIMIT + 1, element);
        struct test_client *peer;
        json_t *reply;

        scene_begin(CONFIG);
        peer = hostile();
        for (int i = 0; i < 20; i++) {
                send_text(peer, bad);
                expect_error(ask_read(peer), -32600, "limit");
        }
        neighbour_is_served(&scene.neighbour);
        send_text(peer, good);
        reply = ask_read(peer);
        assert_int_equal(json_array_size(reply), LIMIT);
        for (size_t i = 0; i < LIMIT; i++)
                assert_non_null(json_object_get(json_array_get(reply, i), "result"));
        json_decref(reply);
        test_client_close(peer);
        free(good);
        free(bad);
        scene_end();
}

static void test_a_batch_whose_answers_grow_too_long_is_cut_short(void **state) {
        enum { LIMIT = 1 << 16, CALLS = 1000 };
        char *text = batch_of(CALLS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}");
        struct test_client *peer;
        const char *line;
        json_t *reply;

        scene_begin(CONFIG "[limits]\nbatch_reply = 64K\n");
        peer = hostile();
        ping(peer);
        send_text(peer, text);
        neighbour_is_served(&scene.neighbour);
        assert_int_equal(test_client_read_line(peer, &line), 0);
        reply = json_loads(line, 0, NULL);
        assert_int_equal(json_array_size(reply), CALLS);
        assert_non_null(json_object_get(json_array_get(reply, 0), "result"));
        expect_error(json_incref(json_array_get(reply, CALLS - 1)), E2BIG, "limit");
        json_decref(reply);
        ping(peer);
        test_client_close(peer);
        free(text);
        scene_end();
}

static void test_calls_beyond_those_in_flight_are_refused(void **state) {
        enum { LIMIT = 256 };
        struct test_client *peer;
        uint64_t device;
        int last = 0;

        if (geteuid() != 0) {
                print_message("skipped: only root can make the peer another owner, who waits alone\n");
                skip();
        }
        scene_begin(CONFIG "[source sim]\nlayout = 4M@0x100000000\n");
        peer = hostile();
        device = ask_device(peer, "hostile");
        for (int i = 0; i < LIMIT; i++)
                ask_send(peer, "coherent.alloc", "{'device':%" PRIu64 ",'size':4194304,'wait_ms':60000}", device);
        last = ask_send(peer, "broker.ping", "{}");
        ask_take_reason(ask_error(peer, last), "limit");
        wait_count("waiters", LIMIT);
        neighbour_is_served(&scene.neighbour);
        test_client_close(peer);
        wait_count("waiters", 0);
        scene_end();
}

/* ---- peers that do not read ---- */

/* Send the same again and again until there is no room, or until the daemon hung up: then -EPIPE. */
static int flood(struct test_client *peer, const char *text, size_t *offset, size_t *total) {
        size_t length = strlen(text), sent;
        int error;

        do {
                error = test_client_send_some(peer, text + *offset, length - *offset, &sent);
                if (error < 0)
                        return -EPIPE;
                *offset = (*offset + sent) % length;
                *total += sent;
        } while (sent > 0);
        return 0;
}

static void flood_until_cut_off(struct test_client *peer, const char *text) {
        struct pollfd item = { .fd = test_client_fd(peer), .events = POLLOUT };
        size_t offset = 0, total = 0;

        while (flood(peer, text, &offset, &total) == 0) {
                assert_true(total < 256 * (size_t)MIB);
                assert_int_equal(poll(&item, 1, test_timeout_ms()), 1);
        }
}

static void expect_in_log(const char *text) {
        char *log = test_daemon_log(scene.daemon);

        if (!strstr(log, text))
                fail_msg("the log does not say \"%s\": %s", text, log);
        free(log);
}

static void test_a_peer_that_does_not_read_stalls_only_itself(void **state) {
        size_t offset = 0, total = 0, before, length = strlen(PING);
        struct test_client *peer;

        scene_begin(CONFIG);
        peer = hostile();
        before = daemon_memory();
        /* The daemon has had time to take what it would take. */
        for (int i = 0; i < 5; i++) {
                assert_int_equal(flood(peer, PING, &offset, &total), 0);
                neighbour_is_served(&scene.neighbour);
                assert_true(total < 16 * MIB);
        }
        assert_memory_below(before + 8 * MIB);
        /* Nothing is lost for having waited. */
        if (offset) {
                assert_int_equal(shutdown(test_client_fd(peer), SHUT_WR), 0);
                total -= offset;
        }
        for (size_t i = 0; i < total / length; i++) {
                const char *line;

                assert_int_equal(test_client_read_line(peer, &line), 0);
                assert_non_null(strstr(line, "\"result\":{}"));
        }
        test_client_close(peer);
        scene_end();
}

static void test_many_peers_that_do_not_read_take_bounded_memory(void **state) {
        enum { PEERS = 32 };
        static const char text[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n";
        struct test_client *peers[PEERS];
        size_t offsets[PEERS] = { 0 }, total = 0, before;

        scene_begin(CONFIG);
        before = daemon_memory();
        for (int i = 0; i < PEERS; i++)
                peers[i] = hostile();
        for (int round = 0; round < 5; round++) {
                for (int i = 0; i < PEERS; i++)
                        assert_int_equal(flood(peers[i], text, &offsets[i], &total), 0);
                neighbour_is_served(&scene.neighbour);
        }
        assert_memory_below(before + PEERS * (size_t)MIB + 16 * MIB);
        for (int i = 0; i < PEERS; i++)
                test_client_close(peers[i]);
        scene_end();
}

static void test_descriptors_that_are_not_read_are_bounded_too(void **state) {
        enum { PEERS = 4 };
        struct test_client *peers[PEERS];
        size_t offsets[PEERS] = { 0 }, total = 0;
        char texts[PEERS][160];

        scene_begin(CONFIG);
        for (int i = 0; i < PEERS; i++) {
                json_t *result;

                peers[i] = hostile();
                result = ask(peers[i], "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}",
                             ask_device(peers[i], "hostile"));
                snprintf(texts[i], sizeof(texts[i]), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"region.get\","
                         "\"params\":{\"region\":%" PRIu64 "}}\n", ask_take_number(result, "region"));
        }
        for (int round = 0; round < 5; round++) {
                for (int i = 0; i < PEERS; i++)
                        assert_int_equal(flood(peers[i], texts[i], &offsets[i], &total), 0);
                neighbour_is_served(&scene.neighbour);
        }
        /* Connections, regions, and the descriptors of the answers that wait. */
        assert_true(daemon_files() < scene.files + PEERS * 128);
        for (int i = 0; i < PEERS; i++)
                test_client_close(peers[i]);
        scene_end();
}

static void test_a_peer_that_does_not_read_is_cut_off_in_time(void **state) {
        struct test_client *peer;

        scene_begin(CONFIG "[limits]\nstall = 100ms\n");
        peer = hostile();
        flood_until_cut_off(peer, PING);
        expect_in_log("it did not read its answers in time");
        test_client_close(peer);
        scene_end();
}

static void test_a_peer_whose_answers_pile_up_is_cut_off_at_the_limit(void **state) {
        size_t before;
        struct test_client *peer;
        /* Such an answer is as long as batch_reply, 8M: one is below queue_pause, three quarters of queue; two are above. */
        char *text = batch_of(128, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}");

        scene_begin(CONFIG "[limits]\nqueue = 14M\nqueue_pause = 14M\n");
        before = daemon_memory();
        peer = hostile();
        flood_until_cut_off(peer, text);
        expect_in_log("it does not read its answers");
        assert_memory_below(before + 64 * MIB);
        test_client_close(peer);
        free(text);
        scene_end();
}

/* ---- descriptors that nobody asked for ---- */

static void test_descriptors_that_come_are_closed_and_refused(void **state) {
        enum { FDS = 200, ROUNDS = 20 };
        static const char half[] = "{\"jsonrpc\":\"2.0\",\"id\":1,";
        int fds[FDS];
        struct test_client *peer;
        size_t before;

        scene_begin(CONFIG);
        peer = hostile();
        ping(peer);
        before = daemon_files();
        for (int i = 0; i < FDS; i++)
                assert_return_code(fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC), errno);
        for (int i = 0; i < ROUNDS; i++) {
                assert_int_equal(test_client_send_fds(peer, PING, strlen(PING), fds, FDS), 0);
                expect_error(ask_read(peer), -32600, "unsupported");
                ping(peer);
                /* With a part of a message, they make the whole of it refused. */
                assert_int_equal(test_client_send_fds(peer, half, strlen(half), fds, 1), 0);
                send_text(peer, "\"method\":\"broker.ping\"}\n");
                expect_error(ask_read(peer), -32600, "unsupported");
                ping(peer);
        }
        assert_int_equal(daemon_files(), before);
        for (int i = 0; i < FDS; i++)
                close(fds[i]);
        test_client_close(peer);
        scene_end();
}

static void test_a_daemon_without_descriptors_says_so_and_serves_whom_it_has(void **state) {
        enum { PEERS = 64 };
        struct test_client *peers[PEERS], *holder;
        struct rlimit before, low;
        uint64_t device;
        int n = 0;

        scene_begin(CONFIG);
        holder = hostile();
        device = ask_device(holder, "holder");
        ask_alloc(holder, device, 4096);
        low.rlim_cur = daemon_files() + 16;
        assert_int_equal(prlimit(test_daemon_pid(scene.daemon), RLIMIT_NOFILE, NULL, &before), 0);
        low.rlim_max = before.rlim_max;
        assert_int_equal(prlimit(test_daemon_pid(scene.daemon), RLIMIT_NOFILE, &low, NULL), 0);
        for (bool refused = false; !refused; n++) {
                json_t *reply;

                assert_in_range(n, 0, PEERS - 1);
                peers[n] = ask_connect(scene.daemon, NULL);
                /* Who is refused may be told, and left, before it says a word. */
                if (test_client_send_text(peers[n], PING) < 0)
                        assert_true(n > 0);
                reply = ask_read(peers[n]);
                refused = json_object_get(reply, "error");
                if (refused) {
                        expect_error(json_incref(reply), E2BIG, "limit");
                        assert_int_equal(test_client_wait_closed(peers[n]), 0);
                }
                json_decref(reply);
        }
        neighbour_is_served(&scene.neighbour);
        /* What would need one more is refused, and holds nothing. */
        ask_refused(holder, "limit", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'fd':true}", device);
        assert_int_equal(prlimit(test_daemon_pid(scene.daemon), RLIMIT_NOFILE, &before, NULL), 0);
        json_decref(ask(holder, "coherent.alloc", "{'device':%" PRIu64 ",'size':4096,'fd':true}", device));
        for (int i = 0; i < n; i++)
                test_client_close(peers[i]);
        test_client_close(holder);
        scene_end();
}

/* ---- leaving in the middle ---- */

static void leave_at_once(struct test_client *peer) {
}

static void leave_within_a_message(struct test_client *peer) {
        send_text(peer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"meth");
}

static void leave_before_the_answer(struct test_client *peer) {
        send_text(peer, PING);
}

static void leave_with_a_queue_of_answers(struct test_client *peer) {
        for (int i = 0; i < 20; i++)
                ask_send(peer, "rpc.discover", "{}");
}

static void leave_with_a_batch_of_answers(struct test_client *peer) {
        char *text = batch_of(100, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"device.open\",\"params\":{\"name\":\"x\"}}");

        send_text(peer, text);
        free(text);
}

static void leave_without_taking_a_descriptor(struct test_client *peer) {
        uint64_t device = ask_device(peer, "hostile");

        for (int i = 0; i < 10; i++)
                ask_send(peer, "coherent.alloc", "{'device':%" PRIu64 ",'size':65536,'fd':true}", device);
}

static void leave_while_memory_is_fetched(struct test_client *peer) {
        uint64_t device = ask_device(peer, "hostile");

        ask_send(peer, "coherent.alloc", "{'device':%" PRIu64 ",'size':4194304,'zero':true,'lifetime':'session'}", device);
}

static void leave_while_memory_is_waited_for(struct test_client *peer) {
        uint64_t device = ask_device(peer, "hostile");

        for (int i = 0; i < 10; i++)
                ask_send(peer, "coherent.alloc", "{'device':%" PRIu64 ",'size':67108864,'wait_ms':60000}", device);
}

static void leave_while_a_reservation_is_waited_for(struct test_client *peer) {
        ask_send(peer, "device.reserve", "{'device':%" PRIu64 ",'size':33554432}", ask_device(peer, "hostile"));
}

static void leave_during_a_check(struct test_client *peer) {
        ask_send(peer, "debug.check", "{}");
}

static void leave_after_the_farewell(struct test_client *peer) {
        ask_device(peer, "hostile");
        ask_send(peer, "broker.bye", "{}");
}

static void test_peers_may_leave_in_the_middle_of_anything(void **state) {
        static void (*const ways[])(struct test_client *peer) = {
                leave_at_once,
                leave_within_a_message,
                leave_before_the_answer,
                leave_with_a_queue_of_answers,
                leave_with_a_batch_of_answers,
                leave_without_taking_a_descriptor,
                leave_while_memory_is_fetched,
                leave_while_memory_is_waited_for,
                leave_while_a_reservation_is_waited_for,
                leave_during_a_check,
                leave_after_the_farewell,
        };
        enum { WAYS = sizeof(ways) / sizeof(*ways), ROUNDS = 5 };

        if (geteuid() != 0) {
                print_message("skipped: only root can make the peers another owner, who waits alone\n");
                skip();
        }
        scene_begin(CONFIG);
        for (int round = 0; round < ROUNDS; round++)
                for (int way = 0; way < WAYS; way++) {
                        struct test_client *peer = hostile();

                        ways[way](peer);
                        test_client_close(peer);
                        neighbour_is_served(&scene.neighbour);
                }
        scene_end();
}

static void test_a_peer_that_only_stops_sending_still_gets_its_answers(void **state) {
        enum { CALLS = 100 };
        struct test_client *peer;

        scene_begin(CONFIG);
        peer = hostile();
        for (int i = 0; i < CALLS; i++)
                send_text(peer, PING);
        assert_int_equal(shutdown(test_client_fd(peer), SHUT_WR), 0);
        for (int i = 0; i < CALLS; i++)
                json_decref(ask_read(peer));
        assert_int_equal(test_client_wait_closed(peer), 0);
        test_client_close(peer);
        scene_end();
}

static void test_a_session_outlives_its_connection_but_what_it_waited_for_does_not(void **state) {
        struct test_client *peer;
        json_t *hello;

        if (geteuid() != 0) {
                print_message("skipped: only root can make the peer another owner, who waits alone\n");
                skip();
        }
        scene_begin("[daemon]\naccess = everyone\n[memory]\nregion_idle = 0\n[source sim]\nlayout = 4M@0x100000000\n");
        peer = hostile();
        hello = ask(peer, "broker.hello", "{}");
        ask_send(peer, "coherent.alloc", "{'device':%" PRIu64 ",'size':4194304,'wait_ms':60000}",
                 ask_device(peer, "hostile"));
        wait_count("waiters", 1);
        test_client_close(peer);
        wait_count("waiters", 0);
        neighbour_is_served(&scene.neighbour);
        wait_count("sessions", count_at_start("sessions") + 2);
        peer = hostile();
        json_decref(ask(peer, "broker.hello", "{'session':'%s'}", json_string_value(json_object_get(hello, "session"))));
        json_decref(ask(peer, "broker.bye", "{}"));
        json_decref(hello);
        test_client_close(peer);
        scene_end();
}

/* What a dead peer waited for goes to the next one, not to nobody. */
static void test_memory_is_not_lost_to_a_waiter_that_left(void **state) {
        struct test_client *holder, *waiter, *next;
        uint64_t held;
        int id;

        if (geteuid() != 0) {
                print_message("skipped: only root can make the peers another owner, who waits alone\n");
                skip();
        }
        scene_begin(CONFIG "[source sim]\nlayout = 8M@0x100000000\n");
        holder = hostile();
        waiter = hostile();
        next = hostile();
        held = ask_alloc(holder, ask_device(holder, "holder"), 4 * MIB);
        ask_send(waiter, "coherent.alloc", "{'device':%" PRIu64 ",'size':4194304,'wait_ms':60000}",
                 ask_device(waiter, "waiter"));
        wait_count("waiters", 1);
        id = ask_send(next, "coherent.alloc", "{'device':%" PRIu64 ",'size':4194304,'wait_ms':60000}",
                      ask_device(next, "next"));
        wait_count("waiters", 2);
        test_client_close(waiter);
        wait_count("waiters", 1);
        neighbour_is_served(&scene.neighbour);
        json_decref(ask(holder, "coherent.free", "{'alloc':%" PRIu64 "}", held));
        json_decref(ask_result(next, id));
        test_client_close(holder);
        test_client_close(next);
        scene_end();
}

/* ---- noise ---- */

static void test_noise_is_answered_with_errors_and_nothing_else(void **state) {
        enum { PEERS = 8, LINES = 200 };
        struct test_client *peers[PEERS];
        unsigned seed = 1;

        scene_begin(CONFIG);
        for (int i = 0; i < PEERS; i++)
                peers[i] = hostile();
        for (int line = 0; line < LINES; line++)
                for (int i = 0; i < PEERS; i++) {
                        char bytes[256];
                        size_t n = 1 + (size_t)rand_r(&seed) % (sizeof(bytes) - 2);

                        for (size_t at = 0; at < n; at++) {
                                bytes[at] = (char)(rand_r(&seed) >> 8);
                                /* Neither another line, nor an empty one, which has no answer. */
                                if (bytes[at] == '\n' || at == 0)
                                        bytes[at] = '}';
                        }
                        bytes[n] = '\n';
                        assert_int_equal(test_client_send(peers[i], bytes, n + 1), 0);
                }
        neighbour_is_served(&scene.neighbour);
        for (int i = 0; i < PEERS; i++) {
                for (int line = 0; line < LINES; line++) {
                        json_t *reply = ask_read(peers[i]);

                        assert_true(json_integer_value(json_object_get(json_object_get(reply, "error"), "code")) < 0);
                        json_decref(reply);
                }
                ping(peers[i]);
                test_client_close(peers[i]);
        }
        scene_end();
}

/* ---- more connections than allowed ---- */

/* Connect until refused; returns how many were admitted. The refused one has been told why, and closed. */
static int connect_until_refused(struct test_client **peers, int max, int code, const char *reason) {
        for (int n = 0; n < max; n++) {
                json_t *reply;

                peers[n] = hostile();
                if (test_client_send_text(peers[n], PING) < 0)
                        assert_true(n > 0);
                reply = ask_read(peers[n]);
                if (json_object_get(reply, "result")) {
                        json_decref(reply);
                        continue;
                }
                expect_error(reply, code, reason);
                assert_int_equal(test_client_wait_closed(peers[n]), 0);
                test_client_close(peers[n]);
                return n;
        }
        fail_msg("%d connections, and none was refused", max);
        return 0;
}

static void test_an_owner_has_its_number_of_connections_and_no_more(void **state) {
        enum { LIMIT = 8 };
        struct test_client *peers[LIMIT + 1], *other;
        int own = geteuid() == 0 ? 0 : 2; /* the observer and the neighbour are the same owner then */

        scene_begin(CONFIG "[quota default]\nconnections = 8\n");
        assert_int_equal(connect_until_refused(peers, LIMIT + 1, EDQUOT, "quota"), LIMIT - own);
        neighbour_is_served(&scene.neighbour);
        if (own == 0) {
                other = ask_connect(scene.daemon, NULL);
                ping(other);
                test_client_close(other);
        }
        for (int i = 0; i < LIMIT - own; i++)
                ping(peers[i]);
        test_client_close(peers[0]);
        wait_count("connections", 1 + LIMIT - own);
        peers[0] = hostile();
        ping(peers[0]);
        for (int i = 0; i < LIMIT - own; i++)
                test_client_close(peers[i]);
        scene_end();
}

static void test_the_daemon_has_its_number_of_connections_and_no_more(void **state) {
        enum { LIMIT = 10 };
        struct test_client *peers[LIMIT + 1];

        scene_begin(CONFIG "[limits]\nconnections = 10\n");
        assert_int_equal(connect_until_refused(peers, LIMIT + 1, E2BIG, "limit"), LIMIT - 2);
        neighbour_is_served(&scene.neighbour);
        test_client_close(peers[0]);
        wait_count("connections", LIMIT - 1);
        peers[0] = hostile();
        ping(peers[0]);
        for (int i = 0; i < LIMIT - 2; i++)
                test_client_close(peers[i]);
        scene_end();
}

#define TEST(name) cmocka_unit_test_teardown(name, scene_abandon)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_a_thousand_connections_at_a_time_are_each_answered),
                TEST(test_half_messages_of_many_peers_hold_up_nobody),
                TEST(test_half_messages_take_no_more_memory_than_their_limit),
                TEST(test_a_message_that_comes_byte_by_byte_is_answered),
                TEST(test_a_message_over_the_limit_is_skipped_to_its_end),
                TEST(test_ten_thousand_notifications_are_not_answered),
                TEST(test_a_batch_over_the_limit_is_refused_and_the_largest_is_served),
                TEST(test_a_batch_whose_answers_grow_too_long_is_cut_short),
                TEST(test_calls_beyond_those_in_flight_are_refused),
                TEST(test_a_peer_that_does_not_read_stalls_only_itself),
                TEST(test_many_peers_that_do_not_read_take_bounded_memory),
                TEST(test_descriptors_that_are_not_read_are_bounded_too),
                TEST(test_a_peer_that_does_not_read_is_cut_off_in_time),
                TEST(test_a_peer_whose_answers_pile_up_is_cut_off_at_the_limit),
                TEST(test_descriptors_that_come_are_closed_and_refused),
                TEST(test_a_daemon_without_descriptors_says_so_and_serves_whom_it_has),
                TEST(test_peers_may_leave_in_the_middle_of_anything),
                TEST(test_a_peer_that_only_stops_sending_still_gets_its_answers),
                TEST(test_a_session_outlives_its_connection_but_what_it_waited_for_does_not),
                TEST(test_memory_is_not_lost_to_a_waiter_that_left),
                TEST(test_noise_is_answered_with_errors_and_nothing_else),
                TEST(test_an_owner_has_its_number_of_connections_and_no_more),
                TEST(test_the_daemon_has_its_number_of_connections_and_no_more),
        };

        return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
