/* The service manager's store for descriptors, which systemd calls FileDescriptorStoreMax=. Thread-safe. */
#ifndef DMAB_SOURCE_KEEP_STORE_H
#define DMAB_SOURCE_KEEP_STORE_H

#include <stdint.h>

/* How many descriptors the store takes; 0: there is none, or the unit does not say so. */
uint64_t keep_store_max(void);

/* Call take() with each descriptor that the manager has passed from its store, CLOEXEC and its own from then on, until it
 * returns something else than 0; returns what the last one did. -errno. */
int keep_store_receive(int (*take)(void *userdata, const char *name, int fd), void *userdata);

/* When it returns 0 the manager has taken the message in. It does not say whether it had room. -ETIMEDOUT, -errno. */
int keep_store_put(const char *name, int fd);
int keep_store_drop(const char *name);

#endif
