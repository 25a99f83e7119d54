/* Giving memory back to the system, because somebody asks for it or the host is short of it. What costs others least goes
 * first: free stock, then regions in which nothing is allocated, then what pools keep without using it, then what clients
 * have leased and do not use, for which they are asked. What a source holds in reserve stays, and so do the minimum and what
 * owners were guaranteed.
 *
 * Each step is made of jobs; the next one begins when nothing is under way, so that no more is taken than is wanted. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/core/objects.h"

/* How long clients are waited for when the host is short of memory and nobody said how long. */
#define HOST_WAIT_MS 2000
/* While they are waited for, they are asked again: who was about to listen has missed the first time. */
#define RECALL_AGAIN_MS 500

struct release {
        struct ticket ticket;
        struct release *prev, *next; /* in broker->releases */
        struct broker *broker;
        uint64_t wanted, given;
        uint64_t deadline_ms;
        uint64_t recall_ms;  /* when clients are asked next; 0: they were not yet */
        bool *told;          /* set when the answer is told */
        broker_done_fn done; /* or NULL */
        void *userdata;
};

/* ---- pressure ---- */

static void host_pressed(struct broker *broker, uint64_t bytes) {
        if (broker->host_pressed)
                return;
        broker->host_pressed = true;
        event_tell(broker, &(struct event){ .topic = EVENT_PRESSURE, .level = PRESSURE_HOST, .bytes = bytes });
}

static void host_relieved(struct broker *broker) {
        if (!broker->host_pressed || broker->host_short || broker->releases)
                return;
        broker->host_pressed = false;
        event_tell(broker, &(struct event){ .topic = EVENT_PRESSURE, .level = PRESSURE_HOST, .over = true });
}

bool broker_pressure(const struct broker *broker, enum pressure_level *ret_level) {
        *ret_level = broker->host_pressed ? PRESSURE_HOST : PRESSURE_REQUESTS;
        return broker->host_pressed || broker->counts.waiters;
}

/* ---- one step ---- */

/* What could be given back if nobody held anything. */
static uint64_t most_of(const struct broker *broker) {
        uint64_t above_reserve = 0, above_minimum = supplies_above_minimum(broker);
        const struct supply *supply;

        LL_FOREACH(broker->supplies, supply)
                above_reserve += supply_above_reserve(supply);
        return smaller(above_reserve, above_minimum);
}

static uint64_t restore_idle(struct broker *broker, uint64_t most) {
        struct region *region, *next;
        struct supply *supply;
        uint64_t bytes = 0;

        LL_FOREACH(broker->supplies, supply)
                DL_FOREACH_SAFE2(supply->idle, region, next, idle_next) {
                        if (bytes >= most)
                                return bytes;
                        bytes += region->size;
                        region_restore(region);
                }
        return bytes;
}

static void recall(struct broker *broker, uint64_t bytes) {
        struct session *session;
        struct owner *owner;
        struct lease *lease;

        for (owner = broker->owners; owner; owner = owner->hh.next)
                DL_FOREACH(owner->sessions, session)
                        DL_FOREACH(session->leases, lease)
                                holder_recall(lease->holder, bytes);
}

/* Of device memory: swapping holds up no release. */
static bool is_settled(const struct broker *broker) {
        const struct supply *supply;

        LL_FOREACH(broker->supplies, supply)
                if (supply->pending)
                        return false;
        return true;
}

