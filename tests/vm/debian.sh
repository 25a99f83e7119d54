# To be sourced, after initrd.sh. Machines with a whole Debian, made of what is installed here and of the packages in DMAB_VM_DEBS.

kernel_modules() {
        (cd "$(dirname "$DMAB_VM_DEBIAN_KERNEL")/../lib/modules/"* && pwd)
}

# initrd_with WORK SCRIPT "MODULE …": WORK/initrd, in which busybox runs SCRIPT when the modules are there.
initrd_with() {
        mkdir -p "$1/root/bin" "$1/root/modules" "$1/root/dev" "$1/root/proc" "$1/root/sys" "$1/root/new" "$1/root/here" || return 1
        cp "$(command -v busybox)" "$1/root/bin/" && cp "$2" "$1/root/script" || return 1
        cat >"$1/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do
        insmod "/modules/$module" || echo "no $module"
done </modules/order
. /script
# What should not happen ends the machine.
poweroff -f
INIT
        chmod 755 "$1/root/init"
        for module in $3; do
                file=$(find "$(kernel_modules)" -name "$module.ko" | head -n 1)
                [ -n "$file" ] || continue # newer kernels have it elsewhere
                cp "$file" "$1/root/modules/" && echo "$module.ko" >>"$1/root/modules/order" || return 1
        done
        (cd "$1/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$1/initrd"
}

# unpack ROOT PACKAGE …: their files, from this system where it has them.
unpack() {
        unpack_root=$1
        shift
        for package; do
                if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ]; then
                        dpkg -L "$package" | while read -r file; do
                                [ ! -e "$file" ] && [ ! -L "$file" ] || echo "${file#/}"
                        done | grep -vxE '|bin|sbin|lib|lib64|\.|/\.|usr/share/(doc|man|locale|info|i18n|zoneinfo)(/.*)?' |
                                tar -C / --no-recursion -T - -cf - | tar -C "$unpack_root" --keep-directory-symlink -xf - || return 1
                else
                        set -- "$DMAB_VM_DEBS/archives/${package}"_*.deb
                        [ -e "$1" ] || { echo "there is no package $package"; return 1; }
                        dpkg-deb --fsys-tarfile "$1" | tar -C "$unpack_root" --keep-directory-symlink -xf - || return 1
                fi
        done
}

# add_libraries ROOT: those that its programs want, from this system.
add_libraries() {
        find "$1" -type f -perm -100 -exec ldd {} + 2>/dev/null | awk '/=> \// { print $3 } /^\t\// { print $1 }' | sort -u |
                while read -r library; do
                        [ -e "$1$library" ] || { mkdir -p "$1$(dirname "$library")" && cp -L "$library" "$1$library"; } || return 1
                done
}

