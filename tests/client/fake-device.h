/* What a device would see and do: the memory behind a dma address, through a mapping of its own that the library knows nothing
 * of. Fails the test when there is no memory of this session. Not thread-safe. */
#ifndef DMAB_TESTS_CLIENT_FAKE_DEVICE_H
#define DMAB_TESTS_CLIENT_FAKE_DEVICE_H

#include <dmabroker.h>
#include <stddef.h>

struct fake_device;

struct fake_device *fake_device_new(dmab_t *dmab);
void fake_device_free(struct fake_device *device);

/* The bytes at [dma, dma + size), which lie in one allocation. Valid until fake_device_free(). */
void *fake_device_at(struct fake_device *device, dmab_addr_t dma, size_t size);

#endif
