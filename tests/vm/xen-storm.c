/* A guest to which everything happens that can happen to one, in random order, beside one that works and looks at its own bytes
 * all the time. After each event what was granted is revoked or as it was, nobody finds a byte of it, the books are clean, and
 * the other guest has noticed nothing; the daemon is killed in the midst of every other one.
 *
 * ROUNDS says how many events (each kind once, if not told), SEED in which order. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

#include "tests/vm/xen-guests.h"

enum { PAGE = 4096, WINDOW_MIB = 4, PAGES = WINDOW_MIB * 256, SOON_MS = 60000, FEW = 3, FLOOD_MS = 700, RESERVED = 8192 };

static struct xen_guest *victim, *neighbour;
static xenforeignmemory_handle *memory;
static struct seen had; /* the victim's window, which it has mapped and filled */
static struct {
        uint64_t random;
        bool is_deadly; /* the daemon is killed in this round */
        bool is_off;    /* the victim is to be started */
        bool has_own;   /* it has begun anew, and gets a window by itself */
        uint64_t deaths, boots, windows, grants, kept, revoked, scrubbed, back, again, refusals, lies, floods, checks, rounds;
        uint64_t neighbours_rounds, neighbours_bytes;
} storm;

static uint64_t below(uint64_t n) {
        storm.random ^= storm.random << 13;
        storm.random ^= storm.random >> 7;
        storm.random ^= storm.random << 17;
        return storm.random % n;
}

static unsigned long number_from(const char *name, unsigned long otherwise) {
        const char *text = getenv(name);

        return text && *text ? strtoul(text, NULL, 10) : otherwise;
}

/* In the midst of whatever happens. */
static void maybe_lose_daemon(void) {
        if (!storm.is_deadly)
                return;
        storm.is_deadly = false;
        storm.deaths++;
        restart();
        printf("ok: the daemon is killed, and another one starts\n");
}

/* After it has booted, and after the daemon has died, it takes a moment. */
static const char *say_connected(struct xen_guest *guest, const char *line) {
        const int64_t until = xen_now_ms() + SOON_MS;
        const char *answer;

        while (strncmp(answer = xen_tell(guest, line), "3 ", 2) == 0 || strstr(answer, "xenstore has no")) {
                if (xen_now_ms() > until)
                        give_up("a guest finds the daemon", answer);
                poll(NULL, 0, 20);
        }
        return answer;
}

static void take_some(struct xen_guest *guest) {
        if (strncmp(say_connected(guest, "connect xen:"), "ok ", 3) != 0 ||
            strncmp(xen_tell(guest, "alloc 65536"), "ok ", 3) != 0)
                give_up("a guest's program has memory", guest->name);
}

/* ---- memory ---- */

static uint32_t memory_domain(const struct seen *seen) {
        return (uint32_t)strtoul(seen->runs, NULL, 10);
}

/* How many pages of it are not zero; those that are Xen's again are nobody's business. */
static unsigned count_left(const struct seen *seen, unsigned *ret_ours) {
        xen_pfn_t frames[PAGES];
        int errors[PAGES] = { 0 };
        unsigned left = 0;
        char *at;

        for (unsigned i = 0; i < PAGES; i++)
                frames[i] = seen->addr / PAGE + i;
        *ret_ours = 0;
        at = xenforeignmemory_map(memory, memory_domain(seen), PROT_READ, PAGES, frames, errors);
        for (unsigned i = 0; at && i < PAGES; i++) {
                const char *page = at + (size_t)i * PAGE;

                *ret_ours += !errors[i];
                left += !errors[i] && (page[0] || memcmp(page, page + 1, PAGE - 1) != 0);
        }
        if (at)
                xenforeignmemory_unmap(memory, at, PAGES);
        return left;
}

static void await_scrubbed(void) {
        const int64_t until = xen_now_ms() + SOON_MS;
        unsigned ours;

        while (count_left(&had, &ours)) {
                if (xen_now_ms() > until)
                        give_up("what the victim had is zeroed", victim->name);
                poll(NULL, 0, 10);
        }
        storm.scrubbed += ours;
        storm.back += PAGES - ours;
}

