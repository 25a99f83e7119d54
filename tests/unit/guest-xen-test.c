/* Guests of Xen's, by what Xen says of its domains: here it is the test that says it, and that maps. Link with --wrap for what is
 * played. */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/place.h"
#include "daemon/guest/xen-foreign.h"
#include "daemon/iommu/none.h"
#include "daemon/source/sources.h"
#include "daemon/source/xen-frames.h"
#include "tests/unit/core-fixture.h"

#define UUID "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"
#define OTHER "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d12"

enum { GRANTED = 16, MEMORY_DOMAIN = 99 };

static struct {
        struct fixture f;
        uv_loop_t loop;
        char directory[32];
        uint64_t own;        /* bytes of the window of the configuration */
        bool is_kvm;         /* by the configuration that there is now */
        bool is_forgotten;   /* another one is in it */
        struct guests *guests;
        char told[512];
        bool closed;
        struct failure why;
        uint64_t window;
        bool is_answered;
        unsigned n_hung_up, hung_up_at_end;
} host;

/* ---- Xen ---- */

static struct {
        const struct xen_listener *listener;
        void *userdata;
        /* Memory that was granted: to whom, and whether that is revoked, and who has it mapped. */
        struct granted {
                uint64_t addr, size;
                uint32_t domid;
                bool is_granted, is_mapped;
        } granted[GRANTED];
        int no_give;
        unsigned n_given;
        unsigned n_crossed;   /* tables of which it has not been told that they are nearly full, or are not any more */
        bool is_crossed_back;
        uint64_t not_granted; /* of the guest's own pages, to dom0 */
        int foreign_error;
        int no_guest;         /* why the domain is not said to be it, */
        int n_checks;         /* after so many times that it was */
        struct {
                int end; /* of a pipe, whose other end is what is shared; -1: nothing is */
                unsigned n_ended;
                bool is_full;
        } share;
        uint64_t later_ms;  /* than it is */
        unsigned n_repeats; /* times that all domains were wanted again */
        bool is_partial; /* not all of what is asked for is found */
        struct {
                const struct xen_channel_listener *ops;
                void *userdata;
                uint32_t domid; /* 0: there is none */
                unsigned n_made;
                int error;
        } channel;
} fake;

/* How frames are exchanged, on another thread: it is held there until `may_end` is posted. */
static struct {
        sem_t has_begun, may_end;
        struct xen_exchange asked; /* its lists are gone */
        uint64_t frames[4], pfns[2];
        unsigned n;
        int error;
        size_t n_extents;
} frames;

const char *__wrap_xen_unavailable(void);
int __wrap_xen_frames_exchange(struct xen_exchange *exchange, struct failure *failure);
int __wrap_xen_tracker_new(uv_loop_t *loop, const struct xen_options *options, const struct xen_listener *ops, void *userdata,
                           struct xen_tracker **ret);
void __wrap_xen_tracker_close(struct xen_tracker *tracker, void (*closed)(void *userdata));
void __wrap_xen_tracker_repeat(struct xen_tracker *tracker);
uint64_t __wrap_uv_now(const uv_loop_t *loop);
uint64_t __real_uv_now(const uv_loop_t *loop);
int __wrap_xen_grants_give(uint64_t addr, uint64_t size, uint32_t guest, bool is_readonly, struct xen_grant_run **ret,
                           size_t *ret_n, struct failure *failure);
int __wrap_xen_grants_find(uint64_t addr, uint64_t size, uint32_t guest, struct xen_grant_run **ret, size_t *ret_n,
                           struct failure *failure);
int __wrap_xen_grants_revoke(uint64_t addr, uint64_t size);
int __wrap_xen_grants_look(uint64_t addr, uint64_t size, struct xen_table_use *ret);
int __wrap_xen_foreign_open(uint32_t domain, struct xen_foreign **ret);
struct xen_foreign *__wrap_xen_foreign_close(struct xen_foreign *foreign);
void __wrap_xen_foreign_look(const struct xen_foreign *foreign, const struct grant_run *runs, size_t n_runs, bool writes,
                             struct xen_foreign_use *ret);
int __wrap_xen_share_open(uint32_t domain, uint64_t pages, bool is_writable, int *ret_fd, struct grant_run **ret_runs,
                          size_t *ret_n_runs, struct failure *failure);
void __wrap_xen_share_end(int fd, uint64_t pages);
int __wrap_xen_check_guest(uint32_t domid, const char *uuid, struct failure *failure);
bool __wrap_xen_grants_find_crossed(uint64_t addr, uint64_t size, struct xen_table_view *ret, bool *ret_is_over);
size_t __wrap_xen_grants_look_tables(struct xen_table_view *ret, size_t max);

int __wrap_xen_channel_new(uv_loop_t *loop, uint32_t domid, const char *uuid, const char *name,
                           const struct xen_channel_listener *ops, void *userdata, struct xen_channel **ret);
void __wrap_xen_channel_close(struct xen_channel *channel, void (*closed)(void *userdata), void *userdata);

int __wrap_xen_frames_exchange(struct xen_exchange *exchange, struct failure *failure) {
        frames.n++;
        frames.asked = *exchange;
        memcpy(frames.frames, exchange->frames, (exchange->n_frames < 4 ? exchange->n_frames : 4) * sizeof(*frames.frames));
        if (exchange->pfns)
                memcpy(frames.pfns, exchange->pfns, sizeof(frames.pfns));
        sem_post(&frames.has_begun);
        sem_wait(&frames.may_end);
        if (frames.error)
                return failure_set(failure, REASON_busy, "the guest has them mapped");
        exchange->n_extents = frames.n_extents;
        for (size_t i = 0; i < exchange->n_extents; i++)
                exchange->extents[i] = 0x3d400 + 2 * i;
        if (exchange->n_extents < exchange->n_frames >> exchange->order)
                failure_set(&exchange->why, REASON_no_contiguous, "Xen has no more");
        return 0;
}

int __wrap_xen_channel_new(uv_loop_t *loop, uint32_t domid, const char *uuid, const char *name,
                           const struct xen_channel_listener *ops, void *userdata, struct xen_channel **ret) {
        fake.channel.n_made++;
        if (fake.channel.error)
                return fake.channel.error;
        assert_int_equal(fake.channel.domid, 0);
        assert_string_equal(uuid, UUID);
        fake.channel.ops = ops;
        fake.channel.userdata = userdata;
        fake.channel.domid = domid;
        *ret = (struct xen_channel *)&fake.channel;
        return 0;
}

void __wrap_xen_channel_close(struct xen_channel *channel, void (*closed)(void *userdata), void *userdata) {
        assert_ptr_equal(channel, &fake.channel);
        fake.channel.domid = 0;
        closed(userdata);
}

const char *__wrap_xen_unavailable(void) {
        return NULL;
}

int __wrap_xen_tracker_new(uv_loop_t *loop, const struct xen_options *options, const struct xen_listener *ops, void *userdata,
                           struct xen_tracker **ret) {
        fake.listener = ops;
        fake.userdata = userdata;
        *ret = (struct xen_tracker *)&fake;
        return 0;
}

void __wrap_xen_tracker_close(struct xen_tracker *tracker, void (*closed)(void *userdata)) {
        closed(fake.userdata);
}

uint64_t __wrap_uv_now(const uv_loop_t *loop) {
        return __real_uv_now(loop) + fake.later_ms;
}

void __wrap_xen_tracker_repeat(struct xen_tracker *tracker) {
        assert_ptr_equal(tracker, &fake);
        fake.n_repeats++;
}

static struct granted *find_granted(uint64_t addr) {
        for (struct granted *granted = fake.granted; granted < fake.granted + GRANTED; granted++)
                if (granted->size && granted->addr == addr)
                        return granted;
        return NULL;
}

static int one_run(uint64_t size, struct xen_grant_run **ret, size_t *ret_n) {
        *ret = calloc(1, sizeof(**ret));
        **ret = (struct xen_grant_run){ .domid = MEMORY_DOMAIN, .first = 8, .count = (uint32_t)(size / 4096) };
        *ret_n = 1;
        return 0;
}

