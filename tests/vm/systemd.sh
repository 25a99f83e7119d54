#!/bin/sh
# The service under a real systemd, in a virtual machine: systemd-guest.sh says what is proven there. The machine's root is
# an image in memory that is made of this system's own files (systemd, a shell, the libraries they need) and of what
# `make install` puts there. The kernel comes from DMAB_VM_DEBIAN_KERNEL (fetch-kernel.sh gets one); ./run sees to it.
. "$(dirname "$0")/initrd.sh"
need_machine bash setpriv
[ -x /lib/systemd/systemd ] || skip "systemd is not installed"
grep -q '^#define HAVE_SYSTEMD' "$TOP_BUILDDIR/config.h" || skip "the daemon is built without libsystemd"

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
root=$work/root
unset MAKEFLAGS MFLAGS MAKELEVEL

# ---- the root file system ----

mkdir -p "$root/etc/systemd/system" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/root" "$root/test" \
        "$root/var/log" "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib/systemd/system" "$root/usr/lib64" || exit 99
for directory in bin sbin lib lib64; do
        ln -s usr/$directory "$root/$directory" || exit 99
done

# Of systemd only what the service needs to be started; the rest costs time.
for file in systemd systemd-executor systemd-journald systemd-shutdown; do
        [ ! -e "/lib/systemd/$file" ] || cp -L "/lib/systemd/$file" "$root/lib/systemd/" || exit 99
done
for unit in sysinit.target basic.target local-fs-pre.target local-fs.target swap.target sockets.target paths.target timers.target \
        slices.target shutdown.target umount.target final.target emergency.target multi-user.target \
        systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket \
        systemd-sysusers.service systemd-tmpfiles-setup.service; do
        cp -L "/lib/systemd/system/$unit" "$root/lib/systemd/system/" || exit 99
done
mkdir "$root/lib/systemd/system/sysinit.target.wants" || exit 99
for unit in systemd-journald systemd-sysusers systemd-tmpfiles-setup; do
        ln -s ../$unit.service "$root/lib/systemd/system/sysinit.target.wants/" || exit 99
done

for program in sh bash cat chroot date diff grep head id kill mkdir mount mv rm sed \
        setpriv stat tail timeout uniq systemctl journalctl systemd-sysusers systemd-tmpfiles; do
        path=$(command -v $program) || { echo "$program is not installed"; exit 99; }
        case $path in /*) ;; *) path=/usr/bin/$program ;; esac
        cp -L "$path" "$root/usr/bin/$program" || exit 99
done

make -s -C "$TOP_BUILDDIR" install DESTDIR="$root" >"$work/log" 2>&1 || { cat "$work/log"; exit 99; }
rm -rf "${root:?}$(directory_of man)" "${root:?}$(directory_of include)"
"$TOP_BUILDDIR/libtool" --silent --mode=install install -m755 "$TOP_BUILDDIR/tests/vm/systemd-guest" "$root/test/client" \
        >"$work/log" 2>&1 || { cat "$work/log"; exit 99; }
cp "$TOP_SRCDIR/tests/vm/systemd-guest.sh" "$root/test/inside" && cp "$TOP_SRCDIR/docs/dmabrokerd.8" "$root/test/" || exit 99
sbin=$(directory_of sbin)
# The same program but for its version: what an upgrade puts in place.
version=$(sed -n 's/^#define PACKAGE_VERSION "\(.*\)"/\1/p' "$TOP_BUILDDIR/config.h")
LC_ALL=C sed "s/\([^0-9.]\)$(echo "$version" | sed 's/\./\\./g')\([^0-9.]\)/\1$(echo "$version" | tr 0-8 1-9)\2/g" \
        "$root$sbin/dmabrokerd" >"$root/test/dmabrokerd-next" || exit 99
chmod 755 "$root/test/dmabrokerd-next"
cmp -s "$root$sbin/dmabrokerd" "$root/test/dmabrokerd-next" && { echo "the version is not in the program"; exit 99; }
cp "$TOP_BUILDDIR/.libs/libdmabroker.so.0" "$root/usr/lib64/" || exit 99

# Libraries, and what glibc loads by itself.
export LD_LIBRARY_PATH="$TOP_BUILDDIR/.libs:/lib/systemd:/usr/lib/$(uname -m)-linux-gnu/systemd"
find "$root/usr" "$root/test" -type f -perm -100 -exec ldd {} + 2>/dev/null |
        awk '/=> \// { print $3 } /^\t\// { print $1 }' | grep -v "^$TOP_BUILDDIR" | sort -u | while read -r library; do
        mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library" || exit 99
done || exit 99

cat >"$root/etc/passwd" <<'TEXT'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
client:x:1000:1000:somebody in the group dmabroker:/tmp:/bin/sh
stranger:x:1001:1001:somebody else:/tmp:/bin/sh
TEXT
cat >"$root/etc/group" <<'TEXT'
root:x:0:
tty:x:5:
nogroup:x:65534:
client:x:1000:
stranger:x:1001:
TEXT
printf 'passwd: files\ngroup: files\n' >"$root/etc/nsswitch.conf"
printf 'NAME=test\nID=test\n' >"$root/etc/os-release"
# Without one it would be the first boot, at which everything is enabled.
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
# What systemd's own snippets say is not needed; these files are.
mkdir -p "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
echo 'g systemd-journal - -' >"$root/usr/lib/sysusers.d/basic.conf"

cat >"$root/etc/systemd/system/test.service" <<UNIT
[Unit]
After=multi-user.target
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
Type=oneshot
ExecStart=/bin/bash /test/inside
Environment=PATH=$(directory_of bin):$sbin:/usr/bin SBIN=$sbin LD_LIBRARY_PATH=/usr/lib64 SYSTEMD_COLORS=0 SYSTEMD_URLIFY=0
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
UNIT
cat >"$root/etc/systemd/system/test.target" <<'UNIT'
[Unit]
Requires=multi-user.target test.service
UNIT
cat >"$root/etc/systemd/system.conf" <<'TEXT'
[Manager]
DefaultTimeoutStartSec=60
ShowStatus=no
TEXT
systemctl --root="$root" enable dmabroker.socket 2>"$work/log" || { cat "$work/log"; exit 1; }

# The root of the first file system in memory can be moved nowhere, which the sandbox of a service needs: so it is another.
cat >"$root/init" <<'INIT'
#!/bin/sh
mount --bind / /root && cd /root && mount --move . / && exec chroot . /lib/systemd/systemd
INIT
chmod 755 "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initrd" || exit 99
echo "the image has $(($(stat -c %s "$work/initrd") >> 20)) MiB"

# ---- the machine ----

run_machine "$work" 300 -accel tcg -cpu qemu64 -machine q35 -m 1536 -smp 1 -no-reboot \
        -kernel "$DMAB_VM_DEBIAN_KERNEL" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet panic=-1 nokaslr mitigations=off psi=1 systemd.unit=test.target"
