#include "daemon/alive.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "daemon/loop.h"

struct alive {
        uv_poll_t poll; /* a process's descriptor is readable when it has ended */
        int fd;
        void (*ended)(void *userdata);
        void *userdata;
};

/* The name, which may have anything in it, is in parentheses; the time is the 20th field behind it. */
static uint64_t parse_since(char *text) {
        char *at = strrchr(text, ')'), *field = NULL;
        int i;

        if (!at)
                return 0;
        at++;
        for (i = 0; i < 20; i++) {
                field = strsep(&at, " ");
                if (!field)
                        return 0;
                i -= !*field;
        }
        return strtoull(field, NULL, 10);
}

uint64_t alive_since(pid_t pid) {
        char path[32], text[1024];
        ssize_t n;
        int fd;

        if (pid <= 0)
                return 0;
        snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return 0;
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (n <= 0)
                return 0;
        text[n] = '\0';
        return parse_since(text);
}

static void on_ended(uv_poll_t *poll, int status, int events) {
        struct alive *alive = poll->data;

        uv_poll_stop(poll);
        alive->ended(alive->userdata);
}

static void on_closed(uv_handle_t *handle) {
        struct alive *alive = handle->data;

        close(alive->fd);
        free(alive);
}

struct alive *alive_watch(uv_loop_t *loop, pid_t pid, uint64_t since, void (*ended)(void *userdata), void *userdata) {
        struct alive *alive = pid > 0 ? calloc(1, sizeof(*alive)) : NULL;

        if (!alive)
                return NULL;
        alive->ended = ended;
        alive->userdata = userdata;
        alive->fd = pidfd_open(pid, 0);
        /* Looked at after it was opened: from here on the number is this process's. Where that cannot be told, it is taken for
         * the same: another one's life costs nothing but time. */
        if (alive->fd < 0 || (since && alive_since(pid) != since) || uv_poll_init(loop, &alive->poll, alive->fd) < 0) {
                if (alive->fd >= 0)
                        close(alive->fd);
                free(alive);
                return NULL;
        }
        alive->poll.data = alive;
        if (loop_watch(&alive->poll, UV_READABLE, on_ended) == 0)
                return alive;
        uv_close((uv_handle_t *)&alive->poll, on_closed);
        return NULL;
}

/* Also one that nobody has waited for yet; but not one of which only the first thread has ended. */
static bool has_ended(pid_t pid) {
        struct pollfd end = { .fd = pidfd_open(pid, 0), .events = POLLIN };
        bool has;

        if (end.fd < 0) /* a kernel before 5.3, or valgrind, has none */
                return errno == ESRCH || (kill(pid, 0) < 0 && errno == ESRCH);
        has = poll(&end, 1, 0) > 0;
        close(end.fd);
        return has;
}

bool alive_is_over(pid_t pid, uint64_t since) {
        uint64_t now_since = alive_since(pid);

        return (since && now_since && now_since != since) || has_ended(pid);
}

struct alive *alive_forget(struct alive *alive) {
        if (alive)
                uv_close((uv_handle_t *)&alive->poll, on_closed);
        return NULL;
}
