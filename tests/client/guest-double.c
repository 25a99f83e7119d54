#include "tests/client/guest-double.h"

#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/grant-window.h"
#include "client/xen-device.h"
#include "proto/fdpass.h"
#include "proto/frame.h"
#include "tests/lib/daemon.h"

enum { WINDOWS_MAX = 32, HELD_MAX = 64, PAGES_MAX = 2048, PAGE = 4096, LINE_MAX_BYTES = 4 << 20 };

struct shown {
        uint64_t region, size;
        int fd;
        bool bound, leaves;
        unsigned char *mark; /* its last page */
        char cookie[33];
};

struct guest {
        char directory[64], port[96], devices[96];
        struct sockaddr_un daemon;
        dmab_t *eyes; /* over the socket */
        dmab_device_t *device;
        pthread_t thread;
        int wake;
        pthread_mutex_t lock; /* guards all below; held by the thread but while it waits */
        pthread_cond_t happened;
        bool stop, holding;
        int master, slave, connection; /* -1: nobody is there */
        bool heard; /* a 0xFF */
        struct frame_reader from_guest, from_daemon;
        char *held[HELD_MAX];
        size_t n_held;
        const char *first;
        size_t n_first;
        unsigned resets, binds, lists, changes; /* changes: of what the thread waits for */
        bool is_misplaced, is_taken; /* the windows; something, since then */
        bool grants; /* Xen's */
        bool denies_list; /* once */
        int bind_error; /* once, or 0 */
        const char *bind_reason;
        struct shown windows[WINDOWS_MAX];
        size_t n_windows;
        enum guest_fault fault;
};

