/* Real memory: what the daemon says of machine addresses is what the kernel's page map says, read by the tests' own
 * reader through the client's own mapping; and the pages go back to where they came from. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/hugepages.h"
#include "tests/lib/pagemap.h"
#include "tests/rpc/ask.h"

#define MIB (UINT64_C(1) << 20)
#define PAGE UINT64_C(4096)
#define HUGE (2 * MIB)
#define CONFIG                                                                                          \
        "[daemon]\naccess = everyone\ngrace = 0\n[memory]\nregion_idle = 0\nemergency_permille = 0\n" \
        "[source hugetlb]\nidle_ms = 50\n"

enum { PAGES = 600, ALICE = 12345, BOB = 12346 };

static struct test_daemon *running;
static size_t used_at_start;
static pid_t writer; /* a child that writes to memory, see start_writer() */

struct block {
        uint64_t alloc, region, offset, size, machine_addr;
        int fd;
        unsigned char *memory;
};

static int begin_with(const char *config) {
        const struct test_daemon_options options = { .source = "hugetlb", .config = config, .open_directory = true };

        used_at_start = test_hugepages_used();
        return test_daemon_start(&options, &running);
}

static int begin(void **state) {
        return begin_with(CONFIG);
}

/* Of the free pages that the kernel happens to have, too few may lie side by side: the daemon may ask it for others. Tests that
 * do not need several in one piece ask for one page. */
static int begin_more(void **state) {
        return begin_with(CONFIG "grow = system\nlimit = 3G\n");
}

/* A single page: whoever comes next gets that of whoever was there before. */
static int begin_one(void **state) {
        return begin_with(CONFIG "limit = 2M\nreserve = 2M\n");
}

static int begin_few(void **state) {
        return begin_with(CONFIG "limit = 16M\nreserve = 16M\n");
}

static long long now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* The kernel lets go of pinned pages a moment after the last process that had them is gone, and tells nobody. */
static bool all_pages_return(void) {
        long long end = now_ms() + test_timeout_ms();

        while (test_hugepages_used() > used_at_start && now_ms() < end)
                sched_yield();
        if (test_hugepages_used() > used_at_start)
                print_error("%zu huge pages are in use, %zu were\n", test_hugepages_used(), used_at_start);
        return test_hugepages_used() <= used_at_start;
}

static void stop_writer(void) {
        if (writer > 0) {
                kill(writer, SIGKILL);
                waitpid(writer, NULL, 0);
        }
        writer = 0;
}

static int end(void **state) {
        stop_writer();
        return test_daemon_end(running) < 0 || !all_pages_return() ? -1 : 0;
}

/* ---- blocks ---- */

static void block_take(struct block *block, struct test_client *client, json_t *result) {
        assert_string_equal(json_string_value(json_object_get(result, "addressing")), "machine");
        block->alloc = ask_take_number(json_incref(result), "alloc");
        block->region = ask_take_number(json_incref(result), "region");
        block->offset = ask_take_number(json_incref(result), "offset");
        block->size = ask_take_number(json_incref(result), "size");
        block->machine_addr = ask_take_hex(json_incref(result), "machine_addr");
        assert_int_equal(ask_take_hex(json_incref(result), "dma_addr"), block->machine_addr);
        json_decref(result);
        block->fd = test_client_take_fd(client);
        assert_true(block->fd >= 0);
}

/* hugetlb files are mapped from one huge page to another, so the whole region is. */
static void block_map(struct block *block, uint64_t region_size) {
        unsigned char *region = mmap(NULL, region_size, PROT_READ | PROT_WRITE, MAP_SHARED, block->fd, 0);

        assert_ptr_not_equal(region, MAP_FAILED);
        block->memory = region + block->offset;
}

static uint64_t region_size(struct test_client *client, const struct block *block) {
        uint64_t size = ask_number(client, "size", "region.get", "{'region':%" PRIu64 "}", block->region);

        close(test_client_take_fd(client));
        return size;
}

static void block_alloc(struct block *block, struct test_client *client, uint64_t device, uint64_t size) {
        block_take(block, client, ask(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':%" PRIu64
                                      ",'align':4096,'fd':true,'wait_ms':10000}", device, size));
        block_map(block, region_size(client, block));
}

static void block_unmap(struct block *block, uint64_t size) {
        munmap(block->memory - block->offset, size);
        close(block->fd);
}

static void block_free(struct test_client *client, const struct block *block) {
        json_decref(ask(client, "coherent.free", "{'alloc':%" PRIu64 "}", block->alloc));
}