/* Nothing is granted of it, and nothing of it is left. The victim may have another window already, in the same place: that there
 * is nothing in it but the daemon's mark, it sees itself. */
static void follow_window(void) {
        const int64_t until = xen_now_ms() + SOON_MS;
        struct seen now;

        while ((now = look(victim)).window == had.window) {
                if (xen_now_ms() > until)
                        give_up("what the victim had is the host's again", victim->name);
                poll(NULL, 0, 5);
        }
        if (now.is_there && now.addr < had.addr + had.size && had.addr < now.addr + now.size)
                storm.again += PAGES;
        else
                await_scrubbed();
        printf("ok: what the victim had is the host's again\n");
        storm.revoked += PAGES;
        had.is_there = false;
}

static void prepare(void) {
        char answer[32];

        had = storm.has_own ? await_window(victim, "plugged", "the victim gets its own window") : attach(victim, WINDOW_MIB);
        storm.has_own = false;
        storm.windows++;
        storm.grants += PAGES;
        snprintf(answer, sizeof(answer), "ok %d", PAGES);
        tell(victim, answer, "the victim maps its window", "map 0%s", had.runs);
        snprintf(answer, sizeof(answer), "ok %d", PAGES - 1);
        tell(victim, answer, "nothing of anybody else's is in it", "zero 0");
        tell(victim, "ok", "it writes to all of it", "fill 0");
        say_connected(victim, "ctl --socket xen: status");
}

/* It has it still, by the same grants. */
static void is_kept(void) {
        const struct seen now = look(victim);

        if (now.window != had.window || now.addr != had.addr || strcmp(now.runs, had.runs) != 0)
                give_up("the victim has its window still", now.runs);
        if (now.mapped != had.size)
                give_up("and all of it is mapped", now.runs);
        storm.kept += PAGES;
}

/* ---- the neighbour ---- */

static struct seen begin_neighbour(void) {
        const struct seen seen = attach(neighbour, 2 * WINDOW_MIB);

        take_some(neighbour);
        tell(neighbour, "ok", "the neighbour works, and looks at its own bytes", "guard");
        return seen;
}

/* When it has done so much more. */
static void look_at_neighbour(unsigned more) {
        const int64_t until = xen_now_ms() + SOON_MS;
        unsigned long long rounds = 0, bytes = 0;
        unsigned errors = 0;
        const char *answer;

        do {
                answer = xen_tell(neighbour, "guarded");
                if (sscanf(answer, "ok %llu %llu %u", &rounds, &bytes, &errors) != 3 || errors || xen_now_ms() > until)
                        give_up("the neighbour goes on as if nothing were", answer);
                poll(NULL, 0, 5);
        } while (rounds < storm.neighbours_rounds + more);
        storm.neighbours_rounds = rounds;
        storm.neighbours_bytes = bytes;
}

/* ---- events ---- */

static void destroyed(void) {
        if (xc_domain_destroy(xen_xc, victim->domid) < 0)
                xen_give_up("%s cannot be destroyed", victim->name);
        maybe_lose_daemon();
        follow_window();
        xen_forget(victim);
        storm.is_off = true;
}

static void crashes(void) {
        xen_say(victim, "crash");
        maybe_lose_daemon();
        xen_await_end(victim);
        follow_window();
        storm.is_off = true;
}

static void reboots(void) {
        xen_say(victim, "reboot");
        maybe_lose_daemon();
        xen_await_reboot(victim);
        storm.boots++;
        storm.has_own = true;
        follow_window();
}

/* Its window is wanted back while it cannot answer. */
static void paused(void) {
        if (xc_domain_pause(xen_xc, victim->domid) < 0)
                xen_give_up("%s cannot be paused", victim->name);
        expect("a paused guest does not let go of its window",
               ask("guest.detach", "{\"window\":%" PRIu64 "}", had.window), "\"reason\":\"timeout\"");
        maybe_lose_daemon();
        xc_domain_unpause(xen_xc, victim->domid);
        tell(victim, "ok", "when it goes on, it has it still", "fill 0");
        tell(victim, "ok", "it unmaps it", "unmap 0");
        follow_window();
        tell(victim, "error: Invalid argument", "and cannot map it any more", "map 0%s", had.runs);
        storm.refusals++;
}

