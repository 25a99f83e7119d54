#!/bin/sh
# watch prints events as they come, and ends when it should.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
generator=
trap 'kill $generator 2>/dev/null; rm -rf "$directory"' EXIT
export CTL

# Something is left behind in a device, and more memory is asked for than there is.
leak() {
        "$CTL" devices open card -- sh -c '"$CTL" alloc 1M --device "$DMABROKER_DEVICE" &&
                "$CTL" devices close "$DMABROKER_DEVICE" --force' >/dev/null 2>&1
}

press() {
        "$CTL" alloc 128M --high --wait 0.001 >/dev/null 2>&1
        "$CTL" release 1M --wait 0 >/dev/null 2>&1
}

# Nobody knows from outside when somebody has begun to watch, so it goes on until that one has seen it.
generate() {
        while leak; do press; done &
        generator=$!
}

stop() {
        kill "$generator"
        wait "$generator" 2>/dev/null
        generator=
}

shows() {
        grep -qE -e "$2" "$1" || fail "wanted a line like \"$2\" in: $(cat "$1")"
}

"$CTL" alloc 64M --device holder >/dev/null || fail "alloc fails"
generate

# Lines.
timeout 60 "$CTL" watch --count 12 >"$directory/lines" || fail "watch fails"
expect 12 "$(wc -l <"$directory/lines")" "lines"
time='^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}[+-][0-9]{4}'
shows "$directory/lines" "$time leak user:$(id -u) left something behind: 1 allocations or mappings of device [0-9]+ \\(card\\), 1048576 bytes\$"
shows "$directory/lines" "$time pressure a call for 134217728 bytes found too little memory\$"
shows "$directory/lines" "$time pressure nobody waits for memory any more\$"
shows "$directory/lines" "$time pressure the host wants 1048576 bytes of memory back\$"
shows "$directory/lines" "$time pressure the host wants no more memory back\$"

# Objects, of one topic only.
timeout 60 "$CTL" watch leak --json --count 3 >"$directory/lines" || fail "watch --json fails"
expect 3 "$(wc -l <"$directory/lines")" "objects"
expect 3 "$(grep -cE '^\{"time":"[0-9T:.-]+Z","topic":"leak","event":[0-9]+,.*"bytes":1048576.*\}$' "$directory/lines")" \
        "objects as they should be"
timeout 60 "$CTL" watch pressure --count 2 >"$directory/lines" || fail "watch pressure fails"
expect 2 "$(grep -c ' pressure ' "$directory/lines")" "lines of pressure"

# It tells at once, and ends well when it is interrupted.
mkfifo "$directory/fifo"
"$CTL" watch >"$directory/fifo" &
watcher=$!
exec 3<"$directory/fifo"
read -r line <&3 || fail "nothing is told"
stop
kill -TERM "$watcher"
wait "$watcher"
expect 0 $? "the status when it is interrupted"

# ... and when nobody reads any more, although nothing happens.
exec 3<&-
"$CTL" watch >"$directory/fifo" &
watcher=$!
exec 3<"$directory/fifo"
exec 3<&-
wait "$watcher"
expect 0 $? "the status when nobody reads"

# It leaves no session behind, and the last of those who left something must have ended, too.
tries=0
until [ "$("$CTL" status | awk '$1 == "sessions" { print $2 }')" = 1 ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 1000 ] || fail "a session stays behind"
done

# When the daemon ends, that is a failure.
mkfifo "$directory/status"
{
        DIRECTORY=$directory "$TOP_BUILDDIR/tests/lib/with-daemon" -- sh -c '
                { "$CTL" watch leak >"$DIRECTORY/leaks" 2>"$DIRECTORY/error"; echo $? >"$DIRECTORY/status"; } &
                until [ -s "$DIRECTORY/leaks" ]; do
                        "$CTL" devices open card -- sh -c "\"\$CTL\" alloc 1M --device \$DMABROKER_DEVICE &&
                                \"\$CTL\" devices close \$DMABROKER_DEVICE --force" >/dev/null || exit
                done'
} || fail "the other daemon fails"
read -r status <"$directory/status"
expect 1 "$status" "the status when the daemon ends"
shows "$directory/error" '^dmabrokerctl: the daemon has ended, or hung up$'
