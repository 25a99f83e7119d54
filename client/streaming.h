/* What a device has for its streaming mappings: bounce memory for what it cannot reach, and knowledge of what it can. */
#ifndef DMAB_CLIENT_STREAMING_H
#define DMAB_CLIENT_STREAMING_H

#include <stdbool.h>

#include "include/dmabroker.h"

struct dmab_device;

/* When a device is opened. -ENOMEM with a sentence. */
int streaming_new(struct dmab_device *device);
/* When it goes, without a word to the daemon. NULL is fine. */
void streaming_free(struct dmab_device *device);

/* Before it is closed: -EBUSY, with one of them in the sentence, if there are mappings that are known; else give back the
 * bounce memory, so that it does not keep the device open. The next mapping gets it again. */
int streaming_sleep(struct dmab_device *device);

/* Tell on standard error what is still mapped, with DMAB_DEBUG. */
void streaming_report(const struct dmab_device *device, const char *when);

#endif