/* By force, from a program that has memory in it. */
static void robbed(void) {
        take_some(victim);
        maybe_lose_daemon();
        expect("what a program has mapped does not come back before it ends",
               ask("guest.detach", "{\"window\":%" PRIu64 ",\"force\":true}", had.window), "\"reason\":\"timeout\"");
        tell(victim, "ok", "it ends", "bye");
        tell(victim, "ok", "and unmaps what it has", "unmap 0");
        follow_window();
}

static void floods(void) {
        char line[32];

        snprintf(line, sizeof(line), "flood %d", FLOOD_MS);
        xen_say(victim, line);
        poll(NULL, 0, FLOOD_MS / 3);
        maybe_lose_daemon();
        if (strncmp(xen_hear(victim), "ok ", 3) != 0)
                give_up("a guest floods its channel", victim->buffer);
        storm.floods++;
        is_kept();
}

static void scribbles(void) {
        tell(victim, "ok", "a guest writes into its channel what cannot be", "garbage 4");
        maybe_lose_daemon();
        is_kept();
}

static void is_refused(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void is_refused(const char *what, const char *format, ...) {
        char line[300];
        const char *answer;
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        answer = say_connected(victim, line);
        if (strncmp(answer, "error: ", 7) != 0 && strncmp(answer, "1 ", 2) != 0)
                give_up(what, answer);
        printf("ok: %s: %s\n", what, answer);
        storm.refusals++;
}

/* It names what is its neighbour's, in whatever way there is. */
static void lies(void) {
        const struct seen others = look(neighbour);

        is_refused("another guest's window is not mapped", "map 1%s", others.runs);
        is_refused("nor what nobody was granted", "map 1 %u:%u+4", memory_domain(&others), (unsigned)(8000 + below(100)));
        is_refused("nor what another guest shares with dom0", "map 1 %u:%u+1", neighbour->domid, (unsigned)(8 + below(8)));
        is_refused("another guest's window is not bound",
                   "ctl --socket xen: call window.bind {\"window\":%" PRIu64 ",\"guest_addr\":\"0x100000\"}", others.window);
        maybe_lose_daemon();
        is_refused("nor taken out", "ctl --socket xen: call guest.detach {\"window\":%" PRIu64 ",\"force\":true}", others.window);
        is_refused("nor told of", "ctl --socket xen: call region.get {\"region\":%" PRIu64 "}", others.window);
        is_refused("a guest is not evicted by another", "ctl --socket xen: guests evict %s", neighbour->name);
        is_refused("nor are its frames exchanged", "ctl --socket xen: exchange 4K 0x%" PRIx64 " --guest %s", others.addr / PAGE,
                   neighbour->name);
        storm.lies++;
        is_kept();
}

static void nothing_else(void) {
        storm.is_deadly = true;
        maybe_lose_daemon();
        is_kept();
}

static struct event {
        const char *what;
        void (*happen)(void);
        unsigned long times;
} events[] = {
        { "the guest is destroyed while it has its window mapped", destroyed },
        { "the guest crashes", crashes },
        { "the guest reboots", reboots },
        { "the window of a paused guest is taken", paused },
        { "the window is taken by force from a program that uses it", robbed },
        { "the guest floods its channel", floods },
        { "the guest scribbles over its channel", scribbles },
        { "the guest names what is its neighbour's", lies },
        { "the daemon is killed", nothing_else },
};

enum { EVENTS = sizeof(events) / sizeof(*events) };

/* ---- rounds ---- */

static void round_of(struct event *event) {
        const int64_t began = xen_now_ms();

        storm.is_deadly = storm.rounds % 2 == 0;
        printf("--- %s%s\n", event->what, storm.is_deadly && event->happen != nothing_else ? ", and the daemon dies" : "");
        event->happen();
        event->times++;
        storm.rounds++;
        look_at_neighbour(FEW);
        if (storm.is_off) {
                xen_start(victim);
                await_state(victim, "running", "the victim is known to run");
                storm.boots++;
                storm.is_off = false;
                storm.has_own = true;
        }
        if (!had.is_there)
                prepare();
        check_books();
        storm.checks++;
        printf("--- %lld ms\n", (long long)(xen_now_ms() - began));
}

/* All kinds, in another order each time. */
static void rounds(unsigned long n) {
        struct event *deck[EVENTS];

        for (unsigned i = 0; i < EVENTS; i++)
                deck[i] = &events[i];
        for (unsigned long i = 0; i < n; i++) {
                const unsigned long left = EVENTS - i % EVENTS, pick = below(left);
                struct event *event = deck[pick];

                deck[pick] = deck[left - 1];
                deck[left - 1] = event;
                round_of(event);
        }
}

static void tell_counts(int64_t ms) {
        const struct {
                uint64_t n;
                const char *what;
        } rows[] = {
                { storm.deaths, "deaths of the daemon amid that" },
                { storm.boots, "boots of the victim" },
                { storm.windows, "windows given to it, and" },
                { storm.grants, "grants in them, of pages that were all zeroed" },
                { storm.kept, "grants looked at that it had to keep, and had" },
                { storm.revoked, "grants revoked by what happened; of these pages" },
                { storm.scrubbed, "were seen by dom0 in their memory domain, 0 not zeroed, and" },
                { storm.back, "were Xen's again, and" },
                { storm.again, "were given to its next boot, zeroed" },
                { storm.refusals, "requests and maps of what was not its own, all refused" },
                { storm.floods, "floods" },
                { storm.checks, "times the books were clean, and as many pages granted as windows have" },
                { storm.neighbours_rounds, "rounds of its neighbour's, which compared" },
                { storm.neighbours_bytes, "bytes of its own, 0 errors" },
        };

        for (const struct event *event = events; event < events + EVENTS; event++)
                if (event->times)
                        printf("%12lu times %s\n", event->times, event->what);
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
                printf("%12" PRIu64 " %s\n", rows[i].n, rows[i].what);
        printf("%" PRIu64 " rounds in %lld ms\n", storm.rounds, (long long)ms);
}

/* Of all domains that have memory for guests. */
static uint64_t count_pages(void) {
        xc_domaininfo_t domains[64];
        int n = xc_domain_getinfolist(xen_xc, 0, 64, domains);
        uint64_t pages = 0;

        for (int i = 0; i < n; i++)
                pages += memcmp(domains[i].handle, "dmab", 4) == 0 ? domains[i].tot_pages : 0;
        return pages;
}

/* The source has given back what it does not keep in reserve. */
static uint64_t settled_pages(void) {
        const int64_t until = xen_now_ms() + SOON_MS;

        while (count_pages() != RESERVED) {
                if (xen_now_ms() > until)
                        give_up("the source gives back what it does not need", ask("broker.status", "{}"));
                poll(NULL, 0, 20);
        }
        return xen_free_pages();
}

void xen_test_storm(struct xen_guest *working, struct xen_guest *dying) {
        const unsigned long seed = number_from("SEED", 1);
        uint64_t before, after;
        struct seen seen;
        int64_t began;

        neighbour = working;
        victim = dying;
        memory = xenforeignmemory_open(NULL, 0);
        storm.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
        printf("SEED=%lu\n", seed);
        seen = begin_neighbour();
        tell(victim, "ok", "the victim unmaps what it has", "unmap 0");
        expect("which comes back", ask("guest.detach", "{\"window\":%" PRIu64 "}", look(victim).window), "\"ok\":true");
        prepare();
        before = settled_pages();
        began = xen_now_ms();
        look_at_neighbour(FEW);
        rounds(number_from("ROUNDS", EVENTS));
        look_at_neighbour(FEW);
        tell_counts(xen_now_ms() - began);
        after = settled_pages();
        printf("%" PRIu64 " pages were free before the storm, %" PRIu64 " are after it\n", before, after);
        /* Xen keeps count of what a domain has mapped, in pages that the victim's last boot needs fewer of. */
        xen_check(after >= before && after - before < RESERVED / 64, "Xen has as many free pages as before");
        tell(neighbour, "ok 0 failed ", "nothing of the neighbour's has failed", "rest");
        tell(neighbour, "ok", "it ends", "bye");
        expect("its window comes back", ask("guest.detach", "{\"window\":%" PRIu64 "}", seen.window), "\"ok\":true");
        xenforeignmemory_close(memory);
}
