/* Bounce pools, mappings, leases and allocations of several owners, with answers that do anything at all from within:
 * destroy the pool, close the device or the session, cancel others, ask again. Nothing is predicted; the books must hold,
 * every request must be answered once, and in the end nothing may be left.
 *
 * BOUNCE_MODEL_STEPS (1,000,000) is divided by ten and then among the seeds; BOUNCE_MODEL_SEED runs one seed only. */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/core-fixture.h"

enum { N_SEEDS = 10, N_SESSIONS = 4, N_DEVICES = 6, N_KEPT = 64, N_PENDING = 96, DEPTH_MAX = 3, CHECK_EVERY = 499 };

struct pending {
        struct chaos *chaos;
        struct ticket *ticket;
        bool asked, answered;
        uint64_t *keep; /* where the handle goes */
};

struct chaos {
        struct fixture f;
        struct caller sessions[N_SESSIONS]; /* the even ones are of one owner, the odd ones of another */
        uint64_t devices[N_DEVICES], pools[N_DEVICES];
        uint64_t mappings[N_KEPT], leases[N_KEPT], allocs[N_KEPT];
        struct pending pending[N_PENDING];
        uint64_t random;
        unsigned depth;
        unsigned long asked, answered, cancelled, nested;
};

static uint64_t chaos_random(struct chaos *chaos) {
        chaos->random ^= chaos->random << 13;
        chaos->random ^= chaos->random >> 7;
        chaos->random ^= chaos->random << 17;
        return chaos->random * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

static unsigned below(struct chaos *chaos, unsigned n) {
        return (unsigned)(chaos_random(chaos) % n);
}

static void act(struct chaos *chaos);

static void on_answer(void *userdata, const struct failure *failure, uint64_t handle) {
        struct pending *pending = userdata;
        struct chaos *chaos = pending->chaos;

        assert_true(pending->asked && !pending->answered);
        assert_true(!failure == !!handle);
        pending->answered = true;
        chaos->answered++;
        if (handle)
                *pending->keep = handle;
        if (chaos->depth < DEPTH_MAX && below(chaos, 3) == 0) {
                chaos->depth++;
                chaos->nested++;
                act(chaos);
                chaos->depth--;
        }
}

/* NULL: too much is pending. */
static struct pending *pending_new(struct chaos *chaos, uint64_t *keep) {
        unsigned i, at = below(chaos, N_PENDING);

        for (i = 0; i < N_PENDING; i++, at = (at + 1) % N_PENDING)
                if (!chaos->pending[at].asked)
                        break;
        if (i == N_PENDING)
                return NULL;
        chaos->pending[at] = (struct pending){ .chaos = chaos, .asked = true, .keep = keep };
        chaos->asked++;
        return &chaos->pending[at];
}

/* An answer may have come before the ticket, or may still be given by whoever is about to. */
static void pending_ticket(struct pending *pending, struct ticket *ticket) {
        pending->ticket = ticket;
        if (!ticket)
                assert_true(pending->answered);
}

static void reap(struct chaos *chaos) {
        struct pending *pending;

        for (pending = chaos->pending; pending < chaos->pending + N_PENDING; pending++)
                if (pending->asked && pending->answered)
                        pending->asked = false;
}

static uint64_t *any(struct chaos *chaos, uint64_t *handles) {
        return &handles[below(chaos, N_KEPT)];
}

static uint64_t some_wait(struct chaos *chaos) {
        return below(chaos, 2) ? 0 : 1 + below(chaos, 400);
}

static void act_device(struct chaos *chaos, const struct caller *caller) {
        static const uint64_t boundaries[] = { 0, 4096, 65536 }, align_masks[] = { 0, 0, 4095 };
        uint64_t *device = &chaos->devices[below(chaos, N_DEVICES)];
        struct device_options options = { .name = "nic", .boundary = boundaries[below(chaos, 3)], .node = -1,
                                          .min_align_mask = align_masks[below(chaos, 3)] };

        device_open(caller, &options, device, NULL);
}

static int no_alloc(const struct leak_view *leak, void *userdata) {
        return 0;
}

static void act_close(struct chaos *chaos, const struct caller *caller) {
        device_close(caller, chaos->devices[below(chaos, N_DEVICES)], below(chaos, 2), no_alloc, NULL, NULL);
}

static void act_create(struct chaos *chaos, const struct caller *caller) {
        struct bounce_options options = { .device = chaos->devices[below(chaos, N_DEVICES)], .high = below(chaos, 4) == 0 };
        struct pending *pending = pending_new(chaos, &chaos->pools[below(chaos, N_DEVICES)]);

        if (!pending)
                return;
        options.size = 1 + below(chaos, 100000);
        options.max_size = below(chaos, 2) ? options.size * 4 : 0;
        options.wait_ms = some_wait(chaos);
        pending_ticket(pending, bounce_create(caller, &options, on_answer, pending));
}

static int no_mapping(const struct mapping_view *view, void *userdata) {
        return 0;
}

static void act_destroy(struct chaos *chaos, const struct caller *caller) {
        bounce_destroy(caller, chaos->pools[below(chaos, N_DEVICES)], below(chaos, 2), no_mapping, NULL, NULL);
}

static void act_map(struct chaos *chaos, const struct caller *caller) {
        struct bounce_request request = { .bounce = chaos->pools[below(chaos, N_DEVICES)], .high = below(chaos, 6) == 0 };
        bool lease = below(chaos, 4) == 0;
        struct pending *pending = pending_new(chaos, any(chaos, lease ? chaos->leases : chaos->mappings));

        if (!pending)
                return;
        request.wait_ms = some_wait(chaos);
        request.align_offset = below(chaos, 4096);
        request.size = lease ? below(chaos, 40) : 1 + below(chaos, below(chaos, 4) ? 8192 : 200000);
        pending_ticket(pending, (lease ? bounce_lease : bounce_map)(caller, &request, on_answer, pending));
}

static void act_unmap(struct chaos *chaos, const struct caller *caller) {
        if (below(chaos, 3))
                bounce_unmap(caller, *any(chaos, chaos->mappings), 0, NULL, NULL);
        else
                mapping_unmap(caller, *any(chaos, chaos->mappings), NULL);
}

static void act_return(struct chaos *chaos, const struct caller *caller) {
        lease_return(caller, *any(chaos, chaos->leases), LEASE_OF_BOUNCE, NULL);
}

static void act_alloc(struct chaos *chaos, const struct caller *caller) {
        struct alloc_request request = { .device = chaos->devices[below(chaos, N_DEVICES)], .shareable = below(chaos, 2),
                                         .owner_lifetime = below(chaos, 4) == 0, .high = below(chaos, 4) == 0 };
        struct pending *pending = pending_new(chaos, any(chaos, chaos->allocs));

        if (!pending)
                return;
        request.size = 1 + below(chaos, 400000);
        request.wait_ms = some_wait(chaos);
        pending_ticket(pending, coherent_alloc(caller, &request, on_answer, pending));
}

static void act_free(struct chaos *chaos, const struct caller *caller) {
        coherent_free(caller, *any(chaos, chaos->allocs), NULL);
}

static void act_map_alloc(struct chaos *chaos, const struct caller *caller) {
        struct mapping_request request = { .device = chaos->devices[below(chaos, N_DEVICES)],
                                           .alloc = *any(chaos, chaos->allocs) };

        mapping_map(caller, &request, any(chaos, chaos->mappings), NULL);
}

static void act_cancel(struct chaos *chaos, const struct caller *caller) {
        struct pending *pending = &chaos->pending[below(chaos, N_PENDING)];

        if (!pending->asked || pending->answered || !pending->ticket)
                return;
        pending->asked = false;
        chaos->cancelled++;
        ticket_cancel(pending->ticket);
}

static void act_session(struct chaos *chaos, const struct caller *caller) {
        unsigned i = below(chaos, N_SESSIONS);
        struct session *session = chaos->sessions[i].session;

        if (below(chaos, 8))
                return;
        chaos->sessions[i] = fixture_session(&chaos->f, i % 2 ? "user:1001" : NULL);
        if (below(chaos, 2))
                session_close(session);
        else
                session_abandon(session);
}

static void act_clock(struct chaos *chaos, const struct caller *caller) {
        chaos->f.now += 1 + below(chaos, 30);
        broker_tick(chaos->f.broker);
}

static const struct {
        unsigned weight;
        void (*act)(struct chaos *chaos, const struct caller *caller);
} acts[] = {
        { 4, act_device }, { 1, act_close }, { 6, act_create },    { 1, act_destroy }, { 60, act_map },    { 25, act_unmap },
        { 8, act_return }, { 8, act_alloc }, { 8, act_map_alloc }, { 8, act_free },    { 6, act_cancel },  { 1, act_session },
        { 8, act_clock },
};

static void act(struct chaos *chaos) {
        const struct caller caller = chaos->sessions[below(chaos, N_SESSIONS)];
        unsigned i, sum = 0, at;

        for (i = 0; i < sizeof(acts) / sizeof(*acts); i++)
                sum += acts[i].weight;
        at = below(chaos, sum);
        for (i = 0; at >= acts[i].weight; i++)
                at -= acts[i].weight;
        acts[i].act(chaos, &caller);
}

static int keep_device(const struct device_view *view, void *userdata) {
        *(uint64_t *)userdata = view->handle;
        return 1;
}

/* What has outlived its session because of an allocation that does so, with all that was put on it since. */
static void close_devices(struct chaos *chaos) {
        struct caller admin = fixture_session(&chaos->f, NULL);
        uint64_t device;

        admin.admin = true;
        do {
                device = 0;
                assert_int_equal(device_visit(&admin, NULL, keep_device, &device, NULL), 0);
                if (device)
                        assert_int_equal(device_close(&admin, device, true, no_alloc, NULL, NULL), 0);
        } while (device);
}

static void require_nothing_left(struct chaos *chaos) {
        struct broker_counts counts;
        struct pending *pending;

        for (pending = chaos->pending; pending < chaos->pending + N_PENDING; pending++)
                assert_false(pending->asked && !pending->answered);
        broker_counts(chaos->f.broker, &counts);
        assert_int_equal(counts.bounces + counts.leases + counts.mappings + counts.waiters + counts.allocs, 0);
        assert_int_equal(chaos->asked, chaos->answered + chaos->cancelled);
}

static void chaos_run(unsigned seed, unsigned n_steps) {
        struct chaos *chaos = calloc(1, sizeof(*chaos));
        struct broker_options options;
        unsigned step, i;

        assert_non_null(chaos);
        broker_options_default(&options);
        options.quarantine_ms = 40;
        options.region_idle_ms = 60;
        chaos->random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
        fixture_start(&chaos->f, seed % 2 ? "4M@0x100000000" : "2M@0xff000000,6M@0x100000000", &options);
        chaos->sessions[0] = chaos->f.caller;
        for (i = 1; i < N_SESSIONS; i++)
                chaos->sessions[i] = fixture_session(&chaos->f, i % 2 ? "user:1001" : NULL);
        for (step = 0; step < n_steps; step++) {
                act(chaos);
                /* Jobs of the source end now, or while more is asked for. */
                if (below(chaos, 3) == 0)
                        fixture_settle(&chaos->f);
                reap(chaos);
                if (step % CHECK_EVERY == 0)
                        fixture_check(&chaos->f);
        }
        chaos->depth = DEPTH_MAX;
        for (i = 0; i < N_SESSIONS; i++)
                session_close(chaos->sessions[i].session);
        close_devices(chaos);
        fixture_settle(&chaos->f);
        fixture_pass(&chaos->f, 1000);
        require_nothing_left(chaos);
        print_message("seed %u: %lu asked, %lu answered, %lu cancelled, %lu acts from within an answer\n", seed, chaos->asked,
                      chaos->answered, chaos->cancelled, chaos->nested);
        fixture_stop(&chaos->f);
        free(chaos);
}

static void test_whatever_answers_do_the_books_stay_right_and_nothing_is_left(void **state) {
        const char *text = getenv("BOUNCE_MODEL_STEPS"), *only = getenv("BOUNCE_MODEL_SEED");
        unsigned n_steps = (text ? (unsigned)strtoul(text, NULL, 10) : 1000000) / 10, seed;

        for (seed = 1; seed <= N_SEEDS; seed++)
                if (!only || strtoul(only, NULL, 10) == seed)
                        chaos_run(seed, n_steps / N_SEEDS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whatever_answers_do_the_books_stay_right_and_nothing_is_left),
        };

        return cmocka_run_group_tests_name("bounce chaos", tests, NULL, NULL);
}
