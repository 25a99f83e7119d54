/* Guests of libvirt, by what libvirt says of them: here it is the test that says it. */
#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/place.h"
#include "daemon/iommu/none.h"
#include "tests/unit/core-fixture.h"

#define UUID "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"
#define OWNER "kvm:" UUID
#define DOMAIN(devices) "<domain><devices><controller type='pci' model='pci-root'/>" devices "</devices></domain>"
#define THERE DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>")
#define METADATA "<guest window='1M'/>"
#define NO_METADATA "<guest/>"

enum { REQUESTS = 16 };

static struct {
        struct fixture f;
        uv_loop_t loop;
        char directory[32];
        uint64_t configured; /* the window of the configuration */
        uint64_t unplug_ms; /* more than any test takes, unless it is to be over */
        const char *instead; /* the UUID of another guest, which alone is in the configuration; "": none is. Or NULL */
        const char *domain;  /* libvirt's name for the guest */
        struct guests *guests;
        char told[512]; /* what became of the guest, and whose sessions ended */
        bool closed;
        pid_t qemu; /* 0: there is none */
        bool has_machines;
        const char *machine; /* that this process is in, or NULL */
        const char *registered; /* the only machine there is, or NULL */
        int deaf; /* -errno: systemd answers nothing else of machines; or 0 */
        int let_in; /* the last one's socket, or -1 */
} host;

/* ---- libvirt ---- */

enum kind { ATTACH, DETACH, GET_XML, GET_METADATA, LIST };

static struct {
        const struct libvirt_listener *listener;
        void *userdata;
        struct asked {
                enum kind kind;
                libvirt_done_fn done;
                void *userdata;
        } asked[REQUESTS]; /* in order, and not answered yet */
        unsigned n_asked;
} fake;

const char *libvirt_unavailable(void) {
        return NULL;
}

int libvirt_new(uv_loop_t *loop, const struct libvirt_options *options, const struct libvirt_listener *ops, void *userdata,
                struct libvirt **ret) {
        fake.listener = ops;
        fake.userdata = userdata;
        *ret = (struct libvirt *)&fake;
        return 0;
}

static struct asked take(unsigned i) {
        struct asked asked = fake.asked[i];

        memmove(&fake.asked[i], &fake.asked[i + 1], (REQUESTS - i - 1) * sizeof(*fake.asked));
        fake.n_asked--;
        return asked;
}

void libvirt_close(struct libvirt *libvirt, void (*closed)(void *userdata)) {
        while (fake.n_asked) {
                struct asked asked = take(0);

                asked.done(asked.userdata, -ECANCELED, "it is closed");
        }
        closed(fake.userdata);
}

static int submit(enum kind kind, libvirt_done_fn done, void *userdata) {
        assert_true(fake.n_asked < REQUESTS - 1);
        fake.asked[fake.n_asked++] = (struct asked){ kind, done, userdata };
        return 0;
}

static void on_nothing(void *userdata, int status, const char *text) {
}

int libvirt_attach(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                   void *userdata) {
        return submit(ATTACH, done, userdata);
}

int libvirt_detach_alias(struct libvirt *libvirt, const char *uuid, const char *alias, bool persistent, libvirt_done_fn done,
                         void *userdata) {
        return submit(DETACH, done, userdata);
}

int libvirt_get_metadata(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata) {
        return submit(GET_METADATA, done, userdata);
}

int libvirt_get_xml(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata) {
        return submit(GET_XML, done, userdata);
}

int libvirt_list(struct libvirt *libvirt, libvirt_done_fn done, void *userdata) {
        return submit(LIST, done ? done : on_nothing, userdata);
}

/* ---- the host ---- */

static void on_channel(void *userdata, const char *owner, int fd, pid_t pid, uid_t uid) {
        if (host.let_in >= 0)
                close(host.let_in);
        host.let_in = fd;
}

static void on_known(void *userdata, const char *owner, pid_t pid) {
        if (host.let_in >= 0 && pid != getpid())
                close(host.let_in);
        host.let_in = -1;
}

static void tell(const char *what) {
        size_t used = strlen(host.told);

        snprintf(host.told + used, sizeof(host.told) - used, "%s ", what);
}

static void on_ended(void *userdata, const char *owner) {
        if (!host.instead)
                assert_string_equal(owner, OWNER);
        tell("ended");
}

static void on_lost(void *userdata) {
        tell("lost");
}

static void on_changed(void *userdata, const struct guest_view *view, enum guest_change change) {
        static const char *const names[] = { "started", "stopped", "rebooted", "attached", "detached", "connected" };

        tell(names[change]);
}

static const struct guests_listener listener = {
        .channel = on_channel, .known = on_known, .ended = on_ended, .lost = on_lost, .changed = on_changed,
};

static bool are_kept(void) {
        return host.has_machines;
}

static int of_process(pid_t pid, char ret_name[MACHINE_NAME_SIZE]) {
        if (!host.machine)
                return -ENODATA;
        strcpy(ret_name, host.machine);
        return 0;
}

static int is_there(const char *prefix) {
        return host.deaf ? host.deaf : host.registered && strncmp(host.registered, prefix, strlen(prefix)) == 0;
}

static const struct machine_ops machines = { .are_kept = are_kept, .of_process = of_process, .is_there = is_there };

static void settle(void) {
        for (int i = 0; i < 8; i++) {
                fixture_settle(&host.f);
                uv_run(&host.loop, UV_RUN_NOWAIT);
        }
}

static void start_daemon(void) {
        const struct guests_settings settings = {
                .directory = host.directory, .unplug_ms = host.unplug_ms, .machines = &machines,
        };
        const struct guest_definition definition = {
                .name = "one", .uuid = host.instead ? host.instead : UUID, .window_bytes = host.configured,
        };

        assert_int_equal(guests_new(&host.loop, host.f.broker, &settings, &host.guests), 0);
        if (*definition.uuid)
                assert_int_equal(guests_define(host.guests, &definition), 0);
        assert_int_equal(guests_begin(host.guests, &listener, NULL, NULL), 0);
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

struct commons {
        struct caller caller;
        uint64_t device;
};

static int find_commons(const struct device_view *view, void *userdata) {
        ((struct commons *)userdata)->device = view->handle;
        return strcmp(view->name, "windows") == 0;
}

static int reinstate(const struct region_view *view, void *userdata) {
        const struct commons *commons = userdata;

        if (view->device == commons->device)
                assert_int_equal(device_reinstate(&commons->caller, commons->device, view->handle, NULL), 0);
        return 0;
}

/* What the ledger does not know: here the broker goes on. */
static int forget(struct session *session, void *userdata) {
        struct commons commons = { .caller.session = session };

        if (!guests_owns_session(session_note(session)))
                return 0;
        assert_int_equal(device_visit(&commons.caller, NULL, find_commons, &commons, NULL), 0);
        return region_visit(&commons.caller, NULL, 0, reinstate, &commons, NULL);
}

/* The next one knows what the last one has written down. */
static void restart_daemon(void) {
        stop_daemon(true);
        assert_int_equal(broker_visit_sessions(host.f.broker, forget, NULL), 0);
        start_daemon();
}

static int begin(void **state) {
        static const struct translator_ops *const translators[] = { &translator_guest_ops, &translator_identity_ops, NULL };
        struct broker_options options;

        broker_options_default(&options);
        options.translators = translators;
        options.region_idle_ms = 0;
        memset(&host, 0, sizeof(host));
        host.unplug_ms = 600000;
        host.let_in = -1;
        host.domain = "one";
        memset(&fake, 0, sizeof(fake));
        fixture_start(&host.f, "64M@0x200000000", &options);
        assert_int_equal(uv_loop_init(&host.loop), 0);
        strcpy(host.directory, "/tmp/dmab-guest-XXXXXX");
        assert_non_null(mkdtemp(host.directory));
        return 0;
}

static void kill_qemu(void) {
        if (host.qemu) {
                kill(host.qemu, SIGKILL);
                waitpid(host.qemu, NULL, 0);
        }
        host.qemu = 0;
}

static int end(void **state) {
        kill_qemu();
        stop_daemon(false);
        if (host.let_in >= 0)
                close(host.let_in);
        settle();
        uv_run(&host.loop, UV_RUN_DEFAULT); /* servers that have lost their windows close when everybody has heard */
        assert_int_equal(uv_loop_close(&host.loop), 0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        fixture_stop(&host.f);
        assert_int_equal(rmdir(host.directory), 0);
        return 0;
}

/* ---- what libvirt says ---- */

static void connects(void) {
        fake.listener->connected(fake.userdata);
}

static void see(unsigned run, const char *metadata) {
        fake.listener->guest_seen(fake.userdata, &(struct libvirt_guest){ .uuid = UUID, .name = host.domain, .run = run,
                                                                          .metadata = metadata });
}

/* It is there, and this is all it tells. */
static void lists(unsigned run, const char *metadata) {
        connects();
        see(run, metadata);
        fake.listener->listed(fake.userdata);
        settle();
}

static void is_lost(void) {
        fake.listener->lost(fake.userdata, "it is away");
        settle();
}

/* The first question of this kind must be there. */
static void answers(enum kind kind, int status, const char *text) {
        struct asked asked;
        unsigned i;

        for (i = 0; i < fake.n_asked && fake.asked[i].kind != kind; i++)
                ;
        assert_true(i < fake.n_asked);
        asked = take(i);
        asked.done(asked.userdata, status, text);
        settle();
}

/* libvirtd is gone and another one knows the same run of the guest, of which it tells this. */
static void finds_again(const char *xml) {
        is_lost();
        lists(1, NO_METADATA);
        answers(GET_XML, 0, xml);
}

/* The daemon is. */
static void next_daemon_finds(const char *xml) {
        restart_daemon();
        lists(1, NO_METADATA);
        answers(GET_XML, 0, xml);
}

/* The guest runs, and libvirt is to plug its own window in. */
static void begin_to_plug(void) {
        host.configured = MIB;
        start_daemon();
        lists(1, NO_METADATA);
        for (int i = 0; i < 2; i++)
                answers(GET_XML, 0, DOMAIN(""));
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

static uint64_t window(void) {
        struct guest_window_view view = { 0 };

        guests_visit_windows(host.guests, OWNER, false, find, &view);
        return view.window;
}

static uint64_t n_windows(void) {
        struct guest_view view;

        assert_int_equal(guests_get(host.guests, UUID, &view, NULL), 0);
        return view.n_windows;
}

/* As the guest's own windows are, and those that an administrator wants: it has a place before it has memory, and the place
 * may be another when it has. */
static void is_plugged_in(void) {
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, 0, NULL);
        assert_int_not_equal(window(), 0);
}

static void lets_go_of(const char *alias) {
        fake.listener->device_removed(fake.userdata, UUID, alias);
        settle();
}

/* As QEMU is. -1: it cannot be. */
static int try_connect(const char *name) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%s/" UUID ".%s", host.directory, name);
        return connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? fd : -1;
}

static int connect_to(const char *name) {
        int fd = try_connect(name);

        assert_true(fd >= 0);
        settle();
        return fd;
}

/* A process that is connected to this window, until it is killed. */
static pid_t start_qemu(const char *name) {
        int pair[2];
        pid_t pid;
        char byte;

        assert_int_equal(pipe(pair), 0);
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (try_connect(name) >= 0 && write(pair[1], "", 1) == 1)
                        for (;;)
                                pause();
                _exit(1);
        }
        close(pair[1]);
        assert_int_equal(read(pair[0], &byte, 1), 1);
        close(pair[0]);
        settle();
        return pid;
}

