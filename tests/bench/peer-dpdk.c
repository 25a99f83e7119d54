#include "config.h"

#include "tests/bench/peer-dpdk.h"

#include <errno.h>
#include <math.h>

#ifdef HAVE_DPDK

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_mempool.h>
#include <rte_memzone.h>

#include "tests/bench/table.h"

/* DPDK wants its pages from a hugetlbfs, and not every machine has one mounted. Ours is seen by this process alone. */
static int start_with_pages_from(const char *program, unsigned mib, char *directory) {
        char size[16], prefix[48];
        char *arguments[] = { (char *)program, "--legacy-mem", "-m", size, "--iova-mode=va", "--no-pci",
                              "--no-telemetry", "--no-shconf", "--huge-unlink", "--file-prefix", prefix,
                              "--huge-dir", directory, "-l", "0", "--log-level=error" };
        int r;

        snprintf(size, sizeof(size), "%u", mib);
        snprintf(prefix, sizeof(prefix), "dmabroker-bench-%ld", (long)getpid());
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("hugetlbfs", directory, "hugetlbfs", 0, "pagesize=2M") < 0)
                return -errno;
        r = rte_eal_init(sizeof(arguments) / sizeof(arguments[0]), arguments) < 0 ? -EIO : 0;
        umount2(directory, MNT_DETACH); /* what is mapped stays */
        return r;
}

int peer_dpdk_start(const char *program, unsigned mib) {
        char directory[] = "/tmp/dmabroker-bench-XXXXXX";
        int r;

        if (!mkdtemp(directory))
                return -errno;
        r = start_with_pages_from(program, mib, directory);
        rmdir(directory);
        return r;
}

void *peer_dpdk_alloc(size_t size) {
        return rte_malloc(NULL, size, 0);
}

void peer_dpdk_release(void *at) {
        rte_free(at);
}

void peer_dpdk_usage(uint64_t *ret_total, uint64_t *ret_free, uint64_t *ret_largest) {
        struct rte_malloc_socket_stats stats;
        int socket;

        *ret_total = *ret_free = *ret_largest = 0;
        for (socket = 0; socket < RTE_MAX_NUMA_NODES; socket++) {
                if (rte_malloc_get_socket_stats(socket, &stats) < 0)
                        continue;
                *ret_total += stats.heap_totalsz_bytes;
                *ret_free += stats.heap_freesz_bytes;
                if (stats.greatest_free_size > *ret_largest)
                        *ret_largest = stats.greatest_free_size;
        }
}

enum { BURST = 64, BULK = 32 };

static struct rte_mempool *pool;

int peer_dpdk_pool_start(unsigned n, unsigned size, unsigned cache) {
        pool = rte_mempool_create("bench", n, size, cache, 0, NULL, NULL, NULL, NULL, SOCKET_ID_ANY, 0);
        return pool ? 0 : -ENOMEM;
}

double peer_dpdk_pool_pair(unsigned turns) {
        uint64_t start = table_now();
        void *object;

        for (unsigned i = 0; i < turns; i++) {
                if (rte_mempool_get(pool, &object))
                        exit(1);
                rte_mempool_put(pool, object);
        }
        return (double)(table_now() - start) / turns;
}

double peer_dpdk_pool_burst(unsigned turns) {
        uint64_t start = table_now();
        void *objects[BURST];

        for (unsigned i = 0; i < turns; i++) {
                for (int at = 0; at < BURST; at++)
                        if (rte_mempool_get(pool, &objects[at]))
                                exit(1);
                for (int at = 0; at < BURST; at++)
                        rte_mempool_put(pool, objects[at]);
        }
        return (double)(table_now() - start) / turns / BURST;
}

double peer_dpdk_pool_bulk(unsigned turns) {
        uint64_t start = table_now();
        void *objects[BULK];

        for (unsigned i = 0; i < turns; i++) {
                if (rte_mempool_get_bulk(pool, objects, BULK))
                        exit(1);
                rte_mempool_put_bulk(pool, objects, BULK);
        }
        return (double)(table_now() - start) / turns / BULK;
}

double peer_dpdk_memzone(size_t size, unsigned turns) {
        uint64_t start = table_now();

        for (unsigned i = 0; i < turns; i++) {
                const struct rte_memzone *zone =
                        rte_memzone_reserve_aligned("bench", size, SOCKET_ID_ANY, RTE_MEMZONE_IOVA_CONTIG, 4096);

                if (!zone || rte_memzone_free(zone))
                        return NAN;
        }
        return (double)(table_now() - start) / turns;
}

double peer_dpdk_iova(unsigned turns) {
        char *at = rte_malloc(NULL, 65536, 0);
        volatile rte_iova_t sink;
        uint64_t start = table_now();

        if (!at)
                return NAN;
        for (unsigned i = 0; i < turns; i++)
                sink = rte_malloc_virt2iova(at); /* it takes the start only */
        (void)sink;
        start = table_now() - start;
        rte_free(at);
        return (double)start / turns;
}

#else

double peer_dpdk_memzone(size_t size, unsigned turns) {
        return NAN;
}

double peer_dpdk_iova(unsigned turns) {
        return NAN;
}

int peer_dpdk_pool_start(unsigned n, unsigned size, unsigned cache) {
        return -ENOTSUP;
}

double peer_dpdk_pool_pair(unsigned turns) {
        return NAN;
}

double peer_dpdk_pool_burst(unsigned turns) {
        return NAN;
}

double peer_dpdk_pool_bulk(unsigned turns) {
        return NAN;
}

int peer_dpdk_start(const char *program, unsigned mib) {
        return -ENOTSUP;
}

void *peer_dpdk_alloc(size_t size) {
        return NULL;
}

void peer_dpdk_release(void *at) {
}

void peer_dpdk_usage(uint64_t *ret_total, uint64_t *ret_free, uint64_t *ret_largest) {
        *ret_total = *ret_free = *ret_largest = 0;
}

#endif
