#!/bin/sh
# A real QEMU with a guest in it that has windows of a real daemon: kvm-host.c says what is proven. The kernel comes from
# DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh gets one); ./run sees to it.
skip() {
        echo "skipped: $*"
        exit 77
}

[ -n "$DMAB_VM_DEBIAN_KERNEL" ] || skip "DMAB_VM_DEBIAN_KERNEL names no kernel of Debian (tests/vm/fetch-kernel.sh)"
[ "$(uname -m)" = x86_64 ] || skip "the virtual machine is x86_64"
[ -z "$SANITIZE_CFLAGS" ] || skip "sanitizers want more memory than the virtual machine has"
for tool in qemu-system-x86_64 cpio ldd; do
        command -v $tool >/dev/null || skip "$tool is not installed"
done

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
. "$(dirname "$0")/initrd.sh"
make_initrd "$work" tests/vm/kvm-guest "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_console" ||
        exit 99
start=$(date +%s)
"$TOP_BUILDDIR/tests/vm/kvm-host" "$DMAB_VM_DEBIAN_KERNEL" "$work/initrd"
status=$?
echo "it took $(($(date +%s) - start)) s"
exit $status
