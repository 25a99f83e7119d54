#include "tests/lib/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct test_daemon {
        struct test_daemon_options options;
        char directory[64];
        char socket[96], state[96], config[96], log[96], notify[96];
        int notify_fd;
        pid_t pid; /* 0: does not run */
        int pid_fd;
};

int test_timeout_ms(void) {
        const char *text = getenv("TEST_TIMEOUT_MS");
        int value = text ? atoi(text) : 0;

        return value > 0 ? value : 20000;
}

char *test_program_path(const char *name) {
        const char *top = getenv("TOP_BUILDDIR");
        char *path, *absolute;

        if (asprintf(&path, "%s/%s", top ? top : ".", name) < 0)
                return NULL;
        absolute = realpath(path, NULL);
        if (!absolute)
                fprintf(stderr, "%s is not there (set TOP_BUILDDIR to the build tree)\n", path);
        free(path);
        return absolute;
}

static int say(int error, const char *what) {
        fprintf(stderr, "tests/lib: %s: %s\n", what, strerror(-error));
        return error;
}

static long long now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

char *test_daemon_log(const struct test_daemon *daemon) {
        struct stat status;
        char *text;
        ssize_t n;
        int fd;

        fd = open(daemon->log, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return strdup("");
        if (fstat(fd, &status) < 0)
                status.st_size = 0;
        text = malloc((size_t)status.st_size + 1);
        if (text) {
                n = read(fd, text, (size_t)status.st_size);
                text[n > 0 ? n : 0] = '\0';
        }
        close(fd);
        return text;
}

static void show_log(const struct test_daemon *daemon) {
        char *text = test_daemon_log(daemon);

        if (text && *text)
                fprintf(stderr, "--- what dmabrokerd wrote ---\n%s--- end ---\n", text);
        free(text);
}

static int write_text(const char *path, const char *text) {
        int fd, error = 0;

        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
                error = -EIO;
        close(fd);
        return error;
}

/* What is added goes to the section's beginning, or comes last with a section of its own. */
static int write_config(const struct test_daemon *daemon) {
        const char *given = daemon->options.config ? daemon->options.config : "";
        const char *section = strstr(given, "[daemon]\n"), *rest = section ? section + strlen("[daemon]\n") : NULL;
        char *text;
        int error;

        if (daemon->options.survives)
                return write_text(daemon->config, given);
        if (asprintf(&text, "%.*s%skeep = 0\n%s", rest ? (int)(rest - given) : (int)strlen(given), given,
                     rest ? "" : "\n[daemon]\n", rest ? rest : "") < 0)
                return -ENOMEM;
        error = write_text(daemon->config, text);
        free(text);
        return error;
}

static int make_directory(struct test_daemon *daemon) {
        const struct test_identity *as = daemon->options.as;
        int error;

        /* Short on purpose: a socket's path has at most 107 bytes. */
        strcpy(daemon->directory, "/tmp/dmab-test-XXXXXX");
        if (!mkdtemp(daemon->directory)) {
                daemon->directory[0] = '\0';
                return -errno;
        }
        snprintf(daemon->socket, sizeof(daemon->socket), "%s/sock", daemon->directory);
        snprintf(daemon->state, sizeof(daemon->state), "%s/state", daemon->directory);
        snprintf(daemon->config, sizeof(daemon->config), "%s/conf", daemon->directory);
        snprintf(daemon->log, sizeof(daemon->log), "%s/log", daemon->directory);
        snprintf(daemon->notify, sizeof(daemon->notify), "%s/notify", daemon->directory);
        if (mkdir(daemon->state, 0700) < 0)
                return -errno;
        error = write_config(daemon);
        if (error < 0)
                return error;
        if (daemon->options.open_directory && chmod(daemon->directory, 0755) < 0)
                return -errno;
        if (as && (chown(daemon->directory, as->uid, as->gid) < 0 || chown(daemon->state, as->uid, as->gid) < 0))
                return -errno;
        return 0;
}

static int open_notify(struct test_daemon *daemon) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", daemon->notify);
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(daemon->notify, 0666) < 0) {
                int error = -errno;

                close(fd);
                return error;
        }
        daemon->notify_fd = fd;
        return 0;
}

