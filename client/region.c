#include "client/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
        enum dmab_addressing addressing;
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

/* The file is the region and nothing else, sealed against any change of its size. With the session's lock held. */
static int map_file(struct dmab *dmab, int fd, const struct region_place *place, struct region **ret) {
        struct region *region;
        struct stat about;
        void *address;
        int r;

        if (fstat(fd, &about))
                return error_set(errno, "cannot look at a region's memory: %s", strerrordesc_np(errno));
        if (about.st_size <= 0)
                return error_set(EPROTO, "region %llu came with an empty file", (unsigned long long)place->region);
        region = calloc(1, sizeof(*region));
        if (!region)
                return error_set(ENOMEM, "there is not enough memory");
        r = memory_map(&dmab->memory, fd, about.st_size, about.st_blksize, &address);
        if (r) {
                free(region);
                return r;
        }
        *region = (struct region){
                .next = dmab->regions.first, .number = place->region, .users = 1, .address = address,
                .size = about.st_size, .addressing = place->addressing,
        };
        dmab->regions.first = *ret = region;
        return 0;
}

/* Ask for the memory of a region: *ret_fd is the caller's. */
static int fetch(struct dmab *dmab, uint64_t number, int *ret_fd) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        params_begin(&params);
        params_uint(&params, "region", number);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "region.get", .params = params.text, .repeat = LINK_AGAIN },
                      &reply);
        if (!r && reply.n_fds != 1)
                r = error_set(EPROTO, "the daemon did not pass the memory of region %llu", (unsigned long long)number);
        if (!r) {
                *ret_fd = reply.fds[0];
                reply.n_fds = 0;
        }
        link_reply_release(&reply);
        return r;
}

int region_read_place(json_t *result, struct region_place *ret) {
        const char *addressing = json_string_value(json_object_get(result, "addressing"));
        int r = result_uint(result, "region", &ret->region);

        if (!r)
                r = result_uint(result, "offset", &ret->offset);
        if (!r)
                r = result_hex(result, "dma_addr", &ret->dma_addr);
        /* What is not said to be real is not. */
        ret->addressing =
                addressing && !strcmp(addressing, "machine") ? DMAB_ADDRESSING_MACHINE : DMAB_ADDRESSING_SIMULATED;
        return r;
}

int region_use(struct dmab *dmab, const struct region_place *place, int fd, struct region **ret, bool *ret_mapped) {
        struct region *region;
        bool mapped = false;
        int r = 0, own = -1;

        pthread_mutex_lock(&dmab->lock);
        region = find(dmab, place->region);
        if (!region && fd < 0) {
                pthread_mutex_unlock(&dmab->lock);
                r = fetch(dmab, place->region, &own);
                if (r)
                        return r;
                fd = own;
                pthread_mutex_lock(&dmab->lock);
                /* Another thread may have been faster. */
                region = find(dmab, place->region);
        }
        if (!region) {
                r = map_file(dmab, fd, place, &region);
                mapped = !r;
        }
        pthread_mutex_unlock(&dmab->lock);
        if (own >= 0)
                close(own);
        if (r)
                return r;
        if (ret_mapped)
                *ret_mapped = mapped;
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
        memory_unmap(&dmab->memory, region->address, region->size);
        pthread_mutex_unlock(&dmab->lock);
        free(region);
}

void *region_address(const struct region *region, uint64_t offset, uint64_t size) {
        if (offset > region->size || size > region->size - offset)
                return NULL;
        return (char *)region->address + offset;
}

enum dmab_addressing region_addressing(const struct region *region) {
        return region->addressing;
}

enum dmab_addressing region_addressing_at(struct dmab *dmab, const void *vaddr) {
        enum dmab_addressing addressing = 0;

        pthread_mutex_lock(&dmab->lock);
        for (const struct region *region = dmab->regions.first; region && !addressing; region = region->next)
                if ((uintptr_t)vaddr - (uintptr_t)region->address < region->size)
                        addressing = region->addressing;
        pthread_mutex_unlock(&dmab->lock);
        return addressing;
}
