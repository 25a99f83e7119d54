#include "tests/vm/xen-guest-work.h"

#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/error.h"
#include "client/port-device.h"
#include "client/xen-device.h"
#include "client/xen-store.h"

enum { PAGE = 4096, BLOCKS = 100, BLOCK = 192, TEXT = 64, MIB = 1 << 20, FRAMES_MAX = 1024, GUARD_REST_MS = 50 };

static struct {
        dmab_t *dmab;
        dmab_device_t *device;
        char *memory; /* of the last allocation */
        dmab_addr_t dma;
        size_t size;
        char buffer[3 * PAGE]; /* of a driver's, to be bounced */
        dmab_addr_t bounced;
        pid_t child;
        pthread_t busy;
        bool stops;
        unsigned rounds, failed;
        uint64_t bytes; /* compared */
        char why[300]; /* of the first */
} work;

static char last_error[300];

/* For the library's files that are linked in. */
int error_set(int error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(last_error, sizeof(last_error), format, arguments);
        va_end(arguments);
        return -error;
}

static void answer_error(void) {
        printf("\n= error: %s\n", dmab_last_error());
}

uint64_t guest_frames(const void *memory, uint32_t pages, unsigned *ret_runs) {
        int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        uint64_t entry = 0, first = 0, last = 0;

        *ret_runs = 0;
        for (uint32_t i = 0; i < pages; i++) {
                if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)memory / PAGE + i) * (off_t)sizeof(entry)) < 0)
                        break;
                entry &= (UINT64_C(1) << 55) - 1;
                first = i ? first : entry;
                *ret_runs += !i || entry != last + 1;
                last = entry;
        }
        close(fd);
        return first;
}

/* ---- the library ---- */

static void do_connect(const char *uri) {
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;

        options.mask = DMAB_MASK(32);
        if (dmab_connect(uri, &work.dmab) || dmab_device_open(work.dmab, "nic", &options, &work.device))
                answer_error();
        else
                printf("\n= ok %s %s\n", dmab_owner(work.dmab), dmab_role(work.dmab));
}

static void do_bye(void) {
        dmab_disconnect(work.dmab);
        work.dmab = NULL;
        work.device = NULL;
        work.memory = NULL;
        printf("\n= ok\n");
}

/* Its address for a device, and for the processor. */
static void do_alloc(const char *size) {
        void *memory;
        dmab_addr_t dma;
        unsigned runs;
        uint64_t first;

        work.size = strtoul(size, NULL, 10);
        if (dmab_alloc_coherent(work.device, work.size, DMAB_WAIT | DMAB_ZERO, &memory, &dma)) {
                answer_error();
                return;
        }
        work.memory = memory;
        work.dma = dma;
        for (size_t at = 0; at < work.size; at += PAGE)
                snprintf(work.memory + at, TEXT, "from the guest, page %zu", at / PAGE);
        first = guest_frames(memory, (uint32_t)(work.size / PAGE), &runs);
        printf("\n= ok 0x%" PRIx64 " 0x%" PRIx64 " %u\n", (uint64_t)dma, first * PAGE, runs);
}

static void do_look(const char *page) {
        printf("\n= ok %.*s\n", TEXT, work.memory + strtoul(page, NULL, 10) * PAGE + PAGE / 2);
}

static void do_free(void) {
        if (dmab_free_coherent(work.device, work.size, work.memory, work.dma))
                answer_error();
        else
                printf("\n= ok\n");
}

static void do_pool(void) {
        dmab_addr_t dmas[BLOCKS];
        void *blocks[BLOCKS];
        dmab_pool_t *pool;
        unsigned right = 0;

        if (dmab_pool_create("small", work.device, BLOCK, 64, PAGE, NULL, &pool) ||
            dmab_pool_alloc_bulk(pool, DMAB_WAIT, BLOCKS, blocks, dmas)) {
                answer_error();
                return;
        }
        for (unsigned i = 0; i < BLOCKS; i++)
                memset(blocks[i], (int)i, BLOCK);
        for (unsigned i = 0; i < BLOCKS; i++)
                right += *(unsigned char *)blocks[i] == i && ((unsigned char *)blocks[i])[BLOCK - 1] == i && !(dmas[i] % 64) &&
                         (dmas[i] & ~(uint64_t)(PAGE - 1)) == ((dmas[i] + BLOCK - 1) & ~(uint64_t)(PAGE - 1));
        if (dmab_pool_free_bulk(pool, BLOCKS, blocks, dmas) || dmab_pool_destroy(pool))
                answer_error();
        else
                printf("\n= ok %u\n", right);
}

