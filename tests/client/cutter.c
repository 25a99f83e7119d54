#include "tests/client/cutter.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/fdpass.h"

enum { PAIRS_MAX = 64, PIECE = 4096, SHORT = 1000, LONG = 12000 };

struct cutter {
        char directory[64], path[96], uri[112];
        int progress; /* a byte for each cut */
        unsigned cuts;
        pid_t pid;
};

/* A connection of the client, and ours to the daemon for it. */
struct pair {
        int ends[2];
        uint64_t left; /* bytes until it is cut */
};

struct proxy {
        struct sockaddr_un daemon;
        int listener, progress;
        uint64_t random;
        unsigned cuts; /* still to be made */
        struct pair pairs[PAIRS_MAX];
        size_t n;
};

static uint64_t next_random(uint64_t *random) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        return *random;
}

/* ---- the process ---- */

static void pair_close(struct proxy *proxy, size_t i) {
        close(proxy->pairs[i].ends[0]);
        close(proxy->pairs[i].ends[1]);
        proxy->pairs[i] = proxy->pairs[--proxy->n];
}

static void cut(struct proxy *proxy, size_t i) {
        pair_close(proxy, i);
        proxy->cuts--;
        if (write(proxy->progress, "", 1) != 1)
                _exit(3);
}

/* A third of them do not outlive saying hello, or not by much. */
static uint64_t choose_bytes(struct proxy *proxy) {
        uint64_t random = next_random(&proxy->random);

        return random % 3 ? 1 + random / 3 % LONG : 1 + random / 3 % SHORT;
}

static void pair_open(struct proxy *proxy) {
        struct pair pair = { .ends = { accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC),
                                       socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) } };

        if (proxy->n == PAIRS_MAX || pair.ends[0] < 0 || pair.ends[1] < 0)
                _exit(2);
        /* A daemon that is away is away for the client, too. */
        if (connect(pair.ends[1], (struct sockaddr *)&proxy->daemon, sizeof(proxy->daemon))) {
                close(pair.ends[0]);
                close(pair.ends[1]);
                return;
        }
        pair.left = choose_bytes(proxy);
        proxy->pairs[proxy->n++] = pair;
}

/* False: the pair is no more. */
static bool pass_on(struct proxy *proxy, size_t i, int from) {
        struct pair *pair = &proxy->pairs[i];
        int fds[FDPASS_MAX];
        char bytes[PIECE];
        size_t n_fds = 0;
        ssize_t n = fdpass_receive(pair->ends[from], bytes, sizeof(bytes), fds, &n_fds);
        bool is_cut = proxy->cuts && n > 0 && (uint64_t)n >= pair->left;
        struct iovec piece = { .iov_base = bytes, .iov_len = n > 0 ? (size_t)n : 0 };
        ssize_t sent = 1;

        if (is_cut)
                piece.iov_len = pair->left;
        while (n > 0 && piece.iov_len && sent > 0) {
                sent = fdpass_send(pair->ends[!from], &piece, 1, fds, piece.iov_base == bytes ? n_fds : 0);
                if (sent > 0) {
                        piece.iov_base = (char *)piece.iov_base + sent;
                        piece.iov_len -= (size_t)sent;
                }
        }
        for (size_t fd = 0; fd < n_fds; fd++)
                close(fds[fd]);
        if (is_cut)
                cut(proxy, i);
        else if (n <= 0 || sent <= 0)
                pair_close(proxy, i);
        else
                pair->left -= proxy->cuts ? (uint64_t)n : 0;
        return !is_cut && n > 0 && sent > 0;
}

static void __attribute__((noreturn)) proxy_run(struct proxy *proxy) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
                struct pollfd polled[1 + 2 * PAIRS_MAX] = { { .fd = proxy->listener, .events = POLLIN } };
                size_t n = proxy->n;

                for (size_t i = 0; i < n; i++)
                        for (int end = 0; end < 2; end++)
                                polled[1 + 2 * i + end] = (struct pollfd){ .fd = proxy->pairs[i].ends[end], .events = POLLIN };
                if (poll(polled, 1 + 2 * n, -1) < 0)
                        _exit(1);
                /* From the last one: whatever takes the place of one that is closed has had its turn. */
                for (size_t i = n; i--;)
                        for (int end = 0; end < 2; end++)
                                if (polled[1 + 2 * i + end].revents && !pass_on(proxy, i, end))
                                        break;
                if (polled[0].revents)
                        pair_open(proxy);
        }
}

/* ---- the test's side ---- */

static void listen_at(struct cutter *cutter, int *ret_listener) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        strcpy(cutter->directory, "/tmp/dmabroker-test.XXXXXX");
        assert_non_null(mkdtemp(cutter->directory));
        snprintf(cutter->path, sizeof(cutter->path), "%s/socket", cutter->directory);
        snprintf(cutter->uri, sizeof(cutter->uri), "unix:%s", cutter->path);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", cutter->path);
        *ret_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(*ret_listener >= 0);
        assert_int_equal(bind(*ret_listener, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(*ret_listener, PAIRS_MAX), 0);
}

struct cutter *cutter_start(const char *daemon_socket, unsigned cuts, uint64_t seed) {
        struct cutter *cutter = calloc(1, sizeof(*cutter));
        struct proxy proxy = { .daemon = { .sun_family = AF_UNIX }, .cuts = cuts,
                               .random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) };
        int ends[2];

        assert_non_null(cutter);
        cutter->cuts = cuts;
        listen_at(cutter, &proxy.listener);
        snprintf(proxy.daemon.sun_path, sizeof(proxy.daemon.sun_path), "%s", daemon_socket);
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
        cutter->progress = ends[0];
        proxy.progress = ends[1];
        cutter->pid = fork();
        if (!cutter->pid)
                proxy_run(&proxy);
        assert_true(cutter->pid > 0);
        close(proxy.listener);
        close(ends[1]);
        return cutter;
}

const char *cutter_uri(const struct cutter *cutter) {
        return cutter->uri;
}

bool cutter_is_done(struct cutter *cutter) {
        char bytes[256];
        ssize_t n;

        while (cutter->cuts && (n = read(cutter->progress, bytes, sizeof(bytes))) > 0)
                cutter->cuts -= (unsigned)n;
        return !cutter->cuts;
}

void cutter_end(struct cutter *cutter) {
        int status;

        kill(cutter->pid, SIGKILL);
        assert_int_equal(waitpid(cutter->pid, &status, 0), cutter->pid);
        assert_true(WIFSIGNALED(status));
        close(cutter->progress);
        unlink(cutter->path);
        rmdir(cutter->directory);
        free(cutter);
}
