/* What guests and services in dom0 share beside windows: pages of the guest's own, which dom0 maps, and pages of dom0's, which
 * the guest maps. The service is this test, by way of the library. The daemon is killed in between, the service as well, and then
 * the guest. */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/dmabroker.h"
#include "tests/vm/xen-guests.h"

enum { PAGE = 4096, MANY = 4100, FEW = 16, SHARED = 16, SOON_MS = 60000 };

static dmab_t *dmab;

static void need(int r, const char *what) {
        if (r)
                give_up(what, dmab_last_error());
        printf("ok: %s\n", what);
}

static void refused(int r, const char *reason, const char *what) {
        if (!r || !dmab_last_reason() || strcmp(dmab_last_reason(), reason) != 0)
                give_up(what, r ? dmab_last_error() : "it is not refused");
        printf("ok: %s: %s\n", what, dmab_last_error());
}

static void meet_service(void) {
        char uri[128];

        snprintf(uri, sizeof(uri), "unix:%s", daemon_socket());
        need(dmab_connect(uri, &dmab), "a service in dom0 connects");
}

/* ---- the list ---- */

struct looked {
        uint64_t grant;
        bool is_there;
        char state[16], guest[32];
        uint32_t domain;
        uint64_t pages, in_use;
        size_t n_runs;
};

static int find(const struct dmab_grant_info *info, void *userdata) {
        struct looked *looked = userdata;

        if (info->grant != looked->grant)
                return 0;
        looked->is_there = true;
        snprintf(looked->state, sizeof(looked->state), "%s", info->state);
        snprintf(looked->guest, sizeof(looked->guest), "%s", info->guest);
        looked->domain = info->domain;
        looked->pages = info->pages;
        looked->in_use = info->in_use;
        looked->n_runs = info->n_runs;
        return 0;
}

static struct looked look_grant(const char *guest, uint64_t grant) {
        struct looked looked = { .grant = grant };

        if (dmab_grant_visit(dmab, guest, find, &looked))
                give_up("grants are listed", dmab_last_error());
        return looked;
}

static void check_listed(const struct xen_guest *guest, uint64_t grant, const char *state, uint64_t pages, uint64_t in_use) {
        const struct looked looked = look_grant(guest->name, grant);

        if (!looked.is_there || strcmp(looked.state, state) != 0 || looked.domain != guest->domid || looked.pages != pages ||
            looked.in_use != in_use || !looked.n_runs)
                xen_give_up("%s is in the list with %" PRIu64 " pages, of which %" PRIu64 " are in use: it is %s with %" PRIu64
                            " and %" PRIu64, state, pages, in_use, looked.is_there ? looked.state : "not there", looked.pages,
                            looked.in_use);
        printf("ok: listed as %s with %" PRIu64 " pages\n", state, pages);
}

/* ---- pages of the guest's ---- */

static uint32_t refs[2 * MANY];

/* "ok 8+100 300+4 ...": how many references. */
static uint32_t read_refs(const char *answer) {
        unsigned first, count;
        uint32_t n = 0;
        int length;

        if (strncmp(answer, "ok ", 3) != 0)
                give_up("a guest grants dom0 pages of its own", answer);
        for (const char *at = answer + 3; sscanf(at, " %u+%u%n", &first, &count, &length) == 2; at += length)
                for (unsigned i = 0; i < count && n < 2 * MANY; i++)
                        refs[n++] = first + i;
        return n;
}

static void offer(struct xen_guest *guest, unsigned place, unsigned pages, const char *how) {
        char line[64];

        snprintf(line, sizeof(line), "offer %u %u%s", place, pages, how);
        if (read_refs(xen_tell(guest, line)) != pages)
                give_up("a guest grants dom0 pages of its own", guest->buffer);
        printf("ok: %s grants dom0 %u pages\n", guest->name, pages);
}

static void write_pages(char *memory, unsigned pages) {
        for (unsigned i = 0; i < pages; i++)
                snprintf(memory + (size_t)i * PAGE, PAGE / 2, "page %u", i);
}

static void check_answered(const char *memory, unsigned pages) {
        char text[32];

        for (unsigned i = 0; i < pages; i++) {
                snprintf(text, sizeof(text), "seen %u", i);
                if (strcmp(memory + (size_t)i * PAGE + PAGE / 2, text) != 0)
                        give_up("dom0 sees what the guest has written", memory + (size_t)i * PAGE + PAGE / 2);
        }
        printf("ok: dom0 sees what the guest has written to %u pages\n", pages);
}

