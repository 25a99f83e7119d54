/* Memory as the host sees it: the daemon's files, and what another client is given. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/vm/kvm-storm.h"

enum { TAIL = 4096 /* the daemon's mark */, PIECES_MAX = 256, PAGE = 4096 };
#define MAGIC "dmabroker-window"

struct storm_seen storm_seen;

/* ---- windows ---- */

static uint64_t hex(const json_t *object, const char *name) {
        const char *text = json_string_value(json_object_get(object, name));

        return text ? strtoull(text, NULL, 16) : 0;
}

void storm_window_get(struct storm_window *ret) {
        json_t *list = kvm_ask("window.list", "{\"guest\":\"%s\"}", storm_victim->name), *region;
        const json_t *item = json_array_get(json_object_get(list, "items"), 0);

        *ret = (struct storm_window){ 0 };
        if (item) {
                ret->window = kvm_number(item, "window");
                ret->guest_addr = hex(item, "guest_addr");
                snprintf(ret->cookie, sizeof(ret->cookie), "%s", json_string_value(json_object_get(item, "cookie")));
                region = kvm_ask("region.get", "{\"region\":%lld}", (long long)ret->window);
                ret->machine_addr = hex(json_array_get(json_object_get(region, "extents"), 0), "machine_addr");
                json_decref(region);
        }
        json_decref(list);
}

static bool has_cookie(const unsigned char *mark, const char *cookie) {
        char text[40] = "";

        for (int i = 0; i < 16; i++)
                snprintf(text + 2 * i, 3, "%02x", mark[strlen(MAGIC) + (size_t)i]);
        return memcmp(mark, MAGIC, strlen(MAGIC)) == 0 && strcmp(text, cookie) == 0;
}

/* The one of the daemon's files that has this mark. */
static unsigned char *map_window(const struct storm_window *window) {
        size_t size = kvm_host.window;
        struct stat status;
        char path[64];

        for (int fd = 3; fd < 256; fd++) {
                unsigned char *map;
                int file;

                snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)test_daemon_pid(kvm_host.daemon), fd);
                if (stat(path, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size != (off_t)size)
                        continue;
                file = open(path, O_RDWR | O_CLOEXEC);
                map = file < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
                if (file >= 0)
                        close(file);
                if (map == MAP_FAILED)
                        continue;
                if (has_cookie(map + size - TAIL, window->cookie))
                        return map;
                munmap(map, size);
        }
        kvm_give_up("the daemon has no file with the window's mark");
}

static void require_zeroes(const char *what, const unsigned char *memory, size_t size) {
        for (size_t at = 0; at < size; at++)
                if (memory[at])
                        kvm_give_up("%s: byte 0x%02x at %zu of %zu is somebody else's", what, memory[at], at, size);
}

void storm_window_is_clean(const struct storm_window *window) {
        unsigned char *map = map_window(window);

        require_zeroes("a new window", map, kvm_host.window - TAIL);
        require_zeroes("its last page", map + kvm_host.window - TAIL + strlen(MAGIC) + 16, TAIL - strlen(MAGIC) - 16);
        munmap(map, kvm_host.window);
        storm_seen.windows++;
        storm_seen.window_bytes += kvm_host.window - strlen(MAGIC) - 16;
}

bool storm_window_has(const struct storm_window *window, uint64_t guest_addr, uint64_t seed, size_t size) {
        unsigned char *map = map_window(window);
        bool has = true;

        for (size_t at = 0; at < size; at++)
                has = has && map[guest_addr - window->guest_addr + at] ==
                                     (unsigned char)((seed + at) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
        munmap(map, kvm_host.window);
        return has;
}

/* ---- somebody else ---- */

struct piece {
        void *memory;
        dmab_addr_t dma;
        size_t size;
};

static size_t take_all(dmab_device_t *device, struct piece *pieces) {
        size_t n = 0;

        for (size_t size = kvm_host.window; size >= PAGE && n < PIECES_MAX;) {
                pieces[n].size = size;
                if (dmab_alloc_coherent(device, size, DMAB_NOWAIT, &pieces[n].memory, &pieces[n].dma) == 0)
                        n++;
                else
                        size /= 2;
        }
        return n;
}

static bool has_address(dmab_device_t *device, const struct piece *piece, uint64_t addr) {
        struct dmab_coherent_info info = DMAB_COHERENT_INFO_INIT;

        return dmab_coherent_info(device, piece->memory, &info) == 0 && addr >= info.machine_addr &&
               addr - info.machine_addr < info.size;
}

void storm_outsider_looks(uint64_t machine_addr) {
        static struct piece pieces[PIECES_MAX];
        dmab_device_t *device;
        bool found = !machine_addr;
        size_t n;

        if (dmab_device_open(kvm_host.dmab, "outsider", NULL, &device) < 0)
                kvm_give_up("nobody else can open a device");
        n = take_all(device, pieces);
        for (size_t i = 0; i < n; i++) {
                require_zeroes("memory that somebody else is given", pieces[i].memory, pieces[i].size);
                found = found || has_address(device, &pieces[i], machine_addr);
                memset(pieces[i].memory, 0xa5, pieces[i].size);
                storm_seen.outsider_bytes += pieces[i].size;
        }
        storm_seen.outsiders++;
        if (!found)
                kvm_give_up("the window's memory at 0x%" PRIx64 " is not given to anybody", machine_addr);
        for (size_t i = 0; i < n; i++)
                if (dmab_free_coherent(device, pieces[i].size, pieces[i].memory, pieces[i].dma) < 0)
                        kvm_give_up("somebody else cannot free");
        if (dmab_device_close(device) < 0)
                kvm_give_up("somebody else cannot close a device");
}
