/* The daemon is killed at random moments while clients of several owners do everything that they can. After each death,
 * what was answered is there, with every byte, nobody has what somebody else has, and the daemon's books are clean: its
 * memory against its ledger, and both against the source.
 *
 * KILLS says how often on each source (120 simulated, 40 real, if not told), SEED which random moments, SOURCE on which of
 * sim and hugetlb only. */
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "tests/lib/daemon.h"
#include "tests/lib/hugepages.h"
#include "tests/survive/model.h"

enum { N_WORKERS = 6, ANSWERS_MAX = 250, LOG_TAIL = 4000, HUGE_PAGES = 36, KILLS_SIM = 120, KILLS_REAL = 40 };

#define CONFIG                                                                                                       \
        "[daemon]\naccess = everyone\ngrace = 0\nkeep = 60s\nledger = 16K\nlog_level = warning\n"                     \
        "[memory]\nquarantine = 50ms\nregion_idle = 30ms\nemergency_permille = 0\n"
#define CONFIG_REAL CONFIG "[source hugetlb]\nreserve = 64M\nlimit = 64M\n"

struct run {
        struct test_daemon *daemon;
        const char *source;
        struct worker workers[N_WORKERS], admin;
        struct counts counts;
        uint64_t total; /* bytes of the source */
        unsigned long kills, ends, early_kills, rewrites, checks;
};

static struct run *running; /* for give_up() */

void give_up(const char *format, ...) {
        va_list arguments;
        char *text;
        size_t length;

        fprintf(stderr, "%s, after %lu kills: ", running->source, running->kills);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        text = running->daemon ? test_daemon_log(running->daemon) : NULL;
        length = text ? strlen(text) : 0;
        fprintf(stderr, "\n--- what dmabrokerd wrote last ---\n%s--- end ---\n",
                text ? text + (length > LOG_TAIL ? length - LOG_TAIL : 0) : "");
        test_daemon_end(running->daemon);
        exit(1);
}

