/* The live view of "dmabrokerctl top", drawn with ncurses. */
#ifndef DMAB_CTL_TOP_SCREEN_H
#define DMAB_CTL_TOP_SCREEN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/ctl/ctl.h"
#include "client/ctl/top-sampler.h"

struct top_options {
        size_t view;   /* in top_views */
        bool all;      /* no view was asked for: where there is room, all of them */
        size_t column; /* to sort by; SIZE_MAX: each view's own */
        bool reversed;
        unsigned interval_ms;
        uint64_t count; /* refreshes to end after; 0: never */
};

/* Was this program built with it? */
bool top_screen_exists(void);

/* Show what the sampler takes until the user has had enough or one of the signals comes, which are blocked, and SIGWINCH
 * among them. CTL_FAILURE after complaining when there is no such terminal. */
enum ctl_status top_screen_run(struct top_sampler *sampler, const struct top_options *options, const sigset_t *signals);

#endif
