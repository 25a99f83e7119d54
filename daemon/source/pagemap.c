#include "daemon/source/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define ENTRY_PRESENT (UINT64_C(1) << 63)
#define ENTRY_FRAME ((UINT64_C(1) << 55) - 1)

/* The kernel looks at the rights of whoever opened it, not of whoever reads. */
static int prepared = -1;

static int open_it(void) {
        int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

int pagemap_prepare(void) {
        prepared = open_it();
        return prepared < 0 ? prepared : 0;
}

void pagemap_finish(void) {
        if (prepared >= 0)
                close(prepared);
        prepared = -1;
}

int pagemap_open(void) {
        int fd;

        if (prepared < 0)
                return open_it();
        fd = fcntl(prepared, F_DUPFD_CLOEXEC, 0);
        return fd < 0 ? -errno : fd;
}

int pagemap_read(int fd, const void *at, uint64_t *ret_addr) {
        const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        uint64_t entry;
        ssize_t n;

        do
                n = pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)at / page * sizeof(entry)));
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        if (n != sizeof(entry) || !(entry & ENTRY_PRESENT))
                return -ENOENT;
        /* Without CAP_SYS_ADMIN every frame reads as 0, which is a real frame, but none that is ever handed out. */
        if (!(entry & ENTRY_FRAME))
                return -EPERM;
        *ret_addr = (entry & ENTRY_FRAME) * page + (uintptr_t)at % page;
        return 0;
}
