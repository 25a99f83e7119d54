#!/bin/sh
# A real libvirtd with guests of QEMU, as an ordinary user's session in a process namespace of its own: libvirt-host.c says what
# is proven. Guests need no operating system. Nothing of a libvirtd of the system is used, and nothing outlives this.
skip() {
        echo "skipped: $*"
        exit 77
}

program=$TOP_BUILDDIR/tests/vm/libvirt-host
[ "$(uname -m)" = x86_64 ] || skip "the guests are x86_64"
[ -x "$program" ] || skip "this build goes without libvirt"
for tool in libvirtd qemu-system-x86_64 unshare setpriv; do
        PATH=$PATH:/usr/sbin command -v $tool >/dev/null || skip "$tool is not installed"
done
libvirtd=$(PATH=$PATH:/usr/sbin command -v libvirtd)
find /usr/lib* /usr/local/lib* -name libvirt_driver_qemu.so 2>/dev/null | grep -q . || skip "libvirtd has no driver for QEMU"

# A path to a socket has room for 107 bytes.
work=$(TMPDIR=/tmp mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/run" "$work/home" && cp "$program" "$work/libvirt-host" || exit 99

# libvirtd is a session's for all but root. What it starts belongs to a shell that is the first process of the namespace, and
# with which all of it ends.
if [ "$(id -u)" -eq 0 ]; then
        chown -R 65534:65534 "$work" || exit 99
        user=
        drop="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --"
else
        user="--user --map-current-user"
        drop=
fi
# shellcheck disable=SC2086
unshare $user --pid --fork --mount-proc true 2>"$work/log" || skip "no namespaces are to be had: $(cat "$work/log")"

start=$(date +%s)
# shellcheck disable=SC2016,SC2086
HOME=$work/home XDG_RUNTIME_DIR=$work/run XDG_CONFIG_HOME=$work/home XDG_CACHE_HOME=$work/home XDG_DATA_HOME=$work/home \
        timeout -k 5 240 unshare $user --pid --fork --kill-child --mount-proc \
        sh -c '"$@"; exit $?' sh $drop "$work/libvirt-host" "$libvirtd" "$work/run"
status=$?
echo "the guests' host ran for $(($(date +%s) - start)) s"
if [ $status -ne 0 ]; then
        tail -n 50 "$work/run/libvirtd.log" 2>/dev/null
        tail -n 20 "$work"/home/libvirt/qemu/log/*.log 2>/dev/null
        exit 1
fi
