/* P10, P12, P13: a million allocations of a thousand owners, a hundred thousand mappings, a thousand connections. What an
 * allocation and a ping take then, what each allocation costs the daemon, how soon the next daemon answers when this one is
 * killed, and how soon everything of a client that vanishes with ten thousand mappings is revoked.
 *
 * The memory is simulated, so that any machine has enough of it; the books are the same. SCALE divides all numbers. */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/caller.h"
#include "tests/bench/table.h"
#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"

enum {
        OWNERS = 1000,
        ALLOCS = 1000000,
        MAPPINGS = 100000,
        VANISHING = 10000, /* mappings of one client */
        FIRST_UID = 200000,
        PROBES = 20000,
        IN_FLIGHT = 50,
        PIECE = 4096,
        HUGE_PAGE = 2 << 20,
};

struct peer {
        struct caller caller;
        uint64_t *allocs;
        size_t n_allocs;
};

static struct test_daemon *broker;
static struct peer *peers;
static unsigned owners = OWNERS, allocs = ALLOCS, mappings = MAPPINGS, vanishing = VANISHING;

static void fill(struct peer *peer, size_t n, size_t size) {
        char text[256];
        size_t asked = 0, told = 0, room = peer->n_allocs + n;

        peer->allocs = realloc(peer->allocs, room * sizeof(*peer->allocs));
        snprintf(text, sizeof(text), CALLER_CALL("coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":%zu}"),
                 peer->caller.device, size);
        while (told < n) {
                for (; asked < n && asked < told + IN_FLIGHT; asked++)
                        caller_say(&peer->caller, text);
                peer->allocs[peer->n_allocs++] = caller_number(caller_hear(&peer->caller), "alloc");
                told++;
        }
}

static void map(struct peer *peer, size_t n) {
        char text[256];
        size_t asked = 0, told = 0;

        while (told < n) {
                for (; asked < n && asked < told + IN_FLIGHT; asked++) {
                        snprintf(text, sizeof(text), CALLER_CALL("mapping.map", "{\"device\":%" PRIu64 ",\"alloc\":%" PRIu64
                                                          ",\"direction\":\"to_device\"}"),
                                 peer->caller.device, peer->allocs[asked % peer->n_allocs]);
                        caller_say(&peer->caller, text);
                }
                caller_hear(&peer->caller);
                told++;
        }
}

/* ---- measuring ---- */

static double alloc_p99_us(struct peer *peer) {
        static double us[PROBES];
        char text[256], release[256];
        uint64_t start, handle;

        snprintf(text, sizeof(text), CALLER_CALL("coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":4096}"),
                 peer->caller.device);
        for (size_t i = 0; i < PROBES; i++) {
                start = table_now();
                handle = caller_number(caller_ask(&peer->caller, text), "alloc");
                us[i] = (double)(table_now() - start) / 1e3;
                snprintf(release, sizeof(release), CALLER_CALL("coherent.free", "{\"alloc\":%" PRIu64 "}"), handle);
                caller_ask(&peer->caller, release);
        }
        return table_percentile(us, PROBES, 0.99);
}

