/* The core with a ledger: several owners do everything that there is, in any order, and each step is followed by a commit and
 * by a check that the ledger says what the core does. At any moment the broker dies, and another one goes on with what was
 * committed: all that had been promised must be there, as it was. The ledger fails, is written anew, and the daemon is
 * out of memory, each at random.
 *
 * LEDGER_CHAOS_STEPS (20,000) are divided among the tests and their seeds; LEDGER_CHAOS_SEED runs one seed only. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/core/broker.h"
#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"
#include "tests/unit/keep-fixture.h"
#include "tests/unit/ledger-fixture.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

enum { N_SEEDS = 4, N_PENDING = 24, N_FOUND = 4096, SESSIONS_MAX = 6, QUARANTINE_MS = 60, IDLE_MS = 40 };

/* ---- an allocator that fails ---- */

static _Thread_local unsigned allocations_left = UINT_MAX; /* of this thread */

static bool may_allocate(void) {
        return allocations_left == UINT_MAX || (allocations_left && allocations_left--);
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size) {
        return may_allocate() ? __real_malloc(size) : NULL;
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size) {
        return may_allocate() ? __real_calloc(n, size) : NULL;
}

void *__real_realloc(void *pointer, size_t size);
void *__wrap_realloc(void *pointer, size_t size);

void *__wrap_realloc(void *pointer, size_t size) {
        return may_allocate() ? __real_realloc(pointer, size) : NULL;
}

/* ---- the broker and its lives ---- */

struct pending {
        struct chaos *chaos;
        struct ticket *ticket;
        bool asked;
};

