#include "client/fork.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned forks;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fork_watch *watches;

unsigned fork_count(void) {
        return forks;
}

void fork_hold(void) {
        pthread_mutex_lock(&lock);
}

void fork_release(void) {
        pthread_mutex_unlock(&lock);
}

/* ---- watches ---- */

void fork_watch_on(struct fork_watch *watch, void (*forked)(struct fork_watch *watch)) {
        watch->forked = forked;
        watch->next = watches;
        watch->pprev = &watches;
        if (watches)
                watches->pprev = &watch->next;
        watches = watch;
}

void fork_watch_off(struct fork_watch *watch) {
        if (!watch->pprev)
                return;
        *watch->pprev = watch->next;
        if (watch->next)
                watch->next->pprev = watch->pprev;
        watch->pprev = NULL;
}

static void in_child(void) {
        struct fork_watch *watch;

        forks++;
        while ((watch = watches)) {
                fork_watch_off(watch);
                watch->forked(watch);
        }
        fork_release();
}

static void set_up(void) {
        pthread_atfork(fork_hold, fork_release, in_child);
}

void fork_begin(void) {
        pthread_once(&once, set_up);
}

/* ---- memory ---- */

void fork_withhold(void *memory, size_t size) {
        madvise(memory, size, MADV_DONTFORK);
}

int fork_map(int fd, uint64_t at, size_t size, int protection, void **ret) {
        void *memory;
        int error;

        fork_hold();
        memory = mmap(NULL, size, protection, MAP_SHARED, fd, (off_t)at);
        error = errno;
        if (memory != MAP_FAILED)
                fork_withhold(memory, size);
        fork_release();
        if (memory == MAP_FAILED)
                return -error;
        *ret = memory;
        return 0;
}

/* ---- files ---- */

static void close_in_child(struct fork_watch *watch) {
        struct fork_file *file = (struct fork_file *)watch;

        close(file->fd);
        file->fd = -1;
}

int fork_file_open(struct fork_file *file, const char *path, int flags) {
        int error;

        fork_hold();
        file->fd = open(path, flags);
        error = errno;
        if (file->fd >= 0)
                fork_watch_on(&file->watch, close_in_child);
        fork_release();
        return file->fd < 0 ? -error : 0;
}

void fork_file_close(struct fork_file *file) {
        if (file->fd < 0)
                return;
        fork_hold();
        fork_watch_off(&file->watch);
        close(file->fd);
        file->fd = -1;
        fork_release();
}
