/* The metrics of a real daemon, asked over HTTP: what the page says, who else may ask what, and that nobody who asks
 * harms those whom the daemon is there for. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

enum { MIB = 1 << 20, IDLE = 1000 };

static struct {
        struct test_daemon *daemon;
        struct test_client *client;
        char directory[32], path[64]; /* of the metrics' socket */
} scene;

/* ---- asking ---- */

static struct test_client *reach(void) {
        struct test_client *http;

        assert_int_equal(test_client_connect(scene.path, NULL, &http), 0);
        return http;
}

/* Everything until the daemon hangs up, which it does after every answer. The caller's; free(). */
static char *read_all(struct test_client *http) {
        char *text = NULL;
        const char *line;
        size_t length;
        FILE *file = open_memstream(&text, &length);
        int r;

        assert_non_null(file);
        while ((r = test_client_read_line(http, &line)) == 0)
                fprintf(file, "%s\n", line);
        assert_true(r == -ENODATA || r == -ECONNRESET);
        assert_int_equal(fclose(file), 0);
        return text;
}

static char *request(const char *text) {
        struct test_client *http = reach();
        char *answer;

        assert_int_equal(test_client_send_text(http, text), 0);
        answer = read_all(http);
        test_client_close(http);
        return answer;
}

static char *scrape(void) {
        char *page = request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");

        assert_memory_equal(page, "HTTP/1.1 200 OK\r\n", 17);
        return page;
}

static void expect_status(const char *text, const char *status, const char *more) {
        char *answer = request(text);

        if (strncmp(answer, "HTTP/1.1 ", 9) != 0 || strncmp(answer + 9, status, strlen(status)) != 0 || !strstr(answer, more))
                fail_msg("%.60s: wanted %s and \"%s\", got: %s", text, status, more, answer);
        free(answer);
}

/* The value behind this name with its labels. */
static bool find(const char *page, const char *sample, double *ret) {
        size_t length = strlen(sample);

        for (const char *line = page; line; line = strchr(line, '\n')) {
                line += *line == '\n';
                if (strncmp(line, sample, length) != 0 || line[length] != ' ')
                        continue;
                *ret = strtod(line + length, NULL);
                return true;
        }
        return false;
}

static double value(const char *page, const char *sample) {
        double number = 0;

        if (!find(page, sample, &number))
                fail_msg("there is no %s in: %s", sample, page);
        return number;
}

static double scrape_value(const char *sample) {
        char *page = scrape();
        double number = value(page, sample);

        free(page);
        return number;
}

static const char *own(const char *name) {
        static char sample[128];

        snprintf(sample, sizeof(sample), "%s{owner=\"user:%u\"}", name, (unsigned)geteuid());
        return sample;
}

static void ping(void) {
        json_decref(ask(scene.client, "broker.ping", "{}"));
}

/* ---- the scene ---- */

static void begin(const char *listen_at, const char *more) {
        char config[512];

        snprintf(config, sizeof(config), "[metrics]\nlisten = %s%s\n%s", listen_at ? listen_at : "unix:",
                 listen_at ? "" : scene.path, more);
        scene.daemon = ask_daemon(config);
        scene.client = ask_connect(scene.daemon, NULL);
}

static int set_up(void **state) {
        strcpy(scene.directory, "/tmp/dmab-http-XXXXXX");
        assert_non_null(mkdtemp(scene.directory));
        snprintf(scene.path, sizeof(scene.path), "%s/sock", scene.directory);
        return 0;
}

static int tear_down(void **state) {
        int r = 0;

        test_client_close(scene.client);
        if (scene.daemon)
                r = test_daemon_end(scene.daemon);
        if (*scene.directory && rmdir(scene.directory) < 0)
                r = -1; /* the daemon has left its socket */
        memset(&scene, 0, sizeof(scene));
        return r;
}

/* ---- the page ---- */