static double ping_p99_us(struct peer *peer) {
        static double us[PROBES];
        uint64_t start;

        for (size_t i = 0; i < PROBES; i++) {
                start = table_now();
                caller_ask(&peer->caller, CALLER_CALL("broker.ping", "{}"));
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
        struct caller admin;
        uint64_t n;

        caller_connect(&admin, test_daemon_socket(broker), 0);
        n = caller_number(caller_ask(&admin, CALLER_CALL("broker.status", "{}")), name);
        caller_close(&admin);
        return n;
}

/* ---- P10 ---- */

static void scale(void) {
        double alloc_few, alloc_many, ping_few, ping_many, before;

        for (unsigned i = 0; i < owners; i++) {
                caller_open(&peers[i].caller, test_daemon_socket(broker), FIRST_UID + i);
                fill(&peers[i], 1, PIECE);
        }
        alloc_few = alloc_p99_us(&peers[0]);
        ping_few = ping_p99_us(&peers[0]);
        before = daemon_bytes();
        for (unsigned i = 0; i < owners; i++)
                fill(&peers[i], allocs / owners - 1, PIECE);
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
        struct caller caller;
        char text[256];
        double seconds;

        for (unsigned i = 0; i < owners; i++)
                caller_close(&peers[i].caller);
        start = table_now();
        test_daemon_kill(broker);
        if (test_daemon_start_again(broker))
                errx(1, "the daemon does not start again");
        caller_connect(&caller, test_daemon_socket(broker), peers[0].caller.uid);
        snprintf(text, sizeof(text), CALLER_CALL("broker.hello", "{\"session\":\"%s\"}"), peers[0].caller.session);
        caller_ask(&caller, text);
        seconds = (double)(table_now() - start) / 1e9;
        caller_close(&caller);
        table_print(&(struct table_row){ .id = "P12", .what = "from kill -9 to the first answer", .peer_figure = NAN,
                                         .ours = seconds, .unit = "s", .target = "<= 2 s", .met = at_most(seconds, 2) });
        if (count("allocs") != n_allocs || count("mappings") != n_mappings)
                errx(1, "of %" PRIu64 " allocations %" PRIu64 " are left, of %" PRIu64 " mappings %" PRIu64, n_allocs,
                     count("allocs"), n_mappings, count("mappings"));
        printf("# %" PRIu64 " allocations and %" PRIu64 " mappings are there again\n", n_allocs, n_mappings);
}

/* ---- P13 ---- */

static double fill_speed(size_t bytes) {
        uint64_t start = table_now();
        char *memory = malloc(bytes);
        double speed;

        if (!memory)
                err(1, "malloc");
        /* Once to have the pages. Zeros are faster than any other pattern. */
        memset(memory, 1, bytes);
        start = table_now();
        memset(memory, 2, bytes);
        speed = (double)bytes / ((double)(table_now() - start) / 1e9);
        free(memory);
        return speed;
}

/* n pieces of memory, and all the mappings on them. */
static void vanish(const char *what, size_t n, size_t size) {
        struct peer peer = { 0 };
        uint64_t start, mappings_before = count("mappings"), free_before = count("free");
        double revoked, scrubbed, most = 1 + (double)(n * size) / (0.5 * fill_speed(256 << 20));
        char text[128], target[64];

        caller_open(&peer.caller, test_daemon_socket(broker), FIRST_UID + OWNERS);
        fill(&peer, n, size);
        map(&peer, vanishing);
        if (count("mappings") != mappings_before + vanishing)
                errx(1, "not all was mapped");
        start = table_now();
        /* The grace time is 0: its session ends at once. */
        caller_close(&peer.caller);
        while (count("mappings") != mappings_before)
                ;
        revoked = (double)(table_now() - start) / 1e9;
        while (count("free") != free_before)
                ;
        scrubbed = (double)(table_now() - start) / 1e9;
        snprintf(text, sizeof(text), "%s: a client's death until its %u mappings are revoked", what, vanishing);
        table_print(&(struct table_row){ .id = "P13", .what = text, .peer_figure = NAN, .ours = revoked, .unit = "s",
                                         .target = "<= 1 s", .met = at_most(revoked, 1) });
        snprintf(text, sizeof(text), "%s: ... and its %zu MiB are scrubbed", what, n * size >> 20);
        snprintf(target, sizeof(target), "<= %.2f s", most);
        table_print(&(struct table_row){ .id = "P13", .what = text, .peer_figure = NAN, .ours = scrubbed, .unit = "s",
                                         .target = target, .met = at_most(scrubbed, most) });
}

static void vanish_with(const char *source, const char *what, size_t n, size_t size) {
        char config[256];
        struct test_daemon_options options = { .source = source, .config = config, .survives = true, .open_directory = true };

        /* What comes back stays in stock, where it is counted. */
        snprintf(config, sizeof(config), "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nquarantine = 0\n"
                 "[source %s]\nreserve = 256M\n", source);
        if (test_daemon_start(&options, &broker))
                errx(1, "the daemon does not start");
        vanish(what, n, size);
        if (test_daemon_end(broker))
                errx(1, "the daemon does not end");
}

int main(void) {
        static const char config[] =
                "[daemon]\naccess = everyone\ngrace = 60s\n[memory]\nregion_idle = 600s\n[limits]\nconnections = 1100\n"
                "[quota default]\nmappings = unlimited\nallocs = unlimited\n[source sim]\nlayout = 64G@0x100000000\n";
        struct test_daemon_options options = { .config = config, .survives = true, .open_directory = true };
        const char *divisor = getenv("SCALE");
        unsigned by = divisor ? (unsigned)atoi(divisor) : 1;

        if (geteuid()) {
                fprintf(stderr, "a thousand users can be had by root only\n");
                return 77;
        }
        caller_pin(0);
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
        vanish_with("sim", "simulated memory", 1000, PIECE);
        if (test_hugepages_reserve(160) == 0)
                vanish_with("hugetlb", "huge pages", 100, HUGE_PAGE);
        else
                printf("# there are no huge pages to be scrubbed\n");
        return 0;
}
