#!/bin/sh
# The probes of daemon/probes.h are in the program, where tracers find them, and in the manual; and the example uses no other.
grep -q '^#define HAVE_PROBES 1' "$TOP_BUILDDIR/config.h" || { echo "skipped: this build has no probes"; exit 77; }
command -v readelf >/dev/null || { echo "skipped: readelf is not installed"; exit 77; }
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
failures=0

# "name arguments", one probe a line.
sed ':again; /\\$/ { N; s/ *\\\n *PROBE/ PROBE/; b again }' "$TOP_SRCDIR/daemon/probes.h" |
        sed -n 's/^#define PROBE_[A-Z_]*(\([^)]*\)) PROBE(\([a-z_]*\), .*/\2 \1/p' |
        awk '{ print $1, NF - 1 }' | sort >"$work/header"
readelf -nW "$TOP_BUILDDIR/dmabrokerd" | awk '
        /Provider:/ { ours = $NF == "dmabroker" }
        $1 == "Name:" { name = $2 }
        $1 == "Arguments:" && ours { print name, NF - 1 }' | sort -u >"$work/program"
sed 's/\\-/-/g' "$TOP_SRCDIR/docs/dmabrokerd.8" | sed -n '/^\.SH PROBES/,/^\.SH [^P]/s/^\.BI "\([a-z_]*\)(" "\(.*\)" )$/\1 \2/p' |
        awk '{ print $1, NF - 1 }' | sort >"$work/page"
[ "$(wc -l <"$work/header")" -ge 8 ] || { echo "the probes are not found in daemon/probes.h"; failures=1; }
diff -u "$work/header" "$work/program" || { echo "the program (+) has other probes than daemon/probes.h (-)"; failures=1; }
diff -u "$work/header" "$work/page" || { echo "dmabrokerd.8 (+) lists other probes than daemon/probes.h (-)"; failures=1; }
for name in $(sed -n 's/^usdt:[^:]*:dmabroker:\([a-z_]*\).*/\1/p' "$TOP_SRCDIR/docs/alloc-latency.bt"); do
        grep -q "^$name " "$work/header" || { echo "docs/alloc-latency.bt uses a probe that is not there: $name"; failures=1; }
done
exit $failures
