/* Inside the virtual machine of systemd.sh: a client that lives through everything that the service goes through. It begins
 * as root, for the page map, and goes on as the user it is told. Commands come on standard input, one a line; each is
 * answered with one line that begins with "ok" or "FAILED".
 *
 *      check WHAT      everything is where it was and has the bytes it had, and more can be had
 *      gone            the daemon does not know this session any more, and says so
 *      begin           a new session, with everything anew
 *      end             everything is given back */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCKS = 100, BLOCK = 2048, COHERENTS = 3, PAGES_MAX = 4096 };
#define MIB ((size_t)1 << 20)

struct piece {
        unsigned char *memory;
        size_t size;
        dmab_addr_t dma;
        uint64_t alloc; /* 0: of a pool */
};

static struct {
        dmab_t *broker;
        dmab_device_t *device;
        dmab_pool_t *pool;
        struct piece coherent[COHERENTS], blocks[BLOCKS];
        unsigned char *buffer; /* the client's own memory, mapped by bouncing */
        dmab_addr_t bounced;
        unsigned round;
} mine;

static int pagemap;

static __attribute__((format(printf, 1, 2), noreturn)) void fail(const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        printf("FAILED: ");
        vprintf(format, arguments);
        printf(" (%s)\n", dmab_last_error());
        va_end(arguments);
        exit(1);
}

#define CHECK(right, ...) do { if (!(right)) fail(__VA_ARGS__); } while (0)

static unsigned char pattern(uint64_t seed, size_t at) {
        return (unsigned char)((seed + at) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static void fill(unsigned char *memory, size_t size, uint64_t seed) {
        for (size_t at = 0; at < size; at++)
                memory[at] = pattern(seed, at);
}

static void compare(const unsigned char *memory, size_t size, uint64_t seed, const char *what) {
        for (size_t at = 0; at < size; at++)
                CHECK(memory[at] == pattern(seed, at), "byte %zu of %s is not what was written", at, what);
}

/* As the kernel says it: the only thing here that needs CAP_SYS_ADMIN, when the page map is opened. */
static void compare_addresses(const struct piece *piece) {
        uint64_t entry;
        size_t at;

        for (at = 0; at < piece->size; at += PAGE) {
                CHECK(pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)(piece->memory + at) / PAGE * sizeof(entry))) ==
                      sizeof(entry), "the page map cannot be read");
                CHECK(entry >> 63 && (entry & ((UINT64_C(1) << 55) - 1)) * PAGE == (piece->dma + at) / PAGE * PAGE,
                      "page %zu of %zu bytes is not at its address", at / PAGE, piece->size);
        }
}

/* ---- what it has ---- */

static void allocate(struct piece *piece, size_t size) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;
        void *memory;

        CHECK(dmab_alloc_coherent(mine.device, size, DMAB_NOWAIT | DMAB_ZERO, &memory, &piece->dma) == 0, "no coherent memory");
        CHECK(dmab_coherent_info(mine.device, memory, &info) == 0, "no information");
        CHECK(info.addressing == DMAB_ADDRESSING_MACHINE && info.machine_addr == piece->dma, "no machine address");
        piece->memory = memory;
        piece->size = size;
        piece->alloc = info.alloc;
}

static void begin(void) {
        static const size_t sizes[COHERENTS] = { 8 * MIB, 64 * 1024, 5 * PAGE };
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        void *memory;

        CHECK(dmab_connect(NULL, &mine.broker) == 0, "no connection");
        dmab_set_reconnect_timeout(mine.broker, 60000);
        options.coherent_mask = DMAB_MASK(64);
        CHECK(dmab_device_open(mine.broker, "card", &options, &mine.device) == 0, "no device");
        for (size_t i = 0; i < COHERENTS; i++) {
                allocate(&mine.coherent[i], sizes[i]);
                fill(mine.coherent[i].memory, sizes[i], i);
        }
        CHECK(dmab_pool_create("blocks", mine.device, BLOCK, 0, 0, NULL, &mine.pool) == 0, "no pool");
        for (size_t i = 0; i < BLOCKS; i++) {
                CHECK(dmab_pool_alloc(mine.pool, DMAB_NOWAIT, &memory, &mine.blocks[i].dma) == 0, "no block");
                mine.blocks[i].memory = memory;
                mine.blocks[i].size = BLOCK;
                fill(memory, BLOCK, 1000 + i);
        }
        mine.buffer = malloc(MIB);
        CHECK(mine.buffer, "no memory");
        fill(mine.buffer, MIB, 9999);
        CHECK(dmab_map_single(mine.device, mine.buffer, MIB, DMAB_BIDIRECTIONAL, &mine.bounced) == 0, "no bounce mapping");
        printf("ok %s %s session: 8 MiB at 0x%" PRIx64 ", 64 KiB at 0x%" PRIx64 ", %d blocks from 0x%" PRIx64
               ", 1 MiB bounced at 0x%" PRIx64 "\n", dmab_owner(mine.broker), dmab_role(mine.broker), mine.coherent[0].dma,
               mine.coherent[1].dma, (int)BLOCKS, mine.blocks[0].dma, mine.bounced);
}

