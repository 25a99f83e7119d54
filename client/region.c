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
#include "client/window.h"

struct region {
        struct region *next;
        uint64_t number;
        unsigned users;
        void *address;
        size_t size, mapped; /* size: of it, where memory may lie */
        enum dmab_addressing addressing;
};

/* Where its memory comes from. */
struct backing {
        int fd; /* -1: not there yet */
        size_t size, mapped, page_size;
        bool window;
        bool own; /* fd is to be closed */
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
static int measure_file(const struct region_place *place, struct backing *backing) {
        struct stat about;

        if (fstat(backing->fd, &about))
                return error_set(errno, "cannot look at a region's memory: %s", strerrordesc_np(errno));
        if (about.st_size <= 0)
                return error_set(EPROTO, "region %llu came with an empty file", (unsigned long long)place->region);
        backing->size = backing->mapped = about.st_size;
        backing->page_size = about.st_blksize;
        return 0;
}

/* With the session's lock held. */
static int map(struct dmab *dmab, const struct backing *backing, const struct region_place *place, struct region **ret) {
        struct region *region = calloc(1, sizeof(*region));
        void *address;
        int r;

        if (!region)
                return error_set(ENOMEM, "there is not enough memory");
        r = memory_map(&dmab->memory, backing->fd, backing->mapped, backing->page_size, &address);
        if (r) {
                free(region);
                return r;
        }
        /* The last user of a window is the table: to look for it again costs much. */
        *region = (struct region){
                .next = dmab->regions.first, .number = place->region, .users = backing->window ? 2 : 1, .address = address,
                .size = backing->size, .mapped = backing->mapped, .addressing = place->addressing,
        };
        dmab->regions.first = *ret = region;
        return 0;
}

static int find_window(struct dmab *dmab, uint64_t number, struct backing *backing) {
        int r = window_open(dmab, number, &backing->fd, &backing->mapped);

        if (r)
                return r;
        backing->own = backing->window = true;
        backing->size = backing->mapped - WINDOW_MARK_SIZE;
        return 0;
}

/* Ask for the memory of a region. */
static int fetch(struct dmab *dmab, uint64_t number, struct backing *backing) {
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        if (!link_takes_fds(dmab->link))
                return find_window(dmab, number, backing);
        params_begin(&params);
        params_uint(&params, "region", number);
        params_end(&params);
        r = link_call(dmab->link,
                      &(struct link_request){ .method = "region.get", .params = params.text, .repeat = LINK_AGAIN },
                      &reply);
        if (!r && reply.n_fds != 1)
                r = error_set(EPROTO, "the daemon did not pass the memory of region %llu", (unsigned long long)number);
        if (!r) {
                backing->fd = reply.fds[0];
                backing->own = true;
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
        struct backing backing = { .fd = fd };
        struct region *region;
        bool mapped = false;
        int r = 0;

        pthread_mutex_lock(&dmab->lock);
        region = find(dmab, place->region);
        if (!region && fd < 0) {
                pthread_mutex_unlock(&dmab->lock);
                r = fetch(dmab, place->region, &backing);
                if (r)
                        return r;
                pthread_mutex_lock(&dmab->lock);
                /* Another thread may have been faster. */
                region = find(dmab, place->region);
        }
        if (!region && !backing.window)
                r = measure_file(place, &backing);
        if (!region && !r) {
                r = map(dmab, &backing, place, &region);
                mapped = !r && !backing.window;
        }
        pthread_mutex_unlock(&dmab->lock);
        if (backing.own)
                close(backing.fd);
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
        memory_unmap(&dmab->memory, region->address, region->mapped);
        pthread_mutex_unlock(&dmab->lock);
        free(region);
}

void regions_deinit(struct dmab *dmab) {
        while (dmab->regions.first)
                region_release(dmab, dmab->regions.first);
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