static void do_bounce(void) {
        memset(work.buffer, 0, sizeof(work.buffer));
        snprintf(work.buffer, TEXT, "bounced by the guest");
        if (dmab_map_single(work.device, work.buffer, sizeof(work.buffer), DMAB_BIDIRECTIONAL, &work.bounced))
                answer_error();
        else
                printf("\n= ok 0x%" PRIx64 "\n", (uint64_t)work.bounced);
}

static void do_unbounce(void) {
        if (dmab_unmap_single(work.device, work.bounced, sizeof(work.buffer), DMAB_BIDIRECTIONAL))
                answer_error();
        else
                printf("\n= ok %.*s\n", TEXT, work.buffer);
}

/* A child that does nothing, and ends nothing. */
static void do_fork(void) {
        work.child = fork();
        if (work.child == 0)
                for (;;)
                        pause();
        printf("\n= ok\n");
}

static void do_unfork(void) {
        kill(work.child, SIGKILL);
        waitpid(work.child, NULL, 0);
        printf("\n= ok\n");
}

/* For a device that is called by its place on the bus. */
static void do_pci(void) {
        dmab_device_t *device = NULL;
        dmab_addr_t dma;
        void *memory;

        if (dmab_device_open(work.dmab, "0000:00:05.0", NULL, &device) ||
            dmab_alloc_coherent(device, PAGE, DMAB_WAIT, &memory, &dma))
                answer_error();
        else
                printf("\n= ok 0x%" PRIx64 "\n", (uint64_t)dma);
        if (device)
                dmab_device_close_force(device);
}

/* ---- frames ---- */

/* "ORDER PFN FRAME+COUNT …": what it has got for these frames. */
static void do_exchange(const char *line) {
        static uint64_t frames[FRAMES_MAX], got[FRAMES_MAX];
        struct dmab_exchange_options options = DMAB_EXCHANGE_OPTIONS_INIT;
        uint64_t first, pfn;
        unsigned order, count;
        size_t n = 0, n_got;
        dmab_t *dmab;
        int length;

        if (sscanf(line, "%u %" SCNx64 "%n", &order, &pfn, &length) != 2) {
                printf("\n= error: what is %s?\n", line);
                return;
        }
        for (line += length; sscanf(line, " %" SCNx64 "+%u%n", &first, &count, &length) == 2; line += length)
                for (unsigned i = 0; i < count && n < FRAMES_MAX; i++)
                        frames[n++] = first + i;
        options.mask = DMAB_MASK(32);
        options.pfns = &pfn;
        if (dmab_connect("xen:", &dmab)) {
                answer_error();
                return;
        }
        if (dmab_exchange_frames(dmab, frames, n, order, &options, got, &n_got))
                answer_error();
        else
                printf("\n= ok %zu 0x%" PRIx64 "\n", n_got, got[0]);
        dmab_disconnect(dmab);
}

/* ---- all the time ---- */

static int round_of_work(void) {
        void *memory;
        dmab_addr_t dma;
        int r = dmab_alloc_coherent(work.device, 4 * PAGE, DMAB_WAIT, &memory, &dma);

        if (r)
                return r;
        memset(memory, 0x77, 4 * PAGE);
        return dmab_free_coherent(work.device, 4 * PAGE, memory, dma);
}

static void *work_on(void *unused) {
        while (!__atomic_load_n(&work.stops, __ATOMIC_RELAXED)) {
                if (round_of_work() && !work.failed++)
                        snprintf(work.why, sizeof(work.why), "%s", dmab_last_error());
                __atomic_fetch_add(&work.rounds, 1, __ATOMIC_RELAXED);
        }
        return NULL;
}

static void do_busy(void) {
        work.stops = false;
        work.rounds = work.failed = 0;
        *work.why = '\0';
        pthread_create(&work.busy, NULL, work_on, NULL);
        printf("\n= ok\n");
}

