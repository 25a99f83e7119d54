/* From the first line of the configuration to the last answer: starting, refusing to start, reloading, ending. */
#include <config.h>

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

struct fixture {
        char directory[64];
        char config[128], socket[128], state[128];
};

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        strcpy(fixture->directory, "/tmp/dmab-lifecycle-XXXXXX");
        assert_non_null(mkdtemp(fixture->directory));
        assert_int_equal(chmod(fixture->directory, 0777), 0);
        snprintf(fixture->config, sizeof(fixture->config), "%s/conf", fixture->directory);
        snprintf(fixture->socket, sizeof(fixture->socket), "%s/sock", fixture->directory);
        snprintf(fixture->state, sizeof(fixture->state), "%s/state", fixture->directory);
        *state = fixture;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;
        char path[160];

        snprintf(path, sizeof(path), "%s/lock", fixture->state);
        unlink(path);
        snprintf(path, sizeof(path), "%s/ledger.1", fixture->state);
        unlink(path);
        rmdir(fixture->state);
        unlink(fixture->config);
        unlink(fixture->socket);
        assert_int_equal(rmdir(fixture->directory), 0);
        free(fixture);
        return 0;
}

static void write_file(const char *path, const char *text) {
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        fputs(text, file);
        assert_int_equal(fclose(file), 0);
}

/* Run the daemon to its end and get what it says. The caller's; free(). */
static char *run(const char *const *arguments, const struct test_identity *as, int *ret_status) {
        char *program = test_program_path("dmabrokerd"), *words[16] = { program }, *text = NULL;
        size_t size = 0;
        int pipe_fds[2], status;
        FILE *output;
        pid_t pid;

        assert_non_null(program);
        for (size_t i = 0; arguments[i]; i++)
                words[i + 1] = (char *)arguments[i];
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                int fd = open(program, O_RDONLY | O_CLOEXEC);

                dup2(pipe_fds[1], 1);
                dup2(pipe_fds[1], 2);
                if (!as || test_identity_assume(as) == 0)
                        fexecve(fd, words, environ);
                _exit(126);
        }
        close(pipe_fds[1]);
        output = fdopen(pipe_fds[0], "r");
        if (getdelim(&text, &size, '\0', output) < 0)
                text = strdup("");
        fclose(output);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        *ret_status = WEXITSTATUS(status);
        free(program);
        return text;
}

static void expect(const char *const *arguments, const struct test_identity *as, int wanted, const char *const *words) {
        int status;
        char *text = run(arguments, as, &status);

        for (; *words; words++)
                if (!strstr(text, *words))
                        fail_msg("wanted \"%s\" in: %s", *words, text);
        if (status != wanted)
                fail_msg("wanted exit status %d, got %d: %s", wanted, status, text);
        free(text);
}

#define WORDS(...) (const char *const[]){ __VA_ARGS__, NULL }
#define START(fixture, ...) WORDS("--config", (fixture)->config, "--socket", (fixture)->socket, "--state-dir", \
                                  (fixture)->state, "--source", "sim", __VA_ARGS__)

/* ---- the command line ---- */

static void test_version_and_help_are_told(void **state) {
        expect(WORDS("--version"), NULL, 0, WORDS("dmabrokerd"));
        expect(WORDS("--help"), NULL, 0, WORDS("--config", "--socket", "--state-dir", "--source", "--check-config"));
}

static void test_a_wrong_command_line_ends_with_2(void **state) {
        expect(WORDS("--colour"), NULL, 2, WORDS("--help"));
        expect(WORDS("start"), NULL, 2, WORDS("start"));
}

static void test_every_key_can_be_listed(void **state) {
        expect(WORDS("--list-config"), NULL, 0, WORDS("daemon\tsocket\t", "limits\tmessage\tsize\t1M\treload\t",
                                                      "quota\tbytes\t", "source sim\tlayout\t"));
}

/* ---- the configuration ---- */

static void test_a_good_configuration_is_said_to_be_good(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "# all sections\n[daemon]\nsource = sim\ngrace = 1min\n[limits]\nmessage = 2M\n"
                                    "[memory]\nlow_keep_percent = 10\n[source sim]\nlayout = 16M@0x100000000\n"
                                    "[quota default]\nbytes = 1G\n[quota user:1000]\nallocs = unlimited\n"
                                    "[device 03:00.0]\nmask = 0xffffffff\n  dma = no\n  parent = 00:01.0\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 0, WORDS("good"));
}

