#include "client/window.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/agent.h"
#include "client/clock.h"
#include "client/error.h"
#include "client/grant-window.h"
#include "client/params.h"
#include "client/result.h"
#include "client/session.h"

#define MAGIC "dmabroker-window"

enum {
        VENDOR = 0x1af4,
        DEVICE = 0x1110,
        BAR = 2,
        COOKIE_SIZE = 16,
        BARS_MAX = 64,
        WINDOWS_MAX = 1024,
        APPEAR_MS = 2000, /* for the guest's kernel to notice what was plugged in */
        APPEAR_PAUSE_MS = 20,
};

/* As the broker tells it. */
struct window {
        uint64_t number, region, size, guest_addr;
        bool bound, leaves;
        unsigned char cookie[COOKIE_SIZE];
        struct grant_run *grants; /* by which a guest of Xen's maps it; NULL: it is a device's memory */
        size_t n_grants;
};

/* The BAR of a device. */
struct bar {
        char device[64]; /* "0000:05:00.0" */
        int fd;          /* -1: it cannot be used, and problem says why */
        int error;
        uint64_t start, size;
        unsigned char cookie[COOKIE_SIZE];
        char problem[200];
};

struct search {
        struct window *windows;
        size_t n_windows;
        bool is_cut;   /* there are more windows */
        uint64_t look; /* regions_ask()'s of this */
        struct bar bars[BARS_MAX];
        size_t n_bars;
        uint64_t deadline_ms; /* until when a device may yet appear */
};

static const char *devices = "/sys/bus/pci/devices";

void window_set_devices(const char *directory) {
        devices = directory;
}

/* ---- devices ---- */

static int open_file(const struct bar *bar, const char *name, int flags) {
        char path[PATH_MAX];

        snprintf(path, sizeof(path), "%s/%s/%s", devices, bar->device, name);
        return open(path, flags | O_CLOEXEC | O_NOCTTY);
}

/* A small file of sysfs. false: it cannot be read, and errno says why. */
static bool read_file(const struct bar *bar, const char *name, char *ret, size_t size) {
        int fd = open_file(bar, name, O_RDONLY), error;
        ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

        error = errno;
        if (fd >= 0)
                close(fd);
        ret[n > 0 ? n : 0] = '\0';
        errno = error;
        return n > 0;
}

static bool has_id(const struct bar *bar, const char *name, unsigned long id) {
        char text[32];

        return read_file(bar, name, text, sizeof(text)) && strtoul(text, NULL, 16) == id;
}

static int __attribute__((format(printf, 3, 4))) set_problem(struct bar *bar, int error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(bar->problem, sizeof(bar->problem), format, arguments);
        va_end(arguments);
        bar->error = error;
        return -error;
}

static int cannot(struct bar *bar, const char *what, int error) {
        if (error == EACCES || error == EPERM)
                return set_problem(bar, EACCES,
                                   "this user may not %s: run as root (a kernel locked down by Secure Boot lets nobody)", what);
        return set_problem(bar, error, "cannot %s: %s", what, strerrordesc_np(error));
}

/* The line of `resource` for the BAR: its first and its last byte in the guest's memory, and flags. */
static int read_place(struct bar *bar) {
        char text[2048], *line = text;
        uint64_t last;

        if (!read_file(bar, "resource", text, sizeof(text)))
                return cannot(bar, "read its resources", errno);
        for (int i = 0; i < BAR && line; i++) {
                line = strchr(line, '\n');
                line = line ? line + 1 : NULL;
        }
        if (!line || sscanf(line, "%" SCNx64 " %" SCNx64, &bar->start, &last) != 2)
                return set_problem(bar, ENXIO, "its resources cannot be read");
        if (!bar->start || last <= bar->start)
                return set_problem(bar, ENXIO,
                                   "it has no address for its memory: give its port more room for prefetchable memory "
                                   "(pref64-reserve of a pcie-root-port, about twice the window's size)");
        bar->size = last - bar->start + 1;
        if (bar->size % WINDOW_MARK_SIZE || bar->size > SIZE_MAX / 2)
                return set_problem(bar, ENXIO, "its memory has %" PRIu64 " bytes, as no window has", bar->size);
        return 0;
}