static void test_numbers_move_with_allocations(void **state) {
        uint64_t device, alloc;
        double allocs, used;
        char *page;

        begin(NULL, "");
        device = ask_device(scene.client, "card");
        page = scrape();
        allocs = value(page, "dmabroker_allocs_total");
        used = value(page, "dmabroker_source_used_bytes{source=\"sim\"}");
        assert_true(value(page, "dmabroker_objects{kind=\"allocs\"}") == 0);
        free(page);
        alloc = ask_alloc(scene.client, device, MIB);
        page = scrape();
        assert_true(value(page, "dmabroker_allocs_total") == allocs + 1);
        assert_true(value(page, "dmabroker_source_used_bytes{source=\"sim\"}") == used + MIB);
        assert_true(value(page, "dmabroker_objects{kind=\"allocs\"}") == 1);
        assert_true(value(page, own("dmabroker_owner_bytes")) == MIB);
        assert_true(value(page, own("dmabroker_owner_allocs")) == 1);
        assert_true(value(page, "dmabroker_rpc_duration_seconds_count{method=\"coherent.alloc\"}") == 1);
        free(page);
        json_decref(ask(scene.client, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        assert_true(scrape_value("dmabroker_frees_total") >= 1);
        assert_true(scrape_value(own("dmabroker_owner_bytes")) == 0);
}

static void test_every_counter_of_memory_is_on_the_page(void **state) {
        json_t *stats, *counter;
        char sample[96], *page;
        double number;
        size_t i;

        begin(NULL, "");
        stats = ask(scene.client, "stats.get", "{'group':'memory'}");
        page = scrape();
        json_array_foreach(json_object_get(json_array_get(json_object_get(stats, "groups"), 0), "counters"), i, counter) {
                const char *name = json_string_value(json_object_get(counter, "name"));

                if (strchr(name, '.'))
                        continue;
                snprintf(sample, sizeof(sample), "dmabroker_%s", name);
                if (find(page, sample, &number))
                        continue;
                snprintf(sample, sizeof(sample), "dmabroker_%s_total", name);
                value(page, sample);
        }
        assert_true(i > 5);
        assert_null(strstr(page, "A counter of stats.get."));
        free(page);
        json_decref(stats);
}

static void test_a_histogram_grows_up_to_its_count(void **state) {
        static const char prefix[] = "dmabroker_rpc_duration_seconds_bucket{method=\"broker.ping\"";
        double last = 0, count;
        int buckets = 0;
        char *page;

        begin(NULL, "");
        for (int i = 0; i < 20; i++)
                ping();
        page = scrape();
        for (const char *line = strstr(page, prefix); line; line = strstr(line + 1, prefix)) {
                double now = strtod(strchr(line, ' '), NULL);

                assert_true(now >= last);
                last = now;
                buckets++;
        }
        count = value(page, "dmabroker_rpc_duration_seconds_count{method=\"broker.ping\"}");
        assert_true(count == 20 && last == count && buckets > 10);
        assert_true(value(page, "dmabroker_rpc_duration_seconds_sum{method=\"broker.ping\"}") > 0);
        assert_non_null(strstr(page, "method=\"broker.ping\",le=\"+Inf\"} 20\n"));
        assert_non_null(strstr(page, "method=\"broker.ping\",le=\"0.0025\"}"));
        free(page);
}

static void test_limits_are_told_and_infinite_unless_set(void **state) {
        begin(NULL, "[quota default]\nbytes = 64M\n");
        ask_device(scene.client, "card");
        assert_true(scrape_value(own("dmabroker_owner_limit_bytes")) == 64.0 * MIB);
        assert_true(scrape_value(own("dmabroker_owner_limit_held_bytes")) > 1e300);
}

static void test_guarantees_are_told_also_of_owners_who_are_not_there(void **state) {
        char *page;

        begin(NULL, "[quota user:4711]\nguaranteed = 8M\n");
        page = scrape();
        assert_true(value(page, "dmabroker_owner_guaranteed_bytes{owner=\"user:4711\"}") == 8 * MIB);
        assert_true(value(page, "dmabroker_owner_bytes{owner=\"user:4711\"}") == 0);
        free(page);
}

static void test_owners_beyond_the_limit_are_left_out(void **state) {
        struct test_client *other;
        char *page;

        begin(NULL, "owners = 1\n[daemon]\naccess = everyone\n");
        ask_alloc(scene.client, ask_device(scene.client, "card"), MIB);
        other = ask_connect_as(scene.daemon, 12345);
        ask_device(other, "card");
        page = scrape();
        assert_true(value(page, own("dmabroker_owner_bytes")) == MIB);
        assert_true(value(page, "dmabroker_owners_left_out") == 1);
        assert_null(strstr(page, "user:12345"));
        free(page);
        test_client_close(other);
}

/* ---- the dashboard and the manual ---- */

/* "dmabroker_x" for the samples of a histogram, too. */
static void expect_metric(const char *page, const char *name, size_t length) {
        static const char *const suffixes[] = { "", "_bucket", "_sum", "_count" };
        char wanted[160];

        for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
                size_t suffix = strlen(suffixes[i]);

                if (length <= suffix || strncmp(name + length - suffix, suffixes[i], suffix) != 0)
                        continue;
                snprintf(wanted, sizeof(wanted), "# TYPE %.*s %s", (int)(length - suffix), name, suffix ? "histogram\n" : "");
                if (strstr(page, wanted))
                        return;
        }
#ifndef HAVE_XEN
        if (strncmp(name, "dmabroker_grants_", 17) == 0)
                return;
#endif
        fail_msg("the dashboard names a metric that is not on the page: %.*s", (int)length, name);
}

static int expect_metrics(const char *page, const char *expression) {
        static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";
        int n = 0;

        while (*expression) {
                size_t length = strspn(expression, letters);

                if (length > 10 && (!strncmp(expression, "dmabroker_", 10) || !strncmp(expression, "process_", 8))) {
                        expect_metric(page, expression, length);
                        n++;
                }
                expression += length ? length : 1;
        }
        return n;
}

static int expect_metrics_within(const char *page, const json_t *value) {
        const char *name;
        json_t *member;
        size_t i;
        int n = 0;

        json_array_foreach(value, i, member)
                n += expect_metrics_within(page, member);
        json_object_foreach((json_t *)value, name, member) {
                if (json_is_string(member) && (!strcmp(name, "expr") || !strcmp(name, "query")))
                        n += expect_metrics(page, json_string_value(member));
                n += expect_metrics_within(page, member);
        }
        return n;
}

static void test_every_metric_of_the_dashboard_is_on_the_page(void **state) {
        const char *top = getenv("TOP_SRCDIR");
        json_error_t error;
        json_t *dashboard;
        char path[4096], *page;

        snprintf(path, sizeof(path), "%s/docs/dmabroker-dashboard.json", top ? top : ".");
        dashboard = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
        if (!dashboard)
                fail_msg("%s:%d: %s", path, error.line, error.text);
        begin(NULL, "");
        ping();
        page = scrape();
        assert_true(expect_metrics_within(page, dashboard) > 30);
        free(page);
        json_decref(dashboard);
}

static void test_every_metric_of_the_manual_is_on_the_page(void **state) {
        const char *top = getenv("TOP_SRCDIR");
        char path[4096], line[1024], *page;
        FILE *manual;
        int n = 0;

        snprintf(path, sizeof(path), "%s/docs/dmabrokerd.8", top ? top : ".");
        manual = fopen(path, "re");
        assert_non_null(manual);
        begin(NULL, "");
        ping();
        page = scrape();
        while (fgets(line, sizeof(line), manual))
                n += expect_metrics(page, line);
        assert_true(n >= 9);
        free(page);
        fclose(manual);
}

/* ---- HTTP ---- */

/* Of grant tables, where there may be any; here there is none. */
static void test_a_build_without_xen_knows_nothing_of_grants(void **state) {
        char *page;

        begin(NULL, "");
        page = scrape();
#ifdef HAVE_XEN
        assert_non_null(strstr(page, "# TYPE dmabroker_grants_free gauge\n# HELP"));
#else
        assert_null(strstr(page, "grants"));
#endif
        free(page);
}

static void test_only_metrics_can_be_read_and_nothing_else_done(void **state) {
        begin(NULL, "");
        expect_status("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200", "text/plain; version=0.0.4");
        expect_status("GET /metrics?x=y HTTP/1.0\r\n\r\n", "200", "dmabroker_build_info{version=\"" PACKAGE_VERSION "\"} 1\n");
        expect_status("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200", "Content-Length: ");
        expect_status("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200", "/metrics");
        expect_status("GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", "404", "/metrics");
        expect_status("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "404", "/metrics");
        expect_status("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405", "Allow: GET");
        expect_status("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc", "405", "Allow: GET");
        expect_status("PUT /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "405", "Allow: GET");
        expect_status("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405", "Allow: GET");
        ping();
}

static void test_a_unix_socket_is_not_for_everybody(void **state) {
        struct stat status;

        begin(NULL, "");
        assert_int_equal(stat(scene.path, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0660);
}

/* A port that the system has chosen, as the log says. */
static unsigned port_of(struct test_daemon *daemon, const char *host) {
        char *log = test_daemon_log(daemon), *found;
        unsigned port;

        assert_non_null(log);
        found = strstr(log, host);
        assert_non_null(found);
        port = (unsigned)strtoul(found + strlen(host), NULL, 10);
        free(log);
        return port;
}

static void test_the_network_is_served_too(void **state) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
        static const char text[] = "GET /metrics HTTP/1.0\r\n\r\n";
        char answer[32];
        int fd;

        begin("127.0.0.1:0", "");
        address.sin_port = htons((in_port_t)port_of(scene.daemon, "http://127.0.0.1:"));
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
        assert_int_equal(recv(fd, answer, 15, MSG_WAITALL), 15);
        assert_memory_equal(answer + 8, " 200 OK", 7);
        close(fd);
}

/* ---- starting ---- */

static void expect_log(const char *text) {
        char *log = test_daemon_log(scene.daemon);

        if (!strstr(log, text))
                fail_msg("wanted \"%s\" in the log: %s", text, log);
        free(log);
}

static void test_a_place_that_is_taken_is_told_and_memory_is_served_all_the_same(void **state) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, scene.path);
        assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 1), 0);
        begin(NULL, "");
        ping();
        expect_log("error: no metrics are served: another daemon answers");
        close(fd);
        assert_int_equal(unlink(scene.path), 0);
}

