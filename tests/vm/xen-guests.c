/* A real daemon in dom0, and guests of both kinds that have windows of its memory: they map what window.list says, while the
 * daemon is killed and begins anew; they boot anew, crash, are destroyed and never unmap, and nothing of it is used for anything
 * else before Xen says that nobody has it; and that without xenstore's daemon as well. */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/client.h"
#include "tests/lib/daemon.h"
#include "tests/vm/xen-memory.h"

#define MIB (UINT64_C(1) << 20)

enum { PAGE = 4096, OWN_MIB = 4, SOON_MS = 20000 };

static struct test_daemon *process;
static struct test_client *client;

/* One of a guest's windows, as the daemon tells. */
struct seen {
        bool is_there;
        uint64_t window, size, addr; /* of the machine's memory */
        char cookie[40], state[16];
        bool is_bound_there; /* the guest sees it at that address */
        char runs[900];      /* for the guest */
};

static void __attribute__((noreturn)) give_up(const char *what, const char *answer) {
        char *log = process ? test_daemon_log(process) : NULL;

        xen_give_up("%s: %s\n%s", what, answer, log ? log : "");
}

/* The answer is the client's until the next one. */
static const char *ask(const char *method, const char *format, ...) __attribute__((format(printf, 2, 3)));
static const char *ask(const char *method, const char *format, ...) {
        char params[256], request[400];
        const char *answer;
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(params, sizeof(params), format, arguments);
        va_end(arguments);
        snprintf(request, sizeof(request), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}", method, params);
        if (test_client_ask(client, request, &answer) < 0)
                give_up(request, "no answer");
        return answer;
}

static void expect(const char *what, const char *answer, const char *text) {
        if (!strstr(answer, text))
                give_up(what, answer);
        printf("ok: %s\n", what);
}

static void meet(void) {
        test_client_close(client);
        if (test_client_connect(test_daemon_socket(process), NULL, &client) < 0)
                give_up("dmabrokerd", "does not accept");
        ask("broker.hello", "{}");
}

static void begin(void) {
        static char config[700];
        const struct test_daemon_options options = { .source = "xen", .config = config, .survives = true };

        snprintf(config, sizeof(config),
                 "[source xen]\nreserve = 32M\nlimit = 256M\nidle_ms = 200\n[guests]\nunplug_timeout = 1s\n"
                 "[guest pv]\nhypervisor = xen\nuuid = 2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a01\nwindow = %dM\n"
                 "[guest pvh]\nhypervisor = xen\nuuid = 2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a02\n",
                 OWN_MIB);
        if (test_daemon_start(&options, &process) < 0)
                xen_give_up("dmabrokerd does not start with guests");
        meet();
}

/* ---- what the daemon tells ---- */

static uint64_t number_after(const char *text, const char *key) {
        const char *at = strstr(text, key);

        return at ? strtoull(at + strlen(key) + (at[strlen(key)] == '"'), NULL, 0) : 0;
}

static void word_after(const char *text, const char *key, char *ret, size_t size) {
        const char *at = strstr(text, key);

        snprintf(ret, size, "%.*s", at ? (int)strcspn(at + strlen(key), "\"") : 0, at ? at + strlen(key) : "");
}

static void read_runs(const char *item, struct seen *seen) {
        size_t used = 0;

        for (const char *at = item; (at = strstr(at, "\"domain\":")) && used + 40 < sizeof(seen->runs); at++)
                used += (size_t)snprintf(seen->runs + used, sizeof(seen->runs) - used, " %" PRIu64 ":%" PRIu64 "+%" PRIu64,
                                         number_after(at, "\"domain\":"), number_after(at, "\"first\":"),
                                         number_after(at, "\"count\":"));
}

/* Of all windows the first one of the guest's; what it has left is not told of as its own. */
static const char *find_item(const struct xen_guest *guest) {
        const char *item = ask("window.list", "{}");
        char name[32], *end;

        snprintf(name, sizeof(name), "\"guest\":\"%s\"", guest->name);
        while ((item = strstr(item, "{\"window\":"))) {
                end = strstr(item + 1, "{\"window\":");
                if (end)
                        end[-1] = '\0';
                if (strstr(item, name))
                        return item;
                if (!end)
                        return NULL;
                item = end;
        }
        return NULL;
}

static struct seen look(const struct xen_guest *guest) {
        const char *item = find_item(guest), *at;
        struct seen seen = { .is_there = item };
        char key[40];

        if (!item)
                return seen;
        seen.window = number_after(item, "\"window\":");
        seen.size = number_after(item, "\"size\":");
        word_after(item, "\"cookie\":\"", seen.cookie, sizeof(seen.cookie));
        word_after(item, "\"state\":\"", seen.state, sizeof(seen.state));
        seen.addr = number_after(item, "\"guest_addr\":");
        seen.is_bound_there = seen.addr;
        read_runs(item, &seen);
        snprintf(key, sizeof(key), "{\"region\":%" PRIu64 ",", seen.window);
        at = strstr(ask("region.list", "{}"), key);
        if (!at)
                return (struct seen){ 0 }; /* it has ended between the two */
        seen.is_bound_there &= seen.addr == number_after(at, "\"machine_addr\":");
        seen.addr = number_after(at, "\"machine_addr\":");
        return seen;
}