/* It answers to its addresses only if it is enabled. The kernel counts how often that was done; once is enough. */
static int enable(struct bar *bar) {
        char text[32];
        int fd, error;
        ssize_t n;

        if (read_file(bar, "enable", text, sizeof(text)) && strtoul(text, NULL, 10))
                return 0;
        fd = open_file(bar, "enable", O_WRONLY);
        n = fd < 0 ? -1 : write(fd, "1", 1);
        error = errno;
        if (fd >= 0)
                close(fd);
        return n == 1 ? 0 : cannot(bar, "enable it", error);
}

/* resource2, and not resource2_wc: what is written must be there for a device when it is told so, with no fence of the program's
 * in between, which nobody expects of coherent memory. It costs nothing where the hypervisor decides what is cached, as KVM
 * does for a guest without devices of the host's, in which memory is cached either way. */
static int open_memory(struct bar *bar) {
        struct stat about;

        bar->fd = open_file(bar, "resource2", O_RDWR);
        if (bar->fd < 0)
                return cannot(bar, "open its resource2", errno);
        if (fstat(bar->fd, &about) || (uint64_t)about.st_size != bar->size)
                return set_problem(bar, ENXIO, "its resource2 is not as long as its resources say");
        return 0;
}

/* Read once: what the host writes there later changes nothing. */
static int read_mark(struct bar *bar) {
        const size_t length = strlen(MAGIC);
        unsigned char mark[sizeof(MAGIC) - 1 + COOKIE_SIZE];
        void *page = mmap(NULL, WINDOW_MARK_SIZE, PROT_READ, MAP_SHARED, bar->fd, (off_t)(bar->size - WINDOW_MARK_SIZE));

        if (page == MAP_FAILED)
                return cannot(bar, "map its memory", errno);
        memcpy(mark, page, sizeof(mark));
        munmap(page, WINDOW_MARK_SIZE);
        if (memcmp(mark, MAGIC, length) != 0)
                return set_problem(bar, ENODEV, "it is no window of dmabroker's, but somebody else's ivshmem device");
        memcpy(bar->cookie, mark + length, COOKIE_SIZE);
        return 0;
}

static void examine(struct bar *bar) {
        int r = read_place(bar);

        if (!r)
                r = enable(bar);
        if (!r)
                r = open_memory(bar);
        if (!r)
                r = read_mark(bar);
        if (r && bar->fd >= 0) {
                close(bar->fd);
                bar->fd = -1;
        }
}

static int find_bars(struct search *search) {
        DIR *directory = opendir(devices);
        struct dirent *entry;

        if (!directory)
                return error_set_reason(ENODEV, "source_unavailable",
                                        "cannot look for PCI devices in %s: %s; is sysfs mounted, and has the kernel PCI?",
                                        devices, strerrordesc_np(errno));
        while (search->n_bars < BARS_MAX && (entry = readdir(directory))) {
                struct bar *bar = &search->bars[search->n_bars];

                *bar = (struct bar){ .fd = -1 };
                if (*entry->d_name == '.' || strlen(entry->d_name) >= sizeof(bar->device))
                        continue;
                strcpy(bar->device, entry->d_name);
                if (!has_id(bar, "vendor", VENDOR) || !has_id(bar, "device", DEVICE))
                        continue;
                examine(bar);
                search->n_bars++;
        }
        closedir(directory);
        return 0;
}

/* ---- what the broker says ---- */

static int take_cookie(json_t *item, unsigned char cookie[COOKIE_SIZE]) {
        const char *text = json_string_value(json_object_get(item, "cookie"));

        if (!text || strlen(text) != 2 * COOKIE_SIZE || strspn(text, "0123456789abcdefABCDEF") != 2 * COOKIE_SIZE)
                return error_set(EPROTO, "the daemon's answer has a window without a usable \"cookie\"");
        for (size_t i = 0; i < COOKIE_SIZE; i++)
                sscanf(text + 2 * i, "%2hhx", &cookie[i]);
        return 0;
}

