#!/bin/sh
# make install puts exactly these files where they belong, and make uninstall takes them away again.
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL
cd "$TOP_BUILDDIR" || exit 99

make -s install DESTDIR="$work/root" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

# Where things are depends on how configure was called; the list does not. INSTALL_DIRECTORIES is "name=directory" words.
(cd "$work/root" && find . ! -type d | sed 's|^\.||') >"$work/files"
for word in $INSTALL_DIRECTORIES; do
        sed -i "s|^${word#*=}/|${word%%=*}: |" "$work/files"
done
sort "$work/files" >"$work/got"

sort >"$work/wanted" <<'LIST'
bash: dmabrokerctl.bash
bin: dmabrokerctl
conf: dmabroker/dmabroker.conf
doc: alloc-latency.bt
doc: dmabroker-dashboard.json
include: dmabroker.h
lib: libdmabroker.la
lib: libdmabroker.so
lib: libdmabroker.so.0
lib: libdmabroker.so.0.0.0
man: man1/dmabrokerctl.1
man: man3/libdmabroker.3
man: man5/dmabroker.conf.5
man: man7/dmabroker-protocol.7
man: man8/dmabrokerd.8
pkgconfig: dmabroker.pc
sbin: dmabrokerd
sysusers: dmabroker.conf
tmpfiles: dmabroker.conf
unit: dmabroker.service
unit: dmabroker.socket
zsh: _dmabrokerctl
LIST

failures=0
diff -u "$work/wanted" "$work/got" || failures=1

# Only what dmabroker.h promises leaves the library, and with versions.
library=$(find "$work/root" -name 'libdmabroker.so.0.0.0')
if command -v readelf >/dev/null; then
        odd=$(readelf --dyn-syms -W "$library" | awk '$7 != "UND" && $5 == "GLOBAL" && NR > 3 { print $8 }' |
                grep -vE '^dmab_[a-z0-9_]+@@DMABROKER_[0-9.]+$|^DMABROKER_[0-9.]+$')
        [ -z "$odd" ] || { echo "symbols without version or outside the prefix: $odd"; failures=1; }
fi

make -s uninstall DESTDIR="$work/root" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
left=$(find "$work/root" ! -type d)
[ -z "$left" ] || { echo "make uninstall left: $left"; failures=1; }
exit $failures
