#!/bin/sh
# Prometheus's own tool finds nothing to complain about in the metrics of a daemon that has been used.
command -v promtool >/dev/null || { echo "skipped: promtool is not installed (Debian: prometheus)"; exit 77; }
command -v curl >/dev/null || { echo "skipped: curl is not installed"; exit 77; }
if [ -z "$DMABROKER_PID" ]; then
        METRICS=$(mktemp -d) || exit 99
        export METRICS
        trap 'rm -rf "$METRICS"' EXIT
        printf '[metrics]\nlisten = unix:%s/socket\n' "$METRICS" >"$METRICS/conf"
        "$TOP_BUILDDIR/dmabrokerd" --check-config --config "$METRICS/conf" >"$METRICS/out" 2>&1 ||
                { grep -q libmicrohttpd "$METRICS/out" && echo "skipped: this build serves no metrics" && exit 77; }
        "$TOP_BUILDDIR/tests/lib/with-daemon" --config "$METRICS/conf" -- sh "$0"
        exit
fi
. "$TOP_SRCDIR/tests/lib/daemon.sh"

page() {
        curl -sSf --unix-socket "$METRICS/socket" http://dmabroker/metrics >"$METRICS/page" || fail "curl fails"
        promtool check metrics <"$METRICS/page" >"$METRICS/out" 2>&1 || fail "promtool complains: $(cat "$METRICS/out")"
        [ ! -s "$METRICS/out" ] || fail "promtool complains: $(cat "$METRICS/out")"
}

page
"$CTL" alloc 1M --device card >/dev/null || fail "alloc fails"
"$CTL" bench --count 10 >/dev/null || fail "bench fails"
"$CTL" pools create ring 256 true >/dev/null || fail "pools create fails"
"$CTL" alloc 100G >/dev/null 2>&1
page
grep -q '^dmabroker_rpc_duration_seconds_bucket{method="coherent.alloc",le="+Inf"} [0-9]*$' "$METRICS/page" ||
        fail "there is no histogram of coherent.alloc"
