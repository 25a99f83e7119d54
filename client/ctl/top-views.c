#include "client/ctl/top-views.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define N(array) (sizeof(array) / sizeof(*(array)))

enum {
        PAGE_ROWS = 1000, /* of a list, to be asked for at a time */
        PAGES = 10,       /* and so often: nobody reads more on a screen */
};

/* ---- the views ---- */

static const struct show_column source_columns[] = {
        { "SOURCE", "name" },
        { "STATE", "state" },
        { "USED", "used", SHOW_BYTES },
        { "CAPACITY", "capacity", SHOW_BYTES },
        { "USE", "used_percent", SHOW_BAR },
        { "HIGH", "high_water", SHOW_BYTES },
        { "CHANGE/S", "change_per_second", SHOW_RATE },
        { "FREE", "free", SHOW_BYTES },
        { "LARGEST-FREE", "largest_free", SHOW_BYTES },
        { "REGIONS", "in_regions", SHOW_BYTES },
        { "LOW-FREE", "low_free", SHOW_BYTES },
        { "TOTAL", "total", SHOW_BYTES },
        { "ADDRESSING", "addressing" },
};

static const struct show_column owner_columns[] = {
        { "OWNER", "owner", SHOW_NAME },
        { "BYTES", "bytes", SHOW_BYTES },
        { "USE", "used_percent", SHOW_BAR },
        { "HIGH", "high_water", SHOW_BYTES },
        { "CHANGE/S", "change_per_second", SHOW_RATE },
        { "ALLOCS", "allocs", SHOW_NUMBER },
        { "HELD", "held_bytes", SHOW_BYTES },
        { "LOW", "low_bytes", SHOW_BYTES },
        { "DEVICES", "devices", SHOW_NUMBER },
        { "POOLS", "pools", SHOW_NUMBER },
        { "LEASES", "leases", SHOW_NUMBER },
        { "MAPPINGS", "mappings", SHOW_NUMBER },
        { "WAITERS", "waiters", SHOW_NUMBER },
        { "CONNECTIONS", "connections", SHOW_NUMBER },
};

static const struct show_column device_columns[] = {
        { "DEVICE", "device", SHOW_NUMBER },
        { "NAME", "name", SHOW_NAME },
        { "OWNER", "owner" },
        { "BYTES", "bytes", SHOW_BYTES },
        { "USE", "used_percent", SHOW_BAR },
        { "HIGH", "high_water", SHOW_BYTES },
        { "CHANGE/S", "change_per_second", SHOW_RATE },
        { "ALLOCS", "allocs", SHOW_NUMBER },
        { "RESERVED", "reserved_bytes", SHOW_BYTES },
        { "TRANSLATION", "translation" },
        { "VIA", "via", SHOW_NAME },
};

static const struct show_column pool_columns[] = {
        { "POOL", "pool", SHOW_NUMBER },
        { "NAME", "name", SHOW_NAME },
        { "SIZE", "block_size", SHOW_BYTES },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "BLOCKS", "blocks", SHOW_NUMBER },
        { "USE", "used_percent", SHOW_BAR },
        { "HIGH", "high_water", SHOW_NUMBER },
        { "ALLOCS/S", "allocs_per_second", SHOW_RATE },
        { "FREES/S", "frees_per_second", SHOW_RATE },
        { "BYTES/S", "bytes_per_second", SHOW_BYTES },
        { "FAILURES/S", "failures_per_second", SHOW_RATE },
        { "LEASED", "leased", SHOW_NUMBER },
        { "RESERVE", "reserve", SHOW_NUMBER },
        { "QUARANTINED", "quarantined", SHOW_NUMBER },
        { "WAITERS", "waiters", SHOW_NUMBER },
        { "OWNER", "owner" },
        { "DEVICE", "device_name", SHOW_NAME },
};

static const struct show_column bounce_columns[] = {
        { "BOUNCE", "bounce", SHOW_NUMBER },
        { "DEVICE", "device_name", SHOW_NAME },
        { "SLOT", "slot_size", SHOW_BYTES },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "SLOTS", "slots", SHOW_NUMBER },
        { "USE", "used_percent", SHOW_BAR },
        { "HIGH", "high_water", SHOW_NUMBER },
        { "MAPS/S", "maps_per_second", SHOW_RATE },
        { "UNMAPS/S", "unmaps_per_second", SHOW_RATE },
        { "SYNCS/S", "syncs_per_second", SHOW_RATE },
        { "FULLS/S", "fulls_per_second", SHOW_RATE },
        { "LEASED", "leased", SHOW_NUMBER },
        { "LARGEST-FREE", "largest_free", SHOW_NUMBER },
        { "QUARANTINED", "quarantined", SHOW_NUMBER },
        { "WAITERS", "waiters", SHOW_NUMBER },
        { "OWNER", "owner" },
};