/* True: something is under way. */
static bool step(struct release *release) {
        struct broker *broker = release->broker;
        uint64_t wanted = smaller(release->wanted - release->given, most_of(broker)), bytes = 0;
        bool trimmed = false;
        struct supply *supply;

        if (!wanted)
                return false;
        LL_FOREACH(broker->supplies, supply)
                if (bytes < wanted)
                        bytes += supply_shrink(supply, wanted - bytes);
        if (bytes < wanted)
                bytes += restore_idle(broker, wanted - bytes);
        if (bytes < wanted) {
                trimmed = pools_trim(broker, wanted - bytes);
                trimmed |= bounces_trim(broker);
        }
        if (trimmed)
                bytes += restore_idle(broker, wanted - bytes);
        if (bytes < wanted && now_ms(broker) >= release->recall_ms) {
                release->recall_ms = later(now_ms(broker), RECALL_AGAIN_MS);
                recall(broker, release->wanted == UINT64_MAX ? 0 : wanted - bytes);
        }
        return !is_settled(broker);
}

/* ---- the whole ---- */

static void release_end(struct release *release, const struct failure *failure) {
        struct broker *broker = release->broker;

        DL_DELETE(broker->releases, release);
        host_relieved(broker);
        if (release->told)
                *release->told = true;
        if (release->done)
                release->done(release->userdata, failure, release->given);
        free(release);
}

/* What was given back goes to the one that asked first. */
void release_note(struct broker *broker, uint64_t bytes) {
        struct release *release;

        DL_FOREACH(broker->releases, release)
                if (release->given < release->wanted) {
                        release->given += smaller(bytes, release->wanted - release->given);
                        return;
                }
}

void releases_serve(struct broker *broker) {
        struct release *release;

        while ((release = broker->releases) && is_settled(broker)) {
                if (step(release))
                        return;
                /* Those who lease may still bring something. */
                if (release->given < release->wanted && broker->counts.leases && most_of(broker) &&
                    now_ms(broker) < release->deadline_ms)
                        return;
                release_end(release, NULL);
        }
}

uint64_t releases_deadline(const struct broker *broker) {
        const struct release *release = broker->releases;

        return release && broker_settled(broker) ? smaller(release->deadline_ms, release->recall_ms) : UINT64_MAX;
}

void releases_end(struct broker *broker) {
        struct failure failure = {};

        failure_set(&failure, REASON_gone, "The daemon is ending");
        while (broker->releases)
                release_end(broker->releases, &failure);
}

static void release_cancel(struct ticket *ticket) {
        struct release *release = (struct release *)ticket;
        struct broker *broker = release->broker;

        DL_DELETE(broker->releases, release);
        free(release);
        host_relieved(broker);
        requests_serve(broker);
}

/* NULL: it has been answered, or *ret_r says why not. */
static struct ticket *release_begin(struct broker *broker, uint64_t bytes, uint64_t wait_ms, broker_done_fn done,
                                    void *userdata, struct failure *failure) {
        struct release *release = calloc(1, sizeof(*release));
        bool told = false;

        if (!release) {
                failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
                return NULL;
        }
        *release = (struct release){
                .ticket = { .cancel = release_cancel },
                .broker = broker,
                .wanted = bytes ? bytes : UINT64_MAX,
                .deadline_ms = later(now_ms(broker), wait_ms),
                .told = &told,
                .done = done,
                .userdata = userdata,
        };
        DL_APPEND(broker->releases, release);
        host_pressed(broker, bytes);
        requests_serve(broker);
        if (told)
                return NULL;
        release->told = NULL;
        return &release->ticket;
}

struct ticket *memory_release(const struct caller *caller, uint64_t bytes, uint64_t wait_ms, broker_done_fn done,
                              void *userdata) {
        struct failure failure = {};
        struct ticket *ticket = NULL;

        if (!caller->admin)
                failure_set(&failure, REASON_not_permitted, "Only an administrator may give memory back to the system");
        else
                ticket = release_begin(caller->session->owner->broker, bytes, wait_ms, done, userdata, &failure);
        if (failure.error)
                done(userdata, &failure, 0);
        return ticket;
}

void broker_press(struct broker *broker, bool is_short) {
        broker->host_short = is_short;
        if (!is_short)
                host_relieved(broker);
        else if (!broker->releases)
                release_begin(broker, 0, HOST_WAIT_MS, NULL, NULL, NULL);
}
