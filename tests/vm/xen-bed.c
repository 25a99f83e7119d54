#include "tests/vm/xen-bed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "tests/vm/machine.h"

enum { PATIENCE_MS = 240000, ASK_AGAIN_MS = 50, DOMAINS_MAX = 64 };

xc_interface *xen_xc;
struct xs_handle *xen_store;
static struct xen_guest *all;
static size_t n_all;

static void power_off(void) {
        fflush(stdout);
        sync();
        reboot(RB_POWER_OFF);
}

void xen_give_up(const char *format, ...) {
        va_list arguments;

        for (const struct xen_guest *guest = all; guest < all + n_all; guest++)
                printf("--- the last words of %s ---\n%.*s\n", guest->name, (int)guest->used, guest->buffer);
        printf("---\nFAILED: ");
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        printf("\n");
        power_off();
        exit(1);
}

void xen_check(bool right, const char *what) {
        if (!right)
                xen_give_up("%s", what);
        printf("ok: %s\n", what);
}

int64_t xen_now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* ---- the machine ---- */

/* A program of Xen's, until it ends; daemons go on in another process. */
static void run(char *const *arguments) {
        static char *const environment[] = { "PATH=/usr/bin", NULL };
        int r, status;
        pid_t pid;

        r = posix_spawnp(&pid, arguments[0], NULL, NULL, arguments, environment);
        if (r != 0)
                xen_give_up("%s: %s", arguments[0], strerror(r));
        while (waitpid(pid, &status, 0) != pid)
                ;
        if (status != 0)
                xen_give_up("%s ends with status 0x%x", arguments[0], (unsigned)status);
}

void xen_kill(const char *name) {
        DIR *processes = opendir("/proc");
        struct dirent *entry;
        char path[300], comm[32] = "";
        unsigned n = 0;

        while (processes && (entry = readdir(processes))) {
                FILE *file;

                snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
                file = atoi(entry->d_name) > 1 ? fopen(path, "re") : NULL;
                if (!file)
                        continue;
                if (fgets(comm, sizeof(comm), file))
                        comm[strcspn(comm, "\n")] = '\0';
                if (strcmp(comm, name) == 0)
                        n += kill(atoi(entry->d_name), SIGKILL) == 0;
                fclose(file);
        }
        if (processes)
                closedir(processes);
        if (!n)
                xen_give_up("there is no %s to kill", name);
        printf("%s is killed\n", name);
}

/* Where programs of Xen's keep sockets, locks and logs. */
static void make_directories(void) {
        static const char *const needed[] = {
                "/proc", "/dev", "/dev/pts", "/run/lock", "/run/xen", "/run/xenstored", "/var", "/var/lib", "/var/lib/xen",
                "/var/lib/xenstored", "/var/log", "/var/log/xen",
        };

        for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++)
                mkdir(needed[i], 0755);
        if (symlink("/run", "/var/run") < 0 || symlink("/run/lock", "/var/lock") < 0)
                printf("/var is not as it should be: %s\n", strerror(errno));
}

void xen_begin(struct xen_guest *guests, size_t n_guests) {
        setvbuf(stdout, NULL, _IOLBF, 0);
        all = guests;
        n_all = n_guests;
        for (size_t i = 0; i < n_guests; i++)
                guests[i].console = -1;
        make_directories();
        mount("proc", "/proc", "proc", 0, NULL);
        mount("sysfs", "/sys", "sysfs", 0, NULL);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        mkdir("/dev/pts", 0755);
        mount("devpts", "/dev/pts", "devpts", 0, NULL);
        machine_load_modules("");
        if (mount("xenfs", "/proc/xen", "xenfs", 0, NULL) < 0)
                xen_give_up("/proc/xen: %s", strerror(errno));
        run((char *[]){ "xenstored", "--pid-file=/run/xenstored.pid", NULL });
        run((char *[]){ "xen-init-dom0", NULL });
        run((char *[]){ "xenconsoled", NULL });
        xen_xc = xc_interface_open(NULL, NULL, 0);
        xen_store = xs_open(0);
        if (!xen_xc || !xen_store)
                xen_give_up("Xen does not talk with us: %s", strerror(errno));
        if (!xs_watch(xen_store, "@introduceDomain", "") || !xs_watch(xen_store, "@releaseDomain", ""))
                xen_give_up("xenstored tells nothing of domains: %s", strerror(errno));
}