int __wrap_xen_grants_give(uint64_t addr, uint64_t size, uint32_t guest, bool is_readonly, struct xen_grant_run **ret,
                           size_t *ret_n, struct failure *failure) {
        struct granted *granted = find_granted(addr);

        if (fake.no_give)
                return failure_set(failure, REASON_limit, "the grant table has no entries left for it");
        assert_true(!granted || (!granted->is_granted && !granted->is_mapped));
        for (granted = granted ? granted : fake.granted; granted->size && granted->addr != addr; granted++)
                assert_true(granted < fake.granted + GRANTED - 1);
        *granted = (struct granted){ .addr = addr, .size = size, .domid = guest, .is_granted = true };
        fake.n_given++;
        return one_run(size, ret, ret_n);
}

int __wrap_xen_grants_find(uint64_t addr, uint64_t size, uint32_t guest, struct xen_grant_run **ret, size_t *ret_n,
                           struct failure *failure) {
        const struct granted *granted = find_granted(addr);

        if (fake.is_partial || !granted || !granted->is_granted || granted->domid != guest || granted->size != size)
                return failure_set(failure, REASON_unknown_handle, "there is no entry");
        return one_run(size, ret, ret_n);
}

int __wrap_xen_grants_revoke(uint64_t addr, uint64_t size) {
        struct granted *granted = find_granted(addr);

        if (granted)
                granted->is_granted = false;
        return 0;
}

int __wrap_xen_grants_look(uint64_t addr, uint64_t size, struct xen_table_use *ret) {
        const struct granted *granted = find_granted(addr);

        *ret = (struct xen_table_use){ .granted = granted && granted->is_granted,
                                       .reading = granted && granted->is_mapped ? size / 4096 : 0,
                                       .busy = granted && (granted->is_granted || granted->is_mapped) };
        return 0;
}

static struct xen_table_view memory_table(void) {
        return (struct xen_table_view){ .domid = MEMORY_DOMAIN, .counts = { .entries = 1000, .granted = 700, .mapped = 300,
                                                                           .revoking = 110, .free = 190 } };
}

bool __wrap_xen_grants_find_crossed(uint64_t addr, uint64_t size, struct xen_table_view *ret, bool *ret_is_over) {
        if (!fake.n_crossed)
                return false;
        fake.n_crossed--;
        *ret = memory_table();
        *ret_is_over = fake.is_crossed_back;
        return true;
}

size_t __wrap_xen_grants_look_tables(struct xen_table_view *ret, size_t max) {
        *ret = memory_table();
        return 1;
}

int __wrap_xen_foreign_open(uint32_t domain, struct xen_foreign **ret) {
        *ret = fake.foreign_error ? NULL : (struct xen_foreign *)&fake;
        return fake.foreign_error;
}

struct xen_foreign *__wrap_xen_foreign_close(struct xen_foreign *foreign) {
        return NULL;
}

void __wrap_xen_foreign_look(const struct xen_foreign *foreign, const struct grant_run *runs, size_t n_runs, bool writes,
                             struct xen_foreign_use *ret) {
        *ret = (struct xen_foreign_use){ .in_use = 5, .not_granted = writes ? fake.not_granted : 0, .first_not_granted = 9 };
}

int __wrap_xen_share_open(uint32_t domain, uint64_t pages, bool is_writable, int *ret_fd, struct grant_run **ret_runs,
                          size_t *ret_n_runs, struct failure *failure) {
        int ends[2];

        if (fake.share.is_full)
                return failure_set(failure, REASON_limit, "there are no more");
        assert_int_equal(pipe(ends), 0);
        fake.share.end = ends[0];
        *ret_fd = ends[1];
        *ret_runs = calloc(1, sizeof(**ret_runs));
        **ret_runs = (struct grant_run){ .first = 50, .count = (uint32_t)pages };
        *ret_n_runs = 1;
        return 0;
}

void __wrap_xen_share_end(int fd, uint64_t pages) {
        close(fd);
        fake.share.n_ended++;
}

int __wrap_xen_check_guest(uint32_t domid, const char *uuid, struct failure *failure) {
        assert_string_equal(uuid, UUID);
        if (!fake.no_guest || fake.n_checks-- > 0)
                return 0;
        return failure_set_errno(failure, REASON_source_unavailable, fake.no_guest, "domain %u is not it any more", domid);
}

/* Domains that are granted something still; or that have something mapped, by the only one that there is. */
static unsigned n_granted(uint32_t domid) {
        unsigned n = 0;

        for (unsigned i = 0; i < GRANTED; i++)
                n += fake.granted[i].is_granted && fake.granted[i].domid == domid;
        return n;
}

static void map_all(bool is_mapped) {
        for (unsigned i = 0; i < GRANTED; i++)
                fake.granted[i].is_mapped = is_mapped && fake.granted[i].is_granted;
}

/* ---- the host ---- */

static void tell(const char *what) {
        size_t used = strlen(host.told);

        snprintf(host.told + used, sizeof(host.told) - used, "%s ", what);
}

static void on_channel(void *userdata, const char *owner, int fd, pid_t pid, uid_t uid) {
        assert_string_equal(owner, "xen:" UUID);
        tell("channel");
        close(fd);
}

static void on_known(void *userdata, const char *owner, pid_t pid) {
        host.n_hung_up += !pid;
}

static void on_ended(void *userdata, const char *owner) {
        host.hung_up_at_end = host.n_hung_up;
        tell("ended");
}

static void on_lost(void *userdata) {
        tell("lost");
}

static void on_changed(void *userdata, const struct guest_view *view, enum guest_change change) {
        static const char *const names[] = { "started", "stopped", "rebooted", "attached", "detached", "connected",
                                              "leaving" };

        tell(names[change]);
}

static void on_filling(void *userdata, const struct guest_table_view *view, bool is_over) {
        assert_int_equal(view->domain, MEMORY_DOMAIN);
        assert_int_equal(view->revoking, 110);
        tell(is_over ? "emptier" : "full");
}

static const struct guests_listener listener = {
        .channel = on_channel, .known = on_known, .ended = on_ended, .lost = on_lost, .changed = on_changed,
        .filling = on_filling,
};

static void settle(void) {
        for (int i = 0; i < 8; i++) {
                fixture_settle(&host.f);
                uv_run(&host.loop, UV_RUN_NOWAIT);
        }
}

static void start_daemon(void) {
        const struct guests_settings settings = { .directory = host.directory, .unplug_ms = 50 };
        const struct guest_definition definition = {
                .name = "one", .uuid = host.is_forgotten ? OTHER : UUID, .window_bytes = host.own, .is_xen = !host.is_kvm,
                .qmp = host.is_kvm ? "/nowhere" : NULL,
        };

        assert_int_equal(guests_new(&host.loop, host.f.broker, &settings, &host.guests), 0);
        assert_int_equal(guests_define(host.guests, &definition), 0);
        assert_int_equal(guests_begin(host.guests, &listener, NULL, &host.why), 0);
        settle();
        *host.told = '\0';
}

static void on_closed(void *userdata) {
        host.closed = true;
}

static void stop_daemon(bool leave) {
        host.closed = false;
        guests_close(host.guests, leave, on_closed, NULL);
        while (!host.closed)
                uv_run(&host.loop, UV_RUN_ONCE);
        guests_free(host.guests);
}

static void describe(struct source *source, struct source_info *ret) {
        source_sim_ops.describe(source, ret);
        ret->flags |= SOURCE_GUESTS;
}

static int begin(void **state) {
        static const struct translator_ops *const translators[] = { &translator_guest_ops, &translator_grant_ops,
                                                                      &translator_identity_ops, NULL };
        static struct source_ops granting;
        struct broker_options options;

        broker_options_default(&options);
        options.translators = translators;
        options.region_idle_ms = 0;
        memset(&host, 0, sizeof(host));
        memset(&fake, 0, sizeof(fake));
        fixture_start(&host.f, "64M@0x200000000", &options);
        granting = source_sim_ops;
        granting.describe = describe;
        host.f.source->ops = &granting;
        fixture_source(&host.f);
        assert_int_equal(uv_loop_init(&host.loop), 0);
        strcpy(host.directory, "/tmp/dmab-guest-XXXXXX");
        assert_non_null(mkdtemp(host.directory));
        return 0;
}

