#!/bin/bash
# docs/xen.md, followed word for word: every command in it is run, in a dom0 that is a Debian with systemd and with Debian's own packages
# of Xen, and in a Debian guest of that, a paravirtualised one and then a PVH one. docs-xen-dom0.sh says what is expected. The host is a
# virtual machine whose processor QEMU emulates. The kernel comes from DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh), Xen's packages and udev
# from DMAB_VM_DEBS (fetch-debs.sh); ./run sees to both.
#
# What is not as the text has it: packages are unpacked before, not installed, and of what they do then only that is done here which
# makes services of Xen's init scripts; there is no Python, which xendomains and pygrub want; and Xen is started by QEMU, with the
# command line of the text, not by GRUB.
. "$(dirname "$0")/initrd.sh"
. "$(dirname "$0")/debian.sh"
[ -n "$DMAB_VM_DEBS" ] || skip "DMAB_VM_DEBS names no packages (tests/vm/fetch-debs.sh)"
ls "$DMAB_VM_DEBS"/archives/xen-hypervisor-[0-9]*.deb >/dev/null 2>&1 || skip "DMAB_VM_DEBS has no Xen (tests/vm/fetch-debs.sh)"
need_machine awk busybox mke2fs dpkg-deb pkg-config gzip od xz
[ -e "$(kernel_modules)/modules.dep" ] || skip "nobody knows what the kernel's modules depend on (tests/vm/fetch-kernel.sh)"
[ -x /lib/systemd/systemd ] || skip "systemd is not installed"
grep -q '^#define HAVE_SYSTEMD' "$TOP_BUILDDIR/config.h" || skip "the daemon is built without libsystemd"
grep -q '^#define HAVE_XEN' "$TOP_BUILDDIR/config.h" || skip "the daemon is built without Xen"

TEXT=$TOP_SRCDIR/docs/xen.md
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL

# The packages with libraries of Xen's that a package wants.
libraries_of() {
        dpkg-deb -f "$DMAB_VM_DEBS"/archives/"$1"_*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[a-z0-9.]*\).*/\1/p' |
                grep -e xen -e yajl
}

# ---- what the guest has ----

make -s -C "$TOP_BUILDDIR" install DESTDIR="$work/install" >"$work/log" 2>&1 || { cat "$work/log"; exit 99; }
# Where the programs look for it, whatever the prefix.
mkdir -p "$work/install/etc" && [ "$(directory_of conf)" = /etc ] ||
        mv "$work/install$(directory_of conf)/dmabroker" "$work/install/etc/" || exit 99
add=$work/web/add
mkdir -p "$add$(directory_of bin)" "$add$(directory_of lib)" "$add/root" &&
        cp "$work/install$(directory_of bin)/dmabrokerctl" "$add$(directory_of bin)/" &&
        cp "$work/install$(directory_of lib)/libdmabroker.so.0" "$add$(directory_of lib)/" &&
        cp "$TOP_SRCDIR/docs/guest-example.c" "$work/" || exit 99
compile=$(sed -n 's|^# \(cc guest-example.c .*\)$|\1|p' "$TEXT")
[ -n "$compile" ] || { echo "docs/xen.md does not say how to compile its example"; exit 1; }
(
        cd "$work" || exit 1
        PKG_CONFIG_LIBDIR=$work/install$(directory_of pkgconfig) PKG_CONFIG_SYSROOT_DIR=$work/install \
                sh -xc "$compile && mv guest-example web/add/root/"
) || { echo "the example does not compile"; exit 1; }
# shellcheck disable=SC2046
make_root "$work/web" /dev/xvda hvc0 xen-blkfront $(tr '\n' ' ' <"$TEXT" |
        sed -n 's/.*install what they want, the packages \([^;]*\);.*/\1/p' | sed 's/,\| and / /g') || exit 99

# ---- what dom0 has ----

utils=$(cd "$DMAB_VM_DEBS/archives" && echo xen-utils-[0-9]*.deb | sed 's/_.*//')
root=$work/dom0/root
mkdir -p "$work/dom0" && cp -a "$work/web/root" "$root" && rm -rf "${root:?}"/root/guest-example* || exit 99
# shellcheck disable=SC2046
unpack "$root" libgcc-s1 systemd-sysv xen-utils-common xenstore-utils "$utils" \
        $({ libraries_of "$utils" && libraries_of xen-utils-common; } | sort -u) || exit 99