static void test_how_many_owners_are_told_changes_at_once_and_the_place_does_not(void **state) {
        FILE *file;

        begin(NULL, "");
        ask_alloc(scene.client, ask_device(scene.client, "card"), MIB);
        assert_true(scrape_value("dmabroker_owners_left_out") == 0);
        file = fopen(test_daemon_config(scene.daemon), "we");
        assert_non_null(file);
        fputs("[daemon]\nkeep = 0\n[metrics]\nlisten = off\nowners = 0\n", file);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(test_daemon_signal(scene.daemon, SIGHUP), 0);
        assert_int_equal(test_daemon_wait_notify(scene.daemon, "READY=1"), 0);
        assert_true(scrape_value("dmabroker_owners_left_out") == 1);
        expect_log("except for listen in [metrics]");
}

/* ---- who means harm ---- */

static void test_garbage_is_answered_with_an_error_or_hung_up_on(void **state) {
        unsigned seed = 1;

        begin(NULL, "");
        for (int i = 0; i < 200; i++) {
                struct test_client *http = reach();
                char bytes[256];
                size_t n = 1 + (size_t)rand_r(&seed) % (sizeof(bytes) - 4), sent;
                char *answer;

                for (size_t at = 0; at < n; at++)
                        bytes[at] = (char)(rand_r(&seed) >> 8);
                memcpy(bytes + n, "\r\n\r\n", 4);
                assert_int_equal(test_client_send_some(http, bytes, n + 4, &sent), 0);
                assert_int_equal(shutdown(test_client_fd(http), SHUT_WR), 0);
                answer = read_all(http);
                assert_null(strstr(answer, " 200 OK"));
                free(answer);
                test_client_close(http);
                ping();
        }
        free(scrape());
}

