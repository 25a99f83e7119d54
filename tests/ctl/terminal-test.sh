#!/bin/sh
# On a terminal: tables that fit it, rounded sizes, columns without values left out, colours in the picture.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
trap 'rm -rf "$directory"' EXIT

on() {
        "$TOP_BUILDDIR/tests/ctl/on-terminal" "$@"
        status=$?
        [ $status -eq 77 ] && { echo "there is no terminal to be had"; exit 77; }
        return $status
}

"$CTL" alloc 64M --device card >/dev/null || fail "alloc fails"
on 200 "$CTL" allocs >"$directory/allocs" || fail "allocs fails"
grep -Eq ' 64M ' "$directory/allocs" || fail "the size is not rounded: $(cat "$directory/allocs")"
on 200 "$CTL" devices >"$directory/devices" || fail "devices fails"
grep -q PARENT "$directory/devices" && fail "a column without values is there"
grep -q '64 bits' "$directory/devices" || fail "a mask is not told in bits: $(cat "$directory/devices")"
"$CTL" devices | grep -q 0xffffffffffffffff || fail "a mask is not told as it is in a pipe"
"$CTL" alloc 4K --device "$(printf '%060d' 0)" >/dev/null || fail "alloc fails"
on 110 "$CTL" devices | awk 'length > 110 { exit 1 }' || fail "the table is wider than the terminal"
"$CTL" devices | grep -q "$(printf '%060d' 0)" || fail "a name is cut in a pipe"
on 50 "$CTL" map >"$directory/map" || fail "map fails"
grep -q "$(printf '\033')" "$directory/map" || fail "there are no colours"
sed "s/$(printf '\033')\[[0-9;]*m//g" "$directory/map" | awk '/^\[/ { seen = 1; if (length > 50) exit 1 } END { exit !seen }' ||
        fail "the picture is wider than the terminal"
on 80 "$CTL" --json status | grep -q '^  "server": ' || fail "JSON is not indented"
on 80 "$CTL" frobnicate >/dev/null
expect 2 $? "the exit status on a terminal"