struct chaos {
        uint64_t now, random;
        struct life life;
        struct source *anonymous;
        struct broker *broker;
        struct memory_ledger *ledger;
        struct pending pending[N_PENDING];
        unsigned fail_percent, rewrite_percent;
        bool starves; /* the daemon's own memory */
        bool forgets; /* the numbers that were given */
        bool dies;
        unsigned problems;
        unsigned long steps, deaths, failures;
        unsigned long done[32];
        char last[200]; /* what was done last */
        char *promised; /* what there was when it was committed */
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

static uint64_t chaos_now(void *userdata) {
        return ((struct chaos *)userdata)->now;
}

static bool chaos_fails(void *userdata) {
        struct chaos *chaos = userdata;

        return chaos->fail_percent && below(chaos, 1000) < chaos->fail_percent;
}

static bool chaos_wants_rewrite(void *userdata) {
        struct chaos *chaos = userdata;

        return chaos->rewrite_percent && below(chaos, 100) < chaos->rewrite_percent;
}

/* A check may go on for a while; what it looks at is not there any more when the broker ends. */
static void problem(void *userdata, const char *what, const char *text, uint64_t handle) {
        struct chaos *chaos = userdata;

        if (chaos->dies)
                return;
        print_error("%s %llu: %s\n", what, (unsigned long long)handle, text);
        chaos->problems++;
}

static void checked(void *userdata, uint64_t n) {
        assert_true(n > 0);
}

static void dispatch(struct chaos *chaos) {
        chaos->life.ops->dispatch(chaos->life.source);
        chaos->anonymous->ops->dispatch(chaos->anonymous);
}

static void begin(struct chaos *chaos) {
        static const struct translator_ops *const translators[] = { &translator_identity_ops, NULL };
        static const struct source_option options[] = { { "layout", "1M@0x100000,3M@0x40000000,6M@0x100000000" } };
        static const struct source_option limit = { "limit", "1M" };
        struct broker_options broker_options;

        broker_options_default(&broker_options);
        broker_options.now_ms = chaos_now;
        broker_options.userdata = chaos;
        broker_options.translators = translators;
        broker_options.region_idle_ms = IDLE_MS;
        broker_options.quarantine_ms = QUARANTINE_MS;
        broker_options.survives = true;
        assert_int_equal(broker_new(&broker_options, &chaos->broker), 0);
        chaos->life = life_begin(&source_sim_ops, options, 1);
        assert_int_equal(broker_add_source(chaos->broker, chaos->life.source), 0);
        assert_int_equal(source_anonymous_ops.open(&limit, 1, chaos->life.keep, &chaos->anonymous, NULL), 0);
        assert_int_equal(broker_add_source(chaos->broker, chaos->anonymous), 0);
        chaos->ledger->fails = chaos_fails;
        chaos->ledger->wants_rewrite = chaos_wants_rewrite;
        chaos->ledger->userdata = chaos;
}

/* ---- what there is, in words ---- */

struct dump {
        FILE *file;
        const struct caller *caller;
        uint64_t now;
};

static int count_any_pool(const struct pool_view *view, void *userdata) {
        return ++*(unsigned *)userdata;
}

static int count_any_bounce(const struct bounce_view *view, void *userdata) {
        return ++*(unsigned *)userdata;
}

static int count_any_mapping(const struct mapping_view *view, void *userdata) {
        return ++*(unsigned *)userdata;
}

/* The memory of a pool that is being made is not promised. */
static bool is_promised(const struct caller *caller, const struct alloc_view *view) {
        struct bounce_view bounce;
        struct pool_view pool;

        return (!view->pool || pool_get(caller, view->pool, &pool, NULL) == 0) &&
               (!view->bounce || bounce_get(caller, view->bounce, &bounce, NULL) == 0);
}

struct promised {
        const struct caller *caller;
        unsigned n;
};

static int count_promised_alloc(const struct alloc_view *view, void *userdata) {
        struct promised *promised = userdata;

        promised->n += is_promised(promised->caller, view);
        return 0;
}

/* What is nobody's and holds nothing goes at the start: a request on its way has kept it. */
static bool is_going(const struct dump *dump, const struct device_view *view) {
        struct promised promised = { .caller = dump->caller };
        unsigned any = 0;

        if (view->session_bound)
                return false;
        coherent_visit(dump->caller, view->handle, NULL, 0, count_promised_alloc, &promised, NULL);
        pool_visit(dump->caller, view->handle, NULL, 0, count_any_pool, &any, NULL);
        bounce_visit(dump->caller, view->handle, NULL, 0, count_any_bounce, &any, NULL);
        mapping_visit(dump->caller, view->handle, NULL, 0, count_any_mapping, &any, NULL);
        return !any && !promised.n;
}

/* A device's own: it goes with the device, or becomes an ordinary one. */
static int dump_region(const struct region_view *view, void *userdata) {
        struct dump *dump = userdata;
        struct device_view device;

        if (view->device && device_get(dump->caller, view->device, &device, NULL) == 0 && !is_going(dump, &device))
                fprintf(dump->file, "region %llu %s at %llx size %llu device %llu\n", (unsigned long long)view->handle,
                        view->owner, (unsigned long long)view->machine_addr, (unsigned long long)view->size,
                        (unsigned long long)view->device);
        return 0;
}

static int dump_alloc(const struct alloc_view *view, void *userdata) {
        struct dump *dump = userdata;

        if (!is_promised(dump->caller, view))
                return 0;
        fprintf(dump->file,
                "alloc %llu %s %s device %llu at %llx region %llu+%llu size %llu dma %llx pool %llu bounce %llu%s%s%s born "
                "%llu\n",
                (unsigned long long)view->handle, view->owner, view->device_name, (unsigned long long)view->device,
                (unsigned long long)view->machine_addr, (unsigned long long)view->region, (unsigned long long)view->offset,
                (unsigned long long)view->size,
                (unsigned long long)view->dma_addr, (unsigned long long)view->pool, (unsigned long long)view->bounce,
                view->owner_lifetime ? " owner's" : "", view->shareable ? " shareable" : "", view->anonymous ? " anonymous" : "",
                (unsigned long long)(dump->now - view->age_ms));
        return 0;
}

static int dump_pool(const struct pool_view *view, void *userdata) {
        struct dump *dump = userdata;

        fprintf(dump->file, "pool %llu %s %s device %llu block %llu align %llu boundary %llx per slab %llu of %llu reserve %llu "
                "max %llu slabs %llu blocks %llu free %llu used %llu leased %llu quarantined %llu leases %llu born %llu\n",
                (unsigned long long)view->handle, view->owner, view->name, (unsigned long long)view->device,
                (unsigned long long)view->block_size, (unsigned long long)view->align, (unsigned long long)view->boundary,
                (unsigned long long)view->blocks_per_slab, (unsigned long long)view->slab_size,
                (unsigned long long)view->reserve, (unsigned long long)view->max_blocks, (unsigned long long)view->slabs,
                (unsigned long long)view->blocks, (unsigned long long)view->free, (unsigned long long)view->used,
                (unsigned long long)view->leased, (unsigned long long)view->quarantined, (unsigned long long)view->leases,
                (unsigned long long)(dump->now - view->age_ms));
        return 0;
}

static int dump_bounce(const struct bounce_view *view, void *userdata) {
        struct dump *dump = userdata;

        fprintf(dump->file, "bounce %llu %s device %llu region %llu+%llu dma %llx size %llu max %llu slot %llu areas %llu "
                "free %llu used %llu leased %llu quarantined %llu parts %llu leases %llu born %llu\n",
                (unsigned long long)view->handle, view->owner, (unsigned long long)view->device,
                (unsigned long long)view->region, (unsigned long long)view->offset, (unsigned long long)view->dma_addr,
                (unsigned long long)view->size, (unsigned long long)view->max_size, (unsigned long long)view->slot_size,
                (unsigned long long)view->areas, (unsigned long long)view->free, (unsigned long long)view->used,
                (unsigned long long)view->leased, (unsigned long long)view->quarantined, (unsigned long long)view->parts,
                (unsigned long long)view->leases, (unsigned long long)(dump->now - view->age_ms));
        return 0;
}

static int dump_lease(const struct lease_view *view, void *userdata) {
        struct dump *dump = userdata;

        fprintf(dump->file, "lease %llu %s pool %llu bounce %llu region %llu+%llu dma %llx unit %llu count %llu born %llu\n",
                (unsigned long long)view->handle, view->owner, (unsigned long long)view->pool,
                (unsigned long long)view->bounce, (unsigned long long)view->region, (unsigned long long)view->offset,
                (unsigned long long)view->dma_addr, (unsigned long long)view->unit, (unsigned long long)view->count,
                (unsigned long long)(dump->now - view->age_ms));
        return 0;
}

static int dump_mapping(const struct mapping_view *view, void *userdata) {
        struct dump *dump = userdata;

        fprintf(dump->file, "mapping %llu %s device %llu bounce %llu alloc %llu dma %llx region %llu+%llu size %llu slots %llu "
                "direction %d born %llu\n", (unsigned long long)view->handle, view->owner, (unsigned long long)view->device,
                (unsigned long long)view->bounce, (unsigned long long)view->alloc, (unsigned long long)view->dma_addr,
                (unsigned long long)view->region, (unsigned long long)view->offset, (unsigned long long)view->size,
                (unsigned long long)view->slots, view->direction, (unsigned long long)(dump->now - view->age_ms));
        return 0;
}

static int dump_device(const struct device_view *view, void *userdata) {
        struct dump *dump = userdata;

        if (is_going(dump, view))
                return 0;
        fprintf(dump->file, "device %llu %s %s parent %s via %s %s mask %llx %llx boundary %llx segment %llu align %llx node %d "
                "timeout %llu reserved %llu%s\n", (unsigned long long)view->handle, view->owner, view->name,
                view->parent ? view->parent : "-", view->via, view->translation, (unsigned long long)view->mask,
                (unsigned long long)view->coherent_mask, (unsigned long long)view->boundary,
                (unsigned long long)view->max_segment, (unsigned long long)view->min_align_mask, view->node,
                (unsigned long long)view->timeout_ms, (unsigned long long)view->reserved_bytes,
                view->session_bound ? " bound" : "");
        return 0;
}

static int dump_owner(const struct owner_view *view, void *userdata) {
        struct dump *dump = userdata;
        bool any = view->guaranteed.bytes || view->guaranteed.low_bytes;
        int kind;

        for (kind = 0; kind < QUOTA_KINDS; kind++)
                any |= view->limits.of[kind] != QUOTA_UNLIMITED;
        if (!any)
                return 0;
        fprintf(dump->file, "owner %s %llu %llu", view->name, (unsigned long long)view->guaranteed.bytes,
                (unsigned long long)view->guaranteed.low_bytes);
        for (kind = 0; kind < QUOTA_KINDS; kind++)
                fprintf(dump->file, " %lld", (long long)view->limits.of[kind]);
        fprintf(dump->file, "\n");
        return 0;
}

static int dump_session(struct session *session, void *userdata) {
        struct dump *dump = userdata;

        fprintf(dump->file, "session %u %s %s\n", session_id(session), session_owner(session),
                session_note(session) ? session_note(session) : "-");
        return 0;
}

static int first_session(struct session *session, void *userdata) {
        *(struct session **)userdata = session;
        return 1;
}

static int sort_lines(const void *a, const void *b) {
        return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In an order that does not depend on who was made first. */
static char *sorted(char *text) {
        char *lines[N_FOUND], *line, *rest = text, *all = NULL;
        FILE *file = open_memstream(&all, &(size_t){ 0 });
        size_t n = 0, i;

        while ((line = strsep(&rest, "\n")) && *line) {
                assert_true(n < N_FOUND);
                lines[n++] = line;
        }
        qsort(lines, n, sizeof(*lines), sort_lines);
        for (i = 0; i < n; i++)
                fprintf(file, "%s\n", lines[i]);
        fclose(file);
        free(text);
        return all;
}

static char *describe(const struct chaos *chaos) {
        struct broker *broker = chaos->broker;
        struct caller caller = { .admin = true };
        struct dump dump = { .caller = &caller, .now = chaos->now };
        char *text = NULL;
        size_t size;

        dump.file = open_memstream(&text, &size);
        broker_visit_sessions(broker, first_session, &caller.session);
        broker_visit_sessions(broker, dump_session, &dump);
        broker_visit_owners(broker, dump_owner, &dump);
        if (caller.session) {
                device_visit(&caller, NULL, dump_device, &dump, NULL);
                region_visit(&caller, NULL, 0, dump_region, &dump, NULL);
                coherent_visit(&caller, 0, NULL, 0, dump_alloc, &dump, NULL);
                pool_visit(&caller, 0, NULL, 0, dump_pool, &dump, NULL);
                bounce_visit(&caller, 0, NULL, 0, dump_bounce, &dump, NULL);
                lease_visit(&caller, 0, 0, NULL, 0, dump_lease, &dump, NULL);
                mapping_visit(&caller, 0, NULL, 0, dump_mapping, &dump, NULL);
        }
        fclose(dump.file);
        return sorted(text);
}

/* This is what another broker must find. */
static void promise(struct chaos *chaos) {
        unsigned left = allocations_left;

        allocations_left = UINT_MAX;
        free(chaos->promised);
        chaos->promised = describe(chaos);
        allocations_left = left;
}

static bool commit(struct chaos *chaos) {
        if (broker_commit(chaos->broker) < 0) {
                chaos->failures++;
                return false;
        }
        promise(chaos);
        return true;
}

static void settle(struct chaos *chaos) {
        allocations_left = UINT_MAX;
        while (!broker_settled(chaos->broker)) {
                /* Jobs begin with the commit. */
                while (!commit(chaos))
                        ;
                chaos->life.ops->wait(chaos->life.source);
                chaos->anonymous->ops->wait(chaos->anonymous);
                dispatch(chaos);
        }
}

/* ---- picking what is there ---- */

struct found {
        uint64_t handles[N_FOUND];
        size_t n;
};

static int found_add(struct found *found, uint64_t handle) {
        if (found->n < N_FOUND)
                found->handles[found->n++] = handle;
        return 0;
}

static int find_device(const struct device_view *view, void *userdata) {
        return found_add(userdata, view->handle);
}

static int find_region(const struct region_view *view, void *userdata) {
        return view->device ? found_add(userdata, view->handle) : 0;
}

static int find_alloc(const struct alloc_view *view, void *userdata) {
        return found_add(userdata, view->handle);
}

static int find_pool(const struct pool_view *view, void *userdata) {
        return found_add(userdata, view->handle);
}

static int find_bounce(const struct bounce_view *view, void *userdata) {
        return found_add(userdata, view->handle);
}

static int find_lease(const struct lease_view *view, void *userdata) {
        return found_add(userdata, view->handle);
}

static int find_mapping(const struct mapping_view *view, void *userdata) {
        return found_add(userdata, view->handle);
}

enum what { DEVICES, RESERVED, ALLOCS, POOLS, BOUNCES, LEASES, MAPPINGS };

static uint64_t pick(struct chaos *chaos, const struct caller *caller, enum what what) {
        static struct found found;
        const char *owner = session_owner(caller->session);

        found.n = 0;
        switch (what) {
        case DEVICES:
                device_visit(caller, owner, find_device, &found, NULL);
                break;
        case RESERVED:
                region_visit(caller, owner, 0, find_region, &found, NULL);
                break;
        case ALLOCS:
                coherent_visit(caller, 0, owner, 0, find_alloc, &found, NULL);
                break;
        case POOLS:
                pool_visit(caller, 0, owner, 0, find_pool, &found, NULL);
                break;
        case BOUNCES:
                bounce_visit(caller, 0, owner, 0, find_bounce, &found, NULL);
                break;
        case LEASES:
                lease_visit(caller, 0, 0, owner, 0, find_lease, &found, NULL);
                break;
        case MAPPINGS:
                mapping_visit(caller, 0, owner, 0, find_mapping, &found, NULL);
                break;
        }
        return found.n ? found.handles[below(chaos, (unsigned)found.n)] : 0;
}

struct nth {
        unsigned n;
        struct session *session;
};

static int nth_session(struct session *session, void *userdata) {
        struct nth *nth = userdata;

        nth->session = session;
        return nth->n-- == 0;
}

static unsigned n_sessions(const struct chaos *chaos) {
        struct broker_counts counts;

        broker_counts(chaos->broker, &counts);
        return (unsigned)counts.sessions;
}

static struct session *pick_session(struct chaos *chaos) {
        struct nth nth = {};

        if (!n_sessions(chaos))
                return NULL;
        nth.n = below(chaos, n_sessions(chaos));
        broker_visit_sessions(chaos->broker, nth_session, &nth);
        return nth.session;
}

/* ---- asking ---- */

static void answered(struct pending *pending) {
        assert_true(pending->asked);
        pending->asked = false;
        pending->ticket = NULL;
}

static void on_answer(void *userdata, const struct failure *failure, uint64_t handle) {
        answered(userdata);
}

static void on_blocks(void *userdata, const struct failure *failure, const struct pool_block *blocks, size_t n) {
        answered(userdata);
}

static struct pending *pending_new(struct chaos *chaos) {
        unsigned i;

        for (i = 0; i < N_PENDING; i++)
                if (!chaos->pending[i].asked) {
                        chaos->pending[i] = (struct pending){ .chaos = chaos, .asked = true };
                        return &chaos->pending[i];
                }
        return NULL;
}

static void pending_has(struct pending *pending, struct ticket *ticket) {
        if (pending->asked)
                pending->ticket = ticket;
}

static const char *key(struct chaos *chaos) {
        static char text[16];

        if (below(chaos, 3))
                return NULL;
        snprintf(text, sizeof(text), "k%u", below(chaos, 12));
        return text;
}

static uint64_t wait_ms(struct chaos *chaos) {
        return below(chaos, 4) ? 0 : 1 + below(chaos, 100);
}

static uint64_t mask(struct chaos *chaos) {
        static const uint64_t masks[] = { 0, 0, UINT64_MAX, 0xffffffff, 0x1fffff };

        return masks[below(chaos, sizeof(masks) / sizeof(*masks))];
}

static void open_device(struct chaos *chaos, const struct caller *caller) {
        static const char *const names[] = { "nic", "disk", "gpu", "snd" };
        struct device_options options = {
                .name = names[below(chaos, 4)], .mask = mask(chaos), .coherent_mask = mask(chaos), .node = -1,
                .boundary = below(chaos, 3) ? 0 : 64 * KIB, .max_segment = below(chaos, 4) ? 0 : 512 * KIB,
                .min_align_mask = below(chaos, 4) ? 0 : 511, .timeout_ms = below(chaos, 3), .request_key = key(chaos),
        };
        uint64_t handle;

        device_open(caller, &options, &handle, NULL);
}

static void ask_alloc(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct alloc_request request = {
                .device = pick(chaos, caller, DEVICES), .size = 1 + below(chaos, below(chaos, 4) ? 16 * KIB : 512 * KIB),
                .wait_ms = wait_ms(chaos), .high = below(chaos, 4) == 0, .zero = below(chaos, 2),
                .shareable = below(chaos, 2), .owner_lifetime = below(chaos, 3) == 0, .request_key = key(chaos),
                .request_digest = 1,
        };

        pending_has(pending, coherent_alloc(caller, &request, on_answer, pending));
}

static void ask_reserve(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct reserve_request request = {
                .device = pick(chaos, caller, DEVICES), .size = 1 + below(chaos, 256 * KIB), .request_key = key(chaos),
                .request_digest = 2,
        };

        if (below(chaos, 2)) {
                request.stride = 16 * KIB;
                request.usable = 8 * KIB;
        }
        pending_has(pending, device_reserve(caller, &request, on_answer, pending));
}

static void ask_pool(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct pool_options options = {
                .name = "pool", .device = pick(chaos, caller, DEVICES), .size = 64 + below(chaos, 4096),
                .boundary = below(chaos, 3) ? 0 : 8192, .reserve = below(chaos, 2) ? 0 : below(chaos, 40),
                .max_blocks = below(chaos, 2) ? 0 : 40 + below(chaos, 60), .wait_ms = wait_ms(chaos),
                .request_key = key(chaos), .request_digest = 3,
        };

        pending_has(pending, pool_create(caller, &options, on_answer, pending));
}

static void ask_blocks(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct pool_request request = {
                .pool = pick(chaos, caller, POOLS), .count = 1 + below(chaos, 20), .wait_ms = wait_ms(chaos),
                .high = below(chaos, 4) == 0, .request_key = key(chaos), .request_digest = 4,
        };

        if (below(chaos, 2))
                pending_has(pending, pool_alloc(caller, &request, on_blocks, pending));
        else
                pending_has(pending, pool_lease(caller, &request, on_answer, pending));
}

static void ask_bounce(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct bounce_options options = {
                .device = pick(chaos, caller, DEVICES), .size = 1 + below(chaos, 128 * KIB), .areas = below(chaos, 3),
                .max_size = below(chaos, 2) ? 0 : 512 * KIB, .wait_ms = wait_ms(chaos), .request_key = key(chaos),
                .request_digest = 5,
        };

        pending_has(pending, bounce_create(caller, &options, on_answer, pending));
}

static void ask_slots(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct bounce_request request = {
                .bounce = pick(chaos, caller, BOUNCES), .align_offset = below(chaos, 600),
                .direction = (enum dma_direction)below(chaos, 3), .wait_ms = wait_ms(chaos), .high = below(chaos, 4) == 0,
                .request_key = key(chaos), .request_digest = 6,
        };

        if (below(chaos, 2)) {
                request.size = 1 + below(chaos, 40 * KIB);
                pending_has(pending, bounce_map(caller, &request, on_answer, pending));
        } else {
                request.size = below(chaos, 12);
                pending_has(pending, bounce_lease(caller, &request, on_answer, pending));
        }
}

static void ask_move(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct move_request request = {
                .alloc = pick(chaos, caller, ALLOCS), .device = pick(chaos, caller, DEVICES), .wait_ms = wait_ms(chaos),
                .high = below(chaos, 4) == 0, .request_key = key(chaos), .request_digest = 8,
        };

        pending_has(pending, coherent_move(caller, &request, on_answer, pending));
}

static void ask_swap(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct swap_in_request request = {
                .alloc = pick(chaos, caller, ALLOCS), .mask = mask(chaos), .wait_ms = wait_ms(chaos),
                .high = below(chaos, 4) == 0,
        };
        bool out = below(chaos, 2);

        pending_has(pending, out ? coherent_swap_out(caller, request.alloc, on_answer, pending)
                                 : coherent_swap_in(caller, &request, on_answer, pending));
}

static void ask_release(struct chaos *chaos, const struct caller *caller, struct pending *pending) {
        struct caller admin = { .session = caller->session, .admin = true };

        pending_has(pending, memory_release(&admin, below(chaos, 2) ? 0 : MIB, wait_ms(chaos), on_answer, pending));
}

static void map_alloc(struct chaos *chaos, const struct caller *caller) {
        struct mapping_request request = {
                .device = pick(chaos, caller, DEVICES), .alloc = pick(chaos, caller, ALLOCS), .offset = below(chaos, 2048),
                .direction = (enum dma_direction)below(chaos, 3), .request_key = key(chaos), .request_digest = 7,
        };
        uint64_t handle;

        mapping_map(caller, &request, &handle, NULL);
}

/* ---- giving back ---- */

struct told {
        uint64_t dma_addrs[N_FOUND];
        size_t n;
};

static int note_block(const struct pool_block *block, void *userdata) {
        struct told *told = userdata;

        if (!block->lease && told->n < N_FOUND)
                told->dma_addrs[told->n++] = block->dma_addr;
        return 0;
}

static void free_blocks(struct chaos *chaos, const struct caller *caller) {
        uint64_t pool = pick(chaos, caller, POOLS);
        struct told told = {};
        size_t from, n;

        /* It says what is busy, and fails for that. */
        pool_destroy(caller, pool, false, note_block, &told, NULL);
        if (!told.n)
                return;
        from = below(chaos, (unsigned)told.n);
        n = 1 + below(chaos, (unsigned)(told.n - from));
        pool_free_blocks(caller, pool, told.dma_addrs + from, n, NULL);
}

static int no_leak(const struct leak_view *leak, void *userdata) {
        return 0;
}

static int no_mapping(const struct mapping_view *view, void *userdata) {
        return 0;
}

static void give_back(struct chaos *chaos, const struct caller *caller) {
        static int (*const return_region[])(const struct caller *caller, uint64_t device, uint64_t region,
                                            struct failure *failure) = {
                device_unreserve, device_unreserve, device_withdraw, device_reinstate,
        };
        uint64_t bytes;

        switch (below(chaos, 14)) {
        case 0: case 1: case 2:
                coherent_free(caller, pick(chaos, caller, ALLOCS), NULL);
                break;
        case 3: case 4:
                free_blocks(chaos, caller);
                break;
        case 5: case 6:
                lease_return(caller, pick(chaos, caller, LEASES), below(chaos, 2) ? LEASE_OF_POOL : LEASE_OF_BOUNCE, NULL);
                break;
        case 7: case 8:
                bounce_unmap(caller, pick(chaos, caller, MAPPINGS), 0, NULL, NULL);
                break;
        case 9:
                mapping_unmap(caller, pick(chaos, caller, MAPPINGS), NULL);
                break;
        case 10:
                pool_trim(caller, pick(chaos, caller, POOLS), &bytes, NULL);
                break;
        case 11:
                pool_destroy(caller, pick(chaos, caller, POOLS), below(chaos, 3) == 0, NULL, NULL, NULL);
                break;
        case 12:
                bounce_destroy(caller, pick(chaos, caller, BOUNCES), below(chaos, 3) == 0, no_mapping, NULL, NULL);
                break;
        default:
                return_region[below(chaos, 4)](caller, pick(chaos, caller, DEVICES), pick(chaos, caller, RESERVED), NULL);
                break;
        }
}

/* ---- owners and sessions ---- */

struct same {
        const struct session *session;
        bool found;
};

static int same_session(struct session *session, void *userdata) {
        struct same *same = userdata;

        same->found |= session != same->session && session_id(session) == session_id(same->session);
        return 0;
}

static void new_session(struct chaos *chaos) {
        struct session *session;
        struct same same;
        char text[32];

        snprintf(text, sizeof(text), "user:%u", 1000 + below(chaos, 3));
        if (n_sessions(chaos) >= SESSIONS_MAX || session_open(chaos->broker, text, &session, NULL) < 0)
                return;
        same = (struct same){ .session = session };
        broker_visit_sessions(chaos->broker, same_session, &same);
        assert_false(same.found);
        snprintf(text, sizeof(text), "token %u", below(chaos, 1000000));
        session_set_note(session, text);
}

static void set_quota(struct chaos *chaos, const struct caller *caller) {
        struct caller admin = { .session = caller->session, .admin = true };
        enum quota_kind kind = (enum quota_kind)below(chaos, QUOTA_KINDS);
        struct quota quota = {};
        char owner[32];

        snprintf(owner, sizeof(owner), "user:%u", 1000 + below(chaos, 5));
        quota.of[kind] = below(chaos, 3) ? QUOTA_UNLIMITED : (kind <= QUOTA_low_bytes ? 4 * MIB : 20);
        switch (below(chaos, 3)) {
        case 0:
                quota_set(&admin, owner, 1u << kind, &quota, NULL);
                break;
        case 1:
                quota_set_device(&admin, pick(chaos, caller, DEVICES), 1u << kind, &quota, NULL);
                break;
        default:
                guarantee_set(&admin, owner, &(struct guarantee){ .bytes = below(chaos, 2) ? 0 : below(chaos, MIB) }, NULL);
                break;
        }
}

static void act_on_session(struct chaos *chaos, const struct caller *caller) {
        switch (below(chaos, 12)) {
        case 0:
                session_close(caller->session);
                break;
        case 1:
                session_abandon(caller->session);
                break;
        case 2: case 3:
                device_close(caller, pick(chaos, caller, DEVICES), below(chaos, 3) == 0, no_leak, NULL, NULL);
                break;
        case 4: case 5:
                device_set_mask(caller, pick(chaos, caller, DEVICES), mask(chaos), below(chaos, 2), NULL);
                break;
        case 6:
                set_quota(chaos, caller);
                break;
        default:
                new_session(chaos);
                break;
        }
}

static void cancel(struct chaos *chaos) {
        struct pending *pending = &chaos->pending[below(chaos, N_PENDING)];
        struct ticket *ticket = pending->ticket;

        if (!ticket)
                return;
        answered(pending);
        ticket_cancel(ticket);
}

static void ask(struct chaos *chaos, const struct caller *caller) {
        static void (*const asks[])(struct chaos *chaos, const struct caller *caller, struct pending *pending) = {
                ask_alloc, ask_alloc, ask_alloc, ask_reserve, ask_pool, ask_blocks, ask_blocks, ask_blocks, ask_bounce,
                ask_slots, ask_slots, ask_slots, ask_move, ask_move, ask_release, ask_swap, ask_swap, ask_swap,
        };
        struct pending *pending = pending_new(chaos);

        if (pending)
                asks[below(chaos, sizeof(asks) / sizeof(*asks))](chaos, caller, pending);
}

static void act(struct chaos *chaos) {
        struct caller caller = { .session = pick_session(chaos) };
        unsigned what = below(chaos, 32);

        if (!caller.session) {
                new_session(chaos);
                return;
        }
        snprintf(chaos->last, sizeof(chaos->last), "%u of session %u", what, session_id(caller.session));
        if (what < 12)
                ask(chaos, &caller);
        else if (what < 15)
                map_alloc(chaos, &caller);
        else if (what < 17)
                open_device(chaos, &caller);
        else if (what < 24)
                give_back(chaos, &caller);
        else if (what < 26)
                act_on_session(chaos, &caller);
        else if (what < 27)
                cancel(chaos);
        else if (what < 29)
                dispatch(chaos);
        else if (what < 30)
                settle(chaos);
        else {
                chaos->now += below(chaos, 40);
                broker_tick(chaos->broker);
        }
}

/* ---- the checks ---- */

static void check(struct chaos *chaos) {
        unsigned fail_percent = chaos->fail_percent;

        chaos->fail_percent = 0;
        broker_check(chaos->broker, problem, checked, chaos);
        chaos->fail_percent = fail_percent;
        promise(chaos);
        if (chaos->problems)
                fail_msg("%u problems after step %lu: %s", chaos->problems, chaos->steps, chaos->last);
}


static void compare(struct chaos *chaos) {
        char *now = describe(chaos), *a = chaos->promised, *b = now, *line;

        if (strcmp(a, b) == 0) {
                free(now);
                return;
        }
        while (*a || *b) {
                char *end_a = strchrnul(a, '\n'), *end_b = strchrnul(b, '\n');
                int order = !*a ? 1 : !*b ? -1 : strncmp(a, b, (size_t)((end_a - a > end_b - b ? end_a - a : end_b - b) + 1));

                line = order < 0 ? a : b;
                if (order)
                        print_error("%c %.*s\n", order < 0 ? '-' : '+', (int)((order < 0 ? end_a : end_b) - line), line);
                if (order <= 0)
                        a = *end_a ? end_a + 1 : end_a;
                if (order >= 0)
                        b = *end_b ? end_b + 1 : end_b;
        }
        fail_msg("something else than was promised, after step %lu: %s", chaos->steps, chaos->last);
}

/* ---- dying ---- */

static void end_life(struct chaos *chaos) {
        chaos->dies = true;
        broker_leave(chaos->broker);
        chaos->dies = false;
        keep_free(chaos->life.keep);
        chaos->broker = NULL;
}

/* Out of memory at any point of the start: nothing is lost. */
static bool load(struct chaos *chaos, bool may_starve) {
        struct failure failure = {};
        int r;

        allocations_left = may_starve ? below(chaos, 300) : UINT_MAX;
        r = broker_load(chaos->broker, &chaos->ledger->base, &failure);
        allocations_left = UINT_MAX;
        if (r == 0)
                return true;
        if (!may_starve)
                fail_msg("%s", failure.sentence);
        end_life(chaos);
        begin(chaos);
        return false;
}

static void die(struct chaos *chaos) {
        struct memory_ledger *next = memory_ledger_reopen(chaos->ledger);
        unsigned i;

        chaos->ledger->frozen = true;
        end_life(chaos);
        memory_ledger_free(chaos->ledger);
        for (i = 0; i < N_PENDING; i++)
                assert_false(chaos->pending[i].asked);
        chaos->ledger = next;
        if (chaos->forgets && below(chaos, 2))
                memory_ledger_lose(next, ROW_BROKER, 0);
        begin(chaos);
        while (!load(chaos, chaos->starves && below(chaos, 2)))
                ;
        chaos->deaths++;
        compare(chaos);
        check(chaos);
        commit(chaos);
}

/* ---- the tests ---- */

struct plan {
        unsigned check_every, die_every, fail_percent, rewrite_percent;
        bool starves, forgets;
};

static void step(struct chaos *chaos, const struct plan *plan) {
        chaos->steps++;
        if (plan->starves && below(chaos, 4) == 0)
                allocations_left = below(chaos, 40);
        act(chaos);
        if (below(chaos, 2))
                commit(chaos);
        allocations_left = UINT_MAX;
        commit(chaos);
        if (below(chaos, plan->check_every) == 0)
                check(chaos);
        if (plan->die_every && below(chaos, plan->die_every) == 0)
                die(chaos);
}

static int free_any(const struct alloc_view *view, void *userdata) {
        *(uint64_t *)userdata = view->handle;
        return 1;
}

static int expect_stock(const struct source_view *view, void *userdata) {
        assert_int_equal(view->in_regions, 0);
        assert_int_equal(view->lost, 0);
        return 0;
}

/* Nobody has anything any more: all memory is stock. */
static void give_all_back(struct chaos *chaos) {
        struct caller admin = { .admin = true };
        uint64_t handle = 0, before = 0;
        unsigned owner;
        char name[32];

        while (n_sessions(chaos))
                session_close(pick_session(chaos));
        assert_int_equal(session_open(chaos->broker, "user:0", &admin.session, NULL), 0);
        while (coherent_visit(&admin, 0, NULL, 0, free_any, &handle, NULL) == 0 && handle != before) {
                assert_int_equal(coherent_free(&admin, handle, NULL), 0);
                before = handle;
        }
        session_close(admin.session);
        /* What was barred stays so until its owner has been there, and has gone. */
        for (owner = 1000; owner < 1003; owner++) {
                snprintf(name, sizeof(name), "user:%u", owner);
                assert_int_equal(session_open(chaos->broker, name, &admin.session, NULL), 0);
                session_close(admin.session);
        }
        settle(chaos);
        chaos->now += 1000;
        broker_tick(chaos->broker);
        settle(chaos);
        chaos->now += 1000;
        broker_tick(chaos->broker);
        settle(chaos);
        broker_visit_sources(chaos->broker, expect_stock, NULL);
}

static void finish(struct chaos *chaos) {
        chaos->fail_percent = 0;
        settle(chaos);
        check(chaos);
        settle(chaos);
        give_all_back(chaos);
        check(chaos);
        settle(chaos);
        broker_free(chaos->broker);
        keep_end(chaos->life.keep);
        memory_ledger_free(chaos->ledger);
        free(chaos->promised);
}

static void run(uint64_t seed, unsigned long steps, const struct plan *plan) {
        struct chaos chaos = { .now = 1000, .random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .starves = plan->starves,
                                .forgets = plan->forgets };
        unsigned long i;

        chaos.ledger = memory_ledger_new();
        begin(&chaos);
        while (!load(&chaos, false))
                ;
        chaos.fail_percent = plan->fail_percent;
        chaos.rewrite_percent = plan->rewrite_percent;
        commit(&chaos);
        for (i = 0; i < steps; i++)
                step(&chaos, plan);
        print_message("seed %llu: %lu steps, %lu deaths, %lu commits that failed\n", (unsigned long long)seed, chaos.steps,
                      chaos.deaths, chaos.failures);
        finish(&chaos);
}

static void run_seeds(const struct plan *plan) {
        const char *all = getenv("LEDGER_CHAOS_STEPS"), *one = getenv("LEDGER_CHAOS_SEED");
        unsigned long steps = (all ? strtoul(all, NULL, 10) : 20000) / 6 / N_SEEDS;
        uint64_t seed;

        if (one) {
                run(strtoull(one, NULL, 10), steps, plan);
                return;
        }
        for (seed = 1; seed <= N_SEEDS; seed++)
                run(seed, steps, plan);
}

static void test_every_change_is_noted(void **state) {
        run_seeds(&(struct plan){ .check_every = 1 });
}

static void test_another_broker_goes_on(void **state) {
        run_seeds(&(struct plan){ .check_every = 16, .die_every = 24 });
}

static void test_the_ledger_is_written_anew(void **state) {
        run_seeds(&(struct plan){ .check_every = 8, .die_every = 24, .rewrite_percent = 20 });
}

static void test_the_ledger_fails(void **state) {
        run_seeds(&(struct plan){ .check_every = 8, .die_every = 24, .rewrite_percent = 10, .fail_percent = 10 });
}

static void test_the_numbers_that_were_given_are_lost(void **state) {
        run_seeds(&(struct plan){ .check_every = 8, .die_every = 24, .forgets = true });
}

static void test_the_daemon_is_out_of_memory(void **state) {
        run_seeds(&(struct plan){ .check_every = 8, .die_every = 24, .rewrite_percent = 10, .fail_percent = 2, .starves = true });
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_change_is_noted),
                cmocka_unit_test(test_another_broker_goes_on),
                cmocka_unit_test(test_the_ledger_is_written_anew),
                cmocka_unit_test(test_the_ledger_fails),
                cmocka_unit_test(test_the_numbers_that_were_given_are_lost),
                cmocka_unit_test(test_the_daemon_is_out_of_memory),
        };

        return cmocka_run_group_tests(tests, lives_begin, lives_end);
}
