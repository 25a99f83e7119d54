#include <config.h>

#include "daemon/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "daemon/guest/place.h"
#include "daemon/iommu/none.h"
#include "daemon/iommu/vfio.h"
#include "daemon/ledger.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/pressure.h"
#include "daemon/source/keep.h"
#include "daemon/source/sources.h"

/* What a guest lets go of, or has taken from it, within this time is not worth a line. */
enum { AWAITED_MS = 3000 };

struct feed {
        struct source *source;
        uv_poll_t poll;
        uint64_t awaited_since; /* 0: nothing is */
        bool told_awaited;
};

struct memory {
        uv_loop_t *loop;
        struct memory_past past;
        struct broker *broker;
        struct pressure *pressure;
        struct feed feeds[CONFIG_SOURCES_MAX + 1]; /* those that were picked, and the anonymous one */
        size_t n_feeds;
        bool some_returns; /* SOURCE_RETURNS */
        uv_timer_t timer;
        uv_prepare_t prepare;
        uint64_t armed; /* the deadline that the timer is set to */
        void (*settled)(void *userdata);
        void *userdata;

        struct server_source_note source_notes[CONFIG_SOURCES_MAX];
        const char *notes[CONFIG_SOURCES_MAX];
        struct server_facts facts;
};

/* ---- the loop ---- */

static uint64_t now_ms(void *userdata) {
        return uv_now(userdata);
}

static void on_completion(uv_poll_t *handle, int status, int events) {
        struct feed *feed = handle->data;

        feed->source->ops->dispatch(feed->source);
}

static struct feed *find_feed(struct memory *memory, const char *name) {
        for (struct feed *feed = memory->feeds; feed < memory->feeds + memory->n_feeds; feed++)
                if (strcmp(feed->source->ops->name, name) == 0)
                        return feed;
        return NULL;
}

/* Memory that guests have still: once when they keep it, and once when it is back. */
static int tell_awaited(const struct source_view *view, void *userdata) {
        struct memory *memory = userdata;
        struct feed *feed = find_feed(memory, view->info.name);
        const uint64_t now = uv_now(memory->loop);

        if (!view->awaited) {
                if (feed->told_awaited)
                        log_info("all of the source %s's memory that guests had still is back", view->info.name);
                feed->awaited_since = 0;
                feed->told_awaited = false;
        } else if (!feed->awaited_since) {
                feed->awaited_since = now;
        } else if (!feed->told_awaited && now - feed->awaited_since >= AWAITED_MS) {
                feed->told_awaited = true;
                log_warning("%llu bytes of the source %s are not used again as long as guests have them: domain %llu has some "
                            "mapped still, or is just being destroyed, or has not run since",
                            (unsigned long long)view->awaited, view->info.name, (unsigned long long)view->info.awaited_of);
        }
        return 0;
}

static void on_timer(uv_timer_t *timer) {
        struct memory *memory = timer->data;

        memory->armed = UINT64_MAX;
        broker_tick(memory->broker);
        if (memory->some_returns)
                broker_visit_sources(memory->broker, tell_awaited, memory);
}

/* A promise of the configuration is kept as far as it can be. */
static void warn_of_promises(const struct memory *memory, bool granted) {
        struct promises promises;

        broker_promises(memory->broker, granted, &promises);
        if (promises.guaranteed.low_bytes > promises.possible.low_bytes)
                log_warning("%llu bytes below 4 GiB are guaranteed in the configuration, but there are only %llu",
                            (unsigned long long)promises.guaranteed.low_bytes,
                            (unsigned long long)promises.possible.low_bytes);
        if (promises.guaranteed.bytes + promises.guaranteed.low_bytes > promises.possible.bytes)
                log_warning("%llu bytes are guaranteed in the configuration, but the sources can have only %llu",
                            (unsigned long long)(promises.guaranteed.bytes + promises.guaranteed.low_bytes),
                            (unsigned long long)promises.possible.bytes);
}

