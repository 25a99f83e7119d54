#include "tests/unit/keep-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEEP_MS = 60000 };

static char directory[] = "/tmp/dmab-lives-XXXXXX";
static int directory_fd = -1;

void insist_on(int is_true, const char *expression, int line) {
        if (is_true)
                return;
        fprintf(stderr, "line %d: not so: %s\n", line, expression);
        abort();
}

int lives_begin(void **state) {
        unsetenv("NOTIFY_SOCKET");
        if (!mkdtemp(directory))
                return -1;
        directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return directory_fd < 0 ? -1 : 0;
}

int lives_end(void **state) {
        struct failure failure;
        struct keep *keep;

        /* Ends what a test that failed has left. */
        keep_open(directory_fd, 0, &keep, &failure);
        close(directory_fd);
        return rmdir(directory);
}

struct keep *life_keep(void) {
        struct failure failure = { 0 };
        struct keep *keep = NULL;

        if (keep_open(directory_fd, KEEP_MS, &keep, &failure) < 0) {
                fprintf(stderr, "%s\n", failure.sentence);
                abort();
        }
        return keep;
}

struct life life_begin(const struct source_ops *ops, const struct source_option *options, size_t n) {
        struct life life = { .ops = ops, .keep = life_keep() };
        struct failure failure = { 0 };

        if (ops->open(options, n, life.keep, &life.source, &failure) < 0) {
                fprintf(stderr, "%s\n", failure.sentence);
                abort();
        }
        return life;
}

void life_close(struct life *life) {
        life->ops->close(life->source);
        keep_end(life->keep);
}

void life_leave(struct life *life) {
        life->ops->leave(life->source);
        keep_free(life->keep);
}

static void note_done(struct source_job *job) {
        *(bool *)job->userdata = true;
}

int life_run(struct life *life, struct source_job *job) {
        bool is_done = false;

        job->done = note_done;
        job->userdata = &is_done;
        life->ops->submit(life->source, job);
        while (!is_done) {
                life->ops->wait(life->source);
                life->ops->dispatch(life->source);
        }
        return job->status;
}

uint64_t life_gain(struct life *life, enum source_job_kind kind, uint64_t size) {
        struct source_job job = { .kind = kind, .size = size, .node = -1 };
        uint64_t gained = 0;
        size_t i;

        life_run(life, &job);
        for (i = 0; i < job.n_arrived; i++)
                gained += job.arrived[i].size;
        source_job_deinit(&job);
        return gained;
}

struct source_backing *life_carve(struct life *life, uint64_t id, uint64_t addr, uint64_t size) {
        struct failure failure;
        struct source_job job = { .kind = SOURCE_CARVE, .id = id, .addr = addr, .size = size, .failure = &failure };

        if (life_run(life, &job) < 0)
                fprintf(stderr, "%s\n", failure.sentence);
        insist(job.status == 0);
        return job.backing;
}

int life_adopt(struct life *life, uint64_t id, uint64_t addr, uint64_t size, struct source_backing **ret) {
        struct failure failure = { 0 };
        int r;

        r = life->ops->adopt(life->source, id, addr, size, -1, ret, &failure);
        insist(r == 0 || (failure.error && *failure.sentence));
        return r;
}

char *life_map(struct life *life, struct source_backing *backing, uint64_t size) {
        char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, life->ops->backing_fd(backing), 0);

        insist(at != MAP_FAILED);
        return at;
}

pid_t life_fork(void (*live)(void *userdata, int say_fd), void *userdata, int *ret_said) {
        int ends[2];
        pid_t child;

        insist(pipe2(ends, O_CLOEXEC) == 0);
        child = fork();
        insist(child >= 0);
        if (child == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(ends[0]);
                live(userdata, ends[1]);
                abort();
        }
        close(ends[1]);
        *ret_said = ends[0];
        return child;
}

void life_await(pid_t child) {
        int status;

        insist(waitpid(child, &status, 0) == child);
        insist(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void say(int fd, uint64_t number) {
        insist(write(fd, &number, sizeof(number)) == sizeof(number));
}

uint64_t hear(int fd) {
        uint64_t number = 0;

        insist(read(fd, &number, sizeof(number)) == sizeof(number));
        return number;
}

void be_killed(void) {
        kill(getpid(), SIGKILL);
        abort();
}
