#include "client/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "client/error.h"
#include "client/params.h"
#include "client/result.h"
#include "client/session.h"

struct region {
        struct region *next;
        uint64_t number;
        unsigned users;
        void *address;
        size_t size;
};

/* With the session's lock held. */
static struct region *find(struct dmab *dmab, uint64_t number) {
        struct region *region = dmab->regions.first;

        while (region && region->number != number)
                region = region->next;
        if (region)
                region->users++;
        return region;
}

/* The file must be as long as the daemon says: a touch behind its end would kill the process. */
static int map_file(int fd, uint64_t size, void **ret) {
        struct stat about;
        void *address;

        if (fstat(fd, &about))
                return error_set(errno, "cannot look at a region's memory: %s", strerrordesc_np(errno));
        if (!size || size > SIZE_MAX || (uint64_t)about.st_size < size)
                return error_set(EPROTO, "a region of %llu bytes came with a file of %lld", (unsigned long long)size,
                                 (long long)about.st_size);
        address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (address == MAP_FAILED)
                return error_set(errno, "cannot map a region of %llu bytes: %s", (unsigned long long)size,
                                 strerrordesc_np(errno));
        *ret = address;
        return 0;
}

static int fetch(struct dmab *dmab, uint64_t number, struct region **ret) {
        struct link_reply reply = { 0 };
        struct params params;
        struct region *region;
        uint64_t size;
        int r;

        params_begin(&params);
        params_uint(&params, "region", number);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "region.get", .params = params.text, .repeatable = true },
                      &reply, NULL);
        if (r)
                return r;
        region = calloc(1, sizeof(*region));
        if (!region)
                r = error_set(ENOMEM, "there is not enough memory");
        else if (reply.n_fds != 1)
                r = error_set(EPROTO, "the daemon did not pass the memory of region %llu", (unsigned long long)number);
        else
                r = result_uint(reply.result, "size", &size);
        if (!r)
                r = map_file(reply.fds[0], size, &region->address);
        link_reply_release(&reply);
        if (r) {
                free(region);
                return r;
        }
        region->number = number;
        region->size = size;
        region->users = 1;
        *ret = region;
        return 0;
}

int region_use(struct dmab *dmab, uint64_t number, struct region **ret) {
        struct region *region, *fetched;
        int r;

        pthread_mutex_lock(&dmab->lock);
        region = find(dmab, number);
        pthread_mutex_unlock(&dmab->lock);
        if (!region) {
                r = fetch(dmab, number, &fetched);
                if (r)
                        return r;
                /* Another thread may have been faster: its mapping is the one that pointers may lie in already. */
                pthread_mutex_lock(&dmab->lock);
                region = find(dmab, number);
                if (!region) {
                        fetched->next = dmab->regions.first;
                        dmab->regions.first = region = fetched;
                        fetched = NULL;
                }
                pthread_mutex_unlock(&dmab->lock);
                if (fetched) {
                        munmap(fetched->address, fetched->size);
                        free(fetched);
                }
        }
        *ret = region;
        return 0;
}

void region_release(struct dmab *dmab, struct region *region) {
        struct region **place = &dmab->regions.first;

        pthread_mutex_lock(&dmab->lock);
        if (--region->users) {
                pthread_mutex_unlock(&dmab->lock);
                return;
        }
        while (*place != region)
                place = &(*place)->next;
        *place = region->next;
        pthread_mutex_unlock(&dmab->lock);
        munmap(region->address, region->size);
        free(region);
}

void *region_address(const struct region *region, uint64_t offset, uint64_t size) {
        if (offset > region->size || size > region->size - offset)
                return NULL;
        return (char *)region->address + offset;
}
