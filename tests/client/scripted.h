/* A daemon that does what a test says, line by line: for what a real one does not do on demand. The library runs on a
 * thread of its own meanwhile. Every wait has a deadline; what does not come fails the test. */
#ifndef DMAB_TESTS_CLIENT_SCRIPTED_H
#define DMAB_TESTS_CLIENT_SCRIPTED_H

#include <stdbool.h>
#include <stddef.h>

struct scripted;

struct scripted *scripted_new(void);
void scripted_free(struct scripted *scripted);

/* The same daemon with another connection: for what the library's agent says on its own. Ends before it. */
struct scripted *scripted_beside(const struct scripted *scripted);

/* For dmab_connect(); lives as long as scripted. */
const char *scripted_uri(const struct scripted *scripted);

/* Accept the next connection; it replaces the one before, which is closed. */
void scripted_accept(struct scripted *scripted);
void scripted_hang_up(struct scripted *scripted);
/* No connection is accepted any more: the socket's file is removed. And again, as by a daemon that was started anew. */
void scripted_vanish(struct scripted *scripted);
void scripted_return(struct scripted *scripted);

/* Read the next request, which must be of that method. Returns its parameters as JSON text ("" for none), until the
 * next call. */
const char *scripted_expect(struct scripted *scripted, const char *method);
/* The id of that request. */
long long scripted_id(const struct scripted *scripted);

/* Send bytes as they are, with descriptors on the first one. */
void scripted_send(struct scripted *scripted, const char *bytes, const int *fds, size_t n_fds);
/* Answer the last request that was read, or another one. */
void scripted_result(struct scripted *scripted, const char *result);
void scripted_result_of(struct scripted *scripted, long long id, const char *result);
void scripted_error(struct scripted *scripted, int code, const char *reason, const char *message);

/* There were too many calls: "quota", and retry_ms. */
void scripted_too_often(struct scripted *scripted);

/* Expect broker.hello and answer it. Returns its parameters, as scripted_expect(). */
const char *scripted_hello(struct scripted *scripted);
/* The same as somebody else, with another limit; scripted_hello() is "secret", "user:42" and 2. */
const char *scripted_hello_as(struct scripted *scripted, const char *session, const char *owner, int calls_in_flight);
/* Both of it: accept and say hello. */
void scripted_welcome(struct scripted *scripted);
/* Expect broker.bye and answer it. */
void scripted_bye(struct scripted *scripted);

/* Is there nothing to read now? For what must not have been sent when something else has come back already. */
bool scripted_is_silent(const struct scripted *scripted);

#endif
