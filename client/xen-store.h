/* What dom0 tells a guest of Xen's by xenstore, of which the guest's kernel has a device. */
#ifndef DMAB_CLIENT_XEN_STORE_H
#define DMAB_CLIENT_XEN_STORE_H

#include <stddef.h>
#include <stdint.h>

/* The value at path, which is below what is this domain's; ends with a NUL. -ENOENT: there is none, or no xenstore; -EACCES;
 * -ETIMEDOUT: xenstore does not answer; -EPROTO: what is answered is none, or longer. */
int xen_store_read(const char *path, char *ret, size_t size);

/* Likewise, and it is a decimal number of 32 bits, or -EPROTO. */
int xen_store_read_number(const char *path, uint32_t *ret);

/* Look for the device here instead of in /dev/xen: for tests. The string must live on. */
void xen_store_set_device(const char *path);

#endif
