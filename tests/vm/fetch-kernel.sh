#!/bin/sh
# usage: fetch-kernel.sh DIRECTORY
# Get Debian's newest kernel into DIRECTORY, for DMAB_VM_DEBIAN_KERNEL, and print where it is. It is
# only unpacked: nothing is installed.
[ $# -eq 1 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
mkdir -p "$1" && cd "$1" || exit 1

find_kernel() {
        find "$PWD" -path '*/boot/vmlinuz-*' | head -n 1
}

fetch() {
        package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
        [ -n "$package" ] && apt-get -q download "$package" && dpkg -x "$package"_*.deb . && rm -f "$package"_*.deb &&
                PATH=$PATH:/usr/sbin depmod -b "$PWD" "$(ls lib/modules)"
}

if [ -z "$(find_kernel)" ]; then
        command -v apt-get >/dev/null || { echo "there is no apt-get" >&2; exit 1; }
        # What apt knows may be old, or nothing.
        fetch >&2 || { apt-get -q update >&2 && fetch >&2; } || exit 1
fi
find_kernel | grep .