static uint64_t now_ns(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The daemon goes on meanwhile: to whatever instruction. */
static void spin(struct run *run, uint64_t most_ns) {
        uint64_t end = now_ns() + worker_random(&run->admin, most_ns);

        while (now_ns() < end)
                ;
}

/* Until `condition`, which asks the daemon, is true. */
#define until(what, condition)                                                                        \
        for (uint64_t end_ns = now_ns() + (uint64_t)test_timeout_ms() * 1000000; !(condition);)       \
                if (now_ns() > end_ns)                                                                \
        give_up("%s: it did not become so in time", what)

/* ---- what the daemon tells, against what the clients have been told ---- */

static const struct object *find(const struct run *run, const char *owner, enum kind kind, uint64_t handle) {
        const struct object *object;
        unsigned i;

        for (i = 0; i < N_WORKERS; i++)
                if (strcmp(run->workers[i].owner, owner) == 0)
                        DL_FOREACH(run->workers[i].objects, object)
                                if (object->kind == kind && object->handle == handle)
                                        return object;
        return NULL;
}

static size_t count(const struct run *run, const char *owner, enum kind kind) {
        const struct object *object;
        size_t n = 0;
        unsigned i;

        for (i = 0; i < N_WORKERS; i++)
                if (strcmp(run->workers[i].owner, owner) == 0)
                        DL_FOREACH(run->workers[i].objects, object)
                                n += object->kind == kind;
        return n;
}

/* Units that objects of this kind have of a pool. */
static uint64_t units(const struct run *run, const struct object *pool, enum kind kind) {
        const struct object *object;
        uint64_t n = 0;
        unsigned i;

        for (i = 0; i < N_WORKERS; i++)
                DL_FOREACH(run->workers[i].objects, object)
                        if (object->parent == pool && object->kind == kind)
                                n += kind == BLOCKS ? object->n_places : object->count;
        return n;
}

static void require(bool is_so, const char *owner, const char *what, const json_t *item) {
        char *text = is_so ? NULL : json_dumps(item, JSON_COMPACT);

        if (!is_so)
                give_up("%s: %s is not what was answered: %s", owner, what, text);
}

static void require_place(const char *owner, const struct object *object, const json_t *item) {
        const struct place *place = object->places;

        require(number_of(item, "region") == place->region && number_of(item, "offset") == place->offset &&
                address_of(item, "dma_addr") == place->dma_addr, owner, "a place", item);
}

static bool has_word(const json_t *item, const char *name, const char *word) {
        return strcmp(json_string_value(json_object_get(item, name)), word) == 0;
}

static void compare_alloc(const struct run *run, const char *owner, const struct object *alloc, const json_t *item) {
        require_place(owner, alloc, item);
        require(number_of(item, "size") == alloc->places->size && number_of(item, "device") == alloc->parent->handle &&
                json_is_true(json_object_get(item, "shareable")) == alloc->shareable &&
                has_word(item, "lifetime", alloc->owner_lifetime ? "owner" : "session"), owner, "an allocation", item);
}

static void compare_device(const struct run *run, const char *owner, const struct object *device, const json_t *item) {
        require((device->unsure || (hex_of(item, "mask") == device->mask &&
                                    hex_of(item, "coherent_mask") == device->coherent_mask)) &&
                json_is_true(json_object_get(item, "session_bound")) == !device->orphaned, owner, "a device", item);
}

static void compare_pool(const struct run *run, const char *owner, const struct object *pool, const json_t *item) {
        require(number_of(item, "used") == units(run, pool, BLOCKS) && number_of(item, "leased") == units(run, pool, LEASE) &&
                number_of(item, "device") == pool->parent->handle, owner, "a pool", item);
}

static void compare_bounce(const struct run *run, const char *owner, const struct object *bounce, const json_t *item) {
        require(number_of(item, "leased") == units(run, bounce, LEASE) && number_of(item, "device") == bounce->parent->handle,
                owner, "a bounce pool", item);
}

static void compare_lease(const struct run *run, const char *owner, const struct object *lease, const json_t *item) {
        require_place(owner, lease, item);
        require(number_of(item, "count") == lease->count, owner, "a lease", item);
}

static void compare_mapping(const struct run *run, const char *owner, const struct object *mapping, const json_t *item) {
        require_place(owner, mapping, item);
        require(number_of(item, "size") == mapping->places->size, owner, "a mapping", item);
}

static const struct list {
        const char *method, *array, *name;
        enum kind kind;
        void (*compare)(const struct run *run, const char *owner, const struct object *object, const json_t *item);
} lists[] = {
        { "device.list", "devices", "device", DEVICE, compare_device },
        { "coherent.list", "allocs", "alloc", ALLOC, compare_alloc },
        { "pool.list", "pools", "pool", POOL, compare_pool },
        { "bounce.list", "bounces", "bounce", BOUNCE, compare_bounce },
        { "lease.list", "leases", "lease", LEASE, compare_lease },
        { "mapping.list", "mappings", "mapping", MAPPING, compare_mapping },
};

/* Memory of a pool: the pool is there, or it rests or is on its way while the pool ends or is made. */
static bool is_held(const json_t *item) {
        return json_object_get(item, "pool") || json_object_get(item, "bounce");
}

static void check_held(const struct run *run, const char *owner, const json_t *item) {
        enum kind kind = json_object_get(item, "pool") ? POOL : BOUNCE;

        require(find(run, owner, kind, number_of(item, kind == POOL ? "pool" : "bounce")), owner, "memory of a pool", item);
}

static void check_list(struct run *run, const char *owner, const struct list *list) {
        json_t *result = worker_ask(&run->admin, list->method, "{\"owner\":\"%s\",\"limit\":10000}", owner);
        const struct object *object;
        size_t i, n = 0;
        json_t *item;

        json_array_foreach(json_object_get(result, list->array), i, item) {
                if (list->kind == ALLOC && is_held(item)) {
                        check_held(run, owner, item);
                        continue;
                }
                n++;
                object = find(run, owner, list->kind, number_of(item, list->name));
                require(object, owner, "what nobody has asked for", item);
                list->compare(run, owner, object, item);
        }
        if (n != count(run, owner, list->kind))
                give_up("%s: %zu in %s, and %zu were answered", owner, n, list->method, count(run, owner, list->kind));
        json_decref(result);
}

/* What the owner is charged for is what there is; what rests is charged, too, until it has rested. */
static bool usage_fits(struct run *run, const char *owner) {
        json_t *quota = worker_ask(&run->admin, "quota.get", "{\"owner\":\"%s\"}", owner);
        json_t *allocs = worker_ask(&run->admin, "coherent.list", "{\"owner\":\"%s\",\"limit\":10000}", owner);
        json_t *regions = worker_ask(&run->admin, "region.list", "{\"owner\":\"%s\",\"limit\":10000}", owner);
        const json_t *usage = json_object_get(quota, "usage");
        uint64_t bytes = 0, held = 0, anonymous = 0, n_allocs = 0;
        json_t *item;
        size_t i;
        bool fits;

        json_array_foreach(json_object_get(allocs, "allocs"), i, item) {
                bytes += has_word(item, "addressing", "none") ? 0 : number_of(item, "size");
                n_allocs++;
        }
        json_array_foreach(json_object_get(regions, "regions"), i, item)
                *(has_word(item, "addressing", "none") ? &anonymous : &held) += number_of(item, "size");
        fits = number_of(usage, "bytes") == bytes && number_of(usage, "allocs") == n_allocs &&
               number_of(usage, "held_bytes") == held && number_of(usage, "anonymous_bytes") == anonymous &&
               number_of(usage, "regions") == json_array_size(json_object_get(regions, "regions")) &&
               number_of(usage, "devices") == count(run, owner, DEVICE) &&
               number_of(usage, "pools") == count(run, owner, POOL) + count(run, owner, BOUNCE) &&
               number_of(usage, "leases") == count(run, owner, LEASE) &&
               number_of(usage, "mappings") == count(run, owner, MAPPING);
        json_decref(quota);
        json_decref(allocs);
        json_decref(regions);
        return fits;
}

static void check_reserved(struct run *run, const char *owner) {
        json_t *result = worker_ask(&run->admin, "region.list", "{\"owner\":\"%s\",\"limit\":10000}", owner);
        const struct object *object;
        json_t *item;
        size_t i, n = 0;

        json_array_foreach(json_object_get(result, "regions"), i, item) {
                object = find(run, owner, RESERVED, number_of(item, "region"));
                n += object != NULL;
                require(!object || number_of(item, "device") == object->parent->handle, owner, "a reserved region", item);
        }
        if (n != count(run, owner, RESERVED))
                give_up("%s: %zu reserved regions, and %zu were answered", owner, n, count(run, owner, RESERVED));
        json_decref(result);
}

/* ---- everybody's ---- */

struct span {
        uint64_t addr, size, handle;
};

static int by_addr(const void *a, const void *b) {
        const struct span *x = a, *y = b;

        return (x->addr > y->addr) - (x->addr < y->addr);
}

static void check_apart(struct run *run, const char *method, const char *array, const char *name) {
        json_t *result = worker_ask(&run->admin, method, "{\"limit\":10000}"), *item;
        const json_t *items = json_object_get(result, array), *at;
        struct span *spans = calloc(json_array_size(items) + 1, sizeof(*spans));
        size_t i, n = 0;

        json_array_foreach(items, i, item) {
                if (has_word(item, "addressing", "none"))
                        continue;
                at = json_object_get(item, "extents") ? json_array_get(json_object_get(item, "extents"), 0) : item;
                spans[n++] = (struct span){ hex_of(at, "machine_addr"), number_of(at, "size"), number_of(item, name) };
        }
        qsort(spans, n, sizeof(*spans), by_addr);
        for (i = 1; i < n; i++)
                if (spans[i - 1].addr + spans[i - 1].size > spans[i].addr)
                        give_up("%s: %" PRIu64 " and %" PRIu64 " overlap at 0x%" PRIx64, method, spans[i - 1].handle,
                                spans[i].handle, spans[i].addr);
        free(spans);
        json_decref(result);
}

/* Stock and regions are all that there was at first. */
static bool nothing_is_lost(struct run *run) {
        json_t *status = worker_ask(&run->admin, "broker.status", "{}");
        const json_t *source = json_array_get(json_object_get(status, "sources"), 0);
        uint64_t total = number_of(source, "total"), pending = number_of(source, "pending");
        uint64_t sum = number_of(source, "free") + number_of(source, "in_regions");

        if (!run->total)
                run->total = total;
        json_decref(status);
        return !pending && total == run->total && sum == total;
}

static void check_books(struct run *run) {
        json_t *result = worker_ask(&run->admin, "debug.check", "{}");
        char *text = json_dumps(json_object_get(result, "problems"), JSON_COMPACT);

        if (!json_is_true(json_object_get(result, "clean")))
                give_up("debug.check: %s", text);
        free(text);
        json_decref(result);
}

static bool is_first_of_owner(const struct run *run, unsigned worker) {
        unsigned i;

        for (i = 0; i < worker; i++)
                if (strcmp(run->workers[i].owner, run->workers[worker].owner) == 0)
                        return false;
        return true;
}

static void check(struct run *run) {
        const char *owner;
        unsigned i;
        size_t j;

        check_books(run);
        for (i = 0; i < N_WORKERS; i++) {
                worker_look(&run->workers[i]);
                owner = run->workers[i].owner;
                if (!is_first_of_owner(run, i))
                        continue;
                for (j = 0; j < sizeof(lists) / sizeof(*lists); j++)
                        check_list(run, owner, &lists[j]);
                check_reserved(run, owner);
        }
        check_apart(run, "coherent.list", "allocs", "alloc");
        check_apart(run, "region.list", "regions", "region");
        for (i = 0; i < N_WORKERS; i++) {
                until("what an owner is charged for", usage_fits(run, run->workers[i].owner));
        }
        until("stock and regions are all that there was", nothing_is_lost(run));
        run->checks++;
}

/* ---- rounds ---- */

static void work(struct run *run, uint64_t answers) {
        uint64_t n = 0;

        while (n < answers) {
                struct worker *worker = &run->workers[worker_random(&run->admin, N_WORKERS)];
                uint64_t depth = 1 + worker_random(&run->admin, 6);

                if (!worker->n_calls && worker_random(&run->admin, 150) == 0)
                        worker_bye(worker);
                else if (!worker->n_calls && worker_random(&run->admin, 150) == 0)
                        worker_vanish(worker);
                while (depth--)
                        worker_act(worker);
                if (!worker->n_calls)
                        continue;
                if (!worker_read(worker))
                        give_up("the daemon has gone by itself");
                n++;
        }
}

static size_t count_volumes(const struct run *run) {
        char path[160];
        glob_t found;
        size_t n;

        snprintf(path, sizeof(path), "%s/ledger.*", test_daemon_state(run->daemon));
        n = glob(path, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
        globfree(&found);
        return n;
}

static void end_daemon(struct run *run) {
        int r;

        spin(run, 400000);
        if (worker_random(&run->admin, 10) == 0) {
                r = test_daemon_stop(run->daemon);
                run->ends++;
        } else {
                r = test_daemon_kill(run->daemon);
                run->kills++;
        }
        if (r < 0)
                give_up("the daemon did not end as it should: %s", strerror(-r));
        run->rewrites += count_volumes(run) > 1;
}

/* Once more, and again, before it is ready. */
static void start_daemon(struct run *run) {
        while (worker_random(&run->admin, 6) == 0) {
                if (test_daemon_launch(run->daemon) < 0)
                        give_up("the daemon cannot be started");
                spin(run, 30000000);
                if (test_daemon_kill(run->daemon) < 0)
                        give_up("the daemon cannot be killed");
                run->kills++;
                run->early_kills++;
                run->rewrites += count_volumes(run) > 1;
        }
        if (test_daemon_start_again(run->daemon) < 0)
                give_up("the daemon does not start again");
}

static void round_once(struct run *run) {
        struct worker *worker;
        unsigned i;

        work(run, 1 + worker_random(&run->admin, ANSWERS_MAX));
        for (i = 0; i < N_WORKERS; i++)
                for (uint64_t n = worker_random(&run->admin, 5); n; n--)
                        worker_act(&run->workers[i]);
        end_daemon(run);
        for (i = 0; i < N_WORKERS; i++) {
                /* Whether what was answered last is read makes no difference. */
                if (worker_random(&run->admin, 2))
                        worker_drain(&run->workers[i]);
                worker_lose(&run->workers[i]);
        }
        worker_lose(&run->admin);
        start_daemon(run);
        for (worker = run->workers; worker < run->workers + N_WORKERS; worker++)
                worker_resume(worker);
        worker_connect(&run->admin);
        check(run);
}

/* ---- beginning and end ---- */

static void begin_worker(struct run *run, struct worker *worker, unsigned number, unsigned uid, uint64_t seed) {
        *worker = (struct worker){
                .number = number, .uid = uid, .random = (seed + number + 1) * UINT64_C(0x9e3779b97f4a7c15),
                .socket = test_daemon_socket(run->daemon), .counts = &run->counts,
        };
        snprintf(worker->owner, sizeof(worker->owner), "worker %u", number);
        worker_connect(worker);
}

static void begin(struct run *run, uint64_t seed) {
        const struct test_daemon_options options = {
                .source = run->source, .config = strcmp(run->source, "hugetlb") == 0 ? CONFIG_REAL : CONFIG,
                .survives = true, .open_directory = true,
        };
        unsigned i;

        if (test_daemon_start(&options, &run->daemon) < 0)
                give_up("the daemon does not start");
        /* Two sessions of each owner; without root all are of one. */
        for (i = 0; i < N_WORKERS; i++)
                begin_worker(run, &run->workers[i], i, geteuid() == 0 ? 1000 + i / 2 : UINT_MAX, seed);
        begin_worker(run, &run->admin, N_WORKERS, UINT_MAX, seed);
        until("the source has its memory", nothing_is_lost(run));
}

/* When everybody has said goodbye, nothing is left. */
static void end(struct run *run) {
        unsigned i;

        for (i = 0; i < N_WORKERS; i++)
                worker_free(&run->workers[i]);
        worker_free(&run->admin);
        if (test_daemon_end(run->daemon) < 0) {
                run->daemon = NULL;
                give_up("the daemon did not end as it should");
        }
}

static void tell(const struct run *run) {
        const struct counts *counts = &run->counts;

        printf("%s: %lu kills (%lu before the daemon was ready), %lu ends by SIGTERM, %lu deaths while the ledger was written "
               "anew, %lu checks\n", run->source, run->kills, run->early_kills, run->ends, run->rewrites, run->checks);
        printf("%s: %lu taken, %lu moved, %lu swapped, %lu released, %lu changed, %lu refused; %lu repeated, of which "
               "%lu releases had been done; %lu sessions, %lu that vanished\n", run->source, counts->taken, counts->moved,
               counts->swapped, counts->released,
               counts->changed, counts->refused, counts->resent, counts->done_before, counts->sessions, counts->vanished);
        printf("%s: %lu things looked at after a restart, and %lu words of their memory\n", run->source, counts->looked_at,
               counts->stamps);
}

static unsigned long number_from(const char *name, unsigned long otherwise) {
        const char *text = getenv(name);

        return text ? strtoul(text, NULL, 10) : otherwise;
}

static int run_on(const char *source, unsigned long kills) {
        struct run run = { .source = source };

        running = &run;
        begin(&run, number_from("SEED", 1));
        while (run.kills < kills)
                round_once(&run);
        tell(&run);
        end(&run);
        return 0;
}

/* In a process of its own: huge pages are reserved by a process, and before its first child. */
static int run_apart(const char *source, unsigned long kills) {
        int status, r;
        pid_t child;

        fflush(NULL);
        child = fork();
        if (child < 0)
                return 1;
        if (child == 0) {
                r = strcmp(source, "hugetlb") == 0 ? test_hugepages_reserve(HUGE_PAGES) : 0;
                if (r < 0)
                        printf("hugetlb: skipped, there are not %d huge pages to be had: %s\n", HUGE_PAGES, strerror(-r));
                exit(r < 0 ? 0 : run_on(source, kills));
        }
        if (waitpid(child, &status, 0) < 0)
                return 1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void) {
        const char *only = getenv("SOURCE");
        int status = 0;

        if (!only || strcmp(only, "sim") == 0)
                status = run_apart("sim", number_from("KILLS", KILLS_SIM));
        if (!status && (!only || strcmp(only, "hugetlb") == 0))
                status = run_apart("hugetlb", number_from("KILLS", KILLS_REAL));
        return status;
}
