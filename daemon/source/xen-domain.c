#include <config.h>

#include "daemon/source/xen-domain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/source/xen-library.h"

/* What a memory domain calls its frames: this, its number, and the place within the piece that it got at a time. */
#define NAME_MARK (UINT64_C(0xdab) << 32)
#define NAME_NUMBER_SHIFT 20

enum {
        LIST_PIECE = 64,   /* domains listed at a time */
        NOTES_PAGES = 512, /* of the notes on frames, in one piece of the machine's memory */
        NOTES_PER_PIECE = NOTES_PAGES * XEN_PAGE / sizeof(uint64_t),
        MAPTRACK_NONE = 0,
};

struct xen_host {
        const struct xen_library *library;
        xc_interface *control;
        xenforeignmemory_handle *memory;
        char about[32];
};

/* ---- the way to the hypervisor ---- */

static int refuse(int error, const char *what, struct failure *failure) {
        return failure_set_errno(failure, REASON_source_unavailable, error, "%s: %s%s", what, strerror(error),
                                 error == EACCES || error == EPERM
                                         ? " (the daemon must be root in a dom0, and Xen the release that it was built for)"
                                         : "");
}

int xen_host_open(struct xen_host **ret, const char **ret_about, struct failure *failure) {
        const char *why = NULL;
        const struct xen_library *library = xen_library(&why);
        struct xen_host *host;
        xc_physinfo_t info = { 0 };
        int error, version;

        if (!library)
                return failure_set_errno(failure, REASON_source_unavailable, ENODEV, "%s", why);
        host = calloc(1, sizeof(*host));
        if (!host)
                return failure_set(failure, REASON_no_memory, "there is no memory to open the way to Xen");
        host->library = library;
        host->control = library->xc_interface_open(&xen_library_silence, NULL, 0);
        host->memory = host->control ? library->xenforeignmemory_open(&xen_library_silence, 0) : NULL;
        error = host->memory ? 0 : -xen_library_failed();
        if (!error && library->xc_physinfo(host->control, &info) < 0)
                error = -xen_library_failed();
        if (error) {
                xen_host_close(host);
                return refuse(error, "the hypervisor cannot be asked", failure);
        }
        version = library->xc_version(host->control, XENVER_version, NULL);
        snprintf(host->about, sizeof(host->about), "Xen %d.%d", version >> 16, version & 0xffff);
        if (ret_about)
                *ret_about = host->about;
        *ret = host;
        return 0;
}

struct xen_host *xen_host_close(struct xen_host *host) {
        if (!host)
                return NULL;
        if (host->memory)
                host->library->xenforeignmemory_close(host->memory);
        if (host->control)
                host->library->xc_interface_close(host->control);
        free(host);
        return NULL;
}

uint64_t xen_host_free(struct xen_host *host) {
        xc_physinfo_t info = { 0 };

        return host->library->xc_physinfo(host->control, &info) < 0 ? 0 : info.free_pages * XEN_PAGE;
}

/* ---- who there is ---- */

static void put_number(uint8_t *at, uint64_t number, unsigned n_bytes) {
        while (n_bytes-- > 0)
                *at++ = (uint8_t)(number >> 8 * n_bytes);
}

static uint32_t get_number(const uint8_t *at, unsigned n_bytes) {
        uint32_t number = 0;

        while (n_bytes-- > 0)
                number = number << 8 | *at++;
        return number;
}

static void make_uuid(uint64_t identity, uint32_t number, uint32_t grant_frames, xen_domain_handle_t ret) {
        memcpy(ret, "dmab", 4);
        put_number(ret + 4, identity, 8);
        put_number(ret + 12, grant_frames, 2);
        put_number(ret + 14, number, 2);
}

static bool is_ours(const xc_domaininfo_t *info, uint64_t identity) {
        xen_domain_handle_t ours;

        make_uuid(identity, 0, 0, ours);
        return memcmp(info->handle, ours, 12) == 0 && get_number(info->handle + 14, 2) < XEN_DOMAINS_MAX &&
               !(info->flags & XEN_DOMINF_hvm_guest);
}

