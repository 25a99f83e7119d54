/* The first process of a guest of Xen's (xen-bed.h): it does what it is told over the console. Each command is answered
 * with one line that begins with "= ". */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
/* The kernel's header takes types for granted that are in these. */
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

#include "tests/vm/machine.h"
#include "tests/vm/xen-guest-work.h"

/* What Xen has told the guest's kernel of the guest. */
static void do_tell(const char *what) {
        char path[64], text[64] = "";
        FILE *file;

        snprintf(path, sizeof(path), "/sys/hypervisor/%s", what);
        file = fopen(path, "re");
        if (!file || !fgets(text, sizeof(text), file))
                printf("\n= error: %s cannot be read\n", path);
        else
                printf("\n= ok %.*s\n", (int)strcspn(text, "\n"), text);
        if (file)
                fclose(file);
}

/* ---- memory that was granted, in places with a number ---- */

enum { PLACES = 8, PAGE = 4096, PAGES_MAX = 65536 };

static struct place {
        int fd;
        char *memory;
        uint32_t pages;
} places[PLACES];

static struct place *place_of(const char *argument) {
        return &places[*argument ? (argument[0] - '0') % PLACES : 0];
}

/* "DOMAIN:FIRST+COUNT ...": the entries, each with its domain. */
static uint32_t read_runs(const char *text, struct ioctl_gntdev_grant_ref *refs) {
        unsigned domain, first, count;
        uint32_t n = 0;
        int length;

        for (; sscanf(text, " %u:%u+%u%n", &domain, &first, &count, &length) == 3; text += length)
                for (unsigned i = 0; i < count && n < PAGES_MAX; i++)
                        refs[n++] = (struct ioctl_gntdev_grant_ref){ .domid = domain, .ref = first + i };
        return n;
}

static int map_at(struct place *place, struct ioctl_gntdev_map_grant_ref *request) {
        void *memory;
        int fd = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC), error;

        if (fd < 0 || ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, request) < 0)
                return errno;
        memory = mmap(NULL, (size_t)request->count * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)request->index);
        error = errno;
        if (memory == MAP_FAILED) {
                close(fd);
                return error;
        }
        *place = (struct place){ .fd = fd, .memory = memory, .pages = request->count };
        return 0;
}

static void do_map(struct place *place, const char *runs) {
        struct ioctl_gntdev_map_grant_ref *request = calloc(1, sizeof(*request) + PAGES_MAX * sizeof(request->refs[0]));
        int error = request ? 0 : ENOMEM;

        if (!error) {
                request->count = read_runs(runs, request->refs);
                error = map_at(place, request);
        }
        if (error)
                printf("\n= error: %s\n", strerror(error));
        else
                printf("\n= ok %" PRIu32 "\n", place->pages);
        free(request);
}

/* ---- memory of its own, granted to dom0 ---- */

static void answer_refs(const uint32_t *refs, uint32_t n) {
        uint32_t first = 0;

        printf("\n= ok");
        for (uint32_t i = 1; i <= n; i++)
                if (i == n || refs[i] != refs[i - 1] + 1) {
                        printf(" %" PRIu32 "+%" PRIu32, refs[first], i - first);
                        first = i;
                }
        printf("\n");
}

static int offer_at(struct place *place, struct ioctl_gntalloc_alloc_gref *request) {
        void *memory;
        int fd = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC), error;

        if (fd < 0 || ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, request) < 0)
                return errno;
        memory = mmap(NULL, (size_t)request->count * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)request->index);
        error = errno;
        if (memory == MAP_FAILED) {
                close(fd);
                return error;
        }
        *place = (struct place){ .fd = fd, .memory = memory, .pages = request->count };
        return 0;
}

/* "PAGES", or "PAGES ro": dom0 may only read. More than the kernel grants by itself. */
static void do_offer(struct place *place, const char *text) {
        struct ioctl_gntalloc_alloc_gref *request = calloc(1, sizeof(*request) + PAGES_MAX * sizeof(request->gref_ids[0]));
        int error = request ? 0 : ENOMEM;

        machine_write_file("/sys/module/xen_gntalloc/parameters/limit", "16384");
        if (!error) {
                request->count = (uint32_t)strtoul(text, NULL, 10) % PAGES_MAX;
                request->flags = strstr(text, "ro") ? 0 : GNTALLOC_FLAG_WRITABLE;
                error = offer_at(place, request);
        }
        if (error)
                printf("\n= error: %s\n", strerror(error));
        else
                answer_refs((const uint32_t *)((const char *)request + offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids)),
                            place->pages);
        free(request);
}

