#include "daemon/source/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 20 };

int copy_from_file(int fd, uint64_t offset, void *buffer, uint64_t size) {
        ssize_t n;

        while (size > 0) {
                n = pread(fd, buffer, (size_t)size, (off_t)offset);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                buffer = (char *)buffer + n;
                offset += (uint64_t)n;
                size -= (uint64_t)n;
        }
        return 0;
}

int copy_to_file(int fd, uint64_t offset, const void *buffer, uint64_t size) {
        ssize_t n;

        while (size > 0) {
                n = pwrite(fd, buffer, (size_t)size, (off_t)offset);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                buffer = (const char *)buffer + n;
                offset += (uint64_t)n;
                size -= (uint64_t)n;
        }
        return 0;
}

/* What a pipe holds is read into the mapping by the kernel, which answers where a store would be a signal. */
static int through_pipe(const int pipe_fds[2], char *at, const char *from, uint64_t size) {
        ssize_t in, out;

        while (size > 0) {
                in = write(pipe_fds[1], from, (size_t)size);
                if (in < 0 && errno == EINTR)
                        continue;
                if (in <= 0)
                        return in < 0 ? -errno : -EIO;
                from += in;
                size -= (uint64_t)in;
                while (in > 0) {
                        out = read(pipe_fds[0], at, (size_t)in);
                        if (out < 0 && errno == EINTR)
                                continue;
                        if (out <= 0)
                                return out < 0 ? -errno : -EIO;
                        at += out;
                        in -= out;
                }
        }
        return 0;
}

int copy_to_mapping(void *at, const void *buffer, uint64_t size) {
        int fds[2], r;

        /* As much at a time as it has room for. */
        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        r = through_pipe(fds, at, buffer, size);
        close(fds[0]);
        close(fds[1]);
        return r;
}

static int copy(const struct source_job *job, void *buffer) {
        uint64_t done, size;
        int r = 0;

        for (done = 0; done < job->size && r == 0; done += size) {
                size = job->size - done < PIECE ? job->size - done : PIECE;
                r = job->from_ops->backing_read(job->from, job->from_offset + done, buffer, size);
                if (r == 0)
                        r = job->to_ops->backing_write(job->backing, job->offset + done, buffer, size);
        }
        return r;
}

int source_zero(const struct source_ops *ops, struct source_job *job) {
        int r = ops->backing_zero(job->backing, job->offset, job->size);

        if (r < 0)
                failure_set_errno(job->failure, REASON_source_unavailable, -r,
                                  "%" PRIu64 " bytes of a region cannot be zeroed: %s", job->size, strerror(-r));
        return r;
}

int source_copy(struct source_job *job) {
        void *buffer = malloc(PIECE);
        int r = buffer ? copy(job, buffer) : -ENOMEM;

        free(buffer);
        if (r < 0)
                failure_set_errno(job->failure, REASON_source_unavailable, -r,
                                  "%" PRIu64 " bytes cannot be copied from one region to another: %s", job->size, strerror(-r));
        return r;
}