static struct seen await(const struct xen_guest *guest, const char *state, const char *what) {
        const int64_t began = xen_now_ms();
        struct seen seen;

        do {
                seen = look(guest);
                if (strcmp(seen.is_there ? seen.state : "", state) == 0) {
                        printf("ok: %s (%lld ms)\n", what, (long long)(xen_now_ms() - began));
                        return seen;
                }
                poll(NULL, 0, 5);
        } while (xen_now_ms() - began < SOON_MS);
        give_up(what, seen.is_there ? seen.state : "there is no window");
}

static void await_state(const struct xen_guest *guest, const char *state, const char *what) {
        const int64_t began = xen_now_ms();
        const char *answer;
        char wanted[40];

        snprintf(wanted, sizeof(wanted), "\"state\":\"%s\"", state);
        while (!strstr(answer = ask("guest.get", "{\"guest\":\"%s\"}", guest->name), wanted)) {
                if (xen_now_ms() - began > SOON_MS)
                        give_up(what, answer);
                poll(NULL, 0, 5);
        }
        printf("ok: %s (%lld ms)\n", what, (long long)(xen_now_ms() - began));
        if (!strstr(answer, "\"via\":\"xen\""))
                give_up("it is followed by Xen's word", answer);
}

/* ---- what a guest does ---- */

