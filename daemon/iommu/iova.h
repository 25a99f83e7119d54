/* I/O virtual addresses of one address space: which are in use, and which may be used again only later. */
#ifndef DMAB_IOMMU_IOVA_H
#define DMAB_IOMMU_IOVA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/translator.h"

struct iova;

int iova_new(struct iova **ret); /* -ENOMEM */
struct iova *iova_free(struct iova *iova); /* returns NULL; NULL is fine */

/* Addresses from first to last may be used. The lowest 64 KiB never are: 0 is no address, and what is near it is one by
 * mistake. -EINVAL, -EEXIST, -ENOMEM. */
int iova_add(struct iova *iova, uint64_t first, uint64_t last);

/* An address for the run, as high as its limit allows, so that low ones are left to those that need them; and lined up for
 * large pages of the IOMMU where the memory is. What it takes to give it back is made sure of. -ENOSPC: there is none;
 * -EINVAL; -ENOMEM. */
int iova_take(struct iova *iova, const struct translator_run *run, uint64_t *ret);
/* This one. -EBUSY, -ENOENT: it is in use, or none of this space; -ENOMEM. */
int iova_take_at(struct iova *iova, uint64_t addr, uint64_t size);
/* Nothing is there any more, but it is in use until iova_settle(). Never fails. */
void iova_retire(struct iova *iova, uint64_t addr);
void iova_settle(struct iova *iova);
/* At once: nobody has heard of it. */
void iova_give_back(struct iova *iova, uint64_t addr);

/* Whether an address at or below limit exists, in use or not. */
bool iova_reaches(const struct iova *iova, uint64_t limit);
/* Call visit() with every run that is not in use. */
void iova_visit_free(const struct iova *iova, void (*visit)(void *userdata, uint64_t addr, uint64_t size), void *userdata);

struct iova_usage {
        uint64_t bytes, free_bytes;
        size_t n_used; /* mappings */
};
void iova_usage(const struct iova *iova, struct iova_usage *ret);

#endif