/* In the child. The program was opened before the user changed, so a build tree in a private home will do. */
static void child_exec(const struct test_daemon *daemon, int program, char **arguments, pid_t parent) {
        const struct test_identity *as = daemon->options.as;
        int log, null;

        log = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
                _exit(126);
        if (as && test_identity_assume(as) < 0)
                _exit(126);
        /* After the change of user, which clears it. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(126);
        setenv("NOTIFY_SOCKET", daemon->notify, 1);
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_PID");
        unsetenv("DMABROKER_SOCKET");
        if (daemon->options.in_child)
                daemon->options.in_child(daemon->options.userdata);
        if (chdir("/") == 0)
                fexecve(program, arguments, environ);
        fprintf(stderr, "cannot run %s: %m\n", arguments[0]);
        _exit(127);
}

enum { ARGUMENTS_MAX = 64 };

static int fill_arguments(struct test_daemon *daemon, char *program, char **arguments) {
        const struct test_daemon_options *options = &daemon->options;
        const char *source = options->source ? options->source : "sim";
        size_t n = 0;

        arguments[n++] = program;
        arguments[n++] = (char *)"--config";
        arguments[n++] = daemon->config;
        if (!options->socket_configured) {
                arguments[n++] = (char *)"--socket";
                arguments[n++] = daemon->socket;
        }
        arguments[n++] = (char *)"--state-dir";
        arguments[n++] = daemon->state;
        if (*source) {
                arguments[n++] = (char *)"--source";
                arguments[n++] = (char *)source;
        }
        for (size_t i = 0; options->arguments && options->arguments[i]; i++) {
                if (n == ARGUMENTS_MAX - 1)
                        return -E2BIG;
                arguments[n++] = (char *)options->arguments[i];
        }
        arguments[n] = NULL;
        return 0;
}

static int spawn(struct test_daemon *daemon) {
        char *program, *arguments[ARGUMENTS_MAX];
        int fd = -1, error;
        pid_t pid, parent = getpid();

        program = test_program_path("dmabrokerd");
        if (!program)
                return -ENOENT;
        error = fill_arguments(daemon, program, arguments);
        if (error < 0)
                goto out;
        fd = open(program, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
                error = -errno;
                goto out;
        }
        fflush(NULL);
        pid = fork();
        if (pid < 0) {
                error = -errno;
                goto out;
        }
        if (pid == 0)
                child_exec(daemon, fd, arguments, parent);
        daemon->pid = pid;
        daemon->pid_fd = pidfd_open(pid, 0);
        error = daemon->pid_fd < 0 ? -errno : 0;
out:
        if (fd >= 0)
                close(fd);
        free(program);
        return error;
}

int test_daemon_wait_notify(struct test_daemon *daemon, const char *text) {
        long long end = now_ms() + test_timeout_ms();
        char message[4096];

        for (;;) {
                struct pollfd polls[2] = { { .fd = daemon->notify_fd, .events = POLLIN },
                                           { .fd = daemon->pid_fd, .events = POLLIN } };
                long long left = end - now_ms();
                ssize_t n;

                while ((n = recv(daemon->notify_fd, message, sizeof(message) - 1, 0)) > 0) {
                        message[n] = '\0';
                        if (strstr(message, text))
                                return 0;
                }
                if (left <= 0)
                        return -ETIMEDOUT;
                if (poll(polls, 2, (int)left) < 0 && errno != EINTR)
                        return -errno;
                /* What it sent before it died has been read when the socket has nothing more. */
                if (polls[1].revents && !polls[0].revents)
                        return -ECHILD;
        }
}

static int reap(struct test_daemon *daemon, int timeout_ms, int *ret_status) {
        struct pollfd poll_pid = { .fd = daemon->pid_fd, .events = POLLIN };
        int status, n;

        do
                n = poll(&poll_pid, 1, timeout_ms);
        while (n < 0 && errno == EINTR);
        if (n == 0)
                return -ETIMEDOUT;
        if (waitpid(daemon->pid, &status, 0) < 0)
                return -errno;
        close(daemon->pid_fd);
        daemon->pid_fd = -1;
        daemon->pid = 0;
        *ret_status = status;
        return 0;
}

int test_daemon_wait(struct test_daemon *daemon, int *ret_status) {
        return daemon->pid ? reap(daemon, test_timeout_ms(), ret_status) : -ECHILD;
}

int test_daemon_kill(struct test_daemon *daemon) {
        int status;

        if (!daemon->pid)
                return -ECHILD;
        kill(daemon->pid, SIGKILL);
        return reap(daemon, -1, &status);
}

int test_daemon_launch(struct test_daemon *daemon) {
        char message[4096];
        int error;

        if (daemon->pid)
                return say(-EALREADY, "the daemon runs");
        /* What one that was killed has sent is not this one's. */
        while (recv(daemon->notify_fd, message, sizeof(message), 0) > 0)
                ;
        error = spawn(daemon);
        return error < 0 ? say(error, "cannot start dmabrokerd") : 0;
}

