/* The source xen and its grants on a real hypervisor, with guests of both kinds: they map thousands of pages, keep them
 * while the processes that gave them are killed, and nothing that they have mapped is used for anything else. */
#include "tests/vm/xen-memory.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/source/sources.h"
#include "daemon/source/xen-domain.h"
#include "daemon/source/xen-identity.h"
#include "tests/vm/xen-life.h"

#define MIB (UINT64_C(1) << 20)
#define NARROW ((UINT64_C(1) << 29) - 1)

enum { PAGE = 4096, KEPT = 8192, DOOMED = 6144, LOST = 4096, DOMAINS_MAX = 32, FULL_TABLE = LIFE_ENTRIES - 8 };

static struct {
        struct xen_guest *staying, *dying;
        struct life_grant kept, doomed, lost; /* which no life takes over */
        uint64_t held;
} bed;

/* ---- what lives do ---- */

static void fill(const struct life_grant *grant, unsigned offset, const char *what, bool write) {
        char *buffer = calloc(256, PAGE), text[32];

        for (uint64_t page = 0; page < grant->size / PAGE; page += 256) {
                if (!write)
                        life_read(grant->addr + page * PAGE, buffer, 256 * PAGE);
                for (unsigned i = 0; i < 256; i++) {
                        snprintf(text, sizeof(text), "%s %" PRIu64, what, page + i);
                        if (write)
                                strcpy(buffer + i * PAGE + offset, text);
                        else
                                life_check(strcmp(buffer + i * PAGE + offset, text) == 0, "a page says what it should");
                }
                if (write)
                        life_write(grant->addr + page * PAGE, buffer, 256 * PAGE);
        }
        free(buffer);
}

static void check_zero(uint64_t addr, uint64_t size) {
        char *buffer = malloc(MIB);

        for (uint64_t offset = 0; offset < size; offset += MIB) {
                life_read(addr + offset, buffer, MIB);
                life_check(buffer[0] == 0 && memcmp(buffer, buffer + 1, MIB - 1) == 0, "memory is zeroed");
        }
        free(buffer);
}

static void give(struct life_grant *grant, uint32_t guest) {
        struct xen_grant_run *runs = NULL;
        struct failure failure = { 0 };
        size_t n = 0;

        life_check(xen_grants_give(grant->addr, grant->size, guest, false, &runs, &n, &failure) == 0 && n <= LIFE_RUNS_MAX,
                   failure.error ? failure.sentence : "a guest is granted memory");
        memcpy(grant->runs, runs, n * sizeof(*runs));
        grant->n_runs = (uint32_t)n;
        free(runs);
}

static void find_again(const struct life_grant *grant, uint32_t guest) {
        struct xen_grant_run *runs = NULL;
        struct failure failure = { 0 };
        size_t n = 0;

        life_check(xen_grants_find(grant->addr, grant->size, guest, &runs, &n, &failure) == 0 && n == grant->n_runs &&
                           memcmp(runs, grant->runs, n * sizeof(*runs)) == 0,
                   "the grants of an earlier life are found again");
        free(runs);
}

/* A part of the region that lies in two memory domains, if there is one: its first grant ends where the domain does. */
static void straddle(struct life_grant *grant) {
        const uint64_t size = grant->size;

        grant->addr = grant->region;
        grant->size = grant->region_size;
        give(grant, bed.staying->domid);
        xen_grants_revoke(grant->region, grant->region_size);
        printf("a region of %" PRIu64 " MiB takes %u runs of entries, %u of %u in the first\n", grant->region_size / MIB,
               grant->n_runs, grant->runs[0].count, (unsigned)(grant->region_size / PAGE));
        if (grant->n_runs > 1 && grant->runs[0].count * (uint64_t)PAGE > size / 2)
                grant->addr += grant->runs[0].count * (uint64_t)PAGE - size / 2;
        grant->size = size;
}

