#!/bin/sh
# quota, stats, check, map, bench, call, version: what they print in a pipe and as JSON.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
trap 'rm -rf "$directory"' EXIT

shows() {
        grep -qE -e "$2" "$1" || fail "wanted a line like \"$2\" in: $(cat "$1")"
}

"$CTL" status >"$directory/status"
shows "$directory/status" '^addressing simulated$'
shows "$directory/status" "^owner user:$(id -u)\$"
shows "$directory/status" '^SOURCE STATE '
shows "$directory/status" '^sim ready simulated [0-9]+ '
"$CTL" version >"$directory/version"
shows "$directory/version" '^daemon [0-9]'

# quota
"$CTL" quota user:12345 --set bytes=64M --set allocs=7 >"$directory/quota" || fail "quota --set fails"
"$CTL" quota user:12345 >"$directory/quota"
shows "$directory/quota" '^owner user:12345$'
shows "$directory/quota" '^bytes 67108864 0$'
shows "$directory/quota" '^allocs 7 0$'
"$CTL" quota user:12345 --set bytes=unlimited >/dev/null || fail "lifting a limit fails"
"$CTL" quota user:12345 >"$directory/quota"
shows "$directory/quota" '^bytes unlimited 0$'
shows "$directory/quota" '^allocs 7 0$'
"$CTL" quota user:12345 --set calls_per_second=100 >/dev/null || fail "limiting calls fails"
"$CTL" quota user:12345 >"$directory/quota"
shows "$directory/quota" '^calls_per_second 100 0$'
"$CTL" quota user:12345 --guarantee 8M --guarantee-low 1M >/dev/null || fail "guaranteeing fails"
"$CTL" quota user:12345 >"$directory/quota"
shows "$directory/quota" '^guaranteed 8388608$'
shows "$directory/quota" '^unmet_low 1048576$'
"$CTL" status >"$directory/status"
shows "$directory/status" '^guaranteed 8388608$'
"$CTL" quota user:12345 --guarantee 0 >/dev/null
"$CTL" quota user:12345 >"$directory/quota"
grep -q '^guaranteed' "$directory/quota" && fail "a guarantee that was lifted is shown"
"$CTL" quota user:12345 --guarantee 1T >/dev/null 2>"$directory/refused"
expect 1 $? "a guarantee of more than there is"

# release: of the simulation nothing can be given back, unless it is told otherwise
"$CTL" release 1M --wait 0 >"$directory/release" || fail "release fails"
shows "$directory/release" '^released 0$'
shows "$directory/release" '^held [1-9][0-9]*$'
"$CTL" release lots >/dev/null 2>&1
expect 2 $? "a release of nobody knows how much"

"$CTL" quota --set low_bytes=0 >/dev/null || fail "setting one's own fails"
"$CTL" --json alloc 4K --mask 32 2>/dev/null >"$directory/refused"
expect 1 $? "an allocation beyond the quota"
shows "$directory/refused" '"reason":"quota"'
"$CTL" quota --set low_bytes=unlimited >/dev/null

# stats
"$CTL" stats >"$directory/stats"
shows "$directory/stats" '^METHOD COUNT MEAN-US P50-US P99-US MAX-US$'
shows "$directory/stats" '^broker.hello [0-9]+ [0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+$'
shows "$directory/stats" '^group memory$'
"$CTL" stats rpc >"$directory/stats"
grep -q '^group memory' "$directory/stats" && fail "another group is there too"
"$CTL" stats --reset || fail "stats --reset fails"
"$CTL" stats rpc >"$directory/stats"
grep -q '^quota.set' "$directory/stats" && fail "the statistics were not reset"

# map: the picture shows what the lists say.
"$CTL" alloc 64M --device a >"$directory/alloc" || fail "alloc fails"
"$CTL" map --width 60 >"$directory/map"
shows "$directory/map" '^sim \(simulated\): [0-9]+, of these [0-9]+ free, [0-9]+ in regions, 67108864 allocated$'
shows "$directory/map" '^0x[0-9a-f]+-0x[0-9a-f]+  [0-9]+, [0-9]+ a column$'
shows "$directory/map" '^\[[.]+a?A{20,}\]$'
shows "$directory/map" "^A user:$(id -u), 67108864 allocated\$"
awk 'length > 60 && /^\[/ { exit 1 }' "$directory/map" || fail "the picture is too wide"
grep -q "$(printf '\033')" "$directory/map" && fail "there are colours in a pipe"
"$CTL" map --json >"$directory/map"
shows "$directory/map" '"kind":"alloc","machine_addr":"0x[0-9a-f]+","size":67108864'

# check
"$CTL" check >"$directory/check" || fail "check finds something"
shows "$directory/check" '^clean yes$'
shows "$directory/check" '^allocs 1$'
"$CTL" check --repair --json >"$directory/check" || fail "check --repair finds something"
shows "$directory/check" '"clean":true'

# bench
"$CTL" bench --count 20 >"$directory/bench"
shows "$directory/bench" '^OPERATION COUNT P50-US P99-US MAX-US PER-SECOND$'
shows "$directory/bench" '^ping 20 [0-9.]+ [0-9.]+ [0-9.]+ [0-9]+$'
shows "$directory/bench" '^alloc\+free 20 '
expect 2 "$("$CTL" allocs | wc -l)" "lines of allocs after bench"
"$CTL" bench --count 20 --json >"$directory/bench"
shows "$directory/bench" '^\{"operations":\[\{"operation":"ping",'

# call
expect '{}' "$("$CTL" call broker.ping)" "the answer to a ping"
"$CTL" call broker.hello >"$directory/hello" || fail "call broker.hello fails"
shows "$directory/hello" '"role":"(admin|local)"'
"$CTL" call rpc.discover >"$directory/discover" || fail "call rpc.discover fails"
shows "$directory/discover" '^\{"openrpc":'
for method in $("$CTL" call --methods); do
        shows "$directory/discover" "\"name\":\"$method\""
done
