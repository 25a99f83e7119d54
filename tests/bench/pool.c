/* P1, P2, P3: blocks of a pool through the shared library, beside DPDK's rte_mempool with a cache for each core, whose code is
 * inline; and two threads, or two processes, on one pool, beside a list behind a spinlock.
 *
 * Many short turns, and the median of them: a turn in which the machine did something else does not count. */
#include <dmabroker.h>
#include <err.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/peer-dpdk.h"
#include "tests/bench/table.h"
#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"

enum {
        N_RUNS = 201,
        N_LEAST = 7,
        BLOCK = 2048,
        PAIRS = 20000,
        BURST = 64,
        BURSTS = 300,
        BULK = 32,
        BULKS = 2000,
        DPDK_MIB = 64,
};

struct broker {
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;
        dmab_device_t *device;
        dmab_pool_t *pool;
};

static void check(int r) {
        if (r)
                errx(1, "%s", dmab_last_error());
}

static void broker_connect(struct broker *broker) {
        check(dmab_connect(broker->uri, &broker->dmab));
        check(dmab_device_open(broker->dmab, "bench", NULL, &broker->device));
}

static void broker_start(struct broker *broker) {
        if (test_daemon_start(NULL, &broker->daemon))
                exit(1);
        snprintf(broker->uri, sizeof(broker->uri), "unix:%s", test_daemon_socket(broker->daemon));
        broker_connect(broker);
        check(dmab_pool_create("bench", broker->device, BLOCK, 0, 0, NULL, &broker->pool));
}

static void pin(int core) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(core, &set);
        sched_setaffinity(0, sizeof(set), &set);
}

/* ---- one thread ---- */

static double pair_time(dmab_pool_t *pool) {
        uint64_t start = table_now();
        dmab_addr_t dma;
        void *vaddr;

        for (int i = 0; i < PAIRS; i++)
                if (dmab_pool_alloc(pool, 0, &vaddr, &dma) || dmab_pool_free(pool, vaddr, dma))
                        check(1);
        return (double)(table_now() - start) / PAIRS;
}

static double burst_time(dmab_pool_t *pool) {
        uint64_t start = table_now();
        dmab_addr_t dmas[BURST];
        void *vaddrs[BURST];

        for (int i = 0; i < BURSTS; i++) {
                for (int at = 0; at < BURST; at++)
                        if (dmab_pool_alloc(pool, 0, &vaddrs[at], &dmas[at]))
                                check(1);
                for (int at = 0; at < BURST; at++)
                        if (dmab_pool_free(pool, vaddrs[at], dmas[at]))
                                check(1);
        }
        return (double)(table_now() - start) / BURSTS / BURST;
}

static double bulk_time(dmab_pool_t *pool) {
        uint64_t start = table_now();
        dmab_addr_t dmas[BULK];
        void *vaddrs[BULK];

        for (int i = 0; i < BULKS; i++)
                if (dmab_pool_alloc_bulk(pool, 0, BULK, vaddrs, dmas) || dmab_pool_free_bulk(pool, BULK, vaddrs, dmas))
                        check(1);
        return (double)(table_now() - start) / BULKS / BULK;
}

/* ---- two of them ---- */

/* A list behind a spinlock, which both threads fight for. */
struct list {
        int lock __attribute__((aligned(64)));
        void **first;
};

static void list_lock(struct list *list) {
        while (__atomic_exchange_n(&list->lock, 1, __ATOMIC_ACQUIRE))
                while (__atomic_load_n(&list->lock, __ATOMIC_RELAXED))
                        ;
}

static void list_unlock(struct list *list) {
        __atomic_store_n(&list->lock, 0, __ATOMIC_RELEASE);
}

static double list_time(struct list *list) {
        uint64_t start = table_now();

        for (int i = 0; i < PAIRS; i++) {
                void **block;

                list_lock(list);
                block = list->first;
                list->first = *block;
                list_unlock(list);
                list_lock(list);
                *block = list->first;
                list->first = block;
                list_unlock(list);
        }
        return (double)(table_now() - start) / (PAIRS);
}

/* When a turn began and ended, and what it took. */
struct turn {
        uint64_t start, end;
        double time;
};

enum { ON_POOL, ON_LIST, KINDS };

struct two {
        unsigned arrived; /* atomic */
        dmab_pool_t *pool;
        struct list *list;
        struct turn turns[2][KINDS][N_RUNS]; /* of each thread */
};

/* Both begin at once: woken up, one of them would be done before the other one begins. */
static void meet(struct two *two) {
        unsigned arrived = __atomic_add_fetch(&two->arrived, 1, __ATOMIC_ACQ_REL), all = (arrived + 1) / 2 * 2;

        while (__atomic_load_n(&two->arrived, __ATOMIC_ACQUIRE) < all)
                ;
}

static void take_turns(struct two *two, int thread) {
        for (int run = 0; run < N_RUNS; run++)
                for (int kind = 0; kind < KINDS; kind++) {
                        struct turn *turn = &two->turns[thread][kind][run];

                        meet(two);
                        turn->start = table_now();
                        turn->time = kind == ON_POOL ? pair_time(two->pool) : list_time(two->list);
                        turn->end = table_now();
                }
}

static void *second_thread(void *two) {
        pin(1);
        take_turns(two, 1);
        return NULL;
}

