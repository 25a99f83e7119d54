#include "daemon/source/numa.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NODES_MAX = 1024 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_nodes, has_many;

/* "0" or "0-3" or "0,2": anything beyond a single number is more than one node. */
static void look(void) {
        char text[64] = "";
        FILE *file;

        file = fopen("/sys/devices/system/node/online", "re");
        if (!file)
                return;
        if (fgets(text, sizeof(text), file)) {
                has_nodes = true;
                has_many = strpbrk(text, ",-") != NULL;
        }
        fclose(file);
}

int numa_node_of(void *at) {
        int node = -1;

        pthread_once(&once, look);
        if (!has_many)
                return has_nodes ? 0 : -1;
        if (syscall(SYS_move_pages, 0, 1UL, &at, NULL, &node, 0) < 0)
                return -1;
        return node < 0 ? -1 : node;
}

void numa_use_node(int node, enum numa_force force) {
        static _Thread_local int now_node = -1;
        static _Thread_local enum numa_force now_force;
        const unsigned bits = 8 * sizeof(unsigned long);
        unsigned long mask[NODES_MAX / (8 * sizeof(unsigned long))] = {};

        pthread_once(&once, look);
        if (!has_many || node >= NODES_MAX || (node == now_node && (node < 0 || force == now_force)))
                return;
        if (node < 0) {
                syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0UL);
        } else {
                mask[(unsigned)node / bits] = 1UL << ((unsigned)node % bits);
                /* The kernel takes one bit less than it is told. A refusal costs speed, never correctness: whoever needs
                 * a certain page looks at the address it got. */
                syscall(SYS_set_mempolicy, force == NUMA_ONLY ? MPOL_BIND : MPOL_PREFERRED, mask, NODES_MAX + 1UL);
        }
        now_node = node;
        now_force = force;
}
