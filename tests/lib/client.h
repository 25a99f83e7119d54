/* A raw client of the line protocol: it sends exactly the bytes that a test wants and reads one line at a time. It knows
 * no JSON. Every wait has test_timeout_ms() as its deadline, so that a hang is a failure: -ETIMEDOUT. Not thread-safe. */
#ifndef DMAB_TESTS_LIB_CLIENT_H
#define DMAB_TESTS_LIB_CLIENT_H

#include <stddef.h>

#include "tests/lib/identity.h"

struct test_client;

/* as: who connects, NULL for the test itself. Another user needs root: a child becomes that user, connects and hands the
 * connection back, so the daemon's SO_PEERCRED and SO_PEERGROUPS are that user's. Errors of connect() are returned. */
int test_client_connect(const char *path, const struct test_identity *as, struct test_client **ret);
/* The same with a connected socket, which is the client's from now on, also on failure. */
int test_client_adopt(int fd, struct test_client **ret);
void test_client_close(struct test_client *client); /* closes received descriptors that nobody took; NULL is fine */

/* All of it, or -errno (-EPIPE: the daemon hung up). */
int test_client_send(struct test_client *client, const void *bytes, size_t size);
int test_client_send_text(struct test_client *client, const char *text);
/* The same with descriptors on the first byte; they stay the caller's. */
int test_client_send_fds(struct test_client *client, const void *bytes, size_t size, const int *fds, size_t n_fds);

/* As much as fits without waiting; *ret_sent may be 0. For tests of slow readers and floods. */
int test_client_send_some(struct test_client *client, const void *bytes, size_t size, size_t *ret_sent);

/* The next line without its LF, ended by a NUL byte; borrowed until the next call. -ENODATA: the daemon closed the
 * connection; -ECONNRESET likewise. */
int test_client_read_line(struct test_client *client, const char **ret_line);

/* Send line and LF, read the next line. */
int test_client_ask(struct test_client *client, const char *line, const char **ret_line);

/* Read and forget until the daemon closes the connection: 0; -ETIMEDOUT when it does not. */
int test_client_wait_closed(struct test_client *client);

/* The next descriptor that came with what has been read so far, in the order of arrival; the caller's from now on.
 * -1: none. */
int test_client_take_fd(struct test_client *client);

/* The socket itself; still the client's. */
int test_client_fd(const struct test_client *client);

#endif