static int end(void **state) {
        stop_daemon(false);
        settle();
        uv_run(&host.loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&host.loop), 0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        fixture_stop(&host.f);
        assert_int_equal(rmdir(host.directory), 0);
        return 0;
}

/* ---- what Xen says ---- */

#define DOMAIN(id, how) { .uuid = UUID, .domid = id, .state = how, .why_over = "", .is_pv = true }
#define DOMAIN_OVER(id, why) { .uuid = UUID, .domid = id, .state = XEN_OVER, .why_over = why, .is_pv = true }
#define DOMAIN_HVM(id) { .uuid = UUID, .domid = id, .state = XEN_RUNNING, .why_over = "" }

#define lists(...) list((const struct xen_seen[]){ { .uuid = OTHER, .domid = 1, .why_over = "" }, __VA_ARGS__ }, \
                        sizeof((const struct xen_seen[]){ { .domid = 1 }, __VA_ARGS__ }) / sizeof(struct xen_seen))

static void list(const struct xen_seen *all, size_t n) {
        fake.listener->listed(fake.userdata, all, n);
        settle();
}

/* "": nothing. */
static void say_in_xenstore(const char *words) {
        struct xen_policy said[] = { { .uuid = OTHER, .text = "window=2M" }, { .uuid = UUID } };

        strncpy(said[1].text, words, sizeof(said[1].text) - 1);
        fake.listener->policies(fake.userdata, said, *words ? 2 : 1);
        settle();
}

static void no_domain(void) {
        list((const struct xen_seen[]){ { .domid = 0 } }, 0);
}

static bool has_told(const char *what) {
        bool has = strcmp(host.told, what) == 0;

        if (!has)
                print_message("told: %s\n", host.told);
        *host.told = '\0';
        return has;
}

/* ---- windows ---- */

static int find(const struct guest_window_view *view, void *userdata) {
        *(struct guest_window_view *)userdata = *view;
        return 1;
}

static struct guest_window_view window(void) {
        struct guest_window_view view = { 0 };

        guests_visit_windows(host.guests, NULL, true, find, &view);
        return view;
}

struct nth {
        unsigned left;
        uint32_t domain;
};

static int find_nth(const struct guest_window_view *view, void *userdata) {
        struct nth *nth = userdata;

        nth->domain = view->domain;
        return nth->left-- == 0;
}

static uint32_t domain_of_window(unsigned n) {
        struct nth nth = { .left = n };

        assert_int_equal(guests_visit_windows(host.guests, NULL, true, find_nth, &nth), 1);
        return nth.domain;
}

static struct guest_grants_view grants(void) {
        struct guest_grants_view view;

        assert_true(guests_look_grants(host.guests, window().window, &view));
        return view;
}

static enum guest_state state_of_guest(void) {
        struct guest_view view;

        assert_int_equal(guests_get(host.guests, UUID, &view, NULL), 0);
        assert_int_equal(view.via, GUEST_BY_XEN);
        return view.state;
}

static void on_done(void *userdata, const struct failure *failure, uint64_t handle) {
        host.is_answered = true;
        host.window = handle;
        host.why = failure ? *failure : (struct failure){ 0 };
}

static void attach_below(uint64_t size, uint64_t mask) {
        host.is_answered = false;
        guests_attach(host.guests, &(struct attach_request){ .guest = "one", .size = size, .mask = mask }, on_done, NULL);
        settle();
}

static void attach(uint64_t size) {
        attach_below(size, 0);
}

static void detach(void) {
        host.is_answered = false;
        guests_detach(host.guests, window().window, false, on_done, NULL);
        settle();
}

/* What it is looked at for now and then. */
static void await(bool (*is_so)(void)) {
        for (int i = 0; !is_so() && i < 200; i++) {
                uv_run(&host.loop, UV_RUN_ONCE);
                settle();
        }
        assert_true(is_so());
}

static bool has_none(void) {
        return window().window == 0 && fixture_source(&host.f).in_regions == 0;
}

/* A window of this run's that is plugged in, and nothing besides. */
static bool has_own_alone(void) {
        return window().state == WINDOW_PLUGGED && fixture_source(&host.f).in_regions == host.own;
}

static bool is_answered(void) {
        return host.is_answered;
}

/* A guest that runs as this domain and has its own window mapped. */
static void begin_with_own(uint32_t domid) {
        host.own = MIB;
        start_daemon();
        lists(DOMAIN(domid, XEN_RUNNING));
        assert_int_equal(window().state, WINDOW_PLUGGED);
        map_all(true);
        *host.told = '\0';
}

static void test_a_guest_that_runs_is_granted_its_window(void **state) {
        host.own = MIB;
        start_daemon();
        assert_int_equal(state_of_guest(), GUEST_UNKNOWN);
        no_domain();
        assert_int_equal(state_of_guest(), GUEST_OFF);
        *host.told = '\0';
        lists(DOMAIN(7, XEN_PAUSED));
        assert_int_equal(state_of_guest(), GUEST_PAUSED);
        assert_true(has_told("started attached "));
        assert_int_equal(n_granted(7), 1);
        assert_int_equal(grants().n, 1);
        assert_int_equal(grants().runs[0].domid, MEMORY_DOMAIN);
        assert_int_equal(grants().runs[0].count, MIB / 4096);
        assert_int_equal(grants().mapped, 0);
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(state_of_guest(), GUEST_RUNNING);
        assert_true(has_told(""));
        assert_int_equal(fake.n_given, 1);
}

static uint64_t limit_of_bytes(void) {
        const struct caller administrator = { .session = host.f.caller.session, .admin = true };
        struct owner_view view;

        assert_int_equal(quota_get(&administrator, "xen:" UUID, &view, NULL), 0);
        return view.limits.of[QUOTA_bytes];
}

/* It is said of the guest, whichever domain that is. */
static void test_a_guest_has_what_xenstore_says_in_each_run_of_it(void **state) {
        start_daemon();
        say_in_xenstore("window=1M bytes=8M");
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(window().size, MIB);
        assert_int_equal(limit_of_bytes(), 8 * MIB);
        lists(DOMAIN_OVER(7, "reboot"));
        assert_true(has_none());
        lists(DOMAIN(8, XEN_RUNNING));
        assert_int_equal(window().size, MIB);
        assert_int_equal(fake.n_given, 2);
        /* It has it, and gets no other for what is said again, or by the next daemon, or is not said any more. */
        say_in_xenstore("window=1M bytes=16M");
        assert_int_equal(limit_of_bytes(), 16 * MIB);
        stop_daemon(true);
        start_daemon();
        lists(DOMAIN(8, XEN_RUNNING));
        say_in_xenstore("window=1M bytes=16M");
        say_in_xenstore("");
        assert_int_equal(fake.n_given, 2);
        assert_int_equal(window().state, WINDOW_PLUGGED);
        lists(DOMAIN(9, XEN_RUNNING));
        assert_true(has_none());
}

static void limit_bytes(uint64_t bytes) {
        const struct caller administrator = { .session = host.f.caller.session, .admin = true };
        const struct quota limits = { .of = { [QUOTA_bytes] = bytes } };

        assert_int_equal(quota_set(&administrator, "xen:" UUID, 1u << QUOTA_bytes, &limits, NULL), 0);
}

static void test_what_an_administrator_has_set_holds_until_xenstore_says_something_else(void **state) {
        start_daemon();
        say_in_xenstore("bytes=64M");
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(limit_of_bytes(), 64 * MIB);
        limit_bytes(0);
        lists(DOMAIN_OVER(7, "reboot"));
        lists(DOMAIN(8, XEN_RUNNING));
        assert_int_equal(limit_of_bytes(), 0);
        stop_daemon(true);
        start_daemon();
        say_in_xenstore("bytes=64M");
        lists(DOMAIN(8, XEN_RUNNING));
        assert_int_equal(limit_of_bytes(), 0);
        say_in_xenstore("bytes=32M");
        assert_int_equal(limit_of_bytes(), 32 * MIB);
}

