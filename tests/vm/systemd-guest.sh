#!/bin/bash
# Inside the virtual machine of systemd.sh, started by systemd when everything else is. A client (systemd-guest.c) has memory
# of the service, and keeps it through whatever happens to that.
set -u
HUGE=/sys/kernel/mm/hugepages/hugepages-2048kB
DROPIN=/run/systemd/system/dmabroker.service.d
CONFIG=/etc/dmabroker/dmabroker.conf
PAGES=64
DAMAGE='damage\|cannot be read\|could not be read'

say() {
        local up
        read -r up _ </proc/uptime
        printf '\n== [%s s] %s\n' "$up" "$*"
}

die() {
        printf 'FAILED: %s\n' "$*"
        systemctl status --no-pager dmabroker.service
        journalctl --no-pager -b -o short-monotonic _PID=1 + _SYSTEMD_UNIT=dmabroker.service | tail -n 80
        echo VM-TEST-FAILED
        exit 1
}

property() {
        systemctl show --value -p "$1" dmabroker.service
}

# wait_for WHAT COMMAND...: until it succeeds.
wait_for() {
        local what=$1 until=$((SECONDS + 60))
        shift
        until "$@"; do
                [ $SECONDS -lt $until ] || die "60 s are over: $what"
        done
}

is() {
        [ "$(property "$1")" = "$2" ]
}

is_new() {
        local now
        now=$(property MainPID)
        [ "$now" != 0 ] && [ "$now" != "$1" ] && is SubState running
}

logged() {
        journalctl --sync && journalctl --no-pager -b -u dmabroker.service -o cat | grep -e "$1"
}

huge() {
        cat $HUGE/"$1"_hugepages
}

# ask COMMAND: what the client says to it.
ask() {
        local answer=
        echo "$1" >&"${CLIENT[1]}" || die "the client is no more"
        read -r -t 100 answer <&"${CLIENT[0]}" || die "the client does not answer to $1"
        echo "client: $answer"
        case $answer in ok*) ;; *) die "the client" ;; esac
}

is_clean() {
        dmabrokerctl check >/run/check || { cat /run/check; die "dmabrokerctl check"; }
        grep -q '^clean *yes' /run/check || { cat /run/check; die "dmabrokerctl check"; }
}

# resumed WHAT: the next daemon has all that the client had.
resumed() {
        ask "check $1"
        is_clean
        logged "$DAMAGE" && die "the ledger was damaged"
        echo "main process $(property MainPID), $(property NFileDescriptorStore) descriptors in the store," \
                "$(huge free) of $(huge nr) huge pages free"
}

# printed FIRST-LINE: the drop-in of dmabrokerd(8) that begins so, as somebody would type it.
printed() {
        sed -n "/^$1\$/,/^[.]EE\$/p" /test/dmabrokerd.8 | sed 's/[\\]-/-/g; /^[.]EE$/d'
}

drop_in() {
        mkdir -p $DROPIN
        printf '[Service]\n%s\n' "$2" >"$DROPIN/$1.conf"
        systemctl daemon-reload
}

# ---- before the first client ----

say "the user, the group, the files"
id dmabroker || die "there is no user dmabroker"
stat -c '%A %U:%G %n' /run/dmabroker /run/dmabroker/dmabroker.sock /var/lib/dmabroker $HUGE/nr_hugepages >/run/files
cat /run/files
diff /run/files - <<TEXT || die "wrong owners"
drwxr-xr-x dmabroker:dmabroker /run/dmabroker
srw-rw-rw- root:root /run/dmabroker/dmabroker.sock
drwx------ dmabroker:dmabroker /var/lib/dmabroker
-rw-rw-r-- dmabroker:root $HUGE/nr_hugepages
TEXT
echo $PAGES >/proc/sys/vm/nr_hugepages
[ "$(huge free)" -eq $PAGES ] || die "no huge pages: $(huge free)"
# The least that a pipe can have, for users without rights.
echo 1 >/proc/sys/fs/pipe-user-pages-soft
# A call that the filter forbids is the end here.
drop_in test $'SystemCallErrorNumber=kill\nRestartSec=3'
sed -i 's/^dmabroker:.*/&client/' /etc/group

say "a client connects, and that starts the service"
is ActiveState inactive || die "it runs already"
coproc CLIENT { exec /test/client client; }
ask begin
is ActiveState active || die "it does not run"
echo "main process $(property MainPID), $(property NFileDescriptorStore) descriptors in the store"
[ "$(stat -c %U "/proc/$(property MainPID)")" = dmabroker ] || die "it runs as another user"
grep -E '^(Cap|NoNewPrivs|Seccomp:)' "/proc/$(property MainPID)/status"
grep -q '^CapEff:[[:space:]]*0000000001000000$' "/proc/$(property MainPID)/status" || die "it has not CAP_SYS_RESOURCE alone"
logged 'hugetlb serves' || die "no huge pages"
# Whether a client lives while it has not come back after a restart, its process says.
grep -aqE " 1000 $CLIENT_PID:[1-9]" /var/lib/dmabroker/ledger.* || die "the daemon does not see the client's process"
[ -e /proc/pressure/memory ] || die "this kernel tells nothing of memory pressure"
logged 'pressure of the host is not watched' && die "it may not look at memory pressure"
resumed "nothing has happened"

