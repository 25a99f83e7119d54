/* What dmab_alloc() keeps for a device. */
#ifndef DMAB_CLIENT_ANY_H
#define DMAB_CLIENT_ANY_H

struct dmab_device;

/* Give the device's size classes back to the daemon as far as nothing is in use; they come again when they are needed. -EBUSY
 * with a sentence: something is. */
int any_sleep(struct dmab_device *device);

/* The device's mask is narrower than before: memory that is given out from now on is below it. */
void any_narrow(struct dmab_device *device);

/* Before the device is freed; its pools are gone already. */
void any_forget(struct dmab_device *device);

#endif