/* ---- what it is asked ---- */

static char *version(void) {
        static char text[32];
        char *result, *at;

        CHECK(dmab_call(mine.broker, "broker.status", NULL, &result) == 0, "no status");
        at = strstr(result, "\"version\":");
        CHECK(at && sscanf(at, "\"version\": \"%31[^\"]", text) == 1, "no version in %s", result);
        free(result);
        return text;
}

static void compare_coherent(void) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;

        for (size_t i = 0; i < COHERENTS; i++) {
                compare(mine.coherent[i].memory, mine.coherent[i].size, i, "coherent memory");
                compare_addresses(&mine.coherent[i]);
                CHECK(dmab_coherent_info(mine.device, mine.coherent[i].memory, &info) == 0, "no information");
                CHECK(info.alloc == mine.coherent[i].alloc && info.machine_addr == mine.coherent[i].dma, "another allocation");
        }
}

static void check(const char *what) {
        struct piece more;

        mine.round++;
        /* The first call finds the connection lost and resumes the session. */
        allocate(&more, MIB);
        fill(more.memory, MIB, mine.round);
        compare_addresses(&more);
        compare_coherent();
        for (size_t i = 0; i < BLOCKS; i++) {
                compare(mine.blocks[i].memory, BLOCK, 1000 + i, "a block");
                compare_addresses(&mine.blocks[i]);
        }
        /* What lies in the bounce slots comes back from there. */
        memset(mine.buffer, 0, MIB);
        CHECK(dmab_sync_single_for_cpu(mine.device, mine.bounced, MIB, DMAB_BIDIRECTIONAL) == 0, "no sync");
        compare(mine.buffer, MIB, 9999, "the bounced buffer");
        CHECK(dmab_free_coherent(mine.device, MIB, more.memory, more.dma) == 0, "what was had anew is not freed");
        printf("ok %u, %s: version %s knows all %d allocations, %d blocks and the mapping, at the same addresses, with the "
               "same bytes\n", mine.round, what, version(), (int)COHERENTS, (int)BLOCKS);
}

static void gone(void) {
        void *memory;
        dmab_addr_t dma;
        int r;

        r = dmab_alloc_coherent(mine.device, MIB, DMAB_NOWAIT, &memory, &dma);
        CHECK(r == -ESTALE, "the session was to be gone, but %d", r);
        compare_coherent();
        printf("ok %s; what is mapped stays as it was\n", dmab_last_error());
        dmab_disconnect(mine.broker);
        free(mine.buffer);
}

static void end(void) {
        CHECK(dmab_unmap_single(mine.device, mine.bounced, MIB, DMAB_BIDIRECTIONAL) == 0, "not unmapped");
        for (size_t i = 0; i < BLOCKS; i++)
                CHECK(dmab_pool_free(mine.pool, mine.blocks[i].memory, mine.blocks[i].dma) == 0, "a block is not freed");
        CHECK(dmab_pool_destroy(mine.pool) == 0, "the pool is not destroyed");
        for (size_t i = 0; i < COHERENTS; i++)
                CHECK(dmab_free_coherent(mine.device, mine.coherent[i].size, mine.coherent[i].memory, mine.coherent[i].dma) ==
                      0, "coherent memory is not freed");
        CHECK(dmab_device_close(mine.device) == 0, "the device is not closed");
        dmab_disconnect(mine.broker);
        free(mine.buffer);
        printf("ok ended\n");
}

static void become(const char *name) {
        struct passwd *user = getpwnam(name);

        CHECK(user, "no user %s", name);
        CHECK(initgroups(name, user->pw_gid) == 0 && setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0, "not %s", name);
}

int main(int argc, char **argv) {
        char line[256];

        setvbuf(stdout, NULL, _IOLBF, 0);
        CHECK(argc == 2, "whose session?");
        pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        CHECK(pagemap >= 0, "no page map");
        become(argv[1]);
        while (fgets(line, sizeof(line), stdin)) {
                line[strcspn(line, "\n")] = '\0';
                if (strcmp(line, "begin") == 0)
                        begin();
                else if (strncmp(line, "check ", 6) == 0)
                        check(line + 6);
                else if (strcmp(line, "gone") == 0)
                        gone();
                else if (strcmp(line, "end") == 0)
                        end();
                else
                        fail("%s: what is that?", line);
        }
        return 0;
}
