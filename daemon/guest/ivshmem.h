/* One window into a guest: a server for QEMU's ivshmem-doorbell device, which hands it one piece of memory.
 *
 * The happy path: QEMU connects to the socket, is told at once the version, its number, the memory and the descriptors
 * that interrupt the guest, and maps the memory. Nothing more is ever said, and nothing is read but the end of the
 * connection.
 *
 * What can go wrong is above all QEMU's own: it reads these messages without a limit of time, stands still with its
 * guest when none comes, and spins for ever when the connection has ended before it has read them, even if they were
 * sent. So nothing is waited for before they are sent; they are sent all in one go, into a socket that has room for
 * them; and whoever gets no memory is told a version that QEMU does not know, which it takes well, and keeps its
 * connection until it ends it itself. This holds for whoever comes while another has the window, for whoever is not
 * admitted, and when there is no descriptor left. Closing the server waits up to two seconds for those who have not
 * read yet what they were told.
 *
 * The memory must have a power of two of bytes, for it becomes a PCI BAR of QEMU's, which ends itself over any other
 * size. */
#ifndef DMAB_GUEST_IVSHMEM_H
#define DMAB_GUEST_IVSHMEM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <uv.h>

#include "daemon/core/failure.h"

enum {
        IVSHMEM_VECTORS_MAX = 16,
        IVSHMEM_REFUSED_MAX = 8, /* so many refused ones keep their connections; then one loses its own, if possible one that has
                                  * read why */
};

struct ivshmem_options {
        bool is_open; /* everybody can connect, so that admits() must look; else root and the daemon's own user */
        /* Interrupts of the guest, at most IVSHMEM_VECTORS_MAX. Better none where the device may be taken out again: a
         * QEMU that does not leave its interrupts to KVM (7.2) goes on watching their descriptors then, by number, and
         * crashes when the number is used anew. */
        unsigned vectors;
        /* Whether the process that has connected this socket may have the window, which it gets then; must not wait. who is
         * what the kernel says of it. NULL: whoever can connect. */
        bool (*admits)(void *userdata, int fd, const struct ucred *who);
        /* Somebody has the window from now on, or no more: QEMU has ended, or taken the device out. It may still be
         * mapped where the connection only was closed. Not called for who was refused, nor any more once the server is
         * being closed. NULL is fine. */
        void (*changed)(void *userdata, bool connected, const struct ucred *who);
        /* Who was admitted last could not be given it, and has nothing of it. NULL is fine. */
        void (*not_given)(void *userdata);
        void *userdata;
};

struct ivshmem;

/* Listens at path, where a stale socket is replaced. memory_fd is duplicated; its size must stay what it is. options
 * are copied. Callbacks come from the loop, and may close the server. 0, or -errno with a sentence. */
int ivshmem_new(uv_loop_t *loop, const char *path, int memory_fd, const struct ivshmem_options *options, struct ivshmem **ret,
                struct failure *failure);
bool ivshmem_is_connected(const struct ivshmem *server);
/* Interrupt the guest. -ENOTCONN: nobody has the window; -EINVAL: there is no such vector. */
int ivshmem_interrupt(struct ivshmem *server, unsigned vector);

/* Removes the socket if it is still its own, and ends all connections, each when it can be; a guest that has the memory
 * mapped keeps it. Frees itself when its handles are closed, and then calls closed, unless that is NULL. */
void ivshmem_close(struct ivshmem *server, void (*closed)(void *userdata));

#endif