static const struct show_column call_columns[] = {
        { "METHOD", "method" },
        { "CALLS/S", "calls_per_second", SHOW_RATE },
        { "CALLS", "count", SHOW_NUMBER },
        { "MEAN-US", "mean_us", SHOW_NUMBER },
        { "P50-US", "p50_us", SHOW_NUMBER },
        { "P99-US", "p99_us", SHOW_NUMBER },
        { "MAX-US", "max_us", SHOW_NUMBER },
};

enum { SOURCES, OWNERS, DEVICES, POOLS, BOUNCES, CALLS };

const struct top_view top_views[TOP_VIEWS] = {
        [SOURCES] = { "sources", "where memory comes from", "name", source_columns, N(source_columns), 2 },
        [OWNERS] = { "owners", "who has it", "owner", owner_columns, N(owner_columns), 1 },
        [DEVICES] = { "devices", "for which devices", "device", device_columns, N(device_columns), 3 },
        [POOLS] = { "pools", "pools of blocks", "pool", pool_columns, N(pool_columns), 3 },
        [BOUNCES] = { "bounces", "bounce pools", "bounce", bounce_columns, N(bounce_columns), 3 },
        [CALLS] = { "calls", "the protocol's methods", "method", call_columns, N(call_columns), 1 },
};

size_t top_view_find(const char *name) {
        size_t i = 0;

        while (i < TOP_VIEWS && strcmp(top_views[i].name, name))
                i++;
        return i;
}

size_t top_column_find(const struct top_view *view, const char *title) {
        size_t i = 0;

        while (i < view->n_columns && strcasecmp(view->columns[i].title, title))
                i++;
        return i;
}

/* ---- asking ---- */

static int ask(dmab_t *dmab, const char *method, json_t *params, json_t **ret) {
        char *text = params ? json_dumps(params, JSON_COMPACT) : NULL, *answer = NULL;
        int r = dmab_call(dmab, method, text, &answer);

        if (!r) {
                *ret = json_loads(answer, JSON_DECODE_ANY, NULL);
                r = *ret ? 0 : -EPROTO;
        }
        free(answer);
        free(text);
        json_decref(params);
        return r;
}

/* The first PAGES pages of a list. */
static int ask_list(dmab_t *dmab, const char *method, const char *items, const char *handle, json_t *sample) {
        json_t *rows = json_array();
        uint64_t after = 0;
        bool more = true;
        int r = 0;

        for (int page = 0; page < PAGES && more && !r; page++) {
                json_t *answer, *list;

                r = ask(dmab, method, json_pack("{s:I, s:i}", "after", (json_int_t)after, "limit", PAGE_ROWS), &answer);
                if (r)
                        break;
                list = json_object_get(answer, items);
                after = show_uint(json_array_get(list, json_array_size(list) - 1), handle);
                more = json_is_true(json_object_get(answer, "more")) && after;
                json_array_extend(rows, list);
                json_decref(answer);
        }
        json_object_set_new(sample, items, rows);
        return r;
}

