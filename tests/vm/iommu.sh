#!/bin/sh
# Real devices behind a real IOMMU, in a virtual machine: iommu-guest.c, which is all that runs there beside the daemon, says what
# is proven. The kernel comes from DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh gets one); ./run sees to it.
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
root=$work/root
mkdir -p "$root/bin" "$root/modules" "$root/lib64" "$root/sys" "$root/dev" "$root/run" "$root/tmp" || exit 99

# libtool's wrappers of programs that are linked with the library become real ones.
"$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/dmabrokerd" "$root/bin" 2>"$work/log" &&
        "$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/tests/vm/iommu-guest" "$root/init" \
        2>>"$work/log" || { cat "$work/log"; exit 99; }
for program in bin/dmabrokerd init; do
        LD_LIBRARY_PATH=$TOP_BUILDDIR/.libs ldd "$root/$program" | awk '/=> \// { print $3 } /^\t\// { print $1 }'
done | grep -v "^$TOP_BUILDDIR" | sort -u | while read -r library; do
        mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library" || exit 99
done || exit 99
libc=$(ldd "$root/init" | sed -n 's/.*libc\.so.*=> \(\/[^ ]*\).*/\1/p')
cp "$TOP_BUILDDIR/.libs/libdmabroker.so.0" "$root$(dirname "$libc")/" || exit 99

# In the order in which they are loaded.
modules=$(dirname "$DMAB_VM_DEBIAN_KERNEL")/../lib/modules
for module in irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci; do
        file=$(find "$modules" -name "$module.ko*" | head -n 1)
        [ -n "$file" ] || continue # newer kernels have it elsewhere
        case $file in
        *.xz) xz -dc "$file" >"$root/modules/$module.ko" ;;
        *) cp "$file" "$root/modules/$module.ko" ;;
        esac || exit 99
        echo "$module.ko" >>"$root/modules/order"
done
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initrd" || exit 99

start=$(date +%s)
timeout 300 qemu-system-x86_64 -accel tcg -cpu qemu64 -machine q35,kernel-irqchip=split -m 512 -smp 1 -nodefaults -display none \
        -no-reboot -device intel-iommu,intremap=on,caching-mode=on -device edu,addr=2 -device edu,addr=3 \
        -serial "file:$work/serial" -kernel "$DMAB_VM_DEBIAN_KERNEL" -initrd "$work/initrd" \
        -append "console=ttyS0 panic=-1 nokaslr mitigations=off intel_iommu=on loglevel=4"
status=$?
tr -d '\r' <"$work/serial"
echo "the machine ran for $(($(date +%s) - start)) s"
[ $status -eq 0 ] || { echo "the machine did not end"; exit 1; }
grep -q '^VM-TEST-PASSED' "$work/serial"
