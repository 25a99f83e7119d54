/* Why a call failed, remembered for the calling thread: what dmab_last_error() and its sisters tell. */
#ifndef DMAB_CLIENT_ERROR_H
#define DMAB_CLIENT_ERROR_H

#include <jansson.h>
#include <stdbool.h>

/* Remember a sentence. Returns -error, so that a caller can `return error_set(EINVAL, ...)`. */
int error_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with a stable token for dmab_last_reason(). */
int error_set_reason(int error, const char *reason, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Remember the error object of a reply (borrowed). Returns the negative errno that it stands for; -EPROTO if it is not
 * an error object of the protocol. */
int error_set_reply(json_t *object);

/* Say the last error with another sentence: its reason and its JSON stay. */
void error_reword(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Does the last error have this reason? */
bool error_is(const char *reason);

/* Does the daemon's error object of it have this member in its data? */
bool error_has(const char *member);

/* After how many milliseconds the daemon wants to be asked again, since there were too many calls; 0: that was not why. */
unsigned error_retry_ms(void);

/* Put the thread's last error aside and bring it back: for cleanup whose own failures must not hide the first one. */
struct error_state;
struct error_state *error_save(void);
/* Frees saved; NULL is fine and changes nothing. */
void error_restore(struct error_state *saved);

#endif