static void test_map(struct xen_guest *guest) {
        struct dmab_grant_options options = DMAB_GRANT_OPTIONS_INIT;
        char answer[32], *memory;
        dmab_grant_t *grant;
        void *at;

        offer(guest, 1, MANY, "");
        options.notify = (uint64_t)MANY * PAGE - 1;
        need(dmab_grant_map(dmab, guest->name, refs, MANY, DMAB_BIDIRECTIONAL, &options, &at, &grant), "dom0 maps them");
        memory = at;
        check_listed(guest, dmab_grant_handle(grant), "mapped", MANY, MANY);
        memory[options.notify] = 1;
        write_pages(memory, MANY);
        snprintf(answer, sizeof(answer), "ok %d", MANY);
        tell(guest, answer, "the guest sees what dom0 has written", "see 1");
        check_answered(memory, MANY);
        restart();
        check_listed(guest, dmab_grant_handle(grant), "mapped", MANY, MANY);
        write_pages(memory, MANY);
        tell(guest, answer, "after the daemon was killed it is the same memory", "see 1");
        check_books();
        tell(guest, "ok 1", "the guest knows that dom0 has it", "byte 1");
        need(dmab_grant_unmap(grant), "dom0 unmaps them");
        tell(guest, "ok 0", "the guest is told", "byte 1");
        xen_check(!look_grant(NULL, dmab_grant_handle(grant)).is_there, "it is in no list any more");
        tell(guest, "ok", "the guest takes its pages back", "unmap 1");
        check_books();
}

static void test_refusals(struct xen_guest *guest) {
        static const uint32_t nothing[] = { 20000, 20001 };
        dmab_grant_t *grant;
        void *at;

        refused(dmab_grant_map(dmab, "nobody", nothing, 2, DMAB_TO_DEVICE, NULL, &at, &grant), "unknown_guest",
                "nobody's pages are mapped");
        refused(dmab_grant_map(dmab, guest->name, nothing, 2, DMAB_TO_DEVICE, NULL, &at, &grant), "bad_address",
                "nor what was not granted");
        offer(guest, 1, FEW, " ro");
        refused(dmab_grant_map(dmab, guest->name, refs, FEW, DMAB_FROM_DEVICE, NULL, &at, &grant), "bad_address",
                "what dom0 may only read is not mapped to be written");
        need(dmab_grant_map(dmab, guest->name, refs, FEW, DMAB_TO_DEVICE, NULL, &at, &grant), "but it is to be read");
        ask("quota.set", "{\"owner\":\"user:0\",\"limits\":{\"grants\":%d}}", FEW + 3);
        refused(dmab_grant_map(dmab, guest->name, refs, 4, DMAB_TO_DEVICE, NULL, &at, &grant), "quota",
                "a service maps no more than its quota");
        refused(dmab_grant_share(dmab, guest->name, 4 * PAGE, DMAB_TO_DEVICE, NULL, &at, &grant), "quota", "nor does it share");
        ask("quota.set", "{\"owner\":\"user:0\",\"unlimited\":[\"grants\"]}");
        need(dmab_grant_unmap(grant), "it unmaps what it has");
        tell(guest, "ok", "the guest takes its pages back", "unmap 1");
        check_books();
}

/* It is killed while it has them mapped. */
static void __attribute__((noreturn)) serve(const struct xen_guest *guest, int told) {
        struct dmab_grant_options options = { .struct_size = sizeof(options), .notify = (uint64_t)FEW * PAGE - 1 };
        dmab_grant_t *grant;
        void *at;

        meet_service();
        need(dmab_grant_map(dmab, guest->name, refs, FEW, DMAB_BIDIRECTIONAL, &options, &at, &grant),
             "another service maps some");
        ((char *)at)[options.notify] = 7;
        if (write(told, "x", 1) != 1)
                _exit(1);
        for (;;)
                pause();
}

static void test_death_of_a_service(struct xen_guest *guest) {
        int ends[2], status;
        char byte;
        pid_t pid;

        offer(guest, 1, FEW, "");
        fflush(stdout);
        if (pipe(ends) < 0 || (pid = fork()) < 0)
                xen_give_up("there is no process");
        if (!pid)
                serve(guest, ends[1]);
        close(ends[1]);
        if (read(ends[0], &byte, 1) != 1)
                give_up("a service maps", "it has died");
        close(ends[0]);
        tell(guest, "ok 7", "the guest sees that it is served", "byte 1");
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        tell(guest, "ok 0", "and that its service has died", "byte 1");
        tell(guest, "ok", "the guest takes its pages back", "unmap 1");
}

