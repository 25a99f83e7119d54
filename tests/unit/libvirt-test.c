/* A connection to libvirt: its own test driver, which is within the process, and servers that misbehave. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/libvirt-shared.h"
#include "daemon/guest/libvirt.h"

#define TEST_URI "test:///default"
#define TEST_UUID "6695eb01-f6a4-8304-79aa-97f2502e193f" /* of the guest "test" that the driver has */
#define NO_UUID "00000000-0000-0000-0000-000000000001"

struct host {
        uv_loop_t loop;
        struct libvirt *libvirt;
        bool closed;
        char log[4096]; /* what came, a line each */
        unsigned run; /* of the guest that was told of last */
        unsigned n_done, n_cancelled;
        int status;
        char text[4096];
        bool close_when_listed;
};

/* ---- what is told ---- */

static void on_closed(void *userdata) {
        struct host *host = userdata;

        assert_false(host->closed);
        host->closed = true;
}

static void __attribute__((format(printf, 2, 3))) note(struct host *host, const char *format, ...) {
        size_t length = strlen(host->log);
        va_list arguments;

        assert_false(host->closed);
        va_start(arguments, format);
        vsnprintf(host->log + length, sizeof(host->log) - length, format, arguments);
        va_end(arguments);
}

static void on_connected(void *userdata) {
        note(userdata, "connected\n");
}

static void on_lost(void *userdata, const char *why) {
        note(userdata, "lost: %s\n", why);
}

static void on_seen(void *userdata, const struct libvirt_guest *guest) {
        struct host *host = userdata;

        host->run = guest->run;
        assert_int_equal(strlen(guest->uuid), 36);
        note(userdata, "seen %s%s%s%s\n", guest->name, guest->paused ? " paused" : "", guest->metadata ? " " : "",
             guest->metadata ? guest->metadata : "");
}

static void on_listed(void *userdata) {
        struct host *host = userdata;

        note(userdata, "listed\n");
        if (host->close_when_listed)
                libvirt_close(host->libvirt, on_closed);
}

static void on_started(void *userdata, const struct libvirt_guest *guest) {
        struct host *host = userdata;

        host->run = guest->run;
        assert_null(guest->metadata);
        note(userdata, "started %s\n", guest->name);
}

static void on_stopped(void *userdata, const char *uuid, enum libvirt_stop reason) {
        assert_int_equal(strlen(uuid), 36);
        note(userdata, "stopped %s\n", libvirt_stop_names[reason]);
}

static void on_rebooted(void *userdata, const char *uuid) {
        assert_string_equal(uuid, TEST_UUID);
        note(userdata, "rebooted\n");
}

static void on_suspended(void *userdata, const char *uuid) {
        note(userdata, "suspended\n");
}

static void on_resumed(void *userdata, const char *uuid) {
        note(userdata, "resumed\n");
}

static void on_metadata(void *userdata, const char *uuid, const char *metadata) {
        note(userdata, "metadata %s\n", metadata ? metadata : "none");
}

static const struct libvirt_listener listener = {
        .connected = on_connected,
        .lost = on_lost,
        .guest_seen = on_seen,
        .listed = on_listed,
        .guest_started = on_started,
        .guest_stopped = on_stopped,
        .guest_rebooted = on_rebooted,
        .guest_suspended = on_suspended,
        .guest_resumed = on_resumed,
        .metadata_changed = on_metadata,
};

static void on_done(void *userdata, int status, const char *text) {
        struct host *host = userdata;

        assert_false(host->closed);
        host->n_done++;
        host->n_cancelled += status == -ECANCELED;
        host->status = status;
        snprintf(host->text, sizeof(host->text), "%s", text ? text : "");
        if (status < 0)
                assert_true(*host->text);
}

/* ---- hosts ---- */

static void begin_with(struct host *host, const struct libvirt_options *options) {
        *host = (struct host){ .status = 1 };
        assert_int_equal(uv_loop_init(&host->loop), 0);
        assert_null(libvirt_unavailable());
        assert_int_equal(libvirt_new(&host->loop, options, &listener, host, &host->libvirt), 0);
}