/* libvirt does as it was asked, and QEMU connects. */
static void plugs_in(const char *name) {
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        kill_qemu();
        host.qemu = start_qemu(name);
        answers(ATTACH, 0, NULL);
        assert_int_not_equal(window(), 0);
}

/* What it waits for comes in a second or so. */
static void await_windows(uint64_t n) {
        for (int i = 0; n_windows() != n && i < 100; i++) {
                uv_run(&host.loop, UV_RUN_ONCE);
                settle();
        }
        assert_int_equal(n_windows(), n);
}

static bool was_asked(enum kind kind) {
        for (unsigned i = 0; i < fake.n_asked; i++)
                if (fake.asked[i].kind == kind)
                        return true;
        return false;
}

/* In a second or so; text: the answer. */
static void is_asked_again(enum kind kind, const char *text) {
        for (int tries = 0; !was_asked(kind) && tries < 100; tries++) {
                uv_run(&host.loop, UV_RUN_ONCE);
                settle();
        }
        answers(kind, 0, text);
}

static void on_time_over(uv_timer_t *timer) {
        *(bool *)timer->data = true;
        uv_close((uv_handle_t *)timer, NULL);
}

/* So often it is asked for a domain, in which there is nothing. */
static unsigned asks_within(unsigned ms) {
        bool is_over = false;
        uv_timer_t timer = { .data = &is_over };
        unsigned n = 0;

        uv_timer_init(&host.loop, &timer);
        uv_timer_start(&timer, on_time_over, ms, 0);
        while (!is_over) {
                uv_run(&host.loop, UV_RUN_ONCE);
                settle();
                if (was_asked(GET_XML)) {
                        answers(GET_XML, 0, DOMAIN(""));
                        n++;
                }
        }
        settle();
        return n;
}

static struct ticket *attach(struct answer *attached, const char *key) {
        *attached = (struct answer){ 0 };
        return guests_attach(host.guests, &(struct attach_request){ .guest = "one", .size = MIB, .request_key = key }, answer,
                             attached);
}

/* ---- runs ---- */

static void begin_with_own(uint64_t configured, const char *metadata) {
        host.configured = configured;
        start_daemon();
        lists(1, metadata);
        is_plugged_in();
        assert_true(has_told("started attached "));
}

static void test_another_run_gets_windows_of_its_own(void **state) {
        uint64_t first;

        begin_with_own(MIB, NO_METADATA);
        first = window();
        is_lost();
        lists(2, NO_METADATA);
        assert_true(has_told("ended detached stopped started "));
        is_plugged_in();
        assert_int_not_equal(window(), first);
        assert_int_equal(n_windows(), 1);
}

static void test_the_same_run_keeps_what_it_has(void **state) {
        uint64_t first;

        begin_with_own(MIB, NO_METADATA);
        first = window();
        finds_again(DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>"));
        assert_true(has_told(""));
        assert_int_equal(window(), first);
        assert_int_equal(fake.n_asked, 0);
}

static void test_another_run_is_known_to_the_next_daemon(void **state) {
        begin_with_own(0, METADATA);
        restart_daemon();
        lists(2, METADATA);
        assert_true(has_told("ended detached stopped started "));
        is_plugged_in();
        assert_int_equal(n_windows(), 1);
}

/* Nothing is known of runs: then it is taken for the same one. */
static void test_a_guest_without_a_number_is_the_same(void **state) {
        begin_with_own(MIB, NO_METADATA);
        is_lost();
        lists(0, NO_METADATA);
        assert_true(has_told(""));
        assert_int_equal(n_windows(), 1);
}

static void stays_away(const char *metadata) {
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
        restart_daemon();
        lists(1, metadata);
        assert_int_equal(n_windows(), 0);
        assert_int_equal(fake.n_asked, 0);
        assert_true(has_told(""));
}

static void test_an_own_window_that_was_taken_out_stays_away(void **state) {
        begin_with_own(MIB, NO_METADATA);
        stays_away(NO_METADATA);
        is_lost();
        lists(2, NO_METADATA);
        is_plugged_in();
}

static void test_one_of_the_metadata_stays_away_too(void **state) {
        begin_with_own(0, METADATA);
        stays_away(METADATA);
        /* But another one is wanted. */
        fake.listener->metadata_changed(fake.userdata, UUID, "<guest window='2M'/>");
        settle();
        is_plugged_in();
}

static void test_an_own_window_that_never_came_is_had_from_the_next_daemon(void **state) {
        host.configured = MIB;
        start_daemon();
        lists(1, NO_METADATA);
        restart_daemon();
        lists(1, NO_METADATA);
        /* QEMU has none, of which the last daemon may have heard nothing. */
        while (n_windows() && fake.n_asked && fake.asked[0].kind == GET_XML)
                answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, 0, NULL);
        assert_int_equal(n_windows(), 1);
        assert_int_not_equal(window(), 0);
}

/* libvirt goes away while it plugs one in. */
static void begin_in_doubt(void) {
        begin_to_plug();
        answers(ATTACH, -ECONNRESET, "it was cut");
        is_lost();
        assert_true(has_told("started "));
        assert_int_equal(n_windows(), 1);
        lists(1, NO_METADATA);
}

static void test_an_own_window_in_doubt_that_has_come_is_had(void **state) {
        begin_in_doubt();
        answers(GET_XML, 0, DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>"));
        assert_true(has_told("attached "));
        assert_int_equal(fake.n_asked, 0);
        stays_away(NO_METADATA);
}

static void test_an_own_window_in_doubt_that_has_not_come_is_tried_again(void **state) {
        begin_in_doubt();
        answers(GET_XML, 0, DOMAIN(""));
        is_plugged_in();
        assert_true(has_told("attached "));
        assert_int_equal(n_windows(), 1);
}

/* libvirtd dies of it, and the next one tells that QEMU has it not. */
static void own_window_fails(const char *metadata) {
        for (int i = 0; i < 2; i++)
                answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, -ECONNRESET, "it was cut");
        is_lost();
        lists(1, metadata);
        answers(GET_XML, 0, DOMAIN(""));
        assert_int_equal(n_windows(), was_asked(GET_XML));
}

