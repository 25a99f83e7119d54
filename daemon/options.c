#include <config.h>

#include "daemon/options.h"

#include <getopt.h>
#include <stdio.h>

#include "daemon/config.h"

static const char help[] =
        "Usage: dmabrokerd [OPTION]...\n"
        "Serve machine-contiguous memory to local processes. Runs in the foreground.\n"
        "\n"
        "  --config FILE     read FILE instead of " CONFIG_PATH "\n"
        "  --socket PATH     listen at PATH; see also DMABROKER_SOCKET\n"
        "  --state-dir DIR   keep what must survive in DIR\n"
        "  --source NAME     take memory from NAME only: hugetlb, dma-heap, sim; or several, separated by commas\n"
        "  --discard-state   end everything that an earlier daemon has left, and begin anew\n"
        "  --check-config    say what is wrong with the configuration, and end\n"
        "  --list-config     list every key of the configuration, and end\n"
        "  --version         tell the version, and end\n"
        "  --help            show this, and end\n"
        "\n"
        "SIGHUP reads the configuration again. SIGTERM ends the daemon, and what is in use stays for the next one; SIGINT\n"
        "ends that too. The exit status is 0 after a clean end, 1 after a failure, 2 when the command line is wrong.\n";

enum { OPTION_CONFIG = 256, OPTION_SOCKET, OPTION_DISCARD, OPTION_STATE_DIR, OPTION_SOURCE, OPTION_CHECK, OPTION_LIST,
       OPTION_VERSION, OPTION_HELP };

static const struct option known[] = {
        { "config", required_argument, NULL, OPTION_CONFIG },
        { "socket", required_argument, NULL, OPTION_SOCKET },
        { "state-dir", required_argument, NULL, OPTION_STATE_DIR },
        { "source", required_argument, NULL, OPTION_SOURCE },
        { "discard-state", no_argument, NULL, OPTION_DISCARD },
        { "check-config", no_argument, NULL, OPTION_CHECK },
        { "list-config", no_argument, NULL, OPTION_LIST },
        { "version", no_argument, NULL, OPTION_VERSION },
        { "help", no_argument, NULL, OPTION_HELP },
        { NULL, 0, NULL, 0 },
};

enum options_action options_parse(int argc, char **argv, struct options *ret) {
        enum options_action action = OPTIONS_RUN;
        int letter;

        while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
                switch (letter) {
                case OPTION_CONFIG:
                        ret->config = optarg;
                        break;
                case OPTION_SOCKET:
                        ret->socket = optarg;
                        break;
                case OPTION_STATE_DIR:
                        ret->state_dir = optarg;
                        break;
                case OPTION_SOURCE:
                        ret->source = optarg;
                        break;
                case OPTION_DISCARD:
                        ret->discard_state = true;
                        break;
                case OPTION_CHECK:
                        action = OPTIONS_CHECK_CONFIG;
                        break;
                case OPTION_LIST:
                        action = OPTIONS_LIST_CONFIG;
                        break;
                case OPTION_VERSION:
                        printf("dmabrokerd (dmabroker) %s\n", PACKAGE_VERSION);
                        return OPTIONS_DONE;
                case OPTION_HELP:
                        fputs(help, stdout);
                        return OPTIONS_DONE;
                default:
                        fprintf(stderr, "Try dmabrokerd --help.\n");
                        return OPTIONS_USAGE;
                }
        }
        if (optind == argc)
                return action;
        fprintf(stderr, "dmabrokerd takes no argument \"%s\". Try dmabrokerd --help.\n", argv[optind]);
        return OPTIONS_USAGE;
}