/* Each of Xen's domains, until visit() fails. */
static int visit_domains(struct xen_host *host, int (*visit)(void *userdata, const xc_domaininfo_t *info), void *userdata) {
        xc_domaininfo_t infos[LIST_PIECE];
        uint32_t first = 0;
        int got, r = 0;

        do {
                got = host->library->xc_domain_getinfolist(host->control, first, LIST_PIECE, infos);
                r = got < 0 ? xen_library_failed() : 0;
                for (int i = 0; i < got && r == 0; i++) {
                        r = visit(userdata, &infos[i]);
                        first = infos[i].domain + 1u;
                }
        } while (r == 0 && got == LIST_PIECE);
        return r;
}

struct listing {
        struct xen_listed *all;
        size_t n;
};

static void describe(const xc_domaininfo_t *info, struct xen_listed *ret) {
        *ret = (struct xen_listed){
                .domid = info->domain,
                .is_pv = !(info->flags & XEN_DOMINF_hvm_guest),
                .is_paused = info->flags & XEN_DOMINF_paused,
                .is_dying = info->flags & XEN_DOMINF_dying,
                .is_running = info->flags & XEN_DOMINF_running,
                .ran_ns = info->cpu_time,
                .is_down = info->flags & XEN_DOMINF_shutdown,
                .why_down = info->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask,
        };
        memcpy(ret->uuid, info->handle, sizeof(ret->uuid));
}

static int note_listed(void *userdata, const xc_domaininfo_t *info) {
        struct listing *listing = userdata;
        struct xen_listed *more = realloc(listing->all, (listing->n + 1) * sizeof(*more));

        if (!more)
                return -ENOMEM;
        listing->all = more;
        describe(info, &more[listing->n++]);
        return 0;
}

int xen_host_list(struct xen_host *host, struct xen_listed **ret, size_t *ret_n) {
        struct listing listing = { 0 };
        int r = visit_domains(host, note_listed, &listing);

        if (r < 0) {
                free(listing.all);
                return r;
        }
        *ret = listing.all;
        *ret_n = listing.n;
        return 0;
}

/* Xen tells of the first one from that number on. */
int xen_host_look(struct xen_host *host, uint32_t domid, struct xen_listed *ret) {
        xc_domaininfo_t info;
        int got = host->library->xc_domain_getinfolist(host->control, domid, 1, &info);

        if (got < 0)
                return xen_library_failed();
        if (got == 0 || info.domain != domid)
                return -ENOENT;
        describe(&info, ret);
        return 0;
}

void xen_write_uuid(const uint8_t uuid[16], char ret[37]) {
        size_t used = 0;

        for (unsigned i = 0; i < 16; i++) {
                const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";

                used += (size_t)snprintf(ret + used, 37 - used, "%s%02x", dash, uuid[i]);
        }
}

int xen_host_look_guest(struct xen_host *host, uint32_t domid, const char *uuid, struct xen_listed *ret) {
        struct xen_listed listed;
        char text[37];
        int r = xen_host_look(host, domid, &listed);

        if (r < 0)
                return r;
        xen_write_uuid(listed.uuid, text);
        if (strcmp(text, uuid) != 0)
                return -ENOENT;
        *ret = listed;
        return 0;
}

struct search {
        uint64_t identity;
        struct xen_domain *domains;
        size_t n;
};