static void test_a_guest_that_runs_gets_what_xenstore_says_later(void **state) {
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        assert_true(has_none());
        say_in_xenstore("window=1M");
        assert_int_equal(window().size, MIB);
        assert_int_equal(n_granted(7), 1);
}

static void test_a_guest_has_a_channel_in_each_run_of_it(void **state) {
        start_daemon();
        no_domain();
        assert_int_equal(fake.channel.n_made, 0);
        *host.told = '\0';
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(fake.channel.domid, 7);
        assert_true(has_told("started "));
        fake.channel.ops->connected(fake.channel.userdata, dup(0));
        assert_true(has_told("channel connected "));
        /* It goes on over it, whatever is known of it. */
        lists(DOMAIN(7, XEN_RUNNING));
        fake.listener->lost(fake.userdata, "it says nothing");
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(fake.channel.n_made, 1);
        lists(DOMAIN_OVER(7, "reboot"));
        assert_int_equal(fake.channel.domid, 0);
        lists(DOMAIN(8, XEN_RUNNING));
        assert_int_equal(fake.channel.domid, 8);
        lists(DOMAIN(9, XEN_RUNNING));
        assert_int_equal(fake.channel.domid, 9);
        assert_int_equal(fake.channel.n_made, 3);
        /* The next daemon makes its own. */
        stop_daemon(true);
        assert_int_equal(fake.channel.domid, 0);
        start_daemon();
        lists(DOMAIN(9, XEN_RUNNING));
        assert_int_equal(fake.channel.domid, 9);
}

static bool may_make_channel(void) {
        return fake.channel.ops->runs(fake.channel.userdata);
}

static void come(void) {
        fake.channel.ops->connected(fake.channel.userdata, dup(0));
}

static void test_that_programs_come_is_told_once_a_second(void **state) {
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        *host.told = '\0';
        for (unsigned i = 0; i < 3; i++)
                come();
        assert_true(has_told("channel connected channel channel "));
        fake.later_ms = 1000;
        come();
        assert_true(has_told("channel connected "));
}

/* Whoever builds a domain pauses it until it is built, and removes what xenstore has of it. */
static void test_a_channel_is_made_for_a_guest_that_is_known_to_run(void **state) {
        start_daemon();
        lists(DOMAIN(7, XEN_PAUSED));
        assert_int_equal(fake.channel.n_made, 0);
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(fake.channel.domid, 7);
        assert_true(may_make_channel());
        fake.listener->lost(fake.userdata, "it says nothing");
        assert_false(may_make_channel());
        lists(DOMAIN(7, XEN_RUNNING));
        assert_true(may_make_channel());
        lists(DOMAIN(7, XEN_PAUSED));
        assert_false(may_make_channel());
        assert_int_equal(fake.channel.domid, 7);
        assert_int_equal(fake.channel.n_made, 1);
}

static void test_a_host_that_has_no_channels_is_asked_once_for_each_run(void **state) {
        start_daemon();
        fake.channel.error = -ENOPKG;
        lists(DOMAIN(7, XEN_RUNNING));
        lists(DOMAIN(7, XEN_PAUSED));
        assert_int_equal(fake.channel.n_made, 1);
        lists(DOMAIN(8, XEN_RUNNING));
        assert_int_equal(fake.channel.n_made, 2);
}

static void test_a_channel_for_which_there_was_no_memory_is_tried_again(void **state) {
        start_daemon();
        fake.channel.error = -ENOMEM;
        for (unsigned i = 1; i < 4; i++) {
                lists(DOMAIN(7, XEN_RUNNING));
                assert_int_equal(fake.channel.n_made, i);
                assert_int_equal(fake.n_repeats, i);
        }
        fake.channel.error = 0;
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(fake.channel.domid, 7);
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(fake.channel.n_made, 4);
        assert_int_equal(fake.n_repeats, 3);
}

static void test_only_a_paravirtualised_guest_sees_it_by_machine_addresses(void **state) {
        struct failure failure = { 0 };

        begin_with_own(7);
        assert_true(window().is_bound);
        assert_int_equal(window().guest_addr, fake.granted[0].addr);
        assert_int_equal(guests_bind(host.guests, "xen:" UUID, window().window, fake.granted[0].addr, &failure), 0);
        assert_int_equal(guests_bind(host.guests, "xen:" UUID, window().window, 0x10000000, &failure), -EINVAL);
        assert_non_null(strstr(failure.sentence, "machine addresses"));
        map_all(false);
        lists(DOMAIN_HVM(8));
        assert_false(window().is_bound);
        assert_int_equal(guests_bind(host.guests, "xen:" UUID, window().window, 0x10000000, &failure), 0);
}

static void test_what_a_dead_guest_has_mapped_is_nobodys_until_it_has_not(void **state) {
        uint64_t addr;

        begin_with_own(7);
        addr = fake.granted[0].addr;
        lists(DOMAIN_OVER(7, "crash"));
        assert_int_equal(state_of_guest(), GUEST_OFF);
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(window().state, WINDOW_LEAVING);
        assert_int_equal(grants().n, 0);
        assert_int_equal(grants().mapped, MIB);
        assert_int_equal(fixture_source(&host.f).in_regions, MIB);
        assert_true(has_told("ended stopped "));
        /* It is back as another domain, and gets other memory. */
        lists(DOMAIN_OVER(7, "crash"), DOMAIN(8, XEN_RUNNING));
        assert_int_equal(n_granted(8), 1);
        assert_true(fake.granted[1].addr != addr);
        assert_int_equal(domain_of_window(0), 7);
        assert_int_equal(domain_of_window(1), 8);
        stop_daemon(true);
        start_daemon();
        assert_int_equal(domain_of_window(0), 7);
        assert_int_equal(domain_of_window(1), 8);
        map_all(false);
        no_domain();
        await(has_none);
}

static void test_a_guest_that_boots_anew_is_another_domain(void **state) {
        uint64_t before;

        begin_with_own(7);
        before = window().window;
        map_all(false);
        lists(DOMAIN(9, XEN_RUNNING));
        assert_true(has_told("ended detached stopped started attached "));
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(n_granted(9), 1);
        assert_true(window().window != before);
}

static void test_of_two_domains_the_known_one_is_it_until_it_has_ended(void **state) {
        begin_with_own(7);
        lists(DOMAIN(7, XEN_RUNNING), DOMAIN(8, XEN_PAUSED));
        lists(DOMAIN(7, XEN_PAUSED), DOMAIN(8, XEN_PAUSED));
        assert_true(has_told(""));
        map_all(false);
        lists(DOMAIN_OVER(7, "suspended"), DOMAIN(8, XEN_RUNNING));
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(n_granted(8), 1);
}

static void test_full_tables_are_a_limit_and_nothing_is_taken(void **state) {
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        fake.no_give = 1;
        attach(2 * MIB);
        assert_true(host.is_answered);
        assert_int_equal(host.why.reason, REASON_limit);
        assert_non_null(strstr(host.why.sentence, "no entries left"));
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        fake.no_give = 0;
        attach(2 * MIB);
        assert_int_not_equal(host.window, 0);
}

static void test_a_table_that_is_nearly_full_is_told_of(void **state) {
        struct guest_table_view view = { 0 };

        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        *host.told = '\0';
        fake.n_crossed = 1;
        attach(2 * MIB);
        assert_true(has_told("full attached "));
        fake.n_crossed = 1;
        fake.is_crossed_back = true;
        detach();
        assert_true(has_told("emptier leaving detached "));
        assert_int_equal(guests_look_tables(&view, 1), 1);
        assert_int_equal(view.domain, MEMORY_DOMAIN);
        assert_int_equal(view.free, 190);
}

static void test_since_when_it_is_granted_the_next_daemon_knows(void **state) {
        uint64_t before;

        begin_with_own(7);
        assert_true(window().is_xen);
        assert_int_equal(window().domain, 7);
        while (window().age_ms < 3)
                uv_run(&host.loop, UV_RUN_NOWAIT);
        before = window().age_ms;
        stop_daemon(true);
        start_daemon();
        uv_update_time(&host.loop);
        assert_true(window().age_ms >= before);
        assert_int_equal(window().domain, 7);
}