/* Before each wait: nearly every call may have moved the broker's deadline. */
static void on_prepare(uv_prepare_t *prepare) {
        struct memory *memory = prepare->data;
        uint64_t deadline = broker_deadline(memory->broker), now = uv_now(memory->loop);

        if (memory->settled && broker_settled(memory->broker)) {
                void (*settled)(void *userdata) = memory->settled;

                warn_of_promises(memory, false);
                warn_of_promises(memory, true);
                memory->settled = NULL;
                settled(memory->userdata);
        }
        if (deadline == memory->armed)
                return;
        memory->armed = deadline;
        if (deadline == UINT64_MAX)
                uv_timer_stop(&memory->timer);
        else
                uv_timer_start(&memory->timer, on_timer, deadline > now ? deadline - now : 0, 0);
}

static void on_pressure(void *userdata, bool is_short) {
        struct memory *memory = userdata;

        broker_press(memory->broker, is_short);
}

/* ---- opening ---- */

static struct server_source_note *add_note(struct memory *memory, const struct source_ops *ops, bool ready) {
        struct server_source_note *note = &memory->source_notes[memory->facts.n_sources++];

        note->name = ops->name;
        note->ready = ready;
        note->simulated = strcmp(ops->name, "sim") == 0;
        memory->notes[memory->facts.n_notes++] = note->why;
        return note;
}

static int open_source(struct memory *memory, const struct config_source *config, const char *why,
                       struct failure *failure) {
        const struct log_field fields[] = {
                { "MESSAGE_ID", LOG_ID_SERVES },
                { "DMABROKER_SOURCE", config->ops->name },
                { NULL, NULL },
        };
        struct feed *feed = &memory->feeds[memory->n_feeds];
        char text[sizeof(memory->source_notes[0].why)];
        struct source_info info;
        int r;

        r = config->ops->open(config->options, config->n_options, memory->past.keep, &feed->source, failure);
        if (r < 0)
                return r;
        config->ops->describe(feed->source, &info);
        snprintf(text, sizeof(text), "The source %s serves%s: %s", config->ops->name, why,
                 info.about ? info.about : config->ops->doc);
        if (!(info.flags & SOURCE_ANONYMOUS))
                strcpy(add_note(memory, config->ops, true)->why, text);
        log_fields(LOG_LEVEL_INFO, fields, "%s", text);
        feed->poll.data = feed;
        r = uv_poll_init(memory->loop, &feed->poll, config->ops->event_fd(feed->source));
        if (r < 0) {
                source_let_go(feed->source);
                return failure_set_errno(failure, REASON_source_unavailable, -r, "the source %s cannot be waited for: %s",
                                         config->ops->name, uv_strerror(r));
        }
        memory->n_feeds++;
        memory->some_returns |= (info.flags & SOURCE_RETURNS) != 0;
        r = loop_watch(&feed->poll, UV_READABLE, on_completion);
        /* The core closes it, also when it refuses it. */
        if (r == 0)
                r = broker_add_source(memory->broker, feed->source);
        else
                source_let_go(feed->source);
        if (r < 0) {
                uv_poll_stop(&feed->poll);
                return failure_set_errno(failure, REASON_source_unavailable, -r, "the source %s cannot be used: %s",
                                         config->ops->name, strerror(-r));
        }
        return 0;
}

static const struct config_source *find_source(const struct config *config, const char *name) {
        for (size_t i = 0; i < config->n_sources; i++)
                if (strcmp(config->sources[i].ops->name, name) == 0)
                        return &config->sources[i];
        return NULL;
}

static int stop_visit(void *userdata, const char *name) {
        return 1;
}

/* Whether an earlier daemon has left memory of this source that nobody has taken. */
static bool is_kept(const struct memory *memory, const struct source_ops *ops) {
        char prefix[KEEP_NAME_MAX];

        if (ops->is_kept)
                return ops->is_kept();
        snprintf(prefix, sizeof(prefix), "%s-", ops->name);
        return keep_visit(memory->past.keep, prefix, stop_visit, NULL) > 0;
}

