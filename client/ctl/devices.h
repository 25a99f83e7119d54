/* Devices as operands: by number or by name. */
#ifndef DMAB_CTL_DEVICES_H
#define DMAB_CTL_DEVICES_H

#include "client/ctl/ctl.h"

/* The number of an open device of the caller's that is given by number or name. CTL_FAILURE after complaining when no
 * such device is open, or more than one has that name. */
enum ctl_status devices_resolve(struct ctl *ctl, const char *text, uint64_t *ret);

/* What a device is called that is opened because none was named. */
#define DEVICES_OWN "dmabrokerctl"

/* The device of the option --device: an open one, by number or name; or else a new one of that name, with the parent that
 * --parent names. It ends with this session unless something keeps it. params, which is released, has what else
 * device.open shall be told of a new one; then no open device is taken. */
enum ctl_status devices_get(struct ctl *ctl, json_t *params, uint64_t *ret);

/* device.open's parameters out of the options --parent, --mask, --coherent-mask, --boundary, --max-segment,
 * --min-align-mask and --node, of those that the verb has. On failure params is released. */
enum ctl_status devices_open_params(struct ctl *ctl, const char *name, json_t **ret);

#endif
