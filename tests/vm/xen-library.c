/* Guests that use the library: they find the daemon by xenstore and talk with it over what dom0 shares with them, and what they
 * are given in their windows is what dom0 sees at the machine's addresses. The daemon is killed while they work, they flood
 * their channel and write into it what cannot be, and nobody else is held up by that. */
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

#include "tests/vm/xen-guests.h"

#define MIB (UINT64_C(1) << 20)

enum { PAGE = 4096, KILLS = 3, FLOOD_MS = 3000, GROWTH_MAX_KIB = 8192 };

static xenforeignmemory_handle *memory;

/* ---- dom0's eyes ---- */

static unsigned domain_of(const struct seen *seen) {
        return (unsigned)strtoul(seen->runs, NULL, 10);
}

/* A page of the memory domain's, as the machine has it. */
static char *see_page(const struct seen *seen, uint64_t addr) {
        const xen_pfn_t frame = addr / PAGE;
        int error = 0;
        char *page = xenforeignmemory_map(memory, domain_of(seen), PROT_READ | PROT_WRITE, 1, &frame, &error);

        if (!page || error)
                give_up("dom0 sees the memory domain's page", "it does not");
        return page;
}

static void check_seen(const struct seen *seen, uint64_t addr, const char *text) {
        char *page = see_page(seen, addr);

        if (strcmp(page + addr % PAGE, text) != 0)
                give_up("dom0 sees what the guest has written", page + addr % PAGE);
        printf("ok: dom0 sees \"%s\" at 0x%" PRIx64 "\n", text, addr);
        xenforeignmemory_unmap(memory, page, 1);
}

static void write_there(const struct seen *seen, uint64_t addr, const char *text) {
        char *page = see_page(seen, addr);

        strcpy(page + addr % PAGE, text);
        xenforeignmemory_unmap(memory, page, 1);
}

/* ---- what guests say ---- */

static const char *say(struct xen_guest *guest, const char *format, ...) __attribute__((format(printf, 2, 3)));
static const char *say(struct xen_guest *guest, const char *format, ...) {
        char line[256];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        return xen_tell(guest, line);
}

static bool is_pv(const struct xen_guest *guest) {
        return strcmp(guest->type, "pv") == 0;
}

static void connect_guest(struct xen_guest *guest) {
        char answer[80];

        snprintf(answer, sizeof(answer), "ok xen:%s guest", guest->uuid);
        tell(guest, answer, "a guest's program finds the daemon, which knows it", "connect xen:");
}

/* The address that the device of the guest's is given. */
static uint64_t alloc(struct xen_guest *guest, const struct seen *seen, unsigned pages) {
        const char *answer = say(guest, "alloc %u", pages * PAGE);
        unsigned long long dma = 0, first = 0;
        unsigned runs = 0;

        if (sscanf(answer, "ok %llx %llx %u", &dma, &first, &runs) != 3)
                give_up("a guest allocates", answer);
        if (dma < seen->addr || dma + pages * PAGE > seen->addr + seen->size || dma + pages * PAGE > 4096 * MIB)
                give_up("it lies in its window, below 4 GiB", answer);
        printf("ok: a guest allocates %u pages in its window, below 4 GiB\n", pages);
        printf("%s: dma 0x%llx, frames from 0x%llx in %u runs\n", guest->name, dma, first, runs);
        if (is_pv(guest) && (runs != 1 || first != dma))
                give_up("its page tables have it in one run, at that address", answer);
        return dma;
}

/* Such a device is given what the guest's page tables have, which only in one kind of guests is in one piece. */
static void test_pci(struct xen_guest *guest, const struct seen *seen) {
        const char *answer = say(guest, "pci");
        unsigned long long dma = 0;

        sscanf(answer, "ok %llx", &dma);
        if (is_pv(guest) ? dma < seen->addr || dma >= seen->addr + seen->size : !strstr(answer, "paravirtualised"))
                give_up("a PCI device has an address in a paravirtualised guest only", answer);
        printf("ok: for a PCI device: %s\n", answer);
}

