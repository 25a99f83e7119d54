/* The kernel's devices for guests of Xen's, by the kernel's own headers. */
#ifndef DMAB_CLIENT_XEN_DEVICE_H
#define DMAB_CLIENT_XEN_DEVICE_H

#include <stdint.h>
#include <sys/ioctl.h>

/* They take these for granted. */
typedef uint16_t domid_t;
typedef uint32_t grant_ref_t;

#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

#define XEN_GRANTS "/dev/xen/gntdev"
#define XEN_EVENTS "/dev/xen/evtchn"

enum { XEN_PAGE = 4096 };

#endif