static double now(clockid_t clock) {
        struct timespec time;

        clock_gettime(clock, &time);
        return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int top_sample(dmab_t *dmab, json_t **ret) {
        json_t *sample = json_pack("{s:f}", "at", now(CLOCK_MONOTONIC)), *answer;
        int r = ask(dmab, "broker.status", NULL, &answer);

        if (!r) {
                json_object_set_new(sample, "status", answer);
                r = ask(dmab, "stats.get", NULL, &answer);
        }
        if (!r) {
                json_object_set_new(sample, "stats", answer);
                r = ask_list(dmab, "device.list", "devices", "device", sample);
        }
        if (!r)
                r = ask_list(dmab, "pool.list", "pools", "pool", sample);
        if (!r)
                r = ask_list(dmab, "bounce.list", "bounces", "bounce", sample);
        if (r)
                json_decref(sample);
        else
                *ret = sample;
        return r;
}

/* ---- comparing with before ---- */

struct comparison {
        json_t *before; /* the earlier refresh, or NULL */
        double seconds; /* since then */
        uint64_t capacity; /* bytes of all sources */
};

static json_t *find_group(json_t *sample, const char *name) {
        json_t *group;
        size_t i;

        json_array_foreach(json_object_get(json_object_get(sample, "stats"), "groups"), i, group)
                if (!strcmp(json_string_value(json_object_get(group, "name")), name))
                        return group;
        return NULL;
}

static uint64_t counter(json_t *group, const char *name) {
        json_t *row;
        size_t i;

        json_array_foreach(json_object_get(group, "counters"), i, row)
                if (!strcmp(json_string_value(json_object_get(row, "name")), name))
                        return show_uint(row, "value");
        return 0;
}

static double round_rate(double rate) {
        return (double)(int64_t)(rate * 100 + (rate < 0 ? -0.5 : 0.5)) / 100;
}

/* row[rate] is how much row[name] has grown in a second. What was not there before has counted since then; a counter that
 * has become less was reset, or is another daemon's. */
static void put_rate(const struct comparison *comparison, json_t *row, json_t *earlier, const char *name,
                     const char *rate) {
        uint64_t value = show_uint(row, name), was = show_uint(earlier, name);

        if (!comparison->before || comparison->seconds <= 0)
                return;
        json_object_set_new(row, rate,
                            json_real(value > was ? round_rate((double)(value - was) / comparison->seconds) : 0));
}

/* What may fall as well as rise. */
static void put_change(const struct comparison *comparison, json_t *row, json_t *earlier, const char *name) {
        double change = (double)show_uint(row, name) - (double)show_uint(earlier, name);

        if (comparison->before && comparison->seconds > 0)
                json_object_set_new(row, "change_per_second", json_real(round_rate(change / comparison->seconds)));
}

/* The most that row[name] has been while this program watched. */
static void put_mark(json_t *row, json_t *earlier, const char *name) {
        uint64_t value = show_uint(row, name), high = show_uint(earlier, "high_water");

        json_object_set_new(row, "high_water", json_integer((json_int_t)(value > high ? value : high)));
}

/* ---- the rows of each view ---- */

static json_t *source_rows(json_t *sample) {
        return json_incref(json_object_get(json_object_get(sample, "status"), "sources"));
}

static void finish_source(const struct comparison *comparison, json_t *row, json_t *earlier) {
        uint64_t capacity = show_uint(row, "total") + show_uint(row, "available");

        json_object_set_new(row, "capacity", json_integer((json_int_t)capacity));
        put_mark(row, earlier, "used");
        show_put_use(row, show_uint(row, "used"), show_uint(row, "high_water"), capacity);
        put_change(comparison, row, earlier, "used");
}

/* The daemon's counters of owners are called OWNER.WHAT, one owner's behind each other. */
static json_t *owner_rows(json_t *sample) {
        json_t *rows = json_array(), *row, *last = NULL;
        size_t i;

        json_array_foreach(json_object_get(find_group(sample, "owners"), "counters"), i, row) {
                const char *name = json_string_value(json_object_get(row, "name")), *dot = strrchr(name, '.');
                const char *owner = json_string_value(json_object_get(last, "owner"));

                if (!dot)
                        continue;
                if (!owner || strlen(owner) != (size_t)(dot - name) || strncmp(owner, name, dot - name)) {
                        last = json_pack("{s:s%}", "owner", name, (size_t)(dot - name));
                        json_array_append_new(rows, last);
                }
                json_object_set(last, dot + 1, json_object_get(row, "value"));
        }
        return rows;
}

static void finish_bytes(const struct comparison *comparison, json_t *row, json_t *earlier) {
        put_mark(row, earlier, "bytes");
        show_put_use(row, show_uint(row, "bytes"), show_uint(row, "high_water"), comparison->capacity);
        put_change(comparison, row, earlier, "bytes");
}

static json_t *device_rows(json_t *sample) {
        return json_incref(json_object_get(sample, "devices"));
}

static json_t *pool_rows(json_t *sample) {
        return json_incref(json_object_get(sample, "pools"));
}

static void put_in_use(json_t *row, const char *total) {
        uint64_t in_use = show_uint(row, "used") + show_uint(row, "leased");

        json_object_set_new(row, "in_use", json_integer((json_int_t)in_use));
        show_put_use(row, in_use, show_uint(row, "high_water"), show_uint(row, total));
}

static void finish_pool(const struct comparison *comparison, json_t *row, json_t *earlier) {
        double bytes;

        put_in_use(row, "blocks");
        put_rate(comparison, row, earlier, "allocs", "allocs_per_second");
        put_rate(comparison, row, earlier, "frees", "frees_per_second");
        put_rate(comparison, row, earlier, "failures", "failures_per_second");
        bytes = json_number_value(json_object_get(row, "allocs_per_second")) * (double)show_uint(row, "block_size");
        if (json_object_get(row, "allocs_per_second"))
                json_object_set_new(row, "bytes_per_second", json_integer((json_int_t)bytes));
}

static json_t *bounce_rows(json_t *sample) {
        return json_incref(json_object_get(sample, "bounces"));
}

static void finish_bounce(const struct comparison *comparison, json_t *row, json_t *earlier) {
        put_in_use(row, "slots");
        put_rate(comparison, row, earlier, "maps", "maps_per_second");
        put_rate(comparison, row, earlier, "unmaps", "unmaps_per_second");
        put_rate(comparison, row, earlier, "syncs", "syncs_per_second");
        put_rate(comparison, row, earlier, "fulls", "fulls_per_second");
}

static json_t *call_rows(json_t *sample) {
        return json_incref(json_object_get(find_group(sample, "rpc"), "latencies"));
}

static void finish_call(const struct comparison *comparison, json_t *row, json_t *earlier) {
        put_rate(comparison, row, earlier, "count", "calls_per_second");
}

static const struct rows {
        json_t *(*get)(json_t *sample);
        void (*finish)(const struct comparison *comparison, json_t *row, json_t *earlier);
} rows_of[TOP_VIEWS] = {
        [SOURCES] = { source_rows, finish_source }, [OWNERS] = { owner_rows, finish_bytes },
        [DEVICES] = { device_rows, finish_bytes },  [POOLS] = { pool_rows, finish_pool },
        [BOUNCES] = { bounce_rows, finish_bounce }, [CALLS] = { call_rows, finish_call },
};

/* ---- a refresh ---- */

static const char *row_key(const struct top_view *view, json_t *row, char buffer[SHOW_SIZE]) {
        return show_member(row, view->key, buffer);
}

static json_t *index_rows(const struct top_view *view, json_t *refresh) {
        json_t *index = json_object(), *row;
        char buffer[SHOW_SIZE];
        size_t i;

        json_array_foreach(json_object_get(refresh, view->name), i, row)
                json_object_set(index, row_key(view, row, buffer), row);
        return index;
}

static void add_view(const struct comparison *comparison, size_t which, json_t *sample, json_t *refresh) {
        const struct top_view *view = &top_views[which];
        json_t *rows = rows_of[which].get(sample), *index = index_rows(view, comparison->before), *row;
        char buffer[SHOW_SIZE];
        size_t i;

        if (!rows)
                rows = json_array();
        json_array_foreach(rows, i, row)
                rows_of[which].finish(comparison, row, json_object_get(index, row_key(view, row, buffer)));
        json_object_set_new(refresh, view->name, rows);
        json_decref(index);
}

/* How much of something all rows of a view do in a second. */
static void sum_rates(json_t *refresh, size_t which, const char *rate, json_t *totals, const char *sum) {
        double rates = 0;
        json_t *row;
        size_t i;

        json_array_foreach(json_object_get(refresh, top_views[which].name), i, row)
                rates += json_number_value(json_object_get(row, rate));
        if (json_object_get(refresh, "seconds"))
                json_object_set_new(totals, sum, json_real(round_rate(rates)));
}

/* What is asked about the daemon as a whole, from counters of three groups. */
static json_t *make_totals(const struct comparison *comparison, json_t *sample) {
        static const struct total {
                const char *group, *counter, *rate; /* rate NULL: none */
        } counted[] = {
                { "rpc", "calls", "calls_per_second" },
                { "rpc", "errors", "errors_per_second" },
                { "rpc", "bytes_received", "received_per_second" },
                { "rpc", "bytes_sent", "sent_per_second" },
                { "memory", "allocs", "allocs_per_second" },
                { "memory", "frees", "frees_per_second" },
                { "memory", "alloc_failures", "failures_per_second" },
                { "memory", "grown_bytes", "grown_per_second" },
                { "memory", "high_water_bytes", NULL },
        };
        json_t *totals = json_object(), *earlier = json_object_get(comparison->before, "totals");

        for (size_t i = 0; i < N(counted); i++) {
                uint64_t value = counter(find_group(sample, counted[i].group), counted[i].counter);

                json_object_set_new(totals, counted[i].counter, json_integer((json_int_t)value));
                if (counted[i].rate)
                        put_rate(comparison, totals, earlier, counted[i].counter, counted[i].rate);
        }
        return totals;
}

static void sum_sources(json_t *sample, uint64_t *ret_capacity, uint64_t *ret_used) {
        json_t *source;
        size_t i;

        json_array_foreach(json_object_get(json_object_get(sample, "status"), "sources"), i, source) {
                *ret_capacity += show_uint(source, "total") + show_uint(source, "available");
                *ret_used += show_uint(source, "used");
        }
}

json_t *top_refresh(json_t *sample, json_t *before) {
        json_t *status = json_object_get(sample, "status"), *totals;
        struct comparison comparison = { .before = before };
        double at = json_number_value(json_object_get(sample, "at"));
        json_t *refresh = json_pack("{s:I, s:f}", "time_ms", (json_int_t)(now(CLOCK_REALTIME) * 1000), "at", at);
        uint64_t used = 0;

        if (before) {
                comparison.seconds = at - json_number_value(json_object_get(before, "at"));
                json_object_set_new(refresh, "seconds", json_real(round_rate(comparison.seconds)));
        }
        sum_sources(sample, &comparison.capacity, &used);
        json_object_set(refresh, "server", json_object_get(status, "server"));
        json_object_set(refresh, "version", json_object_get(status, "version"));
        json_object_set(refresh, "uptime_ms", json_object_get(status, "uptime_ms"));
        json_object_set(refresh, "addressing", json_object_get(status, "addressing"));
        json_object_set(refresh, "counts", json_object_get(status, "counts"));
        totals = make_totals(&comparison, sample);
        json_object_set_new(totals, "used", json_integer((json_int_t)used));
        json_object_set_new(totals, "capacity", json_integer((json_int_t)comparison.capacity));
        show_put_use(totals, used, show_uint(totals, "high_water_bytes"), comparison.capacity);
        json_object_set_new(refresh, "totals", totals);
        for (size_t i = 0; i < TOP_VIEWS; i++)
                add_view(&comparison, i, sample, refresh);
        sum_rates(refresh, POOLS, "allocs_per_second", totals, "blocks_per_second");
        sum_rates(refresh, BOUNCES, "maps_per_second", totals, "maps_per_second");
        json_decref(sample);
        return refresh;
}

/* ---- order ---- */

struct place {
        json_t *row;
        size_t index;
};

struct order {
        const char *member;
        bool reversed;
};

static int compare_places(const void *left, const void *right, void *userdata) {
        const struct place *l = left, *r = right;
        const struct order *order = userdata;
        json_t *a = json_object_get(l->row, order->member), *b = json_object_get(r->row, order->member);
        int sign = order->reversed ? -1 : 1;

        if (json_is_string(a) && json_is_string(b) && strcmp(json_string_value(a), json_string_value(b)))
                return sign * strcmp(json_string_value(a), json_string_value(b));
        if (json_number_value(a) != json_number_value(b))
                return json_number_value(a) > json_number_value(b) ? -sign : sign;
        return l->index < r->index ? -1 : 1;
}

json_t *top_sort(json_t *refresh, const struct top_view *view, size_t column, bool reversed) {
        struct order order = { .member = view->columns[column].member, .reversed = reversed };
        json_t *rows = json_object_get(refresh, view->name), *sorted = json_array();
        size_t n = json_array_size(rows);
        struct place *places = calloc(n + 1, sizeof(*places));

        if (!places)
                return json_incref(rows);
        for (size_t i = 0; i < n; i++)
                places[i] = (struct place){ .row = json_array_get(rows, i), .index = i };
        qsort_r(places, n, sizeof(*places), compare_places, &order);
        for (size_t i = 0; i < n; i++)
                json_array_append(sorted, places[i].row);
        free(places);
        return sorted;
}
