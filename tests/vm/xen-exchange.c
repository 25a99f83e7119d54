/* Frames of paravirtualised guests, exchanged for others in one piece: asked by a guest for what its kernel does not count on, by
 * dom0 for a guest that was created paused; and refused for all that is in use. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

#include "tests/vm/xen-guests.h"

enum {
        PAGE = 4096,
        NOTES_PAGES = 512, /* of Xen's notes on frames, in one piece */
        NOTES = NOTES_PAGES * PAGE / 8,
        HALF = 256, ORDER_HALF = 8, WHOLE = 2 * HALF, ORDER_WHOLE = 9,
        USED_PFN = 0x7000,   /* which a guest with 128 MiB has, beyond what is mapped when it is made */
        MORE_PFN = 0x200000, /* which its kernel knows nothing of */
        GUEST_MIB = 128, BALLOON_MIB = 8,
};

static xenforeignmemory_handle *memory;
static struct xen_guest fresh = { .name = "fresh", .uuid = "2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a03", .type = "pv", .console = -1 };

/* ---- what Xen notes ---- */

static bool is_owned(uint32_t domid, uint64_t frame) {
        const xen_pfn_t page = frame;
        int error = 0;
        void *at = xenforeignmemory_map(memory, domid, PROT_READ, 1, &page, &error);

        if (at)
                xenforeignmemory_unmap(memory, at, 1);
        return at && !error;
}

/* Frames that the guest calls by the names from pfn on; others call theirs so, too. */
static void take_named(const uint64_t *notes, uint64_t first, uint32_t domid, uint64_t pfn, uint64_t *ret, unsigned n) {
        for (uint64_t i = 0; i < NOTES; i++)
                if (notes[i] >= pfn && notes[i] < pfn + n && !ret[notes[i] - pfn] && is_owned(domid, first + i))
                        ret[notes[i] - pfn] = first + i;
}

static void find_frames(const struct xen_guest *guest, uint64_t pfn, uint64_t *ret, unsigned n) {
        xen_pfn_t pieces[64] = { 0 }, pages[NOTES_PAGES];
        unsigned long end = 0;
        uint64_t *notes;

        memset(ret, 0, n * sizeof(*ret));
        if (xc_maximum_ram_page(xen_xc, &end) < 0 || end > 64 * NOTES ||
            xc_machphys_mfn_list(xen_xc, (end + NOTES - 1) / NOTES, pieces) < 0)
                give_up("Xen shows its notes on frames", "it does not");
        for (unsigned piece = 0; piece < (end + NOTES - 1) / NOTES; piece++) {
                if (!pieces[piece] || (piece && pieces[piece] == pieces[piece - 1]))
                        continue;
                for (unsigned i = 0; i < NOTES_PAGES; i++)
                        pages[i] = pieces[piece] + i;
                notes = xenforeignmemory_map(memory, DOMID_XEN, PROT_READ, NOTES_PAGES, pages, NULL);
                if (!notes)
                        give_up("Xen shows its notes on frames", "not in this piece");
                take_named(notes, (uint64_t)piece * NOTES, guest->domid, pfn, ret, n);
                xenforeignmemory_unmap(memory, notes, NOTES_PAGES);
        }
        for (unsigned i = 0; i < n; i++)
                if (!ret[i])
                        xen_give_up("%s has no page 0x%" PRIx64, guest->name, pfn + i);
}

static unsigned count_pieces(const uint64_t *frames, unsigned n) {
        unsigned pieces = 1;

        for (unsigned i = 1; i < n; i++)
                pieces += frames[i] != frames[i - 1] + 1;
        return pieces;
}

static void check_zero(const struct xen_guest *guest, const uint64_t *frames, unsigned n) {
        xen_pfn_t pages[WHOLE];
        char *at;

        for (unsigned i = 0; i < n; i++)
                pages[i] = frames[i];
        at = xenforeignmemory_map(memory, guest->domid, PROT_READ, n, pages, NULL);
        if (!at)
                give_up("dom0 sees what a guest has got", guest->name);
        xen_check(!at[0] && memcmp(at, at + 1, (size_t)n * PAGE - 1) == 0, "nothing of anybody else's is in it");
        xenforeignmemory_unmap(memory, at, n);
}

/* By Xen's notes, and by what can be mapped as the guest's. */
static void check_whole(const struct xen_guest *guest, uint64_t first, uint64_t pfn) {
        uint64_t frames[WHOLE];

        find_frames(guest, pfn, frames, WHOLE);
        printf("page 0x%" PRIx64 " of the guest is frame 0x%" PRIx64 ", and %d pages from there on are %u piece\n", pfn,
               frames[0], WHOLE, count_pieces(frames, WHOLE));
        xen_check(frames[0] == first && count_pieces(frames, WHOLE) == 1 && first % WHOLE == 0,
                  "they are one piece, aligned, where the answer says");
        xen_check((first + WHOLE) * PAGE <= UINT64_C(1) << 32, "below 4 GiB, as asked for");
        check_zero(guest, frames, WHOLE);
}

