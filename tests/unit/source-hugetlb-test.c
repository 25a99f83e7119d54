/* The source of huge pages against the real kernel: every address is looked up again by the tests' own reader. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/sources.h"
#include "tests/lib/hugepages.h"
#include "tests/lib/pagemap.h"

#define PAGE (UINT64_C(2) << 20)

enum {
        N_PAGES = 80,
        BOOKS_MAX = 4096, /* some tests take all that is free */
};

static const struct source_ops *const ops = &source_hugetlb_ops;

/* The calls that a page goes through on its way: so many more, and one fails. */
static atomic_int calls_left;
static atomic_int calls_error;

int __wrap_fallocate(int fd, int mode, off_t offset, off_t size);
int __real_fallocate(int fd, int mode, off_t offset, off_t size);
ssize_t __wrap_pread(int fd, void *bytes, size_t size, off_t offset);
ssize_t __real_pread(int fd, void *bytes, size_t size, off_t offset);
ssize_t __wrap_read(int fd, void *bytes, size_t size);
ssize_t __real_read(int fd, void *bytes, size_t size);

static bool call_fails(void) {
        if (atomic_load(&calls_left) <= 0 || atomic_fetch_sub(&calls_left, 1) != 1)
                return false;
        errno = calls_error;
        return true;
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t size) {
        return call_fails() ? -1 : __real_fallocate(fd, mode, offset, size);
}

ssize_t __wrap_pread(int fd, void *bytes, size_t size, off_t offset) {
        return call_fails() ? -1 : __real_pread(fd, bytes, size, offset);
}

ssize_t __wrap_read(int fd, void *bytes, size_t size) {
        return call_fails() ? -1 : __real_read(fd, bytes, size);
}

/* What the core would know: the pages in stock. */
struct books {
        struct source *source;
        uint64_t pages[BOOKS_MAX];
        size_t n;
};

static struct books open_books(const struct source_option *options, size_t n) {
        struct failure failure = {};
        struct books books = {};

