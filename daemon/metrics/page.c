#include <config.h>

#include "daemon/metrics/page.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/guest/guests.h"
#include "daemon/rpc/latency.h"

enum { SOURCES_MAX = 16, COUNTERS_MAX = 64, OWNER_SIZE = 128, TABLES_MAX = 128, GRANT_KINDS = GRANT_SHARE + 1 };

struct counter {
        const char *name; /* the core's */
        uint64_t value;
        bool told;
};

struct owner_row {
        char name[OWNER_SIZE];
        struct quota usage, limits;
        struct guarantee guaranteed, unmet;
};

/* What the core tells is taken down first: the page goes by measure, not by object. */
struct page {
        const struct page_facts *facts;
        FILE *file;
        struct broker_counts counts;
        struct counter counters[COUNTERS_MAX];
        size_t n_counters;
        struct source_view sources[SOURCES_MAX];
        size_t n_sources;
        struct guest_table_view tables[TABLES_MAX];
        size_t n_tables;
        uint64_t grants[GRANT_KINDS], grant_pages[GRANT_KINDS]; /* beside windows */
        struct owner_row *owners; /* that have something */
        size_t n_owners, owners_capacity, n_owners_told;
        bool no_memory;
};

/* All samples of one name. What `at` means, write() knows. */
struct family {
        const char *name, *type, *help;
        void (*write)(struct page *page, const struct family *family);
        size_t at;
};

/* ---- the format ---- */