static void test_every_error_has_its_line(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "stray = 1\n"               /* 1 */
                                    "[daemon]\n"
                                    "grace = soon\n"             /* 3 */
                                    "colour = red\n"             /* 4 */
                                    "access = group\n"
                                    "access = everyone\n"        /* 6 */
                                    "this is nothing\n"          /* 7 */
                                    "[paint]\n"                  /* 8 */
                                    "[limits]\n"
                                    "message = 1\n"              /* 10 */
                                    "nesting = 9999999\n"        /* 11 */
                                    "[quota everybody]\n"        /* 12 */
                                    "[device x]\n"
                                    "mask = 0xff00\n"            /* 14 */
                                    "[source sim]\n"
                                    "layout = nowhere\n"         /* 16 */
                                    "sauce = 1\n"                /* 17 */
                                    "[source gold]\n"            /* 18 */
                                    "[daemon]\n"                 /* 19 */
                                    "[metrics]\n"
                                    "listen = localhost\n"       /* 21 */
                                    "[open\n");                  /* 22 */
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1,
               WORDS("conf:1: ", "conf:3: ", "conf:4: ", "conf:6: ", "conf:7: ", "conf:8: ", "conf:10: ", "conf:11: ",
                     "conf:12: ", "conf:14: ", "conf:16: ", "conf:17: ", "conf:18: ", "conf:19: ", "conf:21: ", "conf:22: "));
}

static void test_the_simulation_beside_a_real_source_is_an_error(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "[source sim]\n[source hugetlb]\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1, WORDS("conf:2: ", "sim"));
        write_file(fixture->config, "[daemon]\nsource = hugetlb, sim\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1, WORDS("conf:2: ", "sim"));
}

static void test_memory_guaranteed_to_everybody_is_an_error(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "[quota user:1000]\nguaranteed = 1G\n[quota default]\nguaranteed = 1M\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1, WORDS("conf:4: ", "[quota user:UID]"));
}

static void test_a_stall_longer_than_its_window_is_an_error(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "[memory]\npressure = psi\npressure_stall = 3s\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1, WORDS("conf:3: ", "pressure_window"));
}

static void test_guests_are_of_a_hypervisor_that_there_is(void **state) {
        static const char xen[] = "[guest one]\nuuid = 1b4e28ba-2fa1-11d2-883f-0016d3cca427\nhypervisor = xen\n";
        struct fixture *fixture = *state;

        write_file(fixture->config, xen);
#ifdef HAVE_XEN
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 0, WORDS("good"));
#else
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1, WORDS("conf:1: ", "goes without Xen"));
#endif
        write_file(fixture->config, "[guest one]\nuuid = 1b4e28ba-2fa1-11d2-883f-0016d3cca427\nhypervisor = xen\nqmp = /sock\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1, WORDS("conf:1: ", "no qmp and no ports"));
        write_file(fixture->config, "[guest one]\nuuid = 1b4e28ba-2fa1-11d2-883f-0016d3cca427\nhypervisor = vmware\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 1, WORDS("conf:3: ", "kvm"));
        write_file(fixture->config, "[quota xen:1b4e28ba-2fa1-11d2-883f-0016d3cca427]\nbytes = 1M\n");
        expect(WORDS("--check-config", "--config", fixture->config), NULL, 0, WORDS("good"));
}

static void test_a_configuration_that_is_not_there_is_told(void **state) {
        struct fixture *fixture = *state;

        expect(START(fixture, NULL), NULL, 1, WORDS(fixture->config, "cannot be read"));
}

static void test_an_unreadable_configuration_is_told(void **state) {
        struct fixture *fixture = *state;
        const struct test_identity nobody = { .uid = 12345, .gid = 12345 };

        if (geteuid() != 0)
                skip();
        write_file(fixture->config, "");
        assert_int_equal(chmod(fixture->config, 0), 0);
        expect(START(fixture, NULL), &nobody, 1, WORDS(fixture->config, "Permission denied", "read it"));
}

static void test_a_directory_is_no_configuration(void **state) {
        struct fixture *fixture = *state;

        expect(WORDS("--check-config", "--config", fixture->directory), NULL, 1, WORDS("cannot be read"));
}

/* ---- the socket and the state ---- */

static void test_a_file_in_the_sockets_place_is_left_alone(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "");
        write_file(fixture->socket, "precious");
        expect(START(fixture, NULL), NULL, 1, WORDS(fixture->socket, "no socket", "remove it"));
        assert_int_equal(access(fixture->socket, F_OK), 0);
}

