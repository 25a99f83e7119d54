/* The state directory: one daemon at a time. */
#ifndef DMAB_DAEMON_STATE_H
#define DMAB_DAEMON_STATE_H

#include "daemon/core/failure.h"

/* Makes the directory if it is missing, refuses it (-EPERM) if anybody but this user and root may change it, and locks it as
 * long as *ret_lock_fd is open, by this process or by nobody after its death. *ret_fd: the directory itself. path NULL: where
 * such things belong for this user. */
int state_open(const char *path, int *ret_fd, int *ret_lock_fd, struct failure *failure);

#endif
