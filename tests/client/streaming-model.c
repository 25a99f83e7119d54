/* Streaming mappings against a model that is too simple to be wrong: what the program and what the device should see, byte by
 * byte. The device writes through a mapping of its own.
 *
 * STREAMING_MODEL_STEPS (1,000,000) is divided among the threads and kinds of devices; STREAMING_MODEL_SEED is another random
 * sequence. The threads share one device; what each maps is its own. */
#include <dmabroker.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/client/fake-device.h"
#include "tests/lib/daemon.h"

enum { N_THREADS = 3, N_LANES = 12, N_IN_PLACE = 2, LANE = 20000, N_DEVICES = 4, MANY_STEPS = 20000 };

/* One buffer, of which a part may be mapped. */
struct lane {
        unsigned char *buf;
        unsigned char cpu[LANE], device[LANE]; /* what each should see; device: of the mapped part */
        unsigned char *at;                     /* the device's memory; NULL: nothing is mapped */
        dmab_addr_t dma;
        size_t start, size;
        enum dmab_direction direction;
        bool in_place;
};

struct model {
        pthread_t thread;
        dmab_device_t *device;
        struct fake_device *fake;
        pthread_mutex_t *fake_lock;
        struct lane lanes[N_LANES];
        uint64_t random;
        unsigned n_steps, step, n_full;
        uint64_t align_mask, boundary;
        char wrong[400]; /* cmocka fails the thread of the test only */
};

static unsigned below(struct model *model, unsigned n) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return (unsigned)((model->random * UINT64_C(0x2545f4914f6cdd1d) >> 33) % n);
}