#define must(what) \
        do { \
                if (!(what)) { \
                        fprintf(stderr, "guest-double: %s failed: %s (%s)\n", #what, strerrordesc_np(errno), dmab_last_error()); \
                        abort(); \
                } \
        } while (0)

/* The thread waits for what there is now, and nothing changes until guest_unlock(). */
static void guest_lock(struct guest *guest) {
        pthread_mutex_lock(&guest->lock);
}

static void guest_unlock(struct guest *guest) {
        uint64_t one = 1;

        guest->changes++;
        must(write(guest->wake, &one, sizeof(one)) == sizeof(one));
        pthread_mutex_unlock(&guest->lock);
}

/* ---- the devices ---- */

static void put_file(const struct guest *guest, size_t i, const char *name, const char *text) {
        char path[PATH_MAX];
        FILE *file;

        snprintf(path, sizeof(path), "%s/0000:00:%02zx.0", guest->devices, i + 2);
        must(!mkdir(path, 0755) || errno == EEXIST);
        snprintf(path, sizeof(path), "%s/0000:00:%02zx.0/%s", guest->devices, i + 2, name);
        file = fopen(path, "w");
        must(file);
        must(fputs(text, file) >= 0);
        must(!fclose(file));
}

#define ASIDE (UINT64_C(1) << 30)

static uint64_t address_of(size_t i) {
        return UINT64_C(0x8000000000) + i * UINT64_C(0x100000000);
}

static void put_device(const struct guest *guest, size_t i) {
        const struct shown *window = &guest->windows[i];
        uint64_t start = guest->fault == GUEST_NO_ADDRESS ? 0 : address_of(i), size = window->size;
        char text[PATH_MAX], path[PATH_MAX];

        if (guest->fault == GUEST_OTHER_SIZE)
                size += PAGE;
        put_file(guest, i, "vendor", guest->fault == GUEST_NO_DEVICE ? "0x8086\n" : "0x1af4\n");
        put_file(guest, i, "device", "0x1110\n");
        put_file(guest, i, "enable", "0\n");
        snprintf(text, sizeof(text),
                 "0x00000000febf0000 0x00000000febf00ff 0x0000000000040200\n"
                 "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
                 "0x%016" PRIx64 " 0x%016" PRIx64 " 0x000000000014220c\n", start, start ? start + size - 1 : 0);
        put_file(guest, i, "resource", text);
        snprintf(path, sizeof(path), "%s/0000:00:%02zx.0/resource2", guest->devices, i + 2);
        snprintf(text, sizeof(text), "/proc/%ld/fd/%d", (long)getpid(), window->fd);
        must(!symlink(text, path) || errno == EEXIST);
        memcpy(window->mark, guest->fault == GUEST_NO_MAGIC ? "something-else!!" : "dmabroker-window", 16);
        for (size_t byte = 0; byte < 16; byte++)
                must(sscanf(window->cookie + 2 * byte, "%2hhx", &window->mark[16 + byte]) == 1);
        if (guest->fault == GUEST_OTHER_COOKIE)
                window->mark[20] ^= 1;
}

/* What the double has allocated. */
struct held_page {
        uint64_t alloc, region, offset;
};

static bool allocate(const struct guest *guest, size_t size, bool low, struct held_page *ret) {
        char params[160], *text;
        json_t *result;

        snprintf(params, sizeof(params), "{\"device\":%" PRIu64 ",\"size\":%zu%s}", dmab_device_handle(guest->device), size,
                 low ? ",\"mask\":\"0xffffffff\"" : "");
        if (dmab_call(guest->eyes, "coherent.alloc", params, &text))
                return false;
        result = json_loads(text, 0, NULL);
        *ret = (struct held_page){ .alloc = (uint64_t)json_integer_value(json_object_get(result, "alloc")),
                                   .region = (uint64_t)json_integer_value(json_object_get(result, "region")),
                                   .offset = (uint64_t)json_integer_value(json_object_get(result, "offset")) };
        json_decref(result);
        free(text);
        return true;
}

static void release(const struct guest *guest, const struct held_page *page) {
        char params[64];

        snprintf(params, sizeof(params), "{\"alloc\":%" PRIu64 "}", page->alloc);
        must(!dmab_call(guest->eyes, "coherent.free", params, NULL));
}

/* A region, of which only the last page is allocated. All of it is, first, and pages elsewhere, until the last one comes. */
static uint64_t make_region(const struct guest *guest, size_t size, bool low) {
        struct held_page whole, pages[PAGES_MAX];
        size_t n = 0;

        must(allocate(guest, size, low, &whole) && !whole.offset);
        release(guest, &whole);
        do {
                must(n < PAGES_MAX && allocate(guest, PAGE, low, &pages[n]));
                n++;
        } while (pages[n - 1].region != whole.region || pages[n - 1].offset != size - PAGE);
        while (--n)
                release(guest, &pages[n - 1]);
        return whole.region;
}

void guest_plug(struct guest *guest, size_t size, bool low) {
        struct shown *window;
        char params[64];
        struct stat about;
        size_t n_fds;

        guest_lock(guest);
        must(guest->n_windows < WINDOWS_MAX);
        window = &guest->windows[guest->n_windows];
        *window = (struct shown){ .region = make_region(guest, size, low) };
        snprintf(params, sizeof(params), "{\"region\":%" PRIu64 "}", window->region);
        must(!dmab_call_fds(guest->eyes, "region.get", params, NULL, &window->fd, 1, &n_fds) && n_fds == 1);
        must(!fstat(window->fd, &about));
        window->size = (uint64_t)about.st_size;
        window->mark = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, window->fd, about.st_size - PAGE);
        must(window->mark != MAP_FAILED);
        snprintf(window->cookie, sizeof(window->cookie), "%032" PRIx64, window->region * UINT64_C(0x9e3779b97f4a7c15));
        put_device(guest, guest->n_windows++);
        guest_unlock(guest);
}

size_t guest_windows(struct guest *guest) {
        size_t n;

        guest_lock(guest);
        n = guest->n_windows;
        guest_unlock(guest);
        return n;
}

/* ---- talking ---- */

static void write_all(int fd, const char *bytes, size_t n) {
        struct pollfd poller = { .fd = fd, .events = POLLOUT };

        while (n) {
                ssize_t written = write(fd, bytes, n);

                if (written > 0) {
                        bytes += written;
                        n -= (size_t)written;
                } else {
                        must(errno == EAGAIN);
                        poll(&poller, 1, 1000);
                }
        }
}

