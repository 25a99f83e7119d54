/* with-daemon [--source NAME] [--config FILE] [--hugepages N] [--open] [--log] -- COMMAND [ARGUMENTS]
 * Runs COMMAND while a private dmabrokerd of the build tree runs. COMMAND sees DMABROKER_SOCKET, DMABROKER_PID,
 * DMABROKER_LOG and DMABROKER_STATE. Ends with COMMAND's status, or with 1 when the daemon did not start or did not end
 * cleanly. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"

struct arguments {
        struct test_daemon_options options;
        size_t hugepages;
        bool log;
        char **command;
};

static char *read_file(const char *path) {
        FILE *file = fopen(path, "re");
        char *text = NULL;
        size_t size = 0;

        if (!file)
                return NULL;
        if (getdelim(&text, &size, '\0', file) < 0 && text)
                text[0] = '\0';
        fclose(file);
        return text;
}

static int arguments_parse(int n, char **words, struct arguments *ret) {
        static const struct option known[] = { { "source", required_argument, NULL, 's' },
                                               { "config", required_argument, NULL, 'c' },
                                               { "hugepages", required_argument, NULL, 'h' },
                                               { "open", no_argument, NULL, 'o' },
                                               { "log", no_argument, NULL, 'l' },
                                               { NULL, 0, NULL, 0 } };
        int letter;

        while ((letter = getopt_long(n, words, "+", known, NULL)) != -1) {
                switch (letter) {
                case 's':
                        ret->options.source = optarg;
                        break;
                case 'c':
                        ret->options.config = read_file(optarg);
                        if (!ret->options.config) {
                                fprintf(stderr, "%s: %s\n", optarg, strerror(errno));
                                return -errno;
                        }
                        break;
                case 'h':
                        ret->hugepages = strtoul(optarg, NULL, 10);
                        break;
                case 'o':
                        ret->options.open_directory = true;
                        break;
                case 'l':
                        ret->log = true;
                        break;
                default:
                        return -EINVAL;
                }
        }
        ret->command = words + optind;
        return *ret->command ? 0 : -EINVAL;
}

static int run(struct test_daemon *daemon, char **command) {
        char text[128];
        int status;
        pid_t pid;

        pid = fork();
        if (pid < 0)
                return 1;
        if (pid == 0) {
                setenv("DMABROKER_SOCKET", test_daemon_socket(daemon), 1);
                setenv("DMABROKER_STATE", test_daemon_state(daemon), 1);
                snprintf(text, sizeof(text), "%d", (int)test_daemon_pid(daemon));
                setenv("DMABROKER_PID", text, 1);
                snprintf(text, sizeof(text), "%s/log", test_daemon_directory(daemon));
                setenv("DMABROKER_LOG", text, 1);
                execvp(command[0], command);
                fprintf(stderr, "%s: %s\n", command[0], strerror(errno));
                _exit(127);
        }
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return 1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int n, char **words) {
        struct arguments arguments = { 0 };
        struct test_daemon *daemon;
        int status;
        char *log;

        if (arguments_parse(n, words, &arguments) < 0) {
                fprintf(stderr, "usage: with-daemon [--source NAME] [--config FILE] [--hugepages N] [--open] [--log] -- "
                                "COMMAND [ARGUMENTS]\n");
                return 2;
        }
        if (arguments.hugepages)
                test_hugepages_reserve_or_skip(arguments.hugepages);
        if (test_daemon_start(&arguments.options, &daemon) < 0)
                return 1;
        status = run(daemon, arguments.command);
        if (arguments.log && (log = test_daemon_log(daemon))) {
                fputs(log, stderr);
                free(log);
        }
        if (test_daemon_end(daemon) < 0)
                status = 1;
        free((char *)arguments.options.config);
        return status;
}
