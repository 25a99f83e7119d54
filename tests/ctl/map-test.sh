#!/bin/sh
# Memory that lies in many places is drawn as one, without the gaps.
# daemon.sh runs this script again: the file is made by the first run and removed by the second.
CONFIGURATION=${CONFIGURATION:-$(mktemp)} || exit 99
export CONFIGURATION
# Without an emergency reserve, which would keep the last piece from being taken whole.
printf '[memory]\nemergency_permille = 0\n[source sim]\nlayout = ' >"$CONFIGURATION"
for place in 1 2 3 4 5 6 7 8 9; do
        printf '4M@0x%s0000000,' "$place" >>"$CONFIGURATION"
done
printf '4M@0x1000000000\n' >>"$CONFIGURATION"
# shellcheck disable=SC2034
WITH_DAEMON_OPTIONS="--config $CONFIGURATION"
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"
rm -f "$CONFIGURATION"

# 40 MiB on 4 rows of 60 columns: the last 4 MiB, which go first, are a tenth of all 240 columns. High priority, because
# some of them would be kept for it.
"$CTL" alloc --high 4M >/dev/null || fail "alloc fails"
picture=$("$CTL" map --width 62) || fail "map fails"
expect 1 "$(printf '%s\n' "$picture" | grep -c '^0x10000000-0x10003fffff  41943040 without the gaps, ')" "headings"
expect 4 "$(printf '%s\n' "$picture" | grep -c '^\[')" "rows"
printf '%s\n' "$picture" | grep '^\[' | tail -n 1 | grep -Eq '^\[[.]+a?A{20,26}\]$' || fail "the last row is wrong: $picture"
expect 3 "$(printf '%s\n' "$picture" | grep -cE '^\[[.]{60}\]$')" "rows without allocations"
