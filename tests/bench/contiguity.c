/* P11: the largest machine-contiguous extent out of the same huge pages: in the order in which the kernel gives them,
 * sorted by machine address (no order can do better), and as the `hugetlb` source makes it: one file, in file order.
 *
 * Every address is read from the kernel's page map by the tests' own reader, that of the source's extent too. It is a
 * count and no time, so each is taken once, of pages that are fresh from the kernel. */
#include <errno.h>
#include <linux/memfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/source/sources.h"
#include "tests/bench/table.h"
#include "tests/lib/hugepages.h"
#include "tests/lib/pagemap.h"

enum { N_PAGES = 600 };

#define PAGE (UINT64_C(2) << 20)

/* The most neighbours in a row, in MiB. */
static double longest_mib(const uint64_t *addrs, size_t n) {
        size_t i, run = 1, longest = 1;

        for (i = 1; i < n; i++) {
                run = addrs[i] == addrs[i - 1] + PAGE ? run + 1 : 1;
                if (run > longest)
                        longest = run;
        }
        return (double)(longest * PAGE) / 0x1p20;
}

static int compare(const void *a, const void *b) {
        uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

        return (left > right) - (left < right);
}

/* The machine addresses of the pages of a file, in file order. */
static int read_addrs(int fd, uint64_t *addrs, size_t n) {
        volatile char *at = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        size_t i;

        if (at == MAP_FAILED)
                return -errno;
        for (i = 0; i < n; i++) {
                at[i * PAGE] = 0;
                addrs[i] = pagemap_machine_address(at + i * PAGE);
        }
        munmap((void *)at, n * PAGE);
        return 0;
}

static int read_first_fault(uint64_t *addrs, size_t n) {
        int fd = memfd_create("bench", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB), r;

        if (fd < 0)
                return -errno;
        r = ftruncate(fd, (off_t)(n * PAGE)) < 0 ? -errno : read_addrs(fd, addrs, n);
        close(fd);
        return r;
}

/* ---- the source ---- */

static void note_done(struct source_job *job) {
        *(bool *)job->userdata = true;
}

static int source_run_job(struct source *source, struct source_job *job) {
        struct failure failure = {};
        bool is_done = false;

        job->failure = &failure;
        job->done = note_done;
        job->userdata = &is_done;
        source->ops->submit(source, job);
        while (!is_done) {
                source->ops->wait(source);
                source->ops->dispatch(source);
        }
        if (job->status < 0)
                fprintf(stderr, "%s\n", failure.sentence);
        return job->status;
}

/* Carve the run and see whether the file is what was asked for. */
static int source_try_run(struct source *source, const struct source_run *run, double *ret_mib) {
        struct source_job carve = { .kind = SOURCE_CARVE, .addr = run->addr, .size = run->size };
        size_t n = run->size / PAGE;
        uint64_t *addrs = calloc(n, sizeof(*addrs));
        int r = addrs ? source_run_job(source, &carve) : -ENOMEM;

        if (r >= 0) {
                struct source_job restore = { .kind = SOURCE_RESTORE, .backing = carve.backing };

                r = read_addrs(source->ops->backing_fd(carve.backing), addrs, n);
                if (r >= 0)
                        *ret_mib = longest_mib(addrs, n);
                source_run_job(source, &restore);
                source_job_deinit(&restore);
        }
        source_job_deinit(&carve);
        free(addrs);
        return r;
}

static int read_source(size_t n, double *ret_mib) {
        struct source_job grow = { .kind = SOURCE_GROW, .size = n * PAGE, .node = -1 };
        struct failure failure = { 0 };
        struct source_run longest = { 0 };
        struct source *source;
        size_t i;
        int r;

        r = source_hugetlb_ops.open(NULL, 0, NULL, &source, &failure);
        if (r < 0) {
                fprintf(stderr, "%s\n", failure.sentence);
                return r;
        }
        r = source_run_job(source, &grow);
        for (i = 0; i < grow.n_arrived; i++)
                if (grow.arrived[i].size > longest.size)
                        longest = grow.arrived[i];
        if (r >= 0)
                r = longest.size ? source_try_run(source, &longest, ret_mib) : -ENOMEM;
        source_job_deinit(&grow);
        source->ops->close(source);
        return r;
}

int main(int argc, char **argv) {
        size_t n = argc > 1 ? strtoul(argv[1], NULL, 0) : N_PAGES;
        uint64_t *addrs = calloc(n ? n : 1, sizeof(*addrs));
        double first_fault, sorted, ours = 0;
        char what[64];
        int r;

        if (!n || !addrs) {
                fprintf(stderr, "usage: contiguity [PAGES]\n");
                return 2;
        }
        test_hugepages_reserve_or_skip(n);
        r = read_first_fault(addrs, n);
        if (r < 0) {
                fprintf(stderr, "cannot take %zu huge pages: %s\n", n, strerror(-r));
                return 1;
        }
        first_fault = longest_mib(addrs, n);
        qsort(addrs, n, sizeof(*addrs), compare);
        sorted = longest_mib(addrs, n);
        free(addrs);
        if (read_source(n, &ours) < 0)
                return 1;

        snprintf(what, sizeof(what), "largest extent in one file, out of %zu MiB", n * (size_t)(PAGE >> 20));
        table_print(&(struct table_row){ "P11", what, "first-fault order", first_fault, ours, "MiB", NULL,
                                         TABLE_UNKNOWN });
        table_print(&(struct table_row){ "P11", what, "sorted, at best", sorted, ours, "MiB", ">= 1x",
                                         ours >= sorted ? TABLE_MET : TABLE_NOT_MET });
        return 0;
}