/* Until the log has this. */
static void wait_for(struct host *host, const char *what) {
        while (!strstr(host->log, what))
                uv_run(&host->loop, UV_RUN_ONCE);
}

static void forget(struct host *host) {
        host->log[0] = '\0';
}

static void begin(struct host *host) {
        begin_with(host, &(struct libvirt_options){ .uri = TEST_URI, .retry_ms = 1 });
        wait_for(host, "listed");
}

static void finish(struct host *host) {
        uv_run(&host->loop, UV_RUN_DEFAULT);
        assert_true(host->closed);
        assert_int_equal(uv_loop_close(&host->loop), 0);
}

static void end(struct host *host) {
        libvirt_close(host->libvirt, on_closed);
        finish(host);
}

/* The answer of a request that was submitted with this result. */
static int answer(struct host *host, int submitted) {
        unsigned n = host->n_done;

        assert_int_equal(submitted, 0);
        assert_int_equal(host->n_done, n);
        while (host->n_done == n)
                uv_run(&host->loop, UV_RUN_ONCE);
        assert_int_equal(host->n_done, n + 1);
        return host->status;
}

/* Another user of libvirt in this process: the driver's guests are the same for all, and gone with the last one. */
static virConnectPtr other;
static virDomainPtr guest;

static int open_other(void **state) {
        assert_null(libvirt_unavailable());
        other = virConnectOpen(TEST_URI);
        guest = other ? virDomainLookupByName(other, "test") : NULL;
        return guest ? 0 : -1;
}

static int close_other(void **state) {
        virDomainFree(guest);
        virConnectClose(other);
        return 0;
}

/* The connection is found to be no good, as it would be by libvirt. */
static void lose(struct host *host, const char *why) {
        pthread_mutex_lock(&host->libvirt->mutex);
        libvirt_worker_break_locked(host->libvirt, why);
        pthread_mutex_unlock(&host->libvirt->mutex);
}

static unsigned count_entries(const char *path) {
        DIR *directory = opendir(path);
        unsigned n = 0;

        assert_non_null(directory);
        while (readdir(directory))
                n++;
        closedir(directory);
        return n;
}

/* ---- guests ---- */

static void test_what_runs_is_seen_after_connecting(void **state) {
        struct host host;

        begin(&host);
        assert_string_equal(host.log, "connected\nseen test\nlisted\n");
        forget(&host);
        assert_int_equal(answer(&host, libvirt_list(host.libvirt, on_done, &host)), 0);
        assert_string_equal(host.log, "seen test\nlisted\n");
        end(&host);
}

static void test_a_guests_life_is_told_in_order(void **state) {
        struct host host;

        begin(&host);
        forget(&host);
        assert_int_equal(virDomainSuspend(guest), 0);
        assert_int_equal(virDomainResume(guest), 0);
        wait_for(&host, "resumed");
        assert_int_equal(virDomainDestroy(guest), 0);
        assert_int_equal(virDomainCreate(guest), 0);
        wait_for(&host, "started");
        assert_string_equal(host.log, "suspended\nresumed\nstopped destroyed\nstarted test\n");
        end(&host);
}

static void test_each_run_has_a_number_of_its_own(void **state) {
        struct host host;
        unsigned first, second;

        begin(&host);
        first = host.run;
        assert_int_not_equal(first, 0);
        assert_int_equal(virDomainDestroy(guest), 0);
        assert_int_equal(virDomainCreate(guest), 0);
        wait_for(&host, "started");
        second = host.run;
        assert_int_not_equal(second, 0);
        assert_int_not_equal(second, first);
        forget(&host);
        assert_int_equal(answer(&host, libvirt_list(host.libvirt, on_done, &host)), 0);
        assert_int_equal(host.run, second);
        end(&host);
}

