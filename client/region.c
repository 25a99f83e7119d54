#include "client/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "client/error.h"
#include "client/fork.h"
#include "client/params.h"
#include "client/result.h"
#include "client/session.h"
#include "client/window.h"

struct region {
        struct fork_watch watch; /* of one that was granted */
        struct memory *memory;
        struct region *next;
        uint64_t number;
        unsigned users;
        bool granted; /* by Xen, to this guest */
        bool stays;   /* also without users */
        bool absent;  /* in the child of a fork: nothing is there */
        void *address;
        size_t size, mapped; /* size: of it, where memory may lie */
        enum dmab_addressing addressing;
};

/* Where its memory comes from. */
struct backing {
        struct window_memory memory; /* file.fd -1: not there yet */
        size_t size, mapped, page_size;
        bool window;
        bool own; /* the file is to be closed */
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

        if (fstat(backing->memory.file.fd, &about))
                return error_set(errno, "cannot look at a region's memory: %s", strerrordesc_np(errno));
        if (about.st_size <= 0)
                return error_set(EPROTO, "region %llu came with an empty file", (unsigned long long)place->region);
        backing->size = backing->mapped = about.st_size;
        backing->page_size = about.st_blksize;
        return 0;
}

static void on_forked(struct fork_watch *watch) {
        struct region *region = (struct region *)watch;

        memory_fill(region->memory, region->address, region->mapped);
        region->absent = true;
}

/* What was granted has the guest as long as any process has it mapped: a child is not to be one of them. */
static int map_memory(struct region *region, const struct backing *backing) {
        int r;

        fork_hold();
        r = memory_map(region->memory, backing->memory.file.fd, backing->mapped, backing->page_size, &region->address);
        if (!r && region->granted) {
                fork_withhold(region->address, region->mapped);
                fork_watch_on(&region->watch, on_forked);
        }
        fork_release();
        return r;
}

static void unmap_memory(struct region *region) {
        fork_hold();
        if (!region->absent)
                memory_unmap(region->memory, region->address, region->mapped);
        fork_watch_off(&region->watch);
        fork_release();
}

/* With the session's lock held. */
static int map(struct dmab *dmab, const struct backing *backing, const struct region_place *place, struct region **ret) {
        struct region *region = calloc(1, sizeof(*region));
        int r;

        if (!region)
                return error_set(ENOMEM, "there is not enough memory");
        /* To look for a window again costs much. What was said of this one since it was listed is not known any more. */
        *region = (struct region){
                .memory = &dmab->memory, .next = dmab->regions.first, .number = place->region, .users = 1,
                .granted = backing->memory.granted,
                .stays = backing->window && (!backing->memory.granted || backing->memory.look >= dmab->regions.heeded),
                .size = backing->size, .mapped = backing->mapped, .addressing = place->addressing,
        };
        r = map_memory(region, backing);
        if (r) {
                free(region);
                return r;
        }
        dmab->regions.first = *ret = region;
        return 0;
}

/* With the session's lock held. Nobody uses it. */
static void end(struct dmab *dmab, struct region *region) {
        struct region **place = &dmab->regions.first;

        while (*place != region)
                place = &(*place)->next;
        *place = region->next;
        unmap_memory(region);
        free(region);
}

static int find_window(struct dmab *dmab, uint64_t number, struct backing *backing) {
        int r = window_open(dmab, number, &backing->memory);

        if (r)
                return r;
        backing->own = backing->window = true;
        backing->mapped = backing->memory.size;
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
                backing->memory.file.fd = reply.fds[0];
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
        struct backing backing = { .memory.file.fd = fd };
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
                fork_file_close(&backing.memory.file);
        if (r)
                return r;
        if (ret_mapped)
                *ret_mapped = mapped;
        *ret = region;
        return 0;
}

void region_release(struct dmab *dmab, struct region *region) {
        pthread_mutex_lock(&dmab->lock);
        if (!--region->users && !region->stays)
                end(dmab, region);
        pthread_mutex_unlock(&dmab->lock);
}

uint64_t regions_ask(struct dmab *dmab) {
        uint64_t look;

        pthread_mutex_lock(&dmab->lock);
        look = ++dmab->regions.asked;
        pthread_mutex_unlock(&dmab->lock);
        return look;
}

void regions_heed(struct dmab *dmab, uint64_t look, bool (*stays)(uint64_t region, const void *userdata), const void *userdata) {
        struct region *region, *next;

        pthread_mutex_lock(&dmab->lock);
        for (region = look < dmab->regions.heeded ? NULL : dmab->regions.first; region; region = next) {
                next = region->next;
                if (!region->granted)
                        continue;
                region->stays = stays(region->number, userdata);
                if (!region->stays && !region->users)
                        end(dmab, region);
        }
        if (look > dmab->regions.heeded)
                dmab->regions.heeded = look;
        pthread_mutex_unlock(&dmab->lock);
}

static bool none_stays(uint64_t region, const void *userdata) {
        return false;
}

void regions_session_lost(struct dmab *dmab) {
        regions_heed(dmab, UINT64_MAX, none_stays, NULL);
}

/* With the session's lock held. */
static bool has_granted(const struct dmab *dmab) {
        const struct region *region = dmab->regions.first;

        while (region && !region->granted)
                region = region->next;
        return region;
}

bool regions_are_granted(struct dmab *dmab) {
        bool are;

        pthread_mutex_lock(&dmab->lock);
        are = has_granted(dmab);
        pthread_mutex_unlock(&dmab->lock);
        return are;
}

bool regions_are_unheard_of(struct dmab *dmab) {
        bool are;

        pthread_mutex_lock(&dmab->lock);
        are = dmab->regions.heeded < dmab->regions.asked && has_granted(dmab);
        pthread_mutex_unlock(&dmab->lock);
        return are;
}

void regions_deinit(struct dmab *dmab) {
        while (dmab->regions.first)
                end(dmab, dmab->regions.first);
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
