#!/bin/sh
# A real QEMU with a guest in it that has windows of a real daemon: kvm-host.c says what is proven. The kernel comes from
# DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh gets one); ./run sees to it. PROGRAM is another program of the kind.
. "$(dirname "$0")/initrd.sh"
need_machine

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
make_initrd "$work" tests/vm/kvm-guest "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_console" ||
        exit 99
start=$(date +%s)
"$TOP_BUILDDIR/tests/vm/${PROGRAM:-kvm-host}" "$DMAB_VM_DEBIAN_KERNEL" "$work/initrd"
status=$?
echo "it took $(($(date +%s) - start)) s"
exit $status