static void test_memory(struct xen_guest *guest, const struct seen *seen) {
        const uint64_t dma = alloc(guest, seen, 16);
        unsigned long long bounced = 0;

        check_seen(seen, dma, "from the guest, page 0");
        check_seen(seen, dma + 15 * PAGE, "from the guest, page 15");
        write_there(seen, dma + 7 * PAGE + PAGE / 2, "from dom0");
        tell(guest, "ok from dom0", "the guest sees what dom0 has written", "look 7");
        tell(guest, "ok 100", "blocks of a pool are what they should be", "pool");
        if (sscanf(say(guest, "bounce"), "ok %llx", &bounced) != 1)
                give_up("a guest has a buffer bounced", guest->name);
        check_seen(seen, bounced, "bounced by the guest");
        write_there(seen, bounced, "bounced by dom0");
        tell(guest, "ok bounced by dom0", "what a device writes comes back to the buffer", "unbounce");
        tell(guest, "ok", "it frees what it has", "free");
        test_pci(guest, seen);
        check_books();
}

static char *read_node(const struct xen_guest *guest, const char *name) {
        char path[80];
        unsigned n;

        snprintf(path, sizeof(path), "/local/domain/%u/dmabroker/%s", guest->domid, name);
        return xs_read(xen_store, XBT_NULL, path, &n);
}

/* What dom0 tells and shares with one guest is that one's. */
static void test_ways(struct xen_guest *own, struct xen_guest *other) {
        static const char *const names[] = { "protocol", "vchan/ring-ref", "vchan/event-channel" };
        char answer[64], *ref = read_node(own, "vchan/ring-ref");

        if (!ref)
                give_up("xenstore tells a guest of its channel", "it does not");
        for (unsigned i = 0; i < 3; i++) {
                char *value = read_node(own, names[i]);

                snprintf(answer, sizeof(answer), "ok %s", value ? value : "");
                tell(own, answer, "a guest reads what it is told", "store dmabroker/%s", names[i]);
                tell(other, "error: Permission denied", "another guest does not",
                     "store /local/domain/%u/dmabroker/%s", own->domid, names[i]);
                free(value);
        }
        tell(other, "error: Invalid argument", "nor does it map what dom0 shares with the first", "map 1 0:%s+1", ref);
        free(ref);
}

/* While it has the channel, and after. */
static void test_tools(struct xen_guest *guest) {
        const char *answer = say(guest, "ctl --socket xen: status");

        if (*answer == '0' || !strstr(answer, "in use"))
                give_up("another process does not get the channel meanwhile", answer);
        printf("ok: %s\n", answer);
        tell(guest, "ok", "a session ends", "bye");
        answer = say(guest, "ctl --socket xen: status");
        if (strncmp(answer, "0 ", 2) != 0)
                give_up("dmabrokerctl works in the guest", answer);
        answer = say(guest, "ctl windows");
        if (strncmp(answer, "0 ", 2) != 0)
                give_up("also where it is not told which address", answer);
        printf("ok: dmabrokerctl works in the guest: %s\n", answer);
}

/* A child that lives on has nothing of it. */
static void test_fork(struct xen_guest *guest) {
        connect_guest(guest);
        tell(guest, "ok", "a guest's program forks", "fork");
        tell(guest, "ok", "its session ends", "bye");
        connect_guest(guest);
        tell(guest, "ok", "the next one has the channel while the child lives", "bye");
        tell(guest, "ok", "the child ends", "unfork");
}

static void await_rounds(struct xen_guest *guest, unsigned n) {
        const int64_t until = xen_now_ms() + 60000;
        unsigned first = 0, now = 0;

        sscanf(say(guest, "rounds"), "ok %u", &first);
        do {
                if (xen_now_ms() > until)
                        give_up("a guest that works goes on", guest->name);
                poll(NULL, 0, 20);
                sscanf(say(guest, "rounds"), "ok %u", &now);
        } while (now - first < n);
}

static void test_kills(struct xen_guest *guest) {
        int64_t began;

        connect_guest(guest);
        tell(guest, "ok", "a guest works without end", "busy");
        await_rounds(guest, 20);
        for (unsigned i = 0; i < KILLS; i++) {
                began = xen_now_ms();
                restart();
                await_rounds(guest, 5);
                printf("ok: it goes on when the daemon was killed, after %lld ms\n", (long long)(xen_now_ms() - began));
        }
        tell(guest, "ok 0 failed ", "nothing has failed", "rest");
        tell(guest, "ok", "it ends", "bye");
        check_books();
}

