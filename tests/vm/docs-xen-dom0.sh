#!/bin/bash
# Inside the virtual machine of docs-xen.sh, started by systemd after each of its two boots: what an administrator does who follows
# docs/xen.md, in dom0 and in a guest. Each command is taken from the text, and in the end each command of the text must have been run.
set -u
TEXT=/test/xen.md
CONFIG=/etc/dmabroker/dmabroker.conf
UUID=4d0b6c1e-7a1f-4c55-9a60-3c2f5d9e8b17
OUT=/run/out

last_words() {
        xl list
        xl dmesg | tail -n 5
        tail -n 10 /var/log/xen/xl-web.log
        journalctl --no-pager -b -o short-monotonic -u dmabroker -u xen | tail -n 40
}

. /test/steps

# given COMMAND: nobody does it here, since it is so already.
given() {
        said '#' "$1"
        echo "(is done already)"
}

is_guest() {
        dmabrokerctl guests | grep -qE "^web $UUID $1 "
}

has_windows() {
        [ "$(dmabrokerctl windows | grep -c "^[0-9]* web .* plugged ")" -eq "$1" ]
}

# ---- dom0 before its first boot with the service ----

first_boot() {
        say "1. packages"
        given 'apt install xen-system-amd64'
        given 'apt install libxen-dev'
        host 'xl list'
        printed '^Domain-0 '

        say "2. what Xen is told"
        given 'update-grub'

        say "3. modules"
        host "printf 'xen_privcmd\\nxen_evtchn\\nxen_gntalloc\\n' >/etc/modules-load.d/dmabroker.conf"
        host "echo 'options xen_gntalloc limit=4096' >/etc/modprobe.d/dmabroker.conf"

        say "dmabroker, as the README installs it"
        systemd-sysusers && systemd-tmpfiles --create || die "no install"

        say "4. the service"
        mkdir -p /etc/systemd/system/dmabroker.service.d
        block ini '## 4. The service' 1 >/etc/systemd/system/dmabroker.service.d/override.conf
        configure "$(block ini '## 4. The service' 2)"
        host 'dmabrokerd --check-config'
        host 'systemctl enable dmabroker.socket dmabroker.service'
        echo "going to boot 2" >/test/state
        host 'reboot'
}

# ---- the guest ----

# What a guest of this kind has anyway.
write_xl_cfg() {
        cat >/etc/xen/web.cfg <<CFG
name = "web"
type = "$1"
memory = 256
vcpus = 1
kernel = "/boot/kernel"
ramdisk = "/boot/web-initrd"
extra = "console=hvc0 panic=-1 nokaslr mitigations=off loglevel=3${2:-}"
disk = [ "phy:/dev/vdb,xvda,w" ]
CFG
}

see_guest() {
        console 'xl console web'
        said '#' 'xl console web'
        rouse
        wait_for "it is seen" is_guest 'running xen no'
}

start_guest() {
        host 'xl create /etc/xen/web.cfg'
        see_guest
}

attach_and_use() {
        say "7. attach"
        host 'dmabrokerctl guests'
        printed "^web $UUID running xen no 0 0 -"
        host 'dmabrokerctl attach web 16M'
        WINDOW=$(awk '$1 == "window" { print $2 }' $OUT)
        host 'dmabrokerctl windows'
        printed "^$WINDOW web 16777216 plugged $1"
        host 'dmabrokerctl regions'
        printed "^$WINDOW xen:$UUID xen .* 16777216 "
        use_in_guest
        host 'dmabrokerctl windows'
        host 'dmabrokerctl quota web'
        printed '^held_bytes .*16777216'
        host 'dmabrokerctl check'
        printed '^clean *yes'
        host 'dmabrokerctl --json windows'
        list_grants
}

list_grants() {
        say "grants"
        host 'dmabrokerctl grants'
        printed "^[0-9]+ .*window"
        host 'dmabrokerctl grants --guest web'
        refused 'has not granted dom0' 'dmabrokerctl grants map web REFS COMMAND' 'REFS COMMAND=30000 true'
        host 'dmabrokerctl grants share web 64K COMMAND' COMMAND=env
        printed '^DMABROKER_REFS=[0-9]'
}

