/* What a session has taken ends with it, so that whoever takes something here stays as long as it is wanted. */
#ifndef DMAB_CTL_HOLD_H
#define DMAB_CTL_HOLD_H

#include "client/ctl/ctl.h"

/* Call a method that takes something, with params, which are released, and hold what it answers. `of` is the parameter that
 * is told with the answer: the device, the pool.
 *
 * The answer is shown, by `show` or if that is NULL member by member, and then this waits to be interrupted. With operands
 * from `command` on, these are run as a command instead, whose status becomes the result when it ends. It finds each member
 * of the answer that is text or a number in its environment, block_size in DMABROKER_BLOCK_SIZE, and of a list the
 * addresses. */
enum ctl_status hold(struct ctl *ctl, const char *method, json_t *params, const char *of, void (*show)(json_t *result),
                     size_t command);

#endif
