/* A real dmabrokerd from the build tree for one test: private directory, private socket, private state. Nothing here
 * sleeps: readiness is the daemon's own READY=1, an early death is seen through a pidfd, and every wait has a deadline.
 * Functions return 0 or -errno and say on stderr what went wrong, with the daemon's log. Not thread-safe. */
#ifndef DMAB_TESTS_LIB_DAEMON_H
#define DMAB_TESTS_LIB_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "tests/lib/identity.h"

struct test_daemon;

/* Everything is optional: a zeroed struct means the simulated source, no configuration file and the test's own user. */
struct test_daemon_options {
        const char *source;             /* --source; NULL: "sim"; "": the argument is left out */
        const char *config;             /* text of a configuration file; NULL: an empty file */
        const char *const *arguments;   /* more arguments, ends with NULL */
        const struct test_identity *as; /* run as this user; needs root */
        bool socket_configured;         /* --socket is left out: `config` says where it is */
        bool survives;                  /* what is in use is kept for the next daemon; if not, all ends with each daemon */
        bool open_directory;            /* let every user reach the socket (the daemon still checks who connects) */
        void (*in_child)(void *userdata); /* called just before the child becomes the daemon; may be NULL */
        void *userdata;
};

/* Start and wait for READY=1. On failure the daemon is gone and its log is on stderr. options may be NULL. */
int test_daemon_start(const struct test_daemon_options *options, struct test_daemon **ret);

/* Start it again on the same directory, state and socket, after test_daemon_kill() or test_daemon_stop(). */
int test_daemon_start_again(struct test_daemon *daemon);

/* The same without waiting until it is ready: test_daemon_kill() may follow at any moment. */
int test_daemon_launch(struct test_daemon *daemon);

/* SIGTERM, wait, judge: 0 when it ended with exit status 0; -EPROTO and its log on stderr otherwise; -ETIMEDOUT when it
 * did not end (it is killed then). */
int test_daemon_stop(struct test_daemon *daemon);

/* End it with SIGTERM or SIGKILL, and start it again at once. */
int test_daemon_restart(struct test_daemon *daemon, int signal_number);

/* SIGKILL and wait. */
int test_daemon_kill(struct test_daemon *daemon);

/* End it for good if it runs (SIGINT), remove its directory, free everything. The result is as that of test_daemon_stop().
 * NULL is fine. */
int test_daemon_end(struct test_daemon *daemon);

/* Wait until it ends by itself. ret_status is as from waitpid(). */
int test_daemon_wait(struct test_daemon *daemon, int *ret_status);

/* Wait for a notification that contains text, such as "RELOADING=1" or "STOPPING=1", sent after READY=1. */
int test_daemon_wait_notify(struct test_daemon *daemon, const char *text);

/* For the next start; the text must live until then. */
void test_daemon_set_source(struct test_daemon *daemon, const char *source);
int test_daemon_signal(struct test_daemon *daemon, int signal_number);
pid_t test_daemon_pid(const struct test_daemon *daemon);             /* 0 when it does not run */
pid_t test_daemon_find_keeper(const struct test_daemon *daemon);     /* that holds its memory for the next one; 0: none */
const char *test_daemon_socket(const struct test_daemon *daemon);    /* path; lives as long as daemon */
const char *test_daemon_directory(const struct test_daemon *daemon); /* the private directory */
const char *test_daemon_state(const struct test_daemon *daemon);     /* --state-dir */
const char *test_daemon_config(const struct test_daemon *daemon);    /* the configuration file, to be rewritten for SIGHUP */

/* All that it has written to stderr and stdout since the first start; the caller frees. NULL without memory. */
char *test_daemon_log(const struct test_daemon *daemon);

/* Path of a program of the build tree ("dmabrokerd", "dmabrokerctl"); the caller frees. NULL when it is not there.
 * TOP_BUILDDIR says where the build tree is; without it, the current directory is taken. */
char *test_program_path(const char *name);

/* How long anything may take before a test is said to hang: 20 s, or TEST_TIMEOUT_MS. In milliseconds. */
int test_timeout_ms(void);

#endif