static void fill_tables(void) {
        struct xen_domain *domains = NULL;
        struct failure failure = { 0 };
        struct xen_host *host = NULL;
        struct xen_grant_run *runs;
        static uint32_t refs[FULL_TABLE];
        size_t n = 0, n_runs;
        void *handles[DOMAINS_MAX], *entries;
        struct xen_table tables[DOMAINS_MAX];
        uint32_t all = 0;
        uint64_t identity;

        life_check(xen_host_open(&host, NULL, &failure) == 0 && xen_identity_find(&identity) == 0 &&
                           xen_domains_find(host, identity, &domains, &n) == 0 && n <= DOMAINS_MAX,
                   "the memory domains are found");
        for (size_t i = 0; i < n; i++) {
                life_check(xen_domain_map_table(host, &domains[i], &entries, &handles[i]) == 0, "a table is mapped");
                tables[i] = (struct xen_table){ .entries = entries, .n = LIFE_ENTRIES };
                life_check(xen_table_give(&tables[i], 0x80000000, xen_table_count_blank(&tables[i]), bed.staying->domid, false,
                                          refs) == 0, "a table takes all entries that there are");
                all += FULL_TABLE;
        }
        life_check(xen_grants_give(bed.lost.region, bed.lost.region_size, bed.staying->domid, false, &runs, &n_runs,
                                   &failure) == -E2BIG,
                   "full tables give nothing");
        printf("%zu tables are full with %u entries: %s\n", n, all, failure.sentence);
        for (size_t i = 0; i < n; i++) {
                xen_table_revoke(&tables[i], 0x80000000, FULL_TABLE);
                xen_table_forget(&tables[i], 0x80000000, FULL_TABLE, bed.staying->domid);
                xen_domain_unmap_table(host, handles[i]);
        }
        free(domains);
        xen_host_close(host);
}

static struct life_grant carve(uint64_t addr, uint64_t region_size, uint64_t size) {
        life_carve(addr, region_size);
        life_verify(addr);
        check_zero(addr, region_size);
        return (struct life_grant){ .region = addr, .region_size = region_size, .addr = addr, .size = size };
}

static void first_life(void *userdata) {
        struct source_run run;
        struct xen_table_use use;

        life_open("400M");
        life_check(life_kept() == 0, "there is nothing yet");
        bed.held = life_grow(256 * MIB, UINT64_MAX, &run);
        printf("%" PRIu64 " MiB of Xen's in %zu pieces, joined the largest is of %" PRIu64 " MiB at 0x%" PRIx64 "\n",
               bed.held / MIB,
               life_arrived()->n_arrived, run.size / MIB, run.addr);
        life_check(run.size >= (uint64_t)KEPT * PAGE, "there is a large piece");
        bed.kept = carve(run.addr, run.size > 160 * MIB ? 160 * MIB : run.size, (uint64_t)KEPT * PAGE);
        bed.held += life_grow(32 * MIB, NARROW, &run);
        for (size_t i = 0; i < life_arrived()->n_arrived; i++)
                life_check(life_arrived()->arrived[i].addr + life_arrived()->arrived[i].size - 1 <= NARROW, "a mask is kept");
        printf("%" PRIu64 " MiB at 0x%" PRIx64 " are below 512 MiB, as asked for\n", run.size / MIB, run.addr);
        life_check(run.size >= 32 * MIB, "32 MiB come in one piece");
        bed.doomed = carve(run.addr, (uint64_t)DOOMED * PAGE, (uint64_t)DOOMED * PAGE);
        bed.held += life_grow(16 * MIB, UINT64_MAX, &run);
        life_check(run.size >= 16 * MIB, "16 MiB come in one piece");
        bed.lost = carve(run.addr, (uint64_t)LOST * PAGE, (uint64_t)LOST * PAGE);
        straddle(&bed.kept);
        fill(&bed.kept, 0, "page", true);
        fill(&bed.doomed, 0, "page", true);
        fill(&bed.lost, 0, "page", true);
        give(&bed.kept, bed.staying->domid);
        give(&bed.doomed, bed.dying->domid);
        fill_tables();
        give(&bed.lost, bed.dying->domid);
        life_say(&bed, sizeof(bed));
        life_wait();
        /* Guests have mapped everything, and answered in every page. */
        fill(&bed.kept, PAGE / 2, "seen", false);
        fill(&bed.doomed, PAGE / 2, "seen", false);
        life_check(xen_grants_look(bed.kept.addr, bed.kept.size,
                                   &use) == 0 && use.granted == KEPT && use.reading == KEPT &&
                           use.writing == KEPT, "Xen says that all of it is mapped");
        life_say("", 1);
        life_wait();
}

static bool touches(const struct life_grant *grant) {
        for (size_t i = 0; i < life_arrived()->n_arrived; i++) {
                const struct source_run *run = &life_arrived()->arrived[i];

                if (run->addr < grant->addr + grant->size && grant->addr < run->addr + run->size)
                        return true;
        }
        return false;
}