static int take_run(json_t *item, struct grant_run *run) {
        uint64_t domain = 0, first = 0, count = 0;
        int r = result_uint(item, "domain", &domain);

        if (!r)
                r = result_uint(item, "first", &first);
        if (!r)
                r = result_uint(item, "count", &count);
        if (!r && (domain > UINT16_MAX || first > UINT32_MAX || count > UINT32_MAX))
                r = error_set(EPROTO, "the daemon's answer has a window with grants that cannot be");
        *run = (struct grant_run){ .domain = (uint32_t)domain, .first = (uint32_t)first, .count = (uint32_t)count };
        return r;
}

static int take_grants(json_t *item, struct window *window) {
        json_t *grants = json_object_get(item, "grants"), *run;
        size_t i;
        int r;

        if (!grants)
                return 0;
        window->grants = calloc(json_array_size(grants) + 1, sizeof(*window->grants));
        if (!window->grants)
                return error_set(ENOMEM, "there is not enough memory");
        json_array_foreach(grants, i, run) {
                r = take_run(run, &window->grants[i]);
                if (r)
                        return r;
                window->n_grants++;
        }
        return 0;
}

static int take_window(json_t *item, struct window *window) {
        const char *state = json_string_value(json_object_get(item, "state"));
        int r = result_uint(item, "window", &window->number);

        if (!r)
                r = result_uint(item, "region", &window->region);
        if (!r)
                r = result_uint(item, "size", &window->size);
        if (!r)
                r = take_cookie(item, window->cookie);
        if (!r)
                r = take_grants(item, window);
        window->leaves = state && !strcmp(state, "leaving");
        window->bound = json_object_get(item, "guest_addr");
        if (!r && window->bound)
                r = result_hex(item, "guest_addr", &window->guest_addr);
        return r;
}

static int list_windows(struct dmab *dmab, struct search *search) {
        struct link_request request = { .method = "window.list", .repeat = LINK_AGAIN };
        struct link_reply reply = { 0 };
        json_t *items, *item;
        size_t i, n;
        int r = link_call(dmab->link, &request, &reply);

        if (r)
                return r;
        items = json_object_get(reply.result, "items");
        n = json_array_size(items) < WINDOWS_MAX ? json_array_size(items) : WINDOWS_MAX;
        search->is_cut = json_is_true(json_object_get(reply.result, "more")) || n < json_array_size(items);
        search->windows = calloc(n ? n : 1, sizeof(*search->windows));
        if (!search->windows)
                r = error_set(ENOMEM, "there is not enough memory");
        json_array_foreach(items, i, item) {
                if (r || i >= n)
                        break;
                r = take_window(item, &search->windows[i]);
                search->n_windows = i + 1;
        }
        link_reply_release(&reply);
        return r;
}

/* ---- both ---- */

/* Xen's have no grants any more when they leave. */
static bool needs_devices(const struct search *search, uint64_t region) {
        for (size_t i = 0; i < search->n_windows; i++)
                if (!search->windows[i].grants && (!search->windows[i].leaves || search->windows[i].region == region))
                        return true;
        return false;
}

static bool stays(uint64_t region, const void *userdata) {
        const struct search *search = userdata;

        for (size_t i = 0; i < search->n_windows; i++)
                if (search->windows[i].region == region)
                        return !search->windows[i].leaves;
        return search->is_cut;
}

/* region: the one that is looked for, or 0. */
static int search_begin(struct dmab *dmab, uint64_t region, struct search **ret) {
        struct search *search = calloc(1, sizeof(*search));
        int r;

        if (search)
                search->look = regions_ask(dmab);
        r = search ? list_windows(dmab, search) : error_set(ENOMEM, "there is not enough memory");
        if (!r)
                regions_heed(dmab, search->look, stays, search);
        if (!r && needs_devices(search, region))
                r = find_bars(search);
        if (!r)
                search->deadline_ms = clock_ms() + APPEAR_MS;
        *ret = search;
        return r;
}

