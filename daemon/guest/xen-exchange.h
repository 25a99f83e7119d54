/* Frames of guests of Xen's, exchanged without the loop waiting for it. */
#ifndef DMAB_GUEST_XEN_EXCHANGE_H
#define DMAB_GUEST_XEN_EXCHANGE_H

#include <stdint.h>
#include <uv.h>

#include "daemon/guest/guests.h"

/* As guests_exchange() answers. Nothing of it is on the loop any more. */
typedef void (*xen_exchange_over_fn)(void *userdata, const struct failure *failure, const struct exchange_result *result);

/* What the request says is copied, and has been judged. It cannot be called off: Xen ends it soon. The guest is the domain, as
 * long as that has the UUID. 0 or -errno; then `over` is not called. -EOPNOTSUPP in a build without Xen. */
int xen_exchange_begin(uv_loop_t *loop, const struct exchange_request *request, uint32_t domid, const char *uuid,
                       xen_exchange_over_fn over, void *userdata);

#endif