/* Each page on its own, by the client's own mapping. */
static void expect_where_it_is_said_to_be(const struct block *block) {
        for (uint64_t at = 0; at < block->size; at += PAGE) {
                uint64_t addr;

                *(volatile unsigned char *)(block->memory + at);
                addr = pagemap_machine_address(block->memory + at);
                if (addr != block->machine_addr + at)
                        fail_msg("the page at offset 0x%" PRIx64 " is at 0x%" PRIx64 ", not at 0x%" PRIx64, at, addr,
                                 block->machine_addr + at);
        }
}

/* In words: there is much of it. */
static void expect_all(const struct block *block, uint64_t word) {
        const uint64_t *words = (const uint64_t *)block->memory;

        for (size_t i = 0; i < block->size / sizeof(*words); i++)
                if (words[i] != word)
                        fail_msg("word %zu is 0x%" PRIx64 ", not 0x%" PRIx64, i, words[i], word);
}

static void write_all(const struct block *block, uint64_t word) {
        volatile uint64_t *words = (volatile uint64_t *)block->memory;

        for (size_t i = 0; i < block->size / sizeof(*words); i++)
                words[i] = word;
}

static void expect_one_extent(struct test_client *client, const struct block *block) {
        json_t *region = ask(client, "region.get", "{'region':%" PRIu64 "}", block->region), *extents, *extent;
        uint64_t start;

        close(test_client_take_fd(client));
        extents = json_object_get(region, "extents");
        assert_int_equal(json_array_size(extents), 1);
        extent = json_array_get(extents, 0);
        assert_int_equal(json_integer_value(json_object_get(extent, "offset")), 0);
        assert_true((uint64_t)json_integer_value(json_object_get(extent, "size")) >= block->offset + block->size);
        start = ask_take_hex(json_incref(extent), "machine_addr");
        assert_int_equal(start + block->offset, block->machine_addr);
        json_decref(region);
}

/* ---- debug.check ---- */

static json_t *check(void) {
        struct test_client *root = ask_connect(running, NULL);
        json_t *result = ask(root, "debug.check", "{}");

        test_client_close(root);
        return result;
}

static void expect_clean_check(uint64_t huge_pages) {
        json_t *result = check();

        if (!json_is_true(json_object_get(result, "clean")))
                fail_msg("debug.check: %s", json_dumps(result, 0));
        assert_true(ask_take_number(json_incref(json_object_get(result, "checked")), "pages") >= huge_pages);
        json_decref(result);
}

/* ---- one extent ---- */

/* Of an allocation that was just answered. */
static void expect_contiguous(struct test_client *client, uint64_t size, json_t *result) {
        struct block block;

        block_take(&block, client, result);
        assert_int_equal(block.size, size);
        block_map(&block, size);
        expect_one_extent(client, &block);
        expect_all(&block, 0);
        write_all(&block, UINT64_C(0x0123456789abcdef));
        expect_where_it_is_said_to_be(&block);
        expect_clean_check(size / HUGE);
        expect_all(&block, UINT64_C(0x0123456789abcdef));
        block_unmap(&block, size);
}

/* Whether the machine has as much in one piece is its own affair; what the daemon says of it is not. */
static void expect_one_extent_or_no_such_piece(uint64_t size) {
        struct test_client *client = ask_connect_as(running, ALICE);
        json_t *answer, *result, *status, *source;
        uint64_t largest = 0;

        ask_send(client, "coherent.alloc", "{'device':%" PRIu64 ",'size':%" PRIu64 ",'fd':true}",
                 ask_device(client, "card"), size);
        answer = ask_read(client);
        result = json_object_get(answer, "result");
        if (result) {
                expect_contiguous(client, size, json_incref(result));
        } else {
                ask_take_reason(json_incref(json_object_get(answer, "error")), "no_contiguous");
                status = ask(client, "broker.status", "{}");
                source = json_array_get(json_object_get(status, "sources"), 0);
                /* It has looked at every page that it could have. */
                assert_true(ask_take_number(json_incref(source), "total") >= PAGES * HUGE);
                largest = ask_take_number(json_incref(source), "largest_free");
                assert_true(largest < size);
                json_decref(status);
        }
        json_decref(answer);
        test_client_close(client);
        if (largest) {
                print_message("skipped: the machine has at most %" PRIu64 " bytes of huge pages in one piece\n", largest);
                skip();
        }
}

static void test_64_mib_are_one_extent_and_lie_where_the_kernel_says(void **state) {
        expect_one_extent_or_no_such_piece(64 * MIB);
}