static void test_a_paused_guest_is_seen_so_and_one_that_is_off_is_not(void **state) {
        struct host host;

        assert_int_equal(virDomainSuspend(guest), 0);
        begin(&host);
        assert_string_equal(host.log, "connected\nseen test paused\nlisted\n");
        end(&host);
        assert_int_equal(virDomainDestroy(guest), 0);
        begin(&host);
        assert_string_equal(host.log, "connected\nlisted\n");
        end(&host);
        assert_int_equal(virDomainCreate(guest), 0);
}

static void test_metadata_is_set_told_and_removed(void **state) {
        struct host host;

        begin(&host);
        forget(&host);
        assert_int_equal(answer(&host, libvirt_get_metadata(host.libvirt, TEST_UUID, on_done, &host)), -ENODATA);
        assert_int_equal(answer(&host, libvirt_set_metadata(host.libvirt, TEST_UUID, "<guest quota='64M'/>", true, on_done,
                                                            &host)), 0);
        wait_for(&host, "metadata <guest quota=\"64M\"/>\n");
        assert_int_equal(answer(&host, libvirt_get_metadata(host.libvirt, TEST_UUID, on_done, &host)), 0);
        assert_string_equal(host.text, "<guest quota=\"64M\"/>");
        assert_int_equal(answer(&host, libvirt_get_xml(host.libvirt, TEST_UUID, on_done, &host)), 0);
        assert_non_null(strstr(host.text, "<dmab:guest xmlns:dmab=\"https://dmabroker.org/xmlns/domain/1.0\" quota=\"64M\"/>"));
        forget(&host);
        assert_int_equal(answer(&host, libvirt_list(host.libvirt, on_done, &host)), 0);
        assert_string_equal(host.log, "seen test <guest quota=\"64M\"/>\nlisted\n");

        /* What others keep is nothing to us. */
        assert_int_equal(virDomainSetMetadata(guest, VIR_DOMAIN_METADATA_ELEMENT, "<a/>", "x", "http://x/", 0), 0);
        assert_int_equal(answer(&host, libvirt_set_metadata(host.libvirt, TEST_UUID, NULL, true, on_done, &host)), 0);
        wait_for(&host, "metadata ");
        assert_string_equal(host.log, "seen test <guest quota=\"64M\"/>\nlisted\nmetadata none\n");
        assert_int_equal(answer(&host, libvirt_get_metadata(host.libvirt, TEST_UUID, on_done, &host)), -ENODATA);
        end(&host);
}

static void test_what_fails_says_why(void **state) {
        struct host host;

        begin(&host);
        assert_int_equal(libvirt_get_xml(host.libvirt, "", on_done, &host), -EINVAL);
        assert_int_equal(libvirt_get_xml(host.libvirt, NO_UUID "0", on_done, &host), -EINVAL);
        assert_int_equal(answer(&host, libvirt_get_xml(host.libvirt, NO_UUID, on_done, &host)), -ENOENT);
        assert_non_null(strstr(host.text, "Domain not found"));
        assert_int_equal(answer(&host, libvirt_get_xml(host.libvirt, "x0000000-0000-0000-0000-000000000001", on_done, &host)),
                         -EINVAL);
        /* The driver has no such thing. */
        assert_int_equal(answer(&host, libvirt_attach(host.libvirt, TEST_UUID, "<shmem name='a'/>", true, on_done, &host)),
                         -EOPNOTSUPP);
        assert_int_equal(answer(&host, libvirt_detach(host.libvirt, TEST_UUID, "<shmem name='a'/>", false, on_done, &host)),
                         -EOPNOTSUPP);
        assert_int_equal(answer(&host, libvirt_detach_alias(host.libvirt, TEST_UUID, "ua-a", false, on_done, &host)),
                         -EOPNOTSUPP);
        assert_int_equal(answer(&host, libvirt_set_metadata(host.libvirt, TEST_UUID, "<a", false, on_done, &host)), -EINVAL);
        assert_int_equal(libvirt_get_xml(host.libvirt, NO_UUID, NULL, NULL), 0);
        assert_int_equal(answer(&host, libvirt_list(host.libvirt, on_done, &host)), 0);
        assert_int_equal(virDomainDestroy(guest), 0);
        assert_int_equal(answer(&host, libvirt_set_metadata(host.libvirt, TEST_UUID, "<a/>", false, on_done, &host)), -ESRCH);
        assert_int_equal(virDomainCreate(guest), 0);
        end(&host);
}

