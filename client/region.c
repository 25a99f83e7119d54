#include "client/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "client/error.h"
#include "client/params.h"
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

/* The file is the region and nothing else, sealed against any change of its size. */
static int map_file(int fd, uint64_t number, struct region **ret) {
        struct region *region;
        struct stat about;
        void *address;

        if (fstat(fd, &about))
                return error_set(errno, "cannot look at a region's memory: %s", strerrordesc_np(errno));
        if (about.st_size <= 0)
                return error_set(EPROTO, "region %llu came with an empty file", (unsigned long long)number);
        region = calloc(1, sizeof(*region));
        if (!region)
                return error_set(ENOMEM, "there is not enough memory");
        address = mmap(NULL, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (address == MAP_FAILED) {
                free(region);
                return error_set(errno, "cannot map a region of %lld bytes: %s", (long long)about.st_size,
                                 strerrordesc_np(errno));
        }
        *region = (struct region){ .number = number, .users = 1, .address = address, .size = about.st_size };
        *ret = region;
        return 0;
}

static int fetch(struct dmab *dmab, uint64_t number, struct region **ret) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        params_begin(&params);
        params_uint(&params, "region", number);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "region.get", .params = params.text, .repeatable = true },
                      &reply, NULL);
        if (!r && reply.n_fds != 1)
                r = error_set(EPROTO, "the daemon did not pass the memory of region %llu", (unsigned long long)number);
        if (!r)
                r = map_file(reply.fds[0], number, ret);
        link_reply_release(&reply);
        return r;
}

int region_use(struct dmab *dmab, uint64_t number, int fd, struct region **ret, bool *ret_mapped) {
        struct region *region, *mapped = NULL;
        int r;

        pthread_mutex_lock(&dmab->lock);
        region = find(dmab, number);
        pthread_mutex_unlock(&dmab->lock);
        if (!region) {
                r = fd >= 0 ? map_file(fd, number, &mapped) : fetch(dmab, number, &mapped);
                if (r)
                        return r;
                /* Another thread may have been faster: its mapping is the one that pointers may lie in already. */
                pthread_mutex_lock(&dmab->lock);
                region = find(dmab, number);
                if (!region) {
                        mapped->next = dmab->regions.first;
                        dmab->regions.first = region = mapped;
                }
                pthread_mutex_unlock(&dmab->lock);
        }
        if (ret_mapped)
                *ret_mapped = mapped;
        if (mapped && mapped != region) {
                munmap(mapped->address, mapped->size);
                free(mapped);
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
