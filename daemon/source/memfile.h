/* Regions in ordinary memory, each a sealed memfd of its own, whose pages may lie anywhere. */
#ifndef DMAB_SOURCE_MEMFILE_H
#define DMAB_SOURCE_MEMFILE_H

#include <stdint.h>

#include "daemon/core/failure.h"
#include "daemon/source/kept.h"

/* A descriptor, the caller's to close, of `size` bytes of zeros, sealed against any change of size. -errno. */
int memfile_make(const char *name, uint64_t size);

/* Whether it is such a file, of this size. -EUCLEAN, -errno; with a sentence. */
int memfile_verify(int fd, uint64_t size, struct failure *failure);

/* Give its pages back, whoever has a descriptor of it; as far as that is possible. What is written there later is memory of the
 * writer's. */
void memfile_empty(int fd, uint64_t size);

/* Of a file of file_size bytes. -EINVAL: not within it; -errno. */
int memfile_zero(int fd, uint64_t file_size, uint64_t offset, uint64_t size);
int memfile_read(int fd, uint64_t file_size, uint64_t offset, void *buffer, uint64_t size);
int memfile_write(int fd, uint64_t file_size, uint64_t offset, const void *buffer, uint64_t size);

/* Note how large each kept file is; returns how large all are together. */
uint64_t memfiles_kept(struct kept *kept);

#endif
