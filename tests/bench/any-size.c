/* P4: memory of any size, with 64 blocks alive of which a random one is freed and taken anew, beside DPDK's rte_malloc in
 * legacy mode and mimalloc. Many short turns, interleaved; medians. */
#include <dlfcn.h>
#include <dmabroker.h>
#include <err.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/peer-dpdk.h"
#include "tests/bench/table.h"
#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"

enum { N_RUNS = 51, N_LIVE = 64, N_STEPS = 2000, DPDK_MIB = 64 };

static dmab_device_t *device;
static void *(*mi_malloc)(size_t size);
static void (*mi_free)(void *at);

static void *broker_alloc(size_t size) {
        dmab_addr_t dma;
        void *vaddr;

        return dmab_alloc(device, size, 0, &vaddr, &dma) ? NULL : vaddr;
}

static void broker_release(void *at) {
        if (dmab_free(device, at))
                errx(1, "%s", dmab_last_error());
}

static void *mimalloc_alloc(size_t size) {
        return mi_malloc(size);
}

static void mimalloc_release(void *at) {
        mi_free(at);
}

struct contender {
        const char *name;
        void *(*alloc)(size_t size);
        void (*release)(void *at);
        bool there;
        double runs[N_RUNS];
};

static struct contender contenders[] = {
        { .name = "dmab_alloc", .alloc = broker_alloc, .release = broker_release, .there = true },
        { .name = "rte_malloc", .alloc = peer_dpdk_alloc, .release = peer_dpdk_release },
        { .name = "mimalloc", .alloc = mimalloc_alloc, .release = mimalloc_release },
};
enum { OURS, DPDK, MIMALLOC, CONTENDERS };

static void *take(const struct contender *contender, size_t size) {
        void *at = contender->alloc(size);

        if (!at)
                errx(1, "%s has no %zu bytes: %s", contender->name, size, dmab_last_error());
        return at;
}

/* One free and one allocation. */
static double step_time(const struct contender *contender, size_t size, unsigned seed) {
        void *live[N_LIVE];
        uint64_t start;
        size_t i;

        for (i = 0; i < N_LIVE; i++)
                live[i] = take(contender, size);
        start = table_now();
        for (int step = 0; step < N_STEPS; step++) {
                seed = seed * 1103515245 + 12345;
                i = seed >> 16 & (N_LIVE - 1);
                contender->release(live[i]);
                live[i] = take(contender, size);
        }
        start = table_now() - start;
        for (i = 0; i < N_LIVE; i++)
                contender->release(live[i]);
        return (double)start / N_STEPS;
}

static void measure(size_t size) {
        char what[64];

        for (int run = -1; run < N_RUNS; run++)
                for (int i = 0; i < CONTENDERS; i++) {
                        double time = contenders[i].there ? step_time(&contenders[i], size, run + 2) : NAN;

                        if (run >= 0)
                                contenders[i].runs[run] = time;
                }
        snprintf(what, sizeof(what), "%zu bytes freed and taken, 64 alive", size);
        for (int i = DPDK; i < CONTENDERS; i++) {
                double ours = table_median(contenders[OURS].runs, N_RUNS), peer = table_median(contenders[i].runs, N_RUNS);

                table_print(&(struct table_row){ "P4", what, contenders[i].name, peer, ours, "ns",
                                                 i == DPDK ? "<= 0.5x" : "<= 2x",
                                                 table_met_ratio(ours, peer, i == DPDK ? 0.5 : 2) });
        }
}

static bool dpdk_start(const char *program) {
        int r = test_hugepages_reserve(DPDK_MIB / 2);

        if (!r)
                r = peer_dpdk_start(program, DPDK_MIB);
        if (r)
                fprintf(stderr, "rte_malloc is missing: %s\n", r == -ENOTSUP ? "built without libdpdk" : strerror(-r));
        return !r;
}

static bool mimalloc_start(void) {
        void *library = dlopen("libmimalloc.so.2", RTLD_NOW | RTLD_LOCAL);

        if (library) {
                mi_malloc = (void *(*)(size_t))dlsym(library, "mi_malloc");
                mi_free = (void (*)(void *))dlsym(library, "mi_free");
        }
        if (!mi_malloc || !mi_free)
                fprintf(stderr, "mimalloc is missing: %s\n", dlerror());
        return mi_malloc && mi_free;
}

int main(int argc, char **argv) {
        const size_t sizes[] = { 64, 256, 1024, 4096, 16384, 65536 };
        struct test_daemon *daemon;
        cpu_set_t set;
        char uri[256];
        dmab_t *dmab;

        if (test_daemon_start(NULL, &daemon))
                return 1;
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        if (dmab_connect(uri, &dmab) || dmab_device_open(dmab, "bench", NULL, &device))
                errx(1, "%s", dmab_last_error());
        contenders[DPDK].there = dpdk_start(argv[0]);
        contenders[MIMALLOC].there = mimalloc_start();
        CPU_ZERO(&set);
        CPU_SET(0, &set);
        sched_setaffinity(0, sizeof(set), &set);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
                measure(sizes[i]);
        dmab_disconnect(dmab);
        return test_daemon_end(daemon) < 0;
}