static void tell(struct xen_guest *guest, const char *answer, const char *what, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
static void tell(struct xen_guest *guest, const char *answer, const char *what, const char *format, ...) {
        char line[1024];
        const char *got;
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        got = xen_tell(guest, line);
        if (strcmp(got, answer) != 0)
                give_up(what, got);
        printf("ok: %s\n", what);
}

static void map(struct xen_guest *guest, const struct seen *seen) {
        char answer[32];

        snprintf(answer, sizeof(answer), "ok %" PRIu64, seen->size / PAGE);
        tell(guest, answer, "a guest maps its window", "map 0%s", seen->runs);
        tell(guest, seen->cookie, "it is that which the daemon has marked", "cookie 0");
}

static void check_zero(struct xen_guest *guest, const struct seen *seen) {
        char answer[32];

        snprintf(answer, sizeof(answer), "ok %" PRIu64, seen->size / PAGE - 1);
        tell(guest, answer, "nothing of anybody else's is in it", "zero 0");
}

/* Once more, in another place. */
static void check_not_mapped(struct xen_guest *guest, const struct seen *seen, const char *what) {
        tell(guest, "error: Invalid argument", what, "map 1%s", seen->runs);
}

static struct seen attach(struct xen_guest *guest, unsigned mib) {
        expect("a guest is given a window",
               ask("guest.attach", "{\"guest\":\"%s\",\"size\":%" PRIu64 "}", guest->name, mib * MIB), "\"window\":");
        return await(guest, "plugged", "it has it");
}

/* ---- what befalls them ---- */

static void check_books(void) {
        expect("the books are right", ask("debug.check", "{}"), "\"problems\":[]");
}

static void restart(void) {
        if (test_daemon_restart(process, SIGKILL) < 0)
                give_up("dmabrokerd", "does not start after a kill");
        meet();
}

static void check_same(const struct seen *now, const struct seen *before) {
        if (now->window != before->window || now->addr != before->addr || strcmp(now->cookie, before->cookie) != 0 ||
            strcmp(now->runs, before->runs) != 0)
                give_up("it is the same, by the same grants", now->runs);
}

/* Both have theirs mapped. */
static void test_kill(struct xen_guest *pv, struct xen_guest *pvh) {
        const struct seen of_pv = look(pv), of_pvh = look(pvh);
        struct seen now;

        restart();
        now = await(pv, "plugged", "after a kill a guest has its window");
        check_same(&now, &of_pv);
        now = await(pvh, "plugged", "and so has the other");
        check_same(&now, &of_pvh);
        tell(pv, "ok", "a guest unmaps it", "unmap 0");
        map(pv, &of_pv);
        check_books();
}

/* Beside the daemon whoever keeps what it would lose with it: Xen's memory needs nobody. */
static void test_kill_without_a_keeper(struct xen_guest *pv, struct xen_guest *pvh) {
        const struct seen of_pv = look(pv), of_pvh = look(pvh);
        const pid_t keeper = test_daemon_find_keeper(process);
        struct seen now;

        xen_check(keeper != 0, "somebody keeps things for the next daemon");
        test_daemon_kill(process);
        kill(keeper, SIGKILL);
        if (test_daemon_start_again(process) < 0)
                give_up("dmabrokerd", "does not start without a keeper");
        meet();
        now = await(pv, "plugged", "without a keeper a guest has its window");
        check_same(&now, &of_pv);
        now = await(pvh, "plugged", "and the other as well");
        check_same(&now, &of_pvh);
        check_books();
}

/* While no daemon runs. Whatever the guest had as the domain that it was is nobody's. */
static void test_reboot(struct xen_guest *pv) {
        const struct seen before = look(pv);
        struct seen now;

        tell(pv, "ok", "a guest writes to its window", "fill 0");
        test_daemon_kill(process);
        xen_say(pv, "reboot");
        xen_await_reboot(pv);
        if (test_daemon_start_again(process) < 0)
                give_up("dmabrokerd", "does not start again");
        meet();
        do
                now = await(pv, "plugged", "a guest that has booted anew has a window of its own");
        while (now.window == before.window);
        check_not_mapped(pv, &before, "what it had before cannot be mapped any more");
        map(pv, &now);
        check_zero(pv, &now);
        check_books();
}

/* It does not unmap it, and then it does. As long as it has not, Xen lets it have it in more places, whatever the entry says. */
static void test_never_unmaps(struct xen_guest *guest) {
        const struct seen before = look(guest);
        struct seen now;

        expect("whoever wants a window back that the guest has mapped is told that it has not come back",
               ask("guest.detach", "{\"window\":%" PRIu64 "}", before.window), "\"reason\":\"timeout\"");
        restart();
        now = await(guest, "leaving", "the next daemon waits for it, too");
        if (now.addr != before.addr)
                give_up("it is the same", now.runs);
        tell(guest, "ok", "the guest has it still", "fill 0");
        tell(guest, "ok", "the guest unmaps it", "unmap 0");
        await(guest, "", "then it is the host's again");
        check_not_mapped(guest, &before, "it cannot be mapped any more");
        check_books();
}

static void test_detach(struct xen_guest *guest) {
        struct seen seen;

        expect("a guest is given a window of low memory",
               ask("guest.attach", "{\"guest\":\"%s\",\"size\":8388608,\"mask\":\"0x1fffffff\"}", guest->name), "\"window\":");
        seen = await(guest, "plugged", "it has it");
        xen_check(seen.addr + seen.size <= 512 * MIB, "it is below 512 MiB");

        map(guest, &seen);
        tell(guest, "ok", "the guest unmaps it", "unmap 0");
        expect("what is not mapped comes back at once",
               ask("guest.detach", "{\"window\":%" PRIu64 "}", seen.window), "\"ok\":true");
        if (look(guest).is_there)
                give_up("it is gone", look(guest).state);
}

static void test_destroy(struct xen_guest *guest) {
        const struct seen seen = attach(guest, 16);
        int64_t began;

        map(guest, &seen);
        tell(guest, "ok", "it writes to it", "fill 0");
        began = xen_now_ms();
        if (xc_domain_destroy(xen_xc, guest->domid) < 0)
                xen_give_up("%s cannot be destroyed", guest->name);
        await(guest, "", "what a destroyed guest had mapped is the host's again");
        printf("%lld ms after its end began\n", (long long)(xen_now_ms() - began));
        await_state(guest, "off", "and it is known not to run");
        xen_forget(guest);
        check_books();
}

/* Nobody ends the domain that has crashed, since nobody hears of it. */
static void test_without_xenstore(struct xen_guest *guest) {
        const struct seen seen = look(guest);

        tell(guest, "ok", "it writes to its window", "fill 0");
        xen_kill("xenstored");
        expect("the daemon goes on without xenstore",
               ask("guest.get", "{\"guest\":\"%s\"}", guest->name), "\"state\":\"running\"");
        xen_say(guest, "crash");
        await_state(guest, "off", "that a guest crashes is known without xenstore");
        await(guest, "leaving", "what it had is not used as long as there is the domain");
        restart();
        if (strcmp(look(guest).state, "leaving") != 0 || look(guest).addr != seen.addr)
                give_up("nor by the next daemon", look(guest).state);
        xen_kill("xenconsoled");
        if (xc_domain_destroy(xen_xc, guest->domid) < 0)
                xen_give_up("%s cannot be destroyed", guest->name);
        await(guest, "", "then it is the host's again");
        xen_forget(guest);
        check_books();
}

void xen_test_guests(struct xen_guest *pv, struct xen_guest *pvh) {
        struct seen seen;

        begin();
        await_state(pvh, "running", "a guest that runs already is known");
        await_state(pv, "off", "and so is one that does not run");
        expect("who does not run gets nothing", ask("guest.attach", "{\"guest\":\"pv\",\"size\":4194304}"), "source_unavailable");
        seen = attach(pvh, 8);
        map(pvh, &seen);
        check_zero(pvh, &seen);
        xen_start(pv);
        seen = await(pv, "plugged", "a guest gets its own window when it starts");
        map(pv, &seen);
        check_zero(pv, &seen);
        xen_check(seen.is_bound_there, "a paravirtualised guest sees it by the machine's addresses");
        check_not_mapped(pvh, &seen, "a guest cannot map another one's window");
        test_kill(pv, pvh);
        test_kill_without_a_keeper(pv, pvh);
        test_never_unmaps(pvh);
        test_detach(pvh);
        test_reboot(pv);
        test_destroy(pvh);
        test_without_xenstore(pv);
        test_client_close(client);
        xen_check(test_daemon_end(process) == 0, "the daemon ends well");
        process = NULL;
}
