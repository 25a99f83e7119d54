#!/bin/sh
# The driver that moves to dmabroker in docs/user-space-driver.md: both forms compile and work, the guide shows what lies
# between them, and that is as little as it says.
: "${TOP_SRCDIR:=.}" "${TOP_BUILDDIR:=.}"
export WITH_DAEMON_OPTIONS="--source sim"
. "$TOP_SRCDIR/tests/lib/daemon.sh"

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
docs=$TOP_SRCDIR/docs

# compile OUTPUT SOURCE FLAGS...
compile() {
        output=$1
        source=$2
        shift 2
        # shellcheck disable=SC2086
        ${CC:-cc} -std=gnu11 $SANITIZE_CFLAGS -Wall -Wextra -Werror -I"$TOP_SRCDIR/include" "$docs/$source" \
                "$docs/driver-device.c" -o "$work/$output" "$@" || fail "$source does not compile"
}
compile before driver-before.c
compile after driver-after.c -DDEVICE_ASKS_BROKER -L"$TOP_BUILDDIR/.libs" -ldmabroker

export LD_LIBRARY_PATH="$TOP_BUILDDIR/.libs"
expect '1000 packets came back' "$("$work/after")" "the driver with dmabroker"
[ "$("$CTL" --json allocs)" = '{"allocs":[],"more":false}' ] || fail "the driver has left allocations behind"
[ "$("$CTL" --json pools)" = '{"pools":[],"more":false}' ] || fail "the driver has left a pool behind"
"$CTL" check >/dev/null || fail "check finds something"

# Both on real memory, where there is some.
"$TOP_BUILDDIR/tests/lib/with-daemon" --source sim --hugepages 1 -- "$work/before" >"$work/said" 2>&1
case $? in
0) expect '1000 packets came back' "$(tail -n 1 "$work/said")" "the driver with a huge page of its own" ;;
77) echo "no huge page is to be had: the driver of before is compiled only" ;;
*) fail "the driver of before: $(cat "$work/said")" ;;
esac
"$TOP_BUILDDIR/tests/lib/with-daemon" --source hugetlb --hugepages 16 -- "$work/after" >"$work/said" 2>&1
case $? in
0) expect '1000 packets came back' "$(tail -n 1 "$work/said")" "the driver with dmabroker on huge pages" ;;
77) echo "no huge pages are to be had: the driver with dmabroker has run on simulated memory only" ;;
*) fail "the driver with dmabroker on huge pages: $(cat "$work/said")" ;;
esac

# The guide.
awk '/^```/ { on = $0 == "```diff"; next } on' "$docs/user-space-driver.md" >"$work/shown"
diff -U1 "$docs/driver-before.c" "$docs/driver-after.c" | tail -n +3 | sed 's/^@@.*/@@/; s/ $//' >"$work/diff"
diff -u "$work/shown" "$work/diff" || fail "the guide (-) does not show what lies between the two drivers (+)"
lines=$(grep '^+' "$work/diff" | grep -vcE '^\+ *(/\*.*|\*.*| \*.*)?$')
[ "$lines" -le 20 ] || fail "moving takes $lines lines, not 20"
