#!/bin/sh
# The manual pages and the shipped configuration say what the daemon does: keys, types and defaults, options.
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
failures=0
daemon=$TOP_BUILDDIR/dmabrokerd
docs=$TOP_SRCDIR/docs

wrong() {
        echo "wrong: $*"
        failures=$((failures + 1))
}

"$daemon" --list-config >"$work/list" || exit 1
# Everything is documented for builds with Xen; one without knows nothing of it.
absent=
grep -q '^source xen' "$work/list" || absent='source xen'

# Every key: section, key, type, default. A source's defaults are part of its sentence: "... [default]".
awk -F '\t' -v OFS='\t' '
        $1 ~ /^source / && match($6, / \[.*\]$/) { $4 = substr($6, RSTART + 2, RLENGTH - 3) }
        { print $1, $2 ($5 == "restart" && $1 !~ /^source / ? "*" : ""), $3, $4 == "-" ? "no default" : "default " $4 }
' "$work/list" | sort >"$work/wanted"

awk -v OFS='\t' -v absent="$absent" '
        /^\.SS "\[/ { section = $0; gsub(/^\.SS "\[|\]"$| OWNER\]"$| NAME\]"$/, "", section) }
        /^\.BR .* " = / && section != absent {
                key = $2; sub(/\\-/, "-", key)
                rest = $0; sub(/^[^"]*" = /, "", rest); sub(/"$/, "", rest)
                type = rest; sub(/, .*/, "", type); sub(/^[^,]*, /, "", rest)
                print section, key, type, rest
        }
' "$docs/dmabroker.conf.5" | sort >"$work/got"
diff -u "$work/got" "$work/wanted" || wrong "dmabroker.conf.5 (-) is not what dmabrokerd --list-config says (+)"

# The configuration that is installed: with every comment sign before a key or a section taken away it is still valid,
# and it shows every key but those of the simulation.
sed 's/^#\(\[\|[a-z_]* =\)/\1/' "$TOP_SRCDIR/systemd/dmabroker.conf" |
        awk -v absent="[$absent]" '/^\[/ { skipped = $0 == absent } !skipped' >"$work/conf"
"$daemon" --check-config --config "$work/conf" || wrong "systemd/dmabroker.conf, uncommented, is refused"
"$daemon" --check-config --config "$TOP_SRCDIR/systemd/dmabroker.conf" || wrong "systemd/dmabroker.conf is refused"
awk -F '\t' '$1 != "source sim" { print $2 }' "$work/list" | sort -u | while read -r key; do
        grep -q "^$key = " "$work/conf" || echo "$key"
done >"$work/missing"
[ ! -s "$work/missing" ] || wrong "systemd/dmabroker.conf does not show: $(tr '\n' ' ' <"$work/missing")"

# The example of the manual page is valid too.
sed -n '/^\.SH EXAMPLE/,/^\.EE/p' "$docs/dmabroker.conf.5" | sed '/^\.[SE]/d' >"$work/example"
"$daemon" --check-config --config "$work/example" || wrong "the example in dmabroker.conf.5 is refused"

# Options: --help and the page name the same.
"$daemon" --help | grep -o -- '--[a-z][a-z-]*' | sort -u >"$work/help"
sed 's/\\-/-/g' "$docs/dmabrokerd.8" | grep -o -- '--[a-z][a-z-]*' | sort -u >"$work/page"
diff -u "$work/page" "$work/help" || wrong "dmabrokerd.8 (-) has other options than --help (+)"

# Messages that programs may wait for, in the order of daemon/log.h.
sed -n 's/^#define LOG_ID_[A-Z_]* "\([0-9a-f]*\)"$/\1/p' "$TOP_SRCDIR/daemon/log.h" >"$work/ids"
sed -n 's/^\.B \([0-9a-f]\{32\}\)$/\1/p' "$docs/dmabrokerd.8" >"$work/page"
[ -s "$work/ids" ] || wrong "daemon/log.h has no LOG_ID_"
diff -u "$work/page" "$work/ids" || wrong "dmabrokerd.8 (-) lists other messages than daemon/log.h (+)"
[ "$(sort "$work/ids" | uniq -d | wc -l)" -eq 0 ] || wrong "two messages have one number"

if command -v mandoc >/dev/null; then
        for page in "$docs"/*.[1-8]; do
                mandoc -T lint -W warning "$page" >"$work/lint" || { cat "$work/lint"; wrong "$page does not format"; }
        done
fi
[ "$failures" -eq 0 ]
