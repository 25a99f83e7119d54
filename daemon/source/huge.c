#include "daemon/source/huge.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon/source/pagemap.h"

int huge_make_file(const struct huge *huge, const char *name, uint64_t size) {
        const unsigned order = (unsigned)__builtin_ctzll(huge->page_size);
        int fd, r;

        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | order << MFD_HUGE_SHIFT);
        if (fd < 0)
                return -errno;
        if (ftruncate(fd, (off_t)size) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

int huge_map(int fd, uint64_t size, void **ret) {
        void *map;

        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (map == MAP_FAILED)
                return -errno;
        /* A keeper that is forked later would hold the memory for ever. */
        madvise(map, size, MADV_DONTFORK);
        *ret = map;
        return 0;
}

int huge_count(const struct huge *huge, int fd, uint64_t *ret) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        *ret = (uint64_t)st.st_blocks * 512 / huge->page_size;
        return 0;
}

int huge_touch(void *at) {
        char byte;
        struct iovec here = { .iov_base = &byte, .iov_len = 1 }, there = { .iov_base = at, .iov_len = 1 };

        if (madvise(at, 1, MADV_POPULATE_READ) == 0)
                return 0;
        if (errno == EFAULT || errno == EHWPOISON || errno == ENOMEM)
                return -errno;
        /* Linux before 5.14, or somebody who does not let the daemon; later ones may be without this instead. */
        return process_vm_readv(getpid(), &here, 1, &there, 1, 0) < 0 ? -errno : 0;
}

int huge_zero(const struct huge *huge, void *at, uint64_t size) {
        ssize_t n;

        while (size > 0) {
                n = read(huge->zero_fd, at, size < SSIZE_MAX ? (size_t)size : SSIZE_MAX);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                at = (char *)at + n;
                size -= (uint64_t)n;
        }
        return 0;
}

/* Interrupted also where no signal was sent: by work that the kernel has for this thread. */
static int allocate(int fd, int mode, uint64_t offset, uint64_t size) {
        int r;

        do
                r = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
        while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
}

int huge_fill(const struct huge *huge, int fd, void *map, uint64_t offset, uint64_t *ret_addr) {
        char *at = (char *)map + offset;
        uint64_t addr;
        int r;

        r = allocate(fd, 0, offset, huge->page_size);
        if (r < 0)
                return r;
        /* The file has its page; one zero written to a zeroed page brings it into the page tables as well. */
        r = huge_zero(huge, at, 1);
        if (r == 0)
                r = pagemap_read(huge->pagemap_fd, at, &addr);
        if (r == 0 && addr % huge->page_size)
                r = -EIO;
        if (r < 0) {
                huge_punch(huge, fd, offset, huge->page_size);
                return r;
        }
        *ret_addr = addr;
        return 0;
}

int huge_punch(const struct huge *huge, int fd, uint64_t offset, uint64_t size) {
        return allocate(fd, FALLOC_FL_PUNCH_HOLE, offset, size);
}