static void forget_bars(struct search *search) {
        for (size_t i = 0; i < search->n_bars; i++)
                if (search->bars[i].fd >= 0)
                        close(search->bars[i].fd);
        search->n_bars = 0;
}

static void search_end(struct search *search) {
        if (!search)
                return;
        forget_bars(search);
        for (size_t i = 0; i < search->n_windows; i++)
                free(search->windows[i].grants);
        free(search->windows);
        free(search);
}

/* Any of the devices that have no mark may be the one: what is wrong with the first of them is likely to be why. */
static int not_found(const struct search *search, const struct window *window) {
        const struct bar *bad = NULL;

        for (size_t i = 0; i < search->n_bars && !bad; i++)
                if (search->bars[i].fd < 0)
                        bad = &search->bars[i];
        if (bad)
                return error_set_reason(bad->error, "source_unavailable",
                                        "window %" PRIu64 " of the broker is not found in this guest. As to its ivshmem device "
                                        "%s: %s", window->number, bad->device, bad->problem);
        if (search->n_bars)
                return error_set_reason(ENODEV, "source_unavailable",
                                        "none of the %zu ivshmem devices of this guest has the cookie of window %" PRIu64
                                        " of the broker: they are windows of another broker, or of one that has ended",
                                        search->n_bars, window->number);
        return error_set_reason(ENODEV, "source_unavailable",
                                "this guest has no ivshmem device in %s, in which window %" PRIu64 " of the broker should be: "
                                "was plugging it in refused, or is PCI hotplug missing in the guest?", devices, window->number);
}

static int find_bar(struct search *search, const struct window *window, struct bar **ret) {
        for (size_t i = 0; i < search->n_bars; i++) {
                struct bar *bar = &search->bars[i];

                if (bar->fd < 0 || memcmp(bar->cookie, window->cookie, COOKIE_SIZE) != 0)
                        continue;
                if (bar->size != window->size)
                        return error_set_reason(EPROTO, "source_unavailable",
                                                "window %" PRIu64 " of the broker has %" PRIu64 " bytes, and the device %s has "
                                                "%" PRIu64, window->number, window->size, bar->device, bar->size);
                *ret = bar;
                return 0;
        }
        return not_found(search, window);
}

/* The broker may speak of a window before the guest's kernel has got to know the device, has all of its files in place, or has
 * given its memory an address: the device is to be seen before it has one. */
static int await_bar(struct search *search, const struct window *window, struct bar **ret) {
        int r = find_bar(search, window, ret), again = 0;

        while ((r == -ENODEV || r == -ENOENT || r == -ENXIO) && !again && !window->bound && clock_ms() < search->deadline_ms) {
                nanosleep(&(struct timespec){ .tv_nsec = APPEAR_PAUSE_MS * 1000000L }, NULL);
                forget_bars(search);
                again = find_bars(search);
                if (!again)
                        r = find_bar(search, window, ret);
        }
        return again ? again : r;
}

static int bind_window(struct dmab *dmab, const struct window *window, const struct bar *bar) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        if (window->bound && window->guest_addr == bar->start)
                return 0;
        params_begin(&params);
        params_uint(&params, "window", window->number);
        params_hex(&params, "guest_addr", bar->start);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "window.bind", .params = params.text, .repeat = LINK_AGAIN }, &reply);
        link_reply_release(&reply);
        return r;
}

static int settle(struct dmab *dmab, struct search *search, const struct window *window, struct bar **ret) {
        struct bar *bar;
        int r = await_bar(search, window, &bar);

        if (!r)
                r = bind_window(dmab, window, bar);
        if (!r)
                *ret = bar;
        return r;
}

/* The broker knows where a paravirtualised guest sees it. */
static int settle_granted(const struct window *window) {
        if (window->bound)
                return 0;
        return error_set_reason(ENXIO, "source_unavailable",
                                "window %" PRIu64 " of the broker has no address in this guest that a PCI device could be "
                                "given: only a paravirtualised guest of Xen's sees it in one piece. A device that is not called "
                                "by a PCI address is given the machine's", window->number);
}

