#!/bin/sh
# usage: fetch-xen.sh DIRECTORY
# Get Debian's Xen, the hypervisor and its programs, into DIRECTORY, for DMAB_VM_XEN, and print where it is. It is only unpacked:
# nothing is installed, and no boot loader is touched. The libraries come with libxen-dev.
[ $# -eq 1 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
mkdir -p "$1" && cd "$1" || exit 1

is_complete() {
        ls boot/xen-*.gz usr/lib/xen-*/bin/xl usr/lib/xen-*/bin/xenstored usr/lib/xen-*/bin/xenconsoled \
                usr/lib/xen-*/bin/xen-init-dom0 >/dev/null 2>&1
}

fetch() {
        packages=$(apt-cache depends xen-system-amd64 | sed -n 's/^ *Depends: \(xen-\(hypervisor\|utils\)-[0-9].*\)/\1/p')
        [ -n "$packages" ] || return 1
        for package in $packages; do
                apt-get -q download "$package" && dpkg -x "$package"_*.deb . && rm -f "$package"_*.deb || return 1
        done
}

if ! is_complete; then
        command -v apt-get >/dev/null || { echo "there is no apt-get" >&2; exit 1; }
        # What apt knows may be old, or nothing.
        fetch >&2 || { apt-get -q update >&2 && fetch >&2; } || exit 1
fi
is_complete && pwd