static int note_domain(void *userdata, const xc_domaininfo_t *info) {
        struct search *search = userdata;
        struct xen_domain *more;

        if (!is_ours(info, search->identity))
                return 0;
        more = realloc(search->domains, (search->n + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        more[search->n++] = (struct xen_domain){
                .domid = info->domain,
                .number = get_number(info->handle + 14, 2),
                .grant_frames = get_number(info->handle + 12, 2),
                .pages = info->tot_pages,
                .is_dying = info->flags & XEN_DOMINF_dying,
        };
        search->domains = more;
        return 0;
}

static int by_number(const void *a, const void *b) {
        const struct xen_domain *x = a, *y = b;

        return (x->number > y->number) - (x->number < y->number);
}

int xen_domains_find(struct xen_host *host, uint64_t identity, struct xen_domain **ret, size_t *ret_n) {
        struct search search = { .identity = identity };
        int r = visit_domains(host, note_domain, &search);

        if (r < 0) {
                free(search.domains);
                return r;
        }
        if (search.n)
                qsort(search.domains, search.n, sizeof(*search.domains), by_number);
        *ret = search.domains;
        *ret_n = search.n;
        return 0;
}

uint64_t xen_domain_capacity(const struct xen_domain *domain) {
        return (uint64_t)domain->grant_frames * XEN_ENTRIES_PER_FRAME - XEN_ENTRIES_RESERVED;
}

int xen_domain_limit(struct xen_host *host, const struct xen_domain *domain) {
        const uint64_t kib = xen_domain_capacity(domain) * (XEN_PAGE / 1024);

        return host->library->xc_domain_setmaxmem(host->control, domain->domid, kib) < 0 ? xen_library_failed() : 0;
}

int xen_domain_create(struct xen_host *host, uint64_t identity, uint32_t number, uint32_t grant_frames,
                      struct xen_domain *ret,
                      struct failure *failure) {
        struct xen_domain domain = { .number = number, .grant_frames = grant_frames };
        struct xen_domctl_createdomain options = {
                .max_vcpus = 1,
                .max_evtchn_port = 1023,
                .max_grant_frames = (int32_t)grant_frames,
                .max_maptrack_frames = MAPTRACK_NONE,
                .grant_opts = XEN_DOMCTL_GRANT_version(1),
        };
        int r;

        make_uuid(identity, number, grant_frames, options.handle);
        r = host->library->xc_domain_create(host->control, &domain.domid, &options) < 0 ? xen_library_failed() : 0;
        if (r == -EINVAL)
                return failure_set(failure, REASON_limit,
                                   "Xen makes no domain with a grant table of %u frames: lower grant_frames in [source xen], or "
                                   "boot Xen with gnttab_max_frames=%u", grant_frames, grant_frames);
        if (r < 0)
                return refuse(-r, "Xen makes no domain for memory", failure);
        r = xen_domain_limit(host, &domain);
        if (r < 0) {
                xen_domain_destroy(host, &domain);
                return refuse(-r, "Xen lets no domain have memory", failure);
        }
        *ret = domain;
        return 0;
}

int xen_domain_destroy(struct xen_host *host, const struct xen_domain *domain) {
        return host->library->xc_domain_destroy(host->control, domain->domid) < 0 ? xen_library_failed() : 0;
}

/* ---- memory from Xen, and back ---- */

int xen_domain_populate(struct xen_host *host, struct xen_domain *domain, unsigned order, unsigned bits,
                        uint64_t *ret_frame) {
        xen_pfn_t extent = NAME_MARK | (uint64_t)domain->number << NAME_NUMBER_SHIFT;
        int r;

        r = host->library->xc_domain_populate_physmap_exact(host->control, domain->domid, 1, order,
                                                            XENMEMF_address_bits(bits),
                                                            &extent);
        if (r < 0)
                return errno == EBUSY ? -ENOSPC : xen_library_failed();
        domain->pages += UINT64_C(1) << order;
        *ret_frame = extent;
        return 0;
}

int xen_domain_give_back(struct xen_host *host, struct xen_domain *domain, uint64_t frame, unsigned order) {
        xen_pfn_t extent = frame;

        if (host->library->xc_domain_decrease_reservation_exact(host->control, domain->domid, 1, order, &extent) < 0)
                return xen_library_failed();
        domain->pages -= UINT64_C(1) << order;
        return 0;
}

/* ---- mapping ---- */

/* map()s pages from a frame on, unless errors is NULL with those that are not the domain's left out. NULL: errno. */
static void *map(const struct xen_host *host, uint32_t domid, int protection, uint64_t frame, uint64_t count, int *errors) {
        xen_pfn_t *frames = malloc(count * sizeof(*frames));
        void *at = NULL;
        int error = ENOMEM;

        if (frames) {
                for (uint64_t i = 0; i < count; i++)
                        frames[i] = frame + i;
                at = host->library->xenforeignmemory_map(host->memory, domid, protection, count, frames, errors);
                error = -xen_library_failed();
        }
        free(frames);
        errno = error;
        return at;
}

static void unmap(const struct xen_host *host, void *at, uint64_t count) {
        host->library->xenforeignmemory_unmap(host->memory, at, count);
}

/* What is noted of NOTES_PER_PIECE frames, of which the machine has those below `end`. */
static int scan_piece(const uint64_t *notes, uint64_t first, uint64_t end,
                      int (*visit)(void *userdata, uint32_t number, uint64_t frame), void *userdata) {
        int r = 0;

        for (uint64_t i = 0; i < NOTES_PER_PIECE && first + i < end && r == 0; i++)
                if ((notes[i] & ~UINT64_C(0xffffffff)) == NAME_MARK)
                        r = visit(userdata, (uint32_t)notes[i] >> NAME_NUMBER_SHIFT, first + i);
        return r;
}

/* Where the notes are that Xen has on frames below `end`: malloc()ed. */
static int find_notes(struct xen_host *host, unsigned long end, xen_pfn_t **ret, unsigned *ret_n) {
        const unsigned n = (unsigned)((end + NOTES_PER_PIECE - 1) / NOTES_PER_PIECE);
        xen_pfn_t *pieces = calloc(n + 1, sizeof(*pieces));
        int r;

        if (!pieces)
                return -ENOMEM;
        errno = 0;
        r = host->library->xc_machphys_mfn_list(host->control, n, pieces) < 0 ? xen_library_failed() : 0;
        if (r < 0) {
                free(pieces);
                return r;
        }
        *ret = pieces;
        *ret_n = n;
        return 0;
}

int xen_host_scan(struct xen_host *host, int (*visit)(void *userdata, uint32_t number, uint64_t frame), void *userdata) {
        unsigned long end = 0;
        xen_pfn_t *pieces;
        uint64_t *notes;
        unsigned n;
        int r;

        if (host->library->xc_maximum_ram_page(host->control, &end) < 0)
                return xen_library_failed();
        r = find_notes(host, end, &pieces, &n);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < n && r == 0; i++) {
                /* Where there is no memory, there are no notes either, and Xen tells of the last ones once more. */
                if (!pieces[i] || (i && pieces[i] == pieces[i - 1]))
                        continue;
                notes = map(host, DOMID_XEN, PROT_READ, pieces[i], NOTES_PAGES, NULL);
                if (!notes) {
                        r = xen_library_failed();
                        break;
                }
                r = scan_piece(notes, (uint64_t)i * NOTES_PER_PIECE, end, visit, userdata);
                unmap(host, notes, NOTES_PAGES);
        }
        free(pieces);
        return r;
}

/* In these pieces of the notes each of the frames has its own. A page of them stays mapped until another one is wanted. */
static int look_up(struct xen_host *host, const xen_pfn_t *pieces, const uint64_t *frames, size_t n, uint64_t *ret) {
        const uint64_t per_page = XEN_PAGE / sizeof(uint64_t);
        uint64_t mapped = UINT64_MAX;
        const uint64_t *notes = NULL;
        int r = 0;

        for (size_t i = 0; i < n && r == 0; i++) {
                const uint64_t page = frames[i] / per_page, piece = frames[i] / NOTES_PER_PIECE;

                if (page != mapped) {
                        if (notes)
                                unmap(host, (void *)notes, 1);
                        mapped = page;
                        notes = map(host, DOMID_XEN, PROT_READ, pieces[piece] + page % NOTES_PAGES, 1, NULL);
                }
                if (notes)
                        ret[i] = notes[frames[i] % per_page];
                else
                        r = xen_library_failed();
        }
        if (notes)
                unmap(host, (void *)notes, 1);
        return r;
}

int xen_host_names(struct xen_host *host, const uint64_t *frames, size_t n, uint64_t *ret) {
        unsigned long end = 0;
        xen_pfn_t *pieces;
        unsigned n_pieces;
        int r;

        if (host->library->xc_maximum_ram_page(host->control, &end) < 0)
                return xen_library_failed();
        for (size_t i = 0; i < n; i++)
                if (frames[i] >= end)
                        return -ENXIO;
        r = find_notes(host, end, &pieces, &n_pieces);
        if (r < 0)
                return r;
        r = look_up(host, pieces, frames, n, ret);
        free(pieces);
        return r;
}

int xen_domain_map_table(struct xen_host *host, const struct xen_domain *domain, void **ret, void **ret_handle) {
        void *at = NULL, *handle;

        handle = host->library->xenforeignmemory_map_resource(host->memory, (domid_t)domain->domid,
                                                              XENMEM_resource_grant_table,
                                                              XENMEM_resource_grant_table_id_shared, 0, domain->grant_frames,
                                                              &at, PROT_READ | PROT_WRITE, 0);
        if (!handle)
                return xen_library_failed();
        *ret = at;
        *ret_handle = handle;
        return 0;
}

void xen_domain_unmap_table(struct xen_host *host, void *handle) {
        host->library->xenforeignmemory_unmap_resource(host->memory, handle);
}

int xen_domain_owns_each(const struct xen_host *host, uint32_t domid, const uint64_t *frames, uint64_t n, bool *ret) {
        int *errors = calloc(n + 1, sizeof(*errors)), r = -ENOMEM;
        xen_pfn_t *pages = calloc(n + 1, sizeof(*pages));
        void *at;

        if (errors && pages) {
                for (uint64_t i = 0; i < n; i++)
                        pages[i] = frames[i];
                at = host->library->xenforeignmemory_map(host->memory, domid, PROT_READ, n, pages, errors);
                r = at ? 0 : xen_library_failed();
                if (at)
                        unmap(host, at, n);
        }
        for (uint64_t i = 0; i < n && r == 0; i++)
                ret[i] = !errors[i];
        free(pages);
        free(errors);
        return r;
}

int xen_domain_owns(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t count, uint64_t *ret_frame) {
        int *errors = malloc(XEN_MAP_PAGES * sizeof(*errors)), r = errors ? 0 : -ENOMEM;
        uint64_t n;
        void *at;

        for (; count > 0 && r == 0; frame += n, count -= n) {
                n = count < XEN_MAP_PAGES ? count : XEN_MAP_PAGES;
                memset(errors, 0, n * sizeof(*errors));
                at = map(host, domid, PROT_READ, frame, n, errors);
                if (at)
                        unmap(host, at, n);
                else
                        r = xen_library_failed();
                for (uint64_t i = 0; i < n; i++)
                        if (errors[i]) {
                                *ret_frame = frame + i;
                                r = -ENXIO;
                                break;
                        }
        }
        free(errors);
        return r;
}

/* Each piece: zeroed where both are NULL, or read to, or written from. */
static int access_memory(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t offset, char *to,
                         const char *from,
                         uint64_t size) {
        uint64_t within, n, pages;
        char *at;

        frame += offset / XEN_PAGE;
        within = offset % XEN_PAGE;
        for (; size > 0; size -= n, frame += pages, within = 0) {
                n = (uint64_t)XEN_MAP_PAGES * XEN_PAGE - within;
                n = size < n ? size : n;
                pages = (within + n + XEN_PAGE - 1) / XEN_PAGE;
                at = map(host, domid, to ? PROT_READ : PROT_READ | PROT_WRITE, frame, pages, NULL);
                if (!at)
                        return xen_library_failed();
                if (to)
                        memcpy(to, at + within, n);
                else if (from)
                        memcpy(at + within, from, n);
                else
                        memset(at + within, 0, n);
                to = to ? to + n : NULL;
                from = from ? from + n : NULL;
                unmap(host, at, pages);
        }
        return 0;
}

int xen_domain_zero(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t offset, uint64_t size) {
        return access_memory(host, domid, frame, offset, NULL, NULL, size);
}

int xen_domain_read(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t offset, void *buffer,
                    uint64_t size) {
        return access_memory(host, domid, frame, offset, buffer, NULL, size);
}

int xen_domain_write(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t offset, const void *buffer,
                     uint64_t size) {
        return access_memory(host, domid, frame, offset, NULL, buffer, size);
}
