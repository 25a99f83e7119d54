/* top: what happens now. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/ctl/top-sampler.h"
#include "client/ctl/top-screen.h"
#include "client/ctl/top-views.h"
#include "client/ctl/verbs.h"

enum { INTERVAL_MS = 1000, INTERVAL_LEAST_MS = 100, INTERVAL_MOST_MS = 3600 * 1000 };

static const struct ctl_option options[] = {
        { "--interval", "SECONDS", "between two refreshes, from 0.1 to 3600; 1 unless given" },
        { "--once", NULL, "print one snapshot, with rates over one interval; what a pipe gets anyway" },
        { "--count", "N", "end after N refreshes" },
        { "--view", "VIEW", "show sources, owners, devices, pools, bounces or calls" },
        { "--sort", "COLUMN", "with --view: sort by the column with this title; by what is in use unless given" },
        { "--reverse", NULL, "with --view: the smallest first" },
        { NULL },
};

/* ---- options ---- */

static enum ctl_status parse_interval(const struct ctl *ctl, unsigned *ret) {
        uint64_t ms = INTERVAL_MS;
        enum ctl_status status = CTL_OK;

        if (ctl_has(ctl, "--interval"))
                status = ctl_parse_seconds(ctl, "--interval", ctl_value(ctl, "--interval"), &ms);
        if (status == CTL_OK && (ms < INTERVAL_LEAST_MS || ms > INTERVAL_MOST_MS))
                status = ctl_misuse(ctl, "--interval must be from 0.1 to 3600 seconds, not %s",
                                    ctl_value(ctl, "--interval"));
        *ret = (unsigned)ms;
        return status;
}

static enum ctl_status parse_view(const struct ctl *ctl, struct top_options *top) {
        const char *view = ctl_value(ctl, "--view"), *sort = ctl_value(ctl, "--sort");

        top->all = !view;
        top->reversed = ctl_has(ctl, "--reverse");
        top->column = SIZE_MAX;
        if (!view && (sort || top->reversed))
                return ctl_misuse(ctl, "%s needs --view", sort ? "--sort" : "--reverse");
        if (!view)
                return CTL_OK;
        top->view = top_view_find(view);
        if (top->view == TOP_VIEWS)
                return ctl_misuse(ctl, "there is no view %s; there are sources, owners, devices, pools, bounces and calls",
                                  view);
        if (!sort)
                return CTL_OK;
        top->column = top_column_find(&top_views[top->view], sort);
        if (top->column == top_views[top->view].n_columns)
                return ctl_misuse(ctl, "the view %s has no column %s", view, sort);
        return CTL_OK;
}

static enum ctl_status parse_options(const struct ctl *ctl, struct top_options *top) {
        enum ctl_status status = parse_interval(ctl, &top->interval_ms);

        if (status == CTL_OK)
                status = parse_view(ctl, top);
        if (status == CTL_OK && ctl_has(ctl, "--count"))
                status = ctl_parse_uint(ctl, "--count", ctl_value(ctl, "--count"), &top->count);
        if (status == CTL_OK && ctl_has(ctl, "--count") && !top->count)
                status = ctl_misuse(ctl, "--count must be at least 1");
        if (status == CTL_OK && ctl_has(ctl, "--count") && ctl_has(ctl, "--once"))
                status = ctl_misuse(ctl, "--count and --once cannot both be given");
        return status;
}

/* ---- printing ---- */

static void print_view(const struct top_view *view, size_t column, bool reversed, json_t *refresh) {
        json_t *rows = top_sort(refresh, view, column < view->n_columns ? column : view->sort, reversed);

        show_pair("view", view->name);
        putchar('\n');
        show_table(rows, view->columns, view->n_columns);
        putchar('\n');
        json_decref(rows);
}

static void print_snapshot(const struct top_options *top, json_t *refresh) {
        json_t *totals = json_object_get(refresh, "totals");
        char buffer[SHOW_SIZE];

        if (!top->all) {
                print_view(&top_views[top->view], top->column, top->reversed, refresh);
                return;
        }
        show_pair("seconds", show_member(refresh, "seconds", buffer));
        show_pairs(totals);
        putchar('\n');
        for (size_t i = 0; i < TOP_VIEWS; i++)
                print_view(&top_views[i], SIZE_MAX, false, refresh);
}