/* When the thread holds none for itself. */
static void hold(struct host *host) {
        assert_int_equal(answer(host, libvirt_get_xml(host->libvirt, TEST_UUID, on_done, host)), 0);
        forget(host);
        libvirt_hold(host->libvirt);
}

static unsigned count_held(struct host *host) {
        unsigned n = 0;

        pthread_mutex_lock(&host->libvirt->mutex);
        for (struct note *note = host->libvirt->held.head; note; note = note->next)
                n++;
        pthread_mutex_unlock(&host->libvirt->mutex);
        return n;
}

static void test_events_wait_until_all_guests_were_seen(void **state) {
        struct host host;

        begin(&host);
        hold(&host);
        assert_int_equal(virDomainSuspend(guest), 0);
        assert_int_equal(virDomainResume(guest), 0);
        while (count_held(&host) < 2)
                poll(NULL, 0, 1);
        assert_int_equal(answer(&host, libvirt_list(host.libvirt, on_done, &host)), 0);
        wait_for(&host, "resumed");
        assert_string_equal(host.log, "seen test\nlisted\nsuspended\nresumed\n");
        end(&host);
}

static void test_the_end_of_an_earlier_run_is_not_taken_for_this_ones(void **state) {
        struct host host;

        begin(&host);
        hold(&host);
        assert_int_equal(virDomainDestroy(guest), 0);
        assert_int_equal(virDomainCreate(guest), 0);
        assert_int_equal(virDomainSuspend(guest), 0);
        while (count_held(&host) < 3)
                poll(NULL, 0, 1);
        assert_int_equal(answer(&host, libvirt_list(host.libvirt, on_done, &host)), 0);
        wait_for(&host, "suspended");
        assert_string_equal(host.log, "seen test paused\nlisted\nsuspended\n");

        /* But this one's end is. */
        hold(&host);
        assert_int_equal(virDomainDestroy(guest), 0);
        assert_int_equal(virDomainCreate(guest), 0);
        assert_int_equal(virDomainDestroy(guest), 0);
        while (count_held(&host) < 3)
                poll(NULL, 0, 1);
        assert_int_equal(answer(&host, libvirt_list(host.libvirt, on_done, &host)), 0);
        wait_for(&host, "started test\nstopped destroyed\n");
        assert_string_equal(host.log, "listed\nstopped destroyed\nstarted test\nstopped destroyed\n");
        assert_int_equal(virDomainCreate(guest), 0);
        end(&host);
}

static void test_connections_are_each_told(void **state) {
        struct host hosts[3];

        for (size_t i = 0; i < 3; i++)
                begin(&hosts[i]);
        assert_int_equal(virDomainSuspend(guest), 0);
        assert_int_equal(virDomainResume(guest), 0);
        end(&hosts[1]);
        wait_for(&hosts[0], "resumed");
        wait_for(&hosts[2], "resumed");
        end(&hosts[0]);
        end(&hosts[2]);
}

/* ---- losses ---- */

static void test_what_was_asked_of_a_lost_connection_ends(void **state) {
        struct host host;

        begin(&host);
        forget(&host);
        pthread_mutex_lock(&host.libvirt->mutex);
        libvirt_worker_break_locked(host.libvirt, "it was cut");
        libvirt_worker_break_locked(host.libvirt, "which is all that counts");
        pthread_mutex_unlock(&host.libvirt->mutex);
        /* It may be lost already. */
        if (libvirt_get_xml(host.libvirt, TEST_UUID, on_done, &host) == 0) {
                while (host.n_done == 0)
                        uv_run(&host.loop, UV_RUN_ONCE);
                assert_int_equal(host.status, -ECONNRESET);
                assert_string_equal(host.text, "it was cut");
        }
        wait_for(&host, "listed");
        assert_string_equal(host.log, "lost: it was cut\nconnected\nseen test\nlisted\n");
        end(&host);
}

