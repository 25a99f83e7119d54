/* Two owners that are at their quotas and go on working, beside a third that floods the daemon: what an allocation takes for
 * the first two, before and during the flood. The third is refused, since it is at its quota too; with a limit on how often
 * it may call in a second, and without. And once it only pings, which nobody refuses. */
#include <err.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/caller.h"
#include "tests/bench/table.h"
#include "tests/lib/daemon.h"

enum { UID = 210000, QUOTA = 64, PROBES = 10000, BURST = 200 };

static struct test_daemon *broker;

/* Everything that its quota allows: from here on one is given back for each that is taken. */
static void fill(struct caller *caller, uint64_t allocs[QUOTA]) {
        char text[256];

        snprintf(text, sizeof(text), CALLER_CALL("coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":4096}"), caller->device);
        for (int i = 0; i < QUOTA; i++)
                allocs[i] = caller_number(caller_ask(caller, text), "alloc");
        caller_say(caller, text);
        if (!strstr(caller_hear_any(caller), "\"quota\""))
                errx(1, "it is not at its quota");
}

/* A free and an allocation, one after the other. */
static double work_us(struct caller *caller, uint64_t allocs[QUOTA], int i) {
        char text[256];
        uint64_t start = table_now();

        snprintf(text, sizeof(text), CALLER_CALL("coherent.free", "{\"alloc\":%" PRIu64 "}"), allocs[i % QUOTA]);
        caller_ask(caller, text);
        snprintf(text, sizeof(text), CALLER_CALL("coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":4096}"), caller->device);
        allocs[i % QUOTA] = caller_number(caller_ask(caller, text), "alloc");
        return (double)(table_now() - start) / 1e3;
}

static void work(struct caller callers[2], uint64_t allocs[2][QUOTA], double *ret_median, double *ret_p99) {
        static double us[PROBES];

        for (int i = 0; i < PROBES; i++)
                us[i] = work_us(&callers[i % 2], allocs[i % 2], i / 2);
        *ret_median = table_median(us, PROBES);
        *ret_p99 = table_percentile(us, PROBES, 0.99);
}

/* In a child: as many calls as the daemon takes, and what they answer is not looked at. */
static void flood(bool pings) {
        static char burst[BURST * 128];
        struct caller caller;
        size_t used = 0;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        caller_pin(1);
        caller_open(&caller, test_daemon_socket(broker), UID + 2);
        for (int i = 0; i < BURST; i++)
                used += (size_t)(pings ? snprintf(burst + used, sizeof(burst) - used, CALLER_CALL("broker.ping", "{}"))
                                       : snprintf(burst + used, sizeof(burst) - used,
                                                  CALLER_CALL("coherent.alloc", "{\"device\":%" PRIu64 ",\"size\":4096}"),
                                                  caller.device));
        for (;;) {
                caller_say(&caller, burst);
                for (int i = 0; i < BURST; i++)
                        caller_hear_any(&caller);
        }
}

static void compare(const char *limit, bool pings, const char *what) {
        struct test_daemon_options options = { .open_directory = true };
        double median, p99, flooded_median, flooded_p99;
        struct caller callers[2];
        uint64_t allocs[2][QUOTA];
        char config[512], text[80];
        pid_t pid;

        snprintf(config, sizeof(config), "[daemon]\naccess = everyone\n[quota default]\nallocs = %d\n[quota user:%d]\n"
                 "allocs = %d\n%s", QUOTA, UID + 2, QUOTA, limit);
        options.config = config;
        if (test_daemon_start(&options, &broker))
                errx(1, "the daemon does not start");
        for (int i = 0; i < 2; i++) {
                caller_open(&callers[i], test_daemon_socket(broker), UID + (uid_t)i);
                fill(&callers[i], allocs[i]);
        }
        work(callers, allocs, &median, &p99);
        pid = fork();
        if (pid < 0)
                err(1, "fork");
        if (!pid)
                flood(pings);
        work(callers, allocs, &flooded_median, &flooded_p99);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        snprintf(text, sizeof(text), "free+alloc of two at their quotas, a third %s: median", what);
        table_print(&(struct table_row){ "R3", text, "without it", median, flooded_median, "us", NULL, TABLE_UNKNOWN });
        snprintf(text, sizeof(text), "free+alloc of two at their quotas, a third %s: p99", what);
        table_print(&(struct table_row){ "R3", text, "without it", p99, flooded_p99, "us", "<= 2x",
                                         table_met_ratio(flooded_p99, p99, 2) });
        for (int i = 0; i < 2; i++)
                caller_close(&callers[i]);
        if (test_daemon_end(broker))
                errx(1, "the daemon does not end");
}

int main(void) {
        if (geteuid()) {
                fprintf(stderr, "other users can be had by root only\n");
                return 77;
        }
        caller_pin(0);
        compare("calls_per_second = 1000\n", false, "floods at its limit of calls");
        compare("", false, "floods without a limit");
        compare("", true, "floods with pings");
        return 0;
}
