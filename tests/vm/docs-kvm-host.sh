#!/bin/bash
# Inside the virtual machine of docs-kvm.sh, started by systemd after each of its two boots: what an administrator does who follows
# docs/kvm.md, on a host and in a guest. Each command is taken from the text, and in the end each command of the text must have
# been run. WORK is the directory of docs-kvm.sh.
set -u
TEXT=/test/kvm.md
CONFIG=/etc/dmabroker/dmabroker.conf
UUID=6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11
OUT=/run/out

last_words() {
        journalctl --no-pager -b -k | grep -e DENIED -e oops -i | tail
        tail -n 10 /var/log/libvirt/qemu/web.log
        journalctl --no-pager -b -o short-monotonic -u dmabroker -u libvirtd -u vm-web | tail -n 40
}

. /test/steps

# ---- what both hosts have in common ----

window_of() {
        dmabrokerctl windows | awk '$2 == "web" { print $1 }' | tail -n 1
}

is_guest() {
        dmabrokerctl guests | grep -qE "^web $UUID $1 "
}

has_windows() {
        [ "$(dmabrokerctl windows | grep -c "^[0-9]* web .* plugged ")" -eq "$1" ]
}

# A guest with a free port and a channel gets a window, and its programs memory in it.
attach_and_use() {
        say "5. attach"
        host 'dmabrokerctl guests'
        printed "^web $UUID running (libvirt|qmp) yes 0 0 -"
        host 'dmabrokerctl attach web 16M'
        WINDOW=$(awk '$1 == "window" { print $2 }' $OUT)
        host 'dmabrokerctl windows'
        printed "^$WINDOW web 16777216 plugged -"
        host 'dmabrokerctl regions'
        printed "^$WINDOW kvm:$UUID hugetlb .* 16777216 "
        use_in_guest
        host 'dmabrokerctl windows'
        printed "^$WINDOW web 16777216 plugged 0x"
        host 'dmabrokerctl quota web'
        printed '^held_bytes .*16777216'
        host 'dmabrokerctl check'
        printed '^clean *yes'
}

use_in_guest() {
        say "6. in the guest"
        guest 'modprobe virtio_console'
        guest 'ls -l /dev/virtio-ports/org.dmabroker.0'
        guest 'lspci -d 1af4:1110 -v'
        printed 'Memory at .* \(64-bit, prefetchable\) \[.*size=16M\]'
        guest 'dmabrokerctl --socket virtio: status'
        printed '^role *guest'
        printed "^owner *kvm:$UUID"
        guest 'dmabrokerctl --socket virtio: windows'
        printed "^$WINDOW "
        guest 'dmabrokerctl --socket virtio: alloc 1M --device 0000:05:00.0'
        local alloc
        alloc=$(awk '$1 == "alloc" { print $2 }' $OUT)
        host 'dmabrokerctl allocs'
        printed "^$alloc .*1048576"
        in_guest "dmabrokerctl --socket virtio: free $alloc" || die "it is not given back"
        in_guest './guest-example 0000:05:00.0' || die "the example does not run"
        printed '^the device is given 0x[0-9a-f]+ \((identity|guest)\)'
}

detach() {
        host 'dmabrokerctl windows'
        host 'dmabrokerctl detach NUMBER' "NUMBER=$1"
}

# ---- the host before its first boot with the service ----

first_boot() {
        say "1. packages"
        printf 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\nAcquire::Languages "none";\nDPkg::Options "--force-unsafe-io";\n' >/etc/apt/apt.conf.d/test
        export DEBIAN_FRONTEND=noninteractive
        # Nobody reads manual pages here, and their index takes minutes.
        [ ! -e /usr/bin/mandb ] || ln -sf /bin/true /usr/bin/mandb
        # What a Debian that was installed by its installer has, and what is installed in passing.
        apt install apparmor udev qemu-utils >$OUT 2>&1 || die "apt install"
        host 'apt install qemu-system-x86 libvirt-daemon-system libvirt-clients'
        host 'apt install libvirt-dev'
        host 'apt install socat uuid-runtime'

        say "dmabroker, as the README installs it"
        cp -a "$WORK/install/." / && ldconfig && systemctl daemon-reload && systemd-sysusers && systemd-tmpfiles --create || die "no install"

        say "2. the service"
        configure "$(block ini '## 2. The service' 1)" 'source hugetlb'
        host 'dmabrokerd --check-config'
        host 'systemctl enable dmabroker.socket dmabroker.service'
        echo "going to boot 2" >/test/state
        host 'reboot'
}

