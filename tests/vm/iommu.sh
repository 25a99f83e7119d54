#!/bin/sh
# Real devices in a virtual machine, behind a real IOMMU, Intel's, AMD's and virtio's, by VFIO's type 1 and by iommufd, and
# behind none: iommu-guest.c, which is all that runs there beside the daemon, says what is proven. Two kernels are tried: that
# of Debian from DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh gets one), and one that has all that we know, from DMAB_VM_KERNEL
# (build-kernel.sh makes it); ./run sees to both.
#
# usage: iommu.sh [intel|amd|virtio|iommufd|noiommu …]
#
# WRITES: how many writes of each kind a device tries to what it may not reach any more; 100 ms each.
. "$(dirname "$0")/initrd.sh"
need_machine

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
make_initrd "$work" tests/vm/iommu-guest "irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci" dmabrokerd || exit 99

# kind: which IOMMU.
run_kind() {
        kernel=$DMAB_VM_DEBIAN_KERNEL
        edu=edu
        case $1 in
        intel)
                set -- -cpu qemu64 -device intel-iommu,intremap=on,caching-mode=on
                argument=intel_iommu=on
                ;;
        amd)
                set -- -cpu EPYC -device amd-iommu,intremap=on
                argument=amd_iommu=on
                ;;
        virtio)
                kernel=$DMAB_VM_KERNEL
                set -- -cpu qemu64 -device virtio-iommu-pci,addr=4
                argument=vfio_iommu_type1.allow_unsafe_interrupts=1
                ;;
        iommufd)
                kernel=$DMAB_VM_KERNEL
                set -- -cpu qemu64 -device intel-iommu,intremap=on,caching-mode=on
                argument="intel_iommu=on WAY=iommufd"
                ;;
        noiommu)
                kernel=$DMAB_VM_KERNEL
                edu=edu,dma_mask=0xffffffffff
                set -- -cpu qemu64
                argument=WAY=noiommu
                ;;
        esac
        run_machine "$work" $((300 + ${WRITES:-20})) -accel tcg -machine q35,kernel-irqchip=split -m 512 -smp 1 -no-reboot "$@" \
                -device $edu,addr=2 -device $edu,addr=3 -kernel "$kernel" -initrd "$work/initrd" \
                -append "console=ttyS0 panic=-1 nokaslr mitigations=off $argument loglevel=4 WRITES=${WRITES:-20}"
}

if [ $# -eq 0 ]; then
        set -- intel amd
        if [ -n "$DMAB_VM_KERNEL" ]; then
                set -- "$@" virtio noiommu
                grep -q "define HAVE_IOMMUFD" "$TOP_BUILDDIR/config.h" && set -- "$@" iommufd ||
                        echo "built without iommufd"
        else
                echo "DMAB_VM_KERNEL names no kernel (tests/vm/build-kernel.sh), so virtio-iommu, iommufd, and none at all are not tried"
        fi
fi
for kind; do
        echo "--- $kind ---"
        run_kind "$kind" || exit 1
done
