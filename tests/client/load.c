#include "tests/client/load.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/daemon.h"

enum { THREADS_MAX = 8, HELD_MAX = 24, BLOCK_SIZE = 512, TIGHT_BLOCKS = 12, TIMEOUT_MS = 20, SIZE_MAX_ASKED = 20000 };

enum kind { NOTHING, POOL, TIGHT, ANY, COHERENT, RAW, DEVICE, MAPPED, KINDS };

/* What one thread has at this moment. */
struct held {
        enum kind kind;
        dmab_device_t *device;
        void *memory; /* that has the pattern */
        dmab_addr_t dma;
        size_t size;
        uint64_t tag, alloc;
        enum dmab_direction direction;
};

struct worker {
        struct load *load;
        pthread_t thread;
        uint64_t random, steps;
        struct held held[HELD_MAX];
};

struct load {
        dmab_t *dmab, *host; /* host: where the devices are looked through */
        dmab_device_t *device;
        dmab_pool_t *pool, *tight; /* many blocks, and fewer than are wanted */
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool stop;
        char failure[1024];
        unsigned n_threads;
        struct worker workers[THREADS_MAX];
};

static uint64_t next_random(uint64_t *random) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        return *random;
}

/* ---- patterns ---- */

static uint8_t pattern_at(uint64_t tag, size_t i) {
        return (uint8_t)((tag + i / 8) * UINT64_C(0x9e3779b97f4a7c15) >> (i % 8 * 8));
}

static void fill(void *memory, size_t size, uint64_t tag) {
        for (size_t i = 0; i < size; i++)
                ((uint8_t *)memory)[i] = pattern_at(tag, i);
}

static bool is_filled(const void *memory, size_t size, uint64_t tag) {
        for (size_t i = 0; i < size; i++)
                if (((const uint8_t *)memory)[i] != pattern_at(tag, i))
                        return false;
        return true;
}

/* ---- the daemon, by its own protocol ---- */