# ---- libvirt ----

with_libvirt() {
        say "3. the configuration, with libvirt"
        host 'dmabrokerctl status'
        host 'usermod -aG libvirt dmabroker'
        host 'virsh domuuid web'
        block sh '### With libvirt' 1 | grep -qxF "$(head -n 1 $OUT)" || die "another UUID"
        configure "$(block ini '### With libvirt' 1)"
        host 'dmabrokerd --check-config'
        host 'systemctl restart dmabroker'
        wait_for "the guest is seen" is_guest off
        host 'dmabrokerctl guests'

        say "4. the guest's hardware"
        virsh start web || die "it does not start"
        console 'virsh console web'
        hear READY
        wait_for "its start is seen" is_guest running
        refused 'no free PCIe root port of it has room for so much' 'dmabrokerctl attach web 16M'
        host 'dmabrokerctl attach web 16M --dry-run'
        cp $OUT /run/advice
        # The editor does what the three points say.
        cat >/run/editor <<'EDITOR'
#!/bin/bash
index=$(sed -n "s/.*<controller .*index='\([0-9]*\)'.*/\1/p" /run/advice)
grep -qF "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'" /test/kvm.md || exit 1
sed -n '/<channel/,/<\/channel>/p; /<controller .*\/>/p' /run/advice >/run/devices
sed -n '/<qemu:override>/,/<\/qemu:override>/p' /run/advice >/run/override
grep -q "pci.$index" /run/override || exit 1
sed -i -e "1s|<domain type='kvm'|& xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'|" \
        -e '/<devices>/r /run/devices' -e '/<\/devices>/r /run/override' "$1"
EDITOR
        chmod 755 /run/editor
        export EDITOR=/run/editor
        host 'virsh edit web'
        printed "^Domain 'web' XML configuration edited"
        # This kernel's AppArmor asks nobody about sockets: what the text says of it is seen elsewhere.
        # shellcheck disable=SC2016
        host "echo '/run/dmabroker/guests/*.[0-9]* rw,' >>/etc/apparmor.d/local/abstractions/libvirt-qemu"
        host 'virsh shutdown web'
        wait_for "it is off" is_guest off
        console_ends
        host 'virsh start web'
        console 'virsh console web'
        hear READY
        wait_for "its program can speak" is_guest 'running libvirt yes'

        host 'apparmor_parser -r /etc/apparmor.d/libvirt/libvirt-UUID' "UUID=$UUID"
        aa-status | grep "libvirt-$UUID" || die "the guest's QEMU is not confined"

        said '#' 'dmabrokerctl watch guest'
        dmabrokerctl watch guest >$OUT.events &
        local watcher=$!
        attach_and_use
        cp $OUT.events $OUT && cat $OUT
        printed 'guest web has one more window'
        kill $watcher

        say "who is not its QEMU at its channel"
        setpriv --reuid=libvirt-qemu --regid=libvirt-qemu --clear-groups \
                timeout 60 socat -u UNIX-CONNECT:/run/dmabroker/guests/$UUID.channel - || die "it is not hung up on"
        journalctl --sync
        journalctl --no-pager -b -u dmabroker -o cat >$OUT
        printed "that is not the guest's QEMU was hung up on .*: it is in no machine, and the guest in a machine qemu-"
        grep 'hung up on' $OUT

        say "what happens when"
        in_guest 'dmabrokerctl --socket virtio: alloc 1M --device some' || die "no memory"
        refused 'The window holds' 'dmabrokerctl detach NUMBER' "NUMBER=$WINDOW"
        host 'systemctl restart dmabroker'
        wait_for "its program can speak" is_guest 'running libvirt yes'
        in_guest 'dmabrokerctl --socket virtio: windows' || die "after a restart of the daemon"
        printed "^$WINDOW "
        hang_up
        systemctl restart libvirtd || die "no restart of libvirtd"
        wait_for "libvirtd is seen again" is_guest 'running libvirt yes'
        console 'virsh console web'
        rouse
        echo systemctl reboot >&"$TO"
        hear READY
        dmabrokerctl allocs >$OUT
        grep -q "kvm:$UUID" $OUT && die "allocations outlive the guest's reboot"
        use_in_guest
        virsh save web /run/saved >$OUT 2>&1 && die "it is saved with a window"
        cat $OUT
        printed 'igration is disabled|cannot be migrated'
        host 'dmabrokerctl quota web --set held_bytes=256M'
        host 'dmabrokerctl guests evict web'

        say "a window that a daemon has left which was stopped for good"
        systemctl stop dmabroker.socket dmabroker || die "no stop"
        systemctl start dmabroker.socket dmabroker || die "no start"
        wait_for "its program can speak" is_guest 'running libvirt yes'
        host 'virsh dumpxml web'
        local left
        left=$(grep -o 'ua-dmabroker-[1-9][0-9]*' $OUT) || die "nothing was left"
        host 'virsh detach-device-alias web ua-dmabroker-1 --live' "ua-dmabroker-1=$left"
        wait_for "it is taken out" eval '! virsh dumpxml web | grep -q "ua-dmabroker-[1-9]"'
        attach_and_use

        say "detach"
        detach "$WINDOW"
        has_windows 0 || die "it is there"

        say "a window at each start"
        configure 'window = 16M' 'guest web'
        host 'systemctl restart dmabroker'
        virsh destroy web || die "no destroy"
        wait_for "it is off" is_guest off
        console_ends
        virsh start web || die "no start"
        console 'virsh console web'
        hear READY
        wait_for "it has its window" has_windows 1
        WINDOW=$(window_of)
        use_in_guest
        echo systemctl poweroff >&"$TO"
        wait_for "it is off" is_guest off
        console_ends
        wait_for "its window has gone back" has_windows 0
        virsh undefine web || die "it stays"
}

