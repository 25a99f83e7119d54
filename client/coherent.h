/* Coherent allocations, for dmab_alloc(). */
#ifndef DMAB_CLIENT_COHERENT_H
#define DMAB_CLIENT_COHERENT_H

#include "include/dmabroker.h"

/* dmab_alloc_coherent(), of memory that only coherent_free_any() frees by its address alone. */
int coherent_alloc_any(dmab_device_t *device, size_t size, unsigned flags, void **ret_vaddr, dmab_addr_t *ret_dma);
/* -EFAULT: not the start of such memory. */
int coherent_free_any(dmab_device_t *device, void *vaddr);

#endif
