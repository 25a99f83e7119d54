/* The stash's books against a kernel that moves pages behind its back, which the real one does too rarely for a test:
 * what daemon/source/huge.h, pagemap.h and numa.h promise is played here by a small table of frames. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/numa.h"
#include "daemon/source/pagemap.h"
#include "daemon/source/stash.h"

#define PAGE UINT64_C(4096)
#define FIRST_FRAME UINT64_C(0x100000)

enum {
        N_SLOTS = 48,
        N_FRAMES = 60,
        N_STEPS = 200000,
        NO_SLOT = -1,
};

static char *map;
static int slot_of_frame[N_FRAMES];
static int frame_of_slot[N_SLOTS];

/* Pairs that touch, further and further apart: addresses in a row would never collide in the index. */
static uint64_t addr_of(int frame) {
        uint64_t pair = (uint64_t)frame / 2;

        return FIRST_FRAME + (pair * pair * 37 + (uint64_t)frame % 2) * PAGE;
}

static int frame_at(uint64_t addr) {
        int frame;

        for (frame = 0; frame < N_FRAMES; frame++)
                if (addr_of(frame) == addr)
                        return frame;
        fail_msg("no frame is at 0x%" PRIx64, addr);
        return -1;
}

static void kernel_reset(void) {
        size_t i;

        for (i = 0; i < N_FRAMES; i++)
                slot_of_frame[i] = NO_SLOT;
        for (i = 0; i < N_SLOTS; i++)
                frame_of_slot[i] = -1;
}

static void kernel_place(int slot, int frame) {
        frame_of_slot[slot] = frame;
        slot_of_frame[frame] = slot;
}

/* Give a slot another frame; where that is in use, the two change places. */
static void kernel_move(int slot, int frame) {
        int other = slot_of_frame[frame], old = frame_of_slot[slot];

        slot_of_frame[old] = NO_SLOT;
        if (other != NO_SLOT)
                kernel_place(other, old);
        kernel_place(slot, frame);
}

int huge_make_file(const struct huge *huge, const char *name, uint64_t size) {
        return memfd_create(name, MFD_CLOEXEC);
}

int huge_map(int fd, uint64_t size, void **ret) {
        map = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED)
                return -errno;
        *ret = map;
        return 0;
}

int huge_fill(const struct huge *huge, int fd, void *at, uint64_t offset, uint64_t *ret_addr) {
        int slot = (int)(offset / PAGE), frame = rand() % N_FRAMES, tries;

        assert_int_equal(frame_of_slot[slot], -1);
        for (tries = 0; tries < N_FRAMES && slot_of_frame[frame] != NO_SLOT; tries++)
                frame = (frame + 1) % N_FRAMES;
        if (slot_of_frame[frame] != NO_SLOT)
                return -ENOSPC;
        kernel_place(slot, frame);
        *ret_addr = addr_of(frame);
        return 0;
}

int huge_punch(const struct huge *huge, int fd, uint64_t offset, uint64_t size) {
        int slot = (int)(offset / PAGE);

        assert_int_equal(size, PAGE);
        assert_int_not_equal(frame_of_slot[slot], -1);
        slot_of_frame[frame_of_slot[slot]] = NO_SLOT;
        frame_of_slot[slot] = -1;
        return 0;
}

int huge_zero(const struct huge *huge, void *at, uint64_t size) {
        return 0;
}

int pagemap_read(int fd, const void *at, uint64_t *ret_addr) {
        int slot = (int)((uint64_t)((const char *)at - map) / PAGE);

        if (frame_of_slot[slot] < 0)
                return -ENOENT;
        *ret_addr = addr_of(frame_of_slot[slot]);
        return 0;
}

int numa_node_of(void *at) {
        return 0;
}

/* What the core knows: true where it believes that it has the frame in stock. */
struct core {
        struct stash *stash;
        bool has[N_FRAMES];
};

/* An arrival of what is there already is ignored, as the core does. */
static void core_listen(struct core *core) {
        struct source_job job = {};
        uint64_t addr;
        size_t i;

        stash_tell(core->stash, &job);
        for (i = 0; i < job.n_arrived; i++) {
                assert_true(i == 0 || job.arrived[i - 1].addr + job.arrived[i - 1].size < job.arrived[i].addr);
                for (addr = job.arrived[i].addr; addr < job.arrived[i].addr + job.arrived[i].size; addr += PAGE)
                        core->has[frame_at(addr)] = true;
        }
        source_job_deinit(&job);
}

static int core_pick(const struct core *core) {
        int frame = rand() % N_FRAMES, tries;

        for (tries = 0; tries < N_FRAMES; tries++, frame = (frame + 1) % N_FRAMES)
                if (core->has[frame])
                        return frame;
        return -1;
}

/* As a carve does: out of the core's books, looked at, and only then dropped. */
static void core_drop(struct core *core) {
        int frame = core_pick(core);
        uint64_t now;

        if (frame < 0)
                return;
        core->has[frame] = false;
        if (stash_check(core->stash, addr_of(frame), &now) == 0)
                assert_int_equal(stash_drop(core->stash, addr_of(frame)), 0);
        core_listen(core);
}

static void move_any(void) {
        int slot = rand() % N_SLOTS;

        if (frame_of_slot[slot] >= 0)
                kernel_move(slot, rand() % N_FRAMES);
}

