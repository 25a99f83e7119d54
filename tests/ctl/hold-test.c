/* What dmabrokerctl holds outlives the daemon, as long as somebody holds it: the command finds its way back by itself. */
#include <dmabroker.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

struct holder {
        pid_t pid;
        FILE *output;
};

/* Until it says something: then it has what it holds. */
static void holder_start(struct holder *holder, const struct test_daemon *daemon) {
        char *program = test_program_path("dmabrokerctl"), line[256];
        int ends[2];

        assert_non_null(program);
        assert_int_equal(pipe(ends), 0);
        holder->pid = fork();
        if (!holder->pid) {
                dup2(ends[1], STDOUT_FILENO);
                dup2(ends[1], STDERR_FILENO);
                close(ends[0]);
                close(ends[1]);
                execl(program, program, "--socket", test_daemon_socket(daemon), "pools", "create", "ring", "4096", "--device",
                      "nic", NULL);
                _exit(127);
        }
        assert_true(holder->pid > 0);
        close(ends[1]);
        free(program);
        holder->output = fdopen(ends[0], "r");
        assert_non_null(fgets(line, sizeof(line), holder->output));
        assert_non_null(strstr(line, "pool"));
}

/* Returns its exit status; *ret_said has what it said last. */
static int holder_wait(struct holder *holder, char *ret_said, size_t size) {
        int status;

        while (fgets(ret_said, (int)size, holder->output))
                ;
        fclose(holder->output);
        assert_int_equal(waitpid(holder->pid, &status, 0), holder->pid);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static json_int_t count(dmab_t *dmab, const char *what) {
        char *text = NULL;
        json_int_t n;
        json_t *status;

        if (dmab_call(dmab, "broker.status", NULL, &text))
                fail_msg("%s", dmab_last_error());
        status = json_loads(text, 0, NULL);
        n = json_integer_value(json_object_get(json_object_get(status, "counts"), what));
        json_decref(status);
        free(text);
        return n;
}

static dmab_t *connect_to(const struct test_daemon *daemon) {
        char uri[256];
        dmab_t *dmab;

        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        return dmab;
}

static void test_a_holder_comes_back_to_a_daemon_that_was_started_anew(void **state) {
        const struct test_daemon_options options = { .survives = true };
        struct test_daemon *daemon;
        struct holder holder;
        char said[512];
        dmab_t *dmab;

        assert_null(*state);
        assert_int_equal(test_daemon_start(&options, &daemon), 0);
        holder_start(&holder, daemon);
        dmab = connect_to(daemon);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(test_daemon_restart(daemon, i ? SIGTERM : SIGKILL), 0);
                while (count(dmab, "connections") != 2) /* each look is a call that the daemon answers */
                        ;
                assert_int_equal(count(dmab, "pools"), 1);
        }
        kill(holder.pid, SIGTERM);
        assert_int_equal(holder_wait(&holder, said, sizeof(said)), 0);
        assert_int_equal(count(dmab, "pools"), 0);
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
}

static void test_a_holder_whose_session_is_lost_says_so_and_ends(void **state) {
        struct test_daemon *daemon;
        struct holder holder;
        char said[512];

        assert_null(*state);
        assert_int_equal(test_daemon_start(NULL, &daemon), 0);
        holder_start(&holder, daemon);
        assert_int_equal(test_daemon_restart(daemon, SIGKILL), 0);
        assert_int_equal(holder_wait(&holder, said, sizeof(said)), 1);
        assert_non_null(strstr(said, "no longer knows this session"));
        assert_int_equal(test_daemon_end(daemon), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_holder_comes_back_to_a_daemon_that_was_started_anew),
                cmocka_unit_test(test_a_holder_whose_session_is_lost_says_so_and_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
