#!/bin/sh
# quarantine: what a program had that was killed is listed, and an administrator releases it.

# daemon.sh runs this script again: the file is made by the first run and removed by the second.
CONFIGURATION=${CONFIGURATION:-$(mktemp)} || exit 99
export CONFIGURATION
printf '[daemon]\ngrace = 0\n[memory]\nquarantine = 1h\n[device strange]\nquarantine = admin\n' >"$CONFIGURATION"
# shellcheck disable=SC2034
WITH_DAEMON_OPTIONS="--config $CONFIGURATION"
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"
rm -f "$CONFIGURATION"

directory=$(mktemp -d) || exit 99
trap 'rm -rf "$directory"' EXIT

# column FILE ROW NAME: the cell in that row (the heading is row 0) under that title
column() {
        awk -v row="$2" -v name="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; n = NF }
                NR == row + 1 { if (!c || NF != n) exit 1; print $c }' "$1"
}

# vanish DEVICE N: a program has blocks of a pool when it is killed, and there are N items then
vanish() {
        # shellcheck disable=SC2016
        "$CTL" pools create ring 64 --device "$1" -- sh -c \
                '"$1" pools alloc "$DMABROKER_POOL" --count 2 -- sh -c "kill -9 \$PPID"' - "$CTL" >/dev/null 2>&1
        tries=0
        until [ "$("$CTL" quarantine | wc -l)" = $(($2 + 1)) ]; do
                [ $((tries += 1)) -lt 2000 ] || fail "what was killed on $1 does not rest: $("$CTL" quarantine)"
        done
}

owner=user:$(id -u)
expect 1 "$("$CTL" quarantine | wc -l)" "lines while nothing rests"
vanish nic 1
vanish strange 2
"$CTL" quarantine list --owner "$owner" >"$directory/list" || fail "quarantine list fails"
expect 3 "$(wc -l <"$directory/list")" "lines of the list"
expect "$owner" "$(column "$directory/list" 1 OWNER)" OWNER
expect nic "$(column "$directory/list" 1 DEVICE)" DEVICE
expect alloc "$(column "$directory/list" 1 WHAT)" WHAT
expect vanished "$(column "$directory/list" 1 REASON)" REASON
expect strange "$(column "$directory/list" 2 DEVICE)" "DEVICE of the other"
expect admin "$(column "$directory/list" 2 LEFT)" "LEFT of the other"
left=$(column "$directory/list" 1 LEFT)
[ "$left" -gt 3000000 ] && [ "$left" -le 3600000 ] || fail "LEFT is $left"
size=$(column "$directory/list" 1 SIZE)
address=$(column "$directory/list" 1 MACHINE-ADDR)
"$CTL" --json quarantine >"$directory/json" || fail "quarantine --json fails"
grep -q '"left":' "$directory/json" && fail "JSON has what only tables have"
grep -q '"reason":"vanished"' "$directory/json" || fail "JSON: $(cat "$directory/json")"
expect "quarantined $((2 * size))" "$("$CTL" status | grep '^quarantined ')" "the status"
"$CTL" stats memory | grep -q "^quarantined_bytes $((2 * size))\$" || fail "stats: $("$CTL" stats memory)"

# release
"$CTL" quarantine release "$address" >"$directory/released" || fail "release fails"
expect "released $size" "$(grep '^released ' "$directory/released")" "of an address"
expect "resting $size" "$(grep '^resting ' "$directory/released")" "what rests still"
"$CTL" quarantine release "$address" >/dev/null 2>&1
expect 1 $? "a release of what does not rest"
expect "released 0" "$("$CTL" quarantine release user:4711 | grep '^released ')" "of somebody who has nothing"
expect "released $size" "$("$CTL" quarantine release "$owner" | grep '^released ')" "of an owner"
vanish strange 1
expect "resting 0" "$("$CTL" quarantine release | grep '^resting ')" "after all was released"
expect 1 "$("$CTL" quarantine | wc -l)" "lines in the end"
for words in "release nic" "release 0xnothing" "release a b" "list more" "free" "release --owner $owner"; do
        # shellcheck disable=SC2086
        "$CTL" quarantine $words >/dev/null 2>&1
        expect 2 $? "the status of quarantine $words"
done
"$CTL" check >/dev/null || fail "the books are wrong"