static void test_a_very_long_url_is_refused(void **state) {
        enum { LENGTH = 1 << 20 };
        char *text = malloc(LENGTH), *answer;
        struct test_client *http;
        size_t sent;

        begin(NULL, "");
        assert_non_null(text);
        memset(text, 'x', LENGTH);
        memcpy(text, "GET /", 5);
        http = reach();
        /* The daemon may have hung up before all of it has been sent. */
        test_client_send_some(http, text, LENGTH, &sent);
        answer = read_all(http);
        assert_true(!*answer || strstr(answer, "HTTP/1.1 414 ") || strstr(answer, "HTTP/1.1 431 "));
        ping();
        free(answer);
        free(text);
        test_client_close(http);
        free(scrape());
}

static void test_half_requests_hold_up_only_others_like_them_and_not_for_long(void **state) {
        enum { HALVES = 16 }; /* as many as are served at a time */
        struct test_client *halves[HALVES];

        begin(NULL, "");
        for (int i = 0; i < HALVES; i++) {
                halves[i] = reach();
                assert_int_equal(test_client_send_text(halves[i], "GET /metrics HTTP/1.1\r\nHo"), 0);
        }
        for (int i = 0; i < 100; i++)
                ping();
        /* Their time is over before that of the test. */
        free(scrape());
        for (int i = 0; i < HALVES; i++) {
                assert_int_equal(test_client_wait_closed(halves[i]), 0);
                test_client_close(halves[i]);
        }
}

