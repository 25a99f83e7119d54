#!/bin/sh
# On real huge pages, every page of what the broker gives is where it says.
: "${TOP_SRCDIR:=.}" "${TOP_BUILDDIR:=.}"
export WITH_DAEMON_OPTIONS="--source hugetlb --hugepages 32"
. "$TOP_SRCDIR/tests/lib/daemon.sh"

output=$("$TOP_BUILDDIR/docs/demo") || fail "the demo says: $output"
echo "$output"
[ "$(echo "$output" | grep -cE '^  ([0-9]+) of \1 pages are where the broker said')" -eq 2 ] || fail "not every page was compared"
"$CTL" check || fail "the books do not agree with the page map"