static void test_pages_of_windows_are_what_a_guest_may_have_of_grants(void **state) {
        struct quota limits = { .of[QUOTA_grants] = 600 };
        struct caller admin = host.f.caller;
        struct owner_view view;

        admin.admin = true;
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(quota_set(&admin, "xen:" UUID, 1u << QUOTA_grants, &limits, NULL), 0);
        attach(2 * MIB);
        assert_int_equal(host.why.error, 0);
        assert_int_equal(quota_get(&admin, "xen:" UUID, &view, NULL), 0);
        assert_int_equal(view.usage.of[QUOTA_grants], 512);
        attach(MIB);
        assert_int_equal(host.why.reason, REASON_quota);
        assert_non_null(strstr(host.why.sentence, "grants is 600, with 512 in use"));
        detach();
        assert_int_equal(quota_get(&admin, "xen:" UUID, &view, NULL), 0);
        assert_int_equal(view.usage.of[QUOTA_grants], 0);
}

static void test_a_mask_is_that_of_the_machines_addresses(void **state) {
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        attach_below(2 * MIB, MASK32);
        assert_true(host.is_answered);
        assert_int_equal(host.why.reason, REASON_mask);
        attach_below(2 * MIB, MASK32 << 4 | 15);
        assert_int_equal(host.why.error, 0);
        assert_int_equal(n_granted(7), 1);
}

static void test_what_is_not_mapped_comes_back_at_once(void **state) {
        begin_with_own(7);
        map_all(false);
        detach();
        await(is_answered);
        assert_int_equal(host.why.error, 0);
        assert_true(has_none());
        assert_int_equal(n_granted(7), 0);
}

static void test_a_guest_that_never_unmaps_is_waited_for(void **state) {
        begin_with_own(7);
        *host.told = '\0';
        detach();
        assert_true(has_told("leaving ")); /* its programs, who unmap it */
        assert_false(host.is_answered);
        assert_int_equal(n_granted(7), 0);
        await(is_answered);
        assert_int_equal(host.why.reason, REASON_timeout);
        assert_int_equal(window().state, WINDOW_LEAVING);
        /* Asked again, it is waited for again. */
        detach();
        assert_true(has_told("leaving "));
        map_all(false);
        await(is_answered);
        assert_int_equal(host.why.error, 0);
        assert_true(has_none());
}

static void test_the_next_daemon_finds_what_is_granted(void **state) {
        uint64_t before;

        begin_with_own(7);
        before = window().window;
        stop_daemon(true);
        start_daemon();
        assert_int_equal(grants().n, 1);
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(window().window, before);
        assert_int_equal(grants().n, 1);
        assert_true(window().is_bound);
        assert_int_equal(fake.n_given, 1);
        assert_true(has_told(""));
}

/* By a daemon that was killed while it did that. */
static void test_what_was_granted_in_part_is_taken_back(void **state) {
        begin_with_own(7);
        stop_daemon(true);
        fake.is_partial = true;
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(window().state, WINDOW_LEAVING);
        map_all(false);
        await(has_none);
        attach(MIB);
        assert_int_equal(n_granted(7), 1);
}

static void test_what_a_guest_had_that_ended_without_a_daemon_is_taken_back(void **state) {
        begin_with_own(7);
        stop_daemon(true);
        start_daemon();
        assert_int_equal(n_granted(7), 1);
        no_domain();
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(window().state, WINDOW_LEAVING);
        map_all(false);
        await(has_none);
}

static void test_what_leaves_does_so_under_the_next_daemon_too(void **state) {
        begin_with_own(7);
        detach();
        stop_daemon(true);
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(window().state, WINDOW_LEAVING);
        host.own = 0;
        map_all(false);
        stop_daemon(true);
        start_daemon();
        await(has_none);
}

static void test_a_xen_that_says_nothing_leaves_everything_as_it_is(void **state) {
        struct guest_view view;

        begin_with_own(7);
        fake.listener->lost(fake.userdata, "it is silent");
        settle();
        assert_int_equal(state_of_guest(), GUEST_UNKNOWN);
        guests_get(host.guests, UUID, &view, NULL);
        assert_string_equal(view.why, "it is silent");
        assert_int_equal(n_granted(7), 1);
        attach(2 * MIB);
        assert_int_equal(host.why.reason, REASON_source_unavailable);
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(state_of_guest(), GUEST_RUNNING);
        assert_true(has_told(""));
        assert_int_equal(fake.n_given, 1);
}

static void test_one_that_is_not_in_the_configuration_any_more_keeps_what_it_has_mapped(void **state) {
        begin_with_own(7);
        stop_daemon(true);
        host.is_forgotten = true;
        host.own = 0;
        start_daemon();
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(fixture_source(&host.f).in_regions, MIB);
        map_all(false);
        await(has_none);
        assert_int_equal(guests_get(host.guests, UUID, &(struct guest_view){ 0 }, NULL), -ENOENT);
}

static void test_one_that_is_another_hypervisors_now_has_nothing_of_before(void **state) {
        struct guest_view view;

        begin_with_own(7);
        stop_daemon(true);
        host.is_kvm = true;
        host.own = 0;
        start_daemon();
        assert_int_equal(guests_get(host.guests, "one", &view, NULL), 0);
        assert_string_equal(view.owner, "kvm:" UUID);
        assert_int_equal(view.n_windows, 0);
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(guests_get(host.guests, UUID, &view, NULL), 0);
        assert_string_equal(view.name, "one");
        map_all(false);
        await(has_none);
}

static int garble(struct session *session, void *userdata) {
        const char *note = session_note(session);
        char text[128];

        if (!guests_owns_session(note))
                return 0;
        snprintf(text, sizeof(text), "%.*s\nown x garbled\n", (int)strcspn(note, "\n"), note);
        assert_int_equal(session_set_note(session, text), 0);
        return 1;
}

static void test_what_no_line_of_the_note_names_is_taken_back(void **state) {
        begin_with_own(7);
        stop_daemon(true);
        assert_true(broker_visit_sessions(host.f.broker, garble, NULL));
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        assert_false(fake.granted[0].is_granted);
        assert_true(fake.granted[0].is_mapped && fixture_source(&host.f).in_regions >= MIB);
        fake.granted[0].is_mapped = false;
        await(has_none);
}

static void test_nothing_is_granted_while_nobody_knows_who_is_there(void **state) {
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        host.is_answered = false;
        guests_attach(host.guests, &(struct attach_request){ .guest = "one", .size = MIB }, on_done, NULL);
        fake.listener->lost(fake.userdata, "it says nothing");
        settle();
        assert_int_equal(fake.n_given, 0);
        lists(DOMAIN(7, XEN_RUNNING));
        assert_true(is_answered() && !host.why.error);
        assert_int_equal(n_granted(7), 1);
}

static void test_who_gets_no_window_for_want_of_memory_gets_it_later(void **state) {
        const struct device_options options = { .name = "windows", .node = -1, .commons = true };
        const struct caller other = fixture_session(&host.f, "xen:" OTHER);
        struct answer taken = { 0 };
        uint64_t device;

        host.own = 32 * MIB;
        start_daemon();
        device = fixture_open(&other, &options);
        device_reserve(&other, &(struct reserve_request){ .device = device, .size = 32 * MIB, .usable = MIB }, answer, &taken);
        settle();
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(window().window, 0);
        assert_int_equal(device_unreserve(&other, device, answer_handle(&taken), NULL), 0);
        await(has_own_alone);
}

/* What has been said and is not heard yet is not to take what the next one is to have. */
static void test_who_has_ended_is_hung_up_on_before_its_sessions_end(void **state) {
        begin_with_own(7);
        host.n_hung_up = 0;
        lists(DOMAIN_OVER(7, "reboot"));
        assert_int_equal(host.n_hung_up, 1);
        assert_int_equal(host.hung_up_at_end, 1);
        map_all(false);
        await(has_none);
}

