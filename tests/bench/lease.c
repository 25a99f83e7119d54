/* P14: large contiguous blocks through leases, and the dma address of a pointer, beside DPDK's memzones and IOVA look-up. */
#include <dmabroker.h>
#include <err.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tests/bench/peer-dpdk.h"
#include "tests/bench/table.h"
#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"

enum { N_RUNS = 31, LARGE = 2 << 20, LARGES = 200, LOOKUPS = 20000, DPDK_MIB = 64 };

static void check(int r) {
        if (r)
                errx(1, "%s", dmab_last_error());
}

static double block_time(dmab_pool_t *pool) {
        uint64_t start = table_now();
        dmab_addr_t dma;
        void *vaddr;

        for (int i = 0; i < LARGES; i++) {
                check(dmab_pool_alloc(pool, 0, &vaddr, &dma));
                check(dmab_pool_free(pool, vaddr, dma));
        }
        return (double)(table_now() - start) / LARGES;
}

static double lookup_time(dmab_device_t *device, char *vaddr) {
        volatile dmab_addr_t sink;
        uint64_t start = table_now();
        dmab_addr_t dma;

        for (int i = 0; i < LOOKUPS; i++) {
                check(dmab_dma_addr(device, vaddr + (i & 65535), &dma));
                sink = dma;
        }
        (void)sink;
        return (double)(table_now() - start) / LOOKUPS;
}

static bool dpdk_start(const char *program) {
        int r = test_hugepages_reserve(DPDK_MIB / 2);

        if (!r)
                r = peer_dpdk_start(program, DPDK_MIB);
        if (r)
                fprintf(stderr, "DPDK is missing: %s\n", r == -ENOTSUP ? "built without libdpdk" : strerror(-r));
        return !r;
}

static void print(const char *what, const char *peer, double *theirs, double *ours) {
        double peer_figure = table_median(theirs, N_RUNS), figure = table_median(ours, N_RUNS);

        table_print(&(struct table_row){ "P14", what, peer, peer_figure, figure, "ns", "<= 1x",
                                         table_met_ratio(figure, peer_figure, 1) });
}

int main(int argc, char **argv) {
        static double large[2][N_RUNS], lookup[2][N_RUNS];
        struct test_daemon *daemon;
        dmab_device_t *device;
        dmab_pool_t *pool;
        bool has_dpdk;
        dmab_addr_t dma;
        cpu_set_t set;
        char uri[256];
        void *vaddr;
        dmab_t *dmab;

        if (test_daemon_start(NULL, &daemon))
                return 1;
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        check(dmab_connect(uri, &dmab));
        check(dmab_device_open(dmab, "bench", NULL, &device));
        check(dmab_pool_create("large", device, LARGE, 0, 0, NULL, &pool));
        check(dmab_alloc_coherent(device, 128 << 10, 0, &vaddr, &dma));
        has_dpdk = dpdk_start(argv[0]);
        CPU_ZERO(&set);
        CPU_SET(0, &set);
        sched_setaffinity(0, sizeof(set), &set);
        block_time(pool);
        for (int run = 0; run < N_RUNS; run++) {
                large[0][run] = has_dpdk ? peer_dpdk_memzone(LARGE, LARGES) : NAN;
                large[1][run] = block_time(pool);
                lookup[0][run] = has_dpdk ? peer_dpdk_iova(LOOKUPS) : NAN;
                lookup[1][run] = lookup_time(device, vaddr);
        }
        print("2 MiB taken and given back", "memzone", large[0], large[1]);
        print("the dma address of a pointer", "virt2iova", lookup[0], lookup[1]);
        dmab_disconnect(dmab);
        return test_daemon_end(daemon) < 0;
}