/* The clock of the daemon's processor time; a daemon that spins would use all of it. */
static double cpu_seconds(void) {
        char path[64], text[1024], *end;
        unsigned long user = 0, system = 0;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/stat", (int)test_daemon_pid(scene.daemon));
        file = fopen(path, "re");
        assert_non_null(file);
        assert_non_null(fgets(text, sizeof(text), file));
        fclose(file);
        end = strrchr(text, ')');
        assert_non_null(end);
        assert_int_equal(sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
        return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* So many that not even the backlog takes them all: those that do not fit are not waited for. */
static int connect_idle(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        assert_true(fd >= 0);
        strcpy(address.sun_path, scene.path);
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                assert_int_equal(errno, EAGAIN);
        return fd;
}

static void test_a_thousand_idle_connections_cost_others_nothing(void **state) {
        uint64_t start, device;
        double before;
        int fds[IDLE];

        begin(NULL, "[memory]\nemergency_permille = 0\n[source sim]\nlayout = 4M@0x100000000\n");
        device = ask_device(scene.client, "card");
        ask_alloc(scene.client, device, 4 * MIB);
        for (int i = 0; i < IDLE; i++)
                fds[i] = connect_idle();
        ping();
        before = cpu_seconds();
        start = ask_now_ms();
        /* A second of waiting in the daemon, in which it has nothing to do. */
        ask_refused(scene.client, "timeout", "coherent.alloc", "{'device':%" PRIu64 ",'size':4194304,'wait_ms':1000}", device);
        assert_true(ask_now_ms() - start < 5000);
        assert_true(cpu_seconds() - before < 0.5);
        for (int i = 0; i < IDLE; i++)
                close(fds[i]);
        free(scrape());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_numbers_move_with_allocations),
                TEST(test_every_counter_of_memory_is_on_the_page),
                TEST(test_a_histogram_grows_up_to_its_count),
                TEST(test_limits_are_told_and_infinite_unless_set),
                TEST(test_guarantees_are_told_also_of_owners_who_are_not_there),
                TEST(test_owners_beyond_the_limit_are_left_out),
                TEST(test_every_metric_of_the_dashboard_is_on_the_page),
                TEST(test_every_metric_of_the_manual_is_on_the_page),
                TEST(test_a_build_without_xen_knows_nothing_of_grants),
                TEST(test_only_metrics_can_be_read_and_nothing_else_done),
                TEST(test_a_unix_socket_is_not_for_everybody),
                TEST(test_the_network_is_served_too),
                TEST(test_a_place_that_is_taken_is_told_and_memory_is_served_all_the_same),
                TEST(test_how_many_owners_are_told_changes_at_once_and_the_place_does_not),
                TEST(test_garbage_is_answered_with_an_error_or_hung_up_on),
                TEST(test_a_very_long_url_is_refused),
                TEST(test_half_requests_hold_up_only_others_like_them_and_not_for_long),
                TEST(test_a_thousand_idle_connections_cost_others_nothing),
        };

#ifndef HAVE_MICROHTTPD
        puts("skipped: this build serves no metrics");
        return 77;
#endif
        return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