/* Then it is not tried before so much time has passed, nor put off for longer. */
static void own_window_fails_and_waits(const char *metadata, uint64_t pause_ms) {
        const struct guest *guest = guest_find_uuid(host.guests, UUID);
        uint64_t from = uv_now(&host.loop);

        own_window_fails(metadata);
        assert_in_range(guest->own_at_ms, from + pause_ms, uv_now(&host.loop) + pause_ms);
        while (!was_asked(GET_XML)) {
                uv_run(&host.loop, UV_RUN_ONCE);
                settle();
        }
        assert_true(uv_now(&host.loop) >= guest->own_at_ms);
}

static void test_an_own_window_that_fails_each_time_is_tried_ever_more_rarely(void **state) {
        static const char another[] = "<guest window='2M'/>";

        start_daemon();
        lists(1, METADATA);
        own_window_fails(METADATA);
        own_window_fails_and_waits(METADATA, 1000);
        own_window_fails_and_waits(METADATA, 2000);
        is_plugged_in();
        assert_int_equal(n_windows(), 1);
        /* That was that: the next one that fails is the first one again. */
        lets_go_of("ua-dmabroker-4");
        assert_int_equal(n_windows(), 0);
        fake.listener->metadata_changed(fake.userdata, UUID, another);
        settle();
        own_window_fails(another);
        own_window_fails_and_waits(another, 1000);
        is_plugged_in();
}

