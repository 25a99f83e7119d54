/* A client that speaks the bare protocol, as a bench needs it: whoever it shall be, without a library between. What goes
 * wrong ends the program. */
#ifndef DMAB_TESTS_BENCH_CALLER_H
#define DMAB_TESTS_BENCH_CALLER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CALLER_CALL(method, params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\",\"params\":" params "}\n"

enum { CALLER_LINE_MAX = 8192 };

struct caller {
        int fd;
        uid_t uid;
        uint64_t device;
        char session[64];
        char line[CALLER_LINE_MAX];
        size_t used, begun; /* of what was read; where the line ends that was told */
};

/* This process and its children run on one core, where it is not the time measured that waking another core takes. */
void caller_pin(int core);
/* As this user, who needs the socket's path to be open to it; root only. */
void caller_connect(struct caller *caller, const char *path, uid_t uid);
/* The same, and a session with a device. */
void caller_open(struct caller *caller, const char *path, uid_t uid);
void caller_close(struct caller *caller);

/* Whole lines. */
void caller_say(struct caller *caller, const char *text);
/* The next line, until the next one; with caller_hear() it must be no error. */
const char *caller_hear(struct caller *caller);
const char *caller_hear_any(struct caller *caller);
const char *caller_ask(struct caller *caller, const char *text);
uint64_t caller_number(const char *line, const char *name);

#endif