/* Consumes message. */
static void tell_guest(struct guest *guest, json_t *message) {
        char *text = json_dumps(message, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

        must(text);
        json_decref(message);
        if (guest->holding) {
                must(guest->n_held < HELD_MAX);
                guest->held[guest->n_held++] = text;
                pthread_cond_signal(&guest->happened);
                return;
        }
        if (guest->master >= 0) {
                write_all(guest->master, text, strlen(text));
                write_all(guest->master, "\n", 1);
        }
        free(text);
}

static json_t *list_windows(struct guest *guest) {
        json_t *items = json_array();

        for (size_t i = 0; i < guest->n_windows; i++) {
                const struct shown *window = &guest->windows[i];
                json_t *item = json_pack("{s:I, s:I, s:I, s:s}", "window", (json_int_t)window->region, "region",
                                         (json_int_t)window->region, "size", (json_int_t)window->size, "cookie", window->cookie);
                char address[32];

                snprintf(address, sizeof(address), "0x%" PRIx64, address_of(i) + (guest->is_misplaced ? ASIDE : 0));
                if (window->bound)
                        json_object_set_new(item, "guest_addr", json_string(address));
                json_object_set_new(item, "state", json_string(window->leaves ? "leaving" : "plugged"));
                if (guest->grants && !window->leaves)
                        json_object_set_new(item, "grants", json_pack("[{s:i, s:I, s:I}]", "domain", 7, "first",
                                                                      (json_int_t)(window->region * 100), "count",
                                                                      (json_int_t)(window->size / PAGE)));
                json_array_append_new(items, item);
        }
        guest->lists++;
        pthread_cond_signal(&guest->happened);
        return json_pack("{s:o, s:b}", "items", items, "more", 0);
}

static json_t *bind_window(struct guest *guest, json_t *params) {
        uint64_t number = (uint64_t)json_integer_value(json_object_get(params, "window"));
        const char *address = json_string_value(json_object_get(params, "guest_addr"));

        for (size_t i = 0; i < guest->n_windows; i++)
                if (guest->windows[i].region == number && address && strtoull(address, NULL, 16) == address_of(i)) {
                        guest->windows[i].bound = true;
                        guest->is_misplaced = false;
                        guest->binds++;
                        return json_object();
                }
        return NULL;
}

static json_t *refuse(int code, const char *reason, const char *member) {
        return json_pack("{s:i, s:s, s:{s:s, s:i}}", "code", code, "message", "the double refuses that", "data", "reason", reason,
                         member, 1);
}

static bool is_unbound(const struct guest *guest) {
        for (size_t i = 0; i < guest->n_windows; i++)
                if (!guest->windows[i].bound)
                        return true;
        return false;
}

/* True: it is answered. */
static bool answer(struct guest *guest, json_t *request) {
        const char *method = json_string_value(json_object_get(request, "method"));
        json_t *params = json_object_get(request, "params"), *result = NULL, *error = NULL;

        if (!method)
                return false;
        if (!strcmp(method, "window.list") && guest->denies_list) {
                guest->denies_list = false;
                error = refuse(EDQUOT, "quota", "calls_per_second");
        } else if (!strcmp(method, "window.list"))
                result = list_windows(guest);
        else if (!strcmp(method, "window.bind") && guest->bind_error) {
                error = refuse(guest->bind_error, guest->bind_reason, "window");
                guest->bind_error = 0;
        } else if (!strcmp(method, "window.bind") && guest->is_taken)
                error = refuse(EBUSY, "busy", "allocs");
        else if (!strcmp(method, "window.bind"))
                result = bind_window(guest, params);
        else if (json_is_true(json_object_get(params, "fd")))
                error = refuse(EOPNOTSUPP, "unsupported", "fd");
        else if (is_unbound(guest) && (!strcmp(method, "coherent.alloc") || !strcmp(method, "pool.lease")))
                error = refuse(EIO, "source_unavailable", "unbound");
        else
                return false;
        if (!result && !error)
                error = refuse(ENOENT, "unknown_handle", "window");
        tell_guest(guest, json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", json_object_get(request, "id"),
                                    result ? "result" : "error", result ? result : error));
        return true;
}

static bool takes(json_t *request) {
        const char *method = json_string_value(json_object_get(request, "method"));

        return method && (!strcmp(method, "coherent.alloc") || !strcmp(method, "pool.lease") || !strcmp(method, "bounce.lease"));
}

static void take_request(struct guest *guest, const char *line, size_t length) {
        json_t *request = json_loadb(line, length, 0, NULL);

        if (guest->heard && !answer(guest, request)) {
                guest->is_taken |= guest->is_misplaced && takes(request);
                write_all(guest->connection, line, length);
                write_all(guest->connection, "\n", 1);
        }
        json_decref(request);
}