        if (ops->open(options, n, NULL, &books.source, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return books;
}

static size_t books_find(const struct books *books, uint64_t page) {
        size_t i;

        for (i = 0; i < books->n && books->pages[i] != page; i++)
                ;
        return i;
}

static void books_take(struct books *books, uint64_t addr, uint64_t size) {
        uint64_t page;
        size_t i;

        for (page = addr; page < addr + size; page += PAGE) {
                i = books_find(books, page);
                assert_true(i < books->n);
                books->pages[i] = books->pages[--books->n];
        }
}

/* The longest run in stock, of at most `most` pages. */
static uint64_t books_longest(const struct books *books, uint64_t most, uint64_t *ret_addr) {
        uint64_t longest = 0, n;
        size_t i;

        for (i = 0; i < books->n && longest < most; i++) {
                for (n = 1; n < most && books_find(books, books->pages[i] + n * PAGE) < books->n; n++)
                        ;
                if (n > longest) {
                        longest = n;
                        *ret_addr = books->pages[i];
                }
        }
        return longest * PAGE;
}

static void note_done(struct source_job *job) {
        *(bool *)job->userdata = true;
}

/* Run one job and enter what arrived: in order, merged, and never what is in the books already. */
static int books_run(struct books *books, struct source_job *job) {
        bool is_done = false;
        uint64_t page;
        size_t i;

        if (job->kind == SOURCE_CARVE || job->kind == SOURCE_SHRINK)
                books_take(books, job->addr, job->size);
        job->done = note_done;
        job->userdata = &is_done;
        ops->submit(books->source, job);
        while (!is_done) {
                ops->wait(books->source);
                ops->dispatch(books->source);
        }
        for (i = 0; i < job->n_arrived; i++) {
                assert_true(i == 0 || job->arrived[i - 1].addr + job->arrived[i - 1].size < job->arrived[i].addr);
                assert_int_equal(job->arrived[i].size % PAGE, 0);
                for (page = job->arrived[i].addr; page < job->arrived[i].addr + job->arrived[i].size; page += PAGE) {
                        assert_int_equal(books_find(books, page), books->n);
                        assert_true(books->n < sizeof(books->pages) / sizeof(books->pages[0]));
                        books->pages[books->n++] = page;
                }
        }
        return job->status;
}

/* Take n pages; returns the longest run of them. */
static struct source_run books_grow(struct books *books, size_t n) {
        struct source_job job = { .kind = SOURCE_GROW, .size = n * PAGE, .node = -1 };
        struct source_run longest = {};
        size_t i;

        assert_int_equal(books_run(books, &job), 0);
        assert_int_equal(books->n, n);
        for (i = 0; i < job.n_arrived; i++)
                if (job.arrived[i].size > longest.size)
                        longest = job.arrived[i];
        source_job_deinit(&job);
        return longest;
}

static struct source_backing *books_carve(struct books *books, uint64_t addr, uint64_t size) {
        struct failure failure;
        struct source_job job = { .kind = SOURCE_CARVE, .addr = addr, .size = size, .failure = &failure };

        if (books_run(books, &job) < 0)
                fail_msg("%s", failure.sentence);
        assert_int_equal(job.n_arrived, 0);
        return job.backing;
}

static int books_restore(struct books *books, struct source_backing *backing) {
        struct source_job job = { .kind = SOURCE_RESTORE, .backing = backing };
        int r;

        r = books_run(books, &job);
        assert_null(job.backing);
        source_job_deinit(&job);
        return r;
}

static int books_verify(struct books *books, struct source_backing *backing) {
        struct source_job job = { .kind = SOURCE_VERIFY, .backing = backing };

        return books_run(books, &job);
}

static char *map_backing(struct source_backing *backing, uint64_t size) {
        char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ops->backing_fd(backing), 0);

        assert_true(at != MAP_FAILED);
        return at;
}

static bool is_zero(const volatile char *at, uint64_t size) {
        const volatile uint64_t *word = (const volatile uint64_t *)at;

        for (; size > 0; size -= sizeof(*word))
                if (*word++)
                        return false;
        return true;
}

/* Through a mapping of the test's own: zeroed, and every small page at its address. */
static void assert_backing(struct source_backing *backing, uint64_t addr, uint64_t size) {
        char *at = map_backing(backing, size);
        uint64_t offset;

        assert_true(is_zero(at, size));
        for (offset = 0; offset < size; offset += 4096)
                assert_int_equal(pagemap_machine_address(at + offset), addr + offset);
        munmap(at, size);
}

static size_t count_fds(void) {
        DIR *dir = opendir("/proc/self/fd");
        size_t n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

static void test_every_page_of_every_run_is_at_its_machine_address(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_job job = { .kind = SOURCE_GROW, .size = 64 * PAGE, .node = -1 };
        struct source_backing *backings[64];
        size_t i;

        assert_int_equal(books_run(&books, &job), 0);
        assert_int_equal(books.n, 64);
        for (i = 0; i < job.n_arrived; i++) {
                backings[i] = books_carve(&books, job.arrived[i].addr, job.arrived[i].size);
                assert_backing(backings[i], job.arrived[i].addr, job.arrived[i].size);
        }
        assert_int_equal(books.n, 0);
        for (i = 0; i < job.n_arrived; i++) {
                assert_int_equal(books_verify(&books, backings[i]), 0);
                assert_int_equal(books_restore(&books, backings[i]), 0);
        }
        assert_int_equal(books.n, 64);
        source_job_deinit(&job);
        ops->close(books.source);
}

static void test_a_chosen_part_of_a_run_moves_and_comes_back_zeroed(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_run run = books_grow(&books, 64);
        uint64_t addr = run.addr + (run.size > PAGE ? PAGE : 0);
        struct source_backing *backing;
        char *at;

        backing = books_carve(&books, addr, PAGE);
        at = map_backing(backing, PAGE);
        memset(at, 0x77, PAGE);
        munmap(at, PAGE);
        assert_int_equal(books_restore(&books, backing), 0);

        backing = books_carve(&books, addr, PAGE);
        assert_backing(backing, addr, PAGE);
        assert_int_equal(books_restore(&books, backing), 0);
        assert_int_equal(books.n, 64);
        ops->close(books.source);
}

static void test_a_region_cannot_change_size_and_shows_nothing_else(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_run run = books_grow(&books, 8);
        struct source_backing *backing = books_carve(&books, run.addr, PAGE);
        int fd = ops->backing_fd(backing);

        assert_int_equal(lseek(fd, 0, SEEK_END), PAGE);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_int_equal(ftruncate(fd, 2 * PAGE), -1);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
        assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        assert_int_equal(books_restore(&books, backing), 0);
        ops->close(books.source);
}

static void test_zeroing_touches_exactly_what_was_asked(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_run run = books_grow(&books, 8);
        struct source_backing *backing = books_carve(&books, run.addr, PAGE);
        struct source_job job = { .kind = SOURCE_ZERO, .backing = backing, .offset = 5000, .size = 100000 };
        char *at = map_backing(backing, PAGE);

        memset(at, 1, PAGE);
        assert_int_equal(books_run(&books, &job), 0);
        assert_int_equal(at[4999], 1);
        assert_true(is_zero(at + 5000, 100000));
        assert_int_equal(at[105000], 1);
        assert_int_equal(ops->backing_zero(backing, 0, 3), 0);
        assert_int_equal(at[2], 0);
        assert_int_equal(at[3], 1);
        assert_int_equal(ops->backing_zero(backing, PAGE, 1), -EINVAL);
        munmap(at, PAGE);
        assert_int_equal(books_restore(&books, backing), 0);
        ops->close(books.source);
}

static void test_a_copy_is_exact_also_within_pages(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_job job = { .kind = SOURCE_COPY, .to_ops = ops, .from_ops = ops, .from_offset = 4097,
                                  .offset = 77, .size = 1500000 };
        struct source_backing *from, *to;
        char *a, *b;

        books_grow(&books, 8);
        job.from = from = books_carve(&books, books.pages[0], PAGE);
        job.backing = to = books_carve(&books, books.pages[0], PAGE);
        a = map_backing(from, PAGE);
        b = map_backing(to, PAGE);
        for (size_t i = 0; i < PAGE; i++)
                a[i] = (char)(i * 31 + i / 4096);
        memset(b, 0x5a, PAGE);
        assert_int_equal(books_run(&books, &job), 0);
        assert_memory_equal(b + 77, a + 4097, 1500000);
        assert_int_equal(b[76], 0x5a);
        assert_int_equal(b[77 + 1500000], 0x5a);
        assert_int_equal(ops->backing_read(from, PAGE, b, 1), -EINVAL);
        assert_int_equal(ops->backing_write(to, PAGE - 1, a, 2), -EINVAL);
        munmap(a, PAGE);
        munmap(b, PAGE);
        assert_int_equal(books_restore(&books, from), 0);
        assert_int_equal(books_restore(&books, to), 0);
        ops->close(books.source);
}

static void test_what_is_not_in_stock_cannot_be_carved(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_run run = books_grow(&books, 8);
        struct source_job job = { .kind = SOURCE_CARVE, .addr = run.addr + 4096, .size = PAGE };

        /* Not through the books: a core whose own are wrong. */
        books.pages[books.n++] = job.addr;
        assert_int_equal(books_run(&books, &job), -EINVAL);
        assert_int_equal(books.n, 8);
        source_job_deinit(&job);

        job = (struct source_job){ .kind = SOURCE_CARVE, .addr = UINT64_C(1) << 50, .size = PAGE };
        books.pages[books.n++] = job.addr;
        /* It may have been there and have moved: the core is to look again. */
        assert_int_equal(books_run(&books, &job), -EAGAIN);
        assert_int_equal(books.n, 8);
        source_job_deinit(&job);
        ops->close(books.source);
}

static void test_a_hole_made_by_a_holder_is_found_and_never_a_signal(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_job all = { .kind = SOURCE_GROW, .size = UINT64_MAX, .node = -1 };
        struct failure failure = {};
        struct source_job verify = { .kind = SOURCE_VERIFY, .failure = &failure };
        struct source_backing *backing;
        struct source_info info;
        char byte = 1;
        size_t n;
        int holder;

        assert_int_equal(books_run(&books, &all), 0); /* so that holes cannot be filled */
        n = books.n;
        backing = verify.backing = books_carve(&books, all.arrived[0].addr, PAGE);
        holder = dup(ops->backing_fd(backing));
        assert_int_equal(fallocate(holder, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);

        /* A page that is pinned does not even then leave the source's hands. */
        ops->describe(books.source, &info);
        assert_int_equal(test_hugepages_free(), info.flags & SOURCE_PINS ? 0 : 1);

        assert_int_equal(books_run(&books, &verify), -EUCLEAN);
        assert_non_null(strstr(failure.sentence, "hole"));
        if (info.flags & SOURCE_PINS) {
                assert_int_equal(ops->backing_zero(backing, 0, PAGE), -EFAULT); /* nothing can fill the hole */
                assert_int_equal(ops->backing_write(backing, 0, "a", 1), -EFAULT);
                assert_int_equal(ops->backing_read(backing, 0, &byte, 1), 0);
                assert_int_equal(byte, 0);
                assert_int_equal(books_run(&books, &verify), -EUCLEAN);
        }
        books_restore(&books, backing);
        close(holder);
        assert_int_equal(books.n, n);
        source_job_deinit(&all);
        ops->close(books.source);
}

/* As for a moment while the kernel tries to move it. */
static void test_a_page_that_is_in_no_page_table_is_no_hole(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_run run = books_grow(&books, 1);
        struct source_backing *backing = books_carve(&books, run.addr, PAGE);

        if (madvise(ops->backing_map(backing), PAGE, MADV_DONTNEED) < 0)
                skip(); /* Linux before 5.18 */
        assert_int_equal(books_verify(&books, backing), 0);
        assert_int_equal(books_restore(&books, backing), 0);
        ops->close(books.source);
}

static void test_a_page_that_somebody_holds_does_not_come_back_until_it_is_let_go(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_job all = { .kind = SOURCE_GROW, .size = UINT64_MAX, .node = -1 };
        struct source_job again = { .kind = SOURCE_GROW, .size = UINT64_MAX, .node = -1 };
        struct source_backing *backing;
        struct iovec part;
        uint64_t addr;
        int ends[2];
        size_t n;
        char *at;

        assert_int_equal(books_run(&books, &all), 0); /* nothing else is free that could come instead */
        n = books.n;
        addr = all.arrived[0].addr;
        backing = books_carve(&books, addr, PAGE);
        at = map_backing(backing, PAGE);
        at[0] = 'x';
        assert_int_equal(pipe(ends), 0);
        part = (struct iovec){ .iov_base = at, .iov_len = 4096 };
        assert_int_equal(vmsplice(ends[1], &part, 1, 0), 4096); /* the pipe holds the page now */

        assert_int_equal(books_restore(&books, backing), -EBUSY);
        assert_int_equal(books_find(&books, addr), books.n);
        assert_int_equal(books.n, n - 1);

        close(ends[0]);
        close(ends[1]);
        munmap(at, PAGE);
        assert_int_equal(books_run(&books, &again), 0);
        assert_int_equal(books.n, n);
        assert_true(books_find(&books, addr) < n);
        source_job_deinit(&all);
        source_job_deinit(&again);
        ops->close(books.source);
}

static sigjmp_buf hostile_jump;

static void on_bus_error(int signal_number) {
        siglongjmp(hostile_jump, 1);
}

/* Writes to the whole mapping for ever, faulting holes anew whenever it can. */
static void __attribute__((noreturn)) be_hostile(volatile char *at, uint64_t size, _Atomic uint64_t *rounds) {
        struct sigaction action = { .sa_handler = on_bus_error, .sa_flags = SA_NODEFER };
        volatile uint64_t offset = 0;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigaction(SIGBUS, &action, NULL);
        for (;;) {
                if (sigsetjmp(hostile_jump, 0) == 0)
                        at[offset] = 0x55;
                offset = offset + 4096;
                if (offset < size)
                        continue;
                offset = 0;
                atomic_fetch_add(rounds, 1);
        }
}

static void await_rounds(_Atomic uint64_t *rounds, uint64_t more) {
        uint64_t until = atomic_load(rounds) + more;

        while (atomic_load(rounds) < until)
                sched_yield();
}

static void test_a_holder_that_goes_on_writing_reaches_no_page_of_the_next_owner(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_backing *backings[BOOKS_MAX];
        _Atomic uint64_t *rounds;
        size_t i, n, turn;
        char *at, *maps[BOOKS_MAX];
        pid_t child;

        rounds = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        books_grow(&books, 64);
        for (turn = 0; turn < 3; turn++) {
                struct source_backing *shared;
                uint64_t addr = 0, size = books_longest(&books, 8, &addr);

                shared = books_carve(&books, addr, size);
                at = map_backing(shared, size);
                child = fork();
                if (child == 0)
                        be_hostile(at, size, rounds);
                munmap(at, size);
                await_rounds(rounds, 3);
                books_restore(&books, shared);

                /* Every page in stock becomes somebody's region, and stays what that owner left there: zeros. */
                for (n = 0; books.n > 0; n++) {
                        struct source_job job = { .kind = SOURCE_CARVE, .addr = books.pages[0], .size = PAGE };

                        /* The child may take a page between: then others arrive, or none. */
                        if (books_run(&books, &job) < 0) {
                                assert_int_equal(job.status, -EAGAIN);
                                source_job_deinit(&job);
                                n--;
                                continue;
                        }
                        backings[n] = job.backing;
                        maps[n] = map_backing(job.backing, PAGE);
                }
                await_rounds(rounds, 20);
                for (i = 0; i < n; i++)
                        assert_true(is_zero(maps[i], PAGE));
                kill(child, SIGKILL);
                waitpid(child, NULL, 0);
                for (i = 0; i < n; i++) {
                        assert_int_equal(books_verify(&books, backings[i]), 0);
                        munmap(maps[i], PAGE);
                        assert_int_equal(books_restore(&books, backings[i]), 0);
                }
        }
        munmap((void *)rounds, 4096);
        ops->close(books.source);
}

/* Faults huge pages and lets them go again, for ever. */
static void __attribute__((noreturn)) be_greedy(_Atomic uint64_t *rounds) {
        size_t n = 0;
        char *at;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;; n = (n + 1) % 3) {
                at = mmap(NULL, (n + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1,
                          0);
                if (at != MAP_FAILED) {
                        memset(at, 0x33, (n + 1) * PAGE);
                        munmap(at, (n + 1) * PAGE);
                }
                atomic_fetch_add(rounds, 1);
        }
}

static void test_nothing_is_lost_or_counted_twice_while_others_fault_huge_pages(void **state) {
        struct books books = open_books(NULL, 0);
        size_t i, n_good = 0, n_raced = 0, n_lost = 0;
        _Atomic uint64_t *rounds;
        int self = pidfd_open(getpid(), 0);
        pid_t child;

        if (self < 0) {
                print_message("skipped: there is no pidfd_open() here, as in valgrind, which dies when there is no huge page\n");
                ops->close(books.source);
                skip();
        }
        close(self);
        rounds = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        books_grow(&books, 64);
        child = fork();
        if (child == 0)
                be_greedy(rounds);
        await_rounds(rounds, 1);

        for (i = 0; i < 300 && books.n > 32; i++) {
                struct source_job job = { .kind = SOURCE_CARVE, .addr = books.pages[i % books.n], .size = PAGE };
                uint64_t addr = job.addr;

                while (job.size < 8 * PAGE && books_find(&books, addr + job.size) < books.n)
                        job.size += PAGE;
                if (books_run(&books, &job) == 0) {
                        n_good++;
                        assert_backing(job.backing, addr, job.size);
                        n_lost += books_restore(&books, job.backing) < 0;
                } else {
                        n_raced++;
                        assert_int_equal(job.status, -EAGAIN);
                }
                source_job_deinit(&job);
        }
        print_message("%zu carved, %zu raced, %zu came back short\n", n_good, n_raced, n_lost);
        assert_true(n_good > 0);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        munmap((void *)rounds, 4096);
        ops->close(books.source);
}

/* What a failure took from the run, and what it would have left in the kernel's pool, is stock again. */
static void assert_no_call_that_fails_costs_a_page(int error) {
        struct books books = open_books(NULL, 0);
        bool was_reached = true;
        uint64_t addr = 0, size;
        int n;

        books_grow(&books, 16);
        for (n = 1; was_reached; n++) {
                struct source_job carve = { .kind = SOURCE_CARVE };

                size = books_longest(&books, 3, &addr);
                carve.addr = addr;
                carve.size = size;
                calls_error = error;
                atomic_store(&calls_left, n);
                if (books_run(&books, &carve) < 0)
                        assert_true(error != EINTR);
                else
                        assert_int_equal(books_restore(&books, carve.backing), 0);
                was_reached = atomic_exchange(&calls_left, 0) <= 0;
                if (books.n != 16)
                        fail_msg("call %d: %s: %zu of 16 pages are there", n, strerror(error), books.n);
                source_job_deinit(&carve);
        }
        assert_true(n > 10);
        ops->close(books.source);
}

static void test_no_call_that_fails_in_a_carve_or_a_restore_costs_a_page(void **state) {
        assert_no_call_that_fails_costs_a_page(ENOMEM);
        assert_no_call_that_fails_costs_a_page(EIO);
}

static void test_no_call_that_is_interrupted_has_a_carve_or_a_restore_fail(void **state) {
        assert_no_call_that_fails_costs_a_page(EINTR);
}

static void test_shrinking_gives_every_page_back_to_the_kernel(void **state) {
        size_t before = test_hugepages_free();
        struct books books = open_books(NULL, 0);
        struct source_job grow = { .kind = SOURCE_GROW, .size = 16 * PAGE, .node = -1 };
        struct source_info info;
        size_t i;

        assert_int_equal(books_run(&books, &grow), 0);
        assert_int_equal(test_hugepages_free(), before - 16);
        ops->describe(books.source, &info);
        assert_int_equal(info.available, (before - 16) * PAGE);
        for (i = 0; i < grow.n_arrived; i++) {
                struct source_job job = { .kind = SOURCE_SHRINK, .addr = grow.arrived[i].addr, .size = grow.arrived[i].size };

                assert_int_equal(books_run(&books, &job), 0);
                assert_int_equal(job.n_arrived, 0);
        }
        assert_int_equal(books.n, 0);
        assert_int_equal(test_hugepages_free(), before);
        source_job_deinit(&grow);
        ops->close(books.source);
}

static void test_closing_leaves_no_page_and_no_descriptor_behind(void **state) {
        size_t before = test_hugepages_free(), fds = count_fds();
        struct books books = open_books(NULL, 0);
        struct source_run run = books_grow(&books, 16);

        books_carve(&books, run.addr, run.size); /* abandoned */
        ops->close(books.source);
        assert_int_equal(test_hugepages_free(), before);
        assert_int_equal(count_fds(), fds);
}

static void test_the_limit_holds_over_stock_and_regions(void **state) {
        static const struct source_option options[] = { { "limit", "9M" }, { "idle_ms", "7" } };
        struct books books = open_books(options, 2);
        struct source_job more = { .kind = SOURCE_GROW, .size = PAGE, .node = -1 };
        struct source_job grow = { .kind = SOURCE_GROW, .size = UINT64_MAX, .node = -1 };
        struct source_backing *backing;
        struct source_info info;

        ops->describe(books.source, &info);
        assert_int_equal(info.limit, 4 * PAGE);
        assert_int_equal(info.idle_ms, 7);
        assert_int_equal(info.grain, PAGE);
        assert_int_equal(books_run(&books, &grow), 0);
        assert_int_equal(books.n, 4);
        backing = books_carve(&books, grow.arrived[0].addr, PAGE);
        assert_int_equal(books_run(&books, &more), -ENOMEM);
        assert_int_equal(books_restore(&books, backing), 0);
        source_job_deinit(&grow);
        ops->close(books.source);
}

static uint64_t pool_total(void) {
        FILE *file = fopen("/proc/sys/vm/nr_hugepages", "re");
        uint64_t n = 0;

        assert_non_null(file);
        assert_int_equal(fscanf(file, "%" SCNu64, &n), 1);
        fclose(file);
        return n;
}

static void test_a_reserve_enlarges_the_kernels_pool_until_close(void **state) {
        uint64_t before = pool_total();
        char reserve[32];
        struct source_option options[] = { { "reserve", reserve } };
        struct source_info info;
        struct books books;

        snprintf(reserve, sizeof(reserve), "%zuM", 2 * test_hugepages_free() + 5);
        books = open_books(options, 1);
        ops->describe(books.source, &info);
        assert_int_equal(pool_total(), before + 3);
        assert_int_equal(info.reserve % PAGE, 0);
        books_grow(&books, info.reserve / PAGE);
        ops->close(books.source);
        assert_int_equal(pool_total(), before);
}

static void test_growth_from_the_system_is_lowered_again_when_given_back(void **state) {
        uint64_t before = pool_total(), unused = test_hugepages_free();
        char limit[32];
        struct source_option options[] = { { "grow", "system" }, { "limit", limit } };
        struct source_job grow = { .kind = SOURCE_GROW, .size = UINT64_MAX, .node = -1 };
        struct books books;
        size_t i;

        snprintf(limit, sizeof(limit), "%" PRIu64 "M", 2 * unused + 4);
        books = open_books(options, 2);
        assert_int_equal(pool_total(), before);
        assert_int_equal(books_run(&books, &grow), 0);
        assert_int_equal(books.n, unused + 2);
        assert_int_equal(pool_total(), before + 2);
        for (i = 0; i < grow.n_arrived; i++) {
                struct source_job job = { .kind = SOURCE_SHRINK, .addr = grow.arrived[i].addr, .size = grow.arrived[i].size };

                assert_int_equal(books_run(&books, &job), 0);
        }
        assert_int_equal(pool_total(), before);
        assert_int_equal(test_hugepages_free(), unused);
        source_job_deinit(&grow);
        ops->close(books.source);
        assert_int_equal(pool_total(), before);
}

static void assert_refused(const struct source_option *options, size_t n, int error, const char *says) {
        struct failure failure = {};
        struct source *source;

        assert_int_equal(ops->open(options, n, NULL, &source, &failure), -error);
        assert_int_equal(failure.error, error);
        if (!strstr(failure.sentence, says))
                fail_msg("%s", failure.sentence);
}

static void test_an_impossible_reserve_is_refused_with_numbers_and_changes_nothing(void **state) {
        static const struct source_option options[] = { { "reserve", "64T" } };
        uint64_t before = pool_total();

        assert_refused(options, 1, ENOMEM, "33554432 huge pages of 2 MiB");
        assert_int_equal(pool_total(), before);
}

static void test_a_page_size_that_the_machine_lacks_is_refused(void **state) {
        static const struct source_option options[] = { { "page_size", "512M" } };

        assert_refused(options, 1, ENOENT, "512 MiB");
}

static void test_without_free_pages_the_sentence_says_what_to_do(void **state) {
        struct books books = open_books(NULL, 0);
        struct source_job all = { .kind = SOURCE_GROW, .size = UINT64_MAX, .node = -1 };

        assert_int_equal(books_run(&books, &all), 0);
        assert_refused(NULL, 0, ENOMEM, "echo 64 > /proc/sys/vm/nr_hugepages");
        source_job_deinit(&all);
        ops->close(books.source);
}

/* In a child, because it cannot get the capability back. */
static void test_hidden_page_frames_are_never_taken_for_addresses(void **state) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = {};
        struct failure failure = {};
        struct source *source;
        int status;
        pid_t child;

        child = fork();
        if (child == 0) {
                if (syscall(SYS_capset, &header, data) < 0 || ops->open(NULL, 0, NULL, &source, &failure) >= 0)
                        _exit(1);
                _exit(strstr(failure.sentence, "CAP_SYS_ADMIN") ? 0 : 2);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
}

static void test_bad_options_are_refused_with_a_sentence(void **state) {
        static const struct { const char *key, *value, *says; } cases[] = {
                { "pagesize", "2M", "page_size" }, { "page_size", "3M", "huge pages of this size" },
                { "page_size", "4K", "huge pages of this size" }, { "page_size", "64G", "huge pages of this size" },
                { "limit", "0", "at least" }, { "limit", "lots", "size" }, { "reserve", "-1", "size" },
                { "grow", "always", "free or system" }, { "idle_ms", "5s", "number" },
        };
        static const struct source_option unlimited[] = { { "grow", "system" } };
        static const struct source_option tiny[] = { { "limit", "1M" } };
        static const struct source_option over[] = { { "limit", "4M" }, { "reserve", "5M" } };
        static const struct source_option vast[] = { { "reserve", "0xffffffffffffffff" } };
        struct failure failure;
        size_t i;

        for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                assert_int_equal(ops->check_option(cases[i].key, cases[i].value, &failure), -EINVAL);
                if (!strstr(failure.sentence, cases[i].says))
                        fail_msg("%s", failure.sentence);
        }
        assert_refused(unlimited, 1, EINVAL, "limit");
        assert_refused(tiny, 1, EINVAL, "less than one");
        assert_refused(over, 2, EINVAL, "more than the limit");
        assert_refused(vast, 1, EINVAL, "any machine");
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_page_of_every_run_is_at_its_machine_address),
                cmocka_unit_test(test_a_chosen_part_of_a_run_moves_and_comes_back_zeroed),
                cmocka_unit_test(test_a_region_cannot_change_size_and_shows_nothing_else),
                cmocka_unit_test(test_a_copy_is_exact_also_within_pages),
                cmocka_unit_test(test_zeroing_touches_exactly_what_was_asked),
                cmocka_unit_test(test_what_is_not_in_stock_cannot_be_carved),
                cmocka_unit_test(test_a_hole_made_by_a_holder_is_found_and_never_a_signal),
                cmocka_unit_test(test_a_page_that_is_in_no_page_table_is_no_hole),
                cmocka_unit_test(test_a_page_that_somebody_holds_does_not_come_back_until_it_is_let_go),
                cmocka_unit_test(test_a_holder_that_goes_on_writing_reaches_no_page_of_the_next_owner),
                cmocka_unit_test(test_nothing_is_lost_or_counted_twice_while_others_fault_huge_pages),
                cmocka_unit_test(test_no_call_that_fails_in_a_carve_or_a_restore_costs_a_page),
                cmocka_unit_test(test_no_call_that_is_interrupted_has_a_carve_or_a_restore_fail),
                cmocka_unit_test(test_shrinking_gives_every_page_back_to_the_kernel),
                cmocka_unit_test(test_closing_leaves_no_page_and_no_descriptor_behind),
                cmocka_unit_test(test_the_limit_holds_over_stock_and_regions),
                cmocka_unit_test(test_a_reserve_enlarges_the_kernels_pool_until_close),
                cmocka_unit_test(test_growth_from_the_system_is_lowered_again_when_given_back),
                cmocka_unit_test(test_an_impossible_reserve_is_refused_with_numbers_and_changes_nothing),
                cmocka_unit_test(test_a_page_size_that_the_machine_lacks_is_refused),
                cmocka_unit_test(test_without_free_pages_the_sentence_says_what_to_do),
                cmocka_unit_test(test_hidden_page_frames_are_never_taken_for_addresses),
                cmocka_unit_test(test_bad_options_are_refused_with_a_sentence),
        };

        test_hugepages_reserve_or_skip(N_PAGES);
        if (test_hugepages_free() >= BOOKS_MAX) {
                printf("skipped: some tests take all free huge pages, and here are more than %d\n", BOOKS_MAX - 1);
                return 77;
        }
        return cmocka_run_group_tests(tests, NULL, NULL);
}