static void test_128_mib_are_one_extent_and_lie_where_the_kernel_says(void **state) {
        expect_one_extent_or_no_such_piece(128 * MIB);
}

static void test_a_size_of_odd_pages_lies_where_the_kernel_says(void **state) {
        struct test_client *client = ask_connect_as(running, ALICE);
        struct block block;

        block_alloc(&block, client, ask_device(client, "card"), HUGE + 3 * PAGE);
        expect_one_extent(client, &block);
        write_all(&block, 1);
        expect_where_it_is_said_to_be(&block);
        test_client_close(client);
        block_unmap(&block, 2 * HUGE);
}

static void test_many_small_allocations_lie_where_the_kernel_says(void **state) {
        enum { BLOCKS = 100 };
        struct test_client *client = ask_connect_as(running, ALICE);
        uint64_t device = ask_device(client, "card"), sizes[BLOCKS];
        struct block blocks[BLOCKS];

        for (uint64_t i = 0; i < BLOCKS; i++) {
                block_alloc(&blocks[i], client, device, (i % 17 + 1) * PAGE);
                sizes[i] = region_size(client, &blocks[i]);
                write_all(&blocks[i], i);
        }
        for (uint64_t i = 0; i < BLOCKS; i++) {
                expect_all(&blocks[i], i);
                expect_where_it_is_said_to_be(&blocks[i]);
                block_unmap(&blocks[i], sizes[i]);
        }
        expect_clean_check(1);
        test_client_close(client);
}

/* ---- owners ---- */

static void test_another_owner_sees_nothing_of_it(void **state) {
        struct test_client *alice = ask_connect_as(running, ALICE), *bob = ask_connect_as(running, BOB);
        struct block hers, his;

        block_alloc(&hers, alice, ask_device(alice, "card"), HUGE);
        write_all(&hers, 0xa1);
        block_alloc(&his, bob, ask_device(bob, "card"), HUGE);
        expect_all(&his, 0);
        write_all(&his, 0xb0);
        expect_all(&hers, 0xa1);
        expect_where_it_is_said_to_be(&hers);
        expect_where_it_is_said_to_be(&his);
        assert_true(hers.machine_addr + hers.size <= his.machine_addr || his.machine_addr + his.size <= hers.machine_addr);
        ask_refused(bob, "unknown_handle", "region.get", "{'region':%" PRIu64 "}", hers.region);
        assert_int_equal(test_client_take_fd(bob), -1);
        block_unmap(&hers, HUGE);
        block_unmap(&his, HUGE);
        test_client_close(alice);
        test_client_close(bob);
}

static void test_a_freed_page_comes_clean_to_the_next_owner(void **state) {
        struct test_client *alice = ask_connect_as(running, ALICE), *bob = ask_connect_as(running, BOB);
        struct block hers, his;

        block_alloc(&hers, alice, ask_device(alice, "card"), HUGE);
        write_all(&hers, 0xa1);
        block_unmap(&hers, HUGE);
        block_free(alice, &hers);
        block_alloc(&his, bob, ask_device(bob, "card"), HUGE);
        /* There is no other. */
        assert_int_equal(his.machine_addr, hers.machine_addr);
        expect_all(&his, 0);
        expect_where_it_is_said_to_be(&his);
        expect_clean_check(1);
        block_unmap(&his, HUGE);
        test_client_close(alice);
        test_client_close(bob);
}

/* A child that keeps writing to the memory. It may end of a bus error when the kernel has no page for it, which is its
 * own affair. */
static void start_writer(const struct block *block) {
        volatile unsigned char *memory = block->memory;
        pid_t parent = getpid();

        writer = fork();
        assert_true(writer >= 0);
        if (writer > 0)
                return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (uint64_t at = 0; getppid() == parent; at = (at + PAGE) % block->size)
                memory[at] = 0xa1;
        _exit(0);
}

/* One page at a time: those that the writer holds on to are replaced by others, which need not lie side by side. */
static void test_who_keeps_its_mapping_and_writes_on_does_not_reach_the_next_owner(void **state) {
        enum { ROUNDS = 20 };
        struct test_client *alice = ask_connect_as(running, ALICE), *bob = ask_connect_as(running, BOB);
        uint64_t hers_device = ask_device(alice, "card"), his_device = ask_device(bob, "card");

        for (int round = 0; round < ROUNDS; round++) {
                struct block hers, his;

                block_alloc(&hers, alice, hers_device, HUGE);
                expect_all(&hers, 0);
                start_writer(&hers);
                block_free(alice, &hers);
                block_alloc(&his, bob, his_device, HUGE);
                expect_all(&his, 0);
                write_all(&his, 0xb0);
                expect_where_it_is_said_to_be(&his);
                expect_clean_check(1);
                expect_all(&his, 0xb0);
                stop_writer();
                block_unmap(&hers, HUGE);
                block_free(bob, &his);
                block_unmap(&his, HUGE);
        }
        /* Nor has it made the daemon any poorer: all that it may hold can be had. */
        for (uint64_t at = 0; at < 16 * MIB; at += HUGE)
                json_decref(ask(bob, "coherent.alloc", "{'device':%" PRIu64 ",'size':%" PRIu64 ",'wait_ms':10000}",
                                his_device, HUGE));
        test_client_close(alice);
        test_client_close(bob);
}

