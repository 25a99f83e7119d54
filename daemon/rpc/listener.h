/* The listening socket: finding it a place, accepting from it. */
#ifndef DMAB_RPC_LISTENER_H
#define DMAB_RPC_LISTENER_H

#include <sys/types.h>

#include "daemon/core/failure.h"
#include "daemon/rpc/server.h"

/* A bound and listening socket at path. A stale socket is replaced; anything else that lies there is left alone, and the
 * sentence says what to do: among other things, use another `option`. */
int listener_bind(const char *path, mode_t mode, const char *option, int *ret_fd, ino_t *ret_inode,
                  struct failure *failure);
/* Remove the socket if it is still the one that was bound. */
void listener_unlink(const char *path, ino_t inode);

/* Consumes fd, also on failure. */
int listener_new(struct server *server, int fd, struct listener **ret);
/* Accepts no more; frees itself when its handles are closed, and then calls server_connection_gone(). */
void listener_close(struct listener *listener);

#endif
