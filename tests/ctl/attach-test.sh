#!/bin/sh
# attach and detach with a QEMU that stands still: its guest never lets go of a window, and ends.
command -v qemu-system-x86_64 >/dev/null || { echo "qemu-system-x86_64 is not installed"; exit 77; }
qemu-system-x86_64 -device help 2>/dev/null | grep -q '"ivshmem-doorbell"' || { echo "this QEMU has no ivshmem"; exit 77; }
qemu-system-x86_64 -accel help 2>/dev/null | grep -qx tcg || { echo "this QEMU cannot emulate"; exit 77; }

# daemon.sh runs this script again: the directory is made by the first run and removed by the second.
GUESTS=${GUESTS:-$(mktemp -d)} || exit 99
export GUESTS
vm=5d2c1f0e-8b7a-4c69-9e3d-1a2b3c4d5e6f
cat >"$GUESTS/configuration" <<END
[guests]
directory = $GUESTS/sockets
unplug_timeout = 500ms
[guest vm]
uuid = $vm
qmp = $GUESTS/qmp
ports = dmabroker1
END
# shellcheck disable=SC2034
WITH_DAEMON_OPTIONS="--source sim --config $GUESTS/configuration"
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"
qemu='' watcher=''
trap 'kill $qemu $watcher 2>/dev/null; rm -rf "$GUESTS"' EXIT

# until_shows PATTERN ARGUMENTS...: what the verb prints, it prints in time
until_shows() {
        pattern=$1
        shift
        tries=0
        until "$CTL" "$@" >"$GUESTS/out" && grep -qE -e "$pattern" "$GUESTS/out"; do
                [ -z "$qemu" ] || kill -0 "$qemu" 2>/dev/null || fail "QEMU ends: $(cat "$GUESTS/qemu")"
                [ $((tries += 1)) -lt 4000 ] || fail "$* does not show \"$pattern\": $(cat "$GUESTS/out")"
        done
}

# Before QEMU comes, it is certain that somebody watches: he has been told of a connection of ours.
"$CTL" watch guest >"$GUESTS/events" &
watcher=$!
until [ -s "$GUESTS/events" ]; do
        kill -0 "$watcher" 2>/dev/null || fail "watch ends"
        timeout 0.2 "$CTL" --socket "$GUESTS/sockets/$vm.channel" version >/dev/null 2>&1
done

# What QEMU is told is what was advised.
"$CTL" attach vm 16M --dry-run | sed '/^#/d; s/\\$//' | tr '\n' ' ' >"$GUESTS/arguments"
# shellcheck disable=SC2046
qemu-system-x86_64 -accel tcg -machine q35 -m 64 -nodefaults -display none -S $(cat "$GUESTS/arguments") 2>"$GUESTS/qemu" &
qemu=$!
until_shows "^vm $vm paused qmp yes 0 0 -\$" guests

"$CTL" attach vm 16M >"$GUESTS/attached" || fail "attach fails"
window=$(awk '$1 == "window" { print $2 }' "$GUESTS/attached")
expect "window $window
size 16777216
channel $GUESTS/sockets/$vm.channel" "$(cat "$GUESTS/attached")" "what attach prints"
expect "$window vm 16777216 plugged -" "$("$CTL" windows --guest vm | tail -1)" "the window"
"$CTL" --json windows | grep -qE '"cookie":"[0-9a-f]{32}"' || fail "there is no cookie: $("$CTL" --json windows)"
expect "vm $vm paused qmp yes 1 16777216 -" "$("$CTL" guests | tail -1)" "the guest"
"$CTL" regions --owner "kvm:$vm" | grep -q "^$window kvm:$vm sim " || fail "regions: $("$CTL" regions)"
"$CTL" attach vm 1M >/dev/null 2>"$GUESTS/err"
expect 1 $? "attaching where there is no port"
grep -q 'every port that the configuration names has a window' "$GUESTS/err" || fail "$(cat "$GUESTS/err")"

"$CTL" detach "$window" >/dev/null 2>"$GUESTS/err"
expect 1 $? "the exit status when the guest does not let go"
grep -q '^dmabrokerctl: The guest vm does not let go' "$GUESTS/err" || fail "$(cat "$GUESTS/err")"
expect leaving "$("$CTL" windows | awk 'NR == 2 { print $4 }')" "the window's state"
"$CTL" detach "$window" >/dev/null 2>"$GUESTS/err"
expect 1 $? "detaching twice"

# It ends, and its window with it.
kill "$qemu"
wait "$qemu"
qemu=
until_shows "^vm $vm off qmp (yes|no) 0 0 -\$" guests
expect 1 "$("$CTL" windows | wc -l)" "lines of windows in the end"
for sentence in 'runs' 'has one more window' 'has one window less' "does not run: what it had is the host's again"; do
        tries=0
        until grep -q " guest vm $sentence\$" "$GUESTS/events"; do
                [ $((tries += 1)) -lt 2000 ] || fail "nobody was told that vm $sentence: $(cat "$GUESTS/events")"
        done
done
"$CTL" check >/dev/null || fail "the books are wrong"
