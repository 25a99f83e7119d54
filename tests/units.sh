#!/bin/sh
# The systemd units are what systemd takes, with the daemon's real path put in, and the sandbox is as tight as it was.

# In tenths, from 0 to 100; docs/dmabrokerd.8 says it, too.
EXPOSURE_MAX=12

command -v systemd-analyze >/dev/null || { echo "skipped: systemd-analyze is not installed"; exit 77; }
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

[ -x "$TOP_BUILDDIR/dmabrokerd" ] || { echo "dmabrokerd is not built"; exit 1; }
sed "s|^\(Exec[A-Za-z]*\)=[^ ]*/dmabrokerd|\1=$TOP_BUILDDIR/dmabrokerd|" "$TOP_BUILDDIR/systemd/dmabroker.service" \
        >"$work/dmabroker.service" || exit 1
cp "$TOP_SRCDIR/systemd/dmabroker.socket" "$work" || exit 1

# The status alone will not do: a key that systemd does not know is only a warning.
systemd-analyze verify --man=no "$work/dmabroker.service" "$work/dmabroker.socket" >"$work/out" 2>&1
status=$?
grep -E "$work|dmabroker" "$work/out" | grep -vE 'Failed to (create|prepare)' >"$work/complaints"
cat "$work/out"
grep -q '@[a-z]*@' "$work/dmabroker.service" && { echo "a variable was not filled in"; exit 1; }
[ "$status" -eq 0 ] && [ ! -s "$work/complaints" ] || exit 1

grep -q "exposure is 1\.2 " "$TOP_SRCDIR/docs/dmabrokerd.8" || { echo "dmabrokerd(8) tells another exposure"; exit 1; }
# systemd before 250 cannot judge a file.
systemd-analyze security --help 2>/dev/null | grep -q offline || exit 0
systemd-analyze security --no-pager --offline=true --threshold=$EXPOSURE_MAX "$work/dmabroker.service" >"$work/out" 2>&1
status=$?
grep -E '^✗|exposure level' "$work/out"
exit $status
