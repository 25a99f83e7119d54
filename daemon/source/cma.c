#include "daemon/source/cma.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define AREAS "/sys/kernel/debug/cma"

int cma_bytes(uint64_t *ret_total, uint64_t *ret_free) {
        uint64_t total = 0, unused = 0, kib;
        char line[128];
        FILE *file;

        file = fopen("/proc/meminfo", "re");
        if (!file)
                return -errno;
        while (fgets(line, sizeof(line), file)) {
                if (sscanf(line, "CmaTotal: %" SCNu64, &kib) == 1)
                        total = kib * 1024;
                else if (sscanf(line, "CmaFree: %" SCNu64, &kib) == 1)
                        unused = kib * 1024;
        }
        fclose(file);
        if (!total)
                return -ENOENT;
        *ret_total = total;
        *ret_free = unused;
        return 0;
}

static int read_number(const char *area, const char *name, uint64_t *ret) {
        char path[sizeof(AREAS) + NAME_MAX + 32];
        FILE *file;
        int n;

        snprintf(path, sizeof(path), AREAS "/%s/%s", area, name);
        file = fopen(path, "re");
        if (!file)
                return -errno;
        n = fscanf(file, "%" SCNu64, ret);
        fclose(file);
        return n == 1 ? 0 : -EIO;
}

size_t cma_ranges(struct mark_range *ret, size_t n_max) {
        const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        uint64_t frame, count;
        struct dirent *entry;
        size_t n = 0;
        DIR *areas;

        areas = opendir(AREAS);
        if (!areas)
                return 0;
        while (n < n_max && (entry = readdir(areas))) {
                if (entry->d_name[0] == '.' || read_number(entry->d_name, "base_pfn", &frame) < 0 ||
                    read_number(entry->d_name, "count", &count) < 0)
                        continue;
                if (count > 0 && frame <= UINT64_MAX / page && count <= UINT64_MAX / page - frame)
                        ret[n++] = (struct mark_range){ .addr = frame * page, .size = count * page };
        }
        closedir(areas);
        return n;
}