# ---- QEMU alone ----

with_qemu() {
        say "3. the configuration, with QEMU alone"
        cp "$WORK/install$CONFIG" $CONFIG
        configure "$(block ini '## 2. The service' 1)" 'source hugetlb'
        configure "$(block ini '### With QEMU alone' 1)"
        host 'useradd --system --no-create-home --user-group --groups kvm vm'
        host 'usermod -aG vm dmabroker'
        host 'install -D -o vm -g vm -m 600 YOUR-IMAGE.qcow2 /var/lib/vm/web.qcow2' 'YOUR-IMAGE.qcow2=/var/lib/image.qcow2'
        block ini '### With QEMU alone' 2 >/etc/systemd/system/vm-web.service
        # Two processors of a guest whose host's are emulated may wait for each other for minutes.
        sed -i 's/ -smp 2 / -smp 1 /' /etc/systemd/system/vm-web.service
        host 'dmabrokerd --check-config'
        host 'systemctl restart dmabroker'
        wait_for "its monitor is missed" eval 'dmabrokerctl guests --json | grep -q "cannot be connected to: No such file or directory"'
        host 'dmabrokerctl guests'

        say "4. the guest's hardware"
        host 'dmabrokerctl attach web 16M --dry-run'
        [ "$(grep -c '^-' $OUT)" -ge 4 ] || die "that is no advice"
        grep '^-' $OUT | sed 's/ *\\$//' | while read -r line; do
                grep -qF -e "$line" /etc/systemd/system/vm-web.service || die "the unit lacks: $line"
        done || exit 1
        host 'systemctl daemon-reload'
        host 'systemctl enable --now vm-web'
        said '#' 'socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:/run/vm-web/console'
        wait_for "its console is there" test -S /run/vm-web/console
        console "$RUN"
        hear READY
        wait_for "its program can speak" is_guest 'running qmp yes'
        attach_and_use
        detach "$WINDOW"

        say "power off"
        echo systemctl poweroff >&"$TO"
        wait_for "it is off" eval '! systemctl is-active --quiet vm-web'
        console_ends
}

if [ "$(wc -l </test/booted)" -eq 1 ]; then
        first_boot
        exit 0
fi
echo "boot 2" >/test/state
modprobe kvm_amd || die "no KVM"
aa-status || die "no AppArmor"
qemu-img convert -O qcow2 "$WORK/web/disk" /var/lib/image.qcow2 && cp /var/lib/image.qcow2 /var/lib/libvirt/images/web.qcow2 || die "no disk"
cat >/run/web.xml <<XML
<domain type='kvm'>
  <name>web</name>
  <uuid>$UUID</uuid>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <os><type machine='q35'>hvm</type></os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/var/lib/libvirt/images/web.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'/>
    <console type='pty'/>
    <memballoon model='none'/>
  </devices>
</domain>
XML
virsh define /run/web.xml || die "no domain"
with_libvirt
with_qemu
all_is_done
