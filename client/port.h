/* A port: the device over which a guest talks to the broker on its host. It is a virtio port, or what dom0 shares with a guest of
 * Xen's (port-device.h).
 *
 * It differs from a socket: one process at a time has it open, and it is one stream, of which nobody says where a conversation
 * ends. What the daemon says may be an answer to somebody who had the port before; what is sent may get lost when the daemon is
 * restarted behind it. So:
 *
 *  - After every open the library sends 0xFF, which makes the other side forget half a line, and broker.ping with a random id.
 *    Until its answer comes, whatever is received is for somebody else, and dropped. A daemon listens to nothing before the first
 *    0xFF: what was meant for the one before it must not be done by one that does not know the session.
 *  - When the other end closes, when a 0xFF comes, which a daemon sends that begins anew, when lines cannot be read, when an
 *    answer timed out, or when nothing at all is heard for too long while calls wait, then the port is closed. Whoever has a
 *    connection finds it lost, as on a socket, and everything goes on as it does there: join again, resume the session, send
 *    again what may be sent again.
 *
 * The connections of a session, its link's and its agent's, share the port: each is a socket of this process, and a thread of
 * the port passes on whole lines between them and the device. It runs from the first connection to the end of the port. The
 * ids of each connection's requests begin with a random text of its own, by which answers find back, and late ones nobody. */
#ifndef DMAB_CLIENT_PORT_H
#define DMAB_CLIENT_PORT_H

#include <stdbool.h>

struct port;
struct port_device_ops;

enum { PORT_PREFIX_SIZE = 18 }; /* "0123456789abcdef-" */

/* The port at path; nothing is opened yet. -ENOMEM, -EMFILE with a sentence. */
int port_new(const struct port_device_ops *ops, const char *path, struct port **ret);

/* What it is called in sentences, before its path: "virtio port". */
const char *port_kind(const struct port *port);

/* End the thread and close the device. No connection is used any more. Returns NULL; NULL is fine. */
struct port *port_free(struct port *port);

/* Close the copies that the child of a fork has, in which there is no thread. */
void port_abandon(struct port *port);

/* One more connection: *ret_fd is a stream socket of the caller's. The ids of its requests are JSON strings that begin with
 * prefix. events: notifications are passed on to it; it must be read then. Opens the device if it is not open. Thread-safe.
 *
 * -ECONNREFUSED: nobody has the host's end; -ENOENT, -EACCES; -EBUSY: another process has it open; -EINVAL: it is none.
 * With a sentence. */
int port_join(struct port *port, bool events, int *ret_fd, char prefix[PORT_PREFIX_SIZE]);

/* An answer has not come in time: all connections are lost, and the next one begins anew. */
void port_distrust(struct port *port);

#endif
