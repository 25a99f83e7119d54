/* Every allocation and every system call of the daemon fails once, while clients ask everything that can be asked: each is
 * answered or told to ask again, nothing changes for what was refused, nothing is lost, nothing is left behind; and also
 * while the daemon starts and while it ends, with memory that was kept, and without.
 *
 * Without an argument: some, the same each time; SEED says which others. With --all: each. PHASE=load, start, stop,
 * SOURCE=sim, hugetlb and KIND=memory, transfer, close, call: only that. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"
#include "tests/survive/fault-load.h"
#include "tests/survive/inject.h"

enum { HUGE_PAGES = 36, LOG_TAIL = 3000, SOME_ROUNDS = 4, ALL_ROUNDS = 120, SOME_STARTS = 24, STEPS_MAX = 256, SOME_SEED = 1 };

/* The grace is longer than two pauses after which a daemon accepts again, for which there was no memory twice. */
#define CONFIG                                                                                                       \
        "[daemon]\naccess = everyone\ngrace = 2s\nkeep = 60s\n"                                                       \
        "[memory]\nquarantine = 0\nregion_idle = 100ms\nemergency_permille = 0\n"
#define CONFIG_REAL CONFIG "[source hugetlb]\nreserve = 64M\nlimit = 64M\n"

static const struct sweep {
        const char *name;
        enum faulty_kind kind;
        unsigned variant;
} sweeps[] = {
        { "memory", FAULTY_MEMORY, 0 }, { "transfer", FAULTY_TRANSFER, 0 }, { "close", FAULTY_CLOSE, 0 },
        { "call", FAULTY_CALL, 0 },     { "call", FAULTY_CALL, 1 },         { "call", FAULTY_CALL, 2 },
        { "call", FAULTY_CALL, 3 },     { "call", FAULTY_CALL, 4 },
};
enum { SWEEPS = sizeof(sweeps) / sizeof(*sweeps) };

static struct run {
        struct inject *inject;
        struct test_daemon *daemon;
        struct load *load;
        char *library;
        const char *source;
        const char *phase;
        const struct sweep *sweep;
        long n;
        size_t step;
        bool all;
        uint64_t random;
        unsigned long rounds, kills, starts, started, refused_starts, stops, library_ends;
        size_t used_before; /* huge pages */
} run;

void give_up(const char *format, ...) {
        const char *what = run.inject ? inject_disarm(run.inject) : NULL;
        va_list arguments;
        size_t length;
        char *text;

        text = run.daemon ? test_daemon_log(run.daemon) : NULL;
        length = text ? strlen(text) : 0;
        test_daemon_end(run.daemon);
        fprintf(stderr, "--- what dmabrokerd wrote last ---\n%s--- end ---\n",
                text ? text + (length > LOG_TAIL ? length - LOG_TAIL : 0) : "");
        load_tell(stderr);
        fprintf(stderr, "%s, %s", run.source ? run.source : "", run.phase ? run.phase : "");
        if (run.sweep)
                fprintf(stderr, ", step %zu (%s), %s %ld/%u (%s)", run.step, load_step_name(run.step), run.sweep->name, run.n,
                        run.sweep->variant, what ? what : "nothing has failed");
        fprintf(stderr, ": ");
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
        exit(1);
}

static uint64_t random_below(uint64_t n) {
        run.random ^= run.random << 13;
        run.random ^= run.random >> 7;
        run.random ^= run.random << 17;
        return run.random % n;
}

static bool is_wanted(const char *variable, const char *name) {
        const char *wanted = getenv(variable);

        return !wanted || strcmp(wanted, name) == 0;
}

/* ---- the daemon ---- */

static void in_child(void *userdata) {
        inject_begin(run.inject, run.library);
}

/* Keepers of daemons that are no more are ours to be waited for. */
static void reap(void) {
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
                        give_up("process %d, which the daemon had forked, ended with signal %d", (int)pid, WTERMSIG(status));
}