/* It knows of two regions. The third is nobody's any more, but a guest has it. */
static void second_life(void *userdata) {
        struct source_run run;
        struct xen_table_use use;
        uint64_t got;

        life_open("400M");
        life_check(life_kept() == bed.held, "all that the first life had is found");
        life_adopt(bed.kept.region, bed.kept.region_size);
        life_adopt(bed.doomed.region, bed.doomed.region_size);
        find_again(&bed.kept, bed.staying->domid);
        find_again(&bed.doomed, bed.dying->domid);
        life_verify(bed.kept.addr);
        fill(&bed.kept, PAGE / 2, "seen", false);
        life_check(life_reclaim(&got) == -EBUSY && !touches(&bed.lost), "what a guest has mapped does not come back");
        life_check(got == bed.held - bed.kept.region_size - bed.doomed.region_size - bed.lost.size, "all the rest does");
        life_grow(64 * MIB, UINT64_MAX, &run);
        life_check(!touches(&bed.lost) && !touches(&bed.kept) && !touches(&bed.doomed), "Xen does not give it again either");
        bed.held += 64 * MIB;
        life_check(xen_grants_revoke(bed.kept.addr, bed.kept.size) == 0, "grants are revoked");
        xen_grants_look(bed.kept.addr, bed.kept.size, &use);
        life_check(use.granted == 0 && use.busy == KEPT, "they are in use still");
        life_say(&bed.held, sizeof(bed.held));
        life_wait();
}

static void reclaim_all(uint64_t wanted, const char *what) {
        uint64_t got, sum = 0;
        int r;

        for (int64_t until = xen_now_ms() + 60000; (r = life_reclaim(&got)) == -EBUSY && xen_now_ms() < until; sum += got)
                poll(NULL, 0, 20);
        life_check(r == 0 && sum + got == wanted, what);
}

static void third_life(void *userdata) {
        const uint64_t rest = bed.kept.region_size - bed.kept.size;
        uint64_t got, sum = 0;

        life_open("400M");
        life_check(life_kept() == bed.held, "all that the second life had is found");
        life_adopt(bed.kept.region, bed.kept.region_size);
        life_check(life_restore(bed.kept.region) == -EBUSY && !touches(&bed.kept), "a region that is in use does not "
                   "end as a whole");
        for (size_t i = 0; i < life_arrived()->n_arrived; i++)
                sum += life_arrived()->arrived[i].size;
        /* Some of it the guest could have mapped: it must have run since. */
        for (int64_t until = xen_now_ms() + 60000; sum < rest && xen_now_ms() < until; sum += got) {
                life_check(life_reclaim_later(&got) == -EBUSY && !touches(&bed.kept), "what is mapped does not come back");
                poll(NULL, 0, 20);
        }
        life_check(sum == rest, "what of it is not in use comes back");
        life_check(life_reclaim(&got) == -EBUSY && !touches(&bed.kept) && !touches(&bed.doomed) && !touches(&bed.lost),
                   "nothing that is mapped comes back");
        life_say("", 1);
        life_wait();
        /* The guest that stays has it no more. */
        for (sum = 0; sum < bed.kept.size; sum += got) {
                life_check(life_reclaim(&got) == -EBUSY, "the other guest has its memory still");
                poll(NULL, 0, 20);
        }
        life_carve(bed.kept.addr, bed.kept.size);
        check_zero(bed.kept.addr, bed.kept.size);
        life_check(life_restore(bed.kept.addr) == 0, "what nobody has comes back at once");
        life_say("", 1);
        life_wait();
        reclaim_all(bed.doomed.size + bed.lost.size, "a dead guest's memory comes back");
        life_shrink(0, UINT64_C(1) << 40);
        life_say("", 1);
        life_wait();
        life_close();
}

/* ---- kills at any moment ---- */

static bool has_all_memory(void *userdata) {
        const uint64_t *before = userdata;

        return xen_free_pages() == *before;
}

/* Memory comes, is a region with something in it, and goes, until it is killed. */
static void busy_life(void *userdata) {
        struct source_run run;
        uint64_t got;

        life_open("64M");
        life_check(life_reclaim(&got) == 0, "all that was left comes back");
        if (got)
                life_shrink(0, UINT64_C(1) << 40);
        life_say("", 1);
        for (;;) {
                life_grow(10 * MIB, UINT64_MAX, &run);
                life_carve(run.addr, run.size);
                life_write(run.addr, "secret", sizeof("secret"));
                life_write(run.addr + run.size - PAGE, "secret", sizeof("secret"));
                life_check(life_restore(run.addr) == 0, "a region ends");
                life_shrink(0, UINT64_C(1) << 40);
        }
}

