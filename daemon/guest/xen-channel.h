/* The channel of a guest of Xen's: a vchan, of which its dom0 is the server. Memory is shared with the guest, and an event
 * channel tells each end that the other has done something.
 *
 * The happy path: the vchan is made as soon as the domain runs, and xenstore tells the guest where it is. Whenever a program
 * of the guest's opens its end, a conversation begins: a socket that is given to whoever serves guests, and between which and
 * the vchan bytes are passed on. It ends with the program, or when whoever has the socket closes it; then another one may begin.
 *
 * What can go wrong: xenstore does not answer, and it is tried again when it does not say so, and waited for when it says
 * nothing; the guest writes more than is read: it is not read from until there is room; it does not read: what it is told waits
 * in the socket, of which whoever has the other end takes notice; what it writes into indices cannot be: then nothing goes over
 * any more until it mends that; nothing tells of events any more: all of it is ended, and made anew. No guest can do more to its
 * channel than that, and nothing to another one's.
 *
 * All functions belong to the loop's thread, and nothing here waits: what xenstore has to do with is done on other threads. */
#ifndef DMAB_GUEST_XEN_CHANNEL_H
#define DMAB_GUEST_XEN_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct xen_channel;

struct xen_channel_listener {
        /* Whether it is known that the guest runs as this domain: as long as it is not, none is made. */
        bool (*runs)(void *userdata);
        /* A program of the guest's has come; the descriptor is the callee's. */
        void (*connected)(void *userdata, int fd);
};

/* uuid: of the guest, who must be this domain when it is made; name: of the guest, for the log. These, ops and userdata outlive
 * it. 0 or -errno. -ENOPKG: this host has no libxenvchan. */
int xen_channel_new(uv_loop_t *loop, uint32_t domid, const char *uuid, const char *name, const struct xen_channel_listener *ops,
                    void *userdata, struct xen_channel **ret);
/* The guest is hung up on. Calls closed when nothing of it is left on the loop, and then frees itself. NULL is fine, and `closed`
 * is not called then. */
void xen_channel_close(struct xen_channel *channel, void (*closed)(void *userdata), void *userdata);

#endif