static void two_threads(struct broker *broker, struct two *two) {
        static void *blocks[64][8];
        struct list list = { 0 };
        pthread_t thread;

        for (int i = 0; i < 64; i++) {
                blocks[i][0] = list.first;
                list.first = blocks[i];
        }
        two->pool = broker->pool;
        two->list = &list;
        if (pthread_create(&thread, NULL, second_thread, two))
                errx(1, "cannot start a thread");
        take_turns(two, 0);
        pthread_join(thread, NULL);
}

/* The median of the turns during which the other thread was at work for four fifths of the time at least: on a busy machine
 * others do not show what two threads do to each other. NAN: there were not enough of them. */
static double median_of_both(const struct two *two, int kind) {
        double times[N_RUNS];
        size_t n = 0;

        for (int run = 0; run < N_RUNS; run++) {
                const struct turn *a = &two->turns[0][kind][run], *b = &two->turns[1][kind][run];
                uint64_t start = a->start > b->start ? a->start : b->start, end = a->end < b->end ? a->end : b->end;

                if (end > start && (end - start) * 5 >= (a->end - a->start) * 4)
                        times[n++] = a->time;
        }
        return n >= N_LEAST ? table_median(times, n) : NAN;
}

/* The other process works on the same pool until its end of the pipe is closed. */
static void second_process(const struct broker *parent, uint64_t number, int ready, int stop) {
        struct broker own = { 0 };
        dmab_pool_t *pool;

        pin(1);
        memcpy(own.uri, parent->uri, sizeof(own.uri));
        broker_connect(&own);
        check(dmab_pool_open(own.device, number, &pool));
        for (bool first = true;; first = false) {
                struct timeval none = { 0 };
                fd_set set;

                pair_time(pool);
                if (first && write(ready, "", 1) != 1)
                        exit(1);
                FD_ZERO(&set);
                FD_SET(stop, &set);
                if (select(stop + 1, &set, NULL, NULL, &none) > 0)
                        break;
        }
        dmab_disconnect(own.dmab);
        _exit(0);
}

static void two_processes(struct broker *broker, double runs[N_RUNS]) {
        int ready[2], stop[2];
        char byte;
        pid_t child;

        if (pipe(ready) || pipe(stop))
                err(1, "pipe");
        child = fork();
        if (!child) {
                close(stop[1]);
                second_process(broker, dmab_pool_handle(broker->pool), ready[1], stop[0]);
        }
        if (read(ready[0], &byte, 1) != 1)
                errx(1, "the other process has ended");
        for (int run = 0; run < N_RUNS; run++)
                runs[run] = pair_time(broker->pool);
        close(stop[1]);
        waitpid(child, NULL, 0);
}

/* ---- the table ---- */

static void print(const char *id, const char *what, const char *peer, double figure, double ours, double most,
                  const char *target) {
        table_print(&(struct table_row){ id, what, peer, figure, ours, "ns", target, table_met_ratio(ours, figure, most) });
}

static bool dpdk_start(const char *program) {
        int r = test_hugepages_reserve(DPDK_MIB / 2);

        if (!r)
                r = peer_dpdk_start(program, DPDK_MIB);
        if (!r)
                r = peer_dpdk_pool_start(4095, BLOCK, 512);
        if (r)
                fprintf(stderr, "rte_mempool is missing: %s\n", r == -ENOTSUP ? "built without libdpdk" : strerror(-r));
        return !r;
}

int main(int argc, char **argv) {
        static double pair[2][N_RUNS], burst[2][N_RUNS], bulk[2][N_RUNS], processes[N_RUNS];
        static struct two two;
        struct broker broker;
        double alone, together;
        bool has_dpdk;

        broker_start(&broker);
        has_dpdk = dpdk_start(argv[0]);
        pin(0);
        bulk_time(broker.pool); /* leases are taken */
        for (int run = 0; run < N_RUNS; run++) {
                pair[0][run] = has_dpdk ? peer_dpdk_pool_pair(PAIRS) : NAN;
                pair[1][run] = pair_time(broker.pool);
                burst[0][run] = has_dpdk ? peer_dpdk_pool_burst(BURSTS) : NAN;
                burst[1][run] = burst_time(broker.pool);
                bulk[0][run] = has_dpdk ? peer_dpdk_pool_bulk(BULKS) : NAN;
                bulk[1][run] = bulk_time(broker.pool);
        }
        alone = table_median(pair[1], N_RUNS);
        print("P1", "a block taken and given back", "rte_mempool", table_median(pair[0], N_RUNS), alone, 0.7, "<= 0.7x");
        print("P1", "64 taken, then 64 given back, each", "rte_mempool", table_median(burst[0], N_RUNS),
              table_median(burst[1], N_RUNS), 0.7, "<= 0.7x");
        print("P2", "32 at once, each", "rte_mempool", table_median(bulk[0], N_RUNS), table_median(bulk[1], N_RUNS), 1.2,
              "<= 1.2x");
        two_threads(&broker, &two);
        two_processes(&broker, processes);
        together = median_of_both(&two, ON_POOL);
        print("P3", "two threads on one pool", "one thread", alone, together, 1.2, "<= 1.2x");
        print("P3", "two threads on one pool", "spinlock and list", median_of_both(&two, ON_LIST), together, 0.2, "<= 0.2x");
        print("P3", "two processes on one pool", "one thread", alone, table_median(processes, N_RUNS), 1.2, "<= 1.2x");
        dmab_disconnect(broker.dmab);
        return test_daemon_end(broker.daemon) < 0;
}