static void test_nothing_is_left_of_connections_that_were_lost(void **state) {
        struct host host;
        unsigned n_fds;

        begin(&host);
        n_fds = count_entries("/proc/self/fd");
        for (unsigned i = 0; i < 20; i++) {
                forget(&host);
                lose(&host, "again");
                wait_for(&host, "listed");
        }
        assert_int_equal(count_entries("/proc/self/fd"), n_fds);
        /* And it tells once, not twenty times. */
        forget(&host);
        assert_int_equal(virDomainSuspend(guest), 0);
        assert_int_equal(virDomainResume(guest), 0);
        wait_for(&host, "resumed");
        assert_string_equal(host.log, "suspended\nresumed\n");
        end(&host);
}

static void test_who_dies_meanwhile_is_missing_afterwards(void **state) {
        struct host host;

        begin(&host);
        forget(&host);
        host.libvirt->options.retry_ms = 200;
        lose(&host, "away");
        wait_for(&host, "lost");
        assert_int_equal(libvirt_list(host.libvirt, on_done, &host), -ENOTCONN);
        assert_int_equal(virDomainDestroy(guest), 0);
        wait_for(&host, "listed");
        assert_string_equal(host.log, "lost: away\nconnected\nlisted\n");
        assert_int_equal(virDomainCreate(guest), 0);
        end(&host);
}

/* ---- servers ---- */

struct server {
        char path[64], uri[128];
        int fd;
};

static void serve(struct server *server) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char directory[] = "/tmp/libvirt-test-XXXXXX";

        assert_non_null(mkdtemp(directory));
        snprintf(server->path, sizeof(server->path), "%s/sock", directory);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", server->path);
        snprintf(server->uri, sizeof(server->uri), "qemu+unix:///system?socket=%s", server->path);
        server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(server->fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(server->fd, 8), 0);
}

static void server_end(struct server *server) {
        close(server->fd);
        unlink(server->path);
        *strrchr(server->path, '/') = '\0';
        rmdir(server->path);
}

static void test_a_server_that_is_not_there_is_told_of_once(void **state) {
        struct host host;
        const char *lost;

        begin_with(&host, &(struct libvirt_options){ .uri = "qemu+unix:///system?socket=/nonexistent/sock", .retry_ms = 1,
                                                     .retry_max_ms = 2 });
        wait_for(&host, "lost: ");
        assert_int_equal(libvirt_list(host.libvirt, on_done, &host), -ENOTCONN);
        for (unsigned i = 0; i < 20; i++) {
                uv_run(&host.loop, UV_RUN_NOWAIT);
                poll(NULL, 0, 2);
        }
        lost = strstr(host.log, "lost: ");
        assert_ptr_equal(lost, host.log);
        assert_null(strstr(lost + 1, "lost: "));
        assert_null(strstr(host.log, "connected\n"));
        end(&host);
}

static void test_a_server_that_hangs_up_is_tried_again(void **state) {
        struct server server;
        struct host host;

        serve(&server);
        begin_with(&host, &(struct libvirt_options){ .uri = server.uri, .retry_ms = 1 });
        for (unsigned i = 0; i < 3; i++)
                close(accept(server.fd, NULL, NULL));
        wait_for(&host, "lost: ");
        server_end(&server);
        end(&host);
}