static void test_a_daemon_that_ends_takes_everything_back(void **state) {
        begin_with_own(7);
        stop_daemon(false);
        settle();
        assert_int_equal(n_granted(7), 0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        start_daemon();
}

/* ---- what services share with it ---- */

static const struct grant_run own_runs[] = { { 8, 6 } };

static struct guest_grant_request wish(uint64_t pages) {
        return (struct guest_grant_request){ .guest = "one", .direction = DMA_BIDIRECTIONAL, .pages = pages, .runs = own_runs,
                                             .n_runs = 1 };
}

static uint64_t map_own_pages(void) {
        const struct guest_grant_request ask = wish(6);
        struct failure failure = { 0 };
        uint64_t grant = 0;

        if (guests_map_grant(host.guests, &host.f.caller, &ask, &grant, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return grant;
}

static enum reason why_not_mapped(const char *guest) {
        struct guest_grant_request ask = wish(6);
        struct failure failure = { 0 };
        uint64_t grant = 0;

        ask.guest = guest;
        assert_true(guests_map_grant(host.guests, &host.f.caller, &ask, &grant, &failure) < 0);
        return failure.reason;
}

static bool is_gone(uint64_t grant) {
        struct grant_view view;

        assert_int_equal(grant_get(&host.f.caller, grant, &view, NULL), 0);
        return view.gone;
}

/* Whether anybody has the other end of what is shared. */
static bool is_held(void) {
        char byte;
        int r;

        assert_int_equal(fcntl(fake.share.end, F_SETFL, O_NONBLOCK), 0);
        r = (int)read(fake.share.end, &byte, 1);
        return r < 0 && errno == EAGAIN;
}

static void test_a_guests_own_pages_are_mapped_while_it_runs(void **state) {
        struct grant_view view;
        uint64_t grant;

        start_daemon();
        assert_int_equal(why_not_mapped("nobody"), REASON_unknown_guest);
        no_domain();
        assert_int_equal(why_not_mapped("one"), REASON_source_unavailable);
        lists(DOMAIN(7, XEN_RUNNING));
        grant = map_own_pages();
        assert_int_equal(grant_get(&host.f.caller, grant, &view, NULL), 0);
        assert_string_equal(view.guest, "xen:" UUID);
        assert_int_equal(view.domain, 7);
        lists(DOMAIN(7, XEN_PAUSED));
        assert_false(is_gone(grant));
        assert_int_equal(grant_end(&host.f.caller, grant, NULL), 0);
}

static void test_pages_that_are_not_granted_are_not_mapped(void **state) {
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        fake.not_granted = 2;
        assert_int_equal(why_not_mapped("one"), REASON_bad_address);
        /* Where that cannot be read, Xen judges. */
        fake.foreign_error = -EOPNOTSUPP;
        grant_end(&host.f.caller, map_own_pages(), NULL);
        fake.foreign_error = -ENOENT;
        assert_int_equal(why_not_mapped("one"), REASON_gone);
}

static enum reason why_not_shared(void) {
        const struct guest_grant_request ask = wish(3);
        struct failure failure = { 0 };
        uint64_t grant;

        assert_true(guests_share(host.guests, &host.f.caller, &ask, &grant, &failure) < 0);
        return failure.reason;
}

static void test_nothing_is_shared_with_a_domain_that_is_not_the_guest_any_more(void **state) {
        fake.share.end = -1;
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        fake.no_guest = ENOENT;
        assert_int_equal(why_not_shared(), REASON_gone);
        assert_int_equal(fake.share.end, -1);
        fake.no_guest = EPERM;
        assert_int_equal(why_not_shared(), REASON_source_unavailable);
        assert_int_equal(fake.share.end, -1);
        /* Since it was looked for the first time. */
        fake.no_guest = ENOENT;
        fake.n_checks = 1;
        assert_int_equal(why_not_shared(), REASON_gone);
        assert_int_equal(fake.share.n_ended, 1);
        assert_false(is_held());
        close(fake.share.end);
}

static void test_what_is_mapped_of_a_guest_that_has_ended_is_gone(void **state) {
        uint64_t mapped, shared;
        const struct guest_grant_request ask = wish(3);

        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        mapped = map_own_pages();
        assert_int_equal(guests_share(host.guests, &host.f.caller, &ask, &shared, NULL), 0);
        host.f.events.recalls = 0;
        lists(DOMAIN(8, XEN_RUNNING));
        assert_true(is_gone(mapped));
        assert_true(is_gone(shared));
        assert_int_equal(host.f.events.recalls, 2);
        assert_true(is_held());
        grant_end(&host.f.caller, shared, NULL);
        settle();
        assert_int_equal(fake.share.n_ended, 1);
        assert_false(is_held());
        grant_end(&host.f.caller, mapped, NULL);
        close(fake.share.end);
}

static void test_what_is_mapped_of_one_that_is_not_in_the_configuration_any_more_is_gone(void **state) {
        uint64_t mapped;

        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        mapped = map_own_pages();
        stop_daemon(true);
        start_daemon();
        assert_false(is_gone(mapped));
        stop_daemon(true);
        host.is_forgotten = true;
        start_daemon();
        assert_true(is_gone(mapped));
        grant_end(&host.f.caller, mapped, NULL);
}

/* Who asks again, since the daemon ended before the answer, does not know of another one. */
static void test_the_same_key_maps_and_shares_the_same_whatever_is_known_of_the_guest(void **state) {
        struct guest_grant_request map = wish(6), share = wish(3);
        uint64_t mapped = 0, shared = 0, again = 0;

        map.request_key = "map";
        share.request_key = "share";
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(guests_map_grant(host.guests, &host.f.caller, &map, &mapped, NULL), 0);
        assert_int_equal(guests_share(host.guests, &host.f.caller, &share, &shared, NULL), 0);
        close(fake.share.end);
        stop_daemon(true);
        start_daemon();
        assert_int_equal(guests_map_grant(host.guests, &host.f.caller, &map, &again, NULL), 0);
        assert_int_equal(again, mapped);
        no_domain();
        assert_int_equal(guests_share(host.guests, &host.f.caller, &share, &again, NULL), 0);
        assert_int_equal(again, shared);
        grant_end(&host.f.caller, mapped, NULL);
        grant_end(&host.f.caller, shared, NULL);
}

static void test_of_a_guest_of_which_nothing_was_heard_it_is_not_said_that_it_does_not_run(void **state) {
        const struct guest_grant_request ask = wish(6);
        struct failure failure = { 0 };
        uint64_t grant;

        start_daemon();
        assert_true(guests_map_grant(host.guests, &host.f.caller, &ask, &grant, &failure) < 0);
        assert_int_equal(failure.reason, REASON_source_unavailable);
        assert_string_equal(failure.sentence, "The guest one cannot be reached: it is not known yet whether it runs");
        no_domain();
        failure = (struct failure){ 0 };
        assert_true(guests_share(host.guests, &host.f.caller, &ask, &grant, &failure) < 0);
        assert_string_equal(failure.sentence, "The guest one cannot be reached: it does not run");
        fake.listener->lost(fake.userdata, "Xen does not list its domains");
        failure = (struct failure){ 0 };
        assert_true(guests_map_grant(host.guests, &host.f.caller, &ask, &grant, &failure) < 0);
        assert_string_equal(failure.sentence, "The guest one cannot be reached: Xen does not list its domains");
}

static void test_what_is_shared_has_a_descriptor_until_it_ends(void **state) {
        const struct guest_grant_request ask = wish(3);
        struct failure failure = { 0 };
        struct grant_view view;
        uint64_t grant;
        int fd;

        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        fake.share.is_full = true;
        assert_true(guests_share(host.guests, &host.f.caller, &ask, &grant, &failure) < 0);
        assert_int_equal(failure.reason, REASON_limit);
        fake.share.is_full = false;
        assert_int_equal(guests_share(host.guests, &host.f.caller, &ask, &grant, NULL), 0);
        assert_int_equal(grant_get(&host.f.caller, grant, &view, NULL), 0);
        assert_int_equal(view.runs[0].first, 50);
        assert_int_equal(guests_dup_share(host.guests, grant, &fd, NULL), 0);
        grant_end(&host.f.caller, grant, NULL);
        settle();
        assert_int_equal(fake.share.n_ended, 1);
        assert_true(is_held());
        close(fd);
        assert_false(is_held());
        assert_true(guests_dup_share(host.guests, grant, &fd, &failure) < 0);
        assert_int_equal(failure.reason, REASON_gone);
        close(fake.share.end);
}

static uint64_t share_three(void) {
        const struct guest_grant_request ask = wish(3);
        uint64_t grant = 0;

        lists(DOMAIN(7, XEN_RUNNING));
        assert_int_equal(guests_share(host.guests, &host.f.caller, &ask, &grant, NULL), 0);
        return grant;
}

/* Who keeps its descriptor may let the daemon wait, where nothing may wait. */
static void test_of_a_share_that_ends_the_core_only_tells(void **state) {
        struct failure failure = { 0 };
        uint64_t grant;
        int fd;

        start_daemon();
        grant = share_three();
        grant_end(&host.f.caller, grant, NULL);
        assert_int_equal(fake.share.n_ended, 0);
        assert_true(guests_dup_share(host.guests, grant, &fd, &failure) < 0);
        assert_int_equal(failure.reason, REASON_gone);
        settle();
        assert_int_equal(fake.share.n_ended, 1);
        assert_false(is_held());
        close(fake.share.end);
}

/* It is put again should whoever keeps it die meanwhile. */
static void test_a_daemon_has_its_shares_open_until_its_very_end(void **state) {
        uint64_t grant;

        start_daemon();
        grant = share_three();
        host.closed = false;
        guests_close(host.guests, true, on_closed, NULL);
        while (!host.closed)
                uv_run(&host.loop, UV_RUN_ONCE);
        assert_true(is_held());
        guests_free(host.guests);
        assert_false(is_held());
        close(fake.share.end);
        start_daemon();
        grant_end(&host.f.caller, grant, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

/* ---- frames ---- */

static const uint64_t some_frames[4] = { 0x1f400, 0x1f402, 0x1f404, 0x1f406 }, some_pfns[2] = { 0x800, 0x10 };

static struct {
        unsigned n;
        struct failure failure;
        uint64_t extents[2];
        size_t n_extents;
        char why[256];
} got;

static void on_exchanged(void *userdata, const struct failure *failure, const struct exchange_result *result) {
        got.n++;
        got.failure = failure ? *failure : (struct failure){ 0 };
        if (failure)
                return;
        got.n_extents = result->n_extents;
        memcpy(got.extents, result->extents, result->n_extents * sizeof(*got.extents));
        snprintf(got.why, sizeof(got.why), "%s", result->why ? result->why->sentence : "");
}

static struct exchange_request request_by_itself(void) {
        return (struct exchange_request){
                .guest = UUID, .by_itself = true, .frames = some_frames, .n_frames = 4, .order = 1, .mask = UINT64_MAX,
        };
}

static struct exchange_request request_of_another(void) {
        struct exchange_request request = request_by_itself();

        request.guest = "one";
        request.by_itself = false;
        request.given_up = true;
        return request;
}

static struct ticket *ask_exchange(struct exchange_request request) {
        return guests_exchange(host.guests, &request, on_exchanged, NULL);
}

static void is_refused(struct exchange_request request, enum reason reason) {
        const unsigned asked = frames.n, answers = got.n;

        assert_null(ask_exchange(request));
        assert_int_equal(got.n, answers + 1);
        if (got.failure.reason != reason)
                fail_msg("%s: %s", reason_name(got.failure.reason), got.failure.sentence);
        assert_int_equal(frames.n, asked);
}

static void await_answers(unsigned n) {
        while (got.n < n)
                uv_run(&host.loop, UV_RUN_ONCE);
        assert_int_equal(got.n, n);
}

static int begin_exchange(void **state) {
        begin(state);
        memset(&frames, 0, sizeof(frames));
        memset(&got, 0, sizeof(got));
        sem_init(&frames.has_begun, 0, 0);
        sem_init(&frames.may_end, 0, 0);
        frames.n_extents = 2;
        start_daemon();
        lists(DOMAIN(7, XEN_RUNNING));
        return 0;
}

static int end_exchange(void **state) {
        int r = end(state);

        sem_destroy(&frames.has_begun);
        sem_destroy(&frames.may_end);
        return r;
}

static void test_a_guest_has_its_frames_exchanged(void **state) {
        struct exchange_request request = request_by_itself();

        request.mask = 0xffffffff;
        request.pfns = some_pfns;
        request.n_pfns = 2;
        assert_non_null(ask_exchange(request));
        sem_post(&frames.may_end);
        await_answers(1);
        assert_int_equal(got.failure.error, 0);
        assert_int_equal(got.n_extents, 2);
        assert_int_equal(got.extents[1], 0x3d402);
        assert_string_equal(got.why, "");
        assert_int_equal(frames.asked.domid, 7);
        assert_string_equal(frames.asked.uuid, UUID);
        assert_false(frames.asked.if_paused);
        assert_int_equal(frames.asked.order, 1);
        assert_int_equal(frames.asked.mask, 0xffffffff);
        assert_int_equal(frames.asked.n_frames, 4);
        assert_memory_equal(frames.frames, some_frames, sizeof(some_frames));
        assert_memory_equal(frames.pfns, some_pfns, sizeof(some_pfns));
}

static void test_what_xen_refuses_is_told(void **state) {
        frames.error = EBUSY;
        ask_exchange(request_by_itself());
        sem_post(&frames.may_end);
        await_answers(1);
        assert_int_equal(got.failure.reason, REASON_busy);
}

static void test_a_part_is_told_with_the_reason(void **state) {
        frames.n_extents = 1;
        ask_exchange(request_by_itself());
        sem_post(&frames.may_end);
        await_answers(1);
        assert_int_equal(got.n_extents, 1);
        assert_string_equal(got.why, "Xen has no more");
}

static void test_an_administrator_exchanges_frames_of_a_paused_guest_that_has_given_them_up(void **state) {
        struct exchange_request request = request_of_another();

        is_refused(request, REASON_not_permitted);
        assert_non_null(strstr(got.failure.sentence, "runs"));
        lists(DOMAIN(7, XEN_PAUSED));
        request.given_up = false;
        is_refused(request, REASON_not_permitted);
        assert_non_null(strstr(got.failure.sentence, "given_up"));
        ask_exchange(request_of_another());
        sem_post(&frames.may_end);
        await_answers(3);
        assert_int_equal(got.failure.error, 0);
        assert_true(frames.asked.if_paused);
}

static void test_a_guest_that_is_not_paravirtualised_has_no_frames(void **state) {
        lists(DOMAIN_HVM(8));
        is_refused(request_by_itself(), REASON_unsupported);
        is_refused(request_of_another(), REASON_unsupported);
}

static void test_a_guest_that_does_not_run_has_no_frames(void **state) {
        no_domain();
        is_refused(request_of_another(), REASON_source_unavailable);
}

static void test_of_two_guests_of_one_uuid_each_is_found_as_the_owner_that_it_is(void **state) {
        struct guest_view view;

        start_daemon();
        assert_non_null(guests_remember(host.guests, OTHER, false));
        assert_non_null(guests_remember(host.guests, UUID, false));
        assert_int_equal(guests_get_owner(host.guests, "xen:" UUID, &view), 0);
        assert_string_equal(view.name, "one");
        assert_int_equal(guests_get_owner(host.guests, "kvm:" UUID, &view), 0);
        assert_string_equal(view.name, UUID);
        assert_int_equal(guests_get_owner(host.guests, "xen:" OTHER, &view), -ENOENT);
}

static void test_nobody_has_frames_that_is_not_known(void **state) {
        struct exchange_request request = request_of_another();

        request.guest = "two";
        is_refused(request, REASON_unknown_guest);
}

static void test_what_cannot_be_is_refused_before_xen_is_asked(void **state) {
        static const uint64_t too_large[2] = { 0x800, UINT64_C(0xdab) << 32 };
        struct exchange_request request = request_by_itself();

        request.n_frames = 3;
        is_refused(request, REASON_bad_param);
        request.n_frames = 0;
        is_refused(request, REASON_bad_param);
        request.n_frames = EXCHANGE_FRAMES_MAX + 2;
        is_refused(request, REASON_limit);
        request = request_by_itself();
        request.order = 10;
        is_refused(request, REASON_limit);
        request.order = 64;
        is_refused(request, REASON_limit);
        request = request_by_itself();
        request.mask = 0x1ffe;
        is_refused(request, REASON_mask);
        request.mask = 0;
        is_refused(request, REASON_mask);
        request = request_by_itself();
        request.pfns = some_pfns;
        request.n_pfns = 1;
        is_refused(request, REASON_bad_param);
        request.pfns = too_large;
        request.n_pfns = 2;
        is_refused(request, REASON_bad_param);
}

static void test_only_an_administrator_has_pieces_that_xen_would_not_give_the_guest(void **state) {
        static uint64_t many[1024];
        struct exchange_request request = request_of_another();

        lists(DOMAIN(7, XEN_PAUSED));
        request.order = 10;
        request.frames = many;
        request.n_frames = 1024;
        frames.n_extents = 1;
        assert_non_null(ask_exchange(request));
        sem_post(&frames.may_end);
        await_answers(1);
        assert_int_equal(got.failure.error, 0);
        request.by_itself = true;
        is_refused(request, REASON_limit);
}

static void test_the_daemon_goes_on_meanwhile_and_the_guest_waits_with_the_next(void **state) {
        ask_exchange(request_by_itself());
        sem_wait(&frames.has_begun);
        is_refused(request_by_itself(), REASON_busy);
        attach(MIB);
        assert_true(host.window != 0);
        assert_int_equal(got.n, 1);
        sem_post(&frames.may_end);
        await_answers(2);
        assert_int_equal(got.failure.error, 0);
        ask_exchange(request_by_itself());
        sem_post(&frames.may_end);
        await_answers(3);
        assert_int_equal(got.failure.error, 0);
}

static void test_who_does_not_wait_any_more_is_not_told(void **state) {
        struct ticket *ticket = ask_exchange(request_by_itself());

        sem_wait(&frames.has_begun);
        ticket_cancel(ticket);
        sem_post(&frames.may_end);
        do {
                uv_run(&host.loop, UV_RUN_ONCE);
                ask_exchange(request_by_itself());
        } while (got.failure.reason == REASON_busy && !(got.failure = (struct failure){ 0 }).error);
        sem_post(&frames.may_end);
        await_answers(got.n + 1);
        assert_int_equal(got.failure.error, 0);
        assert_int_equal(frames.n, 2);
}

static void test_a_guest_may_end_meanwhile(void **state) {
        ask_exchange(request_by_itself());
        sem_wait(&frames.has_begun);
        no_domain();
        frames.error = ESTALE;
        sem_post(&frames.may_end);
        await_answers(1);
        assert_true(got.failure.error != 0);
}

static void test_a_daemon_that_ends_waits_for_xen_and_says_that_it_does_not_know(void **state) {
        ask_exchange(request_by_itself());
        sem_wait(&frames.has_begun);
        host.closed = false;
        guests_close(host.guests, true, on_closed, NULL);
        assert_int_equal(got.n, 1);
        assert_int_equal(got.failure.reason, REASON_gone);
        for (int i = 0; i < 20; i++)
                uv_run(&host.loop, UV_RUN_NOWAIT);
        assert_false(host.closed);
        sem_post(&frames.may_end);
        while (!host.closed)
                uv_run(&host.loop, UV_RUN_ONCE);
        guests_free(host.guests);
        assert_int_equal(got.n, 1);
        start_daemon();
}

int main(void) {
#define EXCHANGE(test) cmocka_unit_test_setup_teardown(test, begin_exchange, end_exchange)
        const struct CMUnitTest tests[] = {
                TEST(test_a_guest_that_runs_is_granted_its_window),
                TEST(test_a_guest_has_what_xenstore_says_in_each_run_of_it),
                TEST(test_what_an_administrator_has_set_holds_until_xenstore_says_something_else),
                TEST(test_a_guest_that_runs_gets_what_xenstore_says_later),
                TEST(test_a_guest_has_a_channel_in_each_run_of_it),
                TEST(test_that_programs_come_is_told_once_a_second),
                TEST(test_a_channel_is_made_for_a_guest_that_is_known_to_run),
                TEST(test_a_host_that_has_no_channels_is_asked_once_for_each_run),
                TEST(test_a_channel_for_which_there_was_no_memory_is_tried_again),
                TEST(test_only_a_paravirtualised_guest_sees_it_by_machine_addresses),
                TEST(test_what_a_dead_guest_has_mapped_is_nobodys_until_it_has_not),
                TEST(test_a_guest_that_boots_anew_is_another_domain),
                TEST(test_of_two_domains_the_known_one_is_it_until_it_has_ended),
                TEST(test_full_tables_are_a_limit_and_nothing_is_taken),
                TEST(test_a_table_that_is_nearly_full_is_told_of),
                TEST(test_since_when_it_is_granted_the_next_daemon_knows),
                TEST(test_pages_of_windows_are_what_a_guest_may_have_of_grants),
                TEST(test_a_mask_is_that_of_the_machines_addresses),
                TEST(test_what_is_not_mapped_comes_back_at_once),
                TEST(test_a_guest_that_never_unmaps_is_waited_for),
                TEST(test_the_next_daemon_finds_what_is_granted),
                TEST(test_what_was_granted_in_part_is_taken_back),
                TEST(test_what_a_guest_had_that_ended_without_a_daemon_is_taken_back),
                TEST(test_what_leaves_does_so_under_the_next_daemon_too),
                TEST(test_a_xen_that_says_nothing_leaves_everything_as_it_is),
                TEST(test_one_that_is_not_in_the_configuration_any_more_keeps_what_it_has_mapped),
                TEST(test_one_that_is_another_hypervisors_now_has_nothing_of_before),
                TEST(test_what_no_line_of_the_note_names_is_taken_back),
                TEST(test_nothing_is_granted_while_nobody_knows_who_is_there),
                TEST(test_who_gets_no_window_for_want_of_memory_gets_it_later),
                TEST(test_who_has_ended_is_hung_up_on_before_its_sessions_end),
                TEST(test_a_daemon_that_ends_takes_everything_back),
                TEST(test_a_guests_own_pages_are_mapped_while_it_runs),
                TEST(test_pages_that_are_not_granted_are_not_mapped),
                TEST(test_nothing_is_shared_with_a_domain_that_is_not_the_guest_any_more),
                TEST(test_what_is_mapped_of_a_guest_that_has_ended_is_gone),
                TEST(test_what_is_mapped_of_one_that_is_not_in_the_configuration_any_more_is_gone),
                TEST(test_the_same_key_maps_and_shares_the_same_whatever_is_known_of_the_guest),
                TEST(test_of_a_guest_of_which_nothing_was_heard_it_is_not_said_that_it_does_not_run),
                TEST(test_of_a_share_that_ends_the_core_only_tells),
                TEST(test_a_daemon_has_its_shares_open_until_its_very_end),
                TEST(test_of_two_guests_of_one_uuid_each_is_found_as_the_owner_that_it_is),
                TEST(test_what_is_shared_has_a_descriptor_until_it_ends),
                EXCHANGE(test_a_guest_has_its_frames_exchanged),
                EXCHANGE(test_what_xen_refuses_is_told),
                EXCHANGE(test_a_part_is_told_with_the_reason),
                EXCHANGE(test_an_administrator_exchanges_frames_of_a_paused_guest_that_has_given_them_up),
                EXCHANGE(test_a_guest_that_is_not_paravirtualised_has_no_frames),
                EXCHANGE(test_a_guest_that_does_not_run_has_no_frames),
                EXCHANGE(test_nobody_has_frames_that_is_not_known),
                EXCHANGE(test_what_cannot_be_is_refused_before_xen_is_asked),
                EXCHANGE(test_only_an_administrator_has_pieces_that_xen_would_not_give_the_guest),
                EXCHANGE(test_the_daemon_goes_on_meanwhile_and_the_guest_waits_with_the_next),
                EXCHANGE(test_who_does_not_wait_any_more_is_not_told),
                EXCHANGE(test_a_guest_may_end_meanwhile),
                EXCHANGE(test_a_daemon_that_ends_waits_for_xen_and_says_that_it_does_not_know),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
