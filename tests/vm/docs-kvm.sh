#!/bin/bash
# docs/kvm.md, followed word for word: every command in it is run, on a stock Debian host with systemd, AppArmor, libvirt as the system's
# and /dev/kvm, and in a stock Debian guest of that. docs-kvm-host.sh says what is expected. The host is a virtual machine whose
# processor QEMU emulates together with its virtualization; its system is this one's, read only, below a layer of its own. The
# kernel comes from DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh), packages that are not here from DMAB_VM_DEBS (fetch-debs.sh); ./run sees
# to both.
. "$(dirname "$0")/initrd.sh"
. "$(dirname "$0")/debian.sh"
[ -n "$DMAB_VM_DEBS" ] || skip "DMAB_VM_DEBS names no packages (tests/vm/fetch-debs.sh)"
need_machine busybox mke2fs dpkg-deb pkg-config
[ -e "$(kernel_modules)/modules.dep" ] || skip "nobody knows what the kernel's modules depend on (tests/vm/fetch-kernel.sh)"
[ "$(id -u)" -eq 0 ] || skip "only root can show all of this system to a virtual machine"
[ -x /lib/systemd/systemd ] || skip "systemd is not installed"
grep -q '^#define HAVE_SYSTEMD' "$TOP_BUILDDIR/config.h" || skip "the daemon is built without libsystemd"
grep -q '^#define HAVE_LIBVIRT' "$TOP_BUILDDIR/config.h" || skip "the daemon is built without libvirt"

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL

# What the host gets, and what the guest does: the library, the command, and the example of the text.
make -s -C "$TOP_BUILDDIR" install DESTDIR="$work/install" >"$work/log" 2>&1 || { cat "$work/log"; exit 99; }
# Where the programs look for it, whatever the prefix.
mkdir -p "$work/install/etc" && [ "$(directory_of conf)" = /etc ] || mv "$work/install$(directory_of conf)/dmabroker" "$work/install/etc/" || exit 99
add=$work/web/add
mkdir -p "$add$(directory_of bin)" "$add$(directory_of lib)" "$add/root" &&
        cp "$work/install$(directory_of bin)/dmabrokerctl" "$add$(directory_of bin)/" &&
        cp "$work/install$(directory_of lib)/libdmabroker.so.0" "$add$(directory_of lib)/" &&
        cp "$TOP_SRCDIR/docs/guest-example.c" "$work/" || exit 99
compile=$(sed -n 's|^/\* \(cc guest-example.c .*\)$|\1|p' "$TOP_SRCDIR/docs/kvm.md")
[ -n "$compile" ] || { echo "docs/kvm.md does not say how to compile its example"; exit 1; }
(
        cd "$work" || exit 1
        PKG_CONFIG_LIBDIR=$work/install$(directory_of pkgconfig) PKG_CONFIG_SYSROOT_DIR=$work/install \
                sh -xc "$compile -o web/add/root/guest-example"
) || { echo "the example does not compile"; exit 1; }
# shellcheck disable=SC2046
make_disk "$work/web" $(tr '\n' ' ' <"$TOP_SRCDIR/docs/kvm.md" | sed -n 's/.*install what they want, the packages \([^;]*\);.*/\1/p' |
        sed 's/,\| and / /g') || exit 99

# The host's disk: what is written lies there. Of this system it has programs, configuration and packages.
mkdir -p "$work/host/top/test" "$work/host/top/seed/systemd/system/multi-user.target.wants" &&
        cp "$TOP_SRCDIR/tests/vm/docs-kvm-host.sh" "$work/host/top/test/inside" &&
        cp "$TOP_SRCDIR/tests/vm/docs-steps.sh" "$work/host/top/test/steps" && cp "$TOP_SRCDIR/docs/kvm.md" "$work/host/top/test/" || exit 99
(
        cd "$work/host/top" || exit 1
        mkdir -p usr etc proc sys dev run root home tmp mnt host var/log var/tmp var/lib var/cache/apt
        for directory in bin sbin lib lib32 lib64; do
                ln -s usr/$directory $directory
        done
        ln -s /run var/run && ln -s /run/lock var/lock && chmod 1777 tmp var/tmp
        cp -a "$DMAB_VM_DEBS/archives" var/cache/apt/ && cp -a /var/lib/dpkg /var/lib/apt var/lib/ || exit 1
        echo host >seed/hostname
        printf '[Manager]\nShowStatus=no\n' >seed/systemd/system.conf
        ln -s /lib/systemd/system/multi-user.target seed/systemd/system/default.target
        ln -s /dev/null seed/systemd/system/serial-getty@.service
        ln -s ../test.service seed/systemd/system/multi-user.target.wants/
        cat >seed/systemd/system/test.service <<UNIT
[Unit]
After=multi-user.target

[Service]
ExecStart=/bin/bash /test/inside
ExecStopPost=/bin/sh -c 'grep -q going /test/state || systemctl poweroff --force --force'
Environment=WORK=/host$work
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
UNIT
) || exit 99
truncate -s 3G "$work/host/disk" && mke2fs -q -F -t ext4 -d "$work/host/top" "$work/host/disk" || exit 99
cat >"$work/host/script" <<SCRIPT
mount -t ext4 /dev/vda /new && mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 root /here || return
for directory in usr etc; do
        mkdir -p /new/\$directory /new/.upper/\$directory /new/.work/\$directory
        mount -t overlay -o lowerdir=/here/\$directory,upperdir=/new/.upper/\$directory,workdir=/new/.work/\$directory \\
                none /new/\$directory || return
done
mkdir -p /new/lib/modules/$(basename "$(kernel_modules)")
mount --bind /here$(kernel_modules) /new/lib/modules/$(basename "$(kernel_modules)")
mount --move /here /new/host || return
if [ ! -e /new/test/booted ]; then
        rm -rf /new/etc/systemd/system/* /new/etc/rc?.d /new/etc/machine-id /new/etc/fstab /new/usr/sbin/policy-rc.d \\
                /new/etc/apt/apt.conf.d/* /new/etc/libvirt/qemu/*.xml
        cp -a /new/seed/. /new/etc/
fi
echo >>/new/test/booted
[ "\$(wc -l </new/test/booted)" -le 2 ] || return
exec switch_root /new /lib/systemd/systemd
SCRIPT
mkdir "$work/host/initrd" && initrd_with "$work/host/initrd" "$work/host/script" "virtio_ring virtio virtio_pci_modern_dev \
        virtio_pci_legacy_dev virtio_pci virtio_blk 9pnet 9pnet_virtio netfs fscache 9p crc16 mbcache jbd2 crc32c_generic ext4 overlay" || exit 99

# QEMU 7.2 may lose an interrupt of the host's that comes while its guest is entered or left: it changes its flags of those without
# its lock. A timer that is set once each time would then stand still for ever, and the host with it; this one goes on by itself.
run_machine "$work" "${PATIENCE:-1500}" -accel tcg -cpu qemu64,+svm,+npt -machine q35 -m 4096 \
        -kernel "$DMAB_VM_DEBIAN_KERNEL" -initrd "$work/host/initrd/initrd" \
        -drive file="$work/host/disk,format=raw,if=virtio,cache=unsafe" \
        -virtfs local,path=/,mount_tag=root,security_model=passthrough,readonly=on,multidevs=remap \
        -append "console=ttyS0 quiet loglevel=3 panic=-1 nokaslr mitigations=off nohz=off highres=off"
