#!/bin/sh
# The README's example is docs/example.c, compiles as printed and runs, and so does that of docs/kvm.md; the first steps work as
# printed.
: "${TOP_SRCDIR:=.}" "${TOP_BUILDDIR:=.}"
export WITH_DAEMON_OPTIONS="--source sim"
. "$TOP_SRCDIR/tests/lib/daemon.sh"

work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

awk '/^```/ { on = $0 == "```c"; next } on' "$TOP_SRCDIR/README.md" >"$work/example.c"
diff -u "$TOP_SRCDIR/docs/example.c" "$work/example.c" || fail "the README's example is not docs/example.c"

# shellcheck disable=SC2086
${CC:-cc} $SANITIZE_CFLAGS -Wall -Wextra -Werror "$work/example.c" -o "$work/example" -I"$TOP_SRCDIR/include" \
        -L"$TOP_BUILDDIR/.libs" -ldmabroker || fail "the README's example does not compile"
LD_LIBRARY_PATH=$TOP_BUILDDIR/.libs "$work/example" || fail "the README's example does not run"

awk '/^```/ { on = $0 == "```c"; next } on' "$TOP_SRCDIR/docs/kvm.md" >"$work/guest-example.c"
diff -u "$TOP_SRCDIR/docs/guest-example.c" "$work/guest-example.c" || fail "the example in docs/kvm.md is not docs/guest-example.c"
# shellcheck disable=SC2086
${CC:-cc} $SANITIZE_CFLAGS -Wall -Wextra -Werror "$work/guest-example.c" -o "$work/guest-example" -I"$TOP_SRCDIR/include" \
        -L"$TOP_BUILDDIR/.libs" -ldmabroker || fail "the example in docs/kvm.md does not compile"
LD_LIBRARY_PATH=$TOP_BUILDDIR/.libs "$work/guest-example" some-card || fail "the example in docs/kvm.md does not run on a host"

PATH=$TOP_BUILDDIR:$PATH
sed -n '/^## First steps/,/^###/p' "$TOP_SRCDIR/README.md" | awk '/^```/ { on = $0 == "```sh"; next } on' >"$work/steps"
[ "$(wc -l <"$work/steps")" -ge 5 ] || fail "the first steps are not found in the README"
sh -e -x "$work/steps" || fail "the README's first steps do not work"

"$TOP_BUILDDIR/docs/demo" || fail "the demo does not run"
