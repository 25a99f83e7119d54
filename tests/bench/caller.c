#include "tests/bench/caller.h"

#include <err.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void caller_pin(int core) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(core, &set);
        if (sched_setaffinity(0, sizeof(set), &set))
                warn("it cannot be kept on one core");
}

void caller_connect(struct caller *caller, const char *path, uid_t uid) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int r;

        *caller = (struct caller){ .uid = uid };
        caller->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (caller->fd < 0)
                err(1, "socket");
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        /* Who connects is who the socket says. */
        if (seteuid(uid))
                err(1, "seteuid");
        r = connect(caller->fd, (struct sockaddr *)&address, sizeof(address));
        if (seteuid(0))
                err(1, "seteuid");
        if (r)
                err(1, "connect");
}

void caller_open(struct caller *caller, const char *path, uid_t uid) {
        const char *line, *at;

        caller_connect(caller, path, uid);
        line = caller_ask(caller, CALLER_CALL("broker.hello", "{}"));
        at = strstr(line, "\"session\":");
        at = at ? strchr(at + 10, '"') : NULL;
        if (!at)
                errx(1, "no session in: %s", line);
        snprintf(caller->session, sizeof(caller->session), "%.32s", at + 1);
        caller->device = caller_number(caller_ask(caller, CALLER_CALL("device.open", "{\"name\":\"bench\"}")), "device");
}

void caller_close(struct caller *caller) {
        close(caller->fd);
        caller->fd = -1;
}

void caller_say(struct caller *caller, const char *text) {
        size_t left = strlen(text);
        ssize_t n;

        for (; left; text += n, left -= (size_t)n) {
                n = write(caller->fd, text, left);
                if (n <= 0)
                        err(1, "write");
        }
}

const char *caller_hear_any(struct caller *caller) {
        char *end;
        ssize_t n;

        memmove(caller->line, caller->line + caller->begun, caller->used - caller->begun);
        caller->used -= caller->begun;
        caller->begun = 0;
        while (!(end = memchr(caller->line, '\n', caller->used))) {
                n = read(caller->fd, caller->line + caller->used, sizeof(caller->line) - caller->used);
                if (n <= 0)
                        errx(1, "the daemon hung up");
                caller->used += (size_t)n;
        }
        *end = '\0';
        caller->begun = (size_t)(end + 1 - caller->line);
        return caller->line;
}

const char *caller_hear(struct caller *caller) {
        const char *line = caller_hear_any(caller);

        if (strstr(line, "\"error\""))
                errx(1, "%s", line);
        return line;
}

const char *caller_ask(struct caller *caller, const char *text) {
        caller_say(caller, text);
        return caller_hear(caller);
}

uint64_t caller_number(const char *line, const char *name) {
        char pattern[64];
        const char *at;

        snprintf(pattern, sizeof(pattern), "\"%s\":", name);
        at = strstr(line, pattern);
        if (!at)
                errx(1, "no %s in: %s", name, line);
        return strtoull(at + strlen(pattern), NULL, 10);
}
