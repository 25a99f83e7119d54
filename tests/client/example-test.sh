#!/bin/sh
# The example compiles as its first line says, and runs.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
trap 'rm -rf "$directory"' EXIT

# What pkg-config says, with the build tree in the place of the installed one.
flags=$(PKG_CONFIG_PATH=$TOP_BUILDDIR/client pkg-config --define-variable=includedir="$TOP_SRCDIR/include" \
        --define-variable=libdir="$TOP_BUILDDIR/.libs" --cflags --libs dmabroker) || fail "pkg-config knows no dmabroker"
# shellcheck disable=SC2086
${CC:-cc} -Wall -Wextra -Werror "$TOP_SRCDIR/docs/example.c" -o "$directory/example" $SANITIZE_CFLAGS $flags ||
        fail "the example does not compile"
LD_LIBRARY_PATH=$TOP_BUILDDIR/.libs "$directory/example" >"$directory/out" || fail "the example fails"
grep -Eq '^the device is given 0x[0-9a-f]{1,16}, the program has it at 0x[0-9a-f]+$' "$directory/out" ||
        fail "the example says: $(cat "$directory/out")"
[ "$("$CTL" --json allocs)" = '{"allocs":[],"more":false}' ] || fail "the example has left something behind"