static void test_a_check_finds_a_page_that_its_holder_threw_away(void **state) {
        struct test_client *client = ask_connect_as(running, ALICE);
        struct block block;
        json_t *result, *problem;

        block_alloc(&block, client, ask_device(client, "card"), HUGE);
        expect_clean_check(1);
        assert_int_equal(fallocate(block.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
        result = check();
        assert_true(json_is_false(json_object_get(result, "clean")));
        problem = json_array_get(json_object_get(result, "problems"), 0);
        assert_int_equal(json_integer_value(json_object_get(problem, "handle")), block.region);
        json_decref(result);
        /* The damage is gone with the region. */
        block_free(client, &block);
        block_unmap(&block, HUGE);
        test_client_close(client);
}

/* ---- pages that come and go ---- */

static void wait_given_back(struct test_client *client) {
        long long end_ms = now_ms() + test_timeout_ms();

        while (test_hugepages_used() > used_at_start && now_ms() < end_ms)
                json_decref(ask(client, "broker.status", "{}"));
        assert_in_range(test_hugepages_used(), 0, used_at_start);
}

static void test_idle_pages_are_given_back_to_the_system(void **state) {
        struct test_client *client = ask_connect_as(running, ALICE);
        struct block block;

        block_alloc(&block, client, ask_device(client, "card"), HUGE);
        assert_true(test_hugepages_used() >= used_at_start + 1);
        block_unmap(&block, HUGE);
        block_free(client, &block);
        wait_given_back(client);
        /* And can be had again. */
        block_alloc(&block, client, ask_device(client, "card"), HUGE);
        expect_where_it_is_said_to_be(&block);
        block_unmap(&block, HUGE);
        test_client_close(client);
}

static void test_pages_of_a_client_that_is_gone_are_given_back(void **state) {
        struct test_client *client = ask_connect_as(running, ALICE), *other = ask_connect(running, NULL);
        struct block block;

        block_alloc(&block, client, ask_device(client, "card"), HUGE);
        block_unmap(&block, HUGE);
        test_client_close(client);
        wait_given_back(other);
        test_client_close(other);
}

static void test_a_daemon_that_is_killed_leaves_no_pages_behind(void **state) {
        struct test_client *client = ask_connect_as(running, ALICE);
        struct block block;

        block_alloc(&block, client, ask_device(client, "card"), HUGE);
        write_all(&block, 0xa1);
        assert_int_equal(test_daemon_kill(running), 0);
        /* The holder's pages are its own until it lets go of them, and still what they were. */
        expect_all(&block, 0xa1);
        expect_where_it_is_said_to_be(&block);
        block_unmap(&block, HUGE);
        test_client_close(client);
        assert_true(all_pages_return());
        assert_int_equal(test_daemon_start_again(running), 0);
}

/* ---- when it cannot be ---- */

/* The daemon must end with 1 and say all of these. */
static void expect_no_start(const struct test_identity *as, const char *const *words) {
        char directory[] = "/tmp/dmab-hugetlb-XXXXXX", path[64], lock[64], text[4096] = "";
        char *program = test_program_path("dmabrokerd");
        char *arguments[] = { program, (char *)"--config", (char *)"/dev/null", (char *)"--socket", path,
                              (char *)"--state-dir", directory, (char *)"--source", (char *)"hugetlb", NULL };
        int ends[2], status;
        size_t n;
        FILE *output;
        pid_t pid;

        assert_non_null(program);
        assert_non_null(mkdtemp(directory));
        if (as)
                assert_int_equal(chown(directory, as->uid, as->gid), 0);
        snprintf(path, sizeof(path), "%s/sock", directory);
        snprintf(lock, sizeof(lock), "%s/lock", directory);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                int fd = open(program, O_RDONLY | O_CLOEXEC);

                if (dup2(ends[1], 2) >= 0 && (!as || test_identity_assume(as) == 0))
                        fexecve(fd, arguments, environ);
                _exit(126);
        }
        close(ends[1]);
        output = fdopen(ends[0], "r");
        n = fread(text, 1, sizeof(text) - 1, output);
        text[n] = '\0';
        fclose(output);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
                fail_msg("it ended with 0x%x: %s", (unsigned)status, text);
        for (; *words; words++)
                if (!strstr(text, *words))
                        fail_msg("\"%s\" is not in: %s", *words, text);
        unlink(lock);
        assert_int_equal(rmdir(directory), 0);
        free(program);
}

static void test_without_huge_pages_it_says_how_to_get_some(void **state) {
        static const char *const words[] = { "no huge page", "/proc/sys/vm/nr_hugepages", NULL };
        size_t size = test_hugepages_free() * HUGE;
        void *all = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);

        assert_ptr_not_equal(all, MAP_FAILED);
        assert_int_equal(test_hugepages_free(), 0);
        expect_no_start(NULL, words);
        munmap(all, size);
}

