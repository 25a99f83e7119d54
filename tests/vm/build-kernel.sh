#!/bin/sh
# usage: build-kernel.sh SOURCE DIRECTORY
# Build the smallest kernel that the tests in this directory need, from the unpacked source of Linux in SOURCE (Debian:
# linux-source-6.12). It is DIRECTORY/vmlinux then, for DMAB_VM_KERNEL, and DIRECTORY/include has its headers for programs.
# Takes minutes; needs flex, bison, bc and libelf-dev.
[ $# -eq 2 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
make -s -C "$1" O="$work" allnoconfig KCONFIG_ALLCONFIG="$here/kernel.config" || exit 1
while read -r option; do
        grep -qx "$option" "$work/.config" || { echo "this kernel does not take $option"; exit 1; }
done <"$here/kernel.config"
make -s -C "$1" O="$work" headers && nice make -s -C "$1" O="$work" -j"$(nproc)" vmlinux || exit 1
mkdir -p "$2" && cp -r "$work/usr/include" "$2" && objcopy -S "$work/vmlinux" "$2/vmlinux.new" &&
        mv "$2/vmlinux.new" "$2/vmlinux"
