/* The command line. */
#ifndef DMAB_DAEMON_OPTIONS_H
#define DMAB_DAEMON_OPTIONS_H

#include <stdbool.h>

enum options_action { OPTIONS_RUN, OPTIONS_CHECK_CONFIG, OPTIONS_LIST_CONFIG, OPTIONS_DONE, OPTIONS_USAGE };

/* NULL: not given. The texts are those of argv. */
struct options {
        const char *config, *socket, *state_dir, *source;
        bool discard_state;
};

/* OPTIONS_DONE: --help or --version was answered. OPTIONS_USAGE: what is wrong was told on standard error. */
enum options_action options_parse(int argc, char **argv, struct options *ret);

#endif
