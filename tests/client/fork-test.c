/* What the library keeps from the child of a fork(): by its own insides, while another thread takes and leaves it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "client/fork.h"

#define NAME "kept-from-children"

enum { PAGE = 4096, PAGES = 3, FORKS = 300, FILES = 64 };

static struct {
        int fd;
        char path[32];
        atomic_bool over;
        sem_t began;
} run;

/* ---- the child ---- */

static bool has_memory(void) {
        FILE *maps = fopen("/proc/self/maps", "re");
        char line[512];
        bool has = !maps;

        while (!has && fgets(line, sizeof(line), maps))
                has = strstr(line, NAME) != NULL;
        return has;
}

/* Beside the one by which all were made. */
static bool has_file(void) {
        struct stat ours, other;

        if (fstat(run.fd, &ours) < 0)
                return true;
        for (int fd = 0; fd < FILES; fd++)
                if (fd != run.fd && fstat(fd, &other) == 0 && other.st_dev == ours.st_dev && other.st_ino == ours.st_ino)
                        return true;
        return false;
}

/* ---- the parent ---- */

static void *take_and_leave(void *unused) {
        sem_post(&run.began);
        while (!run.over) {
                struct fork_file file = { .fd = -1 };
                void *memory;

                if (fork_file_open(&file, run.path, O_RDWR | O_CLOEXEC) < 0 ||
                    fork_map(file.fd, PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, &memory) < 0)
                        abort();
                fork_file_close(&file);
                munmap(memory, 2 * PAGE);
        }
        return NULL;
}

static void test_no_child_has_what_another_thread_is_about_to_map(void **state) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, take_and_leave, NULL), 0);
        while (sem_wait(&run.began) < 0)
                continue;
        for (unsigned i = 0; i < FORKS; i++) {
                pid_t pid = fork();
                int status;

                assert_true(pid >= 0);
                if (!pid)
                        _exit(has_memory() + 2 * has_file());
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(status, 0);
        }
        run.over = true;
        pthread_join(thread, NULL);
}

static void test_what_is_mapped_is_that_part_of_the_file(void **state) {
        char *memory, byte = 0;
        void *at;

        assert_int_equal(fork_map(run.fd, PAGE, PAGE, PROT_READ | PROT_WRITE, &at), 0);
        memory = at;
        memory[5] = 'x';
        assert_int_equal(pread(run.fd, &byte, 1, PAGE + 5), 1);
        assert_int_equal(byte, 'x');
        munmap(memory, PAGE);
        at = &run;
        assert_int_equal(fork_map(-1, 0, PAGE, PROT_READ, &at), -EBADF);
        assert_ptr_equal(at, &run);
}

static int begin(void **state) {
        fork_begin();
        run.over = false;
        if (sem_init(&run.began, 0, 0) < 0)
                return -1;
        run.fd = memfd_create(NAME, MFD_CLOEXEC);
        snprintf(run.path, sizeof(run.path), "/proc/self/fd/%d", run.fd);
        return run.fd < 0 || ftruncate(run.fd, PAGES * PAGE) < 0;
}

static int end(void **state) {
        return close(run.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(no_child_has_what_another_thread_is_about_to_map),
                TEST(what_is_mapped_is_that_part_of_the_file),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