/* At its start the firmware is at work. */
static void test_a_machine_of_type_pc_under_kvm_gets_a_window_only_when_somebody_asks_for_it(void **state) {
        static const char domain[] = "<domain type='kvm'><devices><controller type='pci' model='pci-root'/></devices></domain>";
        struct answer attached;

        host.configured = MIB;
        start_daemon();
        lists(1, NO_METADATA);
        answers(GET_XML, 0, domain);
        assert_int_equal(fake.n_asked, 0);
        assert_int_equal(n_windows(), 0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        attach(&attached, NULL);
        settle();
        for (int i = 0; i < 2; i++)
                answers(GET_XML, 0, domain);
        answers(ATTACH, 0, NULL);
        assert_int_equal(n_windows(), 1);
        assert_int_not_equal(window(), 0);
}

static void test_another_window_is_not_the_own_one(void **state) {
        struct answer attached;

        start_daemon();
        lists(1, NO_METADATA);
        attach(&attached, NULL);
        is_plugged_in();
        host.configured = 2 * MIB;
        restart_daemon();
        lists(1, NO_METADATA);
        /* Whether it has the first one, then for a place, twice. */
        for (int i = 0; i < 3; i++)
                answers(GET_XML, 0, DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>"));
        answers(ATTACH, 0, NULL);
        assert_int_equal(n_windows(), 2);
        restart_daemon();
        lists(1, NO_METADATA);
        for (int i = 0; i < 2; i++)
                answers(GET_XML, 0, DOMAIN("<shmem><alias name='ua-dmabroker-1'/><alias name='ua-dmabroker-2'/></shmem>"));
        assert_int_equal(fake.n_asked, 0);
        assert_int_equal(n_windows(), 2);
}

static void test_another_size_in_the_configuration_is_had_from_the_next_daemon(void **state) {
        begin_with_own(MIB, NO_METADATA);
        lets_go_of("ua-dmabroker-1");
        host.configured = 2 * MIB;
        restart_daemon();
        lists(1, NO_METADATA);
        is_plugged_in();
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
}

/* It is plugged in to a process of its own. */
static void begin_with_qemu(void) {
        host.configured = MIB;
        start_daemon();
        lists(1, NO_METADATA);
        plugs_in("1");
        assert_true(has_told("started attached "));
}

/* The version that QEMU is told: not its own where it does not get the window. */
static bool gets_window(int fd) {
        int64_t version;

        settle();
        assert_int_equal(recv(fd, &version, sizeof(version), MSG_DONTWAIT), sizeof(version));
        return version == 0;
}

/* To this one, which is connected by what is returned. */
static int begin_as_qemu(void) {
        int fd;

        begin_to_plug();
        fd = connect_to("1");
        answers(ATTACH, 0, NULL);
        assert_true(has_told("started attached "));
        return fd;
}

/* Each life of libvirtd counts from 1. */
static void test_another_run_may_have_the_same_number(void **state) {
        begin_with_qemu();
        is_lost();
        kill_qemu();
        lists(1, NO_METADATA);
        assert_true(has_told("ended detached stopped started "));
        plugs_in("2");
        assert_int_equal(n_windows(), 1);
        lets_go_of("ua-dmabroker-2");
        assert_true(has_told("attached detached "));
        /* Nor does it need a window, or a daemon, that it is another one. */
        stop_daemon(true);
        kill_qemu();
        start_daemon();
        lists(1, NO_METADATA);
        is_plugged_in();
        assert_int_equal(n_windows(), 1);
}

static void test_the_end_of_its_process_is_the_guests(void **state) {
        begin_with_qemu();
        is_lost();
        kill_qemu();
        await_windows(0);
        assert_true(has_told("ended detached stopped "));
}

/* It was started anew, with the number of the first one, before that one had ended. */
static void test_a_second_process_is_looked_for_when_the_first_ends(void **state) {
        begin_with_qemu();
        finds_again(THERE);
        kill_qemu();
        await_windows(0);
        assert_true(has_told("ended detached stopped "));
        while (!was_asked(LIST))
                uv_run(&host.loop, UV_RUN_ONCE);
        see(1, NO_METADATA);
        fake.listener->listed(fake.userdata);
        answers(LIST, 0, NULL);
        assert_true(has_told("started "));
        is_plugged_in();
}

static void test_none_is_looked_for_where_libvirt_tells_of_the_end(void **state) {
        begin_with_qemu();
        kill_qemu();
        await_windows(0);
        fake.listener->guest_stopped(fake.userdata, UUID, LIBVIRT_STOP_SHUTDOWN);
        assert_int_equal(asks_within(1500), 0);
        assert_int_equal(fake.n_asked, 0);
}

static void test_a_process_is_known_also_where_libvirt_tells_of_its_window_later(void **state) {
        begin_to_plug();
        host.qemu = start_qemu("1");
        answers(ATTACH, -ECONNRESET, "it was cut");
        finds_again(THERE);
        assert_true(has_told("started attached "));
        is_lost();
        kill_qemu();
        await_windows(0);
        assert_true(has_told("ended detached stopped "));
}

/* ---- doubt ---- */

static void test_a_window_that_is_not_listed_stays_while_somebody_is_connected_to_it(void **state) {
        int fd;

        fd = begin_as_qemu();
        finds_again(DOMAIN(""));
        assert_int_equal(n_windows(), 1);
        close(fd);
        settle();
        answers(GET_XML, 0, DOMAIN(""));
        assert_int_equal(n_windows(), 0);
}

/* What was written there is its QEMU's, which does not come again. */
static void test_a_window_is_given_once(void **state) {
        int qemu = begin_as_qemu(), next;

        assert_true(gets_window(qemu));
        close(qemu);
        settle();
        next = connect_to("1");
        assert_false(gets_window(next));
        close(next);
        is_lost();
        next = connect_to("1");
        assert_false(gets_window(next));
        close(next);
}

static void test_a_window_of_a_known_process_is_given_to_no_other(void **state) {
        struct answer attached;
        int other;

        begin_with_qemu();
        attach(&attached, NULL);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        other = connect_to("2");
        assert_false(gets_window(other));
        answers(ATTACH, -EINVAL, "it did not work");
        require_refused(&attached, REASON_source_unavailable);
        assert_int_equal(n_windows(), 1);
        close(other);
}

static void test_whoever_denies_a_window_is_asked_ever_more_rarely(void **state) {
        int fd = begin_as_qemu();

        finds_again(DOMAIN(""));
        assert_int_equal(asks_within(2500), 1);
        assert_int_equal(n_windows(), 1);
        /* But not where there is something new. */
        finds_again(DOMAIN(""));
        close(fd);
        settle();
        answers(GET_XML, 0, DOMAIN(""));
        assert_int_equal(n_windows(), 0);
}

static void lists_nothing(void) {
        connects();
        fake.listener->listed(fake.userdata);
        settle();
}

static void test_a_guest_that_is_not_listed_has_not_ended_while_somebody_is_connected_to_its_window(void **state) {
        int fd;

        fd = begin_as_qemu();
        is_lost();
        lists_nothing();
        assert_int_equal(n_windows(), 1);
        finds_again(DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>"));
        is_lost();
        lists_nothing();
        assert_true(has_told(""));
        assert_int_equal(n_windows(), 1);
        close(fd);
        settle();
        assert_true(has_told("ended detached stopped "));
        assert_int_equal(n_windows(), 0);
}

/* The connection to the last daemon has ended with it, and the first libvirt that is asked may be another one. */
static void test_a_process_that_has_a_window_is_known_to_the_next_daemon(void **state) {
        struct guest_view view;

        begin_with_qemu();
        restart_daemon();
        lists_nothing();
        assert_true(has_told(""));
        assert_int_equal(n_windows(), 1);
        assert_int_equal(guests_get(host.guests, "one", &view, NULL), 0);
        assert_string_equal(view.why, "libvirt does not know this guest, but a process has its memory");
        restart_daemon();
        /* Nor is this one believed, which may have another guest of the kind. */
        lists(1, NO_METADATA);
        answers(GET_XML, 0, DOMAIN(""));
        assert_true(has_told(""));
        assert_int_equal(n_windows(), 1);
        is_lost();
        lists_nothing();
        kill_qemu();
        await_windows(0);
        assert_true(has_told("ended detached stopped "));
}

/* What the guest's programs get lies in its own window, and nowhere else. */
static void check_memory(void) {
        const struct caller guest = fixture_session(&host.f, OWNER);
        const struct alloc_request half = {
                .device = fixture_open(&guest, &(struct device_options){ .name = "nic", .node = -1 }), .size = MIB / 2,
        };
        struct answer more = { 0 };

        assert_int_equal(fixture_alloc(&host.f, &guest, &half).region, window());
        coherent_alloc(&guest, &half, answer, &more);
        settle();
        require_refused(&more, REASON_no_memory);
        session_close(guest.session);
        settle();
}

static void starts(unsigned run) {
        fake.listener->guest_started(fake.userdata, &(struct libvirt_guest){ .uuid = UUID, .name = host.domain, .run = run });
        settle();
        answers(GET_METADATA, 0, NO_METADATA);
}

/* As some administrator does who does not know that the first one lives; run: libvirt counts anew. */
static void check_second_qemu(unsigned run) {
        uint64_t first;

        begin_with_qemu();
        first = window();
        is_lost();
        lists_nothing();
        starts(run);
        assert_true(has_told("ended stopped started "));
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, 0, NULL);
        assert_true(has_told("attached "));
        assert_int_equal(n_windows(), 2);
        /* The guest's own are the new one alone. */
        assert_int_not_equal(window(), first);
        assert_int_equal(guests_bind(host.guests, OWNER, first, 16 * MIB, NULL), -ENOENT);
        assert_int_equal(guests_bind(host.guests, OWNER, window(), 16 * MIB, NULL), 0);
        check_memory();
        restart_daemon();
        lists(run, NO_METADATA);
        answers(GET_XML, 0, DOMAIN("<shmem><alias name='ua-dmabroker-2'/></shmem>"));
        assert_int_equal(n_windows(), 2);
        check_memory();
        kill_qemu();
        await_windows(1);
        assert_int_not_equal(window(), first);
        assert_true(has_told("detached "));
}

static void test_a_second_qemu_of_a_guest_takes_nothing_from_the_first(void **state) {
        check_second_qemu(2);
}

static void test_a_second_qemu_with_the_number_of_the_first_does_not_either(void **state) {
        check_second_qemu(1);
}

/* It was what kept the memory from the second one, say. */
static void test_with_the_first_qemu_gone_the_second_tries_for_its_own_window_again(void **state) {
        begin_with_qemu();
        is_lost();
        lists_nothing();
        starts(2);
        answers(GET_XML, 0, "<domain><devices/></domain>");
        assert_int_equal(n_windows(), 1);
        kill_qemu();
        is_asked_again(GET_XML, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, 0, NULL);
        assert_int_equal(n_windows(), 1);
        assert_int_not_equal(window(), 0);
}

static void test_a_second_qemu_that_does_not_start_changes_nothing(void **state) {
        begin_with_qemu();
        is_lost();
        lists_nothing();
        fake.listener->guest_resumed(fake.userdata, UUID);
        fake.listener->guest_stopped(fake.userdata, UUID, LIBVIRT_STOP_FAILED);
        settle();
        assert_true(has_told(""));
        assert_int_equal(n_windows(), 1);
}

/* libvirtd is killed when QEMU has the window, and the next one does not know of it; nor may the next daemon believe that. */
static void test_a_window_of_which_libvirt_has_lost_the_record_is_not_taken_from_its_qemu(void **state) {
        uint64_t first;

        begin_to_plug();
        host.qemu = start_qemu("1");
        first = window();
        answers(ATTACH, -ECONNRESET, "it was cut");
        finds_again(DOMAIN(""));
        assert_int_equal(n_windows(), 1);
        for (int i = 0; i < 2; i++) {
                next_daemon_finds(DOMAIN(""));
                assert_int_equal(n_windows(), 1);
                assert_true(has_told(""));
        }
        kill_qemu();
        is_asked_again(GET_XML, DOMAIN(""));
        assert_int_not_equal(window(), first);
}

static void test_a_window_that_was_had_and_is_denied_since_is_not_taken_by_the_next_daemon(void **state) {
        begin_with_qemu();
        finds_again(DOMAIN(""));
        next_daemon_finds(DOMAIN(""));
        assert_int_equal(n_windows(), 1);
        assert_true(has_told(""));
        kill_qemu();
        await_windows(0);
}

/* libvirt is about to plug it in when the daemon is killed. */
static void test_a_window_that_is_about_to_be_plugged_in_is_not_taken_by_the_next_daemon(void **state) {
        uint64_t first;

        begin_to_plug();
        host.qemu = start_qemu("1");
        first = window();
        next_daemon_finds(DOMAIN(""));
        assert_int_equal(window(), first);
        finds_again(THERE);
        assert_int_equal(window(), first);
        /* From then on libvirt is believed again. */
        next_daemon_finds(DOMAIN(""));
        assert_int_not_equal(window(), first);
}

static void forget_a_guest_that_runs(const char *instead) {
        struct guest_view view;

        begin_with_qemu();
        host.configured = 0;
        host.instead = instead;
        for (int i = 0; i < 2; i++) {
                restart_daemon();
                assert_int_equal(guests_get(host.guests, UUID, &view, NULL), 0);
                assert_int_equal(view.n_windows, 1);
                assert_int_equal(view.state, GUEST_UNKNOWN);
                assert_non_null(strstr(view.why, "not in the configuration"));
                assert_int_equal(fixture_source(&host.f).in_regions, MIB);
        }
        kill_qemu();
        for (int i = 0; fixture_source(&host.f).in_regions && i < 100; i++) {
                uv_run(&host.loop, UV_RUN_ONCE);
                settle();
        }
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        assert_true(guests_get(host.guests, UUID, &view, NULL) < 0);
}

static void test_of_a_guest_that_is_not_in_the_configuration_any_more_its_qemu_keeps_what_it_has(void **state) {
        forget_a_guest_that_runs("0f1e2d3c-4b5a-4697-8877-665544332211");
}

static void test_so_it_does_where_no_guest_is_left_in_the_configuration(void **state) {
        forget_a_guest_that_runs("");
}

static void test_what_was_let_go_of_without_a_daemon_is_given_back(void **state) {
        begin_with_qemu();
        next_daemon_finds(DOMAIN(""));
        assert_int_equal(n_windows(), 0);
}

/* As daemons wrote it that noted no processes of windows. */
static int write_as_before(struct session *session, void *userdata) {
        char note[512], *line, *end;

        if (!guests_owns_session(session_note(session)))
                return 0;
        snprintf(note, sizeof(note), "%s", session_note(session));
        line = strchr(note, '\n');
        *line = '\0';
        for (int i = 0; i < 2; i++)
                *strrchr(note, ' ') = '\0';
        end = note + strlen(note);
        *line = '\n';
        memmove(end, line, strlen(line) + 1);
        for (int i = 0; i < 5; i++)
                *strrchr(note, ' ') = '\0';
        line = strrchr(note, ' ');
        line[0] = '\n';
        line[1] = '\0';
        return session_set_note(session, note);
}

static void test_what_an_older_daemon_has_written_is_read(void **state) {
        begin_with_qemu();
        stop_daemon(true);
        assert_int_equal(broker_visit_sessions(host.f.broker, write_as_before, NULL), 0);
        start_daemon();
        lists(1, NO_METADATA);
        answers(GET_XML, 0, DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>"));
        assert_true(has_told(""));
        assert_int_equal(n_windows(), 1);
        restart_daemon();
        lists_nothing();
        assert_int_equal(n_windows(), 0);
}

/* ---- places ---- */

static void test_without_a_place_no_memory_is_taken(void **state) {
        struct answer attached;

        start_daemon();
        lists(1, NO_METADATA);
        attach(&attached, NULL);
        answers(GET_XML, 0, "<domain><devices/></domain>");
        require_refused(&attached, REASON_source_unavailable);
        attach(&attached, NULL);
        answers(GET_XML, 0, "nonsense");
        require_refused(&attached, REASON_source_unavailable);
        assert_null(strstr(attached.failure.sentence, "nonsense"));
        attach(&attached, NULL);
        answers(GET_XML, -ECONNRESET, "it was cut");
        require_refused(&attached, REASON_gone);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
        assert_int_equal(n_windows(), 0);
}

static void test_a_guest_may_end_while_a_place_is_looked_for(void **state) {
        struct answer attached;
        struct ticket *ticket;

        start_daemon();
        lists(1, NO_METADATA);
        attach(&attached, NULL);
        lists(2, NO_METADATA);
        require_refused(&attached, REASON_gone);
        answers(GET_XML, 0, DOMAIN(""));
        assert_int_equal(fake.n_asked, 0);
        assert_int_equal(n_windows(), 0);
        /* And so may its caller, and the daemon. */
        ticket = attach(&attached, NULL);
        ticket->cancel(ticket);
}

static void test_one_with_the_same_key_needs_no_place(void **state) {
        struct answer attached, again;

        start_daemon();
        lists(1, NO_METADATA);
        attach(&attached, "k");
        is_plugged_in();
        attach(&again, "k");
        settle();
        assert_int_equal(fake.n_asked, 0);
        assert_int_equal(answer_handle(&again), answer_handle(&attached));
        next_daemon_finds(DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>"));
        attach(&again, "k");
        settle();
        assert_int_equal(fake.n_asked, 0);
        assert_int_equal(answer_handle(&again), answer_handle(&attached));
}

/* The second overtakes the first, which was to look for a place. */
static void test_two_with_the_same_key_are_one(void **state) {
        struct answer first, second;

        start_daemon();
        lists(1, NO_METADATA);
        attach(&first, "k");
        attach(&second, "k");
        settle();
        answers(GET_XML, 0, DOMAIN(""));
        require_refused(&first, REASON_busy);
        answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, 0, NULL);
        assert_int_equal(answer_handle(&second), window());
        assert_int_equal(n_windows(), 1);
}

/* ---- what nobody was promised ---- */

/* The guest boots, say. */
static void test_what_nobody_wants_is_asked_for_again_and_keeps_no_own_window_away(void **state) {
        static const char *const there = DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>");
        struct answer attached;

        host.unplug_ms = 100;
        start_daemon();
        lists(1, NO_METADATA);
        attach(&attached, NULL);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, -ECONNRESET, "it was cut");
        require_refused(&attached, REASON_gone);
        host.configured = 2 * MIB;
        restart_daemon();
        lists(1, NO_METADATA);
        for (int i = 0; i < 3; i++)
                answers(GET_XML, 0, there);
        answers(ATTACH, 0, NULL);
        assert_true(has_told("attached "));
        answers(DETACH, 0, NULL);
        is_asked_again(DETACH, NULL);
        is_asked_again(DETACH, NULL);
        assert_int_equal(n_windows(), 2);
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 1);
}

/* The guest finds it before libvirt is lost. */
static void test_what_nobody_wants_stays_as_long_as_the_guest_uses_it(void **state) {
        struct answer attached;
        struct caller guest;

        start_daemon();
        lists(1, NO_METADATA);
        attach(&attached, NULL);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        assert_int_equal(guests_bind(host.guests, OWNER, window(), 16 * MIB, NULL), 0);
        guest = fixture_session(&host.f, OWNER);
        fixture_alloc(&host.f, &guest, &(struct alloc_request){
                .device = fixture_open(&guest, &(struct device_options){ .name = "nic", .node = -1 }), .size = MIB / 2,
        });
        answers(ATTACH, -ECONNRESET, "it was cut");
        require_refused(&attached, REASON_gone);
        lists(1, NO_METADATA);
        answers(GET_XML, 0, THERE);
        assert_false(was_asked(DETACH));
        session_close(guest.session);
        settle();
        is_asked_again(DETACH, NULL);
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
}

static void test_the_next_daemon_takes_out_what_nobody_was_promised(void **state) {
        struct answer attached;

        start_daemon();
        lists(1, NO_METADATA);
        attach(&attached, NULL);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, -ECONNRESET, "it was cut");
        require_refused(&attached, REASON_gone);
        next_daemon_finds(DOMAIN("<shmem><alias name='ua-dmabroker-1'/></shmem>"));
        answers(DETACH, 0, NULL);
        assert_int_equal(n_windows(), 1);
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
        assert_true(has_told(""));
}

