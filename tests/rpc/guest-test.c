/* KVM guests, beside a real daemon: what hostile and unlucky ones do, and QEMUs that do not answer, or lie, or die. */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"
#include "tests/rpc/qemu.h"

#define ONE "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"
#define TWO "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d22"
#define MIB (UINT64_C(1) << 20)
#define AT (UINT64_C(0x380000000))

static const char reset = (char)0xff;

static struct {
        char directory[32], config[1024], monitor[96], session[40];
        struct test_daemon *daemon;
        struct test_client *admin;
        struct qemu *qemu;
        unsigned fds; /* of the daemon, before anything happened */
} host;

/* ---- the host ---- */

static unsigned count_fds(void) {
        char path[64];
        unsigned n = 0;
        DIR *dir;

        snprintf(path, sizeof(path), "/proc/%d/fd", (int)test_daemon_pid(host.daemon));
        dir = opendir(path);
        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

static bool has_logged(const char *text) {
        char *log = test_daemon_log(host.daemon);
        bool has = log && strstr(log, text);

        free(log);
        return has;
}

static uint64_t in_regions(void) {
        json_t *status = ask(host.admin, "broker.status", "{}");
        uint64_t bytes = ask_peek_number(json_array_get(json_object_get(status, "sources"), 0), "in_regions");

        json_decref(status);
        return bytes;
}

static json_t *guest(const char *name) {
        return ask(host.admin, "guest.get", "{'guest':'%s'}", name);
}

static bool guest_is(const char *name, const char *state) {
        json_t *info = guest(name);
        bool is = strcmp(json_string_value(json_object_get(info, "state")), state) == 0;

        json_decref(info);
        return is;
}

static uint64_t n_windows(const char *name) {
        return ask_take_number(guest(name), "windows");
}

static bool is_window(uint64_t window, const char *state) {
        json_t *list = ask(host.admin, "window.list", "{}"), *item;
        bool is = false;
        size_t i;

        json_array_foreach(json_object_get(list, "items"), i, item)
                is |= ask_peek_number(item, "window") == window &&
                      strcmp(json_string_value(json_object_get(item, "state")), state) == 0;
        json_decref(list);
        return is;
}

/* The first there is. */
static uint64_t find_window(void) {
        json_t *list = ask(host.admin, "window.list", "{}");
        uint64_t window = ask_peek_number(json_array_get(json_object_get(list, "items"), 0), "window");

        json_decref(list);
        return window;
}

static uint64_t count(const char *what) {
        json_t *status = ask(host.admin, "broker.status", "{}");
        uint64_t n = ask_peek_number(json_object_get(status, "counts"), what);

        json_decref(status);
        return n;
}

static const char *grace = "60s", *quarantine = "0", *own = "";

/* With the session that the last daemon knew, so that none is left behind. */
static void connect_admin(void) {
        json_t *result;

        host.admin = ask_connect(host.daemon, NULL);
        result = *host.session ? ask(host.admin, "broker.hello", "{'session':'%s'}", host.session)
                               : ask(host.admin, "broker.hello", "{}");
        snprintf(host.session, sizeof(host.session), "%s", json_string_value(json_object_get(result, "session")));
        json_decref(result);
}

static void start_daemon(const char *more) {
        static struct test_daemon_options options = { .survives = true, .open_directory = true, .config = host.config };

        snprintf(host.config, sizeof(host.config),
                 "[daemon]\nkeep = 60s\naccess = everyone\ngrace = %s\n[memory]\nregion_idle = 0\nquarantine = %s\n"
                 "[guests]\ndirectory = %s\nunplug_timeout = 300ms\n"
                 "[guest one]\nuuid = " ONE "\nqmp = %s/one\n%s[guest two]\nuuid = " TWO "\nqmp = %s/two\n%s",
                 grace, quarantine, host.directory, host.directory, own, host.directory, more);
        assert_int_equal(test_daemon_start(&options, &host.daemon), 0);
        *host.session = '\0';
        connect_admin();
}

static int begin_with(const char *more) {
        /* Only an administrator attaches windows. */
        if (geteuid() != 0)
                skip();
        strcpy(host.directory, "/tmp/dmab-guest-XXXXXX");
        assert_non_null(mkdtemp(host.directory));
        snprintf(host.monitor, sizeof(host.monitor), "%s/one", host.directory);
        host.qemu = qemu_start(host.monitor);
        start_daemon(more);
        qemu_serve(host.qemu, true);
        ask_until(guest_is("one", "running"));
        host.fds = count_fds();
        return 0;
}

static int begin(void **state) {
        return begin_with("");
}

static bool is_all_back(void) {
        return in_regions() == 0;
}

/* Whatever happened, nothing of it is left. */
static int end(void **state) {
        int r;

        if (host.qemu) {
                host.qemu = qemu_kill(host.qemu);
                ask_until(guest_is("one", "off"));
        }
        ask_until(is_all_back());
        ask_clean(host.admin);
        test_client_close(host.admin);
        ask_until(count_fds() <= host.fds);
        r = test_daemon_end(host.daemon);
        assert_int_equal(unlink(host.monitor), 0);
        /* Its sockets are gone. */
        assert_int_equal(rmdir(host.directory), 0);
        return r;
}

static void comes_back(void) {
        test_client_close(host.admin);
        assert_int_equal(test_daemon_start_again(host.daemon), 0);
        connect_admin();
}

/* ---- the guest's programs ---- */

/* NULL: the daemon has hung up. */
static struct test_client *adopt_channel(int fd) {
        struct pollfd item = { .fd = fd, .events = POLLIN };
        struct test_client *client;
        char byte;

        for (int i = 0; i < 2; i++) {
                assert_int_equal(poll(&item, 1, test_timeout_ms()), 1);
                if (read(fd, &byte, 1) != 1) {
                        close(fd);
                        return NULL;
                }
                assert_int_equal(byte, reset);
                if (i == 0)
                        assert_int_equal(write(fd, &reset, 1), 1);
        }
        assert_int_equal(test_client_adopt(fd, &client), 0);
        return client;
}

static void channel_path(char path[108], const char *uuid) {
        snprintf(path, 108, "%.60s/%s.channel", host.directory, uuid);
}

/* By this QEMU, or by the test itself. */
static struct test_client *open_channel(struct qemu *qemu, const char *uuid) {
        struct test_client *client;
        char path[108];
        int fd;

        channel_path(path, uuid);
        if (qemu)
                return adopt_channel(qemu_connect(qemu, path));
        assert_int_equal(test_client_connect(path, NULL, &client), 0);
        fd = dup(test_client_fd(client));
        test_client_close(client);
        return adopt_channel(fd);
}

static uint64_t attach(uint64_t size, struct qemu_window *seen) {
        int id = ask_send(host.admin, "guest.attach", "{'guest':'one','size':%" PRIu64 "}", size);

        qemu_plug(host.qemu, seen);
        return ask_take_number(ask_result(host.admin, id), "window");
}

static void bind_at(struct test_client *channel, uint64_t window, uint64_t addr) {
        json_decref(ask(channel, "window.bind", "{'window':%" PRIu64 ",'guest_addr':'0x%" PRIx64 "'}", window, addr));
}

/* A guest with a bound window, its channel and a device. */
struct guest {
        struct test_client *channel;
        struct qemu_window seen;
        uint64_t window, device;
        char session[40];
};

static void hello(struct guest *guest) {
        json_t *result = ask(guest->channel, "broker.hello", "{}");

        snprintf(guest->session, sizeof(guest->session), "%s", json_string_value(json_object_get(result, "session")));
        json_decref(result);
}

static void make_guest(struct guest *guest) {
        guest->channel = open_channel(host.qemu, ONE);
        assert_non_null(guest->channel);
        hello(guest);
        guest->window = attach(2 * MIB, &guest->seen);
        bind_at(guest->channel, guest->window, AT);
        guest->device = ask_device(guest->channel, "nic");
}

static void leave_guest(struct guest *guest) {
        test_client_close(guest->channel);
        if (guest->seen.fd > 0)
                qemu_drop(&guest->seen);
}

/* ---- into the guest ---- */

static void check_memory(const struct qemu_window *seen, uint64_t window, uint64_t size) {
        json_t *list = ask(host.admin, "window.list", "{}"), *item;
        const char *cookie = NULL;
        struct stat status;
        char text[33];
        unsigned char *memory;
        size_t i;

        assert_int_equal(fstat(seen->memory, &status), 0);
        assert_int_equal(status.st_size, size);
        memory = mmap(NULL, size, PROT_READ, MAP_SHARED, seen->memory, 0);
        assert_ptr_not_equal(memory, MAP_FAILED);
        assert_memory_equal(memory + size - 4096, "dmabroker-window", 16);
        for (i = 0; i < 16; i++)
                snprintf(text + 2 * i, 3, "%02x", memory[size - 4096 + 16 + i]);
        munmap(memory, size);
        json_array_foreach(json_object_get(list, "items"), i, item)
                if (ask_peek_number(item, "window") == window)
                        cookie = json_string_value(json_object_get(item, "cookie"));
        assert_non_null(cookie);
        assert_string_equal(cookie, text);
        json_decref(list);
}

static void test_a_guest_gets_a_window_and_its_own_addresses_in_it(void **state) {
        struct guest guest;
        uint64_t offset;
        json_t *result, *item;

        make_guest(&guest);
        check_memory(&guest.seen, guest.window, 2 * MIB);
        result = ask(guest.channel, "window.list", "{}");
        item = json_array_get(json_object_get(result, "items"), 0);
        assert_int_equal(ask_peek_number(item, "window"), guest.window);
        assert_int_equal(ask_peek_hex(item, "guest_addr"), AT);
        json_decref(result);
        ask_refused(guest.channel, "unsupported", "coherent.alloc", "{'device':%" PRIu64 ",'size':8192,'fd':true}", guest.device);
        result = ask(guest.channel, "coherent.alloc", "{'device':%" PRIu64 ",'size':8192}", guest.device);
        offset = ask_peek_number(result, "offset");
        assert_int_equal(ask_peek_hex(result, "dma_addr"), AT + offset);
        assert_int_equal(ask_peek_number(result, "region"), guest.window);
        assert_null(json_object_get(result, "machine_addr"));
        assert_null(json_object_get(result, "fds"));
        assert_int_equal(test_client_take_fd(guest.channel), -1);
        json_decref(result);
        result = ask(guest.channel, "region.get", "{'region':%" PRIu64 "}", guest.window);
        assert_null(json_object_get(result, "fds"));
        assert_null(json_object_get(json_array_get(json_object_get(result, "extents"), 0), "machine_addr"));
        assert_int_equal(test_client_take_fd(guest.channel), -1);
        json_decref(result);
        leave_guest(&guest);
}

static char *refusal(struct test_client *client, const char *method, uint64_t handle, const char *member) {
        json_t *error = ask_error(client, ask_send(client, method, "{'%s':%" PRIu64 "%s}", member, handle,
                                                   strcmp(method, "window.bind") == 0 ? ",'guest_addr':'0x100000'" : ""));
        char *text = json_dumps(error, JSON_SORT_KEYS), number[24], *at;

        json_decref(error);
        /* But for the number itself. */
        snprintf(number, sizeof(number), "%" PRIu64, handle);
        while ((at = strstr(text, number))) {
                memmove(at + 1, at + strlen(number), strlen(at + strlen(number)) + 1);
                *at = '#';
        }
        return text;
}

static void looks_like_nothing(struct test_client *client, const char *method, uint64_t handle, const char *member) {
        char *is = refusal(client, method, handle, member), *should = refusal(client, method, 4711471147114711, member);

        assert_string_equal(is, should);
        assert_non_null(strstr(is, "unknown_handle"));
        free(is);
        free(should);
}

static void test_a_guest_knows_nothing_of_another_one(void **state) {
        struct test_client *other = open_channel(NULL, TWO);
        struct guest guest;
        json_t *list;
        uint64_t alloc;

        make_guest(&guest);
        alloc = ask_alloc(guest.channel, guest.device, 4096);
        list = ask(other, "window.list", "{}");
        assert_int_equal(json_array_size(json_object_get(list, "items")), 0);
        json_decref(list);
        list = ask(other, "coherent.list", "{}");
        assert_int_equal(json_array_size(json_object_get(list, "allocs")), 0);
        json_decref(list);
        looks_like_nothing(other, "window.bind", guest.window, "window");
        looks_like_nothing(other, "coherent.free", alloc, "alloc");
        looks_like_nothing(other, "device.close", guest.device, "device");
        looks_like_nothing(other, "region.get", guest.window, "region");
        ask_refused(other, "unknown_guest", "window.list", "{'guest':'one'}");
        ask_refused(other, "unknown_guest", "window.list", "{'guest':'nobody'}");
        ask_refused(other, "unknown_handle", "broker.hello", "{'session':'%s'}", guest.session);
        test_client_close(other);
        leave_guest(&guest);
}

static void test_a_guest_is_no_administrator_and_not_local(void **state) {
        static const char *const methods[] = {
                "guest.list", "guest.get", "guest.attach", "guest.detach", "guest.evict", "guest.set_quota", "quota.set",
                "stats.get", "stats.reset", "debug.check", "quarantine.release", "memory.release",
        };
        struct test_client *channel = open_channel(host.qemu, ONE);

        for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
                json_t *error = ask_error(channel, ask_send(channel, methods[i], "{}"));
                const char *message = json_string_value(json_object_get(error, "message"));

                if (!strstr(message, "administrators"))
                        fail_msg("%s: %s", methods[i], message);
                json_decref(error);
        }
        test_client_close(channel);
}