static void take_reset(struct guest *guest) {
        guest->heard = true;
        guest->resets++;
        pthread_cond_signal(&guest->happened);
        write_all(guest->master, guest->first ? guest->first : "", guest->n_first);
}

static void from_guest(struct guest *guest) {
        const char *piece, *line;
        char bytes[16384];
        ssize_t n = read(guest->master, bytes, sizeof(bytes));
        size_t size = n > 0 ? (size_t)n : 0, length;

        for (piece = bytes; size;) {
                enum frame_event event = frame_reader_next(&guest->from_guest, &piece, &size, &line, &length);

                if (event == FRAME_TEXT)
                        take_request(guest, line, length);
                else if (event == FRAME_RESET)
                        take_reset(guest);
                else
                        must(event == FRAME_MORE);
        }
}

static void from_daemon(struct guest *guest) {
        char bytes[16384];
        const char *piece = bytes, *line;
        int fds[FDPASS_MAX];
        size_t n_fds = 0, size, length;
        ssize_t n = fdpass_receive(guest->connection, bytes, sizeof(bytes), fds, &n_fds);

        for (size_t i = 0; i < n_fds; i++)
                close(fds[i]);
        must(n > 0);
        for (size = (size_t)n; size;) {
                enum frame_event event = frame_reader_next(&guest->from_daemon, &piece, &size, &line, &length);
                json_t *message = event == FRAME_TEXT ? json_loadb(line, length, 0, NULL) : NULL;

                if (!message)
                        continue;
                json_object_del(json_object_get(message, "result"), "fds");
                tell_guest(guest, message);
        }
}

static void *run(void *pointer) {
        struct guest *guest = pointer;

        pthread_mutex_lock(&guest->lock);
        while (!guest->stop) {
                struct pollfd polled[] = { { .fd = guest->wake, .events = POLLIN },
                                           { .fd = guest->master, .events = POLLIN },
                                           { .fd = guest->connection, .events = POLLIN } };
                unsigned changes = guest->changes;
                uint64_t count;

                pthread_mutex_unlock(&guest->lock);
                poll(polled, 3, -1);
                pthread_mutex_lock(&guest->lock);
                if (polled[0].revents)
                        must(read(guest->wake, &count, sizeof(count)) == sizeof(count));
                else if (changes != guest->changes)
                        continue;
                else if (polled[1].revents)
                        from_guest(guest);
                else if (polled[2].revents)
                        from_daemon(guest);
        }
        pthread_mutex_unlock(&guest->lock);
        return NULL;
}

/* ---- what the test does ---- */

static void leave(struct guest *guest) {
        close(guest->connection);
        frame_reader_deinit(&guest->from_daemon);
        frame_reader_deinit(&guest->from_guest);
        for (size_t i = 0; i < guest->n_held; i++)
                free(guest->held[i]);
        guest->n_held = 0;
        guest->holding = guest->heard = false;
        guest->connection = -1;
}

static void enter(struct guest *guest) {
        frame_reader_init(&guest->from_guest, LINE_MAX_BYTES, true);
        frame_reader_init(&guest->from_daemon, LINE_MAX_BYTES, false);
        guest->connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        must(guest->connection >= 0);
        must(!connect(guest->connection, (struct sockaddr *)&guest->daemon, sizeof(guest->daemon)));
}

static void plug_port(struct guest *guest) {
        char name[64], temporary[128];
        struct termios raw;

        guest->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
        must(guest->master >= 0 && !grantpt(guest->master) && !unlockpt(guest->master));
        must(!ptsname_r(guest->master, name, sizeof(name)));
        guest->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC); /* stays as it is while nobody has it open */
        must(guest->slave >= 0);
        must(!tcgetattr(guest->slave, &raw));
        cfmakeraw(&raw);
        must(!tcsetattr(guest->slave, TCSANOW, &raw));
        must(!chmod(name, 0666));
        snprintf(temporary, sizeof(temporary), "%s.new", guest->port);
        must(!symlink(name, temporary) && !rename(temporary, guest->port));
}

void guest_hang_up(struct guest *guest) {
        guest_lock(guest);
        leave(guest);
        close(guest->master);
        close(guest->slave);
        guest->master = guest->slave = -1;
        guest_unlock(guest);
}