/* ---- what lies in windows, and rests there ---- */

enum { MOST = MIB - WINDOW_TAIL };

static void sees(uint64_t handle, uint64_t guest_addr) {
        assert_int_equal(guests_bind(host.guests, OWNER, handle, guest_addr, NULL), 0);
}

static struct caller start_program(uint64_t *ret_device) {
        struct caller program = fixture_session(&host.f, OWNER);

        *ret_device = fixture_open(&program, &(struct device_options){ .name = "nic", .node = -1 });
        return program;
}

/* A program has all that there is in each of two windows, and dies; its device may write there still. */
static void leave_at_rest_in_two_windows(void) {
        struct answer attached;
        struct caller program;
        uint64_t device;

        begin_with_own(MIB, NO_METADATA);
        sees(window(), 16 * MIB);
        attach(&attached, NULL);
        for (int i = 0; i < 2; i++)
                answers(GET_XML, 0, DOMAIN(""));
        answers(ATTACH, 0, NULL);
        sees(answer_handle(&attached), 32 * MIB);
        program = start_program(&device);
        for (int i = 0; i < 2; i++)
                fixture_alloc(&host.f, &program, &(struct alloc_request){ .device = device, .size = MOST });
        session_abandon(program.session);
        settle();
        assert_int_equal(broker_quarantined(host.f.broker), 2 * MOST);
}

static void test_with_a_window_goes_what_rests_in_it_and_nothing_else(void **state) {
        leave_at_rest_in_two_windows();
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 1);
        assert_int_equal(fixture_source(&host.f).in_regions, MIB);
        assert_int_equal(broker_quarantined(host.f.broker), MOST);
}

/* ---- while a window is leaving ---- */

static void program_gets(const struct caller *program, uint64_t device) {
        fixture_alloc(&host.f, program, &(struct alloc_request){ .device = device, .size = 4096 });
}

static void program_gets_nothing(const struct caller *program, uint64_t device) {
        struct answer more = { 0 };

        coherent_alloc(program, &(struct alloc_request){ .device = device, .size = 4096 }, answer, &more);
        settle();
        require_refused(&more, REASON_no_memory);
}

static bool is_in(enum window_state state) {
        struct guest_window_view view = { 0 };

        guests_visit_windows(host.guests, OWNER, false, find, &view);
        return view.state == state;
}

/* With its own window, and a program that has a device. */
static struct caller begin_with_program(uint64_t *ret_device) {
        begin_with_own(MIB, NO_METADATA);
        sees(window(), 16 * MIB);
        return start_program(ret_device);
}

static void detach(struct answer *detached, bool force) {
        *detached = (struct answer){ 0 };
        guests_detach(host.guests, window(), force, answer, detached);
        settle();
}

/* The same run of it goes on, with the windows that it has. */
static void test_a_guest_that_is_in_the_configuration_again_has_its_windows(void **state) {
        struct answer one = { 0 }, detached = { 0 };
        struct caller program;
        uint64_t device, first;

        begin_with_qemu();
        first = window();
        sees(first, 16 * MIB);
        host.instead = "";
        restart_daemon();
        restart_daemon();
        host.instead = NULL;
        next_daemon_finds(THERE);
        assert_true(has_told(""));
        assert_int_equal(n_windows(), 1);
        assert_int_equal(window(), first);
        /* It may have booted anew meanwhile. */
        program = start_program(&device);
        coherent_alloc(&program, &(struct alloc_request){ .device = device, .size = MIB / 2 }, answer, &one);
        settle();
        assert_true(one.given && one.failure.error);
        sees(first, 32 * MIB);
        one = (struct answer){ 0 };
        coherent_alloc(&program, &(struct alloc_request){ .device = device, .size = MIB / 2 }, answer, &one);
        settle();
        assert_true(one.given && !one.failure.error);
        session_close(program.session);
        guests_detach(host.guests, first, false, answer, &detached);
        answers(DETACH, 0, NULL);
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
}

/* A worker of the daemon's zeroes something in it, while its guest ends. */
static void begin_to_zero(void) {
        static struct answer waits; /* may be given when the guest has ended */
        uint64_t device;
        struct caller program = begin_with_program(&device);

        waits.given = false;
        coherent_alloc(&program, &(struct alloc_request){ .device = device, .size = MIB / 2, .zero = true }, answer, &waits);
        assert_false(waits.given);
        session_abandon(program.session);
        host.configured = 0;
        fake.listener->guest_stopped(fake.userdata, UUID, LIBVIRT_STOP_FAILED);
        assert_int_equal(n_windows(), 1);
}

