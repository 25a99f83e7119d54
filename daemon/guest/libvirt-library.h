/* libvirt's library, found when the program runs: one program serves hosts with it and without it. */
#ifndef DMAB_GUEST_LIBVIRT_LIBRARY_H
#define DMAB_GUEST_LIBVIRT_LIBRARY_H

/* There is nothing of this in a build without libvirt. */
#include <config.h>
#ifdef HAVE_LIBVIRT

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#define LIBVIRT_LIBRARY_SYMBOLS(each) \
        each(virConnectClose) \
        each(virConnectDomainEventDeregisterAny) \
        each(virConnectDomainEventRegisterAny) \
        each(virConnectIsAlive) \
        each(virConnectListAllDomains) \
        each(virConnectOpen) \
        each(virConnectRegisterCloseCallback) \
        each(virConnectSetKeepAlive) \
        each(virConnectUnregisterCloseCallback) \
        each(virDomainAttachDeviceFlags) \
        each(virDomainDetachDeviceAlias) \
        each(virDomainDetachDeviceFlags) \
        each(virDomainFree) \
        each(virDomainGetID) \
        each(virDomainGetMetadata) \
        each(virDomainGetName) \
        each(virDomainGetState) \
        each(virDomainGetUUIDString) \
        each(virDomainGetXMLDesc) \
        each(virDomainIsPersistent) \
        each(virDomainLookupByUUIDString) \
        each(virDomainSetMetadata) \
        each(virEventRegisterImpl) \
        each(virGetLastError) \
        each(virInitialize) \
        each(virResetLastError) \
        each(virSetErrorFunc)

struct libvirt_library {
#define LIBVIRT_LIBRARY_MEMBER(name) __typeof__(name) *name;
        LIBVIRT_LIBRARY_SYMBOLS(LIBVIRT_LIBRARY_MEMBER)
#undef LIBVIRT_LIBRARY_MEMBER
};

/* The library, initialised and with libvirt-loop.h as its event loop, once for all; it stays. NULL if there is none: *ret_why,
 * unless it is NULL, is then a sentence that stays valid. Any thread may ask. */
const struct libvirt_library *libvirt_library(const char **ret_why);

#endif
#endif