void guest_come_back(struct guest *guest) {
        guest_lock(guest);
        plug_port(guest);
        enter(guest);
        guest_unlock(guest);
}

void guest_replace(struct guest *guest, bool announced) {
        guest_lock(guest);
        leave(guest);
        enter(guest);
        if (announced)
                write_all(guest->master, "\xff", 1);
        guest_unlock(guest);
}

void guest_hold(struct guest *guest) {
        guest_lock(guest);
        guest->holding = true;
        guest_unlock(guest);
}

void guest_release(struct guest *guest) {
        guest_lock(guest);
        guest->holding = false;
        for (size_t i = 0; i < guest->n_held; i++) {
                write_all(guest->master, guest->held[i], strlen(guest->held[i]));
                write_all(guest->master, "\n", 1);
                free(guest->held[i]);
        }
        guest->n_held = 0;
        guest_unlock(guest);
}

/* With the lock held. */
static void await_more(struct guest *guest) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += test_timeout_ms() / 1000;
        must(!pthread_cond_timedwait(&guest->happened, &guest->lock, &until));
}

void guest_wait_held(struct guest *guest, size_t n) {
        pthread_mutex_lock(&guest->lock);
        while (guest->n_held < n)
                await_more(guest);
        pthread_mutex_unlock(&guest->lock);
}

void guest_wait_reset(struct guest *guest, unsigned n) {
        pthread_mutex_lock(&guest->lock);
        while (guest->resets < n)
                await_more(guest);
        pthread_mutex_unlock(&guest->lock);
}

void guest_say_first(struct guest *guest, const char *bytes, size_t n) {
        guest_lock(guest);
        guest->first = bytes;
        guest->n_first = n;
        guest_unlock(guest);
}

unsigned guest_resets(struct guest *guest) {
        unsigned n;

        guest_lock(guest);
        n = guest->resets;
        guest_unlock(guest);
        return n;
}

void guest_unbind(struct guest *guest) {
        guest_lock(guest);
        for (size_t i = 0; i < guest->n_windows; i++)
                guest->windows[i].bound = false;
        guest_unlock(guest);
}

void guest_misplace(struct guest *guest) {
        guest_lock(guest);
        guest->is_misplaced = true;
        guest_unlock(guest);
}

void guest_deny_list(struct guest *guest) {
        guest_lock(guest);
        guest->denies_list = true;
        guest_unlock(guest);
}

void guest_deny_bind(struct guest *guest, int error, const char *reason) {
        guest_lock(guest);
        guest->bind_error = error;
        guest->bind_reason = reason;
        guest_unlock(guest);
}

unsigned guest_binds(struct guest *guest) {
        unsigned n;

        guest_lock(guest);
        n = guest->binds;
        guest_unlock(guest);
        return n;
}

void guest_break(struct guest *guest, enum guest_fault fault) {
        guest_lock(guest);
        guest->fault = fault;
        for (size_t i = 0; i < guest->n_windows; i++)
                put_device(guest, i);
        guest_unlock(guest);
}

/* ---- as Xen does it ---- */

static struct guest *granter;

/* The kernel's device: what is mapped of it is the window to which the first reference leads. */
static int map_grants(int fd, struct ioctl_gntdev_map_grant_ref *request) {
        int r = -1;

        pthread_mutex_lock(&granter->lock);
        for (size_t i = 0; i < granter->n_windows; i++) {
                const struct shown *window = &granter->windows[i];

                if (request->refs[0].ref == window->region * 100 && request->refs[0].domid == 7 &&
                    request->count == window->size / PAGE && !window->leaves)
                        r = dup3(window->fd, fd, O_CLOEXEC);
        }
        pthread_mutex_unlock(&granter->lock);
        request->index = 0;
        errno = EINVAL;
        return r < 0 ? -1 : 0;
}

int ioctl(int fd, unsigned long request, ...) {
        va_list arguments;
        void *argument;

        va_start(arguments, request);
        argument = va_arg(arguments, void *);
        va_end(arguments);
        if (granter && request == IOCTL_GNTDEV_MAP_GRANT_REF)
                return map_grants(fd, argument);
        return (int)syscall(SYS_ioctl, fd, request, argument);
}