/* What it has allocated says at each place which one that is; what it allocates meanwhile, in which round. */
static void mark(char *at, size_t size, uint64_t seed) {
        for (size_t i = 0; i < size / sizeof(uint64_t); i++)
                ((uint64_t *)at)[i] = (i + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ seed;
}

static unsigned count_wrong(const char *at, size_t size, uint64_t seed) {
        unsigned wrong = 0;

        for (size_t i = 0; i < size / sizeof(uint64_t); i++)
                wrong += ((const uint64_t *)at)[i] != ((i + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ seed);
        return wrong;
}

static int round_of_guard(uint64_t seed) {
        void *memory;
        dmab_addr_t dma;
        unsigned wrong;
        int r = dmab_alloc_coherent(work.device, 4 * PAGE, DMAB_WAIT, &memory, &dma);

        if (r)
                return r;
        mark(memory, 4 * PAGE, seed);
        wrong = count_wrong(work.memory, work.size, 0) + count_wrong(memory, 4 * PAGE, seed);
        r = dmab_free_coherent(work.device, 4 * PAGE, memory, dma);
        if (wrong)
                return error_set(EILSEQ, "%u words of its memory are not what it has written", wrong);
        __atomic_fetch_add(&work.bytes, work.size + 4 * PAGE, __ATOMIC_RELAXED);
        return r;
}

/* It leaves the processor to others, of which the machine has one. */
static void *guard(void *unused) {
        for (uint64_t seed = 1; !__atomic_load_n(&work.stops, __ATOMIC_RELAXED); seed++) {
                int r = round_of_guard(seed);

                if (r && !__atomic_fetch_add(&work.failed, 1, __ATOMIC_RELAXED))
                        snprintf(work.why, sizeof(work.why), "%s", r == -EILSEQ ? last_error : dmab_last_error());
                __atomic_fetch_add(&work.rounds, 1, __ATOMIC_RELAXED);
                poll(NULL, 0, GUARD_REST_MS);
        }
        return NULL;
}

static void do_guard(void) {
        work.stops = false;
        work.rounds = work.failed = 0;
        work.bytes = 0;
        *work.why = '\0';
        mark(work.memory, work.size, 0);
        pthread_create(&work.busy, NULL, guard, NULL);
        printf("\n= ok\n");
}

static void do_guarded(void) {
        printf("\n= ok %u %" PRIu64 " %u %s\n", __atomic_load_n(&work.rounds, __ATOMIC_RELAXED),
               __atomic_load_n(&work.bytes, __ATOMIC_RELAXED), __atomic_load_n(&work.failed, __ATOMIC_RELAXED), work.why);
}

static void do_rounds(void) {
        printf("\n= ok %u\n", __atomic_load_n(&work.rounds, __ATOMIC_RELAXED));
}

static void do_rest(void) {
        __atomic_store_n(&work.stops, true, __ATOMIC_RELAXED);
        pthread_join(work.busy, NULL);
        printf("\n= ok %u failed %s\n", work.failed, work.why);
}

/* ---- the channel without the library ---- */

static void do_store(const char *path) {
        char text[64];
        int r = xen_store_read(path, text, sizeof(text));

        if (r)
                printf("\n= error: %s\n", strerror(-r));
        else
                printf("\n= ok %s\n", text);
}

static int64_t now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Calls without end, of which no answer is read. */
static void do_flood(const char *ms) {
        static const char call[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n";
        const int64_t until = now_ms() + strtol(ms, NULL, 10);
        static char much[sizeof(call) * 200];
        struct port_device *device;
        size_t sum = 0, size = 0;

        if (port_vchan_ops.open("dmabroker/vchan", &device)) {
                printf("\n= error: %s\n", last_error);
                return;
        }
        while (size + sizeof(call) < sizeof(much)) {
                memcpy(much + size, call, sizeof(call) - 1);
                size += sizeof(call) - 1;
        }
        device->ops->write(device, "\xff", 1);
        while (now_ms() < until) {
                ssize_t n = device->ops->write(device, much + sum % size, size - sum % size);
                struct pollfd poller = { .fd = device->file.fd, .events = POLLIN };

                sum += n > 0 ? (size_t)n : 0;
                if (n <= 0) {
                        poll(&poller, 1, 10);
                        device->ops->woken(device, poller.revents);
                }
        }
        device->ops->close(device);
        printf("\n= ok %zu\n", sum);
}

static uint32_t *map_page(void) {
        struct ioctl_gntdev_map_grant_ref request = { .count = 1 };
        int fd = open(XEN_GRANTS, O_RDWR | O_CLOEXEC);
        void *page = MAP_FAILED;

        if (xen_store_read_number("dmabroker/vchan/ring-ref", &request.refs[0].ref) == 0 &&
            ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, &request) == 0)
                page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        return page == MAP_FAILED ? NULL : page;
}

/* What cannot be, in all indices, and also in sizes and grants. */
static bool scribble(unsigned seed) {
        struct port_device *device;
        uint32_t *page;

        if (port_vchan_ops.open("dmabroker/vchan", &device))
                return false;
        page = map_page();
        for (unsigned word = 0; page && word < 4; word++)
                page[word] = (seed + 1) * 2654435761u + word * 40503u * 65521u;
        device->ops->write(device, "\xff", 1);
        if (page)
                munmap(page, PAGE);
        poll(NULL, 0, 20);
        device->ops->close(device);
        return page;
}

static void do_garbage(const char *times) {
        const unsigned n = (unsigned)strtoul(times, NULL, 10);

        for (unsigned i = 0; i < n; i++)
                if (!scribble(i)) {
                        printf("\n= error: %s\n", last_error);
                        return;
                }
        printf("\n= ok\n");
}

/* ---- dmabrokerctl ---- */

/* The first line that it says, whatever it says that by. */
static void answer_output(pid_t pid, int fd) {
        FILE *output = fdopen(fd, "re");
        char line[300] = "", first[300] = "";
        int status = -1;

        while (output && fgets(line, sizeof(line), output))
                if (!*first)
                        snprintf(first, sizeof(first), "%.*s", (int)strcspn(line, "\n"), line);
        if (output)
                fclose(output);
        waitpid(pid, &status, 0);
        printf("\n= %d %s\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1, first);
}

static void do_ctl(const char *line) {
        char copy[300], *arguments[12] = { "/bin/dmabrokerctl" }, *rest = copy;
        posix_spawn_file_actions_t actions;
        int ends[2], r;
        pid_t pid;

        snprintf(copy, sizeof(copy), "%s", line);
        for (unsigned i = 1; i < 11 && rest; i++)
                arguments[i] = strsep(&rest, " ");
        if (pipe(ends) < 0)
                return;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
        posix_spawn_file_actions_addclose(&actions, ends[0]);
        r = posix_spawn(&pid, arguments[0], &actions, NULL, arguments, (char *[]){ NULL });
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        if (r == 0)
                answer_output(pid, ends[0]);
        else
                printf("\n= error: %s\n", strerror(r));
}

/* ---- what it is told ---- */

bool guest_work(const char *line) {
        static const struct {
                const char *name;
                void (*alone)(void);
                void (*with)(const char *argument);
        } commands[] = {
                { "connect", .with = do_connect }, { "bye", .alone = do_bye },       { "alloc", .with = do_alloc },
                { "look", .with = do_look },       { "free", .alone = do_free },     { "pool", .alone = do_pool },
                { "bounce", .alone = do_bounce },  { "unbounce", .alone = do_unbounce }, { "busy", .alone = do_busy },
                { "rounds", .alone = do_rounds },  { "rest", .alone = do_rest },     { "flood", .with = do_flood },
                { "garbage", .with = do_garbage }, { "ctl", .with = do_ctl },        { "store", .with = do_store },
                { "pci", .alone = do_pci },        { "fork", .alone = do_fork },     { "unfork", .alone = do_unfork },
                { "exchange", .with = do_exchange }, { "guard", .alone = do_guard }, { "guarded", .alone = do_guarded },
        };
        const size_t length = strcspn(line, " ");

        for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
                if (strlen(commands[i].name) != length || strncmp(commands[i].name, line, length) != 0)
                        continue;
                if (commands[i].alone)
                        commands[i].alone();
                else
                        commands[i].with(line + length + (line[length] == ' '));
                return true;
        }
        return false;
}