void xen_end(void) {
        xs_close(xen_store);
        xc_interface_close(xen_xc);
        printf("VM-TEST-PASSED\n");
        power_off();
        exit(0);
}

/* ---- domains ---- */

static unsigned list_domains(xc_domaininfo_t *ret) {
        int n = xc_domain_getinfolist(xen_xc, 0, DOMAINS_MAX, ret);

        if (n < 0)
                xen_give_up("Xen does not list its domains: %s", strerror(errno));
        return (unsigned)n;
}

unsigned xen_count_domains(void) {
        xc_domaininfo_t domains[DOMAINS_MAX];

        return list_domains(domains);
}

uint64_t xen_free_pages(void) {
        xc_physinfo_t info = { 0 };

        if (xc_physinfo(xen_xc, &info) < 0)
                xen_give_up("Xen does not tell of its memory: %s", strerror(errno));
        return info.free_pages;
}

/* Until something is told of domains, or for a moment. */
static void wait_for_news(void) {
        struct pollfd poll_for = { .fd = xs_fileno(xen_store), .events = POLLIN };
        unsigned n;

        if (poll(&poll_for, 1, ASK_AGAIN_MS) > 0)
                free(xs_read_watch(xen_store, &n));
}

void xen_await(const char *what, bool (*is_so)(void *userdata), void *userdata) {
        const int64_t until = xen_now_ms() + PATIENCE_MS;

        while (!is_so(userdata)) {
                if (xen_now_ms() > until)
                        xen_give_up("it does not come to it that %s", what);
                wait_for_news();
        }
        printf("ok: %s\n", what);
}

/* ---- guests ---- */

static void write_configuration(const struct xen_guest *guest, const char *path) {
        FILE *file = fopen(path, "we");

        if (!file)
                xen_give_up("%s: %s", path, strerror(errno));
        fprintf(file,
                "name = \"%s\"\n"
                "uuid = \"%s\"\n"
                "type = \"%s\"\n"
                "memory = 128\n"
                "vcpus = 1\n"
                "kernel = \"/boot/kernel\"\n"
                "ramdisk = \"/boot/initrd\"\n"
                "extra = \"console=hvc0 panic=-1 nokaslr mitigations=off loglevel=1\"\n"
                "max_grant_version = 1\n",
                guest->name, guest->uuid, guest->type);
        fclose(file);
}

/* The domain that the guest is now; one that is about to end has its UUID still. */
static bool is_there(void *userdata) {
        struct xen_guest *guest = userdata;
        const uint32_t over = XEN_DOMINF_dying | XEN_DOMINF_shutdown;
        xc_domaininfo_t domains[DOMAINS_MAX];
        unsigned n = list_domains(domains), n_bytes = 0;
        xen_domain_handle_t handle = { 0 };

        for (const char *digit = guest->uuid; *digit && n_bytes < sizeof(handle); digit += *digit == '-' ? 1 : 2)
                if (*digit != '-')
                        sscanf(digit, "%2hhx", &handle[n_bytes++]);
        for (unsigned i = 0; i < n; i++)
                if (memcmp(domains[i].handle, handle, sizeof(handle)) == 0 && !(domains[i].flags & over)) {
                        guest->domid = domains[i].domain;
                        return true;
                }
        return false;
}

