#!/bin/sh
# The source dma-heap in a virtual machine with CMA: dma-heap-guest.c says what is proven there. The kernel comes from
# DMAB_VM_KERNEL (build-kernel.sh makes one, no kernel of Debian's for this machine has CMA); without it there is nothing
# to test.
skip() {
        echo "skipped: $*"
        exit 77
}

[ -n "$DMAB_VM_KERNEL" ] || skip "DMAB_VM_KERNEL names no kernel with CONFIG_DMABUF_HEAPS_CMA (tests/vm/build-kernel.sh)"
[ "$(uname -m)" = x86_64 ] || skip "the virtual machine is x86_64"
[ -z "$SANITIZE_CFLAGS" ] || skip "sanitizers want more memory than the virtual machine has"
for tool in qemu-system-x86_64 cpio busybox ldd; do
        command -v $tool >/dev/null || skip "$tool is not installed"
done
ldd "$(command -v busybox)" >/dev/null 2>&1 && skip "busybox is not static (package busybox-static)"

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/bin" "$root/lib64" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" || exit 99

# libtool's wrappers of programs that are linked with the library become real ones.
"$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/dmabrokerd" "$TOP_BUILDDIR/dmabrokerctl" \
        "$TOP_BUILDDIR/tests/lib/with-daemon" "$TOP_BUILDDIR/tests/vm/dma-heap-guest" "$root/bin" 2>"$work/log" || { cat "$work/log"; exit 99; }
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$TOP_BUILDDIR/.libs/libdmabroker.so.0" "$root/lib64"
for program in dmabrokerd dmabrokerctl with-daemon dma-heap-guest; do
        LD_LIBRARY_PATH=$TOP_BUILDDIR/.libs ldd "$root/bin/$program" | awk '/=> \// { print $3 } /^\t\// { print $1 }'
done | sort -u | while read -r library; do
        cp -L "$library" "$root/lib64" || exit 99
done

cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin LD_LIBRARY_PATH=/lib64 TOP_BUILDDIR=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

# with NAME DAEMON-ARGUMENT... -- COMMAND...: run the command while a daemon serves, which then ends cleanly.
with() {
        echo "== $1"
        shift
        with-daemon --log "$@"
}

# refused WORD DAEMON-COMMAND...: the daemon does not start, and its sentence has the word.
refused() {
        word=$1
        shift
        "$@" >/run/log 2>&1 && return 1
        cat /run/log
        grep -q "$word" /run/log
}

tests() {
        cat /proc/cmdline
        grep Cma /proc/meminfo
        printf '[source dma-heap]\nrange = 64M@0x30000000\n' >/run/elsewhere
        printf '[source dma-heap]\nheap = none\n' >/run/none
        printf '[memory]\nregion_idle = 10ms\n[source dma-heap]\n' >/run/brief
        with "all memory is searched" --source dma-heap -- sh -c \
                'dma-heap-guest few && dmabrokerctl check && dmabrokerctl status' || return 1
        mount -t debugfs debugfs /sys/kernel/debug || return 1
        with "the areas of debugfs are searched" --source dma-heap --config /run/brief -- sh -c \
                'dma-heap-guest && dmabrokerctl check && dmabrokerctl status' || return 1
        refused CAP_SYS_RAWIO dma-heap-guest without-rawio dmabrokerd --state-dir /run/state --source dma-heap || return 1
        refused /dev/dma_heap/none dmabrokerd --state-dir /run/state --config /run/none || return 1
        with "the wrong range is searched" --source dma-heap --config /run/elsewhere -- sh -c \
                '! dmabrokerctl alloc --mask 32 64K 2>/run/log && cat /run/log && grep -q searched /run/log' || return 1
}

if tests; then echo VM-TEST-PASSED; else echo VM-TEST-FAILED; fi
reboot -f
INIT
chmod 755 "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd" || exit 99

# Memory below and above 4 GiB; CMA lies below.
timeout 240 qemu-system-x86_64 -accel tcg -cpu max -machine q35 -m 4608 -smp 1 -nodefaults -display none -no-reboot \
        -serial "file:$work/serial" -kernel "$DMAB_VM_KERNEL" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet panic=-1 cma=64M@256M" || { cat "$work/serial"; echo "the machine did not end"; exit 1; }
cat "$work/serial"
grep -q '^VM-TEST-PASSED' "$work/serial"
