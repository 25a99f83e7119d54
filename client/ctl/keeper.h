/* Keeps a session alive that nothing is asked of: a daemon that was started anew ends those that do not come back to it. */
#ifndef DMAB_CTL_KEEPER_H
#define DMAB_CTL_KEEPER_H

#include <stdbool.h>

#include "client/ctl/ctl.h"

struct keeper;

/* Looks after ctl's session from a thread of its own, which gets no signal that is blocked here. When it is lost, says so and
 * sends the process `signal_number`, unless that is 0. NULL: no thread can be started, and nobody looks. */
struct keeper *keeper_start(struct ctl *ctl, int signal_number);

/* False: the session is lost; or the daemon does not answer, and ctl has no session any more, which is left to it. NULL is
 * fine. */
bool keeper_end(struct keeper *keeper);

#endif