static void test_a_path_that_is_too_long_for_a_socket_is_told(void **state) {
        struct fixture *fixture = *state;
        char path[200];

        memset(path, 'x', sizeof(path) - 1);
        path[0] = '/';
        path[sizeof(path) - 1] = '\0';
        write_file(fixture->config, "");
        expect(WORDS("--config", fixture->config, "--state-dir", fixture->state, "--socket", path), NULL, 1,
               WORDS("199 characters", "107"));
}

static void test_a_daemon_that_answers_is_not_pushed_aside(void **state) {
        struct fixture *fixture = *state;
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *client;

        write_file(fixture->config, "");
        expect(WORDS("--config", fixture->config, "--socket", test_daemon_socket(running), "--state-dir", fixture->state,
                     "--source", "sim"), NULL, 1, WORDS("another daemon answers"));
        expect(WORDS("--config", fixture->config, "--socket", fixture->socket, "--state-dir", test_daemon_state(running),
                     "--source", "sim"), NULL, 1, WORDS("another daemon uses the state directory"));
        client = ask_connect(running, NULL);
        json_decref(ask(client, "broker.ping", "{}"));
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_stale_socket_is_replaced(void **state) {
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *client;

        assert_int_equal(test_daemon_kill(running), 0);
        assert_int_equal(access(test_daemon_socket(running), F_OK), 0);
        assert_int_equal(test_daemon_start_again(running), 0);
        client = ask_connect(running, NULL);
        json_decref(ask(client, "broker.ping", "{}"));
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_clean_end_removes_the_socket(void **state) {
        struct test_daemon *running = ask_daemon(NULL);

        assert_int_equal(test_daemon_stop(running), 0);
        assert_int_not_equal(access(test_daemon_socket(running), F_OK), 0);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_state_directory_that_cannot_be_made_is_told(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "");
        expect(WORDS("--config", fixture->config, "--socket", fixture->socket, "--state-dir", "/proc/nowhere"), NULL, 1,
               WORDS("/proc/nowhere", "--state-dir"));
}

/* ---- the service manager ---- */

static void test_the_watchdog_hears_of_it(void **state) {
        struct test_daemon *running;
        int r;

        setenv("WATCHDOG_USEC", "100000", 1);
        running = ask_daemon(NULL);
        unsetenv("WATCHDOG_USEC");
        r = test_daemon_wait_notify(running, "WATCHDOG=1");
        assert_int_equal(test_daemon_end(running), 0);
#ifdef HAVE_SYSTEMD
        assert_int_equal(r, 0);
#else
        (void)r;
#endif
}

#ifdef HAVE_SYSTEMD
/* A listening socket as number 3, as sd_listen_fds() wants it. */
static pid_t start_with_socket(const struct fixture *fixture, int socket_fd) {
        char *program = test_program_path("dmabrokerd"), text[32];
        pid_t pid = fork();

        if (pid == 0) {
                char *words[] = { program, (char *)"--config", (char *)fixture->config, (char *)"--state-dir",
                                  (char *)fixture->state, (char *)"--source", (char *)"sim", NULL };

                if (dup2(socket_fd, 3) != 3)
                        _exit(126);
                snprintf(text, sizeof(text), "%ld", (long)getpid());
                setenv("LISTEN_PID", text, 1);
                setenv("LISTEN_FDS", "1", 1);
                unsetenv("NOTIFY_SOCKET");
                execv(program, words);
                _exit(127);
        }
        free(program);
        return pid;
}

static void test_a_socket_that_is_passed_is_served_and_left_in_place(void **state) {
        struct fixture *fixture = *state;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct test_client *client;
        int fd, status;
        pid_t pid;

        write_file(fixture->config, "");
        strcpy(address.sun_path, fixture->socket);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 16), 0);
        pid = start_with_socket(fixture, fd);
        close(fd);
        /* The connection waits in the socket's queue until the daemon is there. */
        assert_int_equal(test_client_connect(fixture->socket, NULL, &client), 0);
        json_decref(ask(client, "broker.ping", "{}"));
        assert_int_equal(kill(pid, SIGTERM), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(access(fixture->socket, F_OK), 0);
        test_client_close(client);
}
#endif

/* ---- sources ---- */

static void test_an_unknown_source_is_told(void **state) {
        struct fixture *fixture = *state;

        write_file(fixture->config, "");
        expect(WORDS("--config", fixture->config, "--socket", fixture->socket, "--state-dir", fixture->state, "--source",
                     "gold"), NULL, 1, WORDS("gold"));
}

static void test_real_memory_without_permission_is_told(void **state) {
        struct fixture *fixture = *state;
        const struct test_identity nobody = { .uid = 12345, .gid = 12345 };
        const char *const *arguments = WORDS("--config", fixture->config, "--socket", fixture->socket, "--state-dir",
                                             fixture->state, "--source", "hugetlb");
        int status;
        char *text;

        if (geteuid() != 0)
                skip();
        write_file(fixture->config, "");
        text = run(arguments, &nobody, &status);
        assert_int_equal(status, 1);
        /* Which one is met first depends on the machine. */
        assert_true(strstr(text, "CAP_SYS_ADMIN") || strstr(text, "root") || strstr(text, "huge page"));
        free(text);
}

static void test_without_a_choice_the_daemon_says_what_it_took_and_why(void **state) {
        struct test_daemon_options options = { .source = "" };
        struct test_daemon *running;
        struct test_client *client;
        json_t *status, *notes;

        assert_int_equal(test_daemon_start(&options, &running), 0);
        client = ask_connect(running, NULL);
        status = ask(client, "broker.status", "{}");
        notes = json_object_get(status, "notes");
        assert_true(json_array_size(notes) > 0);
        assert_non_null(strstr(json_string_value(json_array_get(notes, 0)), "hugetlb"));
        json_decref(status);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

/* ---- SIGHUP ---- */

static uint64_t nesting(struct test_client *client) {
        json_t *result = ask(client, "broker.hello", "{}");
        uint64_t n = (uint64_t)json_integer_value(json_object_get(json_object_get(result, "limits"), "nesting"));

        json_decref(result);
        return n;
}

static void reload(struct test_daemon *running, const char *config) {
        write_file(test_daemon_config(running), config);
        assert_int_equal(test_daemon_signal(running, SIGHUP), 0);
        assert_int_equal(test_daemon_wait_notify(running, "RELOADING=1"), 0);
        assert_int_equal(test_daemon_wait_notify(running, "READY=1"), 0);
}

static void check_log(struct test_daemon *running, const char *wanted) {
        char *log = test_daemon_log(running);

        if (!strstr(log, wanted))
                fail_msg("wanted \"%s\" in the log: %s", wanted, log);
        free(log);
}

static void test_a_good_configuration_is_taken_over_while_running(void **state) {
        struct test_daemon *running = ask_daemon("[limits]\nnesting = 20\n[quota default]\nallocs = 5\n");
        struct test_client *client = ask_connect(running, NULL);
        json_t *quota;

        assert_int_equal(nesting(client), 20);
        reload(running, "[limits]\nnesting = 30\n[quota default]\nallocs = 6\n");
        assert_int_equal(nesting(client), 30);
        quota = ask(client, "quota.get", "{}");
        assert_int_equal(json_integer_value(json_object_get(json_object_get(quota, "limits"), "allocs")), 6);
        json_decref(quota);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_who_may_connect_can_be_changed_while_running(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\ngroup = no-such-group\n");
        struct test_client *client = ask_connect_as(running, 12345);

        assert_int_equal(test_client_wait_closed(client), 0);
        test_client_close(client);
        reload(running, "[daemon]\naccess = everyone\n");
        client = ask_connect_as(running, 12345);
        json_decref(ask(client, "broker.ping", "{}"));
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_what_an_administrator_does_to_others_is_logged(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\naccess = everyone\n");
        struct test_client *client = ask_connect_as(running, 12345), *admin = ask_connect(running, NULL);
        uint64_t device = ask_device(client, "card"), alloc = ask_alloc(client, device, 4096);

        json_decref(ask(admin, "coherent.free", "{'alloc':%llu}", (unsigned long long)alloc));
        check_log(running, "coherent.free on allocation");
        json_decref(ask(admin, "device.close", "{'device':%llu}", (unsigned long long)device));
        check_log(running, "device.close on device");
        json_decref(ask(admin, "quota.set", "{'owner':'user:12345','limits':{'devices':0}}"));
        check_log(running, "quota.set");
        ask_refused(client, "quota", "device.open", "{'name':'card'}");
        test_client_close(client);
        test_client_close(admin);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_bad_configuration_changes_nothing(void **state) {
        struct test_daemon *running = ask_daemon("[limits]\nnesting = 20\n");
        struct test_client *client = ask_connect(running, NULL);

        reload(running, "[limits]\nnesting = 30\n\nmessage = many\n");
        assert_int_equal(nesting(client), 20);
        check_log(running, ":4: message is \"many\"");
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_socket_from_the_configuration_is_removed_in_the_end_also_after_a_reload(void **state) {
        struct fixture *fixture = *state;
        char config[256];
        struct test_daemon_options options = { .config = config, .socket_configured = true };
        struct test_daemon *running;

        snprintf(config, sizeof(config), "[daemon]\nsocket = %s\n", fixture->socket);
        assert_int_equal(test_daemon_start(&options, &running), 0);
        assert_int_equal(access(fixture->socket, F_OK), 0);
        reload(running, config);
        reload(running, config);
        assert_int_equal(test_daemon_end(running), 0);
        assert_int_not_equal(access(fixture->socket, F_OK), 0);
}

static void test_what_needs_a_restart_is_told(void **state) {
        struct test_daemon *running = ask_daemon("");
        struct test_client *client = ask_connect(running, NULL);

        reload(running, "[daemon]\nstate_dir = /elsewhere\n");
        check_log(running, "state_dir in [daemon]");
        json_decref(ask(client, "broker.ping", "{}"));
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

/* ---- the end ---- */

static void test_the_end_is_clean_with_everything_in_use(void **state) {
        struct test_daemon *running = ask_daemon(NULL);
        struct test_client *clients[20];

        for (size_t i = 0; i < 20; i++) {
                clients[i] = ask_connect(running, NULL);
                ask_alloc(clients[i], ask_device(clients[i], "card"), 65536);
        }
        test_client_send_text(clients[0], "{\"half");
        assert_int_equal(test_daemon_signal(running, SIGTERM), 0);
        assert_int_equal(test_daemon_wait_notify(running, "STOPPING=1"), 0);
        for (size_t i = 0; i < 20; i++) {
                assert_int_equal(test_client_wait_closed(clients[i]), 0);
                test_client_close(clients[i]);
        }
        int status;

        assert_int_equal(test_daemon_wait(running, &status), 0);
        assert_int_equal(status, 0);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_a_peer_that_does_not_read_cannot_hold_up_the_end(void **state) {
        struct test_daemon *running = ask_daemon("[daemon]\nshutdown_timeout = 100ms\n");
        struct test_client *client = ask_connect(running, NULL);
        int status;

        for (size_t sent = 1; sent;) {
                static const char text[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n";

                assert_int_equal(test_client_send_some(client, text, sizeof(text) - 1, &sent), 0);
        }
        assert_int_equal(test_daemon_signal(running, SIGTERM), 0);
        assert_int_equal(test_daemon_wait(running, &status), 0);
        assert_int_equal(status, 0);
        test_client_close(client);
        assert_int_equal(test_daemon_end(running), 0);
}

static void test_an_interrupt_ends_it_too(void **state) {
        struct test_daemon *running = ask_daemon(NULL);
        int status;

        assert_int_equal(test_daemon_signal(running, SIGINT), 0);
        assert_int_equal(test_daemon_wait(running, &status), 0);
        assert_int_equal(status, 0);
        assert_int_equal(test_daemon_end(running), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(test_version_and_help_are_told),
                T(test_a_wrong_command_line_ends_with_2),
                T(test_every_key_can_be_listed),
                T(test_a_good_configuration_is_said_to_be_good),
                T(test_every_error_has_its_line),
                T(test_the_simulation_beside_a_real_source_is_an_error),
                T(test_memory_guaranteed_to_everybody_is_an_error),
                T(test_a_stall_longer_than_its_window_is_an_error),
                T(test_guests_are_of_a_hypervisor_that_there_is),
                T(test_a_configuration_that_is_not_there_is_told),
                T(test_an_unreadable_configuration_is_told),
                T(test_a_directory_is_no_configuration),
                T(test_a_file_in_the_sockets_place_is_left_alone),
                T(test_a_path_that_is_too_long_for_a_socket_is_told),
                T(test_a_daemon_that_answers_is_not_pushed_aside),
                T(test_a_stale_socket_is_replaced),
                T(test_a_clean_end_removes_the_socket),
                T(test_a_state_directory_that_cannot_be_made_is_told),
                T(test_the_watchdog_hears_of_it),
#ifdef HAVE_SYSTEMD
                T(test_a_socket_that_is_passed_is_served_and_left_in_place),
#endif
                T(test_an_unknown_source_is_told),
                T(test_real_memory_without_permission_is_told),
                T(test_without_a_choice_the_daemon_says_what_it_took_and_why),
                T(test_a_good_configuration_is_taken_over_while_running),
                T(test_who_may_connect_can_be_changed_while_running),
                T(test_what_an_administrator_does_to_others_is_logged),
                T(test_a_bad_configuration_changes_nothing),
                T(test_a_socket_from_the_configuration_is_removed_in_the_end_also_after_a_reload),
                T(test_what_needs_a_restart_is_told),
                T(test_the_end_is_clean_with_everything_in_use),
                T(test_a_peer_that_does_not_read_cannot_hold_up_the_end),
                T(test_an_interrupt_ends_it_too),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