/* Nobody said which. Memory that somebody may use is not left alone for a simulation. */
static int choose(struct memory *memory, const struct config *config, struct failure *failure) {
        const struct config_source *real = find_source(config, "hugetlb"), *sim = find_source(config, "sim");
        bool must_be_real = real && is_kept(memory, real->ops);
        struct failure why = { 0 };

        if (real && open_source(memory, real, ", since nothing else is configured", &why) == 0)
                return 0;
        if (must_be_real) {
                *failure = why;
                return -why.error;
        }
        if (real) {
                snprintf(add_note(memory, real->ops, false)->why, sizeof(memory->source_notes[0].why),
                         "The source hugetlb does not serve: %s", why.sentence);
                log_warning("hugetlb cannot serve, so memory is simulated: %s", why.sentence);
        }
        return open_source(memory, sim, ", since hugetlb cannot", failure);
}

/* Whoever looks for it finds out why this machine cannot have it. */
static void note_absent(struct memory *memory, const struct config *config) {
        for (size_t i = 0; i < config->n_sources; i++) {
                const struct source_ops *ops = config->sources[i].ops;
                struct failure why = { 0 };

                if (ops->probe && ops->probe(&why) < 0)
                        snprintf(add_note(memory, ops, false)->why, sizeof(memory->source_notes[0].why),
                                 "The source %s cannot serve here: %s", ops->name, why.sentence);
        }
}

static int open_sources(struct memory *memory, const struct config *config, const char *names, struct failure *failure) {
        const struct config_source *picked[CONFIG_SOURCES_MAX];
        size_t n;
        int r;

        r = config_pick_sources(config, names, picked, &n, failure);
        if (r < 0)
                return r;
        if (!n)
                r = choose(memory, config, failure);
        for (size_t i = 0; i < n && r == 0; i++)
                r = open_source(memory, picked[i], names ? ", as --source says" : ", as configured", failure);
        if (r == 0)
                note_absent(memory, config);
        return r == 0 ? open_source(memory, find_source(config, source_anonymous_ops.name), " beside", failure) : r;
}

static bool serves(const struct memory *memory, const struct source_ops *ops) {
        for (size_t i = 0; i < memory->n_feeds; i++)
                if (memory->feeds[i].source->ops == ops)
                        return true;
        return false;
}

/* A source that serves no more, and of which the ledger knows nothing either, gives back what was kept of it; but not when
 * the ledger may have forgotten some. */
static void give_up_others(struct memory *memory, const struct config *config) {
        struct broker_loaded loaded;

        broker_loaded(memory->broker, &loaded);
        for (size_t i = 0; i < config->n_sources; i++) {
                const struct config_source *other = &config->sources[i];
                struct failure why = { 0 };
                struct source *source;

                /* One that serves has not looked at all of it yet. */
                if (loaded.withheld || serves(memory, other->ops) || !is_kept(memory, other->ops))
                        continue;
                if (other->ops->open(other->options, other->n_options, memory->past.keep, &source, &why) < 0) {
                        log_warning("memory of the source %s is kept from an earlier daemon, and cannot be given back: %s",
                                    other->ops->name, why.sentence);
                        continue;
                }
                other->ops->close(source);
                log_warning("memory of the source %s was kept from an earlier daemon, but it does not serve any more: given back",
                            other->ops->name);
        }
}

/* ---- configuration ---- */

/* What is left of the descriptors when every connection is there; a region takes two, its file and its pin. */
static uint64_t files_possible(const struct config *config) {
        struct rlimit files;
        rlim_t others = config->connections + 128;

        if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == RLIM_INFINITY)
                return UINT64_MAX;
        return (files.rlim_cur > others + files.rlim_cur / 8 ? files.rlim_cur - others : files.rlim_cur / 8) / 2;
}

/* The keep has the same two to hold, and few others. */
static uint64_t regions_possible(const struct config *config, const struct keep *keep) {
        const uint64_t room = keep_room(keep), kept = room == UINT64_MAX ? UINT64_MAX : room > 64 ? (room - 64) / 2 : 0;
        uint64_t possible = files_possible(config);

        return possible < kept ? possible : kept;
}

static void fill_options(const struct memory *memory, const struct config *config, struct broker_options *ret) {
        broker_options_default(ret);
        ret->quota = config->everybody.quota;
        ret->region_idle_ms = config->region_idle_ms;
        ret->quarantine_ms = config->quarantine_ms;
        ret->low_keep_percent = (unsigned)config->low_keep_percent;
        ret->emergency_permille = (unsigned)config->emergency_permille;
        ret->emergency_max = config->emergency_max;
        ret->minimum = config->minimum;
        ret->regions_max = regions_possible(config, memory->past.keep);
}

