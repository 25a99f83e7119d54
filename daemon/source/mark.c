#include "daemon/source/mark.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* How often a word that somebody writes to meanwhile is compared. */
enum { COMPARE_ROUNDS = 64 };

/* What a page begins with. The page's number makes each one different, so that a page is known to be the right one of the
 * buffer, and not only one of it. */
struct mark {
        uint64_t random[2];
        uint64_t page, pages;
};

/* The marks as this process keeps them. Its own memory may be searched as well, so none of them may lie at the beginning
 * of a page. */
struct marks {
        _Alignas(256) uint64_t lead[8];
        struct mark first, second, got;
};

static int marks_new(uint64_t pages, struct marks *ret) {
        uint64_t random[4];
        ssize_t n;

        do
                n = getrandom(random, sizeof(random), 0);
        while (n < 0 && errno == EINTR);
        if (n != sizeof(random))
                return n < 0 ? -errno : -EIO;
        ret->first = (struct mark){ .random = { random[0], random[1] }, .pages = pages };
        ret->second = (struct mark){ .random = { random[2], random[3] }, .pages = pages };
        return 0;
}

static void mark_write(struct mark *mark, void *map, size_t page_size) {
        for (mark->page = 0; mark->page < mark->pages; mark->page++)
                memcpy((char *)map + mark->page * page_size, mark, sizeof(*mark));
}

/* 1: the page at addr begins with this mark. 0: it does not. */
static int mark_is_at(const struct mark_search *search, const struct mark *mark, struct mark *got, uint64_t addr) {
        int r;

        r = search->read(search->userdata, addr, got, sizeof(*got));
        return r < 0 ? r : memcmp(got, mark, sizeof(*got)) == 0;
}

static int fail_read(struct failure *failure, int error, uint64_t addr) {
        return failure_set_errno(failure, REASON_source_unavailable, -error,
                                 "physical memory at 0x%" PRIx64 " cannot be read: %s", addr, strerror(-error));
}

/* The search goes on after a find, since a second one would mean that neither can be trusted. What was read last is then
 * replaced, here and in the kernel's buffer, because that is memory too and might be searched next. */
static int search_first(const struct mark_search *search, struct marks *marks, uint64_t *ret_addr,
                        struct failure *failure) {
        uint64_t addr, offset, found = 0;
        size_t i, n = 0;
        int r;

        for (i = 0; i < search->n_ranges; i++) {
                for (offset = 0; offset < search->ranges[i].size; offset += search->page_size) {
                        addr = search->ranges[i].addr + offset;
                        if (addr > search->limit)
                                break;
                        r = mark_is_at(search, &marks->first, &marks->got, addr);
                        if (r == -ENXIO)
                                continue;
                        if (r < 0)
                                return fail_read(failure, r, addr);
                        if (r == 0)
                                continue;
                        search->read(search->userdata, addr + sizeof(struct mark), &marks->got, sizeof(struct mark));
                        n += n == 0 || addr != found;
                        found = addr;
                }
        }
        if (n > 1)
                return failure_set_errno(failure, REASON_source_unavailable, ENOTUNIQ,
                                         "the mark of a new buffer is in physical memory %zu times, so its address is not "
                                         "certain", n);
        if (n == 0)
                return -ENXIO;
        *ret_addr = found;
        return 0;
}

static bool ranges_go_beyond(const struct mark_search *search) {
        size_t i;

        for (i = 0; i < search->n_ranges; i++)
                if (search->ranges[i].size > 0 && search->ranges[i].addr + search->ranges[i].size - 1 > search->limit)
                        return true;
        return false;
}

static int fail_nowhere(const struct mark_search *search, struct failure *failure) {
        if (ranges_go_beyond(search)) {
                failure_set_errno(failure, REASON_mask, ERANGE, "the new buffer does not lie at or below 0x%" PRIx64,
                                  search->limit);
                failure_add_hex(failure, "mask", search->limit);
                return -ERANGE;
        }
        return failure_set_errno(failure, REASON_source_unavailable, ENXIO,
                                 "the new buffer is nowhere in the physical memory that was searched");
}

