#include "daemon/source/xen-options.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/source/option.h"
#include "daemon/source/xen-domain.h"

#define RESERVE_MAX (UINT64_C(1) << 52)

const struct source_option xen_options[] = {
        { "limit", "most bytes to hold [all that Xen has free, as far as domains and grant_frames allow for it: 7.8 GiB]" },
        { "reserve", "bytes to hold from the start and never give back [0]" },
        { "low", "bytes of the reserve that lie below 4 GiB, as far as Xen has any there [0]" },
        { "idle_ms", "give memory above the reserve back when it was unused for so long; 0: never [5000]" },
        { "domains", "most domains to make for memory; a large piece is put into a new one rather than into what is left of "
        "others, until there are so many [64]" },
        { "grant_frames", "pages of the grant table of each, which limit its memory to 2 MiB for every page but one: with 64 it "
        "is 126 MiB, of which 64 domains have 7.8 GiB; Xen's command line must allow for more (gnttab_max_frames=) [64]" },
        { NULL, NULL },
};

static int read_count(const char *key, const char *value, uint64_t most, uint64_t *ret, struct failure *failure) {
        uint64_t number;
        int r = option_number(key, value, &number, failure);

        if (r < 0)
                return r;
        if (number < 1 || number > most)
                return failure_set(failure, REASON_bad_param, "%s = %.40s: it is between 1 and %" PRIu64, key, value, most);
        *ret = number;
        return 0;
}

static int read_option(struct xen_options *options, const char *key, const char *value, struct failure *failure) {
        int r;

        if (strcmp(key, "limit") == 0) {
                r = option_size(key, value, &options->limit, failure);
                if (r == 0 && options->limit < XEN_GRAIN)
                        return failure_set(failure, REASON_bad_param, "limit = %.40s: at least 2M is needed", value);
                return r;
        }
        if (strcmp(key, "reserve") == 0)
                return option_size(key, value, &options->reserve, failure);
        if (strcmp(key, "low") == 0)
                return option_size(key, value, &options->low, failure);
        if (strcmp(key, "idle_ms") == 0)
                return option_number(key, value, &options->idle_ms, failure);
        if (strcmp(key, "domains") == 0)
                return read_count(key, value, XEN_DOMAINS_MAX, &options->domains, failure);
        if (strcmp(key, "grant_frames") == 0) {
                r = read_count(key, value, XEN_GRANT_FRAMES_MAX, &options->grant_frames, failure);
                if (r == 0 && options->grant_frames < 2)
                        return failure_set(failure, REASON_bad_param, "grant_frames = %.40s: at least 2 are needed", value);
                return r;
        }
        return option_unknown("xen", xen_options, key, failure);
}

int xen_check_option(const char *key, const char *value, struct failure *failure) {
        struct xen_options scratch;

        return read_option(&scratch, key, value, failure);
}

static uint64_t whole_grains(uint64_t size) {
        return (size + XEN_GRAIN - 1) / XEN_GRAIN * XEN_GRAIN;
}

/* All that the domains can have. */
static uint64_t capacity(const struct xen_options *options) {
        const struct xen_domain domain = { .grant_frames = (uint32_t)options->grant_frames };

        return options->domains * (xen_domain_capacity(&domain) * XEN_PAGE / XEN_GRAIN * XEN_GRAIN);
}

int xen_read_options(const struct source_option *options, size_t n, struct xen_options *ret, struct failure *failure) {
        struct xen_options read = { .limit = UINT64_MAX, .idle_ms = 5000, .domains = 64, .grant_frames = 64 };
        int r = 0;

        for (size_t i = 0; i < n && r == 0; i++)
                r = read_option(&read, options[i].key, options[i].value, failure);
        if (r < 0)
                return r;
        if (read.limit != UINT64_MAX)
                read.limit -= read.limit % XEN_GRAIN;
        if (read.reserve > RESERVE_MAX)
                return failure_set(failure, REASON_bad_param, "reserve is more than any machine has");
        if (read.reserve > read.limit)
                return failure_set(failure, REASON_bad_param, "reserve is more than the limit of %" PRIu64 " bytes",
                                   read.limit);
        if (read.reserve > capacity(&read))
                return failure_set(failure, REASON_bad_param, "reserve is more than the %" PRIu64 " bytes that so many domains "
                                   "with such grant tables have: raise domains or grant_frames", capacity(&read));
        if (read.low > read.reserve)
                return failure_set(failure, REASON_bad_param, "low is more than the reserve of %" PRIu64 " bytes, of "
                                   "which it is a part", read.reserve);
        read.reserve = whole_grains(read.reserve);
        read.low = whole_grains(read.low);
        *ret = read;
        return 0;
}
