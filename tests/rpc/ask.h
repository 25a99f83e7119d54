/* Asking a real daemon over a real socket, and judging what it answers. Everything that does not come as it should fails
 * the test at the line that asked. Parameters are JSON in printf's form, with ' for ". */
#ifndef DMAB_TESTS_RPC_ASK_H
#define DMAB_TESTS_RPC_ASK_H

#include <jansson.h>
#include <stdint.h>

#include "tests/lib/client.h"
#include "tests/lib/daemon.h"

/* A daemon with this configuration on `sim` (NULL: an empty one), which every user can reach. */
struct test_daemon *ask_daemon(const char *config);
struct test_client *ask_connect(struct test_daemon *daemon, const struct test_identity *as);
/* The same; without root the test is skipped, since it needs to become another user. */
struct test_client *ask_connect_as(struct test_daemon *daemon, uid_t uid);

/* A daemon and two connections of the test's own user, an administrator when that is root, of which the first has opened
 * the device card. For cmocka: *state is a struct ask_fixture. */
struct ask_fixture {
        struct test_daemon *daemon;
        struct test_client *client, *other;
        uint64_t device;
};
int ask_set_up(void **state, const char *config);
int ask_tear_down(void **state);

/* Send a request with a new id, without waiting. Returns the id. */
int ask_send(struct test_client *client, const char *method, const char *params, ...) __attribute__((format(printf, 3, 4)));
/* The next line, whatever it is. The caller's; json_decref(). */
json_t *ask_read(struct test_client *client);
/* The next line must be the answer to id: its result, or its error. The caller's. */
json_t *ask_result(struct test_client *client, int id);
json_t *ask_error(struct test_client *client, int id);

/* Ask (method, parameters), wait, demand a result. */
#define ask(client, ...) ask_result(client, ask_send(client, __VA_ARGS__))
/* ... and take one number out of it. */
#define ask_number(client, member, ...) ask_take_number(ask(client, __VA_ARGS__), member)
/* Demand an error with this reason, or code for those of JSON-RPC itself. */
#define ask_refused(client, reason, ...) ask_take_reason(ask_error(client, ask_send(client, __VA_ARGS__)), reason)
#define ask_invalid(client, code, ...) ask_take_code(ask_error(client, ask_send(client, __VA_ARGS__)), code)

/* These consume value. */
uint64_t ask_take_number(json_t *value, const char *member);
uint64_t ask_take_hex(json_t *value, const char *member);
void ask_take_reason(json_t *error, const char *reason);
void ask_take_code(json_t *error, int code);

/* The same without consuming it. */
uint64_t ask_peek_number(const json_t *value, const char *member);
uint64_t ask_peek_hex(const json_t *value, const char *member);

/* Demand that debug.check finds nothing wrong; the client must be an administrator. */
void ask_clean(struct test_client *client);
/* Ask until so many calls wait. */
void ask_until_waiting(struct test_client *client, uint64_t wanted);
/* Ask until ask_books() is this text. */
void ask_until_books(struct test_client *client, const char *wanted);

/* Try until the condition holds; test_timeout_ms() is the deadline. */
#define ask_until(condition)                                                    \
        for (uint64_t ask_end = ask_now_ms() + (uint64_t)test_timeout_ms(); !(condition);) \
                assert_true(ask_now_ms() < ask_end)
uint64_t ask_now_ms(void);

/* Everything that is charged or counted, as a text to be compared. The caller's; free(). */
char *ask_books(struct test_client *client);

/* A device with every address, and one allocation of it. */
uint64_t ask_device(struct test_client *client, const char *name);
uint64_t ask_alloc(struct test_client *client, uint64_t device, uint64_t size);

#endif
