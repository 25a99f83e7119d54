/* Copying between backings, of whatever sources. */
#ifndef DMAB_SOURCE_COPY_H
#define DMAB_SOURCE_COPY_H

#include "daemon/core/source.h"

/* A job of the kind SOURCE_COPY, by any worker. Its status, with a sentence. */
int source_copy(struct source_job *job);
/* The same of the kind SOURCE_ZERO. */
int source_zero(const struct source_ops *ops, struct source_job *job);

/* Read and write a file, all of it: 0 or -errno. */
int copy_from_file(int fd, uint64_t offset, void *buffer, uint64_t size);
int copy_to_file(int fd, uint64_t offset, const void *buffer, uint64_t size);

/* Write to a mapping whose pages others may take away at any time: never a signal, always an errno (-EFAULT). */
int copy_to_mapping(void *at, const void *buffer, uint64_t size);

#endif