static void test_a_window_goes_back_when_the_daemon_has_done_with_it(void **state) {
        begin_to_zero();
        await_windows(0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
}

static void test_a_window_that_the_daemon_was_at_work_in_when_it_died_goes_back(void **state) {
        begin_to_zero();
        restart_daemon();
        await_windows(0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
}

/* Its QEMU lives on, which has let go of the device. */
static void test_a_window_that_the_guest_lets_go_of_waits_for_the_daemon_alone(void **state) {
        static struct answer waits; /* may be given later */
        struct caller program;
        uint64_t device;

        begin_with_qemu();
        sees(window(), 16 * MIB);
        program = start_program(&device);
        waits.given = false;
        coherent_alloc(&program, &(struct alloc_request){ .device = device, .size = MIB / 2, .zero = true }, answer, &waits);
        assert_false(waits.given);
        session_abandon(program.session);
        fake.listener->device_removed(fake.userdata, UUID, "ua-dmabroker-1");
        assert_int_equal(n_windows(), 1);
        await_windows(0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
}

/* As a guest that was followed by its monitor before: libvirt knows nothing of a device called dmabroker-1. */
static void test_a_window_that_was_plugged_in_by_others_is_not_asked_for(void **state) {
        struct guest *guest;
        char *note;

        begin_with_qemu();
        guest = guest_find_uuid(host.guests, UUID);
        note = strdup(session_note(guest->caller.session));
        assert_int_equal(strchr(note, '\n')[-3], '1');
        strchr(note, '\n')[-3] = '2';
        assert_int_equal(session_set_note(guest->caller.session, note), 0);
        free(note);
        restart_daemon();
        lists(1, NO_METADATA);
        if (was_asked(GET_XML))
                answers(GET_XML, 0, DOMAIN(""));
        assert_int_equal(n_windows(), 1);
        assert_int_equal(fixture_source(&host.f).in_regions, MIB);
        kill_qemu();
        await_windows(0);
}

static void test_what_a_garbled_note_names_is_kept_from_others_while_qemu_lives(void **state) {
        char note[128];

        begin_with_qemu();
        snprintf(note, sizeof(note), "guest " UUID " %ld %" PRIu64 " 1 0 0 1\nwindow ?\n", (long)host.qemu,
                 alive_since(host.qemu));
        assert_int_equal(session_set_note(guest_find_uuid(host.guests, UUID)->caller.session, note), 0);
        host.configured = 0;
        for (int i = 0; i < 2; i++) {
                restart_daemon();
                assert_int_equal(n_windows(), 1);
                assert_int_equal(fixture_source(&host.f).in_regions, MIB);
        }
        kill_qemu();
        await_windows(0);
}

static void test_what_is_reserved_for_windows_and_in_no_note_goes_back(void **state) {
        struct guest *guest;

        begin_with_own(MIB, NO_METADATA);
        guest = guest_find_uuid(host.guests, UUID);
        assert_int_equal(session_set_note(guest->caller.session, "guest " UUID " 0 0 0 0 0\n"), 0);
        host.configured = 0;
        restart_daemon();
        await_windows(0);
        assert_int_equal(fixture_source(&host.f).in_regions, 0);
}

static void test_that_a_guest_has_booted_anew_is_known_to_the_next_daemon(void **state) {
        struct answer detached;

        host.unplug_ms = 100;
        begin_with_own(MIB, NO_METADATA);
        detach(&detached, false);
        answers(DETACH, 0, NULL);
        while (!detached.given)
                uv_run(&host.loop, UV_RUN_ONCE);
        assert_true(is_in(WINDOW_LEAVING));
        fake.listener->guest_rebooted(fake.userdata, UUID);
        settle();
        next_daemon_finds(THERE);
        assert_true(is_in(WINDOW_PLUGGED));
}

static void test_what_is_leaving_serves_nobody(void **state) {
        struct answer detached;
        struct caller program;
        uint64_t device;

        host.unplug_ms = 100;
        program = begin_with_program(&device);
        detach(&detached, false);
        program_gets_nothing(&program, device);
        answers(DETACH, 0, NULL);
        while (!detached.given)
                uv_run(&host.loop, UV_RUN_ONCE);
        require_refused(&detached, REASON_timeout);
        program_gets_nothing(&program, device);
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
}

static void test_what_the_guest_does_not_let_go_of_serves_again(void **state) {
        struct answer detached, waits = { 0 };
        uint64_t device;
        struct caller program = begin_with_program(&device);

        detach(&detached, false);
        coherent_alloc(&program, &(struct alloc_request){ .device = device, .size = 4096, .wait_ms = 1000 }, answer, &waits);
        settle();
        assert_false(waits.given);
        answers(DETACH, -EREMOTEIO, "the guest refuses");
        require_refused(&detached, REASON_source_unavailable);
        answer_handle(&waits);
        assert_true(is_in(WINDOW_PLUGGED));
}

static void test_what_the_guest_refuses_to_let_go_of_serves_again(void **state) {
        struct answer detached;
        uint64_t device;
        struct caller program = begin_with_program(&device);

        for (int i = 0; i < 2; i++) {
                detach(&detached, false);
                answers(DETACH, 0, NULL);
                if (i)
                        next_daemon_finds(THERE);
                fake.listener->device_kept(fake.userdata, UUID, "ua-dmabroker-1");
                settle();
                assert_true(is_in(WINDOW_PLUGGED));
                require_refused(&detached, i ? REASON_gone : REASON_source_unavailable);
                fake.listener->device_kept(fake.userdata, UUID, "ua-dmabroker-1");
                fake.listener->device_kept(fake.userdata, UUID, "ua-dmabroker-2");
        }
        program_gets(&program, device);
        next_daemon_finds(THERE);
        assert_true(is_in(WINDOW_PLUGGED));
}

/* The guest may have been asked, and may answer whenever it wants to. */
static void test_what_is_leaving_when_libvirt_is_lost_serves_nobody(void **state) {
        struct answer detached;
        uint64_t device;
        struct caller program = begin_with_program(&device);

        detach(&detached, false);
        answers(DETACH, -ECONNRESET, "it was cut");
        require_refused(&detached, REASON_source_unavailable);
        finds_again(THERE);
        program_gets_nothing(&program, device);
        assert_true(is_in(WINDOW_LEAVING));
        detach(&detached, false);
        answers(DETACH, -ENOTCONN, "another one");
        assert_true(is_in(WINDOW_LEAVING));
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
}

static void test_what_is_leaving_serves_nobody_with_the_next_daemon_either(void **state) {
        struct answer detached;
        uint64_t device;
        struct caller program = begin_with_program(&device);

        detach(&detached, false);
        answers(DETACH, 0, NULL);
        for (int i = 0; i < 2; i++) {
                next_daemon_finds(THERE);
                assert_true(is_in(WINDOW_LEAVING));
                program_gets_nothing(&program, device);
        }
        assert_int_equal(fake.n_asked, 0);
        lets_go_of("ua-dmabroker-1");
        assert_int_equal(n_windows(), 0);
        /* It was its own one, and is not plugged in again. */
        assert_int_equal(fake.n_asked, 0);
}

static void test_a_guest_that_boots_anew_has_not_been_asked(void **state) {
        struct answer detached;
        struct caller program;
        uint64_t device;

        begin_with_own(MIB, NO_METADATA);
        detach(&detached, false);
        answers(DETACH, 0, NULL);
        next_daemon_finds(THERE);
        fake.listener->guest_rebooted(fake.userdata, UUID);
        settle();
        answers(GET_XML, 0, THERE);
        assert_true(is_in(WINDOW_PLUGGED));
        sees(window(), 16 * MIB);
        program = start_program(&device);
        program_gets(&program, device);
        host.unplug_ms = 2000;
        next_daemon_finds(THERE);
        assert_true(is_in(WINDOW_PLUGGED));
        /* It may do so while it is waited for. */
        session_close(program.session);
        detach(&detached, false);
        answers(DETACH, 0, NULL);
        fake.listener->guest_rebooted(fake.userdata, UUID);
        settle();
        answers(GET_XML, 0, THERE);
        assert_true(is_in(WINDOW_LEAVING));
        while (!detached.given)
                uv_run(&host.loop, UV_RUN_ONCE);
        require_refused(&detached, REASON_timeout);
        is_asked_again(GET_XML, THERE);
        assert_true(is_in(WINDOW_PLUGGED));
}

static void test_what_rests_does_not_keep_a_window(void **state) {
        struct answer detached;

        leave_at_rest_in_two_windows();
        detach(&detached, false);
        answers(DETACH, 0, NULL);
        /* The guest has it still, and its devices may write there. */
        assert_int_equal(broker_quarantined(host.f.broker), 2 * MOST);
        lets_go_of("ua-dmabroker-1");
        answer_handle(&detached);
        assert_int_equal(broker_quarantined(host.f.broker), MOST);
        assert_int_equal(fixture_source(&host.f).in_regions, MIB);
}

static void test_what_rests_in_a_window_that_stays_rests_on(void **state) {
        struct answer detached;
        struct caller program;
        uint64_t device;

        leave_at_rest_in_two_windows();
        program = start_program(&device);
        detach(&detached, true);
        answers(DETACH, -EREMOTEIO, "the guest refuses");
        require_refused(&detached, REASON_source_unavailable);
        assert_int_equal(broker_quarantined(host.f.broker), 2 * MOST);
        program_gets_nothing(&program, device);
        /* Its time may be over before it is known what becomes of the window. */
        detach(&detached, false);
        fixture_pass(&host.f, 60000);
        assert_int_equal(broker_quarantined(host.f.broker), 0);
        fixture_alloc(&host.f, &program, &(struct alloc_request){ .device = device, .size = MOST });
        program_gets_nothing(&program, device);
        answers(DETACH, -EREMOTEIO, "the guest refuses");
        fixture_alloc(&host.f, &program, &(struct alloc_request){ .device = device, .size = MOST });
}

/* Who waits for memory does not get what is taken from others there. */
static void test_nobody_moves_into_a_window_that_is_emptied_by_force(void **state) {
        struct answer detached, waits = { 0 };
        uint64_t device, other;
        struct caller program = begin_with_program(&device), heir = start_program(&other);

        fixture_alloc(&host.f, &program, &(struct alloc_request){ .device = device, .size = MOST, .owner_lifetime = true });
        coherent_alloc(&heir, &(struct alloc_request){ .device = other, .size = 4096, .wait_ms = 60000 }, answer, &waits);
        settle();
        detach(&detached, true);
        assert_false(waits.given);
        answers(DETACH, -EREMOTEIO, "the guest refuses");
        require_refused(&detached, REASON_source_unavailable);
        answer_handle(&waits);
}

/* ---- at the door ---- */

#define OWN "qemu-1-one"

static bool is_hung_up_on(int fd) {
        char byte;

        settle();
        return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static bool is_let_in(int fd) {
        settle();
        return host.let_in >= 0 && !is_hung_up_on(fd);
}

static int connect_from(const char *machine, const char *name) {
        host.machine = machine;
        return connect_to(name);
}

/* From an outsider who is gone for good then. */
static bool lets_in(const char *machine) {
        int fd = connect_from(machine, "channel");
        bool is = is_let_in(fd);

        assert_true(is || is_hung_up_on(fd));
        close(fd);
        if (is)
                close(host.let_in);
        host.let_in = -1;
        return is;
}

static void begin_with_machines(void) {
        host.has_machines = true;
        host.registered = OWN;
        start_daemon();
}

static void test_only_the_guests_own_machine_is_let_in(void **state) {
        begin_with_machines();
        lists(1, NO_METADATA);
        assert_true(lets_in(OWN));
        assert_false(lets_in("qemu-2-two"));
        assert_false(lets_in("qemu-1-two"));
        assert_false(lets_in("qemu-1-one-two"));
        assert_false(lets_in("qemu-1-o"));
        assert_false(lets_in("qemu-0-one"));
        assert_false(lets_in("qemu-one"));
        assert_false(lets_in(NULL));
        assert_false(lets_in("container"));
        assert_true(has_told("started connected "));
}

/* Each user may have a libvirt of its own, and each of these counts from 1. */
static void test_machines_of_other_libvirts_with_the_guests_number_are_not_the_guests(void **state) {
        begin_with_machines();
        lists(1, NO_METADATA);
        assert_false(lets_in("qemu-joe-1-one"));
        assert_false(lets_in("qemu-1-1-one"));
        assert_false(lets_in("qemu-embed-0123abcd-1-one"));
        /* But one may be what an unknown libvirt has made of the guest's name. */
        host.registered = "qemu-1-two";
        assert_false(lets_in(NULL));
        host.registered = "qemu-joe-1-one";
        assert_true(lets_in(NULL));
}

#define TEN "0123456789"
#define FIFTY TEN TEN TEN TEN TEN

/* By virDomainDriverGenerateMachineName(); older versions of it left two dashes where something else was between them. */
static void test_of_the_guests_name_its_machine_has_what_may_be_in_a_hosts_name(void **state) {
        static const char *const names[][2] = {
                { "Web.example-2", "qemu-1-Web.example-2" },
                { "my web_server (old)", "qemu-1-mywebserverold" },
                { "-.web.-", "qemu-1-web" },
                { "a..b.-c--d", "qemu-1-a.b.c-d" },
                { "caf\u00e9-1", "qemu-1-caf-1" },
                { "\u7db2", "qemu-1" },
                { FIFTY TEN, "qemu-1-" FIFTY "0123456" },
                { FIFTY "012345-8", "qemu-1-" FIFTY "012345" },
                { FIFTY "01234-.6", "qemu-1-" FIFTY "01234-6" },
                { "a-_-b", "qemu-1-a-b" },
                { "a-_-b", "qemu-1-a--b" },
                { "5-one", "qemu-1-5-one" },
        };

        begin_with_machines();
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
                host.domain = names[i][0];
                lists(1, NO_METADATA);
                host.registered = names[i][1];
                assert_false(lets_in(NULL));
                assert_true(lets_in(names[i][1]));
                assert_false(lets_in(OWN));
        }
}

/* libvirt does without, or is in a container as a whole. */
static void test_a_guest_without_a_machine_is_whoever_is_in_none(void **state) {
        begin_with_machines();
        host.registered = "qemu-2-two";
        lists(1, NO_METADATA);
        assert_true(lets_in(NULL));
        assert_true(lets_in("container"));
        assert_false(lets_in("qemu-2-two"));
}

static void test_while_nobody_tells_of_machines_only_who_is_in_the_guests_is_let_in(void **state) {
        begin_with_machines();
        lists(1, NO_METADATA);
        host.deaf = -EIO;
        assert_false(lets_in(NULL));
        assert_false(lets_in("container"));
        assert_true(lets_in(OWN));
}

static void test_where_there_are_no_machines_everybody_of_the_user_is_let_in(void **state) {
        start_daemon();
        assert_true(lets_in(NULL));
        lists(1, NO_METADATA);
        assert_true(lets_in(NULL));
}

static void test_who_comes_before_the_start_is_told_waits_for_it(void **state) {
        int outsider, other, qemu;

        begin_with_machines();
        lists_nothing();
        outsider = connect_from(NULL, "channel");
        other = connect_from("qemu-2-two", "channel");
        qemu = connect_from(OWN, "channel");
        assert_int_equal(host.let_in, -1);
        assert_false(is_hung_up_on(outsider) || is_hung_up_on(other) || is_hung_up_on(qemu));
        starts(1);
        assert_true(is_let_in(qemu));
        assert_true(is_hung_up_on(outsider));
        assert_true(is_hung_up_on(other));
        assert_true(has_told("ended stopped started connected "));
        close(outsider);
        close(other);
        close(qemu);
}

static void test_no_guest_keeps_another_one_from_waiting(void **state) {
        enum { MANY = 200 };
        int many[MANY], qemu;

        begin_with_machines();
        lists_nothing();
        qemu = connect_from(OWN, "channel");
        for (int i = 0; i < MANY; i++)
                many[i] = connect_from("qemu-2-two", "channel");
        for (int i = 0; i < MANY; i++) {
                assert_true(is_hung_up_on(many[i]) == (i < MANY - 1));
                close(many[i]);
        }
        starts(1);
        assert_true(is_let_in(qemu));
        close(qemu);
}

static void test_who_waits_when_the_daemon_ends_is_hung_up_on(void **state) {
        int qemu;

        begin_with_machines();
        qemu = connect_from(OWN, "channel");
        assert_false(is_hung_up_on(qemu));
        restart_daemon();
        assert_true(is_hung_up_on(qemu));
        close(qemu);
}

static void test_with_the_guest_its_connection_ends(void **state) {
        int first, second;

        begin_with_machines();
        lists(1, NO_METADATA);
        first = connect_from(OWN, "channel");
        assert_true(is_let_in(first));
        is_lost();
        assert_true(is_let_in(first));
        /* It has been started anew, though the last one lives. */
        host.registered = "qemu-2-one";
        lists(2, NO_METADATA);
        assert_true(is_hung_up_on(first));
        assert_false(lets_in(OWN));
        second = connect_from("qemu-2-one", "channel");
        assert_true(is_let_in(second));
        close(first);
        close(second);
}

/* Its last QEMU has ended, and libvirt has started it again, but has not told of either. */
static void test_who_comes_from_a_later_run_than_is_known_waits_for_it(void **state) {
        int first, second;

        begin_with_machines();
        lists(1, NO_METADATA);
        first = connect_from(OWN, "channel");
        assert_true(is_let_in(first));
        second = connect_from("qemu-12-one", "channel");
        assert_false(is_hung_up_on(second));
        lists(1, NO_METADATA);
        assert_false(is_hung_up_on(first) || is_hung_up_on(second));
        assert_true(has_told("started connected "));
        fake.listener->guest_stopped(fake.userdata, UUID, LIBVIRT_STOP_FAILED);
        assert_true(is_hung_up_on(first));
        assert_false(is_hung_up_on(second));
        starts(12);
        assert_true(is_let_in(second));
        assert_true(has_told("ended stopped started connected "));
        close(first);
        close(second);
}

static void test_who_waits_for_a_later_run_than_there_is_is_hung_up_on_when_it_is_past(void **state) {
        int second, third;

        begin_with_machines();
        lists(1, NO_METADATA);
        second = connect_from("qemu-2-one", "channel");
        third = connect_from("qemu-3-one", "channel");
        host.registered = "qemu-3-one";
        lists(3, NO_METADATA);
        assert_true(is_hung_up_on(second));
        assert_true(is_let_in(third));
        assert_false(lets_in(OWN));
        assert_false(lets_in("qemu-4-two"));
        assert_false(lets_in("qemu-4-one-two"));
        assert_false(lets_in("qemu-04-one"));
        assert_false(lets_in("qemu-4294967300-one"));
        close(second);
        close(third);
}

static void test_of_those_that_wait_for_later_runs_the_last_ones_are_kept(void **state) {
        enum { MANY = 100, KEPT = 64 };
        char machine[32];
        int many[MANY];

        begin_with_machines();
        lists(1, NO_METADATA);
        for (int i = 0; i < MANY; i++) {
                snprintf(machine, sizeof(machine), "qemu-%d-one", i + 2);
                many[i] = connect_from(machine, "channel");
        }
        lists(1, NO_METADATA);
        for (int i = 0; i < MANY; i++)
                assert_true(is_hung_up_on(many[i]) == (i < MANY - KEPT));
        lists(MANY + 1, NO_METADATA);
        assert_true(is_let_in(many[MANY - 1]));
        for (int i = 0; i < MANY; i++) {
                assert_true(is_hung_up_on(many[i]) == (i < MANY - 1));
                close(many[i]);
        }
}

/* The windows that there are are those of the run that is known. */
static void test_who_comes_from_a_later_run_gets_no_window_of_this_one(void **state) {
        int later, qemu;

        host.configured = MIB;
        begin_with_machines();
        lists(1, NO_METADATA);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        later = connect_from("qemu-2-one", "1");
        qemu = connect_from(OWN, "1");
        assert_false(gets_window(later));
        assert_true(gets_window(qemu));
        answers(ATTACH, 0, NULL);
        assert_true(has_told("started attached "));
        close(later);
        close(qemu);
}

/* Who has its number then may be anybody. */
static void test_who_has_ended_since_is_in_no_machine(void **state) {
        int status;
        pid_t pid;

        begin_with_machines();
        lists(1, NO_METADATA);
        host.machine = OWN;
        pid = fork();
        if (pid == 0)
                _exit(try_connect("channel") < 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        settle();
        assert_int_equal(host.let_in, -1);
}

static void test_only_the_guests_own_machine_gets_its_windows(void **state) {
        int outsider, other, qemu;

        host.configured = MIB;
        begin_with_machines();
        lists(1, NO_METADATA);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        outsider = connect_from(NULL, "1");
        other = connect_from("qemu-2-two", "1");
        qemu = connect_from(OWN, "1");
        assert_false(gets_window(outsider));
        assert_false(gets_window(other));
        assert_true(gets_window(qemu));
        answers(ATTACH, 0, NULL);
        assert_true(has_told("started attached "));
        close(outsider);
        close(other);
        close(qemu);
}

static void test_who_has_the_guests_memory_need_not_wait_for_libvirt(void **state) {
        int qemu;

        host.configured = MIB;
        begin_with_machines();
        lists(1, NO_METADATA);
        answers(GET_XML, 0, DOMAIN(""));
        answers(GET_XML, 0, DOMAIN(""));
        qemu = connect_from(OWN, "1");
        answers(ATTACH, 0, NULL);
        restart_daemon();
        assert_true(lets_in(OWN));
        assert_int_equal(n_windows(), 1);
        close(qemu);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)
                TEST(another_run_gets_windows_of_its_own),
                TEST(the_same_run_keeps_what_it_has),
                TEST(another_run_is_known_to_the_next_daemon),
                TEST(a_guest_without_a_number_is_the_same),
                TEST(an_own_window_that_was_taken_out_stays_away),
                TEST(one_of_the_metadata_stays_away_too),
                TEST(an_own_window_that_never_came_is_had_from_the_next_daemon),
                TEST(an_own_window_in_doubt_that_has_come_is_had),
                TEST(an_own_window_in_doubt_that_has_not_come_is_tried_again),
                TEST(an_own_window_that_fails_each_time_is_tried_ever_more_rarely),
                TEST(a_machine_of_type_pc_under_kvm_gets_a_window_only_when_somebody_asks_for_it),
                TEST(another_window_is_not_the_own_one),
                TEST(another_size_in_the_configuration_is_had_from_the_next_daemon),
                TEST(another_run_may_have_the_same_number),
                TEST(the_end_of_its_process_is_the_guests),
                TEST(a_second_process_is_looked_for_when_the_first_ends),
                TEST(none_is_looked_for_where_libvirt_tells_of_the_end),
                TEST(a_process_is_known_also_where_libvirt_tells_of_its_window_later),
                TEST(a_window_that_is_not_listed_stays_while_somebody_is_connected_to_it),
                TEST(whoever_denies_a_window_is_asked_ever_more_rarely),
                TEST(a_window_is_given_once),
                TEST(a_window_of_a_known_process_is_given_to_no_other),
                TEST(a_guest_that_is_not_listed_has_not_ended_while_somebody_is_connected_to_its_window),
                TEST(a_process_that_has_a_window_is_known_to_the_next_daemon),
                TEST(a_second_qemu_of_a_guest_takes_nothing_from_the_first),
                TEST(a_second_qemu_with_the_number_of_the_first_does_not_either),
                TEST(with_the_first_qemu_gone_the_second_tries_for_its_own_window_again),
                TEST(a_second_qemu_that_does_not_start_changes_nothing),
                TEST(a_window_of_which_libvirt_has_lost_the_record_is_not_taken_from_its_qemu),
                TEST(a_window_that_was_had_and_is_denied_since_is_not_taken_by_the_next_daemon),
                TEST(a_window_that_is_about_to_be_plugged_in_is_not_taken_by_the_next_daemon),
                TEST(of_a_guest_that_is_not_in_the_configuration_any_more_its_qemu_keeps_what_it_has),
                TEST(so_it_does_where_no_guest_is_left_in_the_configuration),
                TEST(a_guest_that_is_in_the_configuration_again_has_its_windows),
                TEST(a_window_goes_back_when_the_daemon_has_done_with_it),
                TEST(a_window_that_the_daemon_was_at_work_in_when_it_died_goes_back),
                TEST(a_window_that_the_guest_lets_go_of_waits_for_the_daemon_alone),
                TEST(a_window_that_was_plugged_in_by_others_is_not_asked_for),
                TEST(what_a_garbled_note_names_is_kept_from_others_while_qemu_lives),
                TEST(what_is_reserved_for_windows_and_in_no_note_goes_back),
                TEST(that_a_guest_has_booted_anew_is_known_to_the_next_daemon),
                TEST(what_was_let_go_of_without_a_daemon_is_given_back),
                TEST(what_an_older_daemon_has_written_is_read),
                TEST(without_a_place_no_memory_is_taken),
                TEST(a_guest_may_end_while_a_place_is_looked_for),
                TEST(one_with_the_same_key_needs_no_place),
                TEST(two_with_the_same_key_are_one),
                TEST(what_nobody_wants_is_asked_for_again_and_keeps_no_own_window_away),
                TEST(what_nobody_wants_stays_as_long_as_the_guest_uses_it),
                TEST(the_next_daemon_takes_out_what_nobody_was_promised),
                TEST(with_a_window_goes_what_rests_in_it_and_nothing_else),
                TEST(what_is_leaving_serves_nobody),
                TEST(what_the_guest_does_not_let_go_of_serves_again),
                TEST(what_the_guest_refuses_to_let_go_of_serves_again),
                TEST(what_is_leaving_when_libvirt_is_lost_serves_nobody),
                TEST(what_is_leaving_serves_nobody_with_the_next_daemon_either),
                TEST(a_guest_that_boots_anew_has_not_been_asked),
                TEST(what_rests_does_not_keep_a_window),
                TEST(what_rests_in_a_window_that_stays_rests_on),
                TEST(nobody_moves_into_a_window_that_is_emptied_by_force),
                TEST(only_the_guests_own_machine_is_let_in),
                TEST(machines_of_other_libvirts_with_the_guests_number_are_not_the_guests),
                TEST(of_the_guests_name_its_machine_has_what_may_be_in_a_hosts_name),
                TEST(a_guest_without_a_machine_is_whoever_is_in_none),
                TEST(while_nobody_tells_of_machines_only_who_is_in_the_guests_is_let_in),
                TEST(where_there_are_no_machines_everybody_of_the_user_is_let_in),
                TEST(who_comes_before_the_start_is_told_waits_for_it),
                TEST(no_guest_keeps_another_one_from_waiting),
                TEST(who_waits_when_the_daemon_ends_is_hung_up_on),
                TEST(with_the_guest_its_connection_ends),
                TEST(who_comes_from_a_later_run_than_is_known_waits_for_it),
                TEST(who_waits_for_a_later_run_than_there_is_is_hung_up_on_when_it_is_past),
                TEST(of_those_that_wait_for_later_runs_the_last_ones_are_kept),
                TEST(who_comes_from_a_later_run_gets_no_window_of_this_one),
                TEST(who_has_ended_since_is_in_no_machine),
                TEST(only_the_guests_own_machine_gets_its_windows),
                TEST(who_has_the_guests_memory_need_not_wait_for_libvirt),
        };

        if (argc > 1 && *argv[1])
                cmocka_set_test_filter(argv[1]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
