#include "daemon/source/hugetlb-options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/source/option.h"

#define PAGE_SIZE_MIN (UINT64_C(64) << 10)
#define PAGE_SIZE_MAX (UINT64_C(16) << 30)
#define RESERVE_MAX (UINT64_C(1) << 52)

const struct source_option hugetlb_options[] = {
        { "page_size", "which huge pages: 2M, 1G or what else the machine has [2M]" },
        { "limit", "most bytes to hold [all that is free]" },
        { "reserve", "bytes to hold from the start and never give back; the kernel's pool is enlarged when needed [0]" },
        { "grow", "free: take only huge pages that are free; system: enlarge the kernel's pool, up to the limit [free]" },
        { "idle_ms", "give memory above the reserve back when it was unused for so long; 0: never [5000]" },
        { NULL, NULL },
};

const char *hugetlb_size_text(uint64_t size, char text[static 32]) {
        static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
        size_t unit = 0;

        while (size >= 1024 && size % 1024 == 0 && unit + 1 < sizeof(units) / sizeof(units[0])) {
                size /= 1024;
                unit++;
        }
        snprintf(text, 32, "%" PRIu64 " %s", size, units[unit]);
        return text;
}

static int read_page_size(const char *value, uint64_t *ret, struct failure *failure) {
        uint64_t size;
        int r;

        r = option_size("page_size", value, &size, failure);
        if (r < 0)
                return r;
        if (size < PAGE_SIZE_MIN || size > PAGE_SIZE_MAX || size & (size - 1))
                return failure_set(failure, REASON_bad_param,
                                   "page_size = %.40s: no machine has huge pages of this size",
                                   value);
        *ret = size;
        return 0;
}

static int read_option(struct hugetlb_options *options, const char *key, const char *value, struct failure *failure) {
        int r;

        if (strcmp(key, "page_size") == 0)
                return read_page_size(value, &options->page_size, failure);
        if (strcmp(key, "limit") == 0) {
                r = option_size(key, value, &options->limit, failure);
                if (r == 0 && options->limit == 0)
                        return failure_set(failure, REASON_bad_param, "limit = %.40s: at least one page is needed",
                                           value);
                return r;
        }
        if (strcmp(key, "reserve") == 0)
                return option_size(key, value, &options->reserve, failure);
        if (strcmp(key, "idle_ms") == 0)
                return option_number(key, value, &options->idle_ms, failure);
        if (strcmp(key, "grow") == 0) {
                if (strcmp(value, "free") != 0 && strcmp(value, "system") != 0)
                        return failure_set(failure, REASON_bad_param, "grow = %.40s: it is either free or system",
                                           value);
                options->may_raise = value[0] == 's';
                return 0;
        }
        return option_unknown("hugetlb", hugetlb_options, key, failure);
}

int hugetlb_check_option(const char *key, const char *value, struct failure *failure) {
        struct hugetlb_options scratch;

        return read_option(&scratch, key, value, failure);
}

int hugetlb_read_options(const struct source_option *options, size_t n, struct hugetlb_options *ret,
                         struct failure *failure) {
        struct hugetlb_options read = { .page_size = UINT64_C(2) << 20, .limit = UINT64_MAX, .idle_ms = 5000 };
        char size[32];
        size_t i;
        int r;

        for (i = 0; i < n; i++) {
                r = read_option(&read, options[i].key, options[i].value, failure);
                if (r < 0)
                        return r;
        }
        if (read.may_raise && read.limit == UINT64_MAX)
                return failure_set(failure, REASON_bad_param,
                                   "grow = system needs a limit, or it could take the whole machine");
        if (read.limit != UINT64_MAX)
                read.limit -= read.limit % read.page_size;
        if (read.limit == 0)
                return failure_set(failure, REASON_bad_param, "limit is less than one huge page of %s",
                                   hugetlb_size_text(read.page_size, size));
        if (read.reserve > RESERVE_MAX)
                return failure_set(failure, REASON_bad_param, "reserve is more than any machine has");
        if (read.reserve > read.limit)
                return failure_set(failure, REASON_bad_param, "reserve is more than the limit of %" PRIu64 " bytes",
                                   read.limit);
        if (read.reserve % read.page_size) /* at most the limit, which is a multiple */
                read.reserve += read.page_size - read.reserve % read.page_size;
        *ret = read;
        return 0;
}