/* Nor is there a process any more that had something of the daemon. */
static void await_end_of_all(void) {
        const struct timespec longest = { .tv_sec = test_timeout_ms() / 1000 };
        sigset_t children, before;

        sigemptyset(&children);
        sigaddset(&children, SIGCHLD);
        pthread_sigmask(SIG_BLOCK, &children, &before);
        for (;;) {
                reap();
                if (!inject_watches(run.inject))
                        break;
                if (sigtimedwait(&children, NULL, &longest) < 0 && errno == EAGAIN)
                        give_up("a process is left");
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (strcmp(run.source, "hugetlb") == 0 && test_hugepages_used() > run.used_before)
                give_up("%zu huge pages are lost", test_hugepages_used() - run.used_before);
}

static void launch(void) {
        reap();
        if (inject_expect(run.inject) < 0)
                give_up("the daemon cannot be watched");
        if (run.daemon && test_daemon_launch(run.daemon) < 0)
                give_up("the daemon cannot be started");
}

static void await_ready(void) {
        int r = test_daemon_wait_notify(run.daemon, "READY=1");

        if (r < 0)
                give_up("the daemon does not start with nothing failing: %s", strerror(-r));
}

static void start(void) {
        const struct test_daemon_options options = {
                .source = run.source, .config = strcmp(run.source, "sim") == 0 ? CONFIG : CONFIG_REAL, .survives = true,
                .in_child = in_child,
        };

        launch();
        if (!run.daemon && test_daemon_start(&options, &run.daemon) < 0)
                give_up("the daemon does not start at all");
        else
                return;
        await_ready();
}

/* What the daemon said last of its keeper. */
static bool has_no_keeper(void) {
        char *text = test_daemon_log(run.daemon), *at = text, *next;
        bool has_none = false;

        while (at && (next = strstr(at, "no other can be made"))) {
                at = next + 1;
                has_none = !strstr(at, "another one has all") && !strstr(at, ": ready");
        }
        free(text);
        return has_none;
}

/* A keeper that could not be replaced, because what the last step had fail came just then, is replaced in a second. Until
 * then a death loses what there is: two faults and a kill at once are not what this is about. */
static void await_keeper(void) {
        const time_t end = time(NULL) + test_timeout_ms() / 1000;

        load_connect(run.load);
        do
                load_step(run.load, load_full(), FAULTY_NONE, 0, 0);
        while (has_no_keeper() && time(NULL) < end);
}

/* A descriptor of it is one of those that are normal. */
static void set_base(void) {
        await_keeper();
        load_set_base(run.load);
}

static void make_all(size_t from, size_t to) {
        for (run.step = from; run.step < to; run.step = load_next(run.step))
                load_step(run.load, run.step, FAULTY_NONE, 0, 0);
}

static void begin(void) {
        inject_arm(run.inject, FAULTY_NONE, 0, 0);
        start();
        run.load = load_new(run.daemon, run.inject);
        load_learn(run.load);
        make_all(0, load_steps());
        set_base();
}

static void end(void) {
        struct test_daemon *daemon = run.daemon;

        load_free(run.load);
        run.load = NULL;
        run.daemon = NULL;
        if (test_daemon_end(daemon) < 0)
                give_up("the daemon does not end as it should");
        await_end_of_all();
}

/* It dies, and the next one goes on. */
static void die(void) {
        await_keeper();
        test_daemon_kill(run.daemon);
        load_drop(run.load);
        launch();
        await_ready();
        load_resume(run.load, run.step);
        run.kills++;
}

/* ---- while it serves ---- */

/* Each call of a step that changes nothing, one after the other; of the others, the next one in each round. */
static bool one_round(long next[STEPS_MAX]) {
        bool more = false;

        for (run.step = 0; run.step < load_steps(); run.step = load_next(run.step)) {
                long *n = &next[run.step];

                run.n = *n;
                while (*n && load_step_reads(run.step)) {
                        run.n = *n;
                        *n = load_step(run.load, run.step, run.sweep->kind, *n, run.sweep->variant) ? *n + 1 : 0;
                }
                if (load_step_reads(run.step))
                        continue;
                if (load_step(run.load, run.step, run.sweep->kind, *n, run.sweep->variant))
                        ++*n;
                else
                        *n = 0;
                more |= *n > 0;
        }
        return more;
}

static void end_round(void) {
        char after[64];

        snprintf(after, sizeof(after), "after a round of %s", run.sweep->name);
        load_expect_nothing(run.load, after);
        run.rounds++;
}

static void every_call(void) {
        long next[STEPS_MAX];
        size_t i;

        for (i = 0; i < SWEEPS; i++) {
                run.sweep = &sweeps[i];
                if (!is_wanted("KIND", run.sweep->name))
                        continue;
                for (size_t j = 0; j < STEPS_MAX; j++)
                        next[j] = 1;
                while (one_round(next))
                        end_round();
                end_round();
        }
}

/* How many calls each step makes. */
static void count_calls(long most[SWEEPS][STEPS_MAX]) {
        for (size_t i = 0; i < SWEEPS; i++) {
                run.sweep = &sweeps[i];
                for (run.step = 0; run.step < load_steps(); run.step = load_next(run.step))
                        most[i][run.step] = load_measure(run.load, run.step, run.sweep->kind, run.sweep->variant) + 1;
                end_round();
        }
}

/* Calls at random; now and then the daemon dies between two steps. */
static void some_calls(unsigned long rounds) {
        static long most[SWEEPS][STEPS_MAX];
        unsigned long i;

        count_calls(most);

        for (i = 0; i < rounds; i++) {
                size_t death = i % 4 == 3 ? (size_t)random_below(load_steps() - 2) + 1 : 0;

                for (run.step = 0; run.step < load_steps(); run.step = load_next(run.step)) {
                        size_t which = (size_t)random_below(SWEEPS);
                        long n = most[which][run.step];

                        run.sweep = &sweeps[which];
                        run.n = is_wanted("KIND", run.sweep->name) ? (long)random_below((uint64_t)n) + 1 : 0;
                        load_step(run.load, run.step, run.sweep->kind, run.n, run.sweep->variant);
                        if (death && run.step == death)
                                die();
                }
                /* What a daemon keeps for later it has not got together in the rest of a round. */
                if (death) {
                        make_all(0, load_steps());
                        set_base();
                }
                end_round();
        }
}

static void serving(void) {
        run.phase = "serving";
        begin();
        if (run.all)
                every_call();
        some_calls(run.all ? ALL_ROUNDS : SOME_ROUNDS);
        run.sweep = NULL;
        end();
}

/* ---- while it starts and ends ---- */

static size_t log_length(void) {
        char *text = test_daemon_log(run.daemon);
        size_t length = text ? strlen(text) : 0;

        free(text);
        return length;
}

/* glibc 2.36 ends the process by itself when there is no memory for a thread's own variables of a library, and libuv 1.44 when
 * there is no pipe for uv__signal_global_reinit(). */
static bool is_of_library(size_t log_before, int status) {
        const char *what = inject_disarm(run.inject);
        char *text = test_daemon_log(run.daemon);
        bool is = text && run.sweep->kind == FAULTY_MEMORY &&
                  strstr(text + log_before, "cannot allocate memory for thread-local data");

        is |= WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && what && strncmp(what, "pipe2", 5) == 0;
        free(text);
        run.library_ends += is;
        return is;
}

/* With status 1 and a sentence, if not with 0. */
static void expect_exit(bool may_succeed, size_t log_before) {
        char *text;
        int status, r;

        r = test_daemon_wait(run.daemon, &status);
        if (r < 0)
                give_up("the daemon does not end");
        if ((!WIFEXITED(status) || WEXITSTATUS(status) == 127) && is_of_library(log_before, status))
                return;
        if (!WIFEXITED(status))
                give_up("the daemon ended with signal %d", WTERMSIG(status));
        if (WEXITSTATUS(status) == 0 && may_succeed)
                return;
        text = test_daemon_log(run.daemon);
        if (WEXITSTATUS(status) != 1 || !text || strlen(text) < log_before + 20)
                give_up("the daemon ended with status %d and said: %s", WEXITSTATUS(status),
                        text ? text + log_before : "nothing");
        free(text);
}

/* Started with something failing. Whether it runs. */
static bool start_failing(void) {
        size_t before = log_length();
        int r;

        inject_arm(run.inject, run.sweep->kind, run.n, run.sweep->variant);
        launch();
        r = test_daemon_wait_notify(run.daemon, "READY=1");
        run.starts++;
        if (r == -ECHILD) {
                expect_exit(false, before);
                run.refused_starts++;
                return false;
        }
        if (r < 0)
                give_up("the daemon does not get ready: %s", strerror(-r));
        run.started++;
        return true;
}

static long measure(void (*act)(void)) {
        inject_arm(run.inject, run.sweep->kind, 1000000000, run.sweep->variant);
        act();
        return inject_passed(run.inject);
}

static void start_well(void) {
        launch();
        await_ready();
}

static void stop(int signal_number) {
        size_t before = log_length();

        test_daemon_signal(run.daemon, signal_number);
        expect_exit(true, before);
        load_drop(run.load);
        run.stops++;
}

static void stop_well(void) {
        stop(SIGTERM);
}

static void interrupt_well(void) {
        stop(SIGINT);
        load_forget(run.load);
}

/* With everything held from before. */
static void start_full(void) {
        start_well();
        run.step = load_full();
        load_resume(run.load, run.step);
}

/* Made anew. */
static void start_and_fill(void) {
        start_well();
        make_all(0, load_full() + 1);
}

/* Each call fails once, or some do at random. count(): how many there are. */
static void sweep_all(long (*count)(void), void (*act)(void)) {
        unsigned long i, n;

        for (size_t which = 0; which < SWEEPS; which++) {
                run.sweep = &sweeps[which];
                if (!is_wanted("KIND", run.sweep->name))
                        continue;
                n = (unsigned long)count();
                inject_disarm(run.inject);
                for (i = 0; i < (run.all ? n + 2 : SOME_STARTS / SWEEPS); i++) {
                        run.n = run.all ? (long)i + 1 : (long)random_below(n + 1) + 1;
                        act();
                }
        }
        run.sweep = NULL;
}

static long count_empty_start(void) {
        long n = measure(start_well);

        interrupt_well();
        return n;
}

/* Nothing was there before, and nothing may be there after a stop by somebody at a terminal. */
static void try_empty_start(void) {
        bool runs = start_failing();

        inject_disarm(run.inject);
        if (!runs)
                start_well();
        interrupt_well();
}

static long count_start(void) {
        long n = measure(start_well);

        load_resume(run.load, load_full());
        stop_well();
        return n;
}

static void try_start(void) {
        bool runs = start_failing();
        const char *what = inject_disarm(run.inject);

        load_note("start: %s: %s", what ? what : "nothing", runs ? "got ready" : "said why not");
        if (!runs)
                start_well();
        run.step = load_full();
        load_resume(run.load, run.step);
        load_step(run.load, run.step, FAULTY_NONE, 0, 0);
        stop_well();
}

static long count_stop(void) {
        start_full();
        return measure(stop_well);
}

static void try_stop(void) {
        start_full();
        inject_arm(run.inject, run.sweep->kind, run.n, run.sweep->variant);
        stop_well();
        inject_disarm(run.inject);
}

static long count_interrupt(void) {
        start_and_fill();
        return measure(interrupt_well);
}

/* Whatever fails then: nothing outlives it. */
static void try_interrupt(void) {
        start_and_fill();
        inject_arm(run.inject, run.sweep->kind, run.n, run.sweep->variant);
        interrupt_well();
        inject_disarm(run.inject);
        await_end_of_all();
}

static void with_nothing_kept(const char *phase, long (*count)(void), void (*act)(void)) {
        run.phase = phase;
        begin();
        interrupt_well();
        sweep_all(count, act);
        start_well();
        make_all(0, load_steps());
        set_base();
        load_expect_nothing(run.load, "in the end");
        end();
}

static void with_everything_kept(const char *phase, long (*count)(void), void (*act)(void)) {
        run.phase = phase;
        begin();
        make_all(0, load_full() + 1);
        stop_well();
        sweep_all(count, act);
        start_full();
        make_all(load_full() + 1, load_steps());
        set_base();
        load_expect_nothing(run.load, "in the end");
        end();
}

/* ---- all of it ---- */

static void on_source(const char *source) {
        if (!is_wanted("SOURCE", source))
                return;
        run.source = source;
        run.used_before = test_hugepages_used();
        if (is_wanted("PHASE", "load"))
                serving();
        if (is_wanted("PHASE", "start")) {
                with_nothing_kept("starting for the first time", count_empty_start, try_empty_start);
                with_everything_kept("starting", count_start, try_start);
        }
        if (is_wanted("PHASE", "stop")) {
                with_everything_kept("ending", count_stop, try_stop);
                with_nothing_kept("giving everything back", count_interrupt, try_interrupt);
        }
}

static void report(void) {
        const struct load_counts *counts = load_counts();

        inject_report(run.inject, stdout);
        printf("%lu calls failed: of requests %lu were answered as always, %lu with an error, %lu not at all, and %lu were asked "
               "again; %lu starts, of which %lu got ready, %lu said why not, and %lu were ended by a library; %lu ends\n",
               inject_total(run.inject), counts->answered, counts->refused, counts->lost, counts->again, run.starts, run.started,
               run.refused_starts - run.library_ends, run.library_ends, run.stops);
        printf("%lu rounds, %lu deaths, %lu looks at what is left: 0 crashes, 0 processes left, %ld descriptors left, %ld blocks "
               "of the heap, 0 bytes lost\n", run.rounds, run.kills, counts->rests, counts->fds, counts->blocks);
}

int main(int argc, char **argv) {
        const char *seed = getenv("SEED");
        int r;

        run.all = argc > 1 && strcmp(argv[1], "--all") == 0;
        run.random = seed ? strtoull(seed, NULL, 0) : run.all ? (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid() : SOME_SEED;
        printf("SEED=%llu\n", (unsigned long long)run.random);
        fflush(stdout);
        run.random = run.random * UINT64_C(0x9e3779b97f4a7c15) | 1;
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        run.library = test_program_path("tests/survive/.libs/faulty.so");
        if (!run.library)
                return 1;
        r = inject_new(&run.inject);
        if (r < 0) {
                printf("skipped: no system call can be made to fail: %s\n", strerror(-r));
                return 77;
        }
        on_source("sim");
        if (is_wanted("SOURCE", "hugetlb")) {
                r = test_hugepages_reserve(HUGE_PAGES);
                if (r < 0)
                        printf("hugetlb is left out: %s\n", strerror(-r));
                else
                        on_source("hugetlb");
        }
        report();
        return 0;
}