static long resident_kib(void) {
        char path[64], line[128];
        long kib = 0;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon_pid());
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
                sscanf(line, "VmRSS: %ld", &kib);
        if (file)
                fclose(file);
        return kib;
}

static void test_flood(struct xen_guest *bad, struct xen_guest *good, const struct seen *of_good) {
        const long before = resident_kib();
        int64_t began;
        long grown;

        connect_guest(good);
        began = xen_now_ms();
        for (unsigned i = 0; i < 10; i++)
                ask("broker.ping", "{}");
        printf("ten pings from dom0 take %lld ms\n", (long long)(xen_now_ms() - began));
        xen_say(bad, "flood 3000");
        poll(NULL, 0, 500);
        began = xen_now_ms();
        for (unsigned i = 0; i < 10; i++)
                ask("broker.ping", "{}");
        printf("and while a guest floods its channel, %lld ms\n", (long long)(xen_now_ms() - began));
        alloc(good, of_good, 4);
        tell(good, "ok", "another guest frees what it has", "free");
        grown = resident_kib() - before;
        printf("the daemon has grown by %ld KiB\n", grown);
        xen_check(grown < GROWTH_MAX_KIB, "a flood does not fill the daemon's memory");
        if (strncmp(xen_hear(bad), "ok ", 3) != 0)
                give_up("it floods", bad->buffer);
        tell(good, "ok", "it ends", "bye");
        tell(bad, "ok", "a guest writes into its channel what cannot be", "garbage 8");
        connect_guest(bad);
        tell(bad, "ok", "the next program of it finds all in order", "bye");
        expect("the daemon goes on", ask("broker.ping", "{}"), "\"result\"");
}

/* A program that has used it stays connected, and makes no call; so does a child of its. */
static void test_idle(struct xen_guest *guest, const struct seen *seen) {
        int64_t began;

        connect_guest(guest);
        alloc(guest, seen, 4);
        tell(guest, "ok", "it frees what it has", "free");
        tell(guest, "ok", "it forks", "fork");
        began = xen_now_ms();
        expect("a window is taken from a guest of which a program is connected, and uses nothing of it",
               ask("guest.detach", "{\"window\":%" PRIu64 "}", seen->window), "\"result\"");
        printf("after %lld ms\n", (long long)(xen_now_ms() - began));
        xen_check(!look(guest).is_there, "and is gone");
        tell(guest, "ok", "the child ends", "unfork");
        tell(guest, "ok", "its session ends", "bye");
        check_books();
}

/* It has memory in it. */
static void test_force(struct xen_guest *guest, const struct seen *seen) {
        connect_guest(guest);
        alloc(guest, seen, 4);
        /* What lies in it is mapped until the program frees it. */
        expect("a window is taken from a guest that uses it, which has it mapped",
               ask("guest.detach", "{\"window\":%" PRIu64 ",\"force\":true}", seen->window), "\"reason\":\"timeout\"");
        if (strncmp(say(guest, "alloc 4096"), "error: ", 7) != 0)
                give_up("it gets no more of it", guest->buffer);
        tell(guest, "ok", "its session ends", "bye");
        for (const int64_t until = xen_now_ms() + 60000; look(guest).is_there; poll(NULL, 0, 20))
                if (xen_now_ms() > until)
                        give_up("then the window is the host's again", look(guest).state);
        check_books();
}

void xen_test_library(struct xen_guest *pv, struct xen_guest *pvh) {
        struct seen of_pvh = attach(pvh, 8), of_pv = look(pv);

        memory = xenforeignmemory_open(NULL, 0);
        test_ways(pv, pvh);
        test_ways(pvh, pv);
        connect_guest(pv);
        test_memory(pv, &of_pv);
        connect_guest(pvh);
        test_memory(pvh, &of_pvh);
        test_tools(pv);
        test_tools(pvh);
        test_fork(pv);
        test_fork(pvh);
        test_kills(pv);
        test_kills(pvh);
        test_flood(pvh, pv, &of_pv);
        test_force(pvh, &of_pvh);
        of_pvh = attach(pvh, 8);
        test_idle(pvh, &of_pvh);
        tell(pv, "ok", "another guest unmaps what it has without the library", "unmap 0");
        test_idle(pv, &of_pv);
        xenforeignmemory_close(memory);
}
