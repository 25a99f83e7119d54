/* On which NUMA node a page is, and on which the calling thread gets its next ones. On a machine with one node all of
 * this costs nothing. */
#ifndef DMAB_SOURCE_NUMA_H
#define DMAB_SOURCE_NUMA_H

/* The node of the page mapped at `at`, or -1 when the kernel does not tell. */
int numa_node_of(void *at);

enum numa_force {
        NUMA_PREFER, /* that node if it has memory, else another one */
        NUMA_ONLY,   /* that node or none */
};

/* From now on the calling thread gets its pages from `node`; -1: wherever the kernel likes. Threads keep their own. */
void numa_use_node(int node, enum numa_force force);

#endif