static void test_without_permission_it_says_which_is_missing(void **state) {
        static const struct test_identity nobody = { .uid = 65534, .gid = 65534 };
        static const char *const words[] = { "pagemap", "CAP_SYS_ADMIN", NULL };

        expect_no_start(&nobody, words);
}

/* What every thread of the daemon may do, as /proc says. */
static void expect_without(unsigned capability) {
        char path[64], line[256];
        unsigned long long set;
        size_t n_sets = 0;
        struct dirent *entry;
        FILE *file;
        DIR *tasks;

        snprintf(path, sizeof(path), "/proc/%d/task", (int)test_daemon_pid(running));
        tasks = opendir(path);
        assert_non_null(tasks);
        while ((entry = readdir(tasks))) {
                if (*entry->d_name == '.')
                        continue;
                snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", (int)test_daemon_pid(running), entry->d_name);
                file = fopen(path, "re");
                assert_non_null(file);
                while (fgets(line, sizeof(line), file))
                        if (sscanf(line, "CapPrm: %llx", &set) == 1 || sscanf(line, "CapEff: %llx", &set) == 1 ||
                            sscanf(line, "CapInh: %llx", &set) == 1 || sscanf(line, "CapAmb: %llx", &set) == 1) {
                                assert_false(set >> capability & 1);
                                n_sets++;
                        }
                fclose(file);
        }
        closedir(tasks);
        assert_true(n_sets >= 4);
}

static void test_it_gives_up_the_right_to_see_addresses_when_it_sees_them(void **state) {
        expect_without(CAP_SYS_ADMIN);
}

#define ON_DAEMON(name) cmocka_unit_test_setup_teardown(name, begin, end)
#define ON_MORE_PAGES(name) cmocka_unit_test_setup_teardown(name, begin_more, end)
#define ON_ONE_PAGE(name) cmocka_unit_test_setup_teardown(name, begin_one, end)
#define ON_FEW_PAGES(name) cmocka_unit_test_setup_teardown(name, begin_few, end)

int main(void) {
        const struct CMUnitTest tests[] = {
                ON_MORE_PAGES(test_64_mib_are_one_extent_and_lie_where_the_kernel_says),
                ON_MORE_PAGES(test_128_mib_are_one_extent_and_lie_where_the_kernel_says),
                ON_MORE_PAGES(test_a_size_of_odd_pages_lies_where_the_kernel_says),
                ON_DAEMON(test_many_small_allocations_lie_where_the_kernel_says),
                ON_DAEMON(test_another_owner_sees_nothing_of_it),
                ON_DAEMON(test_it_gives_up_the_right_to_see_addresses_when_it_sees_them),
                ON_ONE_PAGE(test_a_freed_page_comes_clean_to_the_next_owner),
                ON_FEW_PAGES(test_who_keeps_its_mapping_and_writes_on_does_not_reach_the_next_owner),
                ON_DAEMON(test_a_check_finds_a_page_that_its_holder_threw_away),
                ON_DAEMON(test_idle_pages_are_given_back_to_the_system),
                ON_DAEMON(test_pages_of_a_client_that_is_gone_are_given_back),
                ON_DAEMON(test_a_daemon_that_is_killed_leaves_no_pages_behind),
                cmocka_unit_test(test_without_huge_pages_it_says_how_to_get_some),
                cmocka_unit_test(test_without_permission_it_says_which_is_missing),
        };

        test_hugepages_reserve_or_skip(PAGES);
        return cmocka_run_group_tests_name("hugetlb", tests, NULL, NULL);
}
