/* P7: a bounced mapping and its end, with the copy, through the shared library against a real daemon, beside memcpy() alone.
 *
 * Warm: one buffer again and again. Cold: the next of many buffers, 256 MiB in all, and for memcpy() a destination as cold.
 * The library hands out the slots that it got back last, which are warm; so there is a line in which as many mappings
 * live at once as make the slots cold as well. All memory of both sides is shared and touched, as the daemon's is. Both take
 * turns, short ones where the caches of a busy machine matter most; every figure is a median. */
#include <dmabroker.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/bench/table.h"
#include "tests/lib/daemon.h"

enum { SIZE = 64 << 10, N_BUFFERS = 4096, N_RUNS = 11, N_WARM_RUNS = 301, N_ROUNDS = 200, N_ALIVE = 1024, N_CALLS = 1 << 20 };

struct bench {
        struct test_daemon *daemon;
        dmab_t *dmab;
        dmab_device_t *device;
        char *buffers, *others; /* N_BUFFERS each */
        char *reached;          /* what the device reaches */
        dmab_addr_t alive[N_ALIVE];
};

static void refuse(const char *what) {
        fprintf(stderr, "%s: %s\n", what, dmab_last_error());
        exit(1);
}

static char *shared(size_t size) {
        char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED)
                exit(1);
        memset(memory, 1, size);
        return memory;
}

static dmab_addr_t map(struct bench *bench, void *buf) {
        dmab_addr_t dma;

        if (dmab_map_single(bench->device, buf, SIZE, DMAB_TO_DEVICE, &dma))
                refuse("map");
        return dma;
}

static void unmap(struct bench *bench, dmab_addr_t dma) {
        if (dmab_unmap_single(bench->device, dma, SIZE, DMAB_TO_DEVICE))
                refuse("unmap");
}

/* Each: nanoseconds of one. */
static double copy_warm(struct bench *bench) {
        uint64_t start = table_now();

        for (size_t i = 0; i < N_ROUNDS; i++) {
                memcpy(bench->others, bench->buffers, SIZE);
                __asm__ volatile("" : : "r"(bench->others) : "memory");
        }
        return (double)(table_now() - start) / N_ROUNDS;
}

static double map_warm(struct bench *bench) {
        uint64_t start = table_now();

        for (size_t i = 0; i < N_ROUNDS; i++)
                unmap(bench, map(bench, bench->buffers));
        return (double)(table_now() - start) / N_ROUNDS;
}

static double copy_cold(struct bench *bench) {
        uint64_t start = table_now();

        for (size_t i = 0; i < N_BUFFERS; i++) {
                memcpy(bench->others + i * SIZE, bench->buffers + i * SIZE, SIZE);
                __asm__ volatile("" : : "r"(bench->others) : "memory");
        }
        return (double)(table_now() - start) / N_BUFFERS;
}

static double map_cold(struct bench *bench) {
        uint64_t start = table_now();

        for (size_t i = 0; i < N_BUFFERS; i++)
                unmap(bench, map(bench, bench->buffers + i * SIZE));
        return (double)(table_now() - start) / N_BUFFERS;
}

/* The oldest of N_ALIVE goes for each that comes. */
static double map_all_cold(struct bench *bench) {
        uint64_t start, took;

        for (size_t i = 0; i < N_ALIVE; i++)
                bench->alive[i] = map(bench, bench->buffers + i * SIZE);
        start = table_now();
        for (size_t i = 0; i < N_BUFFERS; i++) {
                unmap(bench, bench->alive[i % N_ALIVE]);
                bench->alive[i % N_ALIVE] = map(bench, bench->buffers + i * SIZE);
        }
        took = table_now() - start;
        for (size_t i = 0; i < N_ALIVE; i++)
                unmap(bench, bench->alive[i]);
        return (double)took / N_BUFFERS;
}

static double map_in_place(struct bench *bench) {
        uint64_t start = table_now();

        for (size_t i = 0; i < N_CALLS; i++)
                unmap(bench, map(bench, bench->reached));
        return (double)(table_now() - start) / N_CALLS;
}

/* The smallest there is: what is left without the copy. */
static double map_small(struct bench *bench) {
        uint64_t start = table_now();
        dmab_addr_t dma;

        for (size_t i = 0; i < N_CALLS; i++)
                if (dmab_map_single(bench->device, bench->buffers, 1, DMAB_TO_DEVICE, &dma) ||
                    dmab_unmap_single(bench->device, dma, 1, DMAB_TO_DEVICE))
                        refuse("map");
        return (double)(table_now() - start) / N_CALLS;
}

static void start(struct bench *bench) {
        struct test_daemon_options options = { .config = "[source sim]\nlayout = 512M@0x100000000\n" };
        char uri[256];
        dmab_addr_t dma;
        void *vaddr;

        if (test_daemon_start(&options, &bench->daemon))
                exit(1);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(bench->daemon));
        if (dmab_connect(uri, &bench->dmab) || dmab_device_open(bench->dmab, "card", NULL, &bench->device) ||
            dmab_set_bounce(bench->device, 96 << 20, 192 << 20, 0) ||
            dmab_alloc_coherent(bench->device, SIZE, 0, &vaddr, &dma))
                refuse("start");
        bench->reached = vaddr;
        bench->buffers = shared((size_t)N_BUFFERS * SIZE);
        bench->others = shared((size_t)N_BUFFERS * SIZE);
        map_all_cold(bench); /* its pages are there from now on */
}

/* Two CPUs are two caches. */
static void stay_on_one_cpu(void) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(sched_getcpu(), &set);
        sched_setaffinity(0, sizeof(set), &set);
}

static void print(const char *what, const char *peer, double *peers, double *ours, size_t n, const char *target, double most) {
        double figure = peers ? table_median(peers, n) : NAN, own = table_median(ours, n);

        table_print(&(struct table_row){ "P7", what, peer, figure, own, "ns", target, table_met_ratio(own, figure, most) });
}

int main(void) {
        double warm[2][N_WARM_RUNS], cold[2][N_RUNS], all_cold[N_RUNS], small[N_RUNS], in_place[N_RUNS];
        struct bench bench;

        start(&bench);
        stay_on_one_cpu();
        for (size_t i = 0; i < N_WARM_RUNS; i++) {
                warm[0][i] = copy_warm(&bench);
                warm[1][i] = map_warm(&bench);
        }
        for (size_t i = 0; i < N_RUNS; i++) {
                cold[0][i] = copy_cold(&bench);
                cold[1][i] = map_cold(&bench);
                all_cold[i] = map_all_cold(&bench);
                small[i] = map_small(&bench);
                in_place[i] = map_in_place(&bench);
        }
        print("map+unmap of 64 KiB to the device, warm", "memcpy", warm[0], warm[1], N_WARM_RUNS, "<= 1.15x", 1.15);
        print("map+unmap of 64 KiB to the device, cold", "memcpy", cold[0], cold[1], N_RUNS, "<= 1.1x", 1.1);
        print("map+unmap of 64 KiB to the device, cold slots too", "memcpy", cold[0], all_cold, N_RUNS, "<= 1.1x", 1.1);
        print("map+unmap of one byte", NULL, NULL, small, N_RUNS, NULL, 0);
        print("map+unmap in place", NULL, NULL, in_place, N_RUNS, NULL, 0);
        dmab_disconnect(bench.dmab);
        return test_daemon_end(bench.daemon) ? 1 : 0;
}
