/* Xen's own headers mean something only after these. */
#include "daemon/source/xen-library.h"

#include "daemon/guest/xen-foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xen/grant_table.h>
#include <xen/gntalloc.h>
#include <xen/memory.h>

#include "daemon/source/xen-domain.h"

#define GNTALLOC "/dev/xen/gntalloc"
#define GNTALLOC_LIMIT "/sys/module/xen_gntalloc/parameters/limit"

enum { HOST = 0 }; /* this domain's number */

/* ---- a guest's table ---- */

/* Opened once; they stay. */
static struct {
        const struct xen_library *library;
        xc_interface *control;
        xenforeignmemory_handle *memory;
} xen;

static int open_xen(void) {
        if (xen.memory)
                return 0;
        xen.library = xen_library(NULL);
        if (!xen.library)
                return -ENOPKG;
        if (!xen.control)
                xen.control = xen.library->xc_interface_open(&xen_library_silence, NULL, 0);
        if (xen.control)
                xen.memory = xen.library->xenforeignmemory_open(&xen_library_silence, 0);
        return xen.memory ? 0 : xen_library_failed();
}

/* Only what there is: to ask for more would have Xen make the table larger. */
static int count_entries(uint32_t domain, uint64_t *ret) {
        struct gnttab_query_size query = { .dom = (domid_t)domain };
        int version = xen.library->xc_gnttab_get_version(xen.control, domain);

        if (version < 0)
                return errno == ESRCH ? -ENOENT : xen_library_failed();
        /* One that has not said yet which it wants has none of its own. */
        if (version > 1)
                return -EOPNOTSUPP;
        if (xen.library->xc_gnttab_query_size(xen.control, &query) < 0 || query.status != GNTST_okay)
                return -ENOENT;
        *ret = query.nr_frames * (uint64_t)XEN_ENTRIES_PER_FRAME;
        return 0;
}

static void look_entry(const grant_entry_v1_t *entry, uint32_t ref, bool writes, struct xen_foreign_use *use) {
        const uint16_t flags = entry ? __atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) : 0;

        use->in_use += (flags & (GTF_reading | GTF_writing)) != 0;
        if (entry && (flags & GTF_type_mask) == GTF_permit_access && entry->domid == HOST && !(writes && flags & GTF_readonly))
                return;
        if (!use->not_granted++)
                use->first_not_granted = ref;
}

struct xen_foreign {
        xenforeignmemory_resource_handle *handle;
        const grant_entry_v1_t *entries;
        uint64_t n;
};

int xen_foreign_open(uint32_t domain, struct xen_foreign **ret) {
        struct xen_foreign *foreign;
        void *at = NULL;
        uint64_t n = 0;
        int r = open_xen();

        if (r == 0)
                r = count_entries(domain, &n);
        if (r < 0)
                return r;
        foreign = calloc(1, sizeof(*foreign));
        if (!foreign)
                return -ENOMEM;
        foreign->handle = xen.library->xenforeignmemory_map_resource(xen.memory, (domid_t)domain, XENMEM_resource_grant_table,
                                                                     XENMEM_resource_grant_table_id_shared, 0,
                                                                     n / XEN_ENTRIES_PER_FRAME, &at, PROT_READ, 0);
        if (!foreign->handle) {
                r = xen_library_failed();
                free(foreign);
                return r;
        }
        foreign->entries = at;
        foreign->n = n;
        *ret = foreign;
        return 0;
}

void xen_foreign_look(const struct xen_foreign *foreign, const struct grant_run *runs, size_t n_runs, bool writes,
                      struct xen_foreign_use *ret) {
        *ret = (struct xen_foreign_use){ 0 };
        for (size_t i = 0; i < n_runs; i++)
                for (uint64_t ref = runs[i].first; ref < (uint64_t)runs[i].first + runs[i].count; ref++)
                        look_entry(ref < foreign->n ? foreign->entries + ref : NULL, (uint32_t)ref, writes, ret);
}

struct xen_foreign *xen_foreign_close(struct xen_foreign *foreign) {
        if (foreign)
                xen.library->xenforeignmemory_unmap_resource(xen.memory, foreign->handle);
        free(foreign);
        return NULL;
}

/* ---- this host's ---- */

static int fail(uint64_t pages, int error, struct failure *failure) {
        if (error == ENOSPC)
                return failure_set(failure, REASON_limit, "%" PRIu64 " pages more are beyond what this host grants by " GNTALLOC
                                   ": " GNTALLOC_LIMIT " says how many there can be in all", pages);
        if (error == ENOENT)
                return failure_set(failure, REASON_source_unavailable, "there is no " GNTALLOC ": is xen_gntalloc loaded?");
        if (error == ENOMEM)
                return failure_set(failure, REASON_no_memory, "this host has no memory for %" PRIu64 " pages", pages);
        return failure_set_errno(failure, REASON_source_unavailable, error, "this host grants no pages by " GNTALLOC ": %s",
                                 strerror(error));
}

/* The runs of them, in order. */
static int note_runs(const uint32_t *refs, uint64_t pages, struct grant_run **ret, size_t *ret_n) {
        struct grant_run *runs = calloc(pages, sizeof(*runs));
        size_t n = 0;

        if (!runs)
                return -ENOMEM;
        for (uint64_t i = 0; i < pages; i++) {
                if (n && runs[n - 1].first + runs[n - 1].count == refs[i])
                        runs[n - 1].count++;
                else
                        runs[n++] = (struct grant_run){ .first = refs[i], .count = 1 };
        }
        *ret = runs;
        *ret_n = n;
        return 0;
}

static int share(int fd, uint32_t domain, uint64_t pages, bool is_writable, struct grant_run **ret, size_t *ret_n) {
        struct ioctl_gntalloc_alloc_gref *request = calloc(1, sizeof(*request) + pages * sizeof(request->gref_ids[0]));
        int r = request ? 0 : -ENOMEM;

        if (request) {
                request->domid = (uint16_t)domain;
                request->flags = is_writable ? GNTALLOC_FLAG_WRITABLE : 0;
                request->count = (uint32_t)pages;
                if (ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, request) < 0)
                        r = -errno;
                else if (request->index)
                        r = -EPROTO;
        }
        if (r == 0)
                r = note_runs((const uint32_t *)((const char *)request + offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids)),
                              pages, ret, ret_n);
        free(request);
        return r;
}

int xen_share_open(uint32_t domain, uint64_t pages, bool is_writable, int *ret_fd, struct grant_run **ret_runs,
                   size_t *ret_n_runs, struct failure *failure) {
        int fd = open(GNTALLOC, O_RDWR | O_CLOEXEC), r;

        if (fd < 0)
                return fail(pages, errno, failure);
        r = share(fd, domain, pages, is_writable, ret_runs, ret_n_runs);
        if (r < 0) {
                close(fd);
                return fail(pages, -r, failure);
        }
        *ret_fd = fd;
        return 0;
}

void xen_share_end(int fd, uint64_t pages) {
        struct ioctl_gntalloc_dealloc_gref request = { .count = (uint32_t)pages };

        ioctl(fd, IOCTL_GNTALLOC_DEALLOC_GREF, &request);
        close(fd);
}
