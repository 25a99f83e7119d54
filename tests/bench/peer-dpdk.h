/* DPDK's rte_malloc in its legacy mode: a heap of huge pages that are all taken at the start, and kept. */
#ifndef DMAB_TESTS_BENCH_PEER_DPDK_H
#define DMAB_TESTS_BENCH_PEER_DPDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Start DPDK with a heap of so many MiB, once per process. -ENOTSUP: built without it; -EIO: DPDK refused, and has said
 * why on standard error; it needs root and the huge pages. */
int peer_dpdk_start(const char *program, unsigned mib);

void *peer_dpdk_alloc(size_t size);
void peer_dpdk_release(void *at);
/* Of all heaps, in bytes. */
void peer_dpdk_usage(uint64_t *ret_total, uint64_t *ret_free, uint64_t *ret_largest);

/* A rte_mempool of so many objects with a cache for each core, as rte_pktmbuf_pool_create() makes them. -errno. */
int peer_dpdk_pool_start(unsigned n, unsigned size, unsigned cache);
/* Nanoseconds for one get and one put of one object: in turns; of 64 gets and then 64 puts; and in bulk of 32, for each
 * object. The loops are there and not at the caller, since all of it is inline. */
double peer_dpdk_pool_pair(unsigned turns);
double peer_dpdk_pool_burst(unsigned turns);
double peer_dpdk_pool_bulk(unsigned turns);

/* Nanoseconds to reserve and free a contiguous memzone of so many bytes, and to find the IOVA of an address in rte_malloc()'s
 * memory. NAN: it failed. */
double peer_dpdk_memzone(size_t size, unsigned turns);
double peer_dpdk_iova(unsigned turns);

#endif
