#!/bin/sh
# Another user sees nothing of what is not theirs, and may not do what is for administrators.
[ "$(id -u)" = 0 ] || { echo "another user is needed, and only root can become one"; exit 77; }
command -v setpriv >/dev/null || { echo "setpriv (util-linux) is missing"; exit 77; }
# The build tree must be one that the other user can read.
setpriv --reuid 65534 --regid 65534 --clear-groups test -x "${TOP_BUILDDIR:-.}/dmabrokerctl" ||
        { echo "user 65534 cannot run ${TOP_BUILDDIR:-.}/dmabrokerctl"; exit 77; }

# daemon.sh runs this script again: the file is made by the first run and removed by the second.
CONFIGURATION=${CONFIGURATION:-$(mktemp)} || exit 99
export CONFIGURATION
printf '[daemon]\naccess = everyone\n' >"$CONFIGURATION"
# shellcheck disable=SC2034
WITH_DAEMON_OPTIONS="--open --config $CONFIGURATION"
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"
rm -f "$CONFIGURATION"

other() {
        setpriv --reuid 65534 --regid 65534 --clear-groups "$CTL" "$@"
}

"$CTL" alloc 1M --device mine >/dev/null || fail "alloc fails"
mine=$("$CTL" allocs | awk 'NR == 2 { print $1 }')
expect 'role local' "$(other status | grep '^role')" "the other's role"
expect 1 "$(other allocs | wc -l)" "lines of the other's allocs"
expect 1 "$(other devices | wc -l)" "lines of the other's devices"
expect 1 "$(other regions | wc -l)" "lines of the other's regions"
expect 1 "$(other windows | wc -l)" "lines of the other's windows"
other map | grep -q user:0 && fail "the other's map names us"
for words in "free $mine" "allocs --owner user:0" "quota user:0" "quota --set bytes=unlimited" "check" "stats --reset" "quarantine release" "devices close mine" \
        guests "guests evict vm" "attach vm 1M" "attach vm 1M --dry-run" "detach 1" "quota vm"; do
        # shellcheck disable=SC2086
        other $words >/dev/null 2>&1
        expect 1 $? "the status of the other's $words"
done
other alloc 1M >/dev/null || fail "the other gets no memory"
expect 3 "$("$CTL" allocs | wc -l)" "lines of the administrator's allocs"
expect 2 "$("$CTL" allocs --owner user:65534 | wc -l)" "lines of the other's allocs for the administrator"
theirs=$(other allocs | awk 'NR == 2 { print $1 }')
"$CTL" free "$theirs" || fail "the administrator cannot free"
expect 2 "$("$CTL" allocs | wc -l)" "lines of allocs in the end"

# An administrator trims and destroys another's pool; the other sees and reaches nothing of ours.
fifo=$(mktemp -u)
mkfifo -m 666 "$fifo"
setpriv --reuid 65534 --regid 65534 --clear-groups "$CTL" --json pools create theirs 64 --reserve 4 >"$fifo" &
holder=$!
trap 'kill $holder 2>/dev/null' EXIT
read -r line <"$fifo"
rm -f "$fifo"
expect 1 "$(other pools --owner user:65534 | grep -c ' theirs user:65534 ')" "the other's pools"
"$CTL" pools trim theirs >/dev/null || fail "the administrator cannot trim"
"$CTL" pools create ours 64 -- sh -c '
        shift
        "$@" pools destroy "$DMABROKER_POOL" || "$@" pools destroy ours' - - \
        setpriv --reuid 65534 --regid 65534 --clear-groups "$CTL" 2>/dev/null
expect 1 $? "the status of the other's attempt at our pool"
"$CTL" pools destroy theirs || fail "the administrator cannot destroy"
kill "$holder"
wait "$holder"
