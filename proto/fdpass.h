/* File descriptors over UNIX sockets, and the bytes that they travel with. Plain system calls on a socket that may be
 * non-blocking; nothing is kept between calls. */
#ifndef DMAB_PROTO_FDPASS_H
#define DMAB_PROTO_FDPASS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { FDPASS_MAX = 32 };

/* Bytes sent, at least 1, or -errno (-EAGAIN: the socket is full; -EINVAL: nothing to send, or more than FDPASS_MAX
 * descriptors). The descriptors are borrowed; they have gone with the first byte if anything was sent, so what
 * remains is sent without them. Never raises SIGPIPE. n_pieces at most IOV_MAX. */
ssize_t fdpass_send(int socket, const struct iovec *pieces, size_t n_pieces, const int *fds, size_t n_fds);

/* Bytes received, 0 at the end, or -errno. Up to FDPASS_MAX descriptors, close-on-exec, become the caller's; they
 * belong to the line that the last byte received belongs to. -EPROTO: some were lost because there were too many, or
 * no room in the table of open files; those that arrived are closed, and the stream cannot be trusted any more. */
ssize_t fdpass_receive(int socket, void *buffer, size_t size, int ret_fds[FDPASS_MAX], size_t *ret_n_fds);

/* For a side that accepts none: the kernel closes them before they take a place in the table of open files.
 * *ret_refused tells whether there were any. */
ssize_t fdpass_receive_none(int socket, void *buffer, size_t size, bool *ret_refused);

#endif
