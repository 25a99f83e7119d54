#include "tests/vm/xen-life.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/source/sources.h"
#include "tests/vm/xen-bed.h"

enum { REGIONS_MAX = 8 };

static const struct source_ops *const ops = &source_xen_ops;
static struct source *source;
static struct source_job last;
static struct failure why;
static struct region {
        uint64_t addr, size;
        struct source_backing *backing;
} regions[REGIONS_MAX];
static int to_test, from_test;

/* ---- in the life's process ---- */

void life_check(int right, const char *what) {
        if (!right) {
                printf("in a life: it is not so that %s (%s)\n", what, why.error ? why.sentence : "no reason is known");
                fflush(stdout);
                _exit(1);
        }
}

void life_open(const char *limit) {
        /* Small tables, so that what is in one piece of the machine's memory belongs to several domains. */
        const struct source_option options[] = { { "limit", limit }, { "grant_frames", LIFE_GRANT_FRAMES_TEXT } };

        life_check(ops->open(options, 2, NULL, &source, &why) == 0, "the source opens");
}

uint64_t life_kept(void) {
        struct source_info info;

        ops->describe(source, &info);
        return info.kept;
}

static void note_done(struct source_job *job) {
        *(int *)job->userdata = 1;
}

static int run(struct source_job job) {
        int is_done = 0;

        source_job_deinit(&last);
        last = job;
        last.node = -1;
        last.failure = &why;
        last.done = note_done;
        last.userdata = &is_done;
        ops->submit(source, &last);
        while (!is_done) {
                ops->wait(source);
                ops->dispatch(source);
        }
        return last.status;
}

const struct source_job *life_arrived(void) {
        return &last;
}

static int by_addr(const void *a, const void *b) {
        const struct source_run *x = a, *y = b;

        return (x->addr > y->addr) - (x->addr < y->addr);
}

/* Xen gives the upper half of what it has first: what comes later joins from below, as it does in the core's books. */
static uint64_t arrived(struct source_run *ret) {
        struct source_run whole = { 0 };
        uint64_t sum = 0;

        if (last.n_arrived)
                qsort(last.arrived, last.n_arrived, sizeof(*last.arrived), by_addr);
        for (size_t i = 0; i < last.n_arrived; i++) {
                const struct source_run *run = &last.arrived[i];

                sum += run->size;
                if (whole.addr + whole.size == run->addr)
                        whole.size += run->size;
                else
                        whole = *run;
                if (ret && whole.size > ret->size)
                        *ret = whole;
        }
        return sum;
}

uint64_t life_grow(uint64_t size, uint64_t limit, struct source_run *ret) {
        *ret = (struct source_run){ 0 };
        life_check(run((struct source_job){ .kind = SOURCE_GROW, .size = size, .limit = limit }) == 0, "Xen gives memory");
        return arrived(ret);
}

static struct region *region_of(uint64_t addr) {
        for (struct region *region = regions; region < regions + REGIONS_MAX; region++)
                if (region->backing && addr - region->addr < region->size)
                        return region;
        life_check(0, "there is such a region");
        return NULL;
}

static void enter(uint64_t addr, uint64_t size, struct source_backing *backing) {
        for (struct region *region = regions; region < regions + REGIONS_MAX; region++)
                if (!region->backing) {
                        *region = (struct region){ addr, size, backing };
                        return;
                }
        life_check(0, "there is room for a region");
}

void life_carve(uint64_t addr, uint64_t size) {
        life_check(run((struct source_job){ .kind = SOURCE_CARVE, .addr = addr, .size = size }) == 0, "a region is made");
        enter(addr, size, last.backing);
}

void life_adopt(uint64_t addr, uint64_t size) {
        struct source_backing *backing = NULL;

        life_check(ops->adopt(source, 1, addr, size, -1, &backing, &why) == 0, "a region is taken over");
        enter(addr, size, backing);
}

int life_restore(uint64_t addr) {
        struct region *region = region_of(addr);
        struct source_backing *backing = region->backing;

        region->backing = NULL;
        return run((struct source_job){ .kind = SOURCE_RESTORE, .backing = backing });
}

int life_reclaim(uint64_t *ret_arrived) {
        int r = run((struct source_job){ .kind = SOURCE_RECLAIM });

        *ret_arrived = arrived(NULL);
        return r;
}

int life_reclaim_later(uint64_t *ret_arrived) {
        int r = run((struct source_job){ .kind = SOURCE_RECLAIM, .later = true });

        *ret_arrived = arrived(NULL);
        return r;
}

void life_shrink(uint64_t addr, uint64_t size) {
        life_check(run((struct source_job){ .kind = SOURCE_SHRINK, .addr = addr, .size = size }) == 0, "memory goes back");
}

void life_read(uint64_t addr, void *buffer, uint64_t size) {
        struct region *region = region_of(addr);

        life_check(ops->backing_read(region->backing, addr - region->addr, buffer, size) == 0, "memory is read");
}

void life_write(uint64_t addr, const void *buffer, uint64_t size) {
        struct region *region = region_of(addr);

        life_check(ops->backing_write(region->backing, addr - region->addr, buffer, size) == 0, "memory is written");
}

void life_verify(uint64_t addr) {
        struct source_job job = { .kind = SOURCE_VERIFY, .backing = region_of(addr)->backing };

        life_check(run(job) == 0, "every page is where it should be");
}

void life_close(void) {
        source_job_deinit(&last);
        ops->close(source);
}

void life_say(const void *what, size_t size) {
        life_check(write(to_test, what, size) == (ssize_t)size, "the test hears");
}

void life_wait(void) {
        char byte;

        life_check(read(from_test, &byte, 1) == 1, "the test goes on");
}

/* ---- in the test's process ---- */

void life_begin(struct life *life, void (*live)(void *userdata), void *userdata) {
        int said[2], told[2];

        if (pipe(said) < 0 || pipe(told) < 0)
                xen_give_up("no pipe: %s", strerror(errno));
        fflush(stdout);
        life->pid = fork();
        if (life->pid < 0)
                xen_give_up("no process: %s", strerror(errno));
        if (life->pid == 0) {
                to_test = said[1];
                from_test = told[0];
                close(said[0]);
                close(told[1]);
                live(userdata);
                fflush(stdout);
                _exit(0);
        }
        close(said[1]);
        close(told[0]);
        life->said = said[0];
        life->told = told[1];
}

void life_hear(struct life *life, void *ret, size_t size) {
        struct pollfd poll_for = { .fd = life->said, .events = POLLIN };

        for (char *at = ret; size > 0;) {
                ssize_t n = poll(&poll_for, 1, 240000) > 0 ? read(life->said, at, size) : -1;

                if (n <= 0)
                        xen_give_up("a life of the source has ended early, or says nothing");
                at += n;
                size -= (size_t)n;
        }
}

void life_tell(struct life *life) {
        if (write(life->told, "", 1) != 1)
                xen_give_up("a life of the source hears nothing");
}

int life_reap(struct life *life) {
        int status = -1;

        while (waitpid(life->pid, &status, 0) != life->pid)
                ;
        close(life->said);
        close(life->told);
        return status;
}

void life_kill(struct life *life) {
        kill(life->pid, SIGKILL);
        xen_check(WIFSIGNALED(life_reap(life)), "the source's process is killed");
}

void life_await(struct life *life) {
        xen_check(life_reap(life) == 0, "the source's process ends well");
}