/* ---- more memory than a kernel knows of ---- */

static xc_domaininfo_t info_of(const struct xen_guest *guest) {
        xc_domaininfo_t info;

        if (xc_domain_getinfolist(xen_xc, guest->domid, 1, &info) != 1 || info.domain != guest->domid)
                give_up("Xen tells of a guest", guest->name);
        return info;
}

static void allow(const struct xen_guest *guest, uint64_t pages) {
        if (xc_domain_setmaxmem(xen_xc, guest->domid, pages * (PAGE / 1024)) < 0)
                give_up("a guest may have more memory", guest->name);
}

static void give_more(const struct xen_guest *guest, uint64_t pfn, xen_pfn_t *ret) {
        *ret = pfn;
        if (xc_domain_populate_physmap_exact(xen_xc, guest->domid, 1, ORDER_HALF, 0, ret) < 0)
                give_up("a guest is given more memory", guest->name);
}

static void take_back(const struct xen_guest *guest, xen_pfn_t frame, unsigned order) {
        if (xc_domain_decrease_reservation_exact(xen_xc, guest->domid, 1, order, &frame) < 0)
                give_up("it is taken back", guest->name);
}

/* Two pieces that are no neighbours, which the guest asks to have as one. */
static void test_by_itself(struct xen_guest *guest) {
        const uint64_t free_before = xen_free_pages(), allowed = info_of(guest).max_pages;
        xen_pfn_t halves[2], between;
        uint64_t first = 0;
        const char *answer;
        char line[120];

        allow(guest, allowed + 3 * HALF);
        give_more(guest, MORE_PFN, &halves[0]);
        give_more(guest, MORE_PFN + WHOLE, &between);
        give_more(guest, MORE_PFN + HALF, &halves[1]);
        xen_check(halves[1] != halves[0] + HALF, "a guest has more memory, in pieces");
        snprintf(line, sizeof(line), "exchange %d 0x%x 0x%" PRIx64 "+%d 0x%" PRIx64 "+%d", ORDER_WHOLE, MORE_PFN,
                 (uint64_t)halves[0], HALF, (uint64_t)halves[1], HALF);
        answer = xen_tell(guest, line);
        if (sscanf(answer, "ok 1 0x%" PRIx64, &first) != 1)
                give_up("a guest has its frames exchanged", answer);
        printf("ok: a guest has 2 MiB for two pieces of 1 MiB: %s\n", answer);
        check_whole(guest, first, MORE_PFN);
        xen_check(!is_owned(guest->domid, halves[0]) && !is_owned(guest->domid, halves[1]),
                  "what it gave is not its own any more");
        snprintf(line, sizeof(line), "exchange %d 0x%x 0x%" PRIx64 "+%d", ORDER_HALF, MORE_PFN, (uint64_t)halves[0], HALF);
        answer = xen_tell(guest, line);
        if (!strstr(answer, "does not have the frame"))
                give_up("it does not get it exchanged again", answer);
        printf("ok: %s\n", answer);
        take_back(guest, first, ORDER_WHOLE);
        take_back(guest, between, ORDER_HALF);
        allow(guest, allowed);
        xen_check(xen_free_pages() == free_before, "Xen has as much memory as before");
        tell(guest, "ok PV", "and the guest lives", "kind");
}

/* ---- what a kernel gives up ---- */

struct wanted {
        const struct xen_guest *guest;
        uint64_t pages;
        bool is_less;
};

static bool has_as_many(void *userdata) {
        const struct wanted *wanted = userdata;
        const uint64_t pages = info_of(wanted->guest).tot_pages;

        return wanted->is_less ? pages <= wanted->pages : pages >= wanted->pages;
}

static void set_target(const struct xen_guest *guest, unsigned mib) {
        char path[64], kib[16];

        snprintf(path, sizeof(path), "/local/domain/%u/memory/target", guest->domid);
        snprintf(kib, sizeof(kib), "%u", mib * 1024);
        if (!xs_write(xen_store, XBT_NULL, path, kib, (unsigned)strlen(kib)))
                give_up("a guest is told to have less memory", guest->name);
}

/* What a balloon takes is no frame of the guest's any more that it could have exchanged. */
static void test_balloon(struct xen_guest *guest) {
        const uint64_t before = info_of(guest).tot_pages, free_before = xen_free_pages();

        set_target(guest, GUEST_MIB - BALLOON_MIB);
        xen_await("what a guest's kernel gives up to the balloon is not the guest's any more", has_as_many,
                  &(struct wanted){ guest, before - BALLOON_MIB * 256, true });
        xen_check(xen_free_pages() >= free_before + BALLOON_MIB * 256, "it is Xen's");
        set_target(guest, GUEST_MIB);
        xen_await("until it is given as much again", has_as_many, &(struct wanted){ guest, before, false });
}

/* ---- what is refused ---- */

