/* P10, P12, P13: a million allocations of a thousand owners, a hundred thousand mappings, a thousand connections. What an
 * allocation and a ping take then, what each allocation costs the daemon, how soon the next daemon answers when this one is
 * killed, and how soon everything of a client that vanishes with ten thousand mappings is revoked.
 *
 * The memory is simulated, so that any machine has enough of it; the books are the same. SCALE divides all numbers. */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/table.h"
#include "tests/lib/daemon.h"

enum {
        OWNERS = 1000,
        ALLOCS = 1000000,
        MAPPINGS = 100000,
        VANISHING = 10000, /* mappings of one client */
        FIRST_UID = 200000,
        PROBES = 20000,
        IN_FLIGHT = 50,
        LINE_MAX = 8192,
};

struct peer {
        int fd;
        uid_t uid;
        uint64_t device;
        char session[64];
        uint64_t *allocs;
        size_t n_allocs;
        char line[LINE_MAX];
        size_t used, begun; /* of what was read; where the line ends that was told */
};

static struct test_daemon *broker;
static struct peer *peers;
static unsigned owners = OWNERS, allocs = ALLOCS, mappings = MAPPINGS, vanishing = VANISHING;

/* ---- talking ---- */

/* Who connects is who the socket says. */
static int connect_as(uid_t uid) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

        if (fd < 0)
                err(1, "socket");
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", test_daemon_socket(broker));
        if (seteuid(uid))
                err(1, "seteuid");
        r = connect(fd, (struct sockaddr *)&address, sizeof(address));
        if (seteuid(0))
                err(1, "seteuid");
        if (r) {
                close(fd);
                return -1;
        }
        return fd;
}

static void say(struct peer *peer, const char *text) {
        size_t left = strlen(text);
        ssize_t n;

        for (; left; text += n, left -= (size_t)n) {
                n = write(peer->fd, text, left);
                if (n <= 0)
                        err(1, "write");
        }
}

static const char *hear(struct peer *peer) {
        char *end;
        ssize_t n;

        memmove(peer->line, peer->line + peer->begun, peer->used - peer->begun);
        peer->used -= peer->begun;
        peer->begun = 0;
        while (!(end = memchr(peer->line, '\n', peer->used))) {
                n = read(peer->fd, peer->line + peer->used, sizeof(peer->line) - peer->used);
                if (n <= 0)
                        errx(1, "the daemon hung up");
                peer->used += (size_t)n;
        }
        *end = '\0';
        peer->begun = (size_t)(end + 1 - peer->line);
        if (strstr(peer->line, "\"error\""))
                errx(1, "%s", peer->line);
        return peer->line;
}

static uint64_t number_in(const char *line, const char *name) {
        char pattern[64];
        const char *at;

        snprintf(pattern, sizeof(pattern), "\"%s\":", name);
        at = strstr(line, pattern);
        if (!at)
                errx(1, "no %s in: %s", name, line);
        return strtoull(at + strlen(pattern), NULL, 10);
}

static const char *ask(struct peer *peer, const char *text) {
        say(peer, text);
        return hear(peer);
}

#define CALL(method, params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\",\"params\":" params "}\n"

static void peer_open(struct peer *peer, uid_t uid) {
        const char *line, *at;

        peer->uid = uid;
        peer->fd = connect_as(uid);
        if (peer->fd < 0)
                err(1, "connect");
        line = ask(peer, CALL("broker.hello", "{}"));
        at = strstr(line, "\"session\":");
        at = at ? strchr(at + 10, '"') : NULL;
        if (!at)
                errx(1, "no session in: %s", line);
        snprintf(peer->session, sizeof(peer->session), "%.32s", at + 1);
        peer->device = number_in(ask(peer, CALL("device.open", "{\"name\":\"bench\"}")), "device");
}