/* This host has none; and if it had, this guest were none of Xen's. */
static void test_frames_are_exchanged_by_xen_alone(void **state) {
        struct test_client *channel = open_channel(host.qemu, ONE);

        ask_refused(host.admin, "unsupported", "guest.exchange", "{'guest':'one','frames':['0x1f400'],'order':0}");
        ask_refused(host.admin, "unsupported", "guest.exchange",
                    "{'guest':'one','frames':['0x1f400','0x1f402'],'order':1,'mask':'0xffffffff','pfns':['0x10'],"
                    "'given_up':true}");
        ask_refused(channel, "unsupported", "guest.exchange", "{'frames':['0x1f400'],'order':0}");
        ask_refused(channel, "unsupported", "guest.exchange", "{'guest':'" ONE "','frames':['0x1f400'],'order':0}");
        test_client_close(channel);
}

static void test_whose_frames_are_to_be_exchanged_must_be_clear(void **state) {
        struct test_client *channel = open_channel(host.qemu, ONE);

        ask_refused(host.admin, "bad_param", "guest.exchange", "{'frames':['0x1f400'],'order':0}");
        ask_refused(channel, "unknown_guest", "guest.exchange", "{'guest':'two','frames':['0x1f400'],'order':0}");
        ask_refused(channel, "unknown_guest", "guest.exchange", "{'guest':'nobody','frames':['0x1f400'],'order':0}");
        test_client_close(channel);
}

static void test_what_no_exchange_can_be_is_refused_for_its_form(void **state) {
        static const char *const wrong[] = {
                "{'guest':'one','order':0}", "{'guest':'one','frames':['0x1f400']}",
                "{'guest':'one','frames':'0x1f400','order':0}",
                "{'guest':'one','frames':[128000],'order':0}", "{'guest':'one','frames':['0x1f400'],'order':17}",
                "{'guest':'one','frames':['0x1f400'],'order':-1}", "{'guest':'one','frames':['0x1f400'],'order':0,'pfns':[1]}",
                "{'guest':'one','frames':['0x1f400'],'order':0,'request_key':'again'}",
        };

        for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
                ask_invalid(host.admin, -32602, "guest.exchange", "%s", wrong[i]);
}

