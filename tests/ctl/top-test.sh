#!/bin/sh
# top: snapshots in a pipe, one object per refresh, and the live view on a terminal, which outlives its daemon.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
started=
trap 'kill $started 2>/dev/null; rm -rf "$directory"' EXIT

shows() {
        grep -qE -e "$2" "$1" || fail "wanted a line like \"$2\" in: $(cat "$1")"
}

on() {
        "$TOP_BUILDDIR/tests/ctl/on-terminal" "$@"
        status=$?
        [ $status -eq 77 ] && { echo "there is no terminal to be had"; exit 77; }
        return $status
}

top() {
        "$CTL" top --interval 0.1 "$@"
}

# ---- in a pipe ----
"$CTL" alloc 32M --device card >/dev/null || fail "alloc fails"
top >"$directory/top" || fail "top fails"
for view in sources owners devices pools bounces calls; do
        shows "$directory/top" "^view $view\$"
done
shows "$directory/top" '^calls_per_second [0-9]+\.[0-9]$'
shows "$directory/top" '^used 33554432$'
shows "$directory/top" '^sim ready 33554432 [0-9]+ [0-9.]+ 33554432 0\.0 '
shows "$directory/top" "^user:$(id -u) 33554432 "
shows "$directory/top" '^[0-9]+ card '
shows "$directory/top" '^broker.status [0-9.]+ [0-9]+ '
grep -q "$(printf '\033')" "$directory/top" && fail "there are colours in a pipe"

# One view, sorted: the larger device first, and the other way round.
"$CTL" alloc 8M --device drive >/dev/null || fail "alloc fails"
top --view devices --sort bytes >"$directory/top" || fail "top --view fails"
expect 'card drive' "$(awk '$1 ~ /^[0-9]+$/ { print $2 }' "$directory/top" | tr '\n' ' ' | sed 's/ $//')" "the order"
top --view devices --sort BYTES --reverse >"$directory/top"
expect 'drive card' "$(awk '$1 ~ /^[0-9]+$/ { print $2 }' "$directory/top" | tr '\n' ' ' | sed 's/ $//')" "the reverse order"

# Rates: a pool whose blocks are taken all the time has some.
"$CTL" pools create busy 64 --device card --reserve 10 -- sh -c '
        (while "$1" pools alloc busy --count 5 -- true; do :; done) 2>/dev/null &
        "$1" top --view pools --interval 1
        kill $!' - "$CTL" >"$directory/top" || fail "top beside a busy pool fails"
awk '$2 == "busy" { seen = 1; if ($8 <= 0 || $9 <= 0) exit 1 } END { exit !seen }' "$directory/top" ||
        fail "the pool has no rates: $(cat "$directory/top")"

# ---- for programs ----
top --json --count 3 >"$directory/json" || fail "top --json fails"
expect 3 "$(wc -l <"$directory/json")" "refreshes"
expect 3 "$(grep -c '^{"time_ms":.*"seconds":.*"totals":{.*"sources":\[{.*"calls":\[{.*}$' "$directory/json")" "objects"
expect 1 "$(top --json --once | wc -l)" "refreshes with --once"
mkfifo "$directory/pipe"
"$CTL" top --json --interval 0.1 >"$directory/pipe" &
pid=$!
started="$started $pid"
exec 3<"$directory/pipe"
read -r _ <&3 && read -r _ <&3 || fail "top --json ends by itself"
kill -INT "$pid" 2>/dev/null || kill "$pid"
cat <&3 >/dev/null &
drain=$!
# A shell's background process ignores SIGINT, which top waits for all the same.
wait "$pid"
expect 0 $? "the status of an interrupted top --json"
exec 3<&-
wait "$drain"

# ---- on a terminal ----
on 120 --when CAPACITY 4 --when FREES/S 5 --when SYNCS/S 6 --when METHOD 2 --when OWNER 3 --when NAME h --when reverse q \
        "$CTL" top --interval 0.1 >"$directory/screen" || fail "the live view ends with $?"
grep -q "$(printf '\033')" "$directory/screen" || fail "nothing is drawn"
on 120 --when CAPACITY "$(printf '\003')" "$CTL" top --interval 0.1 >/dev/null
expect 0 $? "the status after an interrupt"
on 120 --when CAPACITY resize=50 --when SOURCE '> r+- q' "$CTL" top --interval 0.1 >/dev/null
expect 0 $? "the status after a resize"
on 120 "$CTL" top --interval 0.1 --count 2 >/dev/null || fail "the live view does not end after two refreshes"
on 120 "$CTL" top --once >"$directory/once" || fail "top --once on a terminal fails"
grep -q "$(printf '\033')" "$directory/once" && fail "a snapshot is drawn"
LC_ALL=C on 120 "$CTL" top --interval 0.1 --view owners --count 2 | LC_ALL=C grep -q '\[#' || fail "no bar in ASCII"
if locale -a 2>/dev/null | grep -qi '^C\.utf-*8$'; then
        LC_ALL=C.UTF-8 on 120 "$CTL" top --interval 0.1 --count 2 | grep -q "$(printf '\342\226\217')" || fail "no bar in UTF-8"
fi

# ---- a daemon that goes away ----
# Another one takes its place at the same socket, for as long as top needs.
mkdir -m 700 "$directory/state"
daemon() {
        "$TOP_BUILDDIR/dmabrokerd" --source sim --socket "$directory/sock" --state-dir "$directory/state" >"$directory/log" 2>&1 &
        pid=$!
        started="$started $pid"
        until "$CTL" --socket "$directory/sock" version >/dev/null 2>&1; do
                kill -0 "$pid" 2>/dev/null || fail "the daemon does not start: $(cat "$directory/log")"
        done
}
daemon
mkfifo "$directory/json2"
"$CTL" --socket "$directory/sock" top --json --interval 0.1 >"$directory/json2" 2>"$directory/err" &
reader=$!
started="$started $reader"
exec 3<"$directory/json2"
read -r line <&3 || fail "top says nothing"
kill "$pid"
# until_object PATTERN: read objects up to one that is like that
until_object() {
        while read -r line <&3; do
                case $line in
                $1) return 0 ;;
                esac
        done
        fail "top has ended instead of saying $1: $(cat "$directory/err")"
}
until_object '{"error":*'
wait "$pid"
daemon
until_object '{"time_ms"*"seconds":*'
kill "$reader"
wait "$reader"
expect 0 $? "the status of a top that lost its daemon and found another"
exec 3<&-
shows "$directory/err" '^dmabrokerctl: .'

on 100 --when CAPACITY "run=kill $pid" --when away q "$CTL" --socket "$directory/sock" top --interval 0.1 >"$directory/screen"
expect 0 $? "the status of a live view whose daemon went away"
top --socket "$directory/sock" >/dev/null 2>"$directory/err"
expect 3 $? "the status of top without a daemon"
