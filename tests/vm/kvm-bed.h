/* What has the guest of kvm-host.c: a QEMU of our own, with an emulated device or with one that is passed through; or
 * libvirtd. */
#ifndef DMAB_TESTS_VM_KVM_BED_H
#define DMAB_TESTS_VM_KVM_BED_H

#include <stdbool.h>
#include <stddef.h>

#define KVM_UUID "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"
/* For the guest's kernel; the first process is told everything else over the serial line. */
#define KVM_CMDLINE "console=ttyS0 panic=1 nokaslr mitigations=off loglevel=1"
/* Where the guest looks for it. */
#define KVM_EDU_SLOT "0x10"

struct kvm_place {
        char directory[64]; /* for sockets; `serial` in it is listened at */
        const char *kernel, *initrd;
        const char *libvirtd, *run_directory; /* or NULL */
};

struct kvm_bed {
        /* Lines of the daemon's configuration: the rest of [guests], and [guest vm]. */
        void (*configure)(const struct kvm_place *place, char *text, size_t size);
        /* advice: what the daemon says that the guest must have. */
        void (*start)(const struct kvm_place *place, const char *advice);
        /* Its QEMU dies; nothing happens if there is none. */
        void (*kill)(void);
        void (*trouble)(void); /* or NULL */
        unsigned allocs; /* that the guest may have, as its domain's metadata says; or 0 */
        bool is_slow; /* a virtual machine in a virtual machine: only what is different there */
};

extern const struct kvm_bed kvm_bed_qemu, kvm_bed_passed_through;
extern const struct kvm_bed *const kvm_bed_libvirt; /* NULL: this build goes without */

void kvm_give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void kvm_check(bool right, const char *what);

#endif