static struct pressure_settings pressure_settings(const struct config *config) {
        return (struct pressure_settings){
                .watch = config->pressure == CONFIG_PRESSURE_PSI,
                .stall_ms = config->pressure_stall_ms,
                .window_ms = config->pressure_window_ms,
        };
}

static const struct config_quota *find_quota(const struct config *config, const char *owner) {
        for (size_t i = 0; i < config->n_quotas; i++)
                if (strcmp(config->quotas[i].owner, owner) == 0)
                        return &config->quotas[i];
        return NULL;
}

/* Whether the same was said before: then an administrator's word of since then stands. */
static bool is_said(const struct config *old, const struct config_quota *quota) {
        const struct config_quota *before = old ? find_quota(old, quota->owner) : NULL;

        return before && memcmp(&before->quota, &quota->quota, sizeof(quota->quota)) == 0 &&
               before->guaranteed.bytes == quota->guaranteed.bytes &&
               before->guaranteed.low_bytes == quota->guaranteed.low_bytes;
}

/* old: what was in force, or NULL. */
static int define(struct memory *memory, const struct config *old, const struct config *config) {
        int r = 0;

        for (size_t i = 0; i < config->n_quotas && r == 0; i++) {
                const struct config_quota *quota = &config->quotas[i];

                if (is_said(old, quota))
                        continue;
                r = broker_set_quota(memory->broker, quota->owner, &quota->quota);
                if (r == 0)
                        r = broker_set_guarantee(memory->broker, quota->owner, &quota->guaranteed);
        }
        for (size_t i = 0; i < config->n_devices && r == 0; i++) {
                const struct config_device *device = &config->devices[i];
                struct device_options options = {
                        .name = device->name, .parent = device->parent, .mask = device->mask,
                        .coherent_mask = device->coherent_mask, .boundary = device->boundary,
                        .max_segment = device->max_segment, .min_align_mask = device->min_align_mask, .node = -1,
                        .quarantine_ms = device->quarantine_ms,
                };

                r = broker_define_device(memory->broker, &options, device->dma, device->allow);
                if (r == 0)
                        r = broker_limit_device(memory->broker, device->name, &device->limits);
        }
        return r;
}

static const struct config_device *find_device(const struct config *config, const char *name) {
        for (size_t i = 0; i < config->n_devices; i++)
                if (strcmp(config->devices[i].name, name) == 0)
                        return &config->devices[i];
        return NULL;
}

void memory_reconfigure(struct memory *memory, const struct config *old, const struct config *new) {
        const struct pressure_settings settings = pressure_settings(new);
        struct broker_options options;

        fill_options(memory, new, &options);
        broker_reconfigure(memory->broker, &options);
        pressure_set(memory->pressure, &settings);
        for (size_t i = 0; i < old->n_quotas; i++)
                if (!find_quota(new, old->quotas[i].owner))
                        broker_unset_quota(memory->broker, old->quotas[i].owner);
        for (size_t i = 0; i < old->n_devices; i++)
                if (!find_device(new, old->devices[i].name))
                        broker_forget_device(memory->broker, old->devices[i].name);
        if (define(memory, old, new) < 0)
                log_error("there is no memory for all of the new configuration");
        warn_of_promises(memory, false);
        warn_of_promises(memory, true);
}

/* ---- beginning and end ---- */

static int broker_make(struct memory *memory, const struct config *config, struct failure *failure) {
        static const struct translator_ops *const translators[] = {
                &translator_guest_ops,
#ifdef HAVE_XEN
                &translator_grant_ops,
#endif
                &translator_vfio_ops, &translator_noiommu_ops, &translator_identity_ops, NULL,
        };
        struct broker_options options;
        int r;

        vfio_begin(memory->past.keep, memory->past.ledger);
        fill_options(memory, config, &options);
        options.now_ms = now_ms;
        options.userdata = memory->loop;
        options.translators = translators;
        options.survives = memory->past.ledger;
        r = broker_new(&options, &memory->broker);
        if (r == 0)
                r = define(memory, NULL, config);
        return r < 0 ? failure_set_errno(failure, REASON_no_memory, -r, "the broker cannot start: %s", strerror(-r)) : 0;
}