use_in_guest() {
        say "8. in the guest"
        guest "printf 'xen_gntdev\\nxen_evtchn\\n' >/etc/modules-load.d/dmabroker.conf"
        guest 'modprobe -a xen_gntdev xen_evtchn'
        guest 'ls -l /dev/xen'
        guest 'dmabrokerctl --socket xen: status'
        printed '^role *guest'
        printed "^owner *xen:$UUID"
        guest 'dmabrokerctl --socket xen: windows'
        printed "^$WINDOW "
        guest 'dmabrokerctl --socket xen: alloc 1M --device card'
        local alloc
        alloc=$(awk '$1 == "alloc" { print $2 }' $OUT)
        host 'dmabrokerctl allocs'
        printed "^$alloc .*1048576"
        refused 'The window holds' 'dmabrokerctl detach NUMBER' "NUMBER=$WINDOW"
        in_guest "dmabrokerctl --socket xen: free $alloc" || die "it is not given back"
        guest './guest-example card'
        printed '^the device is given 0x[0-9a-f]+ \((grant|guest)\)'
}

detach() {
        host 'dmabrokerctl windows'
        host 'dmabrokerctl detach NUMBER' "NUMBER=$WINDOW"
        has_windows 0 || die "it is there"
}

with_service() {
        host 'dmabrokerctl status'
        printed '^xen ready machine 134217728 134217728 '
        host 'xl list'
        printed '^\(null\) '

        say "5. the configuration"
        configure "$(block ini '## 5. The configuration' 1)"
        host 'dmabrokerd --check-config'
        host 'systemctl restart dmabroker'
        wait_for "the guest is known" is_guest off
        host 'dmabrokerctl guests'
        refused 'cannot be reached: it does not run' 'dmabrokerctl attach web 16M'
}

with_guest() {
        say "6. the guest's xl.cfg"
        write_xl_cfg pv
        host 'dmabrokerctl attach web 16M --dry-run'
        grep -v '^#' $OUT | while read -r line; do
                block ini "## 6. The guest's xl.cfg" 1 | grep -qxF "$line" || die "the text lacks: $line"
        done || exit 1
        block ini "## 6. The guest's xl.cfg" 1 >>/etc/xen/web.cfg
        start_guest
        host 'xl list -v'
        printed " $UUID "

        said '#' 'dmabrokerctl watch guest'
        dmabrokerctl watch guest >$OUT.events &
        local watcher=$!
        attach_and_use 0x
        cp $OUT.events $OUT && cat $OUT
        printed 'guest web has one more window'
        kill $watcher
}

what_happens_when() {
        say "what happens when"
        host 'systemctl restart dmabroker'
        wait_for "it is seen" is_guest 'running xen no'
        in_guest 'dmabrokerctl --socket xen: windows' || die "after a restart of the daemon"
        printed "^$WINDOW "
        detach

        say "save and restore"
        hang_up
        host 'xl save web /var/lib/xen/web.saved'
        wait_for "it is off" is_guest off
        host 'xl restore /var/lib/xen/web.saved'
        see_guest
        host 'dmabrokerctl attach web 16M'
        in_guest './guest-example card' || die "not after it was restored"
        host 'dmabrokerctl quota web --set held_bytes=256M'
        host 'dmabrokerctl guests evict web'

        say "it is destroyed"
        hang_up
        host 'xl destroy web'
        wait_for "it is off" is_guest off
        wait_for "its window has gone back" has_windows 0
}

with_pvh() {
        say "a guest of the other kind"
        # Of its Debian only what is needed: it is much slower here.
        write_xl_cfg pvh ' systemd.unit=shell.service systemd.mask=systemd-udev-trigger.service'
        block ini "## 6. The guest's xl.cfg" 1 >>/etc/xen/web.cfg
        start_guest
        in_guest 'ls /dev/xen/gntdev /dev/xen/evtchn' || die "what is loaded at its start"
        host "xenstore-write /local/domain/0/dmabroker/guest/$UUID \"window=16M held_bytes=256M\""
        wait_for "it has what xenstore says" has_windows 1
        in_guest './guest-example card' || die "not in a guest of this kind"
        printed '^the device is given 0x[0-9a-f]+ \(grant\)'
        in_guest 'dmabrokerctl --socket xen: alloc 1M --device 0000:05:00.0' && die "that device is given an address"
        cat $OUT
        printed 'no address in this guest that a PCI device could be given'
        in_troubleshooting 'no address in this guest that a PCI device could be given'
}

if [ "$(wc -l </test/booted)" -eq 1 ]; then
        first_boot
        exit 0
fi
echo "boot 2" >/test/state
with_service
with_guest
what_happens_when
with_pvh
# docs-xen.sh has done it.
# shellcheck disable=SC2016
said '#' 'cc guest-example.c -o guest-example $(pkg-config --cflags --libs dmabroker)'
all_is_done
