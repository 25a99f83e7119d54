#!/bin/sh
# usage: fetch-debs.sh DIRECTORY
# Get the packages of Debian that docs-kvm.sh and docs-xen.sh want, and that are not installed here, into DIRECTORY, for DMAB_VM_DEBS. They are
# installed in a virtual machine only.
[ $# -eq 1 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
mkdir -p "$1/archives/partial" && cd "$1" || exit 1

fetch() {
        apt-get -q install --download-only -y --no-install-recommends -o Dir::Cache::archives="$PWD/archives" \
                qemu-system-x86 libvirt-daemon-system libvirt-clients libvirt-dev apparmor pciutils udev socat uuid-runtime \
                qemu-utils systemd-sysv xen-system-amd64 &&
                rm -f archives/grub-*.deb && (cd archives && apt-get -q download grub-pc-bin grub-common)
}

# What is there already is not fetched again, but what it is changes with the lists of packages.
command -v apt-get >/dev/null && { fetch || { apt-get -q update && fetch; }; }
