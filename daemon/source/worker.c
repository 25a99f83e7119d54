#include "daemon/source/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct queue {
        struct source_job *head, **tail;
        size_t n;
};

struct source_worker {
        source_work_fn work;
        struct source *source;
        pthread_t thread;
        int event_fd;

        pthread_mutex_t mutex;
        pthread_cond_t wanted;    /* there is a job, or the thread shall end */
        pthread_cond_t completed; /* a job was moved to `ready` */
        struct queue waiting, ready;
        bool running; /* the thread has a job in hand */
        bool ending;
};

static void queue_init(struct queue *queue) {
        *queue = (struct queue){ .tail = &queue->head };
}

static void queue_push(struct queue *queue, struct source_job *job) {
        job->next = NULL;
        *queue->tail = job;
        queue->tail = &job->next;
        queue->n++;
}

static struct source_job *queue_pop(struct queue *queue) {
        struct source_job *job = queue->head;

        if (!job)
                return NULL;
        queue->head = job->next;
        if (!queue->head)
                queue->tail = &queue->head;
        queue->n--;
        job->next = NULL;
        return job;
}

/* Writing to an eventfd fails only when its counter is full: then it is readable anyway. */
static void event_raise(int fd) {
        uint64_t one = 1;
        ssize_t n;

        do
                n = write(fd, &one, sizeof(one));
        while (n < 0 && errno == EINTR);
}

static void event_clear(int fd) {
        uint64_t count;
        ssize_t n;

        do
                n = read(fd, &count, sizeof(count));
        while (n < 0 && errno == EINTR);
}

static void *thread_main(void *userdata) {
        struct source_worker *worker = userdata;
        struct source_job *job;

        pthread_mutex_lock(&worker->mutex);
        for (;;) {
                job = queue_pop(&worker->waiting);
                if (!job) {
                        if (worker->ending)
                                break;
                        pthread_cond_wait(&worker->wanted, &worker->mutex);
                        continue;
                }
                worker->running = true;
                pthread_mutex_unlock(&worker->mutex);
                worker->work(worker->source, job);
                pthread_mutex_lock(&worker->mutex);
                worker->running = false;
                queue_push(&worker->ready, job);
                pthread_cond_signal(&worker->completed);
                event_raise(worker->event_fd);
        }
        pthread_mutex_unlock(&worker->mutex);
        return NULL;
}

/* A thread inherits the signal mask of its creator: all signals are blocked just while it is made. */
static int thread_start(struct source_worker *worker, const char *name) {
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&worker->thread, NULL, thread_main, worker);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r == 0)
                pthread_setname_np(worker->thread, name);
        return -r;
}

int source_worker_new(const char *name, source_work_fn work, struct source *source, struct source_worker **ret) {
        struct source_worker *worker;
        int r;

        worker = calloc(1, sizeof(*worker));
        if (!worker)
                return -ENOMEM;
        worker->work = work;
        worker->source = source;
        queue_init(&worker->waiting);
        queue_init(&worker->ready);
        pthread_mutex_init(&worker->mutex, NULL);
        pthread_cond_init(&worker->wanted, NULL);
        pthread_cond_init(&worker->completed, NULL);

        worker->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (worker->event_fd < 0) {
                r = -errno;
                goto fail;
        }
        r = thread_start(worker, name);
        if (r < 0)
                goto fail_event;
        *ret = worker;
        return 0;

fail_event:
        close(worker->event_fd);
fail:
        pthread_cond_destroy(&worker->completed);
        pthread_cond_destroy(&worker->wanted);
        pthread_mutex_destroy(&worker->mutex);
        free(worker);
        return r;
}

static bool is_idle(struct source_worker *worker) {
        return !worker->running && worker->waiting.n == 0;
}

struct source_worker *source_worker_free(struct source_worker *worker) {
        bool ended = false;

        if (!worker)
                return NULL;
        while (!ended) {
                source_worker_wait(worker);
                source_worker_dispatch(worker);
                pthread_mutex_lock(&worker->mutex);
                if (is_idle(worker) && worker->ready.n == 0)
                        ended = worker->ending = true;
                pthread_cond_signal(&worker->wanted);
                pthread_mutex_unlock(&worker->mutex);
        }
        pthread_join(worker->thread, NULL);
        close(worker->event_fd);
        pthread_cond_destroy(&worker->completed);
        pthread_cond_destroy(&worker->wanted);
        pthread_mutex_destroy(&worker->mutex);
        free(worker);
        return NULL;
}

void source_worker_submit(struct source_worker *worker, struct source_job *job) {
        pthread_mutex_lock(&worker->mutex);
        queue_push(&worker->waiting, job);
        pthread_cond_signal(&worker->wanted);
        pthread_mutex_unlock(&worker->mutex);
}

int source_worker_event_fd(struct source_worker *worker) {
        return worker->event_fd;
}

void source_worker_dispatch(struct source_worker *worker) {
        struct source_job *job;
        size_t n;

        event_clear(worker->event_fd);
        pthread_mutex_lock(&worker->mutex);
        /* As many as are ready now, so that completions which submit cannot hold the loop here for ever; one at a time,
         * so that a completion which dispatches goes on where this left off. */
        for (n = worker->ready.n; n > 0; n--) {
                job = queue_pop(&worker->ready);
                if (!job)
                        break;
                pthread_mutex_unlock(&worker->mutex);
                job->done(job);
                pthread_mutex_lock(&worker->mutex);
        }
        /* A nested call may have cleared the event of what became ready meanwhile. */
        if (worker->ready.n > 0)
                event_raise(worker->event_fd);
        pthread_mutex_unlock(&worker->mutex);
}

void source_worker_wait(struct source_worker *worker) {
        pthread_mutex_lock(&worker->mutex);
        while (worker->ready.n == 0 && !is_idle(worker))
                pthread_cond_wait(&worker->completed, &worker->mutex);
        pthread_mutex_unlock(&worker->mutex);
}
