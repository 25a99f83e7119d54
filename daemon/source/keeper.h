/* The keeper: a small process of the daemon's own that holds descriptors while there is no daemon. keep.c is its client.
 *
 * It listens on a SOCK_SEQPACKET socket in the state directory and serves one client, the daemon, which the lock on that
 * directory makes the only one. Each request is one message and has one reply. When the client is gone the keeper waits
 * for another one, for as long as it was told, and then closes everything and ends. The numbers and the layout below are
 * what a daemon and the keeper of an older daemon agree on: they change with KEEPER_VERSION only. */
#ifndef DMAB_SOURCE_KEEPER_H
#define DMAB_SOURCE_KEEPER_H

#include <stdint.h>

enum {
        KEEPER_VERSION = 1,
        KEEPER_NAME_SIZE = 68, /* with the NUL, and with room to a multiple of 4 */
        KEEPER_BATCH = 200,    /* descriptors in one reply; the kernel takes at most 253 */
};

#define KEEPER_SOCKET "keeper"
/* One that is to follow another, until it has everything and the other one is dead. */
#define KEEPER_SOCKET_NEXT "keeper.next"

enum keeper_op {
        KEEPER_HELLO = 1, /* in: keep_ms */
        KEEPER_LIST,      /* in: slot, from which on; the reply has descriptors, and `slot` where to go on, or UINT32_MAX */
        KEEPER_PUT,       /* in: name, and one descriptor; out: slot */
        KEEPER_DROP,      /* in: slot and name */
        KEEPER_END,       /* close everything; the reply comes when that is done, just before the keeper ends */
};

struct keeper_request {
        uint32_t op, slot;
        uint64_t keep_ms;
        char name[KEEPER_NAME_SIZE];
};

struct keeper_item {
        uint32_t slot;
        char name[KEEPER_NAME_SIZE];
};

struct keeper_reply {
        int32_t error; /* 0 or -errno */
        uint32_t version, slot, n;
        int64_t pid;                            /* HELLO: the keeper's */
        struct keeper_item items[KEEPER_BATCH]; /* LIST: n of them, in the order of the descriptors; sent only so far */
};

/* Start a keeper that listens in the directory as the next one, in place of a socket there that nobody listens on. The
 * directory's descriptor stays the caller's. *ret_fd: the caller's connection to it, CLOEXEC; the keeper ends when it is
 * closed and nothing is held. Forks, which is allowed also when there are threads: what the child calls is safe then.
 * -errno. */
int keeper_start(int directory_fd, int *ret_fd);

/* The next one is from here on the one, whose place nobody has any more. -errno. */
int keeper_settle(int directory_fd);

/* Connect to the keeper that an earlier daemon has left, by the name of its socket. *ret_fd: the caller's, CLOEXEC.
 * -ENOENT: there is none; -EPERM: what listens there belongs to another user; -errno. */
int keeper_connect(int directory_fd, const char *name, int *ret_fd);

#endif
