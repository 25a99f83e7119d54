#include "tests/lib/hugepages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define PAGES "/sys/kernel/mm/hugepages/hugepages-2048kB"

/* How long another test may have the huge pages. */
enum { TURN_SECONDS = 300 };

static int lock_fd = -1, keeper_fd = -1;

/* What a test forks must not hold up the next test, nor what is put back, when it outlives the test. */
static void let_go_in_child(void) {
        if (lock_fd >= 0)
                close(lock_fd);
        if (keeper_fd >= 0)
                close(keeper_fd);
        lock_fd = keeper_fd = -1;
}

static void turn_is_over(int number) {
}

/* Locks until this process and its keeper end. */
static int wait_for_turn(void) {
        struct sigaction ring = { .sa_handler = turn_is_over }, before;
        int r;

        lock_fd = open(PAGES "/nr_hugepages", O_RDONLY | O_CLOEXEC);
        if (lock_fd < 0)
                return -ENOENT;
        sigaction(SIGALRM, &ring, &before);
        alarm(TURN_SECONDS);
        r = flock(lock_fd, LOCK_EX) < 0 ? -errno : 0;
        alarm(0);
        sigaction(SIGALRM, &before, NULL);
        return r == -EINTR ? -ETIMEDOUT : r;
}

static int read_number(const char *name, size_t *ret) {
        char path[128], text[32];
        ssize_t n;
        int fd;

        snprintf(path, sizeof(path), PAGES "/%s", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (n <= 0)
                return -EIO;
        text[n] = '\0';
        *ret = strtoull(text, NULL, 10);
        return 0;
}

static int write_total(size_t total) {
        char text[32];
        int fd, error = 0;

        fd = open(PAGES "/nr_hugepages", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        snprintf(text, sizeof(text), "%zu", total);
        if (write(fd, text, strlen(text)) < 0)
                error = -errno;
        close(fd);
        return error;
}

size_t test_hugepages_free(void) {
        size_t n;

        return read_number("free_hugepages", &n) < 0 ? 0 : n;
}

size_t test_hugepages_used(void) {
        size_t total, available;

        if (read_number("nr_hugepages", &total) < 0 || read_number("free_hugepages", &available) < 0)
                return 0;
        return total > available ? total - available : 0;
}

/* The kernel shows machine addresses only to CAP_SYS_ADMIN; everybody else reads frame 0. */
static int pagemap_shows_addresses(void) {
        uint64_t entry = 0;
        int fd;

        fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -EACCES;
        if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)&entry / (size_t)getpagesize() * sizeof(entry))) < 0)
                entry = 0;
        close(fd);
        return entry & ((UINT64_C(1) << 55) - 1) ? 0 : -EACCES;
}

/* A child that outlives this process for a moment and takes `added` pages away again; the end of the pipe tells it that
 * the process is gone. It also keeps the lock until then. */
static int start_keeper(size_t added) {
        int ends[2];
        pid_t pid;

        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                size_t total;
                char byte;

                /* The test driver waits for whoever holds these. */
                close(0);
                close(1);
                close(2);
                close(ends[1]);
                setsid();
                signal(SIGINT, SIG_IGN);
                signal(SIGTERM, SIG_IGN);
                while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
                        ;
                if (read_number("nr_hugepages", &total) == 0)
                        write_total(total > added ? total - added : 0);
                _exit(0);
        }
        close(ends[0]);
        keeper_fd = ends[1]; /* stays open until this process ends */
        return 0;
}

int test_hugepages_reserve(size_t n) {
        size_t total, available;
        int error;

        if (geteuid() != 0)
                return -EPERM;
        error = pagemap_shows_addresses();
        if (error < 0)
                return error;
        error = wait_for_turn();
        if (error < 0)
                return error;
        if (read_number("nr_hugepages", &total) < 0 || read_number("free_hugepages", &available) < 0)
                return -EIO;
        if (available >= n)
                return pthread_atfork(NULL, NULL, let_go_in_child) ? -ENOMEM : 0;
        error = write_total(total + n - available);
        if (error < 0)
                return error;
        read_number("nr_hugepages", &available);
        error = start_keeper(available - total);
        if (error < 0) {
                write_total(total);
                return error;
        }
        /* From here on: the keeper has the lock, too. */
        if (pthread_atfork(NULL, NULL, let_go_in_child))
                return -ENOMEM;
        return test_hugepages_free() >= n ? 0 : -ENOMEM;
}

void test_hugepages_reserve_or_skip(size_t n) {
        int error = test_hugepages_reserve(n);

        if (error == 0)
                return;
        if (error == -ETIMEDOUT) {
                fprintf(stderr, "another test has held the huge pages for %d s\n", TURN_SECONDS);
                exit(1);
        }
        printf("skipped: %zu huge pages of 2 MiB and the right to read their addresses are needed: %s\n", n,
               error == -EACCES ? "pagemap shows no machine addresses here" : strerror(-error));
        exit(77);
}