#define REQUIRE(model, condition) \
        do { \
                if (!(condition) && !*(model)->wrong) \
                        snprintf((model)->wrong, sizeof((model)->wrong), "line %d: %s, in step %u; last error: %s", __LINE__, \
                                 #condition, (model)->step, dmab_last_error()); \
        } while (0)

/* [*ret_first, + the result) of size bytes. */
static size_t part_of(struct model *model, size_t size, size_t *ret_first) {
        size_t n = 1 + below(model, (unsigned)size);

        *ret_first = below(model, (unsigned)(size - n + 1));
        return n;
}

static void compare(struct model *model, const struct lane *lane) {
        REQUIRE(model, !memcmp(lane->buf, lane->cpu, LANE));
        if (lane->at)
                REQUIRE(model, !memcmp(lane->at, lane->in_place ? lane->cpu + lane->start : lane->device, lane->size));
}

static void step_map(struct model *model, struct lane *lane) {
        int r;

        lane->size = 1 + below(model, below(model, 3) ? 3000 : LANE);
        if (model->boundary && lane->size + model->align_mask > model->boundary)
                lane->size = model->boundary - model->align_mask;
        lane->start = below(model, (unsigned)(LANE - lane->size + 1));
        lane->direction = below(model, 3);
        r = dmab_map_single(model->device, lane->buf + lane->start, lane->size, lane->direction, &lane->dma);
        if (r == -ENOMEM) {
                REQUIRE(model, lane->dma == DMAB_ADDR_NONE && !lane->in_place);
                model->n_full++;
                return;
        }
        REQUIRE(model, r == 0);
        REQUIRE(model, (lane->dma & model->align_mask) == ((uintptr_t)(lane->buf + lane->start) & model->align_mask));
        REQUIRE(model, !model->boundary ||
                               lane->dma / model->boundary == (lane->dma + lane->size - 1) / model->boundary);
        if (*model->wrong)
                return;
        pthread_mutex_lock(model->fake_lock);
        lane->at = fake_device_at(model->fake, lane->dma, lane->size);
        pthread_mutex_unlock(model->fake_lock);
        memcpy(lane->device, lane->cpu + lane->start, lane->size);
}

static void step_unmap(struct model *model, struct lane *lane) {
        REQUIRE(model, dmab_unmap_single(model->device, lane->dma, lane->size, lane->direction) == 0);
        if (lane->direction != DMAB_TO_DEVICE && !lane->in_place)
                memcpy(lane->cpu + lane->start, lane->device, lane->size);
        lane->at = NULL;
}

static void step_sync(struct model *model, struct lane *lane) {
        bool for_cpu = lane->direction == DMAB_BIDIRECTIONAL ? below(model, 2) : lane->direction == DMAB_FROM_DEVICE;
        size_t first, n = part_of(model, lane->size, &first);

        REQUIRE(model, (for_cpu ? dmab_sync_single_for_cpu : dmab_sync_single_for_device)(model->device, lane->dma + first, n,
                                                                                           lane->direction) == 0);
        if (lane->in_place)
                return;
        if (for_cpu)
                memcpy(lane->cpu + lane->start + first, lane->device + first, n);
        else
                memcpy(lane->device + first, lane->cpu + lane->start + first, n);
}

static void step_write(struct model *model, struct lane *lane) {
        bool by_device = lane->at && below(model, 2);
        size_t first, n = part_of(model, by_device ? lane->size : LANE, &first);
        int value = (int)below(model, 256);

        if (!by_device) {
                memset(lane->buf + first, value, n);
                memset(lane->cpu + first, value, n);
        } else {
                memset(lane->at + first, value, n);
                memset(lane->in_place ? lane->cpu + lane->start + first : lane->device + first, value, n);
        }
}

static void *run(void *pointer) {
        struct model *model = pointer;

        for (model->step = 0; model->step < model->n_steps && !*model->wrong; model->step++) {
                struct lane *lane = &model->lanes[below(model, N_LANES)];
                unsigned dice = below(model, 100);

                if (dice < 30)
                        step_write(model, lane);
                else if (!lane->at)
                        step_map(model, lane);
                else
                        (dice < 65 ? step_sync : step_unmap)(model, lane);
                compare(model, lane);
        }
        for (unsigned i = 0; i < N_LANES && !*model->wrong; i++)
                if (model->lanes[i].at) {
                        step_unmap(model, &model->lanes[i]);
                        compare(model, &model->lanes[i]);
                }
        return NULL;
}

static void start(struct model *model, const struct model *what) {
        dmab_addr_t dma;

        *model = *what;
        for (unsigned i = 0; i < N_LANES; i++) {
                struct lane *lane = &model->lanes[i];
                void *vaddr;

                /* A device with a boundary does not reach all of its own memory in one piece. */
                lane->in_place = i < N_IN_PLACE && !model->boundary;
                if (lane->in_place)
                        assert_int_equal(dmab_alloc_coherent(model->device, LANE, DMAB_ZERO, &vaddr, &dma), 0);
                else
                        vaddr = calloc(1, LANE);
                assert_non_null(vaddr);
                lane->buf = vaddr;
        }
        assert_int_equal(pthread_create(&model->thread, NULL, run, model), 0);
}

static void end(struct model *model) {
        pthread_join(model->thread, NULL);
        for (unsigned i = 0; i < N_LANES; i++)
                if (!model->lanes[i].in_place)
                        free(model->lanes[i].buf);
        if (*model->wrong)
                fail_msg("%s", model->wrong);
}

static unsigned number_from(const char *name, unsigned otherwise) {
        const char *text = getenv(name);

        return text && *text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

/* Plain; with bits that survive; with a boundary; and with so few slots that they are often full. */
static void run_device(dmab_t *dmab, unsigned kind) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        struct dmab_bounce_info info = DMAB_BOUNCE_INFO_INIT;
        struct model *models = calloc(N_THREADS, sizeof(*models)), what = { 0 };
        pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
        unsigned n_full = 0;

        assert_non_null(models);
        options.min_align_mask = kind == 1 ? 0xfff : 0;
        options.boundary = kind == 2 ? 16384 : 0;
        what = (struct model){ .align_mask = options.min_align_mask, .boundary = options.boundary, .fake_lock = &fake_lock };
        what.n_steps = number_from("STREAMING_MODEL_STEPS", 1000000) / N_DEVICES / N_THREADS;
        what.fake = fake_device_new(dmab);
        assert_int_equal(dmab_device_open(dmab, "card", &options, &what.device), 0);
        if (kind == 3)
                assert_int_equal(dmab_set_bounce(what.device, 128 << 10, 192 << 10, 1024), 0);
        for (unsigned i = 0; i < N_THREADS; i++) {
                what.random = (number_from("STREAMING_MODEL_SEED", 1) + 7 * kind + i) * UINT64_C(0x9e3779b97f4a7c15) + 1;
                start(&models[i], &what);
        }
        for (unsigned i = 0; i < N_THREADS; i++) {
                end(&models[i]);
                n_full += models[i].n_full;
        }
        assert_int_equal(dmab_bounce_info(what.device, &info), 0);
        assert_int_equal(info.used, 0);
        assert_int_equal(info.fulls, n_full);
        if (kind == 3)
                print_message("%u maps found the slots full\n", n_full);
        else
                assert_int_equal(n_full, 0);
        /* Few steps of one thread may be over before another begins. */
        assert_true(kind != 3 || n_full > 0 || what.n_steps < MANY_STEPS);
        assert_int_equal(dmab_device_close_force(what.device), 0);
        fake_device_free(what.fake);
        free(models);
}

static void test_a_million_random_steps_agree_with_the_model(void **state) {
        struct test_daemon *daemon;
        char uri[256];
        dmab_t *dmab;

        assert_int_equal(test_daemon_start(NULL, &daemon), 0);
        snprintf(uri, sizeof(uri), "unix:%s", test_daemon_socket(daemon));
        assert_int_equal(dmab_connect(uri, &dmab), 0);
        for (unsigned kind = 0; kind < N_DEVICES; kind++)
                run_device(dmab, kind);
        dmab_disconnect(dmab);
        assert_int_equal(test_daemon_end(daemon), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_million_random_steps_agree_with_the_model),
        };

        return cmocka_run_group_tests_name("streaming-model", tests, NULL, NULL);
}
