#include "client/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/dmabroker.h"

struct error_state {
        char sentence[512];
        char reason[32];
        char *json;
};

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int key_status;

static void state_free(void *pointer) {
        struct error_state *state = pointer;

        if (state)
                free(state->json);
        free(state);
}

static void key_create(void) {
        key_status = pthread_key_create(&key, state_free);
}

/* A thread that ends after the library was unloaded must not run its code. */
static void __attribute__((destructor)) key_destroy(void) {
        if (!pthread_once(&key_once, key_create) && !key_status)
                pthread_key_delete(key);
}

/* The thread's state; NULL if there is no memory for it, and then nothing is remembered. */
static struct error_state *state_get(void) {
        struct error_state *state;

        if (pthread_once(&key_once, key_create) || key_status)
                return NULL;
        state = pthread_getspecific(key);
        if (state)
                return state;
        state = calloc(1, sizeof(*state));
        if (state && pthread_setspecific(key, state)) {
                free(state);
                return NULL;
        }
        return state;
}

static void state_clear(struct error_state *state) {
        free(state->json);
        *state = (struct error_state){ 0 };
}

int error_set(int error, const char *format, ...) {
        struct error_state *state = state_get();
        va_list arguments;

        if (!state)
                return -error;
        state_clear(state);
        va_start(arguments, format);
        vsnprintf(state->sentence, sizeof(state->sentence), format, arguments);
        va_end(arguments);
        return -error;
}

int error_set_reason(int error, const char *reason, const char *format, ...) {
        struct error_state *state = state_get();
        va_list arguments;

        if (!state)
                return -error;
        state_clear(state);
        va_start(arguments, format);
        vsnprintf(state->sentence, sizeof(state->sentence), format, arguments);
        va_end(arguments);
        snprintf(state->reason, sizeof(state->reason), "%s", reason);
        return -error;
}

/* The codes that JSON-RPC itself defines are negative; every other code of the protocol is an errno. */
static int code_errno(json_int_t code) {
        switch (code) {
        case -32601:
                return ENOSYS;
        case -32602:
        case -32600:
        case -32700:
                return EINVAL;
        default:
                return code > 0 && code < 4096 ? (int)code : EPROTO;
        }
}

int error_set_reply(json_t *object) {
        struct error_state *state = state_get();
        const char *message = json_string_value(json_object_get(object, "message"));
        const char *reason = json_string_value(json_object_get(json_object_get(object, "data"), "reason"));
        json_t *code = json_object_get(object, "code");

        if (!json_is_integer(code) || !message)
                return error_set(EPROTO, "the daemon answered with an error that is not one of the protocol");
        if (state) {
                state_clear(state);
                snprintf(state->sentence, sizeof(state->sentence), "%s", message);
                snprintf(state->reason, sizeof(state->reason), "%s", reason ? reason : "");
                state->json = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15));
        }
        return -code_errno(json_integer_value(code));
}

void error_reword(const char *format, ...) {
        struct error_state *state = state_get();
        va_list arguments;

        if (!state)
                return;
        va_start(arguments, format);
        vsnprintf(state->sentence, sizeof(state->sentence), format, arguments);
        va_end(arguments);
}

bool error_is(const char *reason) {
        const char *last = dmab_last_reason();

        return last && !strcmp(last, reason);
}

bool error_has(const char *member) {
        const char *text = dmab_last_error_json();
        json_t *error = text ? json_loads(text, 0, NULL) : NULL;
        bool has = json_object_get(json_object_get(error, "data"), member);

        json_decref(error);
        return has;
}

unsigned error_retry_ms(void) {
        const char *text = error_is("quota") ? dmab_last_error_json() : NULL;
        json_t *error = text ? json_loads(text, 0, NULL) : NULL;
        json_int_t ms = json_integer_value(json_object_get(json_object_get(error, "data"), "retry_ms"));

        json_decref(error);
        return ms > 0 && ms < 60000 ? (unsigned)ms : 0;
}

struct error_state *error_save(void) {
        struct error_state *state = state_get(), *saved = state ? calloc(1, sizeof(*saved)) : NULL;

        if (!saved)
                return NULL;
        *saved = *state;
        state->json = NULL;
        return saved;
}

void error_restore(struct error_state *saved) {
        struct error_state *state = saved ? state_get() : NULL;

        if (state) {
                state_clear(state);
                *state = *saved;
                saved->json = NULL;
        }
        state_free(saved);
}

const char *dmab_last_error(void) {
        struct error_state *state = state_get();

        return state ? state->sentence : "there is not enough memory to remember errors";
}

const char *dmab_last_error_json(void) {
        struct error_state *state = state_get();

        return state ? state->json : NULL;
}

const char *dmab_last_reason(void) {
        struct error_state *state = state_get();

        return state && *state->reason ? state->reason : NULL;
}