static int look_for_all(struct dmab *dmab) {
        struct error_state *first = NULL;
        struct search *search;
        struct bar *bar;
        int r = search_begin(dmab, 0, &search), one;

        if (!r && !search->n_windows)
                r = error_set_reason(ENODEV, "source_unavailable", "the broker has given this guest no window");
        /* One that is of no use keeps nobody from the others. */
        for (size_t i = 0; i < (search ? search->n_windows : 0) && (!r || first); i++) {
                if (search->windows[i].leaves)
                        continue;
                one = search->windows[i].grants ? settle_granted(&search->windows[i])
                                                : settle(dmab, search, &search->windows[i], &bar);
                if (!one || first)
                        continue;
                r = one;
                first = error_save();
        }
        error_restore(first);
        search_end(search);
        return r;
}

/* What is wrong with it, or lies in it, is told to whoever needs it; one that is not there any more nobody needs. */
static int check(struct dmab *dmab, struct search *search, const struct window *window) {
        struct bar *bar;
        const bool matters = window->bound && !window->grants && !window->leaves;
        int r = matters && !await_bar(search, window, &bar) ? bind_window(dmab, window, bar) : 0;

        if (!r || r == -EBUSY || error_is("unknown_handle"))
                return 0;
        return dmab_last_error_json() ? r : WINDOWS_LATER; /* the broker's own word, or that it is not heard */
}

static int check_bound(struct dmab *dmab) {
        struct error_state *saved = error_save(), *refused;
        struct search *search;
        int r = search_begin(dmab, 0, &search) ? WINDOWS_LATER : 0;

        for (size_t i = 0; !r && i < search->n_windows; i++)
                r = check(dmab, search, &search->windows[i]);
        refused = r < 0 ? error_save() : NULL;
        search_end(search);
        error_restore(saved);
        error_restore(refused);
        return r;
}

static int open_device(struct dmab *dmab, struct search *search, const struct window *window, struct window_memory *ret) {
        struct bar *bar;
        int r = settle(dmab, search, window, &bar);

        /* Bound elsewhere, by a program that lied or in a boot that the broker took no notice of the end of: what was given
         * there lies in the way, and is about to be given back. */
        if (r == -EBUSY)
                link_distrust_windows(dmab->link);
        if (r)
                return r;
        *ret = (struct window_memory){ .file.fd = bar->fd, .size = bar->size };
        bar->fd = -1;
        return 0;
}

/* The agent hears when it is to be let go of, though the program makes no call. */
static int open_granted(struct dmab *dmab, const struct window *window, struct window_memory *ret) {
        int r = agent_start(dmab);

        if (!r)
                r = grant_window_open(window->number, window->grants, window->n_grants, window->size, &ret->file);
        ret->size = window->size;
        ret->granted = true;
        return r;
}

static int look_for(struct dmab *dmab, uint64_t region, struct window_memory *ret) {
        const struct window *window = NULL;
        struct search *search;
        int r = search_begin(dmab, region, &search);

        for (size_t i = 0; !r && i < search->n_windows && !window; i++)
                if (search->windows[i].region == region)
                        window = &search->windows[i];
        if (!r && !window)
                r = error_set_reason(ENOENT, "source_unavailable",
                                     "the broker has put memory into region %" PRIu64 ", which is no window of this guest",
                                     region);
        if (!r)
                r = window->grants ? open_granted(dmab, window, ret) : open_device(dmab, search, window, ret);
        ret->look = search ? search->look : 0;
        search_end(search);
        return r;
}

/* No function of the library is a cancellation point. */

int windows_look(struct dmab *dmab) {
        int r, old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        r = look_for_all(dmab);
        pthread_setcancelstate(old_state, NULL);
        return r;
}

int windows_check(struct dmab *dmab) {
        int r, old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        r = check_bound(dmab);
        pthread_setcancelstate(old_state, NULL);
        return r;
}

int window_open(struct dmab *dmab, uint64_t region, struct window_memory *ret) {
        int r, old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        r = look_for(dmab, region, ret);
        pthread_setcancelstate(old_state, NULL);
        return r;
}
