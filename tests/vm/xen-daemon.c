/* A real daemon in dom0 whose memory is Xen's: it has what its configuration demands from the start, of which no process
 * of dom0 can have any; it is killed, and the next one has the same; and in the end Xen has everything again. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/client.h"
#include "tests/lib/daemon.h"
#include "tests/vm/xen-memory.h"

#define REQUEST(method, params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\",\"params\":" params "}"

static struct test_daemon *process;
static struct test_client *client;
static uint64_t before; /* free pages */

static void __attribute__((noreturn)) give_up(const char *what, const char *answer) {
        char *log = process ? test_daemon_log(process) : NULL;

        xen_give_up("%s: %s\n%s", what, answer, log ? log : "");
}

static const char *ask(const char *request) {
        static const char *answer; /* the client's, until the next one */
        int r = test_client_ask(client, request, &answer);

        if (r < 0)
                give_up(request, strerror(-r));
        return answer;
}

/* Every one of these texts is in the answer; ends with NULL. */
static void expect(const char *what, const char *request, ...) {
        const char *answer = ask(request), *text;
        va_list texts;

        va_start(texts, request);
        while ((text = va_arg(texts, const char *)))
                if (!strstr(answer, text))
                        give_up(text, answer);
        va_end(texts);
        printf("ok: %s\n", what);
}

static void meet(void) {
        test_client_close(client);
        if (test_client_connect(test_daemon_socket(process), NULL, &client) < 0)
                give_up("dmabrokerd", "does not accept");
        expect("the daemon serves memory of Xen's", REQUEST("broker.status", "{}"), "\"name\":\"xen\"", "memory of Xen 4.",
               "for its guests", "\"state\":\"ready\"", "\"total\":67108864", "\"low_total\":67108864",
               "\"grain\":2097152", NULL);
        ask(REQUEST("broker.hello", "{}"));
}

static void test_requests_of_dom0(void) {
        expect("a driver of dom0's finds no memory, for only guests can map it", REQUEST("device.open", "{\"name\":\"card\"}"),
               "\"reason\":\"mask\"", "what only guests can map", NULL);
        expect("nor can any of it be promised", REQUEST("quota.set", "{\"owner\":\"user:1000\",\"guaranteed\":{\"bytes\":4096}}"),
               "\"reason\":\"no_memory\"", NULL);
        expect("and nothing is wrong with the books", REQUEST("debug.check", "{}"), "\"result\"", "\"problems\":[]", NULL);
}

static bool has_all_memory(void *userdata) {
        return xen_free_pages() + XEN_FIRST_COSTS >= before;
}

static void check_all_back(const char *what) {
        xen_await(what, has_all_memory, NULL);
        xen_check(xen_count_domains() == 1, "there is no domain for memory any more");
}

void xen_test_daemon(void) {
        static const char config[] = "[source xen]\nreserve = 64M\nlow = 32M\nlimit = 256M\nidle_ms = 200\n";
        const struct test_daemon_options options = { .source = "xen", .config = config, .survives = true };
        uint64_t taken;

        setenv("TOP_BUILDDIR", "/bin", 1);
        setenv("TEST_TIMEOUT_MS", "60000", 1);
        before = xen_free_pages();
        if (test_daemon_start(&options, &process) < 0)
                xen_give_up("dmabrokerd does not start");
        meet();
        taken = before - xen_free_pages();
        xen_check(taken >= 16384 && taken < 16384 + 512, "it takes the memory that it has, and little more");
        printf("of %llu pages it takes %llu\n", (unsigned long long)before, (unsigned long long)taken);
        test_requests_of_dom0();

        for (int i = 0; i < 3; i++) {
                if (test_daemon_restart(process, SIGKILL) < 0)
                        give_up("dmabrokerd", "does not start after a kill");
                meet();
                xen_check(before - xen_free_pages() == taken, "the next one has the same memory, and no more");
        }
        test_daemon_kill(process);
        xen_check(xen_count_domains() == 2, "without a daemon the memory stays in its domain");
        test_daemon_set_source(process, "sim");
        if (test_daemon_start_again(process) < 0)
                give_up("dmabrokerd", "does not start with another source");
        check_all_back("a daemon that serves other memory gives back what was left");
        test_daemon_stop(process);
        test_daemon_set_source(process, "xen");
        if (test_daemon_start_again(process) < 0)
                give_up("dmabrokerd", "does not start anew");
        meet();
        test_client_close(client);
        client = NULL;
        xen_check(test_daemon_end(process) == 0, "the daemon ends well");
        check_all_back("a daemon that ends leaves nothing");
        process = NULL;
}