/* The thread hangs until the server hangs up, long after nobody waits for it any more. */
static void test_a_server_that_says_nothing_does_not_hold_the_end_up(void **state) {
        unsigned n_threads;
        struct server server;
        struct host host;
        uint64_t start;
        int fd;

        serve(&server);
        n_threads = count_entries("/proc/self/task");
        begin_with(&host, &(struct libvirt_options){ .uri = server.uri, .close_patience_ms = 100 });
        fd = accept(server.fd, NULL, NULL);
        assert_true(fd >= 0);
        start = uv_hrtime();
        end(&host);
        assert_true(uv_hrtime() - start < UINT64_C(10000000000));
        assert_string_equal(host.log, "");
        assert_int_equal(count_entries("/proc/self/task"), n_threads + 2);
        /* Others live while it hangs. */
        begin(&host);
        end(&host);
        close(fd);
        server_end(&server);
        while (count_entries("/proc/self/task") > n_threads)
                poll(NULL, 0, 1);
}

/* ---- the end ---- */

static void test_what_is_outstanding_at_the_end_ends_once(void **state) {
        struct host host;

        begin(&host);
        for (unsigned i = 0; i < 100; i++)
                assert_int_equal(libvirt_get_xml(host.libvirt, TEST_UUID, on_done, &host), 0);
        libvirt_close(host.libvirt, on_closed);
        assert_int_equal(libvirt_get_xml(host.libvirt, TEST_UUID, on_done, &host), -ENOTCONN);
        assert_int_equal(host.n_done, 0);
        finish(&host);
        assert_int_equal(host.n_done, 100);
}

static void test_too_many_requests_are_refused(void **state) {
        struct host host;

        begin(&host);
        for (unsigned i = 0; i < LIBVIRT_REQUESTS_MAX; i++)
                assert_int_equal(libvirt_get_xml(host.libvirt, TEST_UUID, on_done, &host), 0);
        assert_int_equal(libvirt_get_xml(host.libvirt, TEST_UUID, on_done, &host), -EAGAIN);
        while (host.n_done < LIBVIRT_REQUESTS_MAX)
                uv_run(&host.loop, UV_RUN_ONCE);
        assert_int_equal(host.n_cancelled, 0);
        assert_int_equal(answer(&host, libvirt_get_xml(host.libvirt, TEST_UUID, on_done, &host)), 0);
        end(&host);
}

static void test_it_may_be_closed_from_a_callback_and_at_once(void **state) {
        struct host host;

        begin_with(&host, &(struct libvirt_options){ .uri = TEST_URI });
        host.close_when_listed = true;
        finish(&host);
        assert_string_equal(host.log, "connected\nseen test\nlisted\n");
        for (unsigned i = 0; i < 20; i++) {
                begin_with(&host, &(struct libvirt_options){ .uri = TEST_URI });
                end(&host);
        }
        libvirt_close(NULL, NULL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_runs_is_seen_after_connecting),
                cmocka_unit_test(test_a_guests_life_is_told_in_order),
                cmocka_unit_test(test_each_run_has_a_number_of_its_own),
                cmocka_unit_test(test_a_paused_guest_is_seen_so_and_one_that_is_off_is_not),
                cmocka_unit_test(test_metadata_is_set_told_and_removed),
                cmocka_unit_test(test_what_fails_says_why),
                cmocka_unit_test(test_events_wait_until_all_guests_were_seen),
                cmocka_unit_test(test_the_end_of_an_earlier_run_is_not_taken_for_this_ones),
                cmocka_unit_test(test_connections_are_each_told),
                cmocka_unit_test(test_what_was_asked_of_a_lost_connection_ends),
                cmocka_unit_test(test_nothing_is_left_of_connections_that_were_lost),
                cmocka_unit_test(test_who_dies_meanwhile_is_missing_afterwards),
                cmocka_unit_test(test_a_server_that_is_not_there_is_told_of_once),
                cmocka_unit_test(test_a_server_that_hangs_up_is_tried_again),
                cmocka_unit_test(test_a_server_that_says_nothing_does_not_hold_the_end_up),
                cmocka_unit_test(test_what_is_outstanding_at_the_end_ends_once),
                cmocka_unit_test(test_too_many_requests_are_refused),
                cmocka_unit_test(test_it_may_be_closed_from_a_callback_and_at_once),
        };

        alarm(120);
        return cmocka_run_group_tests(tests, open_other, close_other);
}
