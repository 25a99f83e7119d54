#!/bin/sh
# A device that is passed through: a virtual machine with an IOMMU is the host, has a guest of its own, and gives it a real device of
# its. The guest asks the broker for memory, its device writes there through the host's IOMMU, and the guest reads it: kvm-host.c
# says what is proven. The kernel comes from DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh gets one); ./run sees to it.
. "$(dirname "$0")/initrd.sh"
need_machine
qemu=$(command -v qemu-system-x86_64)

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
mkdir "$work/guest" "$work/host" || exit 99
make_initrd "$work/guest" tests/vm/kvm-guest \
        "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_console" || exit 99
root=$work/host/root
mkdir -p "$root/guest" "$root/usr/bin" "$root/usr/share/qemu" "$root/usr/share/seabios" &&
        cp "$DMAB_VM_DEBIAN_KERNEL" "$root/guest/kernel" && cp "$work/guest/initrd" "$root/guest/initrd" &&
        cp "$qemu" "$root/usr/bin/" || exit 99
for file in bios-256k.bin bios.bin kvmvapic.bin linuxboot.bin linuxboot_dma.bin; do
        found=$(find -L /usr/share/qemu /usr/share/seabios -name $file 2>/dev/null | head -n 1)
        [ -z "$found" ] || cp -L "$found" "$root/usr/share/qemu/" || exit 99
done
# What QEMU loads by itself.
for file in $(find /usr/lib -name "accel-*-x86_64.so" -path "*qemu*" 2>/dev/null); do
        mkdir -p "$root$(dirname "$file")" && cp "$file" "$root$file" || exit 99
done
make_initrd "$work/host" tests/vm/kvm-l1 "irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci" \
        dmabrokerd tests/vm/kvm-host || exit 99

run_machine "$work" 700 -accel tcg -cpu qemu64 -machine q35,kernel-irqchip=split -m 1536 -smp 1 -no-reboot \
        -device intel-iommu,intremap=on,caching-mode=on -device edu,addr=2,dma_mask=0xffffffffff \
        -kernel "$DMAB_VM_DEBIAN_KERNEL" -initrd "$work/host/initrd" \
        -append "console=ttyS0 panic=-1 nokaslr mitigations=off intel_iommu=on loglevel=4"
