#!/bin/sh
# Windows into real QEMUs: ivshmem-host.c, which starts them, says what is proven. No operating system is needed inside.
skip() {
        echo "skipped: $*"
        exit 77
}

qemu=$(command -v qemu-system-x86_64) || skip "qemu-system-x86_64 is not installed"
"$qemu" -device help 2>/dev/null | grep -q '"ivshmem-doorbell"' || skip "this QEMU has no ivshmem-doorbell"

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
start=$(date +%s)
"$TOP_BUILDDIR/tests/vm/ivshmem-host" "$qemu" "$work"
status=$?
echo "this took $(($(date +%s) - start)) s"
exit $status
