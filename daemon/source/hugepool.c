#include "daemon/source/hugepool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/source/host.h"

#define POOLS "/sys/kernel/mm/hugepages"

enum { PATH_SIZE = 128 };

static void path_of(const struct hugepool *pool, int node, const char *name, char path[static PATH_SIZE]) {
        if (node < 0)
                snprintf(path, PATH_SIZE, POOLS "/hugepages-%" PRIu64 "kB/%s", pool->page_size / 1024, name);
        else
                snprintf(path, PATH_SIZE, "/sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64 "kB/%s", node,
                         pool->page_size / 1024, name);
}

static int read_number(const struct hugepool *pool, int node, const char *name, uint64_t *ret) {
        char path[PATH_SIZE], text[32];
        ssize_t n;
        int fd, r;

        path_of(pool, node, name, path);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = read(fd, text, sizeof(text) - 1);
        r = n < 0 ? -errno : n == 0 ? -EIO : 0;
        close(fd);
        if (r < 0)
                return r;
        text[n] = '\0';
        *ret = strtoull(text, NULL, 10);
        return 0;
}

static int write_number(const struct hugepool *pool, int node, const char *name, uint64_t number) {
        char path[PATH_SIZE], text[32];
        int fd, length, r;

        path_of(pool, node, name, path);
        length = snprintf(text, sizeof(text), "%" PRIu64, number);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = write(fd, text, (size_t)length) < 0 ? -errno : 0;
        close(fd);
        return r;
}

int hugepool_find(struct hugepool *pool, uint64_t page_size) {
        struct hugepool found = { .page_size = page_size };
        uint64_t total;

        if (access(POOLS, F_OK) < 0)
                return -ENOSYS;
        if (read_number(&found, -1, "nr_hugepages", &total) < 0)
                return -ENOENT;
        *pool = found;
        return 0;
}

int hugepool_total(const struct hugepool *pool, uint64_t *ret) {
        return read_number(pool, -1, "nr_hugepages", ret);
}

uint64_t hugepool_available(const struct hugepool *pool) {
        uint64_t unused, promised;

        if (read_number(pool, -1, "free_hugepages", &unused) < 0 ||
            read_number(pool, -1, "resv_hugepages", &promised) < 0)
                return 0;
        return unused > promised ? unused - promised : 0;
}

uint64_t hugepool_possible(const struct hugepool *pool) {
        return host_available() / pool->page_size;
}

int hugepool_raise(const struct hugepool *pool, uint64_t n, int node, uint64_t *ret_got) {
        const uint64_t possible = hugepool_possible(pool);
        uint64_t before, after;
        int r;

        if (n > possible)
                n = possible;
        r = read_number(pool, node, "nr_hugepages", &before);
        if (r < 0 && node >= 0) /* a machine that does not split its pool by nodes */
                r = read_number(pool, node = -1, "nr_hugepages", &before);
        if (r == 0)
                r = write_number(pool, node, "nr_hugepages", before + n);
        if (r == 0)
                r = read_number(pool, node, "nr_hugepages", &after);
        if (r < 0)
                return r;
        *ret_got = after > before ? after - before : 0;
        return 0;
}

int hugepool_lower(const struct hugepool *pool, uint64_t n) {
        uint64_t total;
        int r;

        r = read_number(pool, -1, "nr_hugepages", &total);
        if (r < 0)
                return r;
        return write_number(pool, -1, "nr_hugepages", total > n ? total - n : 0);
}