/* ---- pages of dom0's ---- */

static void write_runs(const dmab_grant_t *grant, char *text, size_t size) {
        const struct dmab_grant_run *runs;
        size_t n, used = 0;

        runs = dmab_grant_runs(grant, &n);
        *text = '\0';
        for (size_t i = 0; i < n && used < size; i++)
                used += (size_t)snprintf(text + used, size - used, " %u:%u+%u", runs[i].domain, runs[i].first, runs[i].count);
}

/* Dom0's kernel looks each second whether what it was to end is mapped no more; until then it can be mapped. */
static void await_ended(struct xen_guest *guest, const char *runs) {
        const int64_t until = xen_now_ms() + SOON_MS;
        char line[700];

        snprintf(line, sizeof(line), "map 2%s", runs);
        while (strcmp(xen_tell(guest, line), "error: Invalid argument") != 0) {
                if (xen_now_ms() > until)
                        give_up("it cannot map them again", guest->buffer);
                tell(guest, "ok", "it lets go of what it still could map", "unmap 2");
                poll(NULL, 0, 1500);
        }
        printf("ok: it cannot map them again\n");
}

static void test_share(struct xen_guest *guest) {
        char runs[600], answer[32], *memory;
        dmab_grant_t *grant, *more;
        void *at;

        need(dmab_grant_share(dmab, guest->name, SHARED * PAGE, DMAB_BIDIRECTIONAL, NULL, &at, &grant), "dom0 shares pages");
        memory = at;
        check_listed(guest, dmab_grant_handle(grant), "shared", SHARED, UINT64_MAX);
        write_runs(grant, runs, sizeof(runs));
        snprintf(answer, sizeof(answer), "ok %d", SHARED);
        tell(guest, answer, "the guest maps them", "map 2%s", runs);
        tell(guest, answer, "all of them are zero", "zero 2");
        write_pages(memory, SHARED);
        tell(guest, answer, "it sees what dom0 has written", "see 2");
        check_answered(memory, SHARED);
        restart();
        check_listed(guest, dmab_grant_handle(grant), "shared", SHARED, UINT64_MAX);
        write_pages(memory, SHARED);
        tell(guest, answer, "after the daemon was killed they are the same", "see 2");
        check_books();
        refused(dmab_grant_share(dmab, guest->name, 2048 * PAGE, DMAB_BIDIRECTIONAL, NULL, &at, &more), "limit",
                "dom0's kernel does not share without end");
        need(dmab_grant_unmap(grant), "dom0 unmaps them");
        tell(guest, answer, "the guest has them still", "see 2");
        tell(guest, "ok", "it unmaps them", "unmap 2");
        await_ended(guest, runs);
        check_books();
}

void xen_test_grants(struct xen_guest *pv, struct xen_guest *pvh) {
        meet_service();
        test_map(pv);
        test_map(pvh);
        test_refusals(pvh);
        test_death_of_a_service(pv);
        test_share(pv);
        test_share(pvh);
        dmab_disconnect(dmab);
        check_books();
}

/* ---- the end of a guest ---- */

static dmab_grant_t *last, *last_shared;

void xen_test_grants_begin_end(struct xen_guest *guest) {
        void *at;

        meet_service();
        offer(guest, 1, FEW, "");
        need(dmab_grant_map(dmab, guest->name, refs, FEW, DMAB_BIDIRECTIONAL, NULL, &at, &last),
             "dom0 maps pages of the guest's");
        need(dmab_grant_share(dmab, guest->name, PAGE, DMAB_BIDIRECTIONAL, NULL, &at, &last_shared), "and shares one with it");
        write_pages(at, 1);
}

/* It is over for Xen only when nobody has anything of it. */
void xen_test_grants_end(const struct xen_guest *guest) {
        const uint64_t grant = dmab_grant_handle(last), shared = dmab_grant_handle(last_shared);
        const int64_t until = xen_now_ms() + SOON_MS;

        while (strcmp(look_grant(guest->name, grant).state, "gone") != 0)
                if (xen_now_ms() > until)
                        give_up("what is mapped of a guest that has ended is gone", look_grant(guest->name, grant).state);
        xen_check(strcmp(look_grant(guest->name, shared).state, "gone") == 0, "so is what is shared with it");
        restart();
        xen_check(strcmp(look_grant(guest->name, grant).state, "gone") == 0, "the next daemon knows that, too");
        need(dmab_grant_unmap(last), "dom0 unmaps what is left of it");
        need(dmab_grant_unmap(last_shared), "and what it has shared");
        dmab_disconnect(dmab);
}
