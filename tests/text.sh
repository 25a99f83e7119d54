#!/bin/sh
# How the sources look, as far as a machine can say: width, blanks, unfinished work, tests that sleep.
cd "${TOP_SRCDIR:-.}" || exit 99
failures=0

refuse() {
        found=$(eval "$2")
        if [ -n "$found" ]; then
                echo "refused: $1"
                echo "$found" | head -20 | sed 's/^/        /'
                failures=$((failures + 1))
        fi
}

sources=$(find include proto client daemon tests docs -name '*.[ch]' | sort)
scripts=$(find tests docs -name '*.sh' | sort; echo run)
texts=$(find docs systemd README.md -type f ! -name '*.svg' | sort)
export sources scripts texts

# A snapshot of other people's test data keeps its own form.
mine='grep -v "^tests/[a-z]*/\(corpus\|data\)/"'

refuse 'a tab in C' "grep -nP '\t' \$sources | $mine"
refuse 'a line over 130 columns in C (120 is the aim)' "grep -nE '^.{131,}' \$sources | $mine"
refuse 'a blank at the end of a line' "grep -nE '[[:blank:]]\$' \$sources \$scripts \$texts | $mine"
refuse 'unfinished work' "grep -nwE 'TO''DO|FIX''ME|XX''X' \$sources \$scripts \$texts | $mine"
refuse 'a test that sleeps' "grep -nE '(^|[^a-z_])(u|nano)?sleep ?\\(' \$(printf '%s\n' \$sources | grep '^tests/')"
refuse 'a test script that sleeps' "grep -nE '(^|[;&|[:space:]])sleep [0-9]' \$(printf '%s\n' \$scripts | grep '^tests/')"
refuse 'a string function without a bound' "grep -nE '(^|[^a-z_])(sprintf|strcat|gets|vsprintf) ?\\(' \$sources"

[ "$failures" -eq 0 ]
