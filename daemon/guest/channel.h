/* A guest's channel: a UNIX socket to which its QEMU connects, and through which the guest's programs talk with the daemon. Who
 * comes through it is that guest, whatever it says; so nobody may come but QEMU.
 *
 * The happy path: QEMU connects when its guest starts, and again whenever the daemon has been away. What can go wrong: somebody
 * else connects, and is hung up on; there is no descriptor left, and it is tried again. */
#ifndef DMAB_GUEST_CHANNEL_H
#define DMAB_GUEST_CHANNEL_H

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

#include "daemon/core/failure.h"

struct channel_options {
        bool is_open; /* everybody can connect; else root and the daemon's own user */
        /* Somebody has connected, who need not be the guest's QEMU; the descriptor is the callee's. */
        void (*connected)(void *userdata, int fd, const struct ucred *who);
        void *userdata;
};

struct channel;

/* Listens at path, where a socket of a daemon that is gone is replaced. The options are copied. */
int channel_new(uv_loop_t *loop, const char *path, const struct channel_options *options, struct channel **ret,
                struct failure *failure);
const char *channel_path(const struct channel *channel);
/* Hangs up on who has connected. Consumes fd. */
void channel_refuse(struct channel *channel, int fd, pid_t pid, const char *why);
/* Removes the socket. Frees itself when its handles are closed, and then calls closed, unless that is NULL. */
void channel_close(struct channel *channel, void (*closed)(void *userdata));

#endif
