#include <config.h>

#include "tests/unit/fake-xen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/source/xen-library.h"

#define NOTES_FRAME UINT64_C(0x1000000) /* where Xen would have its notes on frames */
enum { PAGE = 4096, NOTES_BYTES = FAKE_PAGES * 8 };

struct fake_xen fake_xen;
static int memory_fd, notes_fd;
static uint64_t *notes;
static uint8_t *memory_pages;

const struct xen_library *__wrap_xen_library(const char **ret_why);

/* ---- the machine ---- */

void fake_xen_begin(void) {
        fake_xen = (struct fake_xen){ .order_max = 18, .exchanges_max = UINT32_MAX };
        fake_xen.domains[0].is_there = true;
        memory_fd = memfd_create("machine", MFD_CLOEXEC);
        notes_fd = memfd_create("notes", MFD_CLOEXEC);
        if (ftruncate(memory_fd, (off_t)FAKE_PAGES * PAGE) < 0 || ftruncate(notes_fd, NOTES_BYTES) < 0)
                abort();
        notes = mmap(NULL, NOTES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, notes_fd, 0);
        memset(notes, 0xff, NOTES_BYTES);
        memory_pages = mmap(NULL, (size_t)FAKE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
}

void fake_xen_end(void) {
        for (struct fake_domain *domain = fake_xen.domains; domain < fake_xen.domains + FAKE_DOMAINS; domain++)
                free(domain->table);
        munmap(notes, NOTES_BYTES);
        munmap(memory_pages, (size_t)FAKE_PAGES * PAGE);
        close(notes_fd);
        close(memory_fd);
}

uint64_t fake_xen_free(void) {
        uint64_t n = 0;

        for (unsigned i = 0; i < FAKE_PAGES; i++)
                n += !fake_xen.owner[i];
        return n;
}

void fake_xen_forge(uint64_t frame, uint16_t owner) {
        fake_xen.owner[frame] = owner;
        notes[frame] = UINT64_C(0xdab) << 32;
}

void fake_xen_guest(uint16_t domid) {
        fake_xen.domains[domid] = (struct fake_domain){ .is_there = true };
}

void fake_xen_give(uint16_t domid, uint64_t frame, uint64_t count, uint64_t pfn) {
        for (uint64_t i = 0; i < count; i++) {
                fake_xen.owner[frame + i] = domid;
                notes[frame + i] = pfn + i;
        }
        fake_xen.domains[domid].pages += count;
}

uint64_t fake_xen_name(uint64_t frame) {
        return notes[frame];
}

uint8_t *fake_xen_page(uint64_t frame) {
        return memory_pages + frame * PAGE;
}

void fake_xen_destroy(uint16_t domid) {
        struct fake_domain *domain = &fake_xen.domains[domid];

        for (unsigned i = 0; i < FAKE_PAGES; i++)
                if (fake_xen.owner[i] == domid) {
                        fake_xen.owner[i] = 0;
                        notes[i] = UINT64_MAX;
                }
        domain->is_there = false;
        domain->pages = 0;
}

static int fail(int error) {
        errno = error;
        return -1;
}

/* ---- libxenctrl ---- */

static void note_logger(const xentoollog_logger *logger) {
        fake_xen.n_loud += logger != &xen_library_silence;
}

static xc_interface *control_open(xentoollog_logger *logger, xentoollog_logger *builder, unsigned flags) {
        note_logger(logger);
        return (xc_interface *)&fake_xen;
}

static int control_close(xc_interface *control) {
        return 0;
}

static int version(xc_interface *control, int command, void *arg) {
        return 4 << 16 | 17;
}

static int physinfo(xc_interface *control, xc_physinfo_t *ret) {
        ret->free_pages = fake_xen_free();
        return fake_xen.no_ask ? fail(fake_xen.no_ask) : 0;
}

static int create(xc_interface *control, uint32_t *ret, struct xen_domctl_createdomain *options) {
        uint32_t domid = 1;

        fake_xen.creates++;
        while (domid < FAKE_DOMAINS && fake_xen.domains[domid].is_there)
                domid++;
        if (fake_xen.no_create || domid == FAKE_DOMAINS)
                return fail(fake_xen.no_create ? fake_xen.no_create : ENOMEM);
        free(fake_xen.domains[domid].table);
        fake_xen.domains[domid] = (struct fake_domain){ .is_there = true, .table = calloc(FAKE_ENTRIES, 8) };
        memcpy(fake_xen.domains[domid].handle, options->handle, 16);
        *ret = domid;
        return 0;
}

static int destroy(xc_interface *control, uint32_t domid) {
        fake_xen_destroy((uint16_t)domid);
        return 0;
}

static int set_limit(xc_interface *control, uint32_t domid, uint64_t kib) {
        fake_xen.domains[domid].max_pages = kib / 4;
        return 0;
}

static int list(xc_interface *control, uint32_t first, unsigned max, xc_domaininfo_t *ret) {
        void (*listed)(void) = fake_xen.listed;
        unsigned n = 0;

        for (uint32_t domid = first; domid < FAKE_DOMAINS && n < max; domid++) {
                struct fake_domain *domain = &fake_xen.domains[domid];

                if (!domain->is_there)
                        continue;
                domain->ran_ns += domain->is_stopped ? 0 : 1000;
                ret[n] = (xc_domaininfo_t){ .domain = (domid_t)domid, .tot_pages = domain->pages, .cpu_time = domain->ran_ns };
                ret[n].flags = (domain->is_hvm ? XEN_DOMINF_hvm_guest : 0) | (domain->is_paused ? XEN_DOMINF_paused : 0);
                memcpy(ret[n++].handle, domain->handle, 16);
        }
        fake_xen.listed = NULL;
        if (listed)
                listed();
        return (int)n;
}

static bool are(uint64_t frame, uint64_t count, uint16_t owner) {
        for (uint64_t i = 0; i < count; i++)
                if (frame + i >= FAKE_PAGES || fake_xen.owner[frame + i] != owner)
                        return false;
        return true;
}

/* The first frame is never given. */
static int populate(xc_interface *control, uint32_t domid, unsigned long n, unsigned order, unsigned flags,
                    xen_pfn_t *extent) {
        struct fake_domain *domain = &fake_xen.domains[domid];
        const uint64_t count = UINT64_C(1) << order;

        if (fake_xen.n_bits < sizeof(fake_xen.bits) / sizeof(*fake_xen.bits))
                fake_xen.bits[fake_xen.n_bits++] = flags;
        if (!domain->is_there || order > fake_xen.order_max || domain->pages + count > domain->max_pages)
                return fail(domain->is_there ? EBUSY : ESRCH);
        for (uint64_t frame = count < 512 ? 512 : count; frame + count <= FAKE_PAGES; frame += count)
                if (are(frame, count, 0)) {
                        for (uint64_t i = 0; i < count; i++) {
                                fake_xen.owner[frame + i] = (uint16_t)domid;
                                notes[frame + i] = *extent + i;
                        }
                        domain->pages += count;
                        *extent = frame;
                        return 0;
                }
        return fail(EBUSY);
}

static int decrease(xc_interface *control, uint32_t domid, unsigned long n, unsigned order, xen_pfn_t *extent) {
        const uint64_t count = UINT64_C(1) << order;

        if (fake_xen.no_give_back || !are(*extent, count, (uint16_t)domid))
                return fail(fake_xen.no_give_back ? fake_xen.no_give_back : EINVAL);
        for (uint64_t i = 0; i < count; i++) {
                fake_xen.owner[*extent + i] = 0;
                notes[*extent + i] = UINT64_MAX;
        }
        fake_xen.domains[domid].pages -= count;
        return 0;
}

/* How many there may be, and not the last one. */
static int max_page(xc_interface *control, unsigned long *ret) {
        *ret = FAKE_PAGES * (fake_xen.has_hole ? 2 : 1);
        return 0;
}

/* Fewer than were asked for are a failure that has no errno. In place of what is not there the one before is told again. */
static int notes_list(xc_interface *control, unsigned long n, xen_pfn_t *ret) {
        unsigned long i;

        if (fake_xen.no_notes)
                return fail(fake_xen.no_notes);
        for (i = 0; i < n && i < (fake_xen.has_hole ? 2 : 1); i++)
                ret[i] = NOTES_FRAME;
        return i == n ? 0 : -1;
}

static int table_version(xc_interface *control, uint32_t domid) {
        if (fake_xen.no_version)
                return fail(fake_xen.no_version == FAKE_UNSAID ? 0 : fake_xen.no_version);
        return fake_xen.domains[domid].is_there ? 1 : fail(ESRCH);
}

static int table_size(xc_interface *control, struct gnttab_query_size *query) {
        query->nr_frames = query->max_nr_frames = FAKE_ENTRIES / 512;
        query->status = GNTST_okay;
        return 0;
}

/* ---- libxencall ---- */

static xencall_handle *call_open(xentoollog_logger *logger, unsigned flags) {
        if (!fake_xen.no_call)
                return (xencall_handle *)&fake_xen;
        errno = fake_xen.no_call;
        return NULL;
}

static int call_close(xencall_handle *handle) {
        return 0;
}

static void *call_alloc(xencall_handle *handle, size_t size) {
        return calloc(1, size);
}

static void call_free(xencall_handle *handle, void *buffer) {
        free(buffer);
}

/* What was taken has nobody who could lose it once more. */
static bool can_be_taken(const xen_memory_exchange_t *exchange, const xen_pfn_t *frames) {
        for (uint64_t i = 0; i < UINT64_C(1) << exchange->out.extent_order; i++) {
                if (!are(frames[i], 1, exchange->in.domid) || fake_xen.is_used[frames[i]])
                        return false;
                for (uint64_t before = 0; before < i; before++)
                        if (frames[before] == frames[i])
                                return false;
        }
        return true;
}

/* From the end of the machine's memory on; 0: there is none. */
static uint64_t find_free(uint64_t count, unsigned bits) {
        const uint64_t end = bits && bits < 40 ? (UINT64_C(1) << bits) / PAGE : FAKE_PAGES;

        for (uint64_t frame = (end < FAKE_PAGES ? end : FAKE_PAGES) / count * count; frame >= count + 1; frame -= count)
                if (are(frame - count, count, 0))
                        return frame - count;
        return 0;
}

static int exchange_one(const xen_memory_exchange_t *exchange, const xen_pfn_t *in, xen_pfn_t *out) {
        const uint64_t count = UINT64_C(1) << exchange->out.extent_order;
        uint64_t frame;

        if (fake_xen.exchanges == fake_xen.exchanges_max || !can_be_taken(exchange, in))
                return fake_xen.exchanges == fake_xen.exchanges_max ? ENOMEM : EINVAL;
        frame = find_free(count, XENMEMF_get_address_bits(exchange->out.mem_flags));
        if (!frame)
                return ENOMEM;
        for (uint64_t i = 0; i < count; i++) {
                fake_xen.owner[in[i]] = 0;
                notes[in[i]] = UINT64_MAX;
        }
        fake_xen.domains[exchange->in.domid].pages -= count;
        fake_xen_give(exchange->in.domid, frame, count, *out);
        *out = frame;
        fake_xen.exchanges++;
        return 0;
}

static int call2(xencall_handle *handle, unsigned op, uint64_t command, uint64_t argument) {
        xen_memory_exchange_t *about = (xen_memory_exchange_t *)(uintptr_t)argument;
        void (*exchanged)(void) = fake_xen.exchanged;
        xen_pfn_t *in, *out;
        int error = 0;

        if (op != __HYPERVISOR_memory_op || command != XENMEM_exchange || about->in.extent_order ||
            about->in.domid != about->out.domid || about->nr_exchanged ||
            about->in.nr_extents != about->out.nr_extents << about->out.extent_order)
                return fail(ENOSYS);
        in = about->in.extent_start.p;
        out = about->out.extent_start.p;
        for (uint64_t i = 0; i < about->out.nr_extents && !error; i++) {
                error = exchange_one(about, in + (i << about->out.extent_order), out + i);
                about->nr_exchanged += error ? 0 : UINT64_C(1) << about->out.extent_order;
        }
        fake_xen.exchanged = NULL;
        if (exchanged)
                exchanged();
        return error ? fail(error) : 0;
}

/* ---- libxenforeignmemory ---- */

static xenforeignmemory_handle *memory_open(xentoollog_logger *logger, unsigned flags) {
        note_logger(logger);
        return (xenforeignmemory_handle *)&fake_xen;
}

static int memory_close(xenforeignmemory_handle *memory) {
        return 0;
}

static void *map(xenforeignmemory_handle *memory, uint32_t domid, int protection, size_t n, const xen_pfn_t *frames,
                 int *errors) {
        char *at;

        if (fake_xen.maps_to_pass > 0) {
                fake_xen.maps_to_pass--;
        } else if (fake_xen.maps_to_fail > 0) {
                fake_xen.maps_to_fail--;
                errno = fake_xen.no_map ? fake_xen.no_map : ENOMEM;
                return NULL;
        }
        if (domid == DOMID_XEN)
                return mmap(NULL, n * PAGE, protection, MAP_SHARED, notes_fd, (off_t)(frames[0] - NOTES_FRAME) * PAGE);
        for (size_t i = 0; i < n; i++) {
                const bool is_right = are(frames[i], 1, (uint16_t)domid);

                fake_xen.refused += !is_right;
                if (errors)
                        errors[i] = is_right ? 0 : -EINVAL;
                else if (!is_right) {
                        errno = EINVAL;
                        return NULL;
                }
        }
        at = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0, run; i < n; i += run) {
                for (run = 1; i + run < n && frames[i + run] == frames[i] + run;)
                        run++;
                if (!errors || !errors[i])
                        mmap(at + i * PAGE, run * PAGE, protection, MAP_SHARED | MAP_FIXED, memory_fd, (off_t)frames[i] * PAGE);
        }
        return at;
}

