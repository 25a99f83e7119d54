#!/bin/sh
# A real Xen in a virtual machine: the hypervisor, a dom0 in which xen-host.c is all that runs beside Xen's own programs, and
# guests of both kinds with xen-guest.c in them. xen-host.c says what is proven, xen-storm.c what ROUNDS and SEED are. Xen comes
# from DMAB_VM_XEN (fetch-xen.sh gets it), the kernel of all of them from DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh); ./run sees to
# both.
. "$(dirname "$0")/initrd.sh"
need_machine gzip ldconfig od xz
[ -n "$DMAB_VM_XEN" ] || skip "DMAB_VM_XEN names no Xen of Debian's (tests/vm/fetch-xen.sh)"
[ -x "$TOP_BUILDDIR/tests/vm/xen-host" ] || skip "this build goes without Xen"

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
make_initrd "$work/guest" tests/vm/xen-guest "xen-gntdev xen-gntalloc xen-evtchn" dmabrokerctl || exit 99

root=$work/host/root
# The C library opens it when a thread of xl's is cancelled.
unwinder=$(PATH=$PATH:/usr/sbin ldconfig -p | awk '/libgcc_s\.so\.1 .*x86-64/ { print $NF; exit }')
[ -n "$unwinder" ] || skip "libgcc_s is not installed"
# The daemon opens it when it runs.
vchan=$(PATH=$PATH:/usr/sbin ldconfig -p | awk '/libxenvchan\.so\.[0-9].*x86-64/ { print $NF; exit }')
[ -n "$vchan" ] || skip "libxenvchan is not installed"
mkdir -p "$root/boot" "$root/usr/bin" "$root/etc/xen" "$root$(dirname "$unwinder")" "$root$(dirname "$vchan")" && : >"$root/etc/xen/xl.conf" || exit 99
for program in xenstored xen-init-dom0 xenconsoled xl; do
        cp "$DMAB_VM_XEN"/usr/lib/xen-*/bin/"$program" "$root/usr/bin/" || exit 99
        ldd "$root/usr/bin/$program" | grep 'not found' && skip "a library of $program is not installed (libxen-dev brings it along)"
done
cp -L "$unwinder" "$root$unwinder" && cp -L "$vchan" "$root$vchan" && cp "$work/guest/initrd" "$root/boot/initrd" &&
        unpack_kernel "$DMAB_VM_DEBIAN_KERNEL" "$root/boot/kernel" && gzip -dc "$DMAB_VM_XEN"/boot/xen-*.gz >"$work/xen" || exit 99
make_initrd "$work/host" tests/vm/xen-host "xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs" dmabrokerd || exit 99

# What the kernel does not know, its first process has in its environment.
told="loglevel=4${ROUNDS:+ ROUNDS=$ROUNDS}${SEED:+ SEED=$SEED}"
start=$(date +%s)
# The second module that Xen is given is the initrd; a comma ends a name.
timeout "${PATIENCE:-900}" qemu-system-x86_64 -accel tcg -cpu qemu64,+svm,+npt,+nrip-save -machine q35 -m 1536 -smp 1 \
        -nodefaults -display none -no-reboot -serial "file:$work/serial" -kernel "$work/xen" \
        -append "com1=115200,8n1 console=com1 loglvl=error guest_loglvl=none dom0_mem=640M,max:640M" \
        -initrd "$root/boot/kernel console=hvc0 panic=-1 nokaslr mitigations=off $told,$work/host/initrd" 2>"$work/qemu"
status=$?
# Xen tells much of the machine before it heeds what to tell.
tr -d '\r' <"$work/serial" | grep -v '^(XEN)'
echo "the machine ran for $(($(date +%s) - start)) s"
# What TCG cannot do of a processor is of no concern.
grep -v "TCG doesn't support" "$work/qemu"
if [ $status -ne 0 ] || ! grep -q '^VM-TEST-PASSED' "$work/serial"; then
        grep '^(XEN)' "$work/serial" | tail -n 20
        [ $status -eq 0 ] || echo "the machine did not end"
        exit 1
fi
