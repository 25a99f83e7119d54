#!/bin/sh
# As kvm.sh, with the guest in the hands of a libvirtd of our own: an ordinary user's session in a process namespace of its own,
# of which nothing is left. Memory is simulated, since that user may not see machine addresses; the guest and its device do not
# know the difference. PROGRAM is another program of the kind.
. "$(dirname "$0")/initrd.sh"
need_machine libvirtd unshare setpriv
[ -x "$TOP_BUILDDIR/tests/vm/libvirt-host" ] || skip "this build goes without libvirt"
[ "$(id -u)" -eq 0 ] || skip "only root can become another user"
program=${PROGRAM:-kvm-host}
libvirtd=$(PATH=$PATH:/usr/sbin command -v libvirtd)
find /usr/lib* /usr/local/lib* -name libvirt_driver_qemu.so 2>/dev/null | grep -q . || skip "libvirtd has no driver for QEMU"

# A path to a socket has room for 107 bytes.
work=$(TMPDIR=/tmp mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
make_initrd "$work" tests/vm/kvm-guest "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_console" ||
        exit 99
mkdir -p "$work/run" "$work/home/libvirt" "$work/bin" && cp "$DMAB_VM_DEBIAN_KERNEL" "$work/kernel" || exit 99
# Who keeps the log of a guest does not let another QEMU of the same guest start.
printf 'stdio_handler = "file"\n' >"$work/home/libvirt/qemu.conf" || exit 99
printf 'auth_unix_rw = "none"\nlog_outputs = "2:stderr"\n' >"$work/run/libvirtd.conf"
"$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/dmabrokerd" "$work/bin" 2>/dev/null &&
        "$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/tests/vm/$program" "$work/bin" 2>/dev/null &&
        cp "$TOP_BUILDDIR/.libs/libdmabroker.so.0" "$work/bin/" && chown -R 65534:65534 "$work" || exit 99

start=$(date +%s)
# shellcheck disable=SC2016
HOME=$work/home XDG_RUNTIME_DIR=$work/run XDG_CONFIG_HOME=$work/home XDG_CACHE_HOME=$work/home XDG_DATA_HOME=$work/home \
        LD_LIBRARY_PATH=$work/bin TOP_BUILDDIR=$work/bin \
        timeout -k 5 "${PATIENCE:-480}" unshare --pid --fork --kill-child --mount-proc \
        sh -c '"$@"; exit $?' sh setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all -- \
        "$work/bin/$program" "$work/kernel" "$work/initrd" "$libvirtd" "$work/run"
status=$?
echo "it took $(($(date +%s) - start)) s"
if [ $status -ne 0 ]; then
        tail -n 50 "$work/run/libvirtd.log" 2>/dev/null
        tail -n 20 "$work"/home/libvirt/qemu/log/*.log 2>/dev/null
        exit 1
fi