/* The core looks at every page that it believes to have, until it believes the truth. */
static void core_settle(struct core *core) {
        bool is_stale = true;
        uint64_t now;
        int frame;

        while (is_stale) {
                is_stale = false;
                for (frame = 0; frame < N_FRAMES; frame++)
                        if (core->has[frame] && stash_check(core->stash, addr_of(frame), &now) < 0) {
                                core->has[frame] = false;
                                is_stale = true;
                        }
                core_listen(core);
        }
        for (frame = 0; frame < N_FRAMES; frame++)
                assert_int_equal(core->has[frame], slot_of_frame[frame] != NO_SLOT);
}

static unsigned char marks[N_SLOTS];

static struct stash *stash_make(void) {
        static const struct huge huge = { .page_size = PAGE, .pagemap_fd = -1, .zero_fd = -1 };
        struct stash *stash;

        kernel_reset();
        assert_int_equal(stash_new(&huge, N_SLOTS, marks, -1, &stash), 0);
        return stash;
}

static void test_pages_that_move_are_neither_lost_nor_counted_twice(void **state) {
        struct core core = { .stash = stash_make() };
        unsigned step;
        int frame;

        srand(1);
        for (step = 0; step < N_STEPS; step++) {
                switch (rand() % 8) {
                case 0:
                case 1:
                case 2:
                        stash_fill(core.stash, NULL);
                        break;
                case 3:
                case 4:
                        core_drop(&core);
                        break;
                case 5:
                        move_any();
                        break;
                case 6:
                        core_listen(&core);
                        break;
                case 7:
                        if (step % 16 == 0)
                                core_settle(&core);
                        break;
                }
                if (step % 4096 == 0) {
                        core_settle(&core);
                        while (stash_count(core.stash) > 0)
                                core_drop(&core);
                        for (frame = 0; frame < N_FRAMES; frame++)
                                assert_int_equal(slot_of_frame[frame], NO_SLOT);
                }
        }
        stash_free(core.stash);
}

static void test_a_full_stash_and_an_unknown_page_are_errors(void **state) {
        struct stash *stash = stash_make();
        uint64_t now;
        size_t i;

        assert_int_equal(stash_drop(stash, FIRST_FRAME), -ENOENT);
        assert_int_equal(stash_check(stash, FIRST_FRAME, &now), -ENOENT);
        assert_int_equal(stash_untell(stash, 0), -ENOENT);
        for (i = 0; i < N_SLOTS; i++)
                assert_int_equal(stash_fill(stash, NULL), 0);
        assert_int_equal(stash_fill(stash, NULL), -ENOSPC);
        assert_int_equal(stash_count(stash), N_SLOTS);
        stash_free(stash);
}

static void test_a_page_is_told_once_unless_it_is_made_untold(void **state) {
        struct source_job first = {}, second = {}, third = {};
        struct stash *stash = stash_make();
        uint64_t addr;

        assert_int_equal(stash_fill(stash, &addr), 0);
        stash_tell(stash, &first);
        assert_int_equal(first.n_arrived, 1);
        assert_int_equal(first.arrived[0].addr, addr);
        stash_tell(stash, &second);
        assert_int_equal(second.n_arrived, 0);
        assert_int_equal(stash_untell(stash, addr), 0);
        assert_int_equal(stash_untell(stash, addr), 0);
        stash_tell(stash, &third);
        assert_int_equal(third.n_arrived, 1);
        assert_int_equal(third.arrived[0].size, PAGE);
        source_job_deinit(&first);
        source_job_deinit(&third);
        stash_free(stash);
}

static void test_a_stash_that_was_left_is_found_again_though_pages_have_moved(void **state) {
        static const struct huge huge = { .page_size = PAGE, .pagemap_fd = -1, .zero_fd = -1 };
        struct core core = { .stash = stash_make() };
        uint64_t addr;
        size_t i;

        for (i = 0; i < 8; i++)
                assert_int_equal(stash_fill(core.stash, &addr), 0);
        assert_int_equal(stash_drop(core.stash, addr), 0);
        stash_free(core.stash);
        kernel_move(2, (frame_of_slot[2] + 1) % N_FRAMES);
        assert_int_equal(stash_new(&huge, N_SLOTS, marks, memfd_create("stock", MFD_CLOEXEC), &core.stash), 0);
        assert_int_equal(stash_count(core.stash), 7);
        core_listen(&core);
        core_settle(&core);
        for (i = 0; i < N_SLOTS - 7; i++)
                assert_int_equal(stash_fill(core.stash, NULL), 0);
        assert_int_equal(stash_fill(core.stash, NULL), -ENOSPC);
        stash_empty(core.stash);
        assert_int_equal(stash_count(core.stash), 0);
        for (i = 0; i < N_SLOTS; i++)
                assert_int_equal(marks[i], 0);
        stash_free(core.stash);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pages_that_move_are_neither_lost_nor_counted_twice),
                cmocka_unit_test(test_a_full_stash_and_an_unknown_page_are_errors),
                cmocka_unit_test(test_a_page_is_told_once_unless_it_is_made_untold),
                cmocka_unit_test(test_a_stash_that_was_left_is_found_again_though_pages_have_moved),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