/* `error` when a page does not begin with its mark. */
static int check_all(const struct mark_search *search, struct mark *mark, struct mark *got, uint64_t addr, int error,
                     struct failure *failure) {
        int r;

        for (mark->page = 0; mark->page < mark->pages; mark->page++) {
                r = mark_is_at(search, mark, got, addr + mark->page * search->page_size);
                if (r == 1)
                        continue;
                if (r < 0 && r != -ENXIO)
                        return fail_read(failure, r, addr + mark->page * search->page_size);
                return failure_set_errno(failure, REASON_source_unavailable, error,
                                         "page %" PRIu64 " of the new buffer, found at 0x%" PRIx64 ", %s", mark->page, addr,
                                         error == EXDEV ? "does not follow the one before it: the memory is not contiguous"
                                                        : "does not change there when it is written");
        }
        return 0;
}

int mark_locate(const struct mark_search *search, void *map, uint64_t size, uint64_t *ret_addr,
                struct failure *failure) {
        struct marks marks;
        uint64_t addr = 0;
        int r;

        r = marks_new(size / search->page_size, &marks);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r, "the kernel gives no random numbers: %s",
                                         strerror(-r));
        mark_write(&marks.first, map, search->page_size);
        marks.first.page = 0;
        r = search_first(search, &marks, &addr, failure);
        if (r == -ENXIO || (r == 0 && size - 1 > search->limit - addr))
                return fail_nowhere(search, failure);
        if (r < 0)
                return r;
        r = check_all(search, &marks.first, &marks.got, addr, EXDEV, failure);
        if (r < 0)
                return r;
        mark_write(&marks.second, map, search->page_size);
        r = check_all(search, &marks.second, &marks.got, addr, ESTALE, failure);
        if (r < 0)
                return r;
        *ret_addr = addr;
        return 0;
}

/* ---- comparing ---- */

/* What is being written tells nothing. What stays the same in the mapping, and is something else in physical memory, again
 * and again, does. */
static int compare_word(mark_read_fn read, void *userdata, const volatile uint64_t *at, uint64_t addr) {
        uint64_t before, after, physical;
        int r, round, differed = 0;

        for (round = 0; round < COMPARE_ROUNDS; round++) {
                before = *at;
                r = read(userdata, addr, &physical, sizeof(physical));
                if (r < 0)
                        return r;
                after = *at;
                if (physical == before || physical == after)
                        return 0;
                differed += before == after;
        }
        return differed == COMPARE_ROUNDS ? -EUCLEAN : 0;
}

static int compare_page(mark_read_fn read, void *userdata, const char *map, uint64_t addr, size_t size, char *buffer) {
        size_t offset;
        int r;

        r = read(userdata, addr, buffer, size);
        if (r < 0 || memcmp(map, buffer, size) == 0)
                return r;
        for (offset = 0; offset < size && r == 0; offset += sizeof(uint64_t))
                if (memcmp(map + offset, buffer + offset, sizeof(uint64_t)) != 0)
                        r = compare_word(read, userdata, (const volatile uint64_t *)(map + offset), addr + offset);
        return r;
}

int mark_compare(mark_read_fn read, void *userdata, const void *map, uint64_t addr, uint64_t size, size_t page_size,
                 uint64_t *ret_offset) {
        char *buffer = malloc(page_size);
        uint64_t offset;
        int r = buffer ? 0 : -ENOMEM;

        *ret_offset = 0;
        for (offset = 0; offset < size && r == 0; offset += page_size) {
                *ret_offset = offset;
                r = compare_page(read, userdata, (const char *)map + offset, addr + offset, page_size, buffer);
        }
        free(buffer);
        return r;
}