static void write_head(struct page *page, const char *name, const char *type, const char *help) {
        fprintf(page->file, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value may be anything, in which these three are escaped. */
static void write_escaped(struct page *page, const char *text) {
        for (; *text; text++) {
                if (*text == '\\' || *text == '"')
                        fputc('\\', page->file);
                if (*text == '\n')
                        fputs("\\n", page->file);
                else
                        fputc(*text, page->file);
        }
}

static void write_sample(struct page *page, const char *name, uint64_t value) {
        fprintf(page->file, "%s %" PRIu64 "\n", name, value);
}

static void write_labelled(struct page *page, const char *name, const char *label, const char *of, uint64_t value) {
        fprintf(page->file, "%s{%s=\"", name, label);
        write_escaped(page, of);
        if (value == UINT64_MAX)
                fputs("\"} +Inf\n", page->file);
        else
                fprintf(page->file, "\"} %" PRIu64 "\n", value);
}

static uint64_t member(const void *object, size_t offset) {
        return *(const uint64_t *)((const char *)object + offset);
}

/* ---- the process ---- */

static void write_build(struct page *page, const struct family *family) {
        write_labelled(page, family->name, "version", PACKAGE_VERSION, 1);
}

static void write_start(struct page *page, const struct family *family) {
        fprintf(page->file, "%s %.3f\n", family->name, page->facts->started);
}

static void write_cpu(struct page *page, const struct family *family) {
        struct rusage usage;

        getrusage(RUSAGE_SELF, &usage);
        fprintf(page->file, "%s %.6f\n", family->name,
                (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                        (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

static void write_resident(struct page *page, const struct family *family) {
        FILE *file = fopen("/proc/self/statm", "re");
        unsigned long long size, resident;

        if (!file)
                return;
        if (fscanf(file, "%llu %llu", &size, &resident) == 2)
                write_sample(page, family->name, resident * (uint64_t)sysconf(_SC_PAGESIZE));
        fclose(file);
}

/* ---- calls ---- */

static void write_server(struct page *page, const struct family *family) {
        write_sample(page, family->name, member(&page->facts->server->counters, family->at));
}

static void write_connections(struct page *page, const struct family *family) {
        write_sample(page, family->name, page->facts->server->n_connections);
}

static void write_latency(struct page *page, const char *name, const char *method, const struct latency *latency) {
        uint64_t seen = 0;

        for (int i = 0; i < LATENCY_BOUNDS; i++) {
                seen += latency->within[i];
                fprintf(page->file, "%s_bucket{method=\"%s\",le=\"%g\"} %" PRIu64 "\n", name, method,
                        (double)latency_bounds[i] / 1e9, seen);
        }
        fprintf(page->file, "%s_bucket{method=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, method, latency->count);
        fprintf(page->file, "%s_sum{method=\"%s\"} %" PRIu64 ".%09" PRIu64 "\n", name, method, latency->sum / 1000000000,
                latency->sum % 1000000000);
        fprintf(page->file, "%s_count{method=\"%s\"} %" PRIu64 "\n", name, method, latency->count);
}

static void write_latencies(struct page *page, const struct family *family) {
        for (size_t i = 0; i < METHOD_COUNT; i++)
                if (page->facts->server->latencies[i].count)
                        write_latency(page, family->name, protocol_table.methods[i].name,
                                      &page->facts->server->latencies[i]);
}

/* ---- memory ---- */

static void write_objects(struct page *page, const struct family *family) {
        static const struct {
                const char *kind;
                size_t offset;
        } kinds[] = {
#define KIND(name) { #name, offsetof(struct broker_counts, name) }
                KIND(owners), KIND(sessions), KIND(devices), KIND(regions), KIND(allocs),
                KIND(pools), KIND(bounces), KIND(leases), KIND(mappings), KIND(waiters),
#undef KIND
        };

        for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
                write_labelled(page, family->name, "kind", kinds[i].kind, member(&page->counts, kinds[i].offset));
}

/* family->at: where its name begins that the core has for it. */
static void write_counter(struct page *page, const struct family *family) {
        const char *name = family->name + family->at;

        for (size_t i = 0; i < page->n_counters; i++) {
                struct counter *counter = &page->counters[i];
                size_t length = strlen(counter->name);

                if (strncmp(name, counter->name, length) != 0 || (name[length] && strcmp(name + length, "_total") != 0))
                        continue;
                counter->told = true;
                write_sample(page, family->name, counter->value);
        }
}

static void write_host_pressure(struct page *page, const struct family *family) {
        enum pressure_level level;

        write_sample(page, family->name, broker_pressure(page->facts->server->broker, &level) && level == PRESSURE_HOST);
}

static void write_quarantined(struct page *page, const struct family *family) {
        write_sample(page, family->name, broker_quarantined(page->facts->server->broker));
}

static void write_anonymous(struct page *page, const struct family *family) {
        struct source_view view;

        if (broker_anonymous(page->facts->server->broker, &view))
                write_sample(page, family->name, family->at ? view.info.limit : view.total);
}

/* A counter of the core that the table below does not know is told all the same. */
static void write_other_counters(struct page *page) {
        for (size_t i = 0; i < page->n_counters; i++) {
                char name[96];

                if (page->counters[i].told)
                        continue;
                snprintf(name, sizeof(name), "dmabroker_%s_total", page->counters[i].name);
                write_head(page, name, "counter", "A counter of stats.get.");
                write_sample(page, name, page->counters[i].value);
        }
}

static void write_sources(struct page *page, const struct family *family) {
        for (size_t i = 0; i < page->n_sources; i++)
                write_labelled(page, family->name, "source", page->sources[i].info.name,
                               member(&page->sources[i], family->at));
}

static void write_readiness(struct page *page, const struct family *family) {
        const struct server_facts *facts = &page->facts->server->facts;

        for (size_t i = 0; i < facts->n_sources; i++)
                write_labelled(page, family->name, "source", facts->sources[i].name, facts->sources[i].ready);
}

static void write_simulated(struct page *page, const struct family *family) {
        for (size_t i = 0; i < page->n_sources; i++)
                write_labelled(page, family->name, "source", page->sources[i].info.name,
                               page->sources[i].info.flags & SOURCE_SIMULATED ? 1 : 0);
}

/* ---- grants ---- */

/* family->at: in struct guest_table_view. */
static void write_tables(struct page *page, const struct family *family) {
        char domain[16];

        for (size_t i = 0; i < page->n_tables; i++) {
                snprintf(domain, sizeof(domain), "%" PRIu32, page->tables[i].domain);
                write_labelled(page, family->name, "domain", domain, member(&page->tables[i], family->at));
        }
}

/* family->at: in struct page. */
static void write_grants(struct page *page, const struct family *family) {
        static const char *const kinds[GRANT_KINDS] = { [GRANT_MAP] = "map", [GRANT_SHARE] = "share" };
        const uint64_t *values = (const uint64_t *)((const char *)page + family->at);

        for (int kind = 0; kind < GRANT_KINDS; kind++)
                write_labelled(page, family->name, "kind", kinds[kind], values[kind]);
}

/* ---- owners ---- */

static void write_usage(struct page *page, const struct family *family) {
        for (size_t i = 0; i < page->n_owners_told; i++)
                write_labelled(page, family->name, "owner", page->owners[i].name, page->owners[i].usage.of[family->at]);
}

/* QUOTA_UNLIMITED is told as infinity. */
static void write_limits(struct page *page, const struct family *family) {
        for (size_t i = 0; i < page->n_owners_told; i++)
                write_labelled(page, family->name, "owner", page->owners[i].name, page->owners[i].limits.of[family->at]);
}

/* family->at: in struct owner_row. */
static void write_guarantee(struct page *page, const struct family *family) {
        for (size_t i = 0; i < page->n_owners_told; i++)
                write_labelled(page, family->name, "owner", page->owners[i].name, member(&page->owners[i], family->at));
}

static void write_owners_left_out(struct page *page, const struct family *family) {
        write_sample(page, family->name, page->n_owners - page->n_owners_told);
}

/* ---- the table ---- */

#define PREFIX "dmabroker_"
#define SERVER(member_, name_, help_) \
        { PREFIX name_ "_total", "counter", help_, write_server, offsetof(struct server_counters, member_) }
#define COUNTER(name_, help_) { PREFIX name_ "_total", "counter", help_, write_counter, sizeof(PREFIX) - 1 }
#define SOURCE(name_, member_, help_) \
        { PREFIX "source_" name_, "gauge", help_, write_sources, offsetof(struct source_view, member_) }
#define TABLE(name_, member_, help_) \
        { PREFIX "grants_" name_, "gauge", help_, write_tables, offsetof(struct guest_table_view, member_) }
#define USAGE(name_, text_) { PREFIX "owner_" #name_, "gauge", "What the owner has: " text_ ".", write_usage, QUOTA_##name_ },
#define GUARANTEE(name_, member_, help_) \
        { PREFIX "owner_" name_, "gauge", help_, write_guarantee, offsetof(struct owner_row, member_) }
#define MOST(name_, text_) \
        { PREFIX "owner_limit_" #name_, "gauge", "What the owner may have: " text_ ".", write_limits, QUOTA_##name_ },

static const struct family families[] = {
        { PREFIX "build_info", "gauge", "Always 1; the label is the daemon's version.", write_build },
        { "process_start_time_seconds", "gauge", "When the daemon started, since 1970.", write_start },
        { "process_cpu_seconds_total", "counter", "Processor time that the daemon has used.", write_cpu },
        { "process_resident_memory_bytes", "gauge", "Memory that the daemon has, what it hands out not counted.",
          write_resident },

        { PREFIX "connections", "gauge", "Connections to the daemon's socket.", write_connections },
        SERVER(accepted, "connections_accepted", "Connections that were accepted."),
        SERVER(refused, "connections_refused", "Connections that were refused: not permitted, or too many."),
        SERVER(cut_off, "connections_cut_off", "Connections that were cut off because their answers were not read."),
        SERVER(bytes_received, "rpc_received_bytes", "Bytes of requests."),
        SERVER(bytes_sent, "rpc_sent_bytes", "Bytes of answers and events."),
        SERVER(fds_sent, "rpc_sent_file_descriptors", "File descriptors that went with answers."),
        SERVER(calls, "rpc_calls", "Calls that were answered."),
        SERVER(throttled, "rpc_throttled", "Calls that were refused because their owner makes too many in a second."),
        SERVER(held_back, "connections_held_back",
               "How often a connection was not heard for a while, since it gets errors only."),
        SERVER(errors, "rpc_errors", "Calls that were answered with an error."),
        { PREFIX "rpc_duration_seconds", "histogram",
          "How long calls took until they were answered, waiting for memory included.", write_latencies },

        { PREFIX "objects", "gauge", "How many there are of everything that the daemon keeps books of.", write_objects },
        COUNTER("allocs", "Coherent allocations that were made."),
        COUNTER("alloc_failures", "Requests for memory that were refused, or waited in vain."),
        COUNTER("frees", "Coherent allocations that were freed."),
        COUNTER("waits", "Requests that had to wait for memory."),
        COUNTER("timeouts", "Requests whose time was over before there was memory."),
        COUNTER("cancels", "Requests that nobody waited for any more."),
        COUNTER("carves", "Regions that were cut out of a source's stock."),
        COUNTER("carve_failures", "Regions that could not be cut out of a source's stock."),
        COUNTER("restores", "Regions that went back to a source's stock."),
        COUNTER("grown_bytes", "Bytes that sources took from the system."),
        COUNTER("shrunk_bytes", "Bytes that sources gave back to the system."),
        COUNTER("zeroed_bytes", "Bytes that were zeroed before they were handed out."),
        { PREFIX "host_pressure", "gauge", "Whether the host wants memory back.", write_host_pressure },
        { PREFIX "quarantined_bytes", "gauge", "Bytes that rest, since a device may still write to them.", write_quarantined },
        { PREFIX "anonymous_held_bytes", "gauge", "Bytes of ordinary memory with what was swapped out.", write_anonymous },
        { PREFIX "anonymous_limit_bytes", "gauge", "Bytes of ordinary memory that may be used for that.", write_anonymous, 1 },
        { PREFIX "high_water_bytes", "gauge", "The most bytes that were ever allocated at a time.", write_counter,
          sizeof(PREFIX) - 1 },

        { PREFIX "source_ready", "gauge", "Whether the source serves memory.", write_readiness },
        { PREFIX "source_simulated", "gauge", "Whether the source's addresses are made up.", write_simulated },
        SOURCE("held_bytes", total, "Bytes that the source holds now."),
        SOURCE("free_bytes", free, "Bytes of these in stock."),
        SOURCE("region_bytes", in_regions, "Bytes of these in regions."),
        SOURCE("used_bytes", used, "Bytes of these in allocations."),
        SOURCE("largest_free_bytes", largest_free, "Bytes of the largest machine-contiguous piece of stock."),
        SOURCE("low_held_bytes", low_total, "Bytes that the source holds below 4 GiB."),
        SOURCE("low_free_bytes", low_free, "Bytes of stock below 4 GiB."),
        SOURCE("emergency_bytes", emergency, "Bytes that only requests of high priority may use."),
        SOURCE("available_bytes", info.available, "Bytes that the source may still get, as far as it can tell."),
        SOURCE("awaited_bytes", awaited, "Bytes that come back when guests that have them mapped have not."),
        SOURCE("lost_bytes", lost, "Bytes that did not come back, or came back where something already was."),
        SOURCE("jobs", pending, "Jobs of the source that are under way."),

        TABLE("entries", entries, "Pages that the grant table of the memory domain has entries for."),
        TABLE("granted", granted, "Pages of these that guests may map."),
        TABLE("in_use", mapped, "Pages that guests have mapped at this moment."),
        TABLE("revoking", revoking, "Pages that guests may not map any more, and still have mapped."),
        TABLE("free", free, "Pages that could be granted yet."),
        { PREFIX "grants_of_services", "gauge", "How many grants services have that guests made, or that were made for them.",
          write_grants, offsetof(struct page, grants) },
        { PREFIX "grants_of_services_pages", "gauge", "Pages of these.", write_grants, offsetof(struct page, grant_pages) },

        QUOTA_LIST(USAGE)
        QUOTA_LIST(MOST)
        GUARANTEE("guaranteed_bytes", guaranteed.bytes, "Memory that the owner can have whenever it asks."),
        GUARANTEE("guaranteed_low_bytes", guaranteed.low_bytes, "The same below 4 GiB, beside that."),
        GUARANTEE("unmet_bytes", unmet.bytes, "Memory of its guarantee that is not there yet."),
        GUARANTEE("unmet_low_bytes", unmet.low_bytes, "The same below 4 GiB."),
        { PREFIX "owners_left_out", "gauge", "Owners that have something and are not told, because there are too many.",
          write_owners_left_out },
};

/* A build without Xen tells nothing of it. */
#ifdef HAVE_XEN
static const bool knows_xen = true;
#else
static const bool knows_xen = false;
#endif

static bool is_of_xen(const struct family *family) {
        return family->write == write_tables || family->write == write_grants ||
               ((family->write == write_usage || family->write == write_limits) && family->at == QUOTA_grants);
}

/* ---- collecting ---- */

static int take_counter(const char *name, uint64_t value, void *userdata) {
        struct page *page = userdata;

        if (page->n_counters < COUNTERS_MAX)
                page->counters[page->n_counters++] = (struct counter){ .name = name, .value = value };
        return 0;
}

static int take_source(const struct source_view *view, void *userdata) {
        struct page *page = userdata;

        if (page->n_sources < SOURCES_MAX)
                page->sources[page->n_sources++] = *view;
        return 0;
}

static bool has_something(const struct owner_view *view) {
        for (int kind = 0; kind < QUOTA_KINDS; kind++)
                if (view->usage.of[kind])
                        return true;
        return view->guaranteed.bytes || view->guaranteed.low_bytes;
}

static int take_owner(const struct owner_view *view, void *userdata) {
        struct page *page = userdata;
        struct owner_row *row;

        if (!has_something(view))
                return 0;
        if (page->n_owners == page->owners_capacity) {
                size_t capacity = page->owners_capacity ? 2 * page->owners_capacity : 16;
                struct owner_row *owners = reallocarray(page->owners, capacity, sizeof(*owners));

                if (!owners) {
                        page->no_memory = true;
                        return -ENOMEM;
                }
                page->owners = owners;
                page->owners_capacity = capacity;
        }
        row = &page->owners[page->n_owners++];
        snprintf(row->name, sizeof(row->name), "%s", view->name);
        row->usage = view->usage;
        row->limits = view->limits;
        row->guaranteed = view->guaranteed;
        row->unmet = view->unmet;
        return 0;
}

static int compare_held(const void *one, const void *other) {
        const struct owner_row *a = one, *b = other;
        uint64_t x = a->usage.of[QUOTA_held_bytes], y = b->usage.of[QUOTA_held_bytes];

        return x > y ? -1 : x < y ? 1 : strcmp(a->name, b->name);
}

static int take_grant(const struct grant_view *view, void *userdata) {
        struct page *page = userdata;

        page->grants[view->kind]++;
        page->grant_pages[view->kind] += view->pages;
        return 0;
}

static void collect(struct page *page) {
        struct broker *broker = page->facts->server->broker;

        broker_counts(broker, &page->counts);
        broker_visit_counters(broker, take_counter, page);
        broker_visit_sources(broker, take_source, page);
        broker_visit_owners(broker, take_owner, page);
        page->n_tables = guests_look_tables(page->tables, TABLES_MAX);
        broker_visit_grants(broker, NULL, take_grant, page);
        if (page->n_owners)
                qsort(page->owners, page->n_owners, sizeof(*page->owners), compare_held);
        page->n_owners_told = page->n_owners < page->facts->owners_max ? page->n_owners : page->facts->owners_max;
}

int page_make(const struct page_facts *facts, char **ret_text, size_t *ret_length) {
        struct page page = { .facts = facts };
        char *text = NULL;
        size_t length;

        page.file = open_memstream(&text, &length);
        if (!page.file)
                return -ENOMEM;
        collect(&page);
        for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++) {
                /* How many calls are made in a second is for those to say who look at the counters of calls. */
                if (families[i].write == write_usage && families[i].at == QUOTA_calls_per_second)
                        continue;
                if (is_of_xen(&families[i]) && !knows_xen)
                        continue;
                write_head(&page, families[i].name, families[i].type, families[i].help);
                families[i].write(&page, &families[i]);
        }
        write_other_counters(&page);
        free(page.owners);
        page.no_memory |= ferror(page.file) != 0;
        if (fclose(page.file) || page.no_memory) {
                free(text);
                return -ENOMEM;
        }
        *ret_text = text;
        *ret_length = length;
        return 0;
}
