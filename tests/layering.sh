#!/bin/sh
# Who may include what, and that every header compiles alone. The layers are explained in docs/architecture.md.
cd "${TOP_SRCDIR:-.}" || exit 99
failures=0

files() {
        find "$@" -name '*.[ch]' 2>/dev/null | sort
}

# refuse RULE PATTERN ALLOWED FILES: no line may match PATTERN, unless it matches ALLOWED too
refuse() {
        # shellcheck disable=SC2086
        found=$(grep -nE "$2" /dev/null $4 | grep -vE "$3")
        if [ -n "$found" ]; then
                echo "refused: $1"
                echo "$found" | sed 's/^/        /'
                failures=$((failures + 1))
        fi
}

include='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]'
hypervisor='(libvirt/|xen|linux/(vfio|iommufd|kvm)\.h)'
none='^$'
core=$(files daemon/core)
everything=$(files include proto client daemon tests docs)

[ -n "$core" ] || { echo "daemon/core/ has no files: is TOP_SRCDIR right?"; exit 99; }

refuse 'daemon/core/ knows no event loop, no JSON, no hypervisor and no system service' \
        "$include(uv|jansson|ini|liburing|microhttpd|systemd/|$hypervisor)" "$none" "$core"
refuse 'daemon/core/ does no input or output' \
        "$include(fcntl|poll|sys/(mman|socket|ioctl|epoll|eventfd|stat|uio|un))\\.h" "$none" "$core"
refuse 'daemon/core/ does no input or output' \
        '(^|[^a-z_>.])(v?f?printf|puts|fputs|perror|fopen|open|mmap|ioctl) ?\(' "$none" "$core"
refuse 'daemon/core/ uses nothing above it' \
        "$include(daemon/(rpc|source|iommu|guest)/|client/|proto/)" '"proto/reason\.h"' "$core"

refuse 'proto/ knows the protocol and nothing of the daemon or the library' \
        "$include(daemon/|client/|uv)" "$none" "$(files proto)"
refuse 'client/ knows nothing of the daemon' \
        "$include(daemon/|uv)" "$none" "$(files client)"
refuse 'daemon/source/ knows the core only' \
        "$include(daemon/(rpc|iommu|guest)/|client/|uv|jansson)" "$none" "$(files daemon/source)"
refuse 'only proto/, daemon/rpc/ and client/ touch jansson' \
        "${include}jansson" '^(proto|daemon/rpc|client|tests)/' "$everything"
refuse 'only daemon/metrics/ serves HTTP' "${include}microhttpd" '^daemon/metrics/' "$everything"
refuse "hypervisor headers only under daemon/source/, daemon/iommu/ and daemon/guest/, and the kernel's own for the guest's library" \
        "$include$hypervisor" '^((daemon/(source|iommu|guest)|tests/vm)/|tests/unit/(fake-)?xen|client/xen-device\.h:.*<xen/(evtchn|gntalloc|gntdev)\.h>)' \
        "$everything"
refuse 'the installed header includes only the C library' \
        "$include" '<(stdbool|stddef|stdint|sys/types)\.h>' "include/dmabroker.h"

found=$(find include proto client daemon tests docs -name 'util.[ch]' -o -name 'utils.[ch]' -o -name 'helpers.[ch]' \
        -o -name 'common.[ch]' -o -name 'misc.[ch]')
if [ -n "$found" ]; then
        echo "refused: a file is named after what it does: $found"
        failures=$((failures + 1))
fi

# Headers that need a library which this build does not have are left out by configure, and so are they here.
for header in $(printf '%s\n' "$everything" | grep '\.h$'); do
        # shellcheck disable=SC2086
        printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
                ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-parameter -Werror -fsyntax-only -x c \
                        -I. -Iinclude -I"$TOP_BUILDDIR" $LIBRARY_CFLAGS - >"$TOP_BUILDDIR/layering.out" 2>&1 || {
                echo "refused: $header does not compile alone, twice"
                sed 's/^/        /' "$TOP_BUILDDIR/layering.out"
                failures=$((failures + 1))
        }
done
rm -f "$TOP_BUILDDIR/layering.out"

[ "$failures" -eq 0 ] && echo "$(printf '%s\n' "$everything" | wc -l) files keep the rules"
[ "$failures" -eq 0 ]