void guest_grant(struct guest *guest) {
        guest_lock(guest);
        granter = guest;
        guest->grants = true;
        for (size_t i = 0; i < guest->n_windows; i++)
                guest->windows[i].bound = true;
        grant_window_set_device("/dev/null");
        guest_unlock(guest);
}

static void tell_of_change(struct guest *guest) {
        tell_guest(guest, json_pack("{s:s, s:s, s:{s:s}}", "jsonrpc", "2.0", "method", "event", "params", "topic", "guest"));
}

void guest_ask_back(struct guest *guest, size_t i, bool silent) {
        guest_lock(guest);
        guest->windows[i].leaves = true;
        if (!silent)
                tell_of_change(guest);
        guest_unlock(guest);
}

void guest_keep(struct guest *guest, size_t i) {
        guest_lock(guest);
        guest->windows[i].leaves = false;
        tell_of_change(guest);
        guest_unlock(guest);
}

static unsigned count_lists(struct guest *guest) {
        unsigned n;

        guest_lock(guest);
        n = guest->lists;
        guest_unlock(guest);
        return n;
}

/* The first of the lists that it asks for then has been heeded when it asks for the second; it may have been under way. */
void guest_wait_heeded(struct guest *guest) {
        for (unsigned i = 0; i < 3; i++) {
                const unsigned lists = count_lists(guest);
                int waited = 0;

                do {
                        must(waited++ < test_timeout_ms());
                        guest_lock(guest);
                        tell_of_change(guest);
                        guest_unlock(guest);
                        poll(NULL, 0, 1);
                } while (count_lists(guest) == lists);
        }
}

bool guest_has_mapped(struct guest *guest, size_t i) {
        FILE *maps = fopen("/proc/self/maps", "re");
        unsigned long start, last, inode;
        bool found = false;
        struct stat about;
        char line[512];

        must(maps && !fstat(guest->windows[i].fd, &about));
        while (fgets(line, sizeof(line), maps))
                found |= sscanf(line, "%lx-%lx %*s %*x %*x:%*x %lu", &start, &last, &inode) == 3 && inode == about.st_ino &&
                         last - start >= guest->windows[i].size;
        fclose(maps);
        return found;
}

const char *guest_port(const struct guest *guest) {
        return guest->port;
}

const char *guest_devices(const struct guest *guest) {
        return guest->devices;
}

struct guest *guest_start(const char *daemon_socket) {
        struct guest *guest = calloc(1, sizeof(*guest));
        char uri[128];

        must(guest);
        strcpy(guest->directory, "/tmp/dmabroker-test.XXXXXX");
        must(mkdtemp(guest->directory));
        must(!chmod(guest->directory, 0755));
        snprintf(guest->port, sizeof(guest->port), "%s/port", guest->directory);
        snprintf(guest->devices, sizeof(guest->devices), "%s/devices", guest->directory);
        must(!mkdir(guest->devices, 0755));
        guest->daemon.sun_family = AF_UNIX;
        snprintf(guest->daemon.sun_path, sizeof(guest->daemon.sun_path), "%s", daemon_socket);
        snprintf(uri, sizeof(uri), "unix:%s", daemon_socket);
        must(!dmab_connect(uri, &guest->eyes));
        must(!dmab_device_open(guest->eyes, "double", NULL, &guest->device));
        pthread_mutex_init(&guest->lock, NULL);
        pthread_cond_init(&guest->happened, NULL);
        guest->wake = eventfd(0, EFD_CLOEXEC);
        must(guest->wake >= 0);
        plug_port(guest);
        enter(guest);
        must(!pthread_create(&guest->thread, NULL, run, guest));
        return guest;
}

static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *walk) {
        return remove(path);
}

void guest_end(struct guest *guest) {
        guest_lock(guest);
        guest->stop = true;
        guest_unlock(guest);
        pthread_join(guest->thread, NULL);
        leave(guest);
        for (size_t i = 0; i < guest->n_windows; i++) {
                munmap(guest->windows[i].mark, PAGE);
                close(guest->windows[i].fd);
        }
        if (guest->master >= 0) {
                close(guest->master);
                close(guest->slave);
        }
        close(guest->wake);
        granter = NULL;
        dmab_disconnect(guest->eyes);
        must(!nftw(guest->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS));
        free(guest);
}
