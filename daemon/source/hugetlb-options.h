/* What the section of source hugetlb may say. */
#ifndef DMAB_SOURCE_HUGETLB_OPTIONS_H
#define DMAB_SOURCE_HUGETLB_OPTIONS_H

#include "daemon/core/source.h"

struct hugetlb_options {
        uint64_t page_size;
        uint64_t limit;   /* bytes, whole pages; UINT64_MAX: none */
        uint64_t reserve; /* bytes, whole pages, at most `limit` */
        uint64_t idle_ms;
        bool may_raise; /* enlarge the kernel's pool for growth; `limit` is then set */
};

/* The keys with a sentence each. */
extern const struct source_option hugetlb_options[];

int hugetlb_check_option(const char *key, const char *value, struct failure *failure);

/* All options together, defaults filled in. -EINVAL with a sentence. */
int hugetlb_read_options(const struct source_option *options, size_t n, struct hugetlb_options *ret,
                         struct failure *failure);

/* "2 MiB", for sentences. Returns text. */
const char *hugetlb_size_text(uint64_t size, char text[static 32]);

#endif