static int call(dmab_t *dmab, json_t **ret, const char *method, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

static int call(dmab_t *dmab, json_t **ret, const char *method, const char *format, ...) {
        char params[256], *text = NULL;
        va_list arguments;
        int r;

        va_start(arguments, format);
        vsnprintf(params, sizeof(params), format, arguments);
        va_end(arguments);
        r = dmab_call(dmab, method, params, &text);
        if (!r && ret)
                *ret = json_loads(text, 0, NULL);
        free(text);
        return r;
}

/* What a device would see and do at an address: read the pattern `before`, write `after`. -EILSEQ: it is not there. */
static int device_looks(dmab_t *dmab, const struct held *held, bool reads, uint64_t after) {
        uint8_t bytes[SIZE_MAX_ASKED];
        json_t *place;
        char params[64];
        off_t offset;
        size_t n_fds;
        int fd, r = call(dmab, &place, "coherent.lookup", "{\"dma_addr\":\"0x%llx\"}", (unsigned long long)held->dma);

        if (r)
                return r;
        offset = (off_t)(json_integer_value(json_object_get(place, "offset")) + held->dma -
                         strtoull(json_string_value(json_object_get(place, "dma_addr")), NULL, 16));
        snprintf(params, sizeof(params), "{\"region\":%lld}", json_integer_value(json_object_get(place, "region")));
        json_decref(place);
        r = dmab_call_fds(dmab, "region.get", params, NULL, &fd, 1, &n_fds);
        if (r)
                return r;
        if (reads && (pread(fd, bytes, held->size, offset) != (ssize_t)held->size || !is_filled(bytes, held->size, held->tag)))
                r = -EILSEQ;
        fill(bytes, held->size, after);
        if (after != held->tag && pwrite(fd, bytes, held->size, offset) != (ssize_t)held->size)
                r = -EIO;
        close(fd);
        return r;
}

static int raw_alloc(struct load *load, struct held *held) {
        json_t *result;
        int r = call(load->dmab, &result, "coherent.alloc", "{\"device\":%llu,\"size\":%zu,\"wait_ms\":1}",
                     (unsigned long long)dmab_device_handle(load->device), held->size);

        if (r)
                return r;
        held->alloc = (uint64_t)json_integer_value(json_object_get(result, "alloc"));
        json_decref(result);
        return 0;
}

/* ---- taking and giving ---- */

static bool is_for_want_of_memory(int r) {
        return r == -ENOMEM || r == -EAGAIN || r == -ETIMEDOUT;
}

static int take_mapping(struct load *load, struct held *held, uint64_t after) {
        int r;

        held->memory = malloc(held->size);
        fill(held->memory, held->size, held->tag);
        r = dmab_map_single(load->device, held->memory, held->size, held->direction, &held->dma);
        if (r) {
                free(held->memory);
                return r;
        }
        r = device_looks(load->host, held, held->direction != DMAB_FROM_DEVICE,
                         held->direction == DMAB_TO_DEVICE ? held->tag : after);
        if (held->direction != DMAB_TO_DEVICE)
                held->tag = after; /* once it is unmapped */
        return r;
}

static int take_device(struct load *load, struct held *held) {
        int r = dmab_device_open(load->dmab, "another", NULL, &held->device);

        if (r)
                return r;
        r = dmab_alloc_coherent(held->device, held->size, DMAB_NOWAIT, &held->memory, &held->dma);
        if (r && is_for_want_of_memory(r) && dmab_device_close(held->device))
                return -EIO;
        return r;
}

static int take(struct worker *worker, struct held *held) {
        struct load *load = worker->load;
        uint64_t random = next_random(&worker->random);
        int r;

        *held = (struct held){ .kind = 1 + random % (KINDS - 1), .size = 1 + random / 8 % SIZE_MAX_ASKED,
                               .tag = next_random(&worker->random), .direction = random / 64 % 3, .device = load->device };
        switch (held->kind) {
        case POOL:
                held->size = BLOCK_SIZE;
                r = dmab_pool_alloc(load->pool, DMAB_NOWAIT, &held->memory, &held->dma);
                break;
        case TIGHT:
                held->size = BLOCK_SIZE;
                r = dmab_pool_alloc(load->tight, DMAB_WAIT, &held->memory, &held->dma);
                break;
        case ANY:
                r = dmab_alloc(load->device, held->size, DMAB_NOWAIT, &held->memory, &held->dma);
                break;
        case COHERENT:
                r = dmab_alloc_coherent(load->device, held->size, DMAB_WAIT, &held->memory, &held->dma);
                break;
        case RAW:
                return raw_alloc(load, held);
        case DEVICE:
                r = take_device(load, held);
                break;
        default:
                return take_mapping(load, held, next_random(&worker->random));
        }
        if (!r)
                fill(held->memory, held->size, held->tag);
        return r;
}

static int give(struct worker *worker, struct held *held) {
        struct load *load = worker->load;
        int r;

        if (held->kind != RAW && held->kind != MAPPED && !is_filled(held->memory, held->size, held->tag))
                return -EILSEQ;
        switch (held->kind) {
        case POOL:
                return dmab_pool_free(load->pool, held->memory, held->dma);
        case TIGHT:
                return dmab_pool_free(load->tight, held->memory, held->dma);
        case ANY:
                return dmab_free(load->device, held->memory);
        case COHERENT:
                return dmab_free_coherent(load->device, held->size, held->memory, held->dma);
        case RAW:
                return call(load->dmab, NULL, "coherent.free", "{\"alloc\":%llu}", (unsigned long long)held->alloc);
        case DEVICE:
                r = dmab_free_coherent(held->device, held->size, held->memory, held->dma);
                return r ? r : dmab_device_close(held->device);
        default:
                r = dmab_unmap_single(load->device, held->dma, held->size, held->direction);
                if (!r && !is_filled(held->memory, held->size, held->tag))
                        r = -EILSEQ;
                free(held->memory);
                return r;
        }
}

/* ---- the threads ---- */

static void __attribute__((format(printf, 3, 4))) complain(struct worker *worker, int r, const char *format, ...) {
        struct load *load = worker->load;
        char what[128];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(what, sizeof(what), format, arguments);
        va_end(arguments);
        pthread_mutex_lock(&load->lock);
        if (!*load->failure)
                snprintf(load->failure, sizeof(load->failure), "%s: %s", what,
                         r == -EILSEQ ? "bytes have changed" : dmab_last_error());
        pthread_mutex_unlock(&load->lock);
}

/* Here, and now and then also where the daemon says that it is. */
static int look(struct worker *worker, const struct held *held) {
        if (!held->kind || held->kind == RAW || held->kind == MAPPED)
                return 0;
        if (!is_filled(held->memory, held->size, held->tag))
                return -EILSEQ;
        return next_random(&worker->random) % 8 ? 0 : device_looks(worker->load->host, held, true, held->tag);
}

/* One thing taken or given, and another one looked at. */
static bool step(struct worker *worker) {
        static const char *const names[KINDS] = {
                [POOL] = "a pool's", [TIGHT] = "a tight pool's", [ANY] = "any",         [COHERENT] = "coherent",
                [RAW] = "raw",       [DEVICE] = "a new device's", [MAPPED] = "a mapping",
        };
        uint64_t random = next_random(&worker->random);
        struct held *one = &worker->held[random % HELD_MAX], *other = &worker->held[random / HELD_MAX % HELD_MAX];
        bool taking = one->kind == NOTHING;
        int r = taking ? take(worker, one) : give(worker, one);

        if (r && !(taking && is_for_want_of_memory(r))) {
                complain(worker, r, "%s %s of %zu bytes (%d)", taking ? "taking" : "giving", names[one->kind], one->size, r);
                return false;
        }
        if (r || !taking)
                *one = (struct held){ 0 };
        r = look(worker, other);
        if (r) {
                complain(worker, r, "looking at %s of %zu bytes (%d)", names[other->kind], other->size, r);
                return false;
        }
        r = random >> 32 & 63 ? 0 : dmab_pool_trim(worker->load->pool);
        if (r)
                complain(worker, r, "trimming (%d)", r);
        return !r;
}

/* True: go on. */
static bool count_step(struct worker *worker, bool done) {
        struct load *load = worker->load;
        bool go_on;

        pthread_mutex_lock(&load->lock);
        worker->steps += done;
        go_on = done && !load->stop && !*load->failure;
        pthread_cond_broadcast(&load->changed);
        pthread_mutex_unlock(&load->lock);
        return go_on;
}

static void *work(void *userdata) {
        struct worker *worker = userdata;

        while (count_step(worker, step(worker)))
                ;
        for (size_t i = 0; i < HELD_MAX; i++) {
                int r = worker->held[i].kind && !*worker->load->failure ? give(worker, &worker->held[i]) : 0;

                if (r)
                        complain(worker, r, "giving everything back (%d)", r);
        }
        return NULL;
}

struct load *load_start(dmab_t *dmab, unsigned n_threads, uint64_t seed) {
        return load_start_in_guest(dmab, dmab, n_threads, seed);
}

struct load *load_start_in_guest(dmab_t *dmab, dmab_t *host, unsigned n_threads, uint64_t seed) {
        struct dmab_device_options device = DMAB_DEVICE_OPTIONS_INIT;
        struct dmab_pool_options pool = DMAB_POOL_OPTIONS_INIT;
        struct load *load = calloc(1, sizeof(*load));

        assert_non_null(load);
        assert_true(n_threads <= THREADS_MAX);
        load->dmab = dmab;
        load->host = host;
        load->n_threads = n_threads;
        pthread_mutex_init(&load->lock, NULL);
        pthread_cond_init(&load->changed, NULL);
        device.timeout_ms = TIMEOUT_MS;
        pool.thread_blocks = 4;
        if (dmab_device_open(dmab, "load", &device, &load->device) ||
            dmab_pool_create("many", load->device, BLOCK_SIZE, 0, 0, &pool, &load->pool))
                fail_msg("%s", dmab_last_error());
        pool.max_blocks = TIGHT_BLOCKS;
        if (dmab_pool_create("few", load->device, BLOCK_SIZE, 0, 0, &pool, &load->tight))
                fail_msg("%s", dmab_last_error());
        for (unsigned i = 0; i < n_threads; i++) {
                load->workers[i].load = load;
                load->workers[i].random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i + 1;
                assert_int_equal(pthread_create(&load->workers[i].thread, NULL, work, &load->workers[i]), 0);
        }
        return load;
}

bool load_wait(struct load *load, uint64_t steps) {
        struct timespec due;
        bool well;

        clock_gettime(CLOCK_REALTIME, &due);
        due.tv_sec += test_timeout_ms() / 1000 + 1;
        pthread_mutex_lock(&load->lock);
        for (unsigned i = 0; i < load->n_threads; i++) {
                uint64_t wanted = load->workers[i].steps + steps;

                while (load->workers[i].steps < wanted && !*load->failure)
                        if (pthread_cond_timedwait(&load->changed, &load->lock, &due))
                                snprintf(load->failure, sizeof(load->failure), "thread %u does not get on", i);
        }
        well = !*load->failure;
        pthread_mutex_unlock(&load->lock);
        return well;
}

void load_end(struct load *load) {
        pthread_mutex_lock(&load->lock);
        load->stop = true;
        pthread_mutex_unlock(&load->lock);
        for (unsigned i = 0; i < load->n_threads; i++)
                pthread_join(load->workers[i].thread, NULL);
        if (*load->failure)
                fail_msg("%s", load->failure);
        if (dmab_pool_destroy(load->pool) || dmab_pool_destroy(load->tight) || dmab_device_close(load->device))
                fail_msg("%s", dmab_last_error());
        pthread_cond_destroy(&load->changed);
        pthread_mutex_destroy(&load->lock);
        free(load);
}