/* Programs are told that the daemon is away, and go on to be told what it says when it is back. */
static void print_failure(const struct ctl *ctl, const char *failure) {
        json_t *object = json_pack("{s:{s:s}}", "error", "message", failure);

        fprintf(stderr, "dmabrokerctl: %s\n", failure);
        if (ctl->json)
                ctl_print_json(object);
        json_decref(object);
}

/* The first refresh has no rates, and only serves the second. */
static enum ctl_status print_refreshes(const struct ctl *ctl, struct top_sampler *sampler, const struct top_options *top,
                                       const sigset_t *signals) {
        struct pollfd polled[] = { { .fd = top_sampler_fd(sampler), .events = POLLIN },
                                   { .fd = signalfd(-1, signals, SFD_CLOEXEC), .events = POLLIN } };
        bool endless = ctl->json && !ctl_has(ctl, "--once") && !top->count;
        uint64_t left = top->count ? top->count : 1;
        enum ctl_status status = CTL_OK;

        while (left && status == CTL_OK && !polled[1].revents) {
                json_t *refresh;
                char *failure;

                if (poll(polled, 2, -1) < 0 || !polled[0].revents)
                        continue;
                top_sampler_take(sampler, &refresh, &failure);
                if (failure) {
                        print_failure(ctl, failure);
                        if (!endless && !top->count)
                                status = CTL_FAILURE;
                }
                if (json_object_get(refresh, "seconds")) {
                        if (ctl->json)
                                ctl_print_json(refresh);
                        else
                                print_snapshot(top, refresh);
                        left -= !endless;
                }
                if (fflush(stdout))
                        left = 0;
                json_decref(refresh);
                free(failure);
        }
        close(polled[1].fd);
        return status;
}

/* ---- the verb ---- */

/* The sampler's thread must not be the one that gets them. */
static void block_signals(sigset_t *signals) {
        sigemptyset(signals);
        sigaddset(signals, SIGINT);
        sigaddset(signals, SIGTERM);
        sigaddset(signals, SIGHUP);
        sigaddset(signals, SIGWINCH);
        sigprocmask(SIG_BLOCK, signals, NULL);
}

static enum ctl_status run_top(struct ctl *ctl) {
        struct top_options top = { 0 };
        struct top_sampler *sampler;
        enum ctl_status status = parse_options(ctl, &top);
        bool screen = show_terminal() && !ctl->json && !ctl_has(ctl, "--once");
        char uri[4200];
        sigset_t signals;

        if (status == CTL_OK && screen && !top_screen_exists()) {
                fprintf(stderr, "dmabrokerctl: this program was built without ncurses; \"top --once\" prints a snapshot\n");
                return CTL_FAILURE;
        }
        if (status == CTL_OK)
                status = ctl_connect(ctl);
        if (status != CTL_OK)
                return status;
        block_signals(&signals);
        ctl_uri(ctl, uri, sizeof(uri));
        dmab_set_reconnect_timeout(ctl->dmab, 0);
        if (top_sampler_start(uri, ctl->dmab, top.interval_ms, &sampler)) {
                ctl->dmab = NULL;
                fprintf(stderr, "dmabrokerctl: no thread can be started\n");
                return CTL_FAILURE;
        }
        ctl->dmab = NULL;
        status = screen ? top_screen_run(sampler, &top, &signals) : print_refreshes(ctl, sampler, &top, &signals);
        top_sampler_end(sampler);
        return status;
}

const struct ctl_verb verb_top = {
        .name = "top",
        .operands = "",
        .summary = "watch what happens: who has how much, and how fast it changes",
        .doc = "On a terminal, a view that is refreshed until q is pressed: sources, owners, devices, pools, bounce pools and "
               "calls, with bars of what is in use, marks at the most that ever was, and rates between two refreshes; h "
               "lists the keys. A daemon that goes away is waited for. In a pipe, one snapshot of all views, or of the one "
               "that is asked for; with --json one object on a line for each refresh, until interrupted.",
        .options = options,
        .run = run_top,
};