static int load(struct memory *memory, struct failure *failure) {
        struct broker_loaded loaded;
        struct ledger_facts facts;
        struct broker_counts counts;
        int r;

        if (!memory->past.ledger)
                return 0;
        r = broker_load(memory->broker, memory->past.ledger, failure);
        if (r < 0)
                return r;
        ledger_facts(memory->past.ledger, &facts);
        broker_loaded(memory->broker, &loaded);
        broker_counts(memory->broker, &counts);
        log_info("%s: %llu sessions, %llu allocations in %llu regions", facts.about, (unsigned long long)counts.sessions,
                 (unsigned long long)counts.allocs, (unsigned long long)counts.regions);
        if (loaded.lost_bytes)
                log_error("%llu bytes that had been handed out are gone: nobody has kept them",
                          (unsigned long long)loaded.lost_bytes);
        if (loaded.lost_devices)
                log_error("%u devices were taken away from the broker; what they have had is not used again while it runs: %s",
                          loaded.lost_devices, loaded.lost_why);
        if (loaded.withheld && !loaded.damaged)
                log_warning("what an earlier daemon has left and the damaged ledger did not know is still kept: when "
                            "nobody uses it any more, say so (dmabrokerctl quarantine release) and restart the daemon");
        if (loaded.damaged)
                log_error("the ledger was damaged: what it still tells of is as it was, and %llu bytes that somebody may have "
                          "rest until their owners are gone, or until an administrator says otherwise (dmabrokerctl quarantine)",
                          (unsigned long long)loaded.barred_bytes);
        return 0;
}

int memory_new(uv_loop_t *loop, const struct config *config, const char *names, const struct memory_past *past,
               void (*settled)(void *userdata), void *userdata, struct memory **ret, struct failure *failure) {
        const struct pressure_settings settings = pressure_settings(config);
        struct memory *memory = calloc(1, sizeof(*memory));
        int r;

        if (!memory)
                return failure_set(failure, REASON_no_memory, "there is no memory to start");
        memory->loop = loop;
        memory->past = *past;
        memory->settled = settled;
        memory->userdata = userdata;
        memory->armed = UINT64_MAX;
        memory->facts.sources = memory->source_notes;
        memory->facts.notes = memory->notes;
        uv_timer_init(loop, &memory->timer);
        uv_prepare_init(loop, &memory->prepare);
        memory->timer.data = memory->prepare.data = memory;
        r = broker_make(memory, config, failure);
        if (r == 0)
                r = open_sources(memory, config, names, failure);
        if (r == 0 && pressure_new(loop, &settings, on_pressure, memory, &memory->pressure) < 0)
                r = failure_set(failure, REASON_no_memory, "there is no memory to start");
        if (r == 0)
                r = load(memory, failure);
        if (r == 0)
                give_up_others(memory, config);
        if (r == 0)
                uv_prepare_start(&memory->prepare, on_prepare);
        /* Also on failure: its handles must be closed first. */
        *ret = memory;
        return r;
}

struct broker *memory_broker(const struct memory *memory) {
        return memory->broker;
}

const struct server_facts *memory_facts(const struct memory *memory) {
        return &memory->facts;
}

void memory_close_handles(struct memory *memory) {
        for (size_t i = 0; i < memory->n_feeds; i++)
                uv_close((uv_handle_t *)&memory->feeds[i].poll, NULL);
        pressure_close(memory->pressure);
        memory->pressure = NULL;
        uv_close((uv_handle_t *)&memory->timer, NULL);
        uv_close((uv_handle_t *)&memory->prepare, NULL);
}

struct memory *memory_free(struct memory *memory, bool leave) {
        if (!memory)
                return NULL;
        if (leave)
                vfio_leave();
        if (leave)
                broker_leave(memory->broker);
        else
                broker_free(memory->broker);
        free(memory);
        return NULL;
}