static void is_refused(const char *what, const char *reason, const struct xen_guest *guest, const uint64_t *frames,
                       const char *more) {
        char wanted[40];

        snprintf(wanted, sizeof(wanted), "\"reason\":\"%s\"", reason);
        expect(what, ask("guest.exchange", "{\"guest\":\"%s\",\"frames\":[\"0x%" PRIx64 "\",\"0x%" PRIx64 "\"],\"order\":1%s}",
                         guest->name, frames[0], frames[1], more),
               wanted);
}

static void pause_guest(const struct xen_guest *guest, bool is_paused) {
        if ((is_paused ? xc_domain_pause(xen_xc, guest->domid) : xc_domain_unpause(xen_xc, guest->domid)) < 0)
                xen_give_up("%s cannot be paused, or go on", guest->name);
        await_state(guest, is_paused ? "paused" : "running", is_paused ? "a guest is paused" : "it goes on");
}

static void test_in_use(struct xen_guest *guest) {
        uint64_t frames[2];
        const char *answer;
        char line[120];

        find_frames(guest, USED_PFN, frames, 2);
        snprintf(line, sizeof(line), "ctl --socket xen: exchange 8K 0x%" PRIx64 " 0x%" PRIx64, frames[0], frames[1]);
        answer = xen_tell(guest, line);
        if (*answer != '1' || !strstr(answer, "mapped still"))
                give_up("what a kernel uses is not exchanged", answer);
        printf("ok: %s\n", answer);
        is_refused("nor by an administrator", "not_permitted", guest, frames, "");
        is_refused("who says that it is given up", "not_permitted", guest, frames, ",\"given_up\":true");
        pause_guest(guest, true);
        is_refused("not while it is paused, without that", "not_permitted", guest, frames, "");
        is_refused("and with it, Xen does not take it", "busy", guest, frames, ",\"given_up\":true");
        pause_guest(guest, false);
        tell(guest, "ok PV", "the guest is unharmed", "kind");
}

static void test_other_kind(struct xen_guest *guest) {
        static const uint64_t frames[] = { 0x4000, 0x4001 };
        const char *answer = xen_tell(guest, "ctl --socket xen: exchange 8K 0x4000+2");

        if (*answer != '1' || !strstr(answer, "not paravirtualised"))
                give_up("only paravirtualised guests have frames", answer);
        printf("ok: %s\n", answer);
        is_refused("also for an administrator", "unsupported", guest, frames, ",\"given_up\":true");
}

/* ---- a guest that was created paused ---- */

static void list_frames(const uint64_t *frames, unsigned n, char *ret, size_t size) {
        size_t used = 0;

        for (unsigned i = 0; i < n; i++)
                used += (size_t)snprintf(ret + used, size - used, "%s\"0x%" PRIx64 "\"", i ? "," : "", frames[i]);
}

static bool has_all(void *userdata) {
        return xen_free_pages() >= *(uint64_t *)userdata;
}

/* Every other page of a range: the guest has the others where they were. */
static void test_created_paused(void) {
        uint64_t before = xen_free_pages(), frames[2 * WHOLE], first = 0;
        static char list[WHOLE * 16];
        const char *answer;

        xen_create_paused(&fresh);
        await_state(&fresh, "paused", "a guest that is created paused is known");
        find_frames(&fresh, USED_PFN, frames, 2 * WHOLE);
        for (unsigned i = 0; i < WHOLE; i++)
                frames[i] = frames[2 * i];
        printf("of %d frames of it %u follow on the one before\n", WHOLE, WHOLE - count_pieces(frames, WHOLE));
        list_frames(frames, WHOLE, list, sizeof(list));
        answer = ask("guest.exchange", "{\"guest\":\"fresh\",\"order\":9,\"mask\":\"0xffffffff\",\"pfns\":[\"0x%x\"],"
                     "\"given_up\":true,\"frames\":[%s]}", MORE_PFN, list);
        if (!strstr(answer, "\"exchanged\":512") || strstr(answer, "\"why\"") ||
            sscanf(strstr(answer, "\"frames\":[\"") + 11, "%" SCNx64, &first) != 1)
                give_up("its frames are exchanged", answer);
        printf("ok: for a guest that was created paused, %d frames are exchanged for 2 MiB in one piece\n", WHOLE);
        check_whole(&fresh, first, MORE_PFN);
        is_refused("what it has given is not its own any more", "bad_address", &fresh, frames, ",\"given_up\":true");
        xc_domain_unpause(xen_xc, fresh.domid);
        xen_forget(&fresh);
        printf("ok: its kernel counted on them: it does not live when it goes on\n");
        await_state(&fresh, "off", "which is known");
        xen_await("Xen has its memory", has_all, &before);
}

void xen_test_exchange(struct xen_guest *pv, struct xen_guest *pvh) {
        memory = xenforeignmemory_open(NULL, 0);
        test_in_use(pv);
        test_other_kind(pvh);
        test_by_itself(pv);
        test_created_paused();
        test_balloon(pv);
        check_books();
        xenforeignmemory_close(memory);
}
