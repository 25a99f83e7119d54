#include "tests/lib/pagemap.h"

#include <fcntl.h>
#include <unistd.h>

/* Opened anew for every question: /proc/self is another process after a fork. */
uint64_t pagemap_machine_address(const volatile void *at) {
        const uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
        uint64_t entry = 0, frame;
        int fd;

        fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return 0;
        if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)at / page_size * sizeof(entry))) != sizeof(entry))
                entry = 0;
        close(fd);

        /* Bit 63: present; bits 0-54: the frame, which reads as 0 without the capability. */
        frame = entry & ((UINT64_C(1) << 55) - 1);
        if (!(entry >> 63) || !frame)
                return 0;
        return frame * page_size + (uintptr_t)at % page_size;
}

bool pagemap_is_readable(void) {
        volatile char here = 1;

        return pagemap_machine_address(&here) != 0;
}
