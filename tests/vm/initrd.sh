# To be sourced. What a virtual machine with Debian's kernel needs here, or the test is skipped:
#
#       need_machine TOOL …
#
# Such a machine, for so many seconds at most: what it says on its serial line is printed. 0: it has ended and said VM-TEST-PASSED.
#
#       run_machine WORK SECONDS ARGUMENT-OF-QEMU …
#
# Where `make install` puts things, by the names that the Makefile gives: bin, lib, conf, …
#
#       directory_of NAME
#
# An initrd with a program of ours as the first process, and modules of Debian's kernel in the order given.
#
#       make_initrd WORK PROGRAM "MODULE …" [PROGRAM …]
#
# makes WORK/initrd; further programs go to /bin. What WORK/root holds already is in it as well, with the libraries that
# programs in usr/bin need. DMAB_VM_DEBIAN_KERNEL says which kernel.
skip() {
        echo "skipped: $*"
        exit 77
}

need_machine() {
        [ -n "$DMAB_VM_DEBIAN_KERNEL" ] || skip "DMAB_VM_DEBIAN_KERNEL names no kernel of Debian (tests/vm/fetch-kernel.sh)"
        [ "$(uname -m)" = x86_64 ] || skip "the virtual machine is x86_64"
        [ -z "$SANITIZE_CFLAGS" ] || skip "sanitizers want more memory than the virtual machine has"
        for tool in qemu-system-x86_64 cpio ldd "$@"; do
                PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || skip "$tool is not installed"
        done
}

directory_of() {
        echo "$INSTALL_DIRECTORIES" | tr -s ' \t' '\n' | sed -n "s|^$1=||p"
}

run_machine() {
        machine_work=$1
        machine_seconds=$2
        shift 2
        machine_start=$(date +%s)
        timeout "$machine_seconds" qemu-system-x86_64 -nodefaults -display none -serial "file:$machine_work/serial" "$@" \
                2>"$machine_work/qemu"
        machine_status=$?
        tr -d '\r' <"$machine_work/serial"
        echo "the machine ran for $(($(date +%s) - machine_start)) s"
        # What TCG cannot do of a processor is of no concern.
        grep -v "TCG doesn't support" "$machine_work/qemu"
        [ $machine_status -eq 0 ] || { echo "the machine did not end"; return 1; }
        grep -q '^VM-TEST-PASSED' "$machine_work/serial"
}

make_initrd() {
        initrd_work=$1
        initrd_root=$1/root
        initrd_first=$2
        initrd_modules=$3
        shift 3
        mkdir -p "$initrd_root/bin" "$initrd_root/modules" "$initrd_root/lib64" "$initrd_root/sys" "$initrd_root/dev" \
                "$initrd_root/run" "$initrd_root/tmp" || return 1
        # libtool's wrappers of programs that are linked with the library become real ones.
        "$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/$initrd_first" "$initrd_root/init" \
                2>"$initrd_work/log" || { cat "$initrd_work/log"; return 1; }
        for program; do
                "$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/$program" "$initrd_root/bin" \
                        2>"$initrd_work/log" || { cat "$initrd_work/log"; return 1; }
        done
        for program in "$initrd_root/init" "$initrd_root"/bin/* "$initrd_root"/usr/bin/*; do
                [ -f "$program" ] || continue
                LD_LIBRARY_PATH=$TOP_BUILDDIR/.libs ldd "$program" | awk '/=> \// { print $3 } /^\t\// { print $1 }'
        done | grep -v "^$TOP_BUILDDIR" | sort -u >"$initrd_work/libraries"
        while read -r library; do
                mkdir -p "$initrd_root$(dirname "$library")" && cp -L "$library" "$initrd_root$library" || return 1
        done <"$initrd_work/libraries"
        libc=$(ldd "$initrd_root/init" | sed -n 's/.*libc\.so.*=> \(\/[^ ]*\).*/\1/p')
        cp "$TOP_BUILDDIR/.libs/libdmabroker.so.0" "$initrd_root$(dirname "$libc")/" || return 1
        modules=$(dirname "$DMAB_VM_DEBIAN_KERNEL")/../lib/modules
        for module in $initrd_modules; do
                file=$(find "$modules" -name "$module.ko*" | head -n 1)
                [ -n "$file" ] || continue # newer kernels have it elsewhere
                case $file in
                *.xz) xz -dc "$file" >"$initrd_root/modules/$module.ko" ;;
                *) cp "$file" "$initrd_root/modules/$module.ko" ;;
                esac || return 1
                echo "$module.ko" >>"$initrd_root/modules/order"
        done
        (cd "$initrd_root" && find . | cpio --quiet -o -H newc -R 0:0) >"$initrd_work/initrd"
}

# Unpacked here it is once, in a second; in there it would be for each start of a guest. One that is packed in another way is
# taken as it is.
unpack_kernel() {
        begin=$((($(od -An -tu1 -j497 -N1 "$1") + 1) * 512 + $(od -An -tu4 -j584 -N4 "$1")))
        length=$(($(od -An -tu4 -j588 -N4 "$1") - 4))
        tail -c "+$((begin + 1))" "$1" | head -c "$length" | xz -dc >"$2" 2>/dev/null || cp "$1" "$2"
}