/* What the last one of them left. */
static void heir_life(void *userdata) {
        struct xen_domain *domains = NULL;
        struct xen_host *host = NULL;
        uint64_t got, pages = 0, identity;
        size_t n = 0;

        life_check(xen_host_open(&host, NULL, NULL) == 0 && xen_identity_find(&identity) == 0 &&
                           xen_domains_find(host, identity, &domains, &n) == 0,
                   "the memory domains are found");
        for (size_t i = 0; i < n; i++)
                pages += domains[i].pages;
        free(domains);
        xen_host_close(host);
        life_open("64M");
        life_check(life_kept() == pages * PAGE, "every page of every memory domain is known");
        life_check(life_reclaim(&got) == 0 && got == pages * PAGE, "all of it comes back");
        if (got) {
                const struct source_run run = life_arrived()->arrived[0];

                life_carve(run.addr, run.size);
                check_zero(run.addr, run.size);
        }
        life_close();
}

void xen_test_kills(void) {
        uint64_t before = xen_free_pages();
        enum { KILLS = 20 };
        unsigned left = 0;
        struct life life;
        char byte;

        for (unsigned i = 0; i < KILLS; i++) {
                life_begin(&life, busy_life, NULL);
                life_hear(&life, &byte, 1);
                poll(NULL, 0, (int)(i * 37 % 101));
                kill(life.pid, SIGKILL);
                life_reap(&life);
                left += xen_free_pages() < before;
        }
        life_begin(&life, heir_life, NULL);
        life_await(&life);
        xen_await("after all of them Xen has what it had", has_all_memory, &before);
        printf("%d kills, %u of which left memory behind\n", KILLS, left);
}

/* ---- what guests do ---- */

static void expect(struct xen_guest *guest, const char *line, const char *answer, const char *what) {
        const char *got = xen_tell(guest, line);

        if (strcmp(got, answer) != 0)
                xen_give_up("%s: %s instead of %s", what, got, answer);
        printf("ok: %s\n", what);
}

static const char *map_line(unsigned place, const struct life_grant *grant) {
        static char line[1024];
        int n = snprintf(line, sizeof(line), "map %u", place);

        for (uint32_t i = 0; i < grant->n_runs; i++)
                n += snprintf(line + n, sizeof(line) - (size_t)n, " %u:%u+%u", grant->runs[i].domid, grant->runs[i].first,
                              grant->runs[i].count);
        return line;
}

static void map(struct xen_guest *guest, unsigned place, const struct life_grant *grant) {
        const int64_t began = xen_now_ms();
        char answer[32], line[32];

        snprintf(answer, sizeof(answer), "ok %" PRIu64, grant->size / PAGE);
        expect(guest, map_line(place, grant), answer, "a guest maps what it was granted");
        printf("%s maps %s in %u runs after %lld ms\n", guest->name, answer + 3, grant->n_runs,
               (long long)(xen_now_ms() - began));
        snprintf(line, sizeof(line), "see %u", place);
        expect(guest, line, answer, "it sees every page in its place");
}

static void check_frames(struct xen_guest *guest, const struct life_grant *grant) {
        char answer[64];

        snprintf(answer, sizeof(answer), "ok 0x%" PRIx64 " 1", grant->addr / PAGE);
        expect(guest, "frames 0", answer, "its frames are one run of the machine's, at the address that we say");
}

void xen_test_memory(struct xen_guest *staying, struct xen_guest *dying) {
        unsigned domains;
        struct life life;
        char byte;

        domains = xen_count_domains();
        bed.staying = staying;
        bed.dying = dying;

        life_begin(&life, first_life, NULL);
        life_hear(&life, &bed, sizeof(bed));
        map(staying, 0, &bed.kept);
        map(dying, 0, &bed.doomed);
        if (strcmp(dying->type, "pv") == 0)
                check_frames(dying, &bed.doomed);
        map(dying, 1, &bed.lost);
        expect(dying, map_line(2, &bed.kept), "error: Invalid argument", "a guest cannot map what another was granted");
        life_tell(&life);
        life_hear(&life, &byte, 1);
        life_kill(&life);

        life_begin(&life, second_life, NULL);
        life_hear(&life, &bed.held, sizeof(bed.held));
        life_kill(&life);

        life_begin(&life, third_life, NULL);
        life_hear(&life, &byte, 1);
        expect(staying, "see 0", "ok 8192", "what is mapped is as it was");
        expect(staying, "unmap 0", "ok", "a guest unmaps");
        expect(staying, map_line(0, &bed.kept), "error: Invalid argument", "what was revoked cannot be mapped");
        life_tell(&life);
        life_hear(&life, &byte, 1);
        expect(dying, "see 0", "ok 6144", "what the other guest has mapped is as it was");
        xen_say(dying, "crash");
        xen_await_end(dying);
        life_tell(&life);
        life_hear(&life, &byte, 1);
        xen_check(xen_count_domains() == domains - 1, "memory domains that are empty have ended");
        life_tell(&life);
        life_await(&life);
}
