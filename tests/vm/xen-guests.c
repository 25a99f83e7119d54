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

#include "daemon/guest/xen.h"
#include "daemon/source/xen-domain.h"
#include "daemon/source/xen-table.h"
#include "tests/lib/client.h"
#include "tests/lib/daemon.h"
#include "tests/vm/xen-guests.h"
#include "tests/vm/xen-memory.h"

#define MIB (UINT64_C(1) << 20)
#define PVH "2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a02"

enum { PAGE = 4096, OWN_MIB = 4, SOON_MS = 60000, KILLS = 12 };

static struct test_daemon *process;
static struct test_client *client;
static int64_t attach_ms; /* that the last attachment took */

void give_up(const char *what, const char *answer) {
        char *log = process ? test_daemon_log(process) : NULL;

        xen_give_up("%s: %s\n%s", what, answer, log ? log : "");
}

const char *ask(const char *method, const char *format, ...) {
        static char params[10000], request[10200];
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

void expect(const char *what, const char *answer, const char *text) {
        if (!strstr(answer, text))
                give_up(what, answer);
        printf("ok: %s\n", what);
}

pid_t daemon_pid(void) {
        return test_daemon_pid(process);
}

const char *daemon_socket(void) {
        return test_daemon_socket(process);
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
                 "[daemon]\nkeep = 10min\n[source xen]\nreserve = 32M\nlimit = 256M\nidle_ms = 200\n"
                 "[guests]\nunplug_timeout = 1s\n"
                 "[guest pv]\nhypervisor = xen\nuuid = 2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a01\nwindow = %dM\n"
                 "[guest pvh]\nhypervisor = xen\nuuid = " PVH "\n"
                 "[guest fresh]\nhypervisor = xen\nuuid = 2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a03\n",
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

struct seen look(const struct xen_guest *guest) {
        const char *item = find_item(guest), *at;
        struct seen seen = { .is_there = item };
        char key[40];

        if (!item)
                return seen;
        seen.window = number_after(item, "\"window\":");
        seen.size = number_after(item, "\"size\":");
        seen.mapped = number_after(item, "\"mapped\":");
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

struct seen await_window(const struct xen_guest *guest, const char *state, const char *what) {
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

void await_state(const struct xen_guest *guest, const char *state, const char *what) {
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

/* What the grant tables say of a window. */
static void check_listed(const struct xen_guest *guest, const struct seen *seen, const char *state, bool is_mapped) {
        const uint64_t pages = seen->size / PAGE;
        char wanted[160];
        const char *answer = ask("grant.list", "{\"guest\":\"%s\",\"after\":%" PRIu64 ",\"limit\":1}", guest->name,
                                 seen->window - 1);

        snprintf(wanted, sizeof(wanted), "\"guest\":\"%s\",\"domain\":%u,\"kind\":\"window\",\"region\":%" PRIu64
                 ",\"direction\":\"bidirectional\",\"pages\":%" PRIu64, guest->name, guest->domid, seen->window, pages);
        expect("a window is in the list of grants", answer, wanted);
        snprintf(wanted, sizeof(wanted), "\"state\":\"%s\",\"in_use\":%" PRIu64 ",", state, is_mapped ? pages : 0);
        expect("as is what is mapped of it", answer, wanted);
        if (!strstr(answer, "\"refs\":[{") != (strcmp(state, "revoking") == 0))
                give_up("what can be mapped has references", answer);
}

/* ---- what a guest does ---- */

void tell(struct xen_guest *guest, const char *answer, const char *what, const char *format, ...) {
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
        if (look(guest).mapped != seen->size)
                give_up("all of it is told to be mapped", guest->name);
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

struct seen attach(struct xen_guest *guest, unsigned mib) {
        const int64_t began = xen_now_ms();
        struct seen seen;

        expect("a guest is given a window",
               ask("guest.attach", "{\"guest\":\"%s\",\"size\":%" PRIu64 "}", guest->name, mib * MIB), "\"window\":");
        seen = await_window(guest, "plugged", "it has it");
        attach_ms = xen_now_ms() - began;
        return seen;
}

/* ---- what befalls them ---- */

static uint32_t count_entries(struct xen_host *host, const struct xen_listed *listed) {
        /* Their UUIDs say what they are, and how large their tables may become. */
        const struct xen_domain domain = { .domid = listed->domid, .grant_frames = listed->uuid[12] * 256u + listed->uuid[13] };
        struct xen_table table = { .n = domain.grant_frames * XEN_ENTRIES_PER_FRAME };
        uint32_t n;
        void *handle;

        if (memcmp(listed->uuid, "dmab", 4) != 0 || xen_domain_map_table(host, &domain, &table.entries, &handle) < 0)
                return 0;
        n = xen_table_count(&table);
        xen_domain_unmap_table(host, handle);
        return n;
}

/* What memory domains have granted, or somebody has mapped: entries of theirs that are not free. */
static uint64_t granted_pages(void) {
        struct xen_listed *listed = NULL;
        struct xen_host *host = NULL;
        uint64_t sum = 0;
        size_t n = 0;

        if (xen_host_open(&host, NULL, NULL) < 0 || xen_host_list(host, &listed, &n) < 0)
                give_up("Xen lists its domains", "it does not");
        for (size_t i = 0; i < n; i++)
                sum += count_entries(host, &listed[i]);
        free(listed);
        xen_host_close(host);
        return sum;
}

static uint64_t window_pages(void) {
        uint64_t sum = 0;

        for (const char *item = ask("window.list", "{}"); (item = strstr(item, "{\"window\":")); item++)
                sum += number_after(item, "\"size\":") / PAGE;
        return sum;
}

/* Also that of what was granted each page is in a window, and is told of. */
void check_books(void) {
        const uint64_t granted = granted_pages(), told = window_pages();

        if (granted != told)
                xen_give_up("%" PRIu64 " pages are granted, and windows have %" PRIu64, granted, told);
        printf("%" PRIu64 " entries are in use, as many as windows have pages\n", granted);
        expect("the books are right", ask("debug.check", "{}"), "\"problems\":[]");
}

void restart(void) {
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
        now = await_window(pv, "plugged", "after a kill a guest has its window");
        check_same(&now, &of_pv);
        now = await_window(pvh, "plugged", "and so has the other");
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
        now = await_window(pv, "plugged", "without a keeper a guest has its window");
        check_same(&now, &of_pv);
        now = await_window(pvh, "plugged", "and the other as well");
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
                now = await_window(pv, "plugged", "a guest that has booted anew has a window of its own");
        while (now.window == before.window);
        /* By the same entries it would have what it has now. */
        if (strcmp(before.runs, now.runs) != 0)
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
        now = await_window(guest, "leaving", "the next daemon waits for it, too");
        check_listed(guest, &now, "revoking", true);
        if (now.addr != before.addr)
                give_up("it is the same", now.runs);
        tell(guest, "ok", "the guest has it still", "fill 0");
        tell(guest, "ok", "the guest unmaps it", "unmap 0");
        await_window(guest, "", "then it is the host's again");
        check_not_mapped(guest, &before, "it cannot be mapped any more");
        check_books();
}

/* What has room in it is not what may be had of it. */
static void test_quota(struct xen_guest *guest) {
        char owner[60];

        snprintf(owner, sizeof(owner), "xen:%s", guest->uuid);
        ask("quota.set", "{\"owner\":\"%s\",\"limits\":{\"grants\":1000}}", owner);
        expect("a guest is granted no more pages than its quota",
               ask("guest.attach", "{\"guest\":\"%s\",\"size\":8388608}", guest->name), "\"reason\":\"quota\"");
        expect("that is told in pages", ask("quota.get", "{\"owner\":\"%s\"}", owner), "\"grants\":1000");
        ask("quota.set", "{\"owner\":\"%s\",\"unlimited\":[\"grants\"]}", owner);
}

static void test_detach(struct xen_guest *guest) {
        struct seen seen;

        expect("a guest is given a window of low memory",
               ask("guest.attach", "{\"guest\":\"%s\",\"size\":8388608,\"mask\":\"0x1fffffff\"}", guest->name), "\"window\":");
        seen = await_window(guest, "plugged", "it has it");
        xen_check(seen.addr + seen.size <= 512 * MIB, "it is below 512 MiB");

        map(guest, &seen);
        tell(guest, "ok", "the guest unmaps it", "unmap 0");
        expect("what is not mapped comes back at once",
               ask("guest.detach", "{\"window\":%" PRIu64 "}", seen.window), "\"ok\":true");
        if (look(guest).is_there)
                give_up("it is gone", look(guest).state);
}

/* Whatever the daemon was about to do, the next one has no window or a whole one, and nothing else is granted. */
static void test_kills(struct xen_guest *guest) {
        static const char wish[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guest.attach\",\"params\":"
                                     "{\"guest\":\"pvh\",\"size\":8388608}}\n";
        unsigned n_had = 0, n_taken = 0;
        struct seen seen;
        char request[160];

        seen = attach(guest, 8);
        for (unsigned i = 0; i < KILLS; i++) {
                seen = look(guest);
                n_taken += seen.is_there;
                snprintf(request, sizeof(request), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guest.detach\",\"params\":"
                         "{\"window\":%" PRIu64 "}}\n", seen.window);
                test_client_send_text(client, seen.is_there ? request : wish);
                /* Each third one comes too late to spoil it. */
                if (i % 3 == 2)
                        test_client_read_line(client, &(const char *){ NULL });
                else
                        poll(NULL, 0, (int)(2 * attach_ms * i / KILLS));
                restart();
                await_state(guest, "running", "after a kill a guest is known");
                seen = look(guest);
                if (seen.is_there && strcmp(seen.state, "plugged") != 0)
                        seen = await_window(guest, "", "what was to leave has left");
                n_had += seen.is_there;
                if (seen.is_there) {
                        map(guest, &seen);
                        tell(guest, "ok", "the guest unmaps it", "unmap 0");
                }
                check_books();
        }
        printf("%d kills within %lld ms while a window came or went: %u times it was to go, %u times the guest had it "
               "afterwards\n", KILLS, (long long)(2 * attach_ms), n_taken, n_had);
        seen = look(guest);
        if (seen.is_there)
                expect("it is taken back", ask("guest.detach", "{\"window\":%" PRIu64 "}", seen.window), "\"ok\":true");
}

static bool are_only_guests(void *userdata) {
        return xen_count_domains() == 3;
}

static void check_unnamed(const struct xen_guest *guest) {
        char path[80], *value;
        unsigned n;

        snprintf(path, sizeof(path), "/local/domain/%u/dmabroker/vchan/ring-ref", guest->domid);
        value = xs_read(xen_store, XBT_NULL, path, &n);
        xen_check(!value, "xenstore tells a guest of no channel any more");
        free(value);
}

/* For good, not for another one. Both guests have windows mapped. */
static void test_end(struct xen_guest *pv, struct xen_guest *pvh) {
        struct seen seen = attach(pvh, 8);

        map(pvh, &seen);
        test_client_close(client);
        client = NULL;
        xen_check(test_daemon_end(process) == 0, "a daemon ends while guests have windows mapped");
        process = NULL;
        xen_check(!are_only_guests(NULL), "the memory domain stays as long as they have");
        check_unnamed(pv);
        check_unnamed(pvh);
        tell(pv, "ok", "a guest goes on with its window", "fill 0");
        tell(pvh, "ok", "and so does the other", "fill 0");
        tell(pv, "ok", "it unmaps it", "unmap 0");
        tell(pvh, "ok", "and so does the other", "unmap 0");
        xen_await("then it is Xen's again", are_only_guests, NULL);
        begin();
        seen = await_window(pv, "plugged", "the next daemon gives a guest that runs its own window");
        map(pv, &seen);
        check_zero(pv, &seen);
        check_books();
}

static void say_in_xenstore(const char *words) {
        static const char path[] = XEN_POLICIES "/" PVH;

        if (!(*words ? xs_write(xen_store, XBT_NULL, path, words, (unsigned)strlen(words)) : xs_rm(xen_store, XBT_NULL, path)))
                xen_give_up("xenstore does not take %s", path);
}

/* What dom0 says in xenstore is as if it were in the configuration. */
static void test_policy(struct xen_guest *guest) {
        const int64_t began = xen_now_ms();
        const char *answer;
        struct seen seen;

        say_in_xenstore("window=2M allocs=77");
        seen = await_window(guest, "plugged", "a guest gets the window that xenstore names");
        xen_check(seen.size == 2 * MIB, "it is as large as that");
        expect("and has the limits", ask("quota.get", "{\"owner\":\"xen:" PVH "\"}"), "\"allocs\":77");
        say_in_xenstore("window=2M allocs=78");
        while (!strstr(answer = ask("quota.get", "{\"owner\":\"xen:" PVH "\"}"), "\"allocs\":78")) {
                if (xen_now_ms() - began > SOON_MS)
                        give_up("they change as soon as xenstore says so", answer);
                poll(NULL, 0, 5);
        }
        xen_check(look(guest).window == seen.window, "what it has it does not get again");
        say_in_xenstore("");
        expect("it is taken back", ask("guest.detach", "{\"window\":%" PRIu64 "}", seen.window), "\"ok\":true");
        check_books();
}

static void test_pause(struct xen_guest *guest) {
        if (xc_domain_pause(xen_xc, guest->domid) < 0)
                xen_give_up("%s cannot be paused", guest->name);
        await_state(guest, "paused", "a guest that is paused is known to be");
        xc_domain_unpause(xen_xc, guest->domid);
        await_state(guest, "running", "and to run again");
}

static void test_destroy(struct xen_guest *guest) {
        const struct seen seen = attach(guest, 16);
        int64_t began;

        map(guest, &seen);
        tell(guest, "ok", "it writes to it", "fill 0");
        xen_test_grants_begin_end(guest);
        began = xen_now_ms();
        if (xc_domain_destroy(xen_xc, guest->domid) < 0)
                xen_give_up("%s cannot be destroyed", guest->name);
        await_window(guest, "", "what a destroyed guest had mapped is the host's again");
        printf("%lld ms after its end began\n", (long long)(xen_now_ms() - began));
        await_state(guest, "off", "and it is known not to run");
        xen_test_grants_end(guest);
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
        if (await_window(guest, "leaving", "what it had is not used as long as there is the domain").mapped != seen.size)
                give_up("all of it is told to be mapped", guest->name);
        restart();
        if (strcmp(look(guest).state, "leaving") != 0 || look(guest).addr != seen.addr)
                give_up("nor by the next daemon", look(guest).state);
        xen_kill("xenconsoled");
        if (xc_domain_destroy(xen_xc, guest->domid) < 0)
                xen_give_up("%s cannot be destroyed", guest->name);
        await_window(guest, "", "then it is the host's again");
        xen_forget(guest);
        check_books();
}

void xen_test_guests(struct xen_guest *pv, struct xen_guest *pvh) {
        struct seen seen;

        begin();
        await_state(pvh, "running", "a guest that runs already is known");
        await_state(pv, "off", "and so is one that does not run");
        expect("who does not run gets nothing", ask("guest.attach", "{\"guest\":\"pv\",\"size\":4194304}"), "source_unavailable");
        seen = attach(pvh, 16);
        check_listed(pvh, &seen, "granted", false);
        map(pvh, &seen);
        check_listed(pvh, &seen, "granted", true);
        check_zero(pvh, &seen);
        xen_start(pv);
        seen = await_window(pv, "plugged", "a guest gets its own window when it starts");
        map(pv, &seen);
        check_zero(pv, &seen);
        xen_check(seen.is_bound_there, "a paravirtualised guest sees it by the machine's addresses");
        check_not_mapped(pvh, &seen, "a guest cannot map another one's window");
        test_kill(pv, pvh);
        test_kill_without_a_keeper(pv, pvh);
        test_never_unmaps(pvh);
        test_quota(pvh);
        test_detach(pvh);
        xen_test_library(pv, pvh);
        seen = attach(pv, OWN_MIB);
        map(pv, &seen);
        check_zero(pv, &seen);
        test_policy(pvh);
        xen_test_grants(pv, pvh);
        xen_test_exchange(pv, pvh);
        test_pause(pvh);
        test_kills(pvh);
        xen_test_storm(pvh, pv);
        test_end(pv, pvh);
        test_reboot(pv);
        test_destroy(pvh);
        test_without_xenstore(pv);
        test_client_close(client);
        xen_check(test_daemon_end(process) == 0, "the daemon ends well");
        process = NULL;
}
