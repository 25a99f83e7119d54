/* P14: how soon memory is there. A daemon that is ready with 512 MiB, beside DPDK's start with as much; and 64 MiB that the
 * broker has faulted already, mapped and touched by a program, beside huge pages that it faults itself. */
#include <dmabroker.h>
#include <err.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/peer-dpdk.h"
#include "tests/bench/table.h"
#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"

enum { N_RUNS = 7, READY_MIB = 512, HUGE_PAGE = 2 << 20, PAGES = READY_MIB / 2 + 64 };

#define ATTACH_MOST ((size_t)64 << 20)

/* ---- ready with 512 MiB ---- */

/* DPDK starts once in a process, so each start has a child of its own. NAN: it did not. */
static double dpdk_start_ms(const char *program) {
        double ms = NAN;
        uint64_t start;
        int ends[2];
        pid_t pid;

        if (pipe(ends))
                err(1, "pipe");
        pid = fork();
        if (pid < 0)
                err(1, "fork");
        if (!pid) {
                start = table_now();
                if (!peer_dpdk_start(program, READY_MIB))
                        ms = (double)(table_now() - start) / 1e6;
                _exit(write(ends[1], &ms, sizeof(ms)) != sizeof(ms));
        }
        close(ends[1]);
        if (read(ends[0], &ms, sizeof(ms)) != sizeof(ms))
                ms = NAN;
        close(ends[0]);
        waitpid(pid, NULL, 0);
        return ms;
}

/* From before its fork to its READY=1, which comes when the reserve is there. */
static double daemon_start_ms(void) {
        struct test_daemon_options options = { .source = "hugetlb", .config = "[source hugetlb]\nreserve = 512M\n" };
        struct test_daemon *daemon;
        uint64_t start = table_now();
        double ms;

        if (test_daemon_start(&options, &daemon))
                errx(1, "the daemon does not start");
        ms = (double)(table_now() - start) / 1e6;
        if (test_daemon_end(daemon))
                errx(1, "the daemon does not end");
        return ms;
}

static void compare_starts(const char *program) {
        double theirs[N_RUNS], ours[N_RUNS], peer, figure;

        for (int run = 0; run < N_RUNS; run++) {
                theirs[run] = dpdk_start_ms(program);
                ours[run] = daemon_start_ms();
        }
        peer = table_median(theirs, N_RUNS);
        figure = table_median(ours, N_RUNS);
        table_print(&(struct table_row){ "P14", "ready with 512 MiB", "rte_eal_init", peer, figure, "ms", "<= 0.35x",
                                         table_met_ratio(figure, peer, 0.35) });
}

/* ---- 64 MiB that are faulted already ---- */

static void touch(volatile char *memory, size_t size) {
        for (size_t at = 0; at < size; at += HUGE_PAGE)
                memory[at] = 1;
}

static double fault_us(size_t size) {
        uint64_t start = table_now();
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        double us;

        if (memory == MAP_FAILED)
                err(1, "huge pages of our own");
        touch(memory, size);
        us = (double)(table_now() - start) / 1e3;
        munmap(memory, size);
        return us;
}

/* The call to the daemon included. NAN: there is no such piece. */
static double attach_us(dmab_device_t *device, size_t size) {
        uint64_t start = table_now();
        dmab_addr_t dma;
        void *memory;
        double us;

        if (dmab_alloc_coherent(device, size, DMAB_NOWAIT, &memory, &dma))
                return NAN;
        touch(memory, size);
        us = (double)(table_now() - start) / 1e3;
        if (dmab_free_coherent(device, size, memory, dma))
                errx(1, "%s", dmab_last_error());
        return us;
}

/* What the machine has in one piece is its luck. The region stays the owner's when it is unused. */
static size_t largest_piece(dmab_device_t *device) {
        size_t size = ATTACH_MOST;

        while (size >= HUGE_PAGE && isnan(attach_us(device, size)))
                size /= 2;
        if (size < HUGE_PAGE)
                errx(1, "%s", dmab_last_error());
        return size;
}

static void compare_attaching(void) {
        struct test_daemon_options options = {
                .source = "hugetlb",
                .config = "[memory]\nregion_idle = 600s\nemergency_permille = 0\n[source hugetlb]\nreserve = 512M\n",
        };
        double theirs[N_RUNS], ours[N_RUNS], peer, figure;
        struct test_daemon *daemon;
        dmab_device_t *device;
        char uri[256], what[64];
        dmab_t *dmab;
        size_t size;

        if (test_daemon_start(&options, &daemon))
                errx(1, "the daemon does not start");
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        if (dmab_connect(uri, &dmab) || dmab_device_open(dmab, "bench", NULL, &device))
                errx(1, "%s", dmab_last_error());
        size = largest_piece(device);
        for (int run = 0; run < N_RUNS; run++) {
                theirs[run] = fault_us(size);
                ours[run] = attach_us(device, size);
        }
        peer = table_median(theirs, N_RUNS);
        figure = table_median(ours, N_RUNS);
        snprintf(what, sizeof(what), "%zu MiB that are faulted already, in use", size >> 20);
        table_print(&(struct table_row){ "P14", what, "faulting them", peer, figure, "us", "<= 0.05x",
                                         table_met_ratio(figure, peer, 0.05) });
        dmab_disconnect(dmab);
        if (test_daemon_end(daemon))
                errx(1, "the daemon does not end");
}

int main(int argc, char **argv) {
        int r = test_hugepages_reserve(PAGES);

        if (r) {
                fprintf(stderr, "no huge pages: %s\n", strerror(-r));
                return 77;
        }
        compare_starts(argv[0]);
        compare_attaching();
        return 0;
}
