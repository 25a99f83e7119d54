#include "daemon/source/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/source/copy.h"

enum {
        SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
        /* Up to this size writing zeros is cheaper than giving pages back and faulting them anew. */
        WRITE_ZEROS_MAX = 64 * 1024,
};

int memfile_make(const char *name, uint64_t size) {
        int fd, r;

        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

int memfile_verify(int fd, uint64_t size, struct failure *failure) {
        struct stat st;
        int seals;

        if (fstat(fd, &st) < 0)
                return failure_set_errno(failure, REASON_source_unavailable, errno,
                                         "the file of a region of %" PRIu64 " bytes cannot be examined: %s", size,
                                         strerror(errno));
        seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || (seals & SEALS) != SEALS || (uint64_t)st.st_size != size)
                return failure_set_errno(failure, REASON_source_unavailable, EUCLEAN,
                                         "the file of a region has %jd bytes and seals 0x%x instead of %" PRIu64 " and 0x%x",
                                         (intmax_t)st.st_size, (unsigned)seals, size, SEALS);
        return 0;
}

void memfile_empty(int fd, uint64_t size) {
        while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size) < 0 && errno == EINTR)
                ;
}

static bool is_within(uint64_t file_size, uint64_t offset, uint64_t size) {
        return offset <= file_size && size <= file_size - offset;
}

int memfile_zero(int fd, uint64_t file_size, uint64_t offset, uint64_t size) {
        static const char zeros[WRITE_ZEROS_MAX];

        if (!is_within(file_size, offset, size))
                return -EINVAL;
        if (size <= sizeof(zeros))
                return copy_to_file(fd, offset, zeros, size);
        /* Whole pages are dropped and read as zero from then on, partial ones are cleared. */
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) < 0 ? -errno : 0;
}

int memfile_read(int fd, uint64_t file_size, uint64_t offset, void *buffer, uint64_t size) {
        return is_within(file_size, offset, size) ? copy_from_file(fd, offset, buffer, size) : -EINVAL;
}

int memfile_write(int fd, uint64_t file_size, uint64_t offset, const void *buffer, uint64_t size) {
        return is_within(file_size, offset, size) ? copy_to_file(fd, offset, buffer, size) : -EINVAL;
}

uint64_t memfiles_kept(struct kept *kept) {
        uint64_t total = 0;
        struct stat st;
        size_t i;

        for (i = 0; i < kept->n; i++) {
                kept->regions[i].bytes = fstat(kept->regions[i].fd, &st) == 0 ? (uint64_t)st.st_size : 0;
                total += kept->regions[i].bytes;
        }
        return total;
}