# make_root WORK DEVICE TERMINAL "MODULE …" [PACKAGE …]: WORK/root, with Debian's systemd and udev and with packages that are named; it
# begins a shell of root's on the terminal, which says READY first. WORK/initrd/initrd finds it on the device. What WORK/add holds is in
# it as well.
make_root() {
        disk=$1
        device=$2
        terminal=$3
        modules=$4
        shift 4
        version=$(basename "$(kernel_modules)")
        mkdir -p "$disk/root" && for directory in bin sbin lib lib64; do
                mkdir -p "$disk/root/usr/$directory" && ln -s usr/$directory "$disk/root/$directory" || return 1
        done
        (cd "$disk/root" && mkdir -p proc sys dev run tmp root boot var/log etc "lib/modules/$version") && ln -s /run "$disk/root/var/run" ||
                return 1
        # shellcheck disable=SC2046
        unpack "$disk/root" $(dpkg-query -W -f '${Essential} ${Package}\n' | sed -n 's/^yes //p') systemd kmod procps passwd mount \
                dbus dbus-bin dbus-daemon dbus-system-bus-common udev pciutils libpci3 pci.ids "$@" || return 1
        add_libraries "$disk/root" || return 1
        (cd "$(kernel_modules)" && tar -cf - modules.* kernel/lib kernel/crypto kernel/fs/ext4 kernel/fs/jbd2 kernel/fs/mbcache.ko \
                kernel/drivers/acpi kernel/drivers/virtio kernel/drivers/char kernel/drivers/pci kernel/drivers/input \
                kernel/drivers/block/virtio_blk.ko kernel/drivers/block/xen-blk* kernel/drivers/xen) |
                tar -C "$disk/root/lib/modules/$version" -xf - || return 1
        (
                cd "$disk/root/etc" || exit 1
                cp ../usr/share/base-passwd/passwd.master passwd && cp ../usr/share/base-passwd/group.master group || exit 1
                printf 'passwd: files\ngroup: files\nshadow: files\n' >nsswitch.conf
                echo web >hostname
                : >machine-id
                mkdir -p systemd/system/multi-user.target.wants
                ln -sf /dev/null systemd/system/serial-getty@.service
                ln -sf /lib/systemd/system/multi-user.target systemd/system/default.target
                ln -sf ../shell.service systemd/system/multi-user.target.wants/
                printf '[Manager]\nShowStatus=no\n' >systemd/system.conf
                cat >systemd/system/shell.service <<UNIT
[Unit]
After=multi-user.target

[Service]
ExecStart=/bin/bash -c 'stty -echo; echo READY; PS1= exec bash --norc --noediting'
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/$terminal
WorkingDirectory=/root
# An interactive shell does not end for SIGTERM.
KillSignal=SIGHUP
Environment=HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
UNIT
        ) || return 1
        echo "mount -t ext4 $device /new && exec switch_root /new /lib/systemd/systemd" >"$disk/script"
        mkdir "$disk/initrd" && initrd_with "$disk/initrd" "$disk/script" "$modules crc16 mbcache jbd2 crc32c_generic ext4" || return 1
        [ ! -d "$disk/add" ] || cp -a "$disk/add/." "$disk/root/" || return 1
        /sbin/ldconfig -r "$disk/root"
}

# make_disk WORK [PACKAGE …]: WORK/disk, which boots such a root by itself, with its shell on the serial line.
make_disk() {
        disk=$1
        shift
        make_root "$disk" /dev/vda1 ttyS0 "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk" "$@" &&
                cp "$disk/initrd/initrd" "$disk/root/boot/initrd" && cp "$DMAB_VM_DEBIAN_KERNEL" "$disk/root/boot/kernel" || return 1

        # One partition from 1 MiB on; before it GRUB, which knows what to do.
        mkdir "$disk/grub" && for package in grub-pc-bin grub-common; do
                dpkg-deb -x "$DMAB_VM_DEBS/archives/${package}"_*.deb "$disk/grub" || return 1
        done
        cat >"$disk/grub.cfg" <<'GRUB'
set root=(hd0,msdos1)
linux /boot/kernel root=/dev/vda1 console=ttyS0 quiet loglevel=3 mitigations=off nokaslr
initrd /boot/initrd
boot
GRUB
        "$disk/grub/usr/bin/grub-mkimage" -d "$disk/grub/usr/lib/grub/i386-pc" -O i386-pc -c "$disk/grub.cfg" -p /boot \
                -o "$disk/core" biosdisk part_msdos ext2 linux normal || return 1
        truncate -s 256M "$disk/disk" &&
                mke2fs -q -F -t ext4 -d "$disk/root" -E offset=1048576 "$disk/disk" $((255 << 10)) &&
                dd if="$disk/grub/usr/lib/grub/i386-pc/boot.img" of="$disk/disk" bs=440 count=1 conv=notrunc status=none &&
                dd if="$disk/core" of="$disk/disk" bs=512 seek=1 conv=notrunc status=none &&
                # active, Linux, from sector 2048, 255 MiB
                printf '\200\000\002\000\203\376\377\377\000\010\000\000\000\370\007\000' |
                dd of="$disk/disk" bs=1 seek=446 conv=notrunc status=none &&
                printf '\125\252' | dd of="$disk/disk" bs=1 seek=510 conv=notrunc status=none
}
