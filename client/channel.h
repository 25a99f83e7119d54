/* One connection to a daemon: lines of JSON and the file descriptors that come with them. Knows nothing of calls.
 *
 * It is shared: everyone who uses it holds a reference, and the socket is closed with the last one, so that nobody ever
 * reads from or writes to a descriptor that has become something else. One thread at a time may receive; any number may
 * send. */
#ifndef DMAB_CLIENT_CHANNEL_H
#define DMAB_CLIENT_CHANNEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "proto/fdpass.h"

enum {
        CHANNEL_FDS_MAX = FDPASS_MAX,   /* with one message */
        CHANNEL_MESSAGE_MAX = 64 << 20, /* bytes of one message: a list of everything stays far below */
};

struct channel;

/* Connect to the socket at path. *ret has one reference. Errors as dmab_connect(), with a sentence. */
int channel_connect(const char *path, struct channel **ret);

/* The same with a connection that is there: fd, a stream socket, on which no descriptors come. The ids of its requests are
 * strings that begin with prefix (port.h). Consumes fd, also on failure. -ENOMEM with a sentence. */
int channel_adopt(int fd, const char *prefix, struct channel **ret);

/* What the ids of its requests begin with; "": nothing, they are numbers. Whoever receives sees numbers in any case. */
const char *channel_prefix(const struct channel *channel);

struct channel *channel_ref(struct channel *channel);
/* Returns NULL; NULL is fine. */
struct channel *channel_unref(struct channel *channel);

/* Send the pieces as one message (they end with the LF). 0, or -errno without a sentence: the channel is of no use any
 * more. Consumes the array's content. Thread-safe. */
int channel_send(struct channel *channel, struct iovec *pieces, size_t n_pieces);

/* What came: both are the callee's, which closes what it does not keep. */
typedef void (*channel_message_fn)(json_t *message, const int *fds, size_t n_fds, void *userdata);

/* Wait for bytes, at most timeout_ms (-1: for ever), and call fn for each message that is complete. 0 when something
 * came, complete or not. -ETIMEDOUT; any other -errno, without a sentence: the channel is of no use any more. One
 * thread at a time. */
int channel_receive(struct channel *channel, int timeout_ms, channel_message_fn fn, void *userdata);

/* What becomes readable when something comes; for poll() only. */
int channel_fd(const struct channel *channel);

/* End the conversation: whoever sends or receives returns with an error, now and from now on. */
void channel_shutdown(struct channel *channel);

/* Close the process's copy of the socket without a word to the daemon: for the child of a fork, which is the only
 * thread there is and the only holder that counts. */
void channel_abandon(struct channel *channel);

#endif
