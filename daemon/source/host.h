/* What the host's memory is like, as /proc/meminfo tells. */
#ifndef DMAB_SOURCE_HOST_H
#define DMAB_SOURCE_HOST_H

#include <stdint.h>

/* Bytes that could be had without swapping (MemAvailable), as the kernel estimates; 0: it does not say. */
uint64_t host_available(void);

#endif