static bool open_console(void *userdata) {
        struct xen_guest *guest = userdata;
        struct termios terminal;
        char path[64], *terminal_path;
        unsigned length;

        snprintf(path, sizeof(path), "/local/domain/%u/console/tty", guest->domid);
        terminal_path = xs_read(xen_store, XBT_NULL, path, &length);
        if (!terminal_path)
                return false;
        guest->console = open(terminal_path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        free(terminal_path);
        if (guest->console < 0 || tcgetattr(guest->console, &terminal) < 0)
                return false;
        cfmakeraw(&terminal);
        return tcsetattr(guest->console, TCSANOW, &terminal) == 0;
}

static void meet(struct xen_guest *guest) {
        guest->used = 0;
        xen_await("there is a domain of the guest's", is_there, guest);
        xen_await("it has a console", open_console, guest);
        if (strcmp(xen_hear(guest), "ready") != 0)
                xen_give_up("%s is not ready: %s", guest->name, guest->buffer);
}

void xen_start(struct xen_guest *guest) {
        const int64_t began = xen_now_ms();
        char path[64];

        snprintf(path, sizeof(path), "/run/%s.cfg", guest->name);
        write_configuration(guest, path);
        run((char *[]){ "xl", "create", "-q", path, NULL });
        meet(guest);
        printf("%s is domain %u, and ready after %lld ms\n", guest->name, guest->domid, (long long)(xen_now_ms() - began));
}

void xen_create_paused(struct xen_guest *guest) {
        char path[64];

        snprintf(path, sizeof(path), "/run/%s.cfg", guest->name);
        write_configuration(guest, path);
        run((char *[]){ "xl", "create", "-q", "-p", path, NULL });
        xen_await("there is a domain of the guest's", is_there, guest);
}

/* Xen tells of the next one that there is, if it is not there. */
static bool is_over(void *userdata) {
        const struct xen_guest *guest = userdata;
        xc_domaininfo_t info;

        return xc_domain_getinfolist(xen_xc, guest->domid, 1, &info) != 1 || info.domain != guest->domid;
}

static bool is_gone(void *userdata) {
        const struct xen_guest *guest = userdata;
        char path[64], **names;
        unsigned n;

        if (!is_over(userdata))
                return false;
        snprintf(path, sizeof(path), "/local/domain/%u", guest->domid);
        names = xs_directory(xen_store, XBT_NULL, path, &n);
        free(names);
        return !names;
}

void xen_await_end(struct xen_guest *guest) {
        xen_await("nothing is left of the domain", is_gone, guest);
        close(guest->console);
        guest->console = -1;
}

void xen_forget(struct xen_guest *guest) {
        close(guest->console);
        guest->console = -1;
        xen_await("Xen has nothing left of the domain", is_over, guest);
}

void xen_await_reboot(struct xen_guest *guest) {
        xen_await_end(guest);
        meet(guest);
        printf("%s is domain %u now\n", guest->name, guest->domid);
}

void xen_say(struct xen_guest *guest, const char *line) {
        if (dprintf(guest->console, "%s\n", line) < 0)
                xen_give_up("%s hears nothing: %s", guest->name, strerror(errno));
}

static void read_more(struct xen_guest *guest, int64_t until) {
        struct pollfd poll_for = { .fd = guest->console, .events = POLLIN };
        const int64_t now = xen_now_ms();
        ssize_t n = -1;

        if (now < until && guest->used < sizeof(guest->buffer) && poll(&poll_for, 1, (int)(until - now)) > 0)
                n = read(guest->console, guest->buffer + guest->used, sizeof(guest->buffer) - guest->used);
        if (n <= 0)
                xen_give_up("%s says nothing more", guest->name);
        guest->used += (size_t)n;
}

const char *xen_hear(struct xen_guest *guest) {
        const int64_t until = xen_now_ms() + PATIENCE_MS;
        static char answer[1024];
        bool is_answer;
        char *end;

        do {
                while (!(end = memchr(guest->buffer, '\n', guest->used)))
                        read_more(guest, until);
                is_answer = strncmp(guest->buffer, "= ", 2) == 0;
                snprintf(answer, sizeof(answer), "%.*s", (int)(end - guest->buffer), guest->buffer);
                guest->used -= (size_t)(end + 1 - guest->buffer);
                memmove(guest->buffer, end + 1, guest->used);
        } while (!is_answer);
        answer[strcspn(answer, "\r")] = '\0';
        return answer + 2;
}