static void fill(struct peer *peer, size_t n) {
        char text[256];
        size_t asked = 0, told = 0, room = peer->n_allocs + n;

        peer->allocs = realloc(peer->allocs, room * sizeof(*peer->allocs));
        snprintf(text, sizeof(text), CALL("coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":4096}"), peer->device);
        while (told < n) {
                for (; asked < n && asked < told + IN_FLIGHT; asked++)
                        say(peer, text);
                peer->allocs[peer->n_allocs++] = number_in(hear(peer), "alloc");
                told++;
        }
}

static void map(struct peer *peer, size_t n) {
        char text[256];
        size_t asked = 0, told = 0;

        while (told < n) {
                for (; asked < n && asked < told + IN_FLIGHT; asked++) {
                        snprintf(text, sizeof(text), CALL("mapping.map", "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64
                                                          ",\"direction\":\"to_device\"}"),
                                 peer->device, peer->allocs[asked % peer->n_allocs]);
                        say(peer, text);
                }
                hear(peer);
                told++;
        }
}

/* ---- measuring ---- */

static double alloc_p99_us(struct peer *peer) {
        static double us[PROBES];
        char text[256], release[256];
        uint64_t start, handle;

        snprintf(text, sizeof(text), CALL("coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":4096}"), peer->device);
        for (size_t i = 0; i < PROBES; i++) {
                start = table_now();
                handle = number_in(ask(peer, text), "alloc");
                us[i] = (double)(table_now() - start) / 1e3;
                snprintf(release, sizeof(release), CALL("coherent.free", "{\"alloc\":%" PRIu64 "}"), handle);
                ask(peer, release);
        }
        return table_percentile(us, PROBES, 0.99);
}

static double ping_p99_us(struct peer *peer) {
        static double us[PROBES];
        uint64_t start;

        for (size_t i = 0; i < PROBES; i++) {
                start = table_now();
                ask(peer, CALL("broker.ping", "{}"));
                us[i] = (double)(table_now() - start) / 1e3;
        }
        return table_percentile(us, PROBES, 0.99);
}

/* Anonymous memory: what the daemon itself has taken. */
static double daemon_bytes(void) {
        char path[64], line[256];
        unsigned long kib = 0;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/status", (int)test_daemon_pid(broker));
        file = fopen(path, "re");
        if (!file)
                err(1, "%s", path);
        while (fgets(line, sizeof(line), file))
                if (sscanf(line, "RssAnon: %lu", &kib) == 1)
                        break;
        fclose(file);
        return (double)kib * 1024;
}

static enum table_met at_most(double figure, double most) {
        return figure <= most ? TABLE_MET : TABLE_NOT_MET;
}

static uint64_t count(const char *name) {
        static struct peer admin = { .fd = -1 };

        memset(&admin, 0, sizeof(admin));
        admin.fd = connect_as(0);
        if (admin.fd < 0)
                err(1, "connect");
        uint64_t n = number_in(ask(&admin, CALL("broker.status", "{}")), name);

        close(admin.fd);
        return n;
}

/* ---- P10 ---- */

static void scale(void) {
        double alloc_few, alloc_many, ping_few, ping_many, before;

        for (unsigned i = 0; i < owners; i++) {
                peer_open(&peers[i], FIRST_UID + i);
                fill(&peers[i], 1);
        }
        alloc_few = alloc_p99_us(&peers[0]);
        ping_few = ping_p99_us(&peers[0]);
        before = daemon_bytes();
        for (unsigned i = 0; i < owners; i++)
                fill(&peers[i], allocs / owners - 1);
        table_print(&(struct table_row){ .id = "P10", .what = "daemon memory for each allocation", .peer_figure = NAN,
                                         .ours = (daemon_bytes() - before) / (allocs - owners), .unit = "B", .target = "<= 128 B",
                                         .met = at_most((daemon_bytes() - before) / (allocs - owners), 128) });
        for (unsigned i = 0; i < owners; i++)
                map(&peers[i], mappings / owners);
        alloc_many = alloc_p99_us(&peers[0]);
        ping_many = ping_p99_us(&peers[0]);
        table_print(&(struct table_row){ "P10", "p99 of an allocation with all of them alive", "with one for each owner",
                                         alloc_few, alloc_many, "us", "<= 2x", table_met_ratio(alloc_many, alloc_few, 2) });
        table_print(&(struct table_row){ "P10", "p99 of a ping with all of them alive", "with one for each owner", ping_few,
                                         ping_many, "us", "<= 5x", table_met_ratio(ping_many, ping_few, 5) });
}

/* ---- P12 ---- */

static void recover(void) {
        uint64_t start, n_allocs = count("allocs"), n_mappings = count("mappings");
        struct peer peer = { .fd = -1 };
        char text[256];
        double seconds;

        for (unsigned i = 0; i < owners; i++)
                close(peers[i].fd);
        start = table_now();
        test_daemon_kill(broker);
        if (test_daemon_start_again(broker))
                errx(1, "the daemon does not start again");
        peer.fd = connect_as(peers[0].uid);
        if (peer.fd < 0)
                err(1, "connect");
        snprintf(text, sizeof(text), CALL("broker.hello", "{\"session\":\"%s\"}"), peers[0].session);
        ask(&peer, text);
        seconds = (double)(table_now() - start) / 1e9;
        close(peer.fd);
        table_print(&(struct table_row){ .id = "P12", .what = "from kill -9 to the first answer", .peer_figure = NAN,
                                         .ours = seconds, .unit = "s", .target = "<= 2 s", .met = at_most(seconds, 2) });
        if (count("allocs") != n_allocs || count("mappings") != n_mappings)
                errx(1, "of %" PRIu64 " allocations %" PRIu64 " are left, of %" PRIu64 " mappings %" PRIu64, n_allocs,
                     count("allocs"), n_mappings, count("mappings"));
        printf("# %" PRIu64 " allocations and %" PRIu64 " mappings are there again\n", n_allocs, n_mappings);
}

/* ---- P13 ---- */

static void vanish(void) {
        struct peer peer = { .fd = -1 };
        uint64_t start, others;
        double seconds;

        others = count("mappings");
        peer_open(&peer, FIRST_UID + OWNERS);
        fill(&peer, 1000);
        map(&peer, vanishing);
        if (count("mappings") != others + vanishing)
                errx(1, "not all was mapped");
        start = table_now();
        close(peer.fd);
        /* The grace time is 0: its session ends at once. */
        while (count("mappings") != others)
                ;
        seconds = (double)(table_now() - start) / 1e9;
        table_print(&(struct table_row){ .id = "P13", .what = "a client's death until its mappings are revoked",
                                         .peer_figure = NAN, .ours = seconds, .unit = "s", .target = "<= 1 s",
                                         .met = at_most(seconds, 1) });
}

int main(void) {
        static const char config[] =
                "[daemon]\naccess = everyone\ngrace = 60s\n[memory]\nregion_idle = 600s\n[limits]\nconnections = 1100\n"
                "[quota default]\nmappings = unlimited\nallocs = unlimited\n[source sim]\nlayout = 64G@0x100000000\n";
        static const char vanish_config[] = "[daemon]\naccess = everyone\ngrace = 0\n[source sim]\nlayout = 64G@0x100000000\n";
        struct test_daemon_options options = { .config = config, .survives = true, .open_directory = true };
        const char *divisor = getenv("SCALE");
        unsigned by = divisor ? (unsigned)atoi(divisor) : 1;

        if (geteuid()) {
                fprintf(stderr, "a thousand users can be had by root only\n");
                return 77;
        }
        owners /= by;
        allocs /= by;
        mappings /= by;
        peers = calloc(owners, sizeof(*peers));
        if (!peers || test_daemon_start(&options, &broker))
                errx(1, "the daemon does not start");
        scale();
        recover();
        test_daemon_signal(broker, 2);
        test_daemon_wait(broker, &(int){ 0 });
        test_daemon_end(broker);
        options.config = vanish_config;
        if (test_daemon_start(&options, &broker))
                errx(1, "the daemon does not start");
        vanish();
        return test_daemon_end(broker) != 0;
}