/* The last byte of all. */
static void do_byte(const struct place *place) {
        printf("\n= ok %d\n", place->memory[(size_t)place->pages * PAGE - 1]);
}

/* ---- what is in it ---- */

/* Each page says which one it is, and gets an answer. */
static void do_see(const struct place *place) {
        uint32_t right = 0;
        char text[32];

        for (uint32_t i = 0; i < place->pages; i++) {
                char *page = place->memory + (size_t)i * PAGE;

                snprintf(text, sizeof(text), "page %" PRIu32, i);
                right += strcmp(page, text) == 0;
                snprintf(page + PAGE / 2, sizeof(text), "seen %" PRIu32, i);
        }
        printf("\n= ok %" PRIu32 "\n", right);
}

/* Where the page tables have it, which in a paravirtualised guest is where the machine has it. */
static void do_frames(const struct place *place) {
        unsigned runs;
        const uint64_t first = guest_frames(place->memory, place->pages, &runs);

        printf("\n= ok 0x%" PRIx64 " %u\n", first, runs);
}

/* The last page of a window is the daemon's. */
static void do_fill(const struct place *place) {
        for (uint32_t i = 0; i + 1 < place->pages; i++)
                snprintf(place->memory + (size_t)i * PAGE, PAGE, "page %" PRIu32, i);
        printf("\n= ok\n");
}

static void do_zero(const struct place *place) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < place->pages; i++) {
                const char *page = place->memory + (size_t)i * PAGE;

                n += !page[0] && memcmp(page, page + 1, PAGE - 1) == 0;
        }
        printf("\n= ok %" PRIu32 "\n", n);
}

static void do_cookie(const struct place *place) {
        static const char magic[] = "dmabroker-window";
        const char *page = place->memory + (size_t)(place->pages - 1) * PAGE;

        printf("\n= ");
        for (size_t i = 0; memcmp(page, magic, strlen(magic)) == 0 && i < 16; i++)
                printf("%02x", (unsigned char)page[strlen(magic) + i]);
        printf("\n");
}

static void do_unmap(struct place *place) {
        munmap(place->memory, (size_t)place->pages * PAGE);
        close(place->fd);
        *place = (struct place){ .fd = -1 };
        printf("\n= ok\n");
}

static void obey(const char *line) {
        if (strcmp(line, "kind") == 0)
                do_tell("guest_type");
        else if (strcmp(line, "uuid") == 0)
                do_tell("uuid");
        else if (strncmp(line, "map ", 4) == 0)
                do_map(place_of(line + 4), line + 5);
        else if (strncmp(line, "see ", 4) == 0)
                do_see(place_of(line + 4));
        else if (strncmp(line, "frames ", 7) == 0)
                do_frames(place_of(line + 7));
        else if (strncmp(line, "fill ", 5) == 0)
                do_fill(place_of(line + 5));
        else if (strncmp(line, "zero ", 5) == 0)
                do_zero(place_of(line + 5));
        else if (strncmp(line, "cookie ", 7) == 0)
                do_cookie(place_of(line + 7));
        else if (strncmp(line, "offer ", 6) == 0)
                do_offer(place_of(line + 6), line + 7);
        else if (strncmp(line, "byte ", 5) == 0)
                do_byte(place_of(line + 5));
        else if (strncmp(line, "unmap ", 6) == 0)
                do_unmap(place_of(line + 6));
        else if (strcmp(line, "off") == 0)
                reboot(RB_POWER_OFF);
        else if (strcmp(line, "reboot") == 0)
                reboot(RB_AUTOBOOT);
        else if (strcmp(line, "crash") == 0)
                machine_write_file("/proc/sysrq-trigger", "c");
        else if (!guest_work(line))
                printf("\n= error: what is %s?\n", line);
}

int main(void) {
        struct termios terminal;
        char line[1024];

        setvbuf(stdout, NULL, _IOLBF, 0);
        mkdir("/proc", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
        mount("sysfs", "/sys", "sysfs", 0, NULL);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        machine_load_modules("");
        if (tcgetattr(0, &terminal) == 0) {
                terminal.c_lflag &= ~(tcflag_t)ECHO;
                tcsetattr(0, TCSANOW, &terminal);
        }
        printf("\n= ready\n");
        while (fgets(line, sizeof(line), stdin)) {
                line[strcspn(line, "\r\n")] = '\0';
                if (*line)
                        obey(line);
        }
        reboot(RB_POWER_OFF);
        return 1;
}
