/* Xen's libraries, found when the program runs: one program serves hosts with Xen and without it. */
#ifndef DMAB_SOURCE_XEN_LIBRARY_H
#define DMAB_SOURCE_XEN_LIBRARY_H

/* There is nothing of this in a build without Xen. */
#include <config.h>
#ifdef HAVE_XEN

#include <stdbool.h>
#include <xencall.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenstore.h>

/* libxenctrl promises nothing from one release to the next; the other keeps what it has. */
#define XEN_LIBRARY_CONTROL(each) \
        each(xc_domain_create) \
        each(xc_domain_decrease_reservation_exact) \
        each(xc_domain_destroy) \
        each(xc_domain_getinfolist) \
        each(xc_domain_populate_physmap_exact) \
        each(xc_domain_setmaxmem) \
        each(xc_gnttab_get_version) \
        each(xc_gnttab_query_size) \
        each(xc_interface_close) \
        each(xc_interface_open) \
        each(xc_machphys_mfn_list) \
        each(xc_maximum_ram_page) \
        each(xc_physinfo) \
        each(xc_version)
#define XEN_LIBRARY_MEMORY(each) \
        each(xenforeignmemory_close) \
        each(xenforeignmemory_map) \
        each(xenforeignmemory_map_resource) \
        each(xenforeignmemory_open) \
        each(xenforeignmemory_unmap) \
        each(xenforeignmemory_unmap_resource)
#define XEN_LIBRARY_STORE(each) \
        each(xs_check_watch) \
        each(xs_close) \
        each(xs_directory) \
        each(xs_fileno) \
        each(xs_open) \
        each(xs_read) \
        each(xs_watch)

#define XEN_LIBRARY_CALL(each) \
        each(xencall2) \
        each(xencall_alloc_buffer) \
        each(xencall_close) \
        each(xencall_free_buffer) \
        each(xencall_open)

struct xen_library {
        bool has_store, has_call; /* else there is none of the last ones */
#define XEN_LIBRARY_MEMBER(name) __typeof__(name) *name;
        XEN_LIBRARY_CONTROL(XEN_LIBRARY_MEMBER)
        XEN_LIBRARY_MEMORY(XEN_LIBRARY_MEMBER)
        XEN_LIBRARY_STORE(XEN_LIBRARY_MEMBER)
        XEN_LIBRARY_CALL(XEN_LIBRARY_MEMBER)
#undef XEN_LIBRARY_MEMBER
};

/* The libraries, opened once for all; they stay. NULL if this machine is no dom0, or if they are not there: *ret_why,
 * unless it is NULL, is then a sentence that stays valid. Any thread may ask. */
const struct xen_library *xen_library(const char **ret_why);

/* For whatever of these libraries takes one: what they would print is in errno. */
extern xentoollog_logger xen_library_silence;
/* -errno of what has just failed: these libraries do not always say. */
int xen_library_failed(void);

#endif
#endif