int test_daemon_start_again(struct test_daemon *daemon) {
        int error;

        error = test_daemon_launch(daemon);
        if (error < 0)
                return error;
        error = test_daemon_wait_notify(daemon, "READY=1");
        if (error < 0) {
                say(error, error == -ECHILD ? "dmabrokerd ended before it was ready" : "dmabrokerd did not get ready");
                test_daemon_kill(daemon);
                show_log(daemon);
        }
        return error;
}

int test_daemon_start(const struct test_daemon_options *options, struct test_daemon **ret) {
        struct test_daemon *daemon;
        int error;

        daemon = calloc(1, sizeof(*daemon));
        if (!daemon)
                return -ENOMEM;
        daemon->notify_fd = daemon->pid_fd = -1;
        if (options)
                daemon->options = *options;
        error = make_directory(daemon);
        if (error >= 0)
                error = open_notify(daemon);
        if (error >= 0)
                error = test_daemon_start_again(daemon);
        else
                say(error, "cannot prepare the daemon's directory");
        if (error < 0) {
                test_daemon_end(daemon);
                return error;
        }
        *ret = daemon;
        return 0;
}

static int stop(struct test_daemon *daemon, int signal_number) {
        int status, error;

        if (!daemon->pid)
                return -ECHILD;
        kill(daemon->pid, signal_number);
        error = reap(daemon, test_timeout_ms(), &status);
        if (error < 0) {
                say(error, "dmabrokerd did not end after the signal");
                test_daemon_kill(daemon);
                show_log(daemon);
                return error;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 0;
        fprintf(stderr, "tests/lib: dmabrokerd ended with %s %d\n", WIFEXITED(status) ? "exit status" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        show_log(daemon);
        return -EPROTO;
}

int test_daemon_stop(struct test_daemon *daemon) {
        return stop(daemon, SIGTERM);
}

int test_daemon_restart(struct test_daemon *daemon, int signal_number) {
        int error = signal_number == SIGKILL ? test_daemon_kill(daemon) : test_daemon_stop(daemon);

        return error < 0 ? error : test_daemon_start_again(daemon);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw) {
        remove(path);
        return 0;
}

int test_daemon_end(struct test_daemon *daemon) {
        int error = 0;

        if (!daemon)
                return 0;
        /* An interrupt leaves nothing behind. */
        if (daemon->pid)
                error = stop(daemon, SIGINT);
        if (daemon->notify_fd >= 0)
                close(daemon->notify_fd);
        if (daemon->directory[0])
                nftw(daemon->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
        free(daemon);
        return error;
}

void test_daemon_set_source(struct test_daemon *daemon, const char *source) {
        daemon->options.source = source;
}

int test_daemon_signal(struct test_daemon *daemon, int signal_number) {
        if (!daemon->pid)
                return -ECHILD;
        return kill(daemon->pid, signal_number) < 0 ? -errno : 0;
}

pid_t test_daemon_pid(const struct test_daemon *daemon) {
        return daemon->pid;
}

/* Its third descriptor from 3 on is the state directory. */
static bool is_keeper(const struct test_daemon *daemon, const char *number) {
        char path[300], text[32] = "";
        struct stat one, other;
        int fd;

        snprintf(path, sizeof(path), "/proc/%s/comm", number);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        if (read(fd, text, sizeof(text) - 1) <= 0)
                text[0] = '\0';
        close(fd);
        snprintf(path, sizeof(path), "/proc/%s/fd/5", number);
        return strcmp(text, "dmabroker-keep\n") == 0 && stat(path, &one) == 0 && stat(daemon->state, &other) == 0 &&
               one.st_ino == other.st_ino;
}

pid_t test_daemon_find_keeper(const struct test_daemon *daemon) {
        DIR *dir = opendir("/proc");
        struct dirent *entry;
        pid_t pid = 0;

        while (dir && !pid && (entry = readdir(dir)))
                if (is_keeper(daemon, entry->d_name))
                        pid = (pid_t)atoi(entry->d_name);
        if (dir)
                closedir(dir);
        return pid;
}

const char *test_daemon_socket(const struct test_daemon *daemon) {
        return daemon->socket;
}

const char *test_daemon_directory(const struct test_daemon *daemon) {
        return daemon->directory;
}

const char *test_daemon_state(const struct test_daemon *daemon) {
        return daemon->state;
}

const char *test_daemon_config(const struct test_daemon *daemon) {
        return daemon->config;
}
