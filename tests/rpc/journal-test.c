/* What the daemon writes into the journal: the test takes the journal's place in a mount namespace of its own. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "tests/rpc/ask.h"

#define SOCKET "/run/systemd/journal/socket"
#define CONFIG "[daemon]\nlog_target = journal\naccess = everyone\n"

static int journal;

static struct {
        struct test_daemon *daemon;
        struct test_client *client;
} scene;

static bool take_the_journals_place(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0 || mkdir("/run/systemd", 0755) < 0 ||
            mkdir("/run/systemd/journal", 0755) < 0)
                return false;
        journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        return journal >= 0 && bind(journal, (const struct sockaddr *)&address, sizeof(address)) == 0;
}

/* The next entry, as "\nFIELD=value\n…". */
static bool next_entry(char *text, size_t size) {
        struct pollfd polled = { .fd = journal, .events = POLLIN };
        ssize_t n;

        if (poll(&polled, 1, test_timeout_ms()) <= 0)
                return false;
        n = recv(journal, text + 1, size - 2, 0);
        text[0] = '\n';
        text[n > 0 ? n + 1 : 1] = '\0';
        return n > 0;
}

static bool has(const char *entry, const char *name, const char *value) {
        char wanted[300];

        snprintf(wanted, sizeof(wanted), "\n%s=%s\n", name, value);
        return strstr(entry, wanted);
}

/* Wait for the entry that has this field; entry is where it is kept. */
static void await(char entry[4096], const char *name, const char *value) {
        do
                if (!next_entry(entry, 4096))
                        fail_msg("no entry with %s=%s comes", name, value);
        while (!has(entry, name, value));
        assert_true(has(entry, "SYSLOG_IDENTIFIER", "dmabrokerd"));
        assert_non_null(strstr(entry, "\nMESSAGE="));
        assert_non_null(strstr(entry, "\nPRIORITY="));
}

static void begin(const char *more) {
        char config[512];

        snprintf(config, sizeof(config), CONFIG "%s", more);
        scene.daemon = ask_daemon(config);
        scene.client = ask_connect(scene.daemon, NULL);
}

static int tear_down(void **state) {
        char rest[4096];
        int r = 0;

        test_client_close(scene.client);
        if (scene.daemon)
                r = test_daemon_end(scene.daemon);
        while (recv(journal, rest, sizeof(rest), MSG_DONTWAIT) > 0)
                continue;
        memset(&scene, 0, sizeof(scene));
        return r;
}

static void reload(const char *config) {
        FILE *file = fopen(test_daemon_config(scene.daemon), "we");

        assert_non_null(file);
        fputs(config, file);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(test_daemon_signal(scene.daemon, SIGHUP), 0);
}

/* ---- the tests ---- */

static void test_beginning_and_end_are_told_with_their_numbers(void **state) {
        char entry[4096], *log;

        begin("");
        await(entry, "MESSAGE_ID", LOG_ID_SERVES);
        assert_true(has(entry, "DMABROKER_SOURCE", "sim"));
        await(entry, "MESSAGE_ID", LOG_ID_READY);
        assert_true(has(entry, "MESSAGE", "ready") && has(entry, "PRIORITY", "6"));
        test_client_close(scene.client);
        scene.client = NULL;
        assert_int_equal(test_daemon_stop(scene.daemon), 0);
        await(entry, "MESSAGE_ID", LOG_ID_ENDING);
        /* It is told once, and there. */
        log = test_daemon_log(scene.daemon);
        assert_null(strstr(log, "ready"));
        free(log);
}

static void test_a_configuration_is_told_with_its_errors(void **state) {
        char entry[4096];

        begin("");
        reload(CONFIG "keep = 0\n"); /* as test_daemon_start() has it */
        await(entry, "MESSAGE_ID", LOG_ID_RELOADED);
        assert_true(has(entry, "PRIORITY", "6"));
        reload("[daemon]\ncolour = red\n");
        await(entry, "CONFIG_LINE", "2");
        assert_true(has(entry, "CONFIG_FILE", test_daemon_config(scene.daemon)));
        assert_true(has(entry, "PRIORITY", "3"));
        await(entry, "MESSAGE_ID", LOG_ID_NOT_RELOADED);
}

static void test_what_an_administrator_does_to_others_is_told(void **state) {
        struct test_client *other;
        char entry[4096], pid[24];
        uint64_t alloc;

        begin("");
        other = ask_connect_as(scene.daemon, 12345);
        alloc = ask_alloc(other, ask_device(other, "card"), 4096);
        json_decref(ask(scene.client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        await(entry, "MESSAGE_ID", LOG_ID_ADMIN);
        assert_true(has(entry, "DMABROKER_METHOD", "coherent.free"));
        assert_true(has(entry, "DMABROKER_OWNER", "user:12345"));
        assert_true(has(entry, "DMABROKER_ADMIN", "user:0"));
        snprintf(pid, sizeof(pid), "%ld", (long)getpid());
        assert_true(has(entry, "OBJECT_PID", pid));
        test_client_close(other);
}

static void test_who_is_cut_off_is_told(void **state) {
        static const char ping[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.ping\"}\n";
        struct pollfd polled = { .fd = journal, .events = POLLIN };
        struct test_client *peer;
        char entry[4096];
        size_t sent = 1;

        begin("[limits]\nstall = 100ms\n");
        await(entry, "MESSAGE_ID", LOG_ID_READY);
        peer = ask_connect(scene.daemon, NULL);
        while (poll(&polled, 1, 0) == 0)
                test_client_send_some(peer, ping, sizeof(ping) - 1, &sent);
        await(entry, "MESSAGE_ID", LOG_ID_CUT_OFF);
        assert_true(has(entry, "DMABROKER_OWNER", "user:0") && has(entry, "PRIORITY", "4"));
        test_client_close(peer);
}

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_beginning_and_end_are_told_with_their_numbers),
                TEST(test_a_configuration_is_told_with_its_errors),
                TEST(test_what_an_administrator_does_to_others_is_told),
                TEST(test_who_is_cut_off_is_told),
        };

#ifndef HAVE_SYSTEMD
        puts("skipped: this build knows no journal");
        return 77;
#endif
        if (geteuid() != 0 || !take_the_journals_place()) {
                puts("skipped: only root can take the journal's place, and not everywhere");
                return 77;
        }
        return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
