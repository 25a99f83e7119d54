/* Rights of the process that are needed once. */
#ifndef DMAB_DAEMON_PRIVILEGES_H
#define DMAB_DAEMON_PRIVILEGES_H

/* Give up CAP_SYS_ADMIN for good, in this thread and those that it makes from now on. 0, -errno. */
int privileges_drop(void);

#endif