say "a stranger is refused"
setpriv --reuid=stranger --regid=stranger --clear-groups dmabrokerctl status && die "a stranger may connect"

# ---- what may happen to a service ----

say "kill -s KILL"
main=$(property MainPID)
systemctl kill -s KILL dmabroker.service
wait_for "it waits for its restart" is SubState auto-restart
held=$(property NFileDescriptorStore)
echo "while there is no daemon systemd holds $held descriptors, and $(huge free) of $(huge nr) huge pages are free"
[ "$held" -gt 4 ] || die "it holds nothing"
wait_for "another one runs" is_new "$main"
resumed "after SIGKILL"

say "restart"
main=$(property MainPID)
systemctl restart dmabroker.service || die "no restart"
is_new "$main" || die "the same process"
resumed "after a restart"

say "reload"
printf '[memory]\nregion_idle = soon\n' >$CONFIG
systemctl reload dmabroker.service && die "a configuration with an error is taken"
logged "$CONFIG:2" || die "nobody says where the error is"
systemctl kill -s HUP --kill-who=main dmabroker.service
wait_for "the daemon has looked, too" logged 'configuration stays as it was'
printf '[memory]\nregion_idle = 3s\n' >$CONFIG
systemctl reload dmabroker.service || die "no reload"
wait_for "the new configuration is in force" logged 'new configuration is in force'
resumed "after a reload"

say "it hangs"
main=$(property MainPID)
drop_in watchdog WatchdogSec=4
systemctl restart dmabroker.service || die "no restart"
main=$(property MainPID)
kill -s STOP "$main"
wait_for "the watchdog bites" is_new "$main"
logged 'Watchdog timeout' || die "it was not the watchdog"
rm $DROPIN/watchdog.conf
systemctl daemon-reload
resumed "after the watchdog"

say "an upgrade"
mv /test/dmabrokerd-next "$SBIN/dmabrokerd"
systemctl restart dmabroker.service || die "no restart"
resumed "after the upgrade"

# ---- the end ----

say "stop"
systemctl stop dmabroker.socket dmabroker.service || die "no stop"
is SubState dead || die "it is not dead"
is NFileDescriptorStore 0 || die "something is held"
echo "stopped: nothing in the store, $(huge free) of $(huge nr) huge pages free, the others mapped by the client"
systemctl start dmabroker.socket || die "no start"
ask gone
is ActiveState active || die "the client has not started it"
logged 'is gone'
logged "$DAMAGE" && die "the ledger was damaged"
is_clean

say "begin anew, end, stop"
ask begin
resumed "with a new session"
ask end
systemctl stop dmabroker.socket dmabroker.service || die "no stop"
is NFileDescriptorStore 0 || die "something is held"
echo "stopped: $(huge free) of $(huge nr) huge pages free"
[ "$(huge free)" -eq $PAGES ] && [ "$(huge nr)" -eq $PAGES ] || die "huge pages are missing"

say "more huge pages than there are"
printf '[source hugetlb]\nreserve = 160M\n' >$CONFIG
systemctl start dmabroker.socket dmabroker.service || die "no start"
echo "started: $(huge free) of $(huge nr) huge pages free"
[ "$(huge nr)" -eq 80 ] || die "the daemon may not ask for huge pages"
systemctl stop dmabroker.socket dmabroker.service || die "no stop"
echo "stopped: $(huge free) of $(huge nr) huge pages free"
[ "$(huge free)" -eq $PAGES ] && [ "$(huge nr)" -eq $PAGES ] || die "it has not given them back"

say "run by root, as the source dma-heap needs it, and by its own user again"
drop_in root "$(printed User=root)"
cat $DROPIN/root.conf
for user in root dmabroker; do
        systemctl stop dmabroker.socket dmabroker.service || die "no stop"
        systemctl start dmabroker.socket dmabroker.service || die "no start"
        main=$(property MainPID)
        stat -c '%U %n' "/proc/$main" /var/lib/dmabroker /var/lib/dmabroker/ledger.*
        [ "$(stat -c %U "/proc/$main" /var/lib/dmabroker/ledger.* | uniq)" = $user ] || die "it is not $user"
        grep CapEff "/proc/$main/status"
        [ "$(huge nr)" -eq 80 ] || die "it may not ask for huge pages"
        is_clean
        rm -f $DROPIN/root.conf
        systemctl daemon-reload
done
systemctl stop dmabroker.socket dmabroker.service || die "no stop"

say "metrics over TCP"
printf '[metrics]\nlisten = 127.0.0.1:9464\n' >$CONFIG
if "$SBIN/dmabrokerd" --check-config; then
        drop_in metrics "$(printed PrivateNetwork=no)"
        cat $DROPIN/metrics.conf
        systemctl start dmabroker.socket dmabroker.service || die "no start"
        exec 3<>/dev/tcp/127.0.0.1/9464 || die "nobody serves metrics"
        printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
        timeout 60 cat <&3 >/run/metrics
        head -n 1 /run/metrics
        grep '^dmabroker_source_free_bytes' /run/metrics || die "no metrics"
        systemctl stop dmabroker.socket dmabroker.service || die "no stop"
fi

say "what was logged"
journalctl --no-pager -b -u dmabroker.service -p warning -o short-monotonic
echo VM-TEST-PASSED