static int unmap(xenforeignmemory_handle *memory, void *at, size_t n) {
        return munmap(at, n * PAGE);
}

static xenforeignmemory_resource_handle *map_resource(xenforeignmemory_handle *memory, domid_t domid, unsigned type,
                                                      unsigned id, unsigned long frame, unsigned long n, void **ret,
                                                      int protection, int flags) {
        if (fake_xen.no_table) {
                errno = fake_xen.no_table == FAKE_UNSAID ? 0 : fake_xen.no_table;
                return NULL;
        }
        fake_xen.tables++;
        *ret = fake_xen.domains[domid].table;
        return (xenforeignmemory_resource_handle *)&fake_xen;
}

static int unmap_resource(xenforeignmemory_handle *memory, xenforeignmemory_resource_handle *handle) {
        return 0;
}

const struct xen_library *__wrap_xen_library(const char **ret_why) {
        static const struct xen_library library = {
                .has_call = true,
                .xc_domain_create = create,
                .xc_domain_decrease_reservation_exact = decrease,
                .xc_domain_destroy = destroy,
                .xc_domain_getinfolist = list,
                .xc_domain_populate_physmap_exact = populate,
                .xc_domain_setmaxmem = set_limit,
                .xc_gnttab_get_version = table_version,
                .xc_gnttab_query_size = table_size,
                .xc_interface_close = control_close,
                .xc_interface_open = control_open,
                .xc_machphys_mfn_list = notes_list,
                .xc_maximum_ram_page = max_page,
                .xc_physinfo = physinfo,
                .xc_version = version,
                .xencall2 = call2,
                .xencall_alloc_buffer = call_alloc,
                .xencall_close = call_close,
                .xencall_free_buffer = call_free,
                .xencall_open = call_open,
                .xenforeignmemory_close = memory_close,
                .xenforeignmemory_map = map,
                .xenforeignmemory_map_resource = map_resource,
                .xenforeignmemory_open = memory_open,
                .xenforeignmemory_unmap = unmap,
                .xenforeignmemory_unmap_resource = unmap_resource,
        };

        return &library;
}
