/* The service manager: readiness, watchdog, sockets that it has opened. Without libsystemd there is none. */
#ifndef DMAB_DAEMON_NOTIFY_H
#define DMAB_DAEMON_NOTIFY_H

#include <stdint.h>

#include "daemon/core/failure.h"

/* state: e.g. "READY=1"; see sd_notify(3). */
void notify(const char *state);
/* Also with the clock that RELOADING=1 needs. */
void notify_reloading(void);
/* How often the watchdog wants to hear, in milliseconds; 0: never. */
uint64_t notify_watchdog_ms(void);
/* The one listening socket that was passed: 1 and *ret_fd, the caller's; 0: none; -errno with a sentence. After keep_open(),
 * to which the other descriptors belong: nobody is told of any after this. */
int notify_take_socket(int *ret_fd, struct failure *failure);

#endif