/* What the windows are reserved for is a device in the daemon's books, with a handle that can be guessed. */
static void test_nobody_gets_hold_of_the_device_that_the_windows_lie_in(void **state) {
        struct guest guest;
        json_t *list, *item;
        uint64_t windows;
        size_t i;

        make_guest(&guest);
        list = ask(guest.channel, "device.list", "{}");
        json_array_foreach(json_object_get(list, "devices"), i, item)
                assert_string_equal(json_string_value(json_object_get(item, "name")), "nic");
        assert_int_equal(i, 1);
        json_decref(list);
        windows = ask_number(host.admin, "device", "region.get", "{'region':%" PRIu64 "}", guest.window);
        looks_like_nothing(guest.channel, "device.close", windows, "device");
        looks_like_nothing(guest.channel, "device.get", windows, "device");
        looks_like_nothing(host.admin, "device.close", windows, "device");
        ask_refused(guest.channel, "unknown_handle", "device.reserve", "{'device':%" PRIu64 ",'size':1048576}", windows);
        ask_refused(guest.channel, "unknown_handle", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", windows);
        ask_refused(guest.channel, "unknown_handle", "device.unreserve", "{'device':%" PRIu64 ",'region':%" PRIu64 "}", windows,
                    guest.window);
        ask_refused(guest.channel, "wrong_device", "device.unreserve", "{'device':%" PRIu64 ",'region':%" PRIu64 "}",
                    guest.device, guest.window);
        assert_int_equal(in_regions(), 2 * MIB);
        leave_guest(&guest);
}

/* ---- attachments that fail ---- */

static int begin_attach(uint64_t size) {
        return ask_send(host.admin, "guest.attach", "{'guest':'one','size':%" PRIu64 "}", size);
}

/* Nothing of it is left, and the next one works. */
static void next_attach_works(void) {
        struct qemu_window seen;

        ask_until(is_all_back());
        assert_int_equal(n_windows("one"), 0);
        attach(MIB, &seen);
        assert_int_equal(in_regions(), MIB);
        qemu_drop(&seen);
}

static void test_a_window_that_qemu_refuses_goes_back(void **state) {
        struct qemu_window seen;
        int id = begin_attach(MIB);
        uint64_t command = qemu_plug_begin(host.qemu, &seen);

        qemu_drop(&seen);
        qemu_refuse(host.qemu, command, "GenericError");
        qemu_obey(host.qemu, "chardev-remove");
        ask_take_reason(ask_error(host.admin, id), "source_unavailable");
        id = begin_attach(MIB);
        qemu_reject(host.qemu, "chardev-remove", "GenericError");
        qemu_reject(host.qemu, "chardev-add", "GenericError");
        ask_take_reason(ask_error(host.admin, id), "source_unavailable");
        next_attach_works();
}

/* Whatever it says: who is connected has been given the memory. */
static void test_a_window_that_qemu_refuses_but_keeps_stays_until_it_does_not(void **state) {
        struct qemu_window seen;
        int id = begin_attach(MIB);
        uint64_t command = qemu_plug_begin(host.qemu, &seen);

        qemu_refuse(host.qemu, command, "GenericError");
        qemu_obey(host.qemu, "chardev-remove");
        ask_take_reason(ask_error(host.admin, id), "source_unavailable");
        qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        assert_int_equal(in_regions(), MIB);
        qemu_obey(host.qemu, "chardev-remove");
        qemu_drop(&seen);
        qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        next_attach_works();
}

/* Whether QEMU has taken it in is not known when the connection is lost: it keeps its memory until that is. */
static void test_a_window_is_kept_until_qemu_has_told_that_it_has_none(void **state) {
        struct qemu_window seen;
        int id = begin_attach(MIB);

        qemu_plug_begin(host.qemu, &seen);
        qemu_hang_up(host.qemu);
        ask_take_reason(ask_error(host.admin, id), "gone");
        assert_int_equal(in_regions(), MIB);
        qemu_drop(&seen);
        qemu_greet(host.qemu);
        qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        qemu_obey(host.qemu, "query-status");
        ask_until(is_all_back());
        qemu_hang_up(host.qemu);
        qemu_serve(host.qemu, true);
        ask_until(guest_is("one", "running"));
        next_attach_works();
}

static void test_a_window_that_qemu_has_all_the_same_is_taken_out(void **state) {
        struct qemu_window seen;
        int id = begin_attach(MIB);

        qemu_plug_begin(host.qemu, &seen);
        qemu_hang_up(host.qemu);
        ask_take_reason(ask_error(host.admin, id), "gone");
        qemu_greet(host.qemu);
        qemu_obey(host.qemu, "qom-list");
        qemu_obey(host.qemu, "query-status");
        qemu_obey(host.qemu, "device_del");
        assert_int_equal(in_regions(), MIB);
        qemu_deleted(host.qemu, seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        ask_until(is_all_back());
        qemu_drop(&seen);
}

static void test_a_qemu_that_does_not_answer_in_time_is_asked_what_it_has_done(void **state) {
        struct qemu_window seen;
        int id = begin_attach(MIB);
        uint64_t command = qemu_plug_begin(host.qemu, &seen);

        ask_take_reason(ask_error(host.admin, id), "timeout");
        assert_int_equal(in_regions(), MIB);
        qemu_return(host.qemu, command);
        qemu_obey(host.qemu, "qom-list");
        qemu_obey(host.qemu, "device_del");
        qemu_deleted(host.qemu, seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        qemu_drop(&seen);
        next_attach_works();
}

static void test_a_qemu_that_dies_in_the_middle_gives_all_back(void **state) {
        struct qemu_window seen;
        int id = begin_attach(MIB);

        qemu_plug_begin(host.qemu, &seen);
        host.qemu = qemu_kill(host.qemu);
        ask_take_reason(ask_error(host.admin, id), "gone");
        qemu_drop(&seen);
        ask_until(guest_is("one", "off"));
        ask_until(is_all_back());
        ask_refused(host.admin, "source_unavailable", "guest.attach", "{'guest':'one','size':1048576}");
}

static void test_a_window_comes_though_its_caller_has_gone(void **state) {
        struct test_client *other = ask_connect(host.daemon, NULL);
        struct qemu_window seen;
        uint64_t command;

        ask_send(other, "guest.attach", "{'guest':'one','size':1048576}");
        command = qemu_plug_begin(host.qemu, &seen);
        test_client_close(other);
        json_decref(ask(host.admin, "broker.ping", "{}"));
        qemu_return(host.qemu, command);
        ask_until(n_windows("one") == 1);
        check_memory(&seen, find_window(), MIB);
        qemu_drop(&seen);
}

/* Whatever it is told, until it has so many windows. */
static void plug_many(struct qemu_window *seen, unsigned n) {
        struct test_client *monitor = host.qemu->monitor;
        unsigned added = 0, plugged = 0;

        while (plugged < n) {
                const char *line, *command;
                json_t *message, *arguments;
                uint64_t id;
                int none;

                assert_int_equal(test_client_read_line(monitor, &line), 0);
                message = json_loads(line, 0, NULL);
                command = json_string_value(json_object_get(message, "execute"));
                arguments = json_object_get(message, "arguments");
                id = ask_peek_number(message, "id");
                if (strcmp(command, "chardev-add") == 0) {
                        json_t *data = json_object_get(json_object_get(arguments, "backend"), "data");

                        data = json_object_get(json_object_get(data, "addr"), "data");
                        seen[added].fd = qemu_connect(host.qemu, json_string_value(json_object_get(data, "path")));
                        assert_true(seen[added++].fd >= 0);
                } else if (strcmp(command, "device_add") == 0) {
                        assert_int_equal(qemu_hear(&seen[plugged], &none), 0);
                        qemu_hear(&seen[plugged], &none);
                        assert_int_equal(qemu_hear(&seen[plugged], &seen[plugged].memory), -1);
                        plugged++;
                }
                qemu_return(host.qemu, id);
                json_decref(message);
        }
}

static void test_windows_come_side_by_side_up_to_the_limit(void **state) {
        struct qemu_window seen[16];
        struct test_client *other = ask_connect(host.daemon, NULL);

        for (int i = 0; i < 16; i++)
                ask_send(other, "guest.attach", "{'guest':'one','size':1048576}");
        plug_many(seen, 16);
        for (int i = 0; i < 16; i++)
                json_decref(ask_read(other));
        assert_int_equal(in_regions(), 16 * MIB);
        assert_int_equal(n_windows("one"), 16);
        ask_refused(other, "limit", "guest.attach", "{'guest':'one','size':1048576}");
        for (int i = 0; i < 16; i++)
                qemu_drop(&seen[i]);
        /* All of them are known to the next daemon. */
        test_client_close(other);
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        comes_back();
        assert_int_equal(n_windows("one"), 16);
        assert_int_equal(in_regions(), 16 * MIB);
}

#ifdef HAVE_XEN
static int begin_with_xen(void **state) {
        return begin_with("[guest domu]\nuuid = 6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d44\nhypervisor = xen\n");
}

/* One program serves hosts with Xen and without it. */
static void test_a_guest_of_xens_is_not_known_where_there_is_no_xen(void **state) {
        json_t *info = ask(host.admin, "guest.get", "{'guest':'domu'}");

        if (access("/dev/xen/privcmd", F_OK) == 0)
                skip();
        assert_string_equal(json_string_value(json_object_get(info, "owner")), "xen:6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d44");
        assert_string_equal(json_string_value(json_object_get(info, "via")), "xen");
        assert_string_equal(json_string_value(json_object_get(info, "state")), "unknown");
        assert_non_null(strstr(json_string_value(json_object_get(info, "why")), "no dom0 of Xen"));
        json_decref(info);
        ask_refused(host.admin, "source_unavailable", "guest.attach", "{'guest':'domu','size':1048576}");
        info = ask(host.admin, "guest.attach", "{'guest':'domu','size':4294967296,'dry_run':true}");
        assert_non_null(strstr(json_string_value(json_object_get(info, "advice")), "max_grant_version = 1"));
        assert_non_null(strstr(json_string_value(json_object_get(info, "advice")), "max_maptrack_frames = 8192"));
        json_decref(info);
        json_decref(ask(host.admin, "quota.set", "{'owner':'xen:6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d44','limits':{'allocs':7}}"));
        ask_refused(host.admin, "bad_param", "quota.set",
                    "{'owner':'kvm:6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d44','limits':{'allocs':7}}");
        next_attach_works();
}
#endif

static void test_what_cannot_be_had_is_refused_and_costs_nothing(void **state) {
        ask_refused(host.admin, "no_memory", "guest.attach", "{'guest':'one','size':1073741824}");
        ask_refused(host.admin, "bad_param", "guest.attach", "{'guest':'one','size':3145728}");
        ask_refused(host.admin, "bad_param", "guest.attach", "{'guest':'one','size':4096}");
        ask_refused(host.admin, "bad_param", "guest.attach", "{'guest':'one','size':2199023255552}");
        ask_refused(host.admin, "unsupported", "guest.attach", "{'guest':'one','size':1048576,'mask':'0xffffffff'}");
        ask_refused(host.admin, "unknown_guest", "guest.attach", "{'guest':'three','size':1048576}");
        ask_refused(host.admin, "source_unavailable", "guest.attach", "{'guest':'two','size':1048576}");
        next_attach_works();
}

/* One element of a list, and whether that is not all. */
static json_t *take_one(struct test_client *client, const char *method, const char *params, bool *ret_more) {
        json_t *page = ask(client, method, "%s", params), *item = json_array_get(json_object_get(page, "items"), 0);

        assert_true(json_array_size(json_object_get(page, "items")) <= 1);
        *ret_more = json_is_true(json_object_get(page, "more"));
        json_incref(item);
        json_decref(page);
        return item;
}

static void test_guests_are_listed_in_pages(void **state) {
        bool more;
        json_t *item;

        item = take_one(host.admin, "guest.list", "{'limit':1}", &more);
        assert_string_equal(json_string_value(json_object_get(item, "guest")), "one");
        assert_true(more);
        json_decref(item);
        item = take_one(host.admin, "guest.list", "{'limit':1,'after':'one'}", &more);
        assert_string_equal(json_string_value(json_object_get(item, "guest")), "two");
        assert_false(more);
        json_decref(item);
        item = take_one(host.admin, "guest.list", "{'after':'" ONE "'}", &more);
        assert_string_equal(json_string_value(json_object_get(item, "guest")), "two");
        json_decref(item);
        assert_null(take_one(host.admin, "guest.list", "{'after':'two'}", &more));
        assert_false(more);
        ask_refused(host.admin, "unknown_guest", "guest.list", "{'after':'nobody'}");
}

static void check_pages(struct test_client *client, const uint64_t windows[3]) {
        uint64_t after = 0;
        char params[64];
        bool more;

        for (int i = 0; i < 3; i++) {
                snprintf(params, sizeof(params), "{'limit':1,'after':%" PRIu64 "}", after);
                after = ask_take_number(take_one(client, "window.list", params, &more), "window");
                assert_int_equal(after, windows[i]);
                assert_true(more == (i < 2));
        }
        snprintf(params, sizeof(params), "{'after':%" PRIu64 "}", after);
        assert_null(take_one(client, "window.list", params, &more));
        assert_false(more);
}

static void test_windows_are_listed_in_pages(void **state) {
        struct test_client *channel = open_channel(host.qemu, ONE);
        struct qemu_window seen[3];
        uint64_t windows[3];

        assert_non_null(channel);
        for (int i = 0; i < 3; i++)
                windows[i] = attach(MIB, &seen[i]);
        check_pages(host.admin, windows);
        check_pages(channel, windows);
        test_client_close(channel);
        for (int i = 0; i < 3; i++)
                qemu_drop(&seen[i]);
}

static int begin_with_quota(void **state) {
        return begin_with("[quota kvm:" ONE "]\nheld_bytes = 3M\nregions = 2\n");
}

static void test_a_window_counts_against_the_guests_quota(void **state) {
        struct qemu_window seen[2];

        ask_refused(host.admin, "quota", "guest.attach", "{'guest':'one','size':4194304}");
        assert_int_equal(in_regions(), 0);
        attach(MIB, &seen[0]);
        attach(MIB, &seen[1]);
        ask_refused(host.admin, "quota", "guest.attach", "{'guest':'one','size':1048576}");
        json_decref(ask(host.admin, "guest.set_quota", "{'guest':'one','limits':{'regions':3}}"));
        qemu_drop(&seen[0]);
        qemu_drop(&seen[1]);
        attach(MIB, &seen[0]);
        ask_refused(host.admin, "quota", "guest.attach", "{'guest':'one','size':1048576}");
        qemu_drop(&seen[0]);
}

static int begin_with_one_port(void **state) {
        int r;

        own = "ports = rp0\n";
        r = begin_with("[quota kvm:" ONE "]\nheld_bytes = 1M\n");
        own = "";
        return r;
}

/* There is no memory left to try with. */
static void test_a_window_without_a_port_takes_no_memory(void **state) {
        static const char *const keyed = "{'guest':'one','size':1048576,'request_key':'k'}";
        struct qemu_window seen;
        json_t *first, *again;
        int id = ask_send(host.admin, "guest.attach", "%s", keyed);

        qemu_plug(host.qemu, &seen);
        first = ask_result(host.admin, id);
        ask_refused(host.admin, "source_unavailable", "guest.attach", "{'guest':'one','size':1048576}");
        ask_refused(host.admin, "source_unavailable", "guest.attach", "{'guest':'one','size':1048576,'request_key':'l'}");
        again = ask(host.admin, "guest.attach", "%s", keyed);
        assert_true(json_equal(first, again));
        json_decref(first);
        json_decref(again);
        qemu_drop(&seen);
}

/* Version 99 is what QEMU takes well. */
static void test_nobody_but_qemu_gets_a_windows_memory(void **state) {
        struct qemu_window seen, stranger = { .memory = -1 };
        struct test_client *client;
        int none;

        attach(MIB, &seen);
        close(seen.fd);
        assert_int_equal(test_client_connect(seen.socket, NULL, &client), 0);
        stranger.fd = test_client_fd(client);
        assert_int_equal(qemu_hear(&stranger, &none), 99);
        assert_int_equal(none, -1);
        test_client_close(client);
        /* Nor does QEMU another time: it never comes back by itself. */
        stranger.fd = qemu_connect(host.qemu, seen.socket);
        assert_int_equal(qemu_hear(&stranger, &none), 99);
        seen.fd = stranger.fd;
        qemu_drop(&seen);
}

/* ---- out of the guest ---- */

static int begin_detach(uint64_t window, const char *force) {
        return ask_send(host.admin, "guest.detach", "{'window':%" PRIu64 ",'force':%s}", window, force);
}

static void take_out(const struct qemu_window *seen) {
        int id = begin_detach(find_window(), "false");

        qemu_obey(host.qemu, "device_del");
        qemu_deleted(host.qemu, seen->id);
        qemu_obey(host.qemu, "chardev-remove");
        json_decref(ask_result(host.admin, id));
}

static void test_a_window_in_use_is_not_taken_out_unless_by_force(void **state) {
        struct guest guest;
        int id;

        make_guest(&guest);
        ask_alloc(guest.channel, guest.device, 4096);
        ask_refused(host.admin, "busy", "guest.detach", "{'window':%" PRIu64 "}", guest.window);
        id = begin_detach(guest.window, "true");
        qemu_obey(host.qemu, "device_del");
        ask_refused(guest.channel, "gone", "coherent.list", "{}");
        hello(&guest);
        qemu_deleted(host.qemu, guest.seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        json_decref(ask_result(host.admin, id));
        assert_int_equal(in_regions(), 0);
        ask_refused(host.admin, "unknown_handle", "guest.detach", "{'window':%" PRIu64 "}", guest.window);
        leave_guest(&guest);
}

static void check_session(struct test_client *channel, const char *session, uint64_t alloc) {
        json_t *list;

        json_decref(ask(channel, "broker.hello", "{'session':'%s'}", session));
        list = ask(channel, "coherent.list", "{}");
        assert_int_equal(json_array_size(json_object_get(list, "allocs")), 1);
        assert_int_equal(ask_peek_number(json_array_get(json_object_get(list, "allocs"), 0), "alloc"), alloc);
        json_decref(list);
}

static void test_by_force_only_those_end_who_have_something_in_the_window(void **state) {
        struct qemu_window second;
        struct guest guest;
        char session[40];
        uint64_t alloc, window;
        int id;

        make_guest(&guest);
        alloc = ask_alloc(guest.channel, guest.device, 2 * MIB - 8192);
        snprintf(session, sizeof(session), "%s", guest.session);
        window = attach(MIB, &second);
        bind_at(guest.channel, window, AT + 16 * MIB);
        hello(&guest); /* another session, as of the next program */
        guest.device = ask_device(guest.channel, "disk");
        ask_alloc(guest.channel, guest.device, 65536);
        json_decref(ask(guest.channel, "coherent.alloc", "{'device':%" PRIu64 ",'size':65536,'lifetime':'owner'}",
                        guest.device));
        ask_refused(host.admin, "busy", "guest.detach", "{'window':%" PRIu64 "}", window);
        id = begin_detach(window, "true");
        qemu_obey(host.qemu, "device_del");
        ask_refused(guest.channel, "gone", "coherent.list", "{}");
        qemu_deleted(host.qemu, second.id);
        qemu_obey(host.qemu, "chardev-remove");
        json_decref(ask_result(host.admin, id));
        check_session(guest.channel, session, alloc);
        ask_refused(guest.channel, "unknown_handle", "broker.hello", "{'session':'%s'}", guest.session);
        leave_guest(&guest);
}

static void gets_nothing(const struct guest *guest) {
        ask_refused(guest->channel, "no_memory", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", guest->device);
}

static void test_a_guest_that_does_not_let_go_may_do_so_later(void **state) {
        struct guest guest;
        int id;

        make_guest(&guest);
        id = begin_detach(guest.window, "false");
        ask_refused(host.admin, "busy", "guest.detach", "{'window':%" PRIu64 "}", 0 + guest.window);
        qemu_obey(host.qemu, "device_del");
        gets_nothing(&guest);
        ask_take_reason(ask_error(host.admin, id), "timeout");
        assert_true(is_window(guest.window, "leaving"));
        gets_nothing(&guest);
        assert_int_equal(in_regions(), 2 * MIB);
        qemu_deleted(host.qemu, guest.seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        ask_until(is_all_back());
        ask_alloc(host.admin, ask_device(host.admin, "card"), 4096);
        json_decref(ask(host.admin, "broker.bye", "{}"));
        leave_guest(&guest);
}

static void test_a_guest_can_be_asked_again(void **state) {
        struct guest guest;
        int id;

        make_guest(&guest);
        id = begin_detach(guest.window, "false");
        qemu_obey(host.qemu, "device_del");
        ask_take_reason(ask_error(host.admin, id), "timeout");
        /* It is still being asked: so says QEMU. */
        id = begin_detach(guest.window, "false");
        qemu_reject(host.qemu, "device_del", "GenericError");
        ask_take_reason(ask_error(host.admin, id), "source_unavailable");
        assert_true(is_window(guest.window, "leaving"));
        id = begin_detach(guest.window, "false");
        qemu_obey(host.qemu, "device_del");
        qemu_deleted(host.qemu, guest.seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        json_decref(ask_result(host.admin, id));
        leave_guest(&guest);
}

static void test_a_window_that_qemu_does_not_know_of_stays_while_it_has_it(void **state) {
        struct guest guest;
        int id;

        make_guest(&guest);
        id = begin_detach(guest.window, "false");
        qemu_reject(host.qemu, "device_del", "DeviceNotFound");
        qemu_reject(host.qemu, "chardev-remove", "GenericError");
        ask_take_reason(ask_error(host.admin, id), "source_unavailable");
        qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        assert_int_equal(in_regions(), 2 * MIB);
        qemu_obey(host.qemu, "chardev-remove");
        qemu_drop(&guest.seen);
        qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        ask_until(is_all_back());
        leave_guest(&guest);
        next_attach_works();
}

static void test_a_window_that_the_guest_keeps_goes_on_as_before(void **state) {
        struct guest guest;
        int id;

        make_guest(&guest);
        id = begin_detach(guest.window, "false");
        qemu_obey(host.qemu, "device_del");
        qemu_say(host.qemu, "{'timestamp': {'seconds': 1, 'microseconds': 2}, 'event': 'DEVICE_UNPLUG_GUEST_ERROR', 'data': "
                 "{'device': '%s', 'path': '/machine/peripheral/%s'}}", guest.seen.id, guest.seen.id);
        ask_take_reason(ask_error(host.admin, id), "source_unavailable");
        assert_true(is_window(guest.window, "plugged"));
        ask_alloc(guest.channel, guest.device, 4096);
        leave_guest(&guest);
}

static void test_a_guest_may_let_go_of_what_nobody_asked_for(void **state) {
        struct guest guest;

        make_guest(&guest);
        ask_alloc(guest.channel, guest.device, 4096);
        qemu_deleted(host.qemu, guest.seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        ask_until(is_all_back());
        ask_refused(guest.channel, "gone", "coherent.list", "{}");
        qemu_deleted(host.qemu, guest.seen.id);
        qemu_deleted(host.qemu, "dmabroker-4294967295");
        qemu_deleted(host.qemu, "dmabroker-");
        leave_guest(&guest);
        next_attach_works();
}

/* ---- what becomes of the guest ---- */

static uint64_t alloc_at(struct guest *guest, const char *lifetime, uint64_t *ret_dma) {
        json_t *result = ask(guest->channel, "coherent.alloc", "{'device':%" PRIu64 ",'size':8192,'lifetime':'%s'}",
                             guest->device, lifetime);

        *ret_dma = ask_peek_hex(result, "dma_addr");
        return ask_take_number(result, "alloc");
}

static void scribble(const struct qemu_window *seen, uint64_t size) {
        char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, seen->memory, 0);

        assert_ptr_not_equal(memory, MAP_FAILED);
        memset(memory, 0xa5, size);
        munmap(memory, size);
}

static bool is_bound(void) {
        json_t *list = ask(host.admin, "window.list", "{}");
        bool is = json_object_get(json_array_get(json_object_get(list, "items"), 0), "guest_addr");

        json_decref(list);
        return is;
}

static void test_a_reboot_frees_all_but_the_windows(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "session", &dma);
        alloc_at(&guest, "owner", &dma);
        scribble(&guest.seen, 2 * MIB);
        qemu_event(host.qemu, "RESET");
        ask_until(count("allocs") == 0);
        assert_false(is_bound());
        check_memory(&guest.seen, guest.window, 2 * MIB);
        ask_refused(guest.channel, "gone", "coherent.list", "{}");
        hello(&guest);
        guest.device = ask_device(guest.channel, "nic");
        ask_refused(guest.channel, "source_unavailable", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", guest.device);
        bind_at(guest.channel, guest.window, 2 * AT);
        alloc_at(&guest, "owner", &dma);
        assert_in_range(dma, 2 * AT, 2 * AT + 2 * MIB);
        for (int i = 0; i < 1000; i++)
                qemu_event(host.qemu, "RESET");
        ask_until(count("allocs") == 0);
        leave_guest(&guest);
}

static void test_a_guest_that_shuts_down_has_nothing_more(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        qemu_event(host.qemu, "STOP");
        ask_until(guest_is("one", "paused"));
        assert_int_equal(count("allocs"), 1);
        qemu_event(host.qemu, "RESUME");
        ask_until(guest_is("one", "running"));
        qemu_event(host.qemu, "SHUTDOWN");
        ask_until(count("allocs") == 0);
        assert_int_equal(n_windows("one"), 1);
        leave_guest(&guest);
}

/* Whatever it is asked, up to its state. */
static void serve_again(struct qemu *qemu, bool has_windows) {
        bool done = false;

        qemu_greet(qemu);
        while (!done) {
                const char *line, *command;
                json_t *message;
                uint64_t id;

                assert_int_equal(test_client_read_line(qemu->monitor, &line), 0);
                message = json_loads(line, 0, NULL);
                command = json_string_value(json_object_get(message, "execute"));
                id = ask_peek_number(message, "id");
                if (strcmp(command, "qom-list") == 0 && !has_windows)
                        qemu_refuse(qemu, id, "DeviceNotFound");
                else if (strcmp(command, "query-status") == 0) {
                        qemu_say(qemu, "{'return': {'running': true, 'singlestep': false, 'status': 'running'}, 'id': %llu}",
                                 (unsigned long long)id);
                        done = true;
                } else
                        qemu_return(qemu, id);
                json_decref(message);
        }
        ask_until(guest_is("one", "running"));
}

static void test_a_monitor_that_is_away_changes_nothing(void **state) {
        struct guest guest;
        uint64_t dma, again;

        make_guest(&guest);
        alloc_at(&guest, "session", &dma);
        qemu_hang_up(host.qemu);
        ask_until(guest_is("one", "unknown"));
        ask_refused(host.admin, "source_unavailable", "guest.attach", "{'guest':'one','size':1048576}");
        ask_refused(host.admin, "source_unavailable", "guest.detach", "{'window':%" PRIu64 ",'force':true}", guest.window);
        alloc_at(&guest, "session", &again);
        serve_again(host.qemu, true);
        assert_int_equal(count("allocs"), 2);
        assert_int_equal(n_windows("one"), 1);
        leave_guest(&guest);
}

static void test_what_was_let_go_of_while_the_monitor_was_away_is_found_out(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        qemu_hang_up(host.qemu);
        ask_until(guest_is("one", "unknown"));
        qemu_drop(&guest.seen);
        serve_again(host.qemu, false);
        ask_until(is_all_back());
        leave_guest(&guest);
        next_attach_works();
}

/* What the device was connected through stays with QEMU until it is taken away. */
static void test_a_window_is_not_given_back_while_somebody_is_connected_to_it(void **state) {
        struct guest guest;

        make_guest(&guest);
        qemu_hang_up(host.qemu);
        qemu_greet(host.qemu);
        qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        qemu_obey(host.qemu, "query-status");
        for (int i = 0; i < 2; i++) {
                /* It does not do that to what a device uses. */
                qemu_reject(host.qemu, "chardev-remove", "GenericError");
                assert_true(is_window(guest.window, "plugged"));
                assert_int_equal(in_regions(), 2 * MIB);
                qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        }
        ask_until(has_logged("but a process is connected to it"));
        qemu_obey(host.qemu, "chardev-remove");
        qemu_drop(&guest.seen);
        qemu_reject(host.qemu, "qom-list", "DeviceNotFound");
        ask_until(is_all_back());
        leave_guest(&guest);
}

static void test_a_guest_that_is_killed_has_nothing_more_and_comes_again(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        host.qemu = qemu_kill(host.qemu);
        ask_until(guest_is("one", "off"));
        ask_until(is_all_back());
        assert_int_equal(count("allocs"), 0);
        leave_guest(&guest);
        host.qemu = qemu_start(host.monitor);
        qemu_serve(host.qemu, true);
        ask_until(guest_is("one", "running"));
        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        leave_guest(&guest);
}

static bool is_away_because(const char *why) {
        json_t *info = guest("one");
        bool is = strstr(json_string_value(json_object_get(info, "why")), why);

        json_decref(info);
        return is;
}

/* As long as the first one lives, it may have the memory mapped. */
static void test_another_qemu_with_the_same_guest_waits_until_the_first_has_ended(void **state) {
        struct qemu *other;
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        other = qemu_start(host.monitor);
        qemu_hang_up(host.qemu);
        for (int i = 0; i < 2; i++) {
                qemu_greet(other);
                assert_int_equal(test_client_wait_closed(other->monitor), 0);
                assert_true(guest_is("one", "unknown"));
        }
        assert_true(is_away_because("has its memory and has not ended"));
        assert_true(has_logged("the guest one is not followed: "));
        /* Even a daemon that was told so by the last one alone. */
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        qemu_hang_up(other);
        comes_back();
        qemu_greet(other);
        assert_int_equal(test_client_wait_closed(other->monitor), 0);
        ask_until(is_away_because("has its memory and has not ended"));
        assert_int_equal(n_windows("one"), 1);
        assert_int_equal(count("allocs"), 1);
        qemu_kill(host.qemu);
        host.qemu = other;
        qemu_serve(other, true);
        ask_until(guest_is("one", "running"));
        ask_until(is_all_back());
        leave_guest(&guest);
        make_guest(&guest);
        leave_guest(&guest);
}

static bool is_connected(const char *name) {
        json_t *info = guest(name);
        bool is = json_is_true(json_object_get(info, "connected"));

        json_decref(info);
        return is;
}

static void test_whether_a_channel_is_connected_is_told(void **state) {
        struct test_client *channel;

        assert_false(is_connected("one"));
        channel = open_channel(host.qemu, ONE);
        assert_true(is_connected("one"));
        assert_false(is_connected("two"));
        test_client_close(channel);
        ask_until(!is_connected("one"));
}

/* ---- without a daemon ---- */

static void test_a_window_and_what_lies_in_it_outlive_a_daemon(void **state) {
        static const int signals[] = { SIGKILL, SIGTERM };
        struct guest guest;
        uint64_t first, second, alloc, dma;
        json_t *result;

        make_guest(&guest);
        alloc = alloc_at(&guest, "session", &first);
        alloc_at(&guest, "owner", &second);
        for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
                test_client_close(guest.channel);
                qemu_hang_up(host.qemu);
                assert_int_equal(signals[i] == SIGKILL ? test_daemon_kill(host.daemon) : test_daemon_stop(host.daemon), 0);
                comes_back();
                serve_again(host.qemu, true);
                guest.channel = open_channel(host.qemu, ONE);
                json_decref(ask(guest.channel, "broker.hello", "{'session':'%s'}", guest.session));
                result = ask(guest.channel, "coherent.list", "{}");
                assert_int_equal(json_array_size(json_object_get(result, "allocs")), 2);
                assert_int_equal(ask_peek_hex(json_array_get(json_object_get(result, "allocs"), 0), "dma_addr"), first);
                assert_int_equal(ask_peek_hex(json_array_get(json_object_get(result, "allocs"), 1), "dma_addr"), second);
                json_decref(result);
                check_memory(&guest.seen, guest.window, 2 * MIB);
                ask_clean(host.admin);
        }
        json_decref(ask(guest.channel, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        alloc_at(&guest, "session", &dma);
        assert_int_equal(dma, first);
        leave_guest(&guest);
}

/* Its answer was lost: it is asked for again with the same key, in the same connection or another. */
static void test_a_window_is_asked_for_twice_and_had_once(void **state) {
        static const char *const keyed = "{'guest':'one','size':1048576,'request_key':'k'}";
        struct test_client *other = ask_connect(host.daemon, NULL);
        struct qemu_window seen;
        json_t *first, *again;
        uint64_t command;
        int id;

        id = ask_send(host.admin, "guest.attach", "%s", keyed);
        command = qemu_plug_begin(host.qemu, &seen);
        ask_refused(other, "busy", "guest.attach", "%s", keyed);
        qemu_return(host.qemu, command);
        first = ask_result(host.admin, id);
        again = ask(other, "guest.attach", "{'guest':'" ONE "','size':1048576,'request_key':'k'}");
        assert_true(json_equal(first, again));
        json_decref(again);
        ask_refused(other, "bad_param", "guest.attach", "{'guest':'one','size':2097152,'request_key':'k'}");
        assert_int_equal(n_windows("one"), 1);
        assert_int_equal(in_regions(), MIB);
        test_client_close(other);
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        qemu_hang_up(host.qemu);
        comes_back();
        serve_again(host.qemu, true);
        ask_until(is_window(find_window(), "plugged"));
        again = ask(host.admin, "guest.attach", "%s", keyed);
        assert_true(json_equal(first, again));
        json_decref(again);
        json_decref(first);
        id = begin_detach(find_window(), "false");
        qemu_obey(host.qemu, "device_del");
        qemu_deleted(host.qemu, seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        json_decref(ask_result(host.admin, id));
        qemu_drop(&seen);
        /* Of one that is gone nothing was promised. */
        id = ask_send(host.admin, "guest.attach", "%s", keyed);
        qemu_plug(host.qemu, &seen);
        json_decref(ask_result(host.admin, id));
        assert_int_equal(n_windows("one"), 1);
        qemu_drop(&seen);
}

static void test_a_guest_comes_to_no_administrators_key(void **state) {
        static const char *const keys[] = { "k", "\\u00ffk", "\xc3\xbfk" };
        struct qemu_window seen;
        struct guest guest;
        int id;

        make_guest(&guest);
        for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
                json_decref(ask(guest.channel, "device.open", "{'name':'nic','request_key':'%s'}", keys[i]));
        id = ask_send(host.admin, "guest.attach", "{'guest':'one','size':1048576,'request_key':'k'}");
        qemu_plug(host.qemu, &seen);
        json_decref(ask_result(host.admin, id));
        /* And the other way round. */
        id = ask_send(host.admin, "guest.attach", "{'guest':'one','size':1048576,'request_key':'l'}");
        qemu_drop(&seen);
        qemu_plug(host.qemu, &seen);
        json_decref(ask_result(host.admin, id));
        json_decref(ask(guest.channel, "device.open", "{'name':'nic','request_key':'l'}"));
        qemu_drop(&seen);
        leave_guest(&guest);
}

static void test_a_window_that_qemu_has_no_more_after_a_daemons_death_goes_back(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        qemu_hang_up(host.qemu);
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        comes_back();
        assert_int_equal(n_windows("one"), 1);
        serve_again(host.qemu, false);
        ask_until(is_all_back());
        assert_int_equal(count("allocs"), 0);
        leave_guest(&guest);
        next_attach_works();
}

static void test_a_guest_that_died_without_a_daemon_has_nothing_more(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        alloc_at(&guest, "session", &dma);
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        host.qemu = qemu_kill(host.qemu);
        comes_back();
        ask_until(is_all_back());
        assert_int_equal(count("allocs"), 0);
        assert_true(guest_is("one", "off"));
        leave_guest(&guest);
}

static void forget_guest(const char *name) {
        char *path = strdup(test_daemon_config(host.daemon)), line[128], *at;
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        snprintf(line, sizeof(line), "[guest %s]", name);
        at = strstr(host.config, line);
        assert_non_null(at);
        fprintf(file, "%.*s%s", (int)(at - host.config), host.config, strstr(at + 1, "[guest "));
        assert_int_equal(fclose(file), 0);
        free(path);
}

static bool is_forgotten(const char *name) {
        json_t *answer, *error;
        bool is;

        ask_send(host.admin, "guest.get", "{'guest':'%s'}", name);
        answer = ask_read(host.admin);
        error = json_object_get(json_object_get(answer, "error"), "data");
        is = error && strcmp(json_string_value(json_object_get(error, "reason")), "unknown_guest") == 0;
        json_decref(answer);
        return is;
}

/* Its QEMU cannot be heard any more, but has the memory. */
static void test_of_a_guest_that_is_taken_out_of_the_configuration_qemu_keeps_its_windows(void **state) {
        struct guest one;
        json_t *info, *list;
        uint64_t dma;

        make_guest(&one);
        alloc_at(&one, "owner", &dma);
        qemu_hang_up(host.qemu);
        assert_int_equal(test_daemon_stop(host.daemon), 0);
        forget_guest("one");
        for (int i = 0; i < 2; i++) {
                comes_back();
                info = guest(ONE);
                assert_string_equal(json_string_value(json_object_get(info, "guest")), ONE);
                assert_string_equal(json_string_value(json_object_get(info, "via")), "none");
                assert_string_equal(json_string_value(json_object_get(info, "state")), "unknown");
                assert_string_equal(json_string_value(json_object_get(info, "channel")), "");
                assert_non_null(strstr(json_string_value(json_object_get(info, "why")), "not in the configuration"));
                assert_int_equal(ask_take_number(info, "windows"), 1);
                assert_int_equal(count("guests"), 1);
                assert_int_equal(count("allocs"), 0);
                assert_int_equal(in_regions(), 2 * MIB);
                ask_refused(host.admin, "source_unavailable", "guest.attach", "{'guest':'" ONE "','size':%" PRIu64 "}",
                            (uint64_t)MIB);
                ask_refused(host.admin, "source_unavailable", "guest.detach", "{'window':%" PRIu64 ",'force':true}",
                            one.window);
                list = ask(host.admin, "window.list", "{'guest':'" ONE "'}");
                assert_int_equal(json_array_size(json_object_get(list, "items")), 1);
                json_decref(list);
                ask_refused(host.admin, "unknown_guest", "guest.attach", "{'guest':'" ONE "','size':%" PRIu64 ",'dry_run':true}",
                            (uint64_t)MIB);
                json_decref(ask(host.admin, "guest.evict", "{'guest':'" ONE "'}"));
                if (!i)
                        assert_int_equal(test_daemon_kill(host.daemon), 0);
        }
        assert_int_equal(qemu_connect(host.qemu, one.seen.socket), -ENOENT);
        host.qemu = qemu_kill(host.qemu);
        ask_until(is_forgotten(ONE));
        assert_int_equal(in_regions(), 0);
        leave_guest(&one);
}

/* At each step of an attachment: before QEMU has heard of it, and after each of its answers. */
static void test_a_daemon_killed_in_an_attachment_leaves_no_memory_behind(void **state) {
        for (int step = 0; step < 4; step++) {
                struct qemu_window seen = { .fd = -1, .memory = -1 };
                uint64_t id;

                begin_attach(MIB);
                if (step == 1)
                        json_decref(qemu_expect(host.qemu, "chardev-remove", &id));
                if (step == 2) {
                        qemu_reject(host.qemu, "chardev-remove", "GenericError");
                        json_decref(qemu_expect(host.qemu, "chardev-add", &id));
                }
                if (step == 3)
                        qemu_plug_begin(host.qemu, &seen);
                assert_int_equal(test_daemon_kill(host.daemon), 0);
                qemu_hang_up(host.qemu);
                qemu_drop(&seen);
                comes_back();
                serve_again(host.qemu, false);
                ask_until(is_all_back());
                ask_clean(host.admin);
        }
        next_attach_works();
}

static void test_a_window_that_qemu_got_while_its_daemon_died_is_the_guests(void **state) {
        struct qemu_window seen;

        begin_attach(MIB);
        qemu_plug_begin(host.qemu, &seen);
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        comes_back();
        serve_again(host.qemu, true);
        assert_int_equal(n_windows("one"), 1);
        check_memory(&seen, find_window(), MIB);
        qemu_drop(&seen);
}

/* Whoever wanted it was told that it was not had. */
static void test_a_window_that_nobody_was_promised_is_taken_out_by_the_next_daemon(void **state) {
        struct qemu_window seen;
        int id = begin_attach(MIB);

        qemu_plug_begin(host.qemu, &seen);
        qemu_hang_up(host.qemu);
        ask_take_reason(ask_error(host.admin, id), "gone");
        for (int i = 0; i < 2; i++) {
                assert_int_equal(test_daemon_kill(host.daemon), 0);
                comes_back();
                assert_true(is_window(find_window(), "leaving"));
                qemu_greet(host.qemu);
                qemu_obey(host.qemu, "qom-list");
                qemu_obey(host.qemu, "query-status");
                /* One daemon does not see the end of it. */
                qemu_obey(host.qemu, "device_del");
                if (i == 0)
                        qemu_hang_up(host.qemu);
        }
        assert_int_equal(in_regions(), MIB);
        qemu_deleted(host.qemu, seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        ask_until(is_all_back());
        qemu_drop(&seen);
}

/* But whoever asks for it again, when the guest has kept it, has it. */
static void test_a_window_that_the_guest_kept_is_had_by_whoever_asks_again(void **state) {
        static const char *const keyed = "{'guest':'one','size':1048576,'request_key':'k'}";
        struct qemu_window seen;
        int id = ask_send(host.admin, "guest.attach", "%s", keyed);
        uint64_t status;
        json_t *result;

        qemu_plug_begin(host.qemu, &seen);
        qemu_hang_up(host.qemu);
        ask_take_reason(ask_error(host.admin, id), "gone");
        qemu_greet(host.qemu);
        qemu_obey(host.qemu, "qom-list");
        json_decref(qemu_expect(host.qemu, "query-status", &status));
        qemu_say(host.qemu, "{'return': {'running': true, 'singlestep': false, 'status': 'running'}, 'id': %d}", (int)status);
        qemu_reject(host.qemu, "device_del", "GenericError");
        ask_until(is_window(find_window(), "plugged"));
        result = ask(host.admin, "guest.attach", "%s", keyed);
        assert_int_equal(ask_take_number(result, "window"), find_window());
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        qemu_hang_up(host.qemu);
        comes_back();
        serve_again(host.qemu, true);
        json_decref(ask(host.admin, "guest.list", "{}"));
        assert_true(is_window(find_window(), "plugged"));
        qemu_drop(&seen);
}

static void test_windows_whose_memory_is_gone_are_forgotten(void **state) {
        struct qemu_window seen[3];
        pid_t keeper;

        for (int i = 0; i < 3; i++)
                attach(MIB, &seen[i]);
        keeper = test_daemon_find_keeper(host.daemon);
        assert_true(keeper > 0);
        assert_int_equal(kill(test_daemon_pid(host.daemon), SIGSTOP), 0);
        assert_int_equal(kill(keeper, SIGKILL), 0);
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        qemu_hang_up(host.qemu);
        *host.session = '\0';
        comes_back();
        assert_int_equal(n_windows("one"), 0);
        for (int i = 0; i < 3; i++)
                qemu_drop(&seen[i]);
        serve_again(host.qemu, false);
        next_attach_works();
}

/* The guest may let go of it at any time, whoever hears of that. */
static void test_what_a_guest_was_asked_for_serves_nobody_with_the_next_daemon(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        begin_detach(guest.window, "false");
        qemu_obey(host.qemu, "device_del");
        for (int i = 0; i < 2; i++) {
                test_client_close(guest.channel);
                qemu_hang_up(host.qemu);
                assert_int_equal(test_daemon_kill(host.daemon), 0);
                comes_back();
                assert_true(is_window(guest.window, "leaving"));
                serve_again(host.qemu, true);
                guest.channel = open_channel(host.qemu, ONE);
                json_decref(ask(guest.channel, "broker.hello", "{'session':'%s'}", guest.session));
                if (i == 0)
                        gets_nothing(&guest);
                else {
                        qemu_event(host.qemu, "RESET");
                        qemu_obey(host.qemu, "qom-list");
                        ask_until(is_window(guest.window, "plugged"));
                }
        }
        hello(&guest);
        guest.device = ask_device(guest.channel, "nic");
        bind_at(guest.channel, guest.window, AT);
        alloc_at(&guest, "session", &dma);
        leave_guest(&guest);
}

/* The last that was written, before which everything else is whole. */
static void damage_ledger(void) {
        char pattern[200], byte = 0;
        struct stat status;
        glob_t found;
        int fd;

        snprintf(pattern, sizeof(pattern), "%s/ledger.*", test_daemon_state(host.daemon));
        assert_int_equal(glob(pattern, 0, NULL, &found), 0);
        assert_int_equal(found.gl_pathc, 1);
        fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
        globfree(&found);
        assert_int_equal(fstat(fd, &status), 0);
        /* The file is filled up with zeros behind it. */
        for (off_t at = status.st_size - 1; !byte; at--) {
                assert_int_equal(pread(fd, &byte, 1, at), 1);
                byte = byte ? byte ^ 0x20 : 0;
                if (byte)
                        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        }
        close(fd);
}

static void test_what_a_damaged_ledger_has_forgotten_keeps_a_window_until_an_administrators_word(void **state) {
        struct guest guest;
        uint64_t dma;
        json_t *error;

        make_guest(&guest);
        alloc_at(&guest, "session", &dma);
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        qemu_hang_up(host.qemu);
        damage_ledger();
        comes_back();
        serve_again(host.qemu, true);
        assert_int_equal(count("allocs"), 0);
        error = ask_error(host.admin, begin_detach(guest.window, "true"));
        assert_non_null(strstr(json_string_value(json_object_get(error, "message")), "quarantine release"));
        ask_take_reason(error, "busy");
        json_decref(ask(host.admin, "quarantine.release", "{'owner':'kvm:" ONE "'}"));
        take_out(&guest.seen);
        leave_guest(&guest);
}

static void test_an_interrupt_leaves_nothing_behind(void **state) {
        struct guest guest;
        int status;

        make_guest(&guest);
        assert_int_equal(test_daemon_signal(host.daemon, SIGINT), 0);
        assert_int_equal(test_client_wait_closed(guest.channel), 0);
        qemu_drop(&guest.seen);
        assert_int_equal(test_daemon_wait(host.daemon, &status), 0);
        assert_int_equal(status, 0);
        assert_int_not_equal(access(guest.seen.socket, F_OK), 0);
        qemu_hang_up(host.qemu);
        *host.session = '\0';
        comes_back();
        assert_int_equal(n_windows("one"), 0);
        assert_int_equal(in_regions(), 0);
        serve_again(host.qemu, false);
        leave_guest(&guest);
}

/* They would keep their ports and their names. */
static void test_devices_that_no_daemon_knows_of_are_taken_out(void **state) {
        struct guest guest;
        json_t *arguments;
        uint64_t id;

        host.qemu->leftovers = "[{'name': 'type', 'type': 'string'}, {'name': 'dmabroker-7', 'type': 'child<ivshmem-doorbell>'}]";
        qemu_hang_up(host.qemu);
        qemu_serve(host.qemu, true);
        arguments = qemu_expect(host.qemu, "device_del", &id);
        assert_string_equal(json_string_value(json_object_get(arguments, "id")), "dmabroker-7");
        json_decref(arguments);
        qemu_return(host.qemu, id);
        qemu_deleted(host.qemu, "dmabroker-7");
        qemu_obey(host.qemu, "chardev-remove");
        host.qemu->leftovers = NULL;
        make_guest(&guest);
        assert_string_equal(guest.seen.id, "dmabroker-8");
        leave_guest(&guest);
}

static unsigned count_logged(const char *text) {
        char *log = test_daemon_log(host.daemon);
        unsigned n = 0;

        for (const char *at = log; at && (at = strstr(at, text)); at++)
                n++;
        free(log);
        return n;
}

/* All of which would have to be taken out. */
static void test_a_qemu_with_no_end_of_devices_is_asked_for_some(void **state) {
        char *devices = strdup("[{'name': 'type'}"), *more;
        uint64_t id;

        for (int i = 100; i < 2000; i++) {
                assert_true(asprintf(&more, "%s, {'name': 'dmabroker-%d'}", devices, i) > 0);
                free(devices);
                devices = more;
        }
        assert_true(asprintf(&more, "%s]", devices) > 0);
        free(devices);
        host.qemu->leftovers = more;
        for (int i = 0; i < 4; i++) {
                qemu_hang_up(host.qemu);
                qemu_serve(host.qemu, true);
                for (int n = 0; n < 16; n++)
                        json_decref(qemu_expect(host.qemu, "device_del", &id));
                ask_until(guest_is("one", "running"));
        }
        host.qemu->leftovers = NULL;
        free(more);
        next_attach_works();
        assert_int_equal(count_logged("that an earlier daemon has left") + count_logged("keeps a device of an earlier"), 32);
}

static void test_a_qemu_that_does_not_say_whether_it_runs_is_told_of(void **state) {
        qemu_hang_up(host.qemu);
        qemu_greet(host.qemu);
        qemu_reject(host.qemu, "query-status", "GenericError");
        ask_until(has_logged("does not say whether it runs: It does not like that"));
        qemu_hang_up(host.qemu);
        qemu_serve(host.qemu, true);
        ask_until(guest_is("one", "running"));
}

static void test_a_changed_guest_is_told_to_want_a_restart(void **state) {
        FILE *file = fopen(test_daemon_config(host.daemon), "a");

        assert_non_null(file);
        fprintf(file, "[guest three]\nuuid = 6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d33\n");
        fclose(file);
        assert_int_equal(test_daemon_signal(host.daemon, SIGHUP), 0);
        assert_int_equal(test_daemon_wait_notify(host.daemon, "RELOADING=1"), 0);
        ask_until(has_logged("[guest three] and the like: restart the daemon"));
        ask_refused(host.admin, "unknown_guest", "guest.get", "{'guest':'three'}");
}

/* ---- the channel ---- */

/* Not said to be anybody's yet. */
static struct test_client *open_raw(const char *uuid) {
        struct test_client *client;
        char path[108];
        int fd;

        channel_path(path, uuid);
        fd = qemu_connect(host.qemu, path);
        assert_true(fd >= 0);
        assert_int_equal(test_client_adopt(fd, &client), 0);
        return client;
}

/* The next line, without the resets before it. */
static json_t *read_anew(struct test_client *client) {
        const char *line, *at;
        json_t *value;

        assert_int_equal(test_client_read_line(client, &line), 0);
        for (at = line; *at == reset; at++)
                ;
        value = json_loads(at, 0, NULL);
        assert_non_null(value);
        return value;
}

static void say_ping(struct test_client *client, int id) {
        char text[96];

        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"broker.ping\"}\n", id);
        assert_int_equal(test_client_send_text(client, text), 0);
}

static void hears_pong(struct test_client *client, int id) {
        json_t *answer = read_anew(client);

        assert_int_equal(json_integer_value(json_object_get(answer, "id")), id);
        assert_non_null(json_object_get(answer, "result"));
        json_decref(answer);
}

static void test_what_comes_before_a_reset_was_not_said(void **state) {
        struct test_client *client = open_raw(ONE);
        json_t *answer;

        assert_int_equal(test_client_send_text(client, "garbage\n{}{}{}\n"), 0);
        say_ping(client, 1);
        assert_int_equal(test_client_send_text(client, "{\"jsonrpc\":\"2.0\",\"id\":2,"), 0);
        assert_int_equal(test_client_send(client, &reset, 1), 0);
        say_ping(client, 3);
        hears_pong(client, 3);
        assert_int_equal(test_client_send_text(client, "{\"jsonrpc\":\"2.0\",\"id\":4,"), 0);
        assert_int_equal(test_client_send(client, &reset, 1), 0);
        say_ping(client, 5);
        hears_pong(client, 5);
        ask_invalid(client, -32602, "window.bind", "{'window':0,'guest_addr':'0x1000'}");
        assert_int_equal(test_client_send_text(client, "garbage\n"), 0);
        answer = read_anew(client);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(answer, "error"), "code")), -32700);
        json_decref(answer);
        test_client_close(client);
}

static void test_a_line_that_is_too_long_is_skipped(void **state) {
        struct test_client *client = open_raw(ONE);
        char *long_one = malloc(3 * MIB);
        json_t *answer;

        assert_int_equal(test_client_send(client, &reset, 1), 0);
        memset(long_one, 'x', 3 * MIB);
        long_one[3 * MIB - 1] = '\n';
        assert_int_equal(test_client_send(client, long_one, 3 * MIB), 0);
        free(long_one);
        answer = read_anew(client);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(answer, "error"), "code")), -32600);
        json_decref(answer);
        say_ping(client, 1);
        hears_pong(client, 1);
        test_client_close(client);
}

/* Each may be another program, which opens a session and is gone. */
static void test_a_storm_of_resets_leaves_nothing_behind(void **state) {
        static const char open[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.hello\"}\n\xff{\xff\xff";
        struct test_client *client = open_raw(ONE);
        char all[4096];
        uint64_t before = count("sessions");

        memset(all, 0xff, sizeof(all));
        for (int i = 0; i < 64; i++)
                assert_int_equal(test_client_send(client, all, sizeof(all)), 0);
        for (int i = 0; i < 3000; i++) {
                assert_int_equal(test_client_send(client, open, sizeof(open) - 1), 0);
                json_decref(read_anew(client));
        }
        assert_in_range(count("sessions"), before, before + 64);
        test_client_close(client);
        client = open_channel(host.qemu, ONE);
        json_decref(ask(client, "broker.hello", "{}"));
        test_client_close(client);
}

static void test_a_guest_that_reads_no_answers_holds_up_nobody(void **state) {
        static const char call[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\ngarbage\n";
        struct test_client *client = open_channel(host.qemu, ONE);
        size_t sent = 1;
        unsigned full = 0;

        /* Until nothing is taken any more. */
        while (full < 200) {
                assert_int_equal(test_client_send_some(client, call, sizeof(call) - 1, &sent), 0);
                full = sent ? 0 : full + 1;
                if (!sent)
                        json_decref(ask(host.admin, "broker.ping", "{}"));
        }
        json_decref(ask(host.admin, "guest.list", "{}"));
        test_client_close(client);
        client = open_channel(host.qemu, ONE);
        json_decref(ask(client, "broker.ping", "{}"));
        test_client_close(client);
}

static void test_a_second_connection_takes_the_place_of_the_first(void **state) {
        struct test_client *first = open_channel(host.qemu, ONE), *second;
        json_t *result = ask(first, "broker.hello", "{}");
        char token[40];

        snprintf(token, sizeof(token), "%s", json_string_value(json_object_get(result, "session")));
        json_decref(result);
        second = open_channel(host.qemu, ONE);
        assert_int_equal(test_client_wait_closed(first), 0);
        json_decref(ask(second, "broker.hello", "{'session':'%s'}", token));
        ask_refused(host.admin, "unknown_handle", "broker.hello", "{'session':'%s'}", token);
        test_client_close(first);
        result = ask(host.admin, "broker.hello", "{}");
        ask_refused(second, "unknown_handle", "broker.hello", "{'session':'%s'}",
                    json_string_value(json_object_get(result, "session")));
        json_decref(result);
        json_decref(ask(host.admin, "broker.bye", "{}"));
        test_client_close(second);
}

static void test_who_is_not_qemu_is_hung_up_on(void **state) {
        struct test_client *stranger, *channel = open_channel(host.qemu, ONE);
        char path[108];

        channel_path(path, ONE);
        assert_int_equal(test_client_connect(path, NULL, &stranger), 0);
        assert_int_equal(test_client_wait_closed(stranger), 0);
        test_client_close(stranger);
        json_decref(ask(channel, "broker.ping", "{}"));
        test_client_close(channel);
}

/* Nothing was known of its QEMU then. */
static void test_who_was_let_in_and_is_not_qemu_is_hung_up_on_when_that_is_known(void **state) {
        struct test_client *stranger = open_channel(NULL, TWO), *channel;
        struct qemu *qemu;
        char path[108];

        json_decref(ask(stranger, "broker.hello", "{}"));
        snprintf(path, sizeof(path), "%s/two", host.directory);
        qemu = qemu_start(path);
        channel_path(path, TWO);
        channel = open_channel(qemu, TWO);
        assert_int_equal(test_client_wait_closed(stranger), 0);
        test_client_close(stranger);
        test_client_close(channel);
        stranger = open_channel(NULL, TWO);
        qemu_serve(qemu, true);
        assert_int_equal(test_client_wait_closed(stranger), 0);
        test_client_close(stranger);
        channel = open_channel(qemu, TWO);
        json_decref(ask(channel, "broker.hello", "{}"));
        test_client_close(channel);
        qemu_kill(qemu);
        ask_until(guest_is("two", "off"));
        snprintf(path, sizeof(path), "%s/two", host.directory);
        unlink(path);
}

static int begin_with_short_grace(void **state) {
        int r;

        grace = "200ms";
        r = begin_with("");
        grace = "60s";
        return r;
}

static int begin_with_long_rest(void **state) {
        int r;

        quarantine = "1h";
        r = begin_with_short_grace(state);
        quarantine = "0";
        return r;
}

/* No device of the guest's is there any more that could write it. */
static void test_what_rests_goes_back_with_its_guest(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "session", &dma);
        leave_guest(&guest);
        ask_until(ask_number(host.admin, "quarantined", "broker.status", "{}") > 0);
        host.qemu = qemu_kill(host.qemu);
        ask_until(guest_is("one", "off"));
        ask_until(is_all_back());
        assert_int_equal(ask_number(host.admin, "quarantined", "broker.status", "{}"), 0);
        host.qemu = qemu_start(host.monitor);
        qemu_serve(host.qemu, true);
        ask_until(guest_is("one", "running"));
        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        leave_guest(&guest);
}

static void test_what_rests_does_not_keep_a_window(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "session", &dma);
        test_client_close(guest.channel);
        ask_until(ask_number(host.admin, "quarantined", "broker.status", "{}") > 0);
        take_out(&guest.seen);
        assert_int_equal(ask_number(host.admin, "quarantined", "broker.status", "{}"), 0);
        assert_int_equal(in_regions(), 0);
        qemu_drop(&guest.seen);
}

static void test_what_a_guests_program_had_is_freed_after_the_grace_time(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "session", &dma);
        alloc_at(&guest, "owner", &dma);
        test_client_close(guest.channel);
        ask_until(count("allocs") == 1);
        guest.channel = open_channel(host.qemu, ONE);
        ask_refused(guest.channel, "unknown_handle", "broker.hello", "{'session':'%s'}", guest.session);
        leave_guest(&guest);
}

static int begin_without_connections(void **state) {
        return begin_with("[quota kvm:" TWO "]\nconnections = 0\n");
}

static void test_a_guest_without_connections_has_no_channel(void **state) {
        assert_null(open_channel(NULL, TWO));
        assert_false(is_connected("two"));
}

/* ---- where a window is seen ---- */

static void refuses_to_bind(struct guest *guest, uint64_t window, const char *addr, const char *reason) {
        ask_refused(guest->channel, reason, "window.bind", "{'window':%" PRIu64 ",'guest_addr':'%s'}", window, addr);
}

static void test_a_window_is_bound_where_it_can_be_and_nowhere_else(void **state) {
        struct guest guest;
        uint64_t alloc, dma;

        make_guest(&guest);
        refuses_to_bind(&guest, guest.window, "0x0", "bad_param");
        refuses_to_bind(&guest, guest.window, "0x380000001", "bad_param");
        refuses_to_bind(&guest, guest.window, "0xfffffffffffff000", "bad_param");
        refuses_to_bind(&guest, guest.window, "0xfffffffff0000", "bad_param");
        ask_refused(host.admin, "unknown_handle", "window.bind", "{'window':%" PRIu64 ",'guest_addr':'0x1000'}", guest.window);
        alloc = alloc_at(&guest, "session", &dma);
        bind_at(guest.channel, guest.window, AT);
        refuses_to_bind(&guest, guest.window, "0x400000000", "busy");
        json_decref(ask(guest.channel, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        bind_at(guest.channel, guest.window, UINT64_C(0x400000000));
        alloc_at(&guest, "session", &dma);
        assert_in_range(dma, UINT64_C(0x400000000), UINT64_C(0x400000000) + 2 * MIB);
        leave_guest(&guest);
}

static void test_two_windows_are_not_seen_in_one_place(void **state) {
        struct qemu_window seen;
        struct guest guest;
        uint64_t other, alloc, dma;

        make_guest(&guest);
        alloc = alloc_at(&guest, "session", &dma);
        other = attach(MIB, &seen);
        refuses_to_bind(&guest, other, "0x380000000", "bad_param");
        refuses_to_bind(&guest, other, "0x3801ff000", "bad_param");
        refuses_to_bind(&guest, other, "0x37ff01000", "bad_param");
        bind_at(guest.channel, other, AT + 2 * MIB);
        /* What was said before is not so any more. */
        json_decref(ask(guest.channel, "coherent.free", "{'alloc':%" PRIu64 "}", alloc));
        bind_at(guest.channel, other, AT + MIB);
        assert_false(is_bound());
        bind_at(guest.channel, guest.window, AT + 2 * MIB);
        assert_true(is_bound());
        qemu_drop(&seen);
        leave_guest(&guest);
}

/* The guest may be faster than QEMU's answer. */
static void test_a_guest_binds_a_window_before_qemu_has_answered(void **state) {
        struct test_client *channel = open_channel(host.qemu, ONE);
        struct qemu_window seen;
        int id = begin_attach(MIB);
        uint64_t command = qemu_plug_begin(host.qemu, &seen), device = ask_device(channel, "nic");

        bind_at(channel, find_window(), AT);
        ask_alloc(channel, device, 4096);
        qemu_drop(&seen);
        qemu_refuse(host.qemu, command, "GenericError");
        qemu_obey(host.qemu, "chardev-remove");
        ask_take_reason(ask_error(host.admin, id), "source_unavailable");
        ask_until(is_all_back());
        ask_refused(channel, "gone", "coherent.list", "{}");
        test_client_close(channel);
}

/* ---- the administrator ---- */

static void test_what_an_evicted_guest_has_is_freed(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        alloc_at(&guest, "owner", &dma);
        ask_refused(host.admin, "unknown_guest", "guest.evict", "{'guest':'three'}");
        json_decref(ask(host.admin, "guest.evict", "{'guest':'one'}"));
        assert_int_equal(count("allocs"), 0);
        assert_int_equal(n_windows("one"), 1);
        ask_refused(guest.channel, "gone", "coherent.list", "{}");
        hello(&guest);
        guest.device = ask_device(guest.channel, "nic");
        alloc_at(&guest, "session", &dma);
        leave_guest(&guest);
}

static void test_a_guest_allocates_up_to_its_quota(void **state) {
        struct guest guest;
        uint64_t dma;

        make_guest(&guest);
        json_decref(ask(host.admin, "guest.set_quota", "{'guest':'" ONE "','limits':{'bytes':8192}}"));
        alloc_at(&guest, "session", &dma);
        ask_refused(guest.channel, "quota", "coherent.alloc", "{'device':%" PRIu64 ",'size':4096}", guest.device);
        ask_refused(host.admin, "unknown_guest", "guest.set_quota", "{'guest':'three','limits':{'bytes':8192}}");
        leave_guest(&guest);
}

static void hears(struct test_client *client, const char *change) {
        json_t *message = read_anew(client), *params = json_object_get(message, "params");
        const char *said = json_string_value(json_object_get(params, "change"));

        if (!said || strcmp(said, change) != 0)
                fail_msg("wanted %s, got %s", change, json_dumps(message, 0));
        assert_string_equal(json_string_value(json_object_get(params, "name")), "one");
        json_decref(message);
}

static void test_what_becomes_of_a_guest_is_told(void **state) {
        struct test_client *watcher = ask_connect(host.daemon, NULL), *other = open_channel(NULL, TWO);
        struct guest guest;
        int id;

        json_decref(ask(watcher, "events.subscribe", "{'topics':['guest']}"));
        json_decref(ask(other, "events.subscribe", "{'topics':['guest']}"));
        make_guest(&guest);
        hears(watcher, "connected");
        hears(watcher, "attached");
        json_decref(ask(guest.channel, "events.subscribe", "{'topics':['guest']}"));
        qemu_event(host.qemu, "RESET");
        hears(watcher, "rebooted");
        hears(guest.channel, "rebooted");
        id = begin_detach(guest.window, "false");
        qemu_obey(host.qemu, "device_del");
        qemu_deleted(host.qemu, guest.seen.id);
        qemu_obey(host.qemu, "chardev-remove");
        json_decref(ask_result(host.admin, id));
        hears(watcher, "detached");
        /* Away for a moment is not ended. */
        qemu_hang_up(host.qemu);
        qemu_serve(host.qemu, true);
        ask_until(guest_is("one", "running"));
        host.qemu = qemu_kill(host.qemu);
        hears(watcher, "stopped");
        json_decref(ask(other, "broker.ping", "{}"));
        test_client_close(watcher);
        test_client_close(other);
        leave_guest(&guest);
}

static int begin_with_own(const char *lines) {
        int r;

        own = lines;
        r = begin_with("");
        own = "";
        return r;
}

static int begin_with_own_window(void **state) {
        return begin_with_own("window = 1M\n");
}

static void test_the_window_of_the_configuration_comes_with_each_start(void **state) {
        struct qemu_window seen;

        qemu_plug(host.qemu, &seen);
        ask_until(is_window(find_window(), "plugged"));
        /* It is not taken for a start that nobody could be asked for a while, nor that there is another daemon. */
        qemu_hang_up(host.qemu);
        serve_again(host.qemu, true);
        take_out(&seen);
        qemu_drop(&seen);
        qemu_hang_up(host.qemu);
        serve_again(host.qemu, true);
        json_decref(ask(host.admin, "guest.list", "{}"));
        assert_int_equal(n_windows("one"), 0);
        host.qemu = qemu_kill(host.qemu);
        ask_until(guest_is("one", "off"));
        host.qemu = qemu_start(host.monitor);
        qemu_serve(host.qemu, true);
        qemu_plug(host.qemu, &seen);
        ask_until(is_window(find_window(), "plugged"));
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        qemu_hang_up(host.qemu);
        comes_back();
        serve_again(host.qemu, true);
        assert_int_equal(n_windows("one"), 1);
        qemu_drop(&seen);
}

static void test_an_own_window_that_was_taken_out_does_not_come_with_the_next_daemon(void **state) {
        struct qemu_window seen;

        qemu_plug(host.qemu, &seen);
        ask_until(is_window(find_window(), "plugged"));
        take_out(&seen);
        qemu_drop(&seen);
        for (int i = 0; i < 2; i++) {
                qemu_hang_up(host.qemu);
                assert_int_equal(test_daemon_kill(host.daemon), 0);
                comes_back();
                serve_again(host.qemu, true);
                json_decref(ask(host.admin, "guest.list", "{}"));
                assert_int_equal(n_windows("one"), 0);
        }
        /* Another start, while there is no daemon, is one. */
        assert_int_equal(test_daemon_kill(host.daemon), 0);
        host.qemu = qemu_kill(host.qemu);
        host.qemu = qemu_start(host.monitor);
        comes_back();
        serve_again(host.qemu, true);
        qemu_plug(host.qemu, &seen);
        ask_until(is_window(find_window(), "plugged"));
        qemu_drop(&seen);
}

static void expect_unplug(const char *device, uint64_t *ret_id) {
        json_t *arguments = qemu_expect(host.qemu, "device_del", ret_id);

        assert_string_equal(json_string_value(json_object_get(arguments, "id")), device);
        json_decref(arguments);
}

/* Its own window comes after what is there already, and is refused because of the port; late: the guest lets go when nobody
 * waits for it any more. */
static void plug_beside_leftover(unsigned number, bool late) {
        char told[320], device[32], sentence[96];
        struct qemu_window seen;
        uint64_t id, unplug;

        snprintf(device, sizeof(device), "dmabroker-%u", number);
        snprintf(told, sizeof(told), "[{'name': '%s', 'type': 'child<ivshmem-doorbell>'}, {'name': 'dmabroker-4294967295'},"
                 "{'name': 'dmabroker-99999999999999999999'}, {'name': 'dmabroker-0'}, {'name': 'dmabroker-01'},"
                 "{'name': 'dmabroker-2x'}, {'name': 'dmabroker-'}]", device);
        host.qemu = qemu_kill(host.qemu);
        ask_until(is_all_back());
        host.qemu = qemu_start(host.monitor);
        host.qemu->leftovers = told;
        qemu_serve(host.qemu, true);
        host.qemu->leftovers = NULL;
        expect_unplug(device, &unplug);
        id = qemu_plug_begin(host.qemu, &seen);
        snprintf(device, sizeof(device), "dmabroker-%u", number + 1);
        assert_string_equal(seen.id, device);
        /* Before it refuses: where it is connected then, the daemon asks whether it has the device all the same. */
        qemu_drop(&seen);
        qemu_refuse(host.qemu, id, "GenericError");
        qemu_obey(host.qemu, "chardev-remove");
        ask_until(n_windows("one") == 0);
        snprintf(device, sizeof(device), "dmabroker-%u", number);
        snprintf(sentence, sizeof(sentence), "the guest has not let go of %s in time", device);
        if (late)
                ask_until(has_logged(sentence));
        qemu_return(host.qemu, unplug);
        qemu_deleted(host.qemu, device);
        qemu_obey(host.qemu, "chardev-remove");
        qemu_plug(host.qemu, &seen);
        ask_until(is_window(find_window(), "plugged"));
        qemu_drop(&seen);
        qemu_deleted(host.qemu, device);
        json_decref(ask(host.admin, "guest.list", "{}"));
        assert_int_equal(n_windows("one"), 1);
}

static void test_an_own_window_comes_when_what_was_in_its_place_is_gone(void **state) {
        struct qemu_window seen;

        qemu_plug(host.qemu, &seen);
        qemu_drop(&seen);
        plug_beside_leftover(7, false);
        plug_beside_leftover(20, true);
}

/* Of as many as are kept, and it is the one that would go next. */
static void test_a_guest_resumes_the_oldest_of_its_sessions(void **state) {
        static const char open[] = "\xff{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.hello\"}\n";
        struct test_client *client = open_channel(host.qemu, ONE);
        char first[40] = "";

        for (int i = 0; i < 33; i++) {
                json_t *result;

                assert_int_equal(test_client_send_text(client, open), 0);
                result = read_anew(client);
                if (!*first)
                        snprintf(first, sizeof(first), "%s",
                                 json_string_value(json_object_get(json_object_get(result, "result"), "session")));
                json_decref(result);
        }
        json_decref(ask(client, "broker.hello", "{'session':'%s'}", first));
        json_decref(ask(client, "broker.hello", "{}"));
        json_decref(ask(client, "coherent.list", "{}"));
        test_client_close(client);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)
                TEST(a_guest_gets_a_window_and_its_own_addresses_in_it),
                TEST(a_guest_knows_nothing_of_another_one),
                TEST(a_guest_is_no_administrator_and_not_local),
                TEST(frames_are_exchanged_by_xen_alone),
                TEST(whose_frames_are_to_be_exchanged_must_be_clear),
                TEST(what_no_exchange_can_be_is_refused_for_its_form),
                TEST(nobody_gets_hold_of_the_device_that_the_windows_lie_in),
                TEST(a_window_that_qemu_refuses_goes_back),
                TEST(a_window_that_qemu_refuses_but_keeps_stays_until_it_does_not),
                TEST(a_window_is_kept_until_qemu_has_told_that_it_has_none),
                TEST(a_window_that_qemu_has_all_the_same_is_taken_out),
                TEST(a_qemu_that_does_not_answer_in_time_is_asked_what_it_has_done),
                TEST(a_qemu_that_dies_in_the_middle_gives_all_back),
                TEST(a_window_comes_though_its_caller_has_gone),
                TEST(a_window_is_asked_for_twice_and_had_once),
                TEST(a_guest_comes_to_no_administrators_key),
                TEST(windows_come_side_by_side_up_to_the_limit),
#ifdef HAVE_XEN
                cmocka_unit_test_setup_teardown(test_a_guest_of_xens_is_not_known_where_there_is_no_xen, begin_with_xen, end),
#endif
                TEST(what_cannot_be_had_is_refused_and_costs_nothing),
                cmocka_unit_test_setup_teardown(test_a_window_without_a_port_takes_no_memory, begin_with_one_port, end),
                TEST(nobody_but_qemu_gets_a_windows_memory),
                TEST(a_window_in_use_is_not_taken_out_unless_by_force),
                TEST(by_force_only_those_end_who_have_something_in_the_window),
                TEST(a_guest_that_does_not_let_go_may_do_so_later),
                TEST(a_guest_can_be_asked_again),
                TEST(devices_that_no_daemon_knows_of_are_taken_out),
                TEST(a_window_that_qemu_does_not_know_of_stays_while_it_has_it),
                TEST(a_window_that_the_guest_keeps_goes_on_as_before),
                TEST(a_guest_may_let_go_of_what_nobody_asked_for),
                cmocka_unit_test_setup_teardown(test_a_window_counts_against_the_guests_quota, begin_with_quota, end),
                TEST(a_reboot_frees_all_but_the_windows),
                TEST(a_guest_that_shuts_down_has_nothing_more),
                TEST(a_monitor_that_is_away_changes_nothing),
                TEST(what_was_let_go_of_while_the_monitor_was_away_is_found_out),
                TEST(a_window_is_not_given_back_while_somebody_is_connected_to_it),
                TEST(a_guest_that_is_killed_has_nothing_more_and_comes_again),
                TEST(another_qemu_with_the_same_guest_waits_until_the_first_has_ended),
                TEST(whether_a_channel_is_connected_is_told),
                TEST(a_window_and_what_lies_in_it_outlive_a_daemon),
                TEST(a_window_that_qemu_has_no_more_after_a_daemons_death_goes_back),
                TEST(a_guest_that_died_without_a_daemon_has_nothing_more),
                TEST(of_a_guest_that_is_taken_out_of_the_configuration_qemu_keeps_its_windows),
                TEST(a_daemon_killed_in_an_attachment_leaves_no_memory_behind),
                TEST(a_window_that_qemu_got_while_its_daemon_died_is_the_guests),
                TEST(a_window_that_nobody_was_promised_is_taken_out_by_the_next_daemon),
                TEST(a_window_that_the_guest_kept_is_had_by_whoever_asks_again),
                TEST(windows_whose_memory_is_gone_are_forgotten),
                TEST(what_a_guest_was_asked_for_serves_nobody_with_the_next_daemon),
                TEST(what_a_damaged_ledger_has_forgotten_keeps_a_window_until_an_administrators_word),
                TEST(an_interrupt_leaves_nothing_behind),
                TEST(a_qemu_with_no_end_of_devices_is_asked_for_some),
                TEST(a_qemu_that_does_not_say_whether_it_runs_is_told_of),
                TEST(a_changed_guest_is_told_to_want_a_restart),
                TEST(what_comes_before_a_reset_was_not_said),
                TEST(a_line_that_is_too_long_is_skipped),
                TEST(a_storm_of_resets_leaves_nothing_behind),
                TEST(a_guest_that_reads_no_answers_holds_up_nobody),
                TEST(a_second_connection_takes_the_place_of_the_first),
                TEST(who_is_not_qemu_is_hung_up_on),
                TEST(who_was_let_in_and_is_not_qemu_is_hung_up_on_when_that_is_known),
                cmocka_unit_test_setup_teardown(test_what_rests_goes_back_with_its_guest, begin_with_long_rest, end),
                cmocka_unit_test_setup_teardown(test_what_rests_does_not_keep_a_window, begin_with_long_rest, end),
                cmocka_unit_test_setup_teardown(test_what_a_guests_program_had_is_freed_after_the_grace_time,
                                                begin_with_short_grace, end),
                cmocka_unit_test_setup_teardown(test_a_guest_without_connections_has_no_channel, begin_without_connections, end),
                TEST(a_window_is_bound_where_it_can_be_and_nowhere_else),
                TEST(two_windows_are_not_seen_in_one_place),
                TEST(a_guest_binds_a_window_before_qemu_has_answered),
                TEST(what_an_evicted_guest_has_is_freed),
                TEST(a_guest_allocates_up_to_its_quota),
                TEST(what_becomes_of_a_guest_is_told),
                cmocka_unit_test_setup_teardown(test_the_window_of_the_configuration_comes_with_each_start, begin_with_own_window,
                                                end),
                cmocka_unit_test_setup_teardown(test_an_own_window_that_was_taken_out_does_not_come_with_the_next_daemon,
                                                begin_with_own_window, end),
                cmocka_unit_test_setup_teardown(test_an_own_window_comes_when_what_was_in_its_place_is_gone,
                                                begin_with_own_window, end),
                TEST(a_guest_resumes_the_oldest_of_its_sessions),
                TEST(guests_are_listed_in_pages),
                TEST(windows_are_listed_in_pages),
        };

        if (argc > 1 && *argv[1])
                cmocka_set_test_filter(argv[1]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
