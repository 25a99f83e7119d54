#!/bin/sh
# The header, the list of exported symbols, the library itself and the manual page name the same functions.
HEADER=${TOP_SRCDIR:-.}/include/dmabroker.h
MAP=${TOP_SRCDIR:-.}/client/libdmabroker.map
MANUAL=${TOP_SRCDIR:-.}/docs/libdmabroker.3
LIBRARY=${TOP_BUILDDIR:-.}/.libs/libdmabroker.so.0
failures=0

compare() {
        if [ "$2" != "$4" ]; then
                echo "$1 and $3 differ:" >&2
                printf '%s\n' "$2" "$4" | sort | uniq -u >&2
                failures=$((failures + 1))
        fi
}

# Prototypes begin in the first column.
header=$(sed 's@/\*.*@@' "$HEADER" | sed -nE 's/^[a-z].*[ *](dmab_[a-z_]+)\(.*/\1/p' | sort)
map=$(sed -nE 's/^ +(dmab_[a-z_]+);/\1/p' "$MAP" | sort)
manual=$(sed -n '/^\.SH SYNOPSIS/,/^\.SH DESCRIPTION/p' "$MANUAL" | grep -oE 'dmab_[a-z_]+\(' | tr -d '(' | sort)
exported=$(nm -D --defined-only "$LIBRARY" | sed -nE 's/.* T (.*)@@DMABROKER_0$/\1/p' | sort)
all=$(nm -D --defined-only "$LIBRARY" | sed -nE 's/.* [TDBVW] (.*)/\1/p' | sed 's/@@.*//' | sort)

[ -n "$header" ] || { echo "no function was found in $HEADER" >&2; exit 99; }
compare "the header" "$header" "the list of symbols" "$map"
compare "the header" "$header" "the manual page" "$manual"
compare "the list of symbols" "$map" "what the library exports" "$exported"
compare "what the library exports with a version" "$exported" "what it exports" "$all"

# It is usable from C++, and on its own.
if command -v c++ >/dev/null; then
        echo '#include <dmabroker.h>' | c++ -Wall -Wextra -Werror -fsyntax-only -I"${TOP_SRCDIR:-.}/include" -x c++ - || failures=1
fi
echo '#include <dmabroker.h>' | ${CC:-cc} -std=c99 -Wall -Wextra -Werror -pedantic -fsyntax-only -I"${TOP_SRCDIR:-.}/include" -x c - ||
        failures=1

[ "$failures" -eq 0 ]