cp -a "$work/install/." "$root/" && cp -L "$(command -v awk)" "$root/usr/bin/awk" && add_libraries "$root" || exit 99
(
        cd "$root/etc" || exit 1
        cp ../usr/share/xen-utils-common/default.xen default/xen && mkdir -p ../var/log/xen || exit 1
        for name in xen xendomains; do
                for level in 2 3 4 5; do
                        mkdir -p rc$level.d && ln -s ../init.d/$name rc$level.d/S02$name || exit 1
                done
                for level in 0 1 6; do
                        mkdir -p rc$level.d && ln -s ../init.d/$name rc$level.d/K01$name || exit 1
                done
        done
        echo 'kvm:x:998:' >>group # by udev's package
        echo dom0 >hostname
        rm systemd/system/multi-user.target.wants/shell.service systemd/system/shell.service
        ln -s ../test.service systemd/system/multi-user.target.wants/
        cat >systemd/system/test.service <<'UNIT'
[Unit]
After=multi-user.target

[Service]
ExecStart=/bin/bash /test/inside
ExecStopPost=/bin/sh -c 'grep -q going /test/state || systemctl poweroff --force --force'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/hvc0
UNIT
) && mkdir "$root/test" && : >"$root/test/state" && cp "$TOP_SRCDIR/tests/vm/docs-xen-dom0.sh" "$root/test/inside" &&
        cp "$TOP_SRCDIR/tests/vm/docs-steps.sh" "$root/test/steps" && cp "$TEXT" "$root/test/" || exit 99
unpack_kernel "$DMAB_VM_DEBIAN_KERNEL" "$root/boot/kernel" && cp "$work/web/initrd/initrd" "$root/boot/web-initrd" || exit 99
/sbin/ldconfig -r "$root" || exit 99

cat >"$work/dom0/script" <<'SCRIPT'
mount -t ext4 /dev/vda /new || return
echo >>/new/test/booted
[ "$(wc -l </new/test/booted)" -le 2 ] || return
exec switch_root /new /lib/systemd/systemd
SCRIPT
mkdir "$work/dom0/initrd" && initrd_with "$work/dom0/initrd" "$work/dom0/script" "virtio_ring virtio virtio_pci_modern_dev \
        virtio_pci_legacy_dev virtio_pci virtio_blk crc16 mbcache jbd2 crc32c_generic ext4" || exit 99
truncate -s 1G "$work/dom0/disk" && mke2fs -q -F -t ext4 -d "$root" "$work/dom0/disk" &&
        truncate -s 256M "$work/web/disk" && mke2fs -q -F -t ext4 -d "$work/web/root" "$work/web/disk" || exit 99

# ---- the machine ----

xen_arguments=$(sed -n 's/^GRUB_CMDLINE_XEN_DEFAULT="\(.*\)"$/\1/p' "$TEXT")
[ -n "$xen_arguments" ] || { echo "docs/xen.md does not say what Xen is told"; exit 1; }
unpack_to=$work/xen
mkdir "$unpack_to" && dpkg-deb -x "$DMAB_VM_DEBS"/archives/xen-hypervisor-[0-9]*.deb "$unpack_to" &&
        gzip -dc "$unpack_to"/boot/xen-*.gz >"$work/hypervisor" || exit 99
# The second module that Xen is given is the initrd; a comma ends a name.
run_machine "$work" "${PATIENCE:-900}" -accel tcg -cpu qemu64,+svm,+npt,+nrip-save -machine q35 -m 2048 -smp 1 \
        -drive file="$work/dom0/disk,format=raw,if=virtio,cache=unsafe" \
        -drive file="$work/web/disk,format=raw,if=virtio,cache=unsafe" \
        -kernel "$work/hypervisor" -append "com1=115200,8n1 console=com1 loglvl=error guest_loglvl=none $xen_arguments" \
        -initrd "$root/boot/kernel console=hvc0 panic=-1 nokaslr mitigations=off loglevel=3,$work/dom0/initrd/initrd" || {
        # Of a long log the end is what is seen.
        tr -d '\r' <"$work/serial" | grep -a -e '^FAILED: ' -e '^== ' | tail -n 2
        exit 1
}
